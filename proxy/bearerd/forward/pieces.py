"""Bodies in small pieces, so that a stream holds little of one whatever its two ends do.

uvloop reads 256,000 bytes at once into an ordinary protocol. A connection is read by `Pieces` instead, and lets little
wait to be sent. What comes is passed on in the turn of the loop it
came in, by a `Flow`: nobody is woken for a piece, but for a pause or an end.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, cast

from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

PIECE: Final = 32 << 10
READ_BUFFER: Final = 8 << 10  # of a body; reading stops at more than twice as much, so with one piece
WRITE_BUFFER: Final = 16 << 10  # nothing more is written to a connection in which more than that waits

_buffer: Final = memoryview(bytearray(PIECE))  # out of which everything is taken at once, so one is enough


class Pieces(asyncio.BufferedProtocol):
    """Stands before `protocol` at its transport, and gives it what comes in pieces of `PIECE` bytes at most."""

    __slots__ = ("_receive", "connection_lost", "eof_received", "pause_writing", "protocol", "resume_writing")

    def __init__(self, protocol: BaseProtocol) -> None:
        self.protocol = protocol
        self._receive = protocol.data_received
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]  # all else is its own
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._receive(bytes(_buffer[:nbytes]))


Write = Callable[[bytes], bool]
"""Passes a part of a body on. Returns whether the next one may follow at once."""


class Flow:
    """A body under way into `write`. `over` is done when there is an end of it, or a pause."""

    __slots__ = ("_content", "_write", "over")

    def __init__(self, content: StreamReader, write: Write) -> None:
        self._content = content
        self._write = write
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def go_on(self) -> bool:
        """Pass on what has come. Whether there may be more."""
        content = self._content
        if content.exception() is None:
            data = content.read_nowait()
            if (not data or self._write(data)) and not content.is_eof():
                return True
        if not self.over.done():
            self.over.set_result(None)
        return False


class Flowing(Protocol):
    """A protocol that reads bodies. While there is a `flow` it is told to go on when there is something new, and reading
    is not paused.
    """

    flow: Flow | None

    @property
    def connected(self) -> bool:
        """Whether anything can still come."""


async def pour(content: StreamReader, write: Write) -> None:
    """Give `write` what comes of `content`, as it comes, until its end or until `write` takes no more for now.

    Raises what `content` was ended with, ConnectionError if it never will be.
    """
    while data := content.read_nowait():
        if not write(data):
            return
    if content.is_eof():
        return
    protocol = cast(Flowing, content._protocol)  # noqa: SLF001  # decision 0002
    if not protocol.connected:
        raise ConnectionResetError
    flow = protocol.flow = Flow(content, write)
    try:
        await flow.over
    finally:
        if protocol.flow is flow:
            protocol.flow = None
    error = content.exception()
    if error is not None:
        raise error


def read_in_pieces(protocol: BaseProtocol, transport: asyncio.BaseTransport) -> None:
    """From now on, of a connection that has just been made; and little waits to be sent there."""
    ours = cast(asyncio.Transport, transport)
    ours.set_write_buffer_limits(high=WRITE_BUFFER)
    ours.set_protocol(Pieces(protocol))
