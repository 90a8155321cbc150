"""Lines to a descriptor, written by a thread of its own: a reader that does not read must not stop the event loop.

Lines that come within `GATHER_S` are written together. While nothing can be written they wait, up to `LIMIT`; what comes beyond that is
counted, and told once there is room again.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

GATHER_S: Final = 0.02  # what a process that is killed may lose
CLOSE_S: Final = 1.0  # for a reader that does not read
LIMIT: Final = 4 << 20  # characters that wait
_PAUSE_S: Final = 0.02  # where a descriptor says that it takes nothing just now


class Outlet:
    """To be used by any thread. Nothing of it raises, or waits for the descriptor, but `close`."""

    def __init__(self, descriptor: int, told: Callable[[int], None]) -> None:
        """`told` is called, by the thread, with the number of lines that were lost."""
        self._descriptor = descriptor
        self._told = told
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._size = 0
        self._lost = 0
        self.lost = 0  # lines, since the start
        self._some = threading.Event()
        self._closing = threading.Event()
        # One that hangs with its reader must not keep the process from its end.
        self._thread = threading.Thread(target=self._run, name="bearerd-log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        with self._lock:
            if self._size > LIMIT:
                self._lost += 1
                self.lost += 1
                return
            self._waiting.append(line)
            self._size += len(line)
        if not self._some.is_set():
            self._some.set()

    def flush(self) -> None:
        """Lines are written soon, whatever is done."""

    def close(self) -> None:
        """Write what there is, within `CLOSE_S`."""
        self._closing.set()
        self._some.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._some.wait()
            self._closing.wait(GATHER_S)
            self._write_all()

    def _write_all(self) -> None:
        while True:
            self._some.clear()
            with self._lock:
                text, lost = "".join(self._waiting), self._lost
                self._waiting.clear()
                self._size = self._lost = 0
            if text:
                _put(self._descriptor, text.encode("utf-8", "backslashreplace"))
            if lost:
                self._told(lost)
            elif not text:
                return


def _put(descriptor: int, data: bytes) -> None:
    """All of it, but where the descriptor fails: a full disk, or a reader that has gone."""
    left = memoryview(data)
    with suppress(OSError):
        while left:
            try:
                left = left[os.write(descriptor, left) :]
            except BlockingIOError:
                time.sleep(_PAUSE_S)
