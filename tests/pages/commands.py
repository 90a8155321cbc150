"""The commands as their help has them, before it is put into lines."""

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc
from typing import Final

import click

_EXAMPLE: Final = "Example: "
_KEPT: Final = "\b\n"


@dataclass(frozen=True)
class Command:
    """`usage` and `options` as click words them; `kept` paragraphs have lines that stay as they are."""

    name: str
    usage: str
    paragraphs: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    example: str
    epilog: str
    group: bool

    @property
    def summary(self) -> str:
        return self.paragraphs[0]


def read_commands(command: click.Command, parent: click.Context | None = None) -> Iterator[Command]:
    """The command and all below it."""
    name = "bearerd" if parent is None else command.name
    context = click.Context(command, parent=parent, info_name=name, help_option_names=["-h", "--help"])
    *paragraphs, last = cleandoc(command.help or "").split("\n\n")
    example = last.removeprefix(_EXAMPLE) if last.startswith(_EXAMPLE) else ""
    yield Command(
        context.command_path,
        " ".join([context.command_path, *command.collect_usage_pieces(context)]),
        tuple(map(_join, paragraphs if example else [*paragraphs, last])),
        tuple(_options(command, context)),
        example,
        command.epilog or "",
        isinstance(command, click.Group),
    )
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from read_commands(found, context)


def is_kept(paragraph: str) -> bool:
    """Whether its lines stay as they are."""
    return "\n" in paragraph


def _join(paragraph: str) -> str:
    if paragraph.startswith(_KEPT):
        return paragraph.removeprefix(_KEPT) + "\n"
    return " ".join(paragraph.split())


def _options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """But for --help, which all have."""
    for parameter in command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            yield record[0], " ".join(record[1].split())
