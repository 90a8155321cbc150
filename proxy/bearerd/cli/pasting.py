"""What a person pastes, line by line, while something else goes on."""

import asyncio
import os
import sys
import threading
from typing import Final, Self

LINE_LIMIT: Final = 64 << 10


class Pasted:
    """Reads standard input in a thread of its own, which ends with the process: nothing can wake it from a read.

    Once input has ended nothing is pasted any more, and what goes on goes on.
    """

    def __init__(self) -> None:
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        # Not `sys.stdin.readline`: that would hold a lock which the interpreter wants at its end.
        threading.Thread(target=self._read, args=(sys.stdin.fileno(),), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """The thread is left where it is."""

    async def next(self) -> str | None:
        """The next line that is not empty. Waits for ever where there is none."""
        return await self._lines.get()

    def _read(self, descriptor: int) -> None:
        data = b""
        while chunk := _read_some(descriptor):
            *lines, data = (data + chunk).split(b"\n")
            for line in lines:
                self._put(line)
            data = data[-LINE_LIMIT:]
        self._put(data)

    def _put(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()
        if text:
            try:
                self._loop.call_soon_threadsafe(self._lines.put_nowait, text)
            except RuntimeError:
                """The loop has ended, and with it the login."""


def _read_some(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, LINE_LIMIT)
    except OSError:
        return b""
