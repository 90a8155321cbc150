"""The fenced blocks of a page, and a shell for their commands: what readers copy is what tests run.

A comment on the line before a block, which no reader sees, names it: ``<!-- run: name -->``; or it says why nothing runs it:
``<!-- not run: reason -->``. Lines that begin with ``$ `` are commands; one that ends in a backslash goes on in the next. What stands below is what
it prints: ``...`` or ``…`` in a line is anything, alone any lines; nothing is anything, too. A block without ``$ `` is one script.
"""

import asyncio
import os
import re
import shlex
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import canaries
from commands import Terminal

LIMIT_S: Final = 120.0
_FENCE: Final = re.compile(r"( *)(`{3,}|~{3,})([^\s`]*)")
_HEADING: Final = re.compile(r"#{1,6} +(.*?)(?: +#+)?$")
_MARKER: Final = re.compile(r" *<!-- (run|not run): (.+?) -->$")
_STEP: Final = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
_ANY: Final = re.compile(r"\.\.\.|…")
_ENDED: Final = re.compile(r"\x1e(\d+)\x1e\n")


@dataclass(frozen=True)
class Block:
    """`heading` is the one above it, `line` where it begins; `name` and `reason` are of the comment, or empty."""

    language: str
    text: str
    heading: str
    line: int
    name: str = ""
    reason: str = ""

    def put(self, others: Mapping[str, str]) -> "Block":
        """The block with other texts in place of some, as a test has another port, server or folder than the page."""
        text = self.text
        for shown, real in others.items():
            assert shown in text, f"there is no {shown!r} in the block of line {self.line}"
            text = text.replace(shown, real)
        return replace(self, text=text)

    def put_shown(self, others: Mapping[str, str]) -> "Block":
        """Likewise, where the block shows them."""
        return self.put({shown: real for shown, real in others.items() if shown in self.text})


@dataclass(frozen=True)
class Step:
    """A command, and what stands below it."""

    command: str
    output: str = ""


def read_blocks(page: str) -> list[Block]:
    """Those of a Markdown page, from top to bottom. Raises ValueError where one has no end."""
    blocks: list[Block] = []
    heading, comment = "", dict[str, str]()
    lines = enumerate(page.splitlines(), 1)
    for number, line in lines:
        if fence := _FENCE.match(line):
            text = "".join(_inside(lines, fence[1], fence[2], number))
            blocks.append(Block(fence[3], text, heading, number, **comment))
        found = _HEADING.match(line)
        heading = found[1] if found else heading
        marker = _MARKER.match(line)
        comment = {"name" if marker[1] == "run" else "reason": marker[2]} if marker else {}
    return blocks


def _inside(lines: Iterator[tuple[int, str]], indent: str, fence: str, begin: int) -> Iterator[str]:
    for _, line in lines:
        if line.strip().startswith(fence) and not line.strip(f" {fence[0]}"):
            return
        yield line.removeprefix(indent) + "\n"
    raise ValueError(f"the block of line {begin} has no end")


def find_block(page: Path, name: str) -> Block:
    """The block of that name. Raises LookupError where there is none, or several."""
    found = [block for block in read_blocks(page.read_text(encoding="utf-8")) if block.name == name]
    if len(found) != 1:
        raise LookupError(f"{page.name} has {len(found)} blocks with <!-- run: {name} -->")
    return found[0]


def read_steps(block: Block) -> list[Step]:
    """Its commands in their order. Raises ValueError where output stands above the first."""
    steps = [Step(command, output.strip("\n")) for command, output in _STEP.findall(block.text)]
    if steps and not block.text.lstrip("\n").startswith("$ "):
        raise ValueError(f"the block of line {block.line} has output above its first command")
    return steps or [Step(block.text)]


def pattern(output: str) -> str:
    """A regular expression for all that `output` stands for, which ends with a line's end."""
    return "".join(
        r"(?:.*\n)*?" if _ANY.fullmatch(line.strip()) else ".*".join(map(re.escape, _ANY.split(line))) + r"\n"
        for line in trim(output).splitlines()
    )


def trim(text: str) -> str:
    """Without white space at the ends of lines, and empty lines at its own."""
    return "".join(f"{line.rstrip()}\n" for line in text.strip("\n").splitlines())


async def follow(block: Block, folder: Path, **variables: str) -> list[str]:
    """What the block's commands print, standard error among it, in one shell that begins in `folder`.

    `variables` are added to this process's. Fails at the first command that does not end with status 0, or prints something
    else than what stands below it.
    """
    canaries.know_variables(variables)
    steps = read_steps(block)
    environment = environment_with(variables)
    script = "".join(f"{step.command}\nprintf '\\036%s\\036\\n' $?\n" for step in steps)
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script), cwd=folder, env=environment, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            said = _ENDED.split((await process.communicate())[0].decode())
    finally:
        if process.returncode is None:
            process.kill()
    for step, printed, status in zip(steps, said[::2], said[1::2], strict=False):
        assert status == "0", f"{step.command}\nended with {status}:\n{printed}"
        agrees = not step.output or re.fullmatch(pattern(step.output), trim(printed))
        assert agrees, f"{step.command}\nis to print\n{step.output}\nand printed\n{printed}"
    assert len(said) == 2 * len(steps) + 1, f"the shell has ended before its commands:\n{said[-1]}"
    return said[:-1:2]


class Window(Terminal):
    """A terminal for one command of a page that goes on, or asks: ``await window.until(pattern(step.output))``."""

    program = ("/usr/bin/env", "bash", "-c")

    def __init__(self, step: Step, folder: Path, **variables: str) -> None:
        super().__init__(
            f"cd {shlex.quote(str(folder))} && exec {step.command}", **environment_with(variables)
        )


def environment_with(variables: Mapping[str, str]) -> dict[str, str]:
    """In which `bearerd` and `python` are those that the tests run with."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return {**os.environ, "PATH": path, **variables}
