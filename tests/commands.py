"""bearerd's commands as processes, with pipes or with a terminal."""

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import canaries

LIMIT_S: Final = 120.0
SAYING_S: Final = 60.0
LINES: Final = 60
COLUMNS: Final = 100
PRINTED: Final = ("state",)  # in the address that a person is to open
CTRL_C: Final = "\x03"
CTRL_D: Final = "\x04"


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    status: int
    out: str
    err: str


async def run(*words: str | Path, stdin: str = "", python: tuple[str, ...] = (), **variables: str) -> Ended:
    canaries.know_variables(variables)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *python, "-m", "bearerd", *map(str, words)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=os.environ | variables,
    )
    async with asyncio.timeout(LIMIT_S):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    canaries.note(f"what bearerd {words[:1]} says", err)
    if words[:1] != ("token",):  # its purpose
        canaries.note(f"what bearerd {words[:1]} prints", out, PRINTED)
    return Ended(process.returncode, out.decode(), err.decode())


def write(folder: Path, toml: str) -> Path:
    file = folder / "bearerd.toml"
    file.write_text(toml)
    canaries.know_toml(toml)
    file.chmod(0o600)
    return file


class Terminal:
    """A command in a terminal of its own, and the person at it. `shown` is what has been on the screen."""

    program: tuple[str, ...] = (sys.executable, "-m", "bearerd")

    def __init__(self, *words: str | Path, **variables: str) -> None:
        self._words = tuple(map(str, words))
        self._variables = variables
        canaries.know_variables(variables)
        self._shown = bytearray()
        self._more = asyncio.Event()
        self._screen = -1
        self._process: Process

    @property
    def shown(self) -> str:
        return self._shown.decode().replace("\r\n", "\n")

    @property
    def pid(self) -> int:
        return self._process.pid

    async def __aenter__(self) -> Self:
        self._screen, keyboard = pty.openpty()
        fcntl.ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _AT_A_TERMINAL, *self.program, *self._words),
                stdin=keyboard,
                stdout=keyboard,
                stderr=keyboard,
                start_new_session=True,
                env=os.environ | self._variables,
            )
        finally:
            os.close(keyboard)
        asyncio.get_running_loop().add_reader(self._screen, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            canaries.note_process(self.pid, self._variables)
            self._process.kill()
            await self._process.wait()
        asyncio.get_running_loop().remove_reader(self._screen)
        os.close(self._screen)
        if self._words[0] != "token":
            canaries.note("what was on a terminal", self._typed_out(), PRINTED)

    def _typed_out(self) -> str:
        """What was shown, without what the person at it has typed, which a terminal shows, too."""
        return self.shown.replace(self._typed, "") if self._typed else self.shown

    async def until(self, pattern: str) -> str:
        """The first group of `pattern`, or all of it, once that is on the screen."""
        async with asyncio.timeout(SAYING_S):
            while (found := re.search(pattern, self.shown)) is None:
                assert not self._over, f"{pattern} was not said, but:\n{self.shown}"
                self._more.clear()
                await self._more.wait()
        return found[1] if found.re.groups else found[0]

    def type(self, text: str) -> None:
        self._typed = text.strip() or self._typed
        os.write(self._screen, text.encode())

    async def end(self) -> int:
        """The exit status, once the command has ended by itself and all it said is on the screen."""
        async with asyncio.timeout(LIMIT_S):
            status = await self._process.wait()
            while not self._over:
                self._more.clear()
                await self._more.wait()
        return status

    _over = False
    _typed = ""

    def _read(self) -> None:
        data = b""
        with suppress(OSError):  # EIO: nobody has the terminal open any more
            data = os.read(self._screen, 1 << 16)
        if not data:
            self._over = True
            asyncio.get_running_loop().remove_reader(self._screen)
        self._shown += data
        self._more.set()


_AT_A_TERMINAL: Final = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
