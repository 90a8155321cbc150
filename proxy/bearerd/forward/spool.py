"""Request bodies that can be sent a second time, within limits of memory, and of disk where a route wants that."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import StreamReader

from bearerd.forward.disk import DiskFile
from bearerd.forward.pieces import Write, pour


class BodyStalled(TimeoutError):  # noqa: N818  # what happened to the body, not an error of anybody's
    """The client has stopped in the middle of its request body for longer than it may."""


@dataclass(slots=True)
class SpoolBudget:
    """Bytes that all spools together may keep, and how many each may."""

    left: int
    per_call: int
    _total: int = field(init=False)

    def __post_init__(self) -> None:
        self._total = self.left

    def resize(self, total: int, per_call: int) -> None:
        """Other limits from now on. What is kept beyond them goes as its calls end."""
        self.left += total - self._total
        self._total, self.per_call = total, per_call

    @property
    def room(self) -> int:
        """The most that a call can get now."""
        return min(self.left, self.per_call)

    def take(self, size: int, taken: int) -> bool:
        """Whether a call that has `taken` bytes gets `size` more."""
        if taken + size > self.per_call or size > self.left:
            return False
        self.left -= size
        return True


@dataclass(frozen=True, slots=True)
class Disk:
    """Where bodies are kept for which there is no room in memory, and how much of them."""

    folder: Path
    budget: SpoolBudget


class Spool:
    """A request body, streamed as it comes and kept for a replay until it grows over the limits.

    `pour` may be called again after it was given up: what was kept comes first. `lost` says that it
    could not be read back. A body of more than its limit is not kept at all where its `length`, 0 if that is not known,
    says so beforehand. `ask` is called before the client's first byte is waited for; until then it is `untouched`.
    """

    def __init__(
        self,
        content: StreamReader,
        budget: SpoolBudget,
        disk: Disk | None = None,
        length: int = 0,
        ask: Callable[[], None] | None = None,
    ) -> None:
        self._content = content
        self._budget = budget
        self._disk = disk
        self._kept: list[bytes] = []  # all of it, or the end of it that is not on disk yet
        self._size = 0  # in memory
        self._file: DiskFile | None = None
        self._on_disk = 0
        self._length = length
        self._ask = ask
        self._too_large = length > max(budget.per_call, disk.budget.per_call if disk else 0)
        self.replayable = True
        self.untouched = True
        self.lost = False

    @property
    def doubtful(self) -> bool:
        """Whether it may be too large to be kept."""
        return not 0 < self._length <= max(self._budget.room, self._disk.budget.room if self._disk else 0)

    async def pour(self, write: Write, drain: Callable[[], Awaitable[None]]) -> None:
        """Give `write` the body from its start, and wait for `drain` where that takes no more.

        Not to be called again once `replayable` is False. Raises OSError, EOFError, and what the body was ended with.
        """
        await self._pour_kept(write, drain)
        if self.untouched:
            self.untouched = False
            if self._ask is not None:
                self._ask()

        def pass_on(chunk: bytes) -> bool:
            self._keep(chunk)
            return write(chunk) and self._file is None

        while not self._content.at_eof():
            await pour(self._content, pass_on)
            if self._file is not None:
                await self._flush(self._file)
            await drain()

    async def _pour_kept(self, write: Write, drain: Callable[[], Awaitable[None]]) -> None:
        at = 0
        while self._file is not None and at < self._file.size:
            chunk = await self._read_back(self._file, at)
            at += len(chunk)
            if not write(chunk):
                await drain()
        for chunk in self._kept:
            if not write(chunk):
                await drain()

    def take(self) -> bytes:
        """What is there of the body, kept for `pour`, which goes on behind it."""
        self.untouched = False
        chunk = self._content.read_nowait()
        self._keep(chunk)
        return chunk

    def release(self) -> None:
        """Give memory and disk back: there will be no replay."""
        self.replayable = False
        self._budget.left += self._size
        self._size = 0
        self._kept.clear()
        if self._disk is not None and self._file is not None:
            self._disk.budget.left += self._on_disk
            self._file.close()
            self._file = None

    def _keep(self, chunk: bytes) -> None:
        if not self.replayable:
            return
        if self._too_large or not self._reserve(len(chunk)):
            self.release()
            return
        self._kept.append(chunk)

    def _reserve(self, size: int) -> bool:
        """Room for `size` more bytes: in memory as long as there is any, then on disk for all of them."""
        if self._file is None:
            if self._budget.take(size, self._size):
                self._size += size
                return True
            if self._disk is None:
                return False
            size += self._size
        assert self._disk is not None  # noqa: S101  # there is no file without it
        if not self._disk.budget.take(size, self._on_disk):
            return False
        self._file = self._file or DiskFile(self._disk.folder)
        self._on_disk += size
        return True

    async def _flush(self, file: DiskFile) -> None:
        """All that is kept goes to the file. If this is cancelled, it is still kept, and goes there with what follows."""
        if not await file.append(b"".join(self._kept)):
            self.release()
            return
        self._kept.clear()
        self._budget.left += self._size
        self._size = 0

    async def _read_back(self, file: DiskFile, at: int) -> bytes:
        try:
            return await file.read(at)
        except (OSError, EOFError):
            self.lost = True
            raise
