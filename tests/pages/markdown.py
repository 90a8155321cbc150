"""The commands as a page of the documentation."""

from collections.abc import Iterable, Iterator

from pages.commands import Command, is_kept

_HEAD = """\
# Commands

This page is made from the program: `make pages` writes it, and `bearerd COMMAND --help` says the same. Installed with bearerd,
there are man pages too: `man bearerd` and `man bearerd.toml`.
"""


def build_reference(commands: Iterable[Command]) -> str:
    return "\n".join([_HEAD, *("\n".join(_command(command)) for command in commands)])


def _command(command: Command) -> Iterator[str]:
    level = "##" if command.name.count(" ") < 2 else "###"
    yield f"{level} `{command.name}`\n"
    yield f"```text\n{command.usage}\n```\n"
    for paragraph in command.paragraphs:
        yield f"```text\n{paragraph}```\n" if is_kept(paragraph) else f"{_escape(paragraph)}\n"
    if command.example:
        yield f"```sh\n{command.example}\n```\n"
    if command.options:
        yield "| option | what it does |\n|---|---|"
        yield from (f"| `{_cell(names)}` | {_cell(_escape(text))} |" for names, text in command.options)
        yield ""
    if command.epilog:
        yield f"{_escape(command.epilog)}\n"


def _escape(text: str) -> str:
    for char in "\\`*_<>[]":
        text = text.replace(char, f"\\{char}")
    return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
