"""Bodies in small pieces, so that a stream holds little of one whatever its two ends do.

uvloop reads 256,000 bytes at once into an ordinary protocol. A body that does not come whole with its head is read by
`Pieces` instead, and each connection lets little wait to be sent.
"""

import asyncio
from typing import Final, cast

from aiohttp.base_protocol import BaseProtocol

PIECE: Final = 32 << 10
READ_BUFFER: Final = 8 << 10  # of a body; reading stops at more than twice as much, so with one piece
WRITE_BUFFER: Final = 16 << 10  # nothing more is written to a connection in which more than that waits

_buffer: Final = memoryview(bytearray(PIECE))  # out of which everything is taken at once, so one is enough


class Pieces(asyncio.BufferedProtocol):
    """Stands before `protocol` at its transport, and gives it what comes in pieces of `PIECE` bytes at most."""

    __slots__ = ("connection_lost", "eof_received", "pause_writing", "protocol", "resume_writing")

    def __init__(self, protocol: BaseProtocol) -> None:
        self.protocol = protocol
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]  # all else is its own
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.protocol.data_received(bytes(_buffer[:nbytes]))


def limit_writing(transport: asyncio.BaseTransport) -> None:
    """Of a connection that has just been made."""
    cast(asyncio.WriteTransport, transport).set_write_buffer_limits(high=WRITE_BUFFER)


def read_in_pieces(protocol: BaseProtocol) -> None:
    """From now on, until `read_at_once`."""
    _exchange(protocol, Pieces(protocol))


def read_at_once(protocol: BaseProtocol) -> None:
    """As much as there is."""
    _exchange(protocol, protocol)


def _exchange(protocol: BaseProtocol, reader: asyncio.BaseProtocol) -> None:
    transport = protocol.transport
    if transport is None or transport.is_closing():
        return
    reading = transport.is_reading()
    if reading:  # uvloop decides how it reads when it begins to
        transport.pause_reading()
    transport.set_protocol(reader)
    if reading:
        transport.resume_reading()
