"""A token that somebody else keeps fresh in a file (a projected volume, an agent, a descriptor)."""

import asyncio
import errno
import os
import select
import stat
import time
from contextlib import suppress
from typing import Final

from bearerd.core.accounts import FileSource
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.outputs import parse_output
from bearerd.core.tokens import Granted, TokenSet
from bearerd.ports import Clock

FILE_LIMIT: Final = 1 << 20
PIPE_S: Final = 10.0  # how long a pipe's writer may take to end it
POLL_S: Final = 1.0  # how soon a changed file is seen; a 401 sees it at once


class FileTokenSource:
    """Reads the file again when it changes. ``fd:N`` is an inherited descriptor: a pipe is read once."""

    def __init__(self, source: FileSource, clock: Clock) -> None:
        self._target: str | int = int(source.path[3:]) if source.path.startswith("fd:") else source.path
        self._clock = clock
        self._seen: tuple[int, ...] | None = None
        self._drained: bytes | None = None
        if isinstance(self._target, int):
            with suppress(OSError):  # a descriptor that is not open is a failure of `obtain`
                os.set_inheritable(self._target, False)  # it was meant for us, not for the commands we run

    async def obtain(self, current: TokenSet | None) -> Granted | Failure:
        del current
        try:
            text = await asyncio.to_thread(self._read)
        except OSError as exc:
            reason = f"the token file cannot be read: {os.strerror(exc.errno or 0)}"
            return Failure(FailureKind.TRANSIENT, reason)
        return parse_output(text, self._clock.wall(), origin="the token file")

    def changed(self) -> bool:
        return self._drained is None and self._signature() != self._seen

    async def aclose(self) -> None:
        """Nothing is kept open: an inherited descriptor stays its giver's."""

    def _read(self) -> bytes:
        if self._drained is not None:
            return self._drained
        self._seen = self._signature()  # before the bytes: a change in between is seen as one later
        if isinstance(self._target, str):
            with open(self._target, "rb", opener=_open_at_once) as file:
                return file.read(FILE_LIMIT) or b""  # None: a pipe with nothing in it yet
        if stat.S_ISREG(os.fstat(self._target).st_mode):
            return os.pread(self._target, FILE_LIMIT, 0)
        self._drained = _drain(self._target)
        return self._drained

    def _signature(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._target)  # noqa: PTH116  # takes a descriptor too
        except OSError:
            return None
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _open_at_once(path: str, flags: int) -> int:
    """Opening a named pipe that nobody writes to would block for ever, and the daemon's end with it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _drain(descriptor: int) -> bytes:
    """A pipe's content, up to its end. Raises TimeoutError where its writer keeps it open."""
    text = bytearray()
    deadline = time.monotonic() + PIPE_S
    while len(text) < FILE_LIMIT:
        readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise TimeoutError(errno.ETIMEDOUT, "the writer keeps the pipe open")
        chunk = os.read(descriptor, 65536)
        if not chunk:
            break
        text += chunk
    return bytes(text)
