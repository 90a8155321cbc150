"""A file without a name, for what is too large to be kept in memory: it ends with the process, however that ends.

Its bytes are written and read in threads, for a disk may take its time even where there is room in the page cache.
"""

import asyncio
import errno
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import Any, Final, TypeVar

import structlog

from bearerd.way import find_weakness, make_folders, own_home

_T = TypeVar("_T")

CHUNK: Final = 1 << 16
_LOG: Final = structlog.get_logger("bearerd.forward")


class DiskFile:
    """Bytes in `folder`, which is made if it is not there. `size` are those that are there for certain.

    One thing at a time is done with the file. Who waits for it may be cancelled: what was begun goes on to its end.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: FileIO | None = None
        self._work: asyncio.Future[Any] | None = None
        self._lock = Lock()  # for the next two
        self._busy = False
        self._closed = False
        self.size = 0

    async def append(self, data: bytes) -> bool:
        """Whether `data` is kept now. If not, which is logged, or when this is cancelled, `size` is as it was."""
        try:
            await self._do(lambda: self._write(data, self.size))
        except OSError as exc:
            _LOG.warning("body.not_kept", folder=str(self._folder), reason=exc.strerror)
            return False
        self.size += len(data)
        return True

    async def read(self, at: int) -> bytes:
        """Bytes from the offset `at`, which is below `size`: some at least. Raises OSError, EOFError."""
        most = min(CHUNK, self.size - at)  # behind that is what the writing of was given up
        data = await self._do(lambda: self._read(at, most))
        if not data:
            raise EOFError
        return data

    def close(self) -> None:
        """Let go of the file and all that is in it, as soon as nothing is done with it. Nothing else may follow."""
        with self._lock:
            self._closed = True
            busy = self._busy
        if not busy and self._file is not None:
            self._start(self._file.close)  # it takes a while for a large one

    async def _do(self, work: Callable[[], _T]) -> _T:
        if self._work is not None and not self._work.done():
            await asyncio.wait([self._work])
        self._busy = True
        future = self._start(lambda: self._run(work))
        self._work = future
        await asyncio.wait([future])
        return future.result()

    def _start(self, work: Callable[[], _T]) -> "asyncio.Future[_T]":
        future = asyncio.get_running_loop().run_in_executor(None, work)
        future.add_done_callback(_take_note)
        return future

    def _run(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        finally:
            with self._lock:
                self._busy = False
                if self._closed and self._file is not None:
                    self._file.close()

    def _write(self, data: bytes, at: int) -> None:
        if self._file is None:
            make_folders(self._folder)
            if weakness := find_weakness(self._folder, own_home()):
                raise PermissionError(errno.EPERM, weakness.found)
            self._file = TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115  # it outlives this call
        self._file.seek(at)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    def _read(self, at: int, most: int) -> bytes:
        assert self._file is not None  # noqa: S101  # something was written
        self._file.seek(at)
        return self._file.read(most)


def _take_note(work: asyncio.Future[Any]) -> None:
    """Of what became of it, also where nobody waits for that any more: an error would be a complaint of the loop's."""
    if not work.cancelled():
        work.exception()
