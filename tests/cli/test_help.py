"""The help of every command: a first sentence that fits, an example that can be run, and the same words for the same things."""

import re
import shlex
from collections.abc import Iterator
from inspect import cleandoc

import click
import pytest
from click.testing import CliRunner

from bearerd.cli import EXIT_STATUS, main


def walk(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from walk(inner, (*path, name))


ALL = dict(walk(main))
LEAVES = {path: command for path, command in ALL.items() if not isinstance(command, click.Group)}


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_the_first_sentence_fits_beside_the_name(path: tuple[str, ...]) -> None:
    command = ALL[path]
    first = cleandoc(command.help or "").partition("\n\n")[0]
    assert re.fullmatch(r"[A-Z][^\n]{1,59}\.", first)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_it_ends_with_an_example_that_the_command_takes(path: tuple[str, ...]) -> None:
    example = cleandoc(LEAVES[path].help or "").rpartition("\n\n")[2]
    assert example.startswith("Example: ")
    words = shlex.split(example.removeprefix("Example: ").partition(" > ")[0])
    if words[0] == "eval":
        words = shlex.split(words[1].strip("$()"))
    assert words[: 1 + len(path)] == ["bearerd", *path]
    LEAVES[path].make_context("bearerd", words[1 + len(path) :])


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_says_what_it_is_for(path: tuple[str, ...]) -> None:
    for parameter in LEAVES[path].params:
        if isinstance(parameter, click.Option):
            assert re.fullmatch(r"[A-Z].*[.\])]", str(parameter.help)), parameter.name


def test_all_of_it_fits_a_terminal_of_eighty_columns() -> None:
    shown = CliRunner().invoke(main, ["--help"], terminal_width=80).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "..." not in shown.replace("[ARGS]...", "")


def test_the_exit_status_is_told() -> None:
    shown = " ".join(CliRunner().invoke(main, ["--help"]).stdout.split())
    assert EXIT_STATUS in shown
