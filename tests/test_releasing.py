"""What the pages for developers tell to run is there to be run, and what they name is there."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

PROJECT: Final = Path(__file__).parent.parent
PAGES: Final = ("contributing.md", "releasing.md")
TARGETS: Final = frozenset(
    re.findall(r"(?m)^([a-z-]+):.*  ## ", (PROJECT / "Makefile").read_text(encoding="utf-8"))
)
MADE: Final = (".venv/", ".make/")
"""Folders of environments, which are made on the way: what is in one has the name of a program."""

INSTALLED: Final = frozenset({"bearerd", "pip", "python"})
"""What an environment has. Commands of bearerd's are looked at in tests/test_code_blocks.py, on every page."""

_BLOCK: Final = re.compile(r"(?ms)^```sh\n(.*?)^```")
_INLINE: Final = re.compile(r"`((?:make|git|bearerd) [^`\n]*|\.ci/[a-z-]+|\.venv/bin/[^`\n]*)`")
_PATH: Final = re.compile(r"`([\w.-]+/[\w./-]*|[\w-]+\.(?:py|md|toml))`")
_JOINED: Final = re.compile(r"&&|\|")


def commands(page: str) -> list[str]:
    """Each by itself, of blocks and of what is quoted in a sentence."""
    lines = [line for block in _BLOCK.findall(page) for line in block.splitlines()]
    lines += _INLINE.findall(_BLOCK.sub("", page))
    return [part.strip() for line in lines for part in _JOINED.split(line)]


def judge(command: str) -> Iterator[str]:
    """What of it cannot be run, if anything."""
    name, *words = shlex.split(command)
    program = name.rpartition("/")[2] if name.startswith(MADE) else name
    if program == "make":
        yield from (f"no target {word}" for word in words if "=" not in word and word not in TARGETS)
    elif "/" in program:
        if not os.access(PROJECT / program, os.X_OK):
            yield f"no program {program}"
    elif program not in INSTALLED and shutil.which(program) is None:
        yield f"no program {program}"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("make nothing", "no target nothing"),
        ("make PYTHON=python3 tests", "no target tests"),
        (".ci/nothing", "no program .ci/nothing"),
        ("README.md", "no program README.md"),
        ("no-such-program --help", "no program no-such-program"),
        (".make/try/bin/no-such-program", "no program no-such-program"),
    ],
)
def test_what_cannot_be_run_is_seen(command: str, problem: str) -> None:
    assert list(judge(command)) == [problem]


def test_commands_are_found_wherever_they_stand() -> None:
    page = "Run `make lint`, then\n\n```sh\nmake test && .ci/run\ngit describe | sort\n```\n"
    assert commands(page) == ["make test", ".ci/run", "git describe", "sort", "make lint"]


@pytest.mark.parametrize("name", PAGES)
def test_every_command_can_be_run(name: str) -> None:
    found = commands((PROJECT / "docs" / name).read_text(encoding="utf-8"))
    assert "make soak" in found
    assert {command: problems for command in found if (problems := list(judge(command)))} == {}


@pytest.mark.parametrize("name", PAGES)
def test_every_path_is_there(name: str) -> None:
    """Those of the package may be written without it. What is made on the way is not there yet."""
    paths = _PATH.findall((PROJECT / "docs" / name).read_text(encoding="utf-8"))
    assert {"CHANGELOG.md", "pyproject.toml"} <= set(paths)
    places = (PROJECT, PROJECT / "proxy" / "bearerd")
    missing = {path for path in paths if not any((place / path).exists() for place in places)}
    assert {path for path in missing if not path.startswith((*MADE, "dist/"))} == set()


def test_a_release_goes_by_all_there_is_to_run() -> None:
    """A kind of test that a release leaves out is one that nobody runs."""
    page = (PROJECT / "docs" / "releasing.md").read_text(encoding="utf-8")
    assert {"make soak", "make fuzz", "make container-test", "make bench", "make dist"} <= set(commands(page))
    assert ".ci/run" in commands(page)
