"""Request bodies that can be sent a second time, within limits of memory."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import StreamReader


class BodyStalled(TimeoutError):  # noqa: N818  # what happened to the body, not an error of anybody's
    """The client has stopped in the middle of its request body for longer than it may."""


@dataclass(slots=True)
class SpoolBudget:
    """Bytes that all spools together may keep, and how many each may."""

    left: int
    per_call: int


class Spool:
    """A request body, streamed as it comes and kept for a replay until it grows over the limits.

    `chunks` may be iterated again after an iteration was given up: what was kept comes first.
    """

    def __init__(self, content: StreamReader, budget: SpoolBudget) -> None:
        self._content = content
        self._budget = budget
        self._kept: list[bytes] = []
        self._size = 0
        self.replayable = True

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body from its start. Not to be called again once `replayable` is False."""
        for chunk in self._kept:
            yield chunk
        while chunk := await self._content.readany():
            self._keep(chunk)
            yield chunk

    def take(self) -> bytes:
        """What is there of the body, kept for `chunks`, which goes on behind it."""
        chunk = self._content.read_nowait()
        self._keep(chunk)
        return chunk

    def release(self) -> None:
        """Give the memory back: there will be no replay."""
        self.replayable = False
        self._budget.left += self._size
        self._size = 0
        self._kept.clear()

    def _keep(self, chunk: bytes) -> None:
        if not self.replayable:
            return
        if self._size + len(chunk) > self._budget.per_call or len(chunk) > self._budget.left:
            self.release()
            return
        self._kept.append(chunk)
        self._size += len(chunk)
        self._budget.left -= len(chunk)
