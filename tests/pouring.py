"""Both ends of what pours: bodies that come in parts, and readers of all of one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from bearerd.forward.pieces import Flow, Write
from bearerd.forward.upstream import Body


class Parts:
    """A request's body, of what an iterator gives."""

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self._parts = parts

    async def pour(self, write: Write, drain: Callable[[], Awaitable[None]]) -> None:
        async for part in self._parts:
            if not write(part):
                await drain()


class Source(BaseProtocol):
    """As much of a client's connection as the reader of a body asks for."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(loop)
        self.flow: Flow | None = None
        self.content = StreamReader(self, 1 << 20, loop=loop)

    @property
    def connected(self) -> bool:
        return True

    def pause_reading(self) -> None:
        """There is nobody to pause."""

    def feed(self, *parts: bytes, end: bool = False) -> None:
        for part in parts:
            self.content.feed_data(part)
        if end:
            self.content.feed_eof()
        self._flow_on()

    def fail(self, error: Exception) -> None:
        self.content.set_exception(error)
        self._flow_on()

    def _flow_on(self) -> None:
        if self.flow is not None and not self.flow.go_on():
            self.flow = None


class Response(Protocol):
    async def pour(self, write: Write) -> bool: ...


async def read_all(response: Response) -> bytes:
    """The body to its end."""
    parts: list[bytes] = []

    def write(part: bytes) -> bool:
        parts.append(part)
        return True

    while not await response.pour(write):
        pass
    return b"".join(parts)


async def read_some(response: Response) -> bytes:
    """The next part of the body; empty at its end."""
    parts: list[bytes] = []

    def write(part: bytes) -> bool:
        parts.append(part)
        return False

    await response.pour(write)
    return b"".join(parts)


class Sender:
    """Sends a request's body to nobody. What came is in `parts`; `full` says that no more is taken from then on."""

    def __init__(self, most: int | None = None) -> None:
        """`most` parts are taken."""
        self.parts: list[bytes] = []
        self.full = asyncio.Event()
        self._most = most

    def write(self, part: bytes) -> bool:
        self.parts.append(part)
        return len(self.parts) != self._most

    async def drain(self) -> None:
        if len(self.parts) == self._most:
            self.full.set()
            await asyncio.Event().wait()


async def send_all(body: Body) -> bytes:
    """All that a request's body sends."""
    sender = Sender()
    await body.pour(sender.write, sender.drain)
    return b"".join(sender.parts)
