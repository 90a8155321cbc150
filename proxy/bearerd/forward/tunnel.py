"""A connection that speaks another protocol than HTTP from some byte on: bytes both ways, until both ends are gone.

Both transports are taken from the protocols that had them (docs/decisions/0002). No task copies: what one end
receives is written to the other at once, and an end is not read from while the other has too much to send.
"""

import asyncio
from contextlib import suppress
from typing import Final, cast

from aiohttp import web

from bearerd.core.headers import Rewrite
from bearerd.forward.pieces import Pieces
from bearerd.forward.reply import Written, build_switch
from bearerd.forward.upstream import UpstreamResponse

# One that is being passed on, and as much that waits in a transport: at most 128 KiB each way.
CHUNK: Final = 64 << 10
RESET_S: Final = 1.0  # for the last bytes of an end that was reset
SILENT_S: Final = 60.0  # how long an end that goes on alone, or takes its last bytes, may do nothing


class _End(asyncio.BufferedProtocol):
    """One of the two connections."""

    __slots__ = (
        "_buffer",
        "_former",
        "_lost_with",
        "_tunnel",
        "gone",
        "other",
        "received",
        "said_all",
        "transport",
    )

    other: "_End"

    def __init__(self, tunnel: "Tunnel", transport: asyncio.Transport, buffer: memoryview) -> None:
        self._tunnel = tunnel
        self._buffer = buffer
        self._former = cast(Pieces, transport.get_protocol())
        self._lost_with: Exception | None = None
        self.transport = transport
        self.received = 0
        self.said_all = False
        self.gone = False

    def take(self) -> None:
        """From now on what happens to the transport is told to this end."""
        self.transport.set_protocol(self)

    def begin(self) -> None:
        """Both ends have been taken: read, unless the transport of the other is full already."""
        former = self.other._former  # noqa: SLF001  # the other half of this very thing
        if former.protocol.writing_paused:
            self.hold()
        else:
            self.go_on()
        if not self.transport.is_closing():
            self.transport.set_write_buffer_limits(high=CHUNK)

    def release(self) -> None:
        """Tell the protocol that had the transport of its end, once the call that the tunnel belongs to is over."""
        if self.gone:
            asyncio.get_running_loop().call_soon(self._former.connection_lost, self._lost_with)

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += nbytes
        self.other.write(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> bool:
        """True to go on in the other direction."""
        self.said_all = True
        return self._tunnel.half_closed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = self.said_all = True
        self._lost_with = exc
        self._tunnel.lost(self, exc)

    def pause_writing(self) -> None:
        self.other.hold()

    def resume_writing(self) -> None:
        self.other.go_on()

    def hold(self) -> None:
        if not self.said_all and not self.transport.is_closing():
            self.transport.pause_reading()

    def go_on(self) -> None:
        if not self.said_all and not self.transport.is_closing():
            self.transport.resume_reading()

    def write(self, data: bytes) -> None:
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def finish(self) -> bool:
        """Nothing more is to be sent after what was written. False where that cannot be said without closing (TLS)."""
        if self.transport.is_closing() or not self.transport.can_write_eof():
            return False
        with suppress(OSError, RuntimeError):  # it has just been reset; that is heard of in a moment
            self.transport.write_eof()
        return True


class Tunnel:
    """Bytes both ways between two connections, whose transports it takes over.

    What is read goes through `buffer` and is out of it at once: all tunnels of an event loop may share one.
    """

    def __init__(
        self,
        client: asyncio.Transport,
        upstream: asyncio.Transport,
        buffer: memoryview,
        *,
        silent_s: float = SILENT_S,
    ) -> None:
        self.client = _End(self, client, buffer)
        self.upstream = _End(self, upstream, buffer)
        self.client.other, self.upstream.other = self.upstream, self.client
        self._ends = (self.client, self.upstream)
        self._silent_s = silent_s
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._watching: asyncio.TimerHandle | None = None
        self._running = True

    async def run(self, to_client: bytes = b"", to_upstream: bytes = b"") -> None:
        """Until both ends are gone; beginning with what is there for each already. Cancelled, it ends both at once."""
        for end in self._ends:
            end.take()
        for end in self._ends:
            end.begin()
        self.client.write(to_client)
        self.upstream.write(to_upstream)
        try:
            await self._over
        except asyncio.CancelledError:
            for end in self._ends:
                end.transport.abort()
            raise
        finally:
            self._running = False
            if self._watching is not None:
                self._watching.cancel()
            for end in self._ends:
                end.release()

    def half_closed(self, end: _End) -> bool:
        """`end` will send no more. True where the other direction goes on."""
        self._watch()
        if not end.other.said_all and end.other.finish():
            return end.transport.can_write_eof()
        end.other.transport.close()
        return False

    def lost(self, end: _End, exc: Exception | None) -> None:
        """`end` is gone. The other takes its last bytes and goes too: soon, if this was no orderly end."""
        if not self._running:
            end.release()
        elif end.other.gone:
            if not self._over.done():
                self._over.set_result(None)
        else:
            end.other.transport.close()
            self._watch()
            if exc is not None:
                self._loop.call_later(RESET_S, end.other.transport.abort)

    def _watch(self) -> None:
        if self._watching is None and self._running:
            self._look_again(self._progress())

    def _look_again(self, progress: tuple[int, ...]) -> None:
        self._watching = self._loop.call_later(self._silent_s, self._look, progress)

    def _look(self, before: tuple[int, ...]) -> None:
        """Whoever reads nothing and sends nothing any more is not waited for."""
        progress = self._progress()
        if progress != before:
            self._look_again(progress)
            return
        for end in self._ends:
            end.transport.abort()

    def _progress(self) -> tuple[int, ...]:
        waiting = [0 if end.gone else end.transport.get_write_buffer_size() for end in self._ends]
        return (self.client.received, self.upstream.received, *waiting)


def hold_back(request: web.BaseRequest) -> bool:
    """Keep what the client sends after `request` out of the server's parser until there is an answer.

    It does so by itself for `websocket`, and takes it back if the answer is not 101. False where something has come
    that is in the parser or lost to it, or where no more is to come: `request` is an ordinary call then.
    """
    protocol = request.protocol
    if protocol._messages or protocol._close:  # noqa: SLF001  # decision 0002, as below
        return False
    protocol._upgraded = True  # noqa: SLF001
    return True


async def tunnel(
    request: web.BaseRequest, response: UpstreamResponse, rewrite: Rewrite, buffer: memoryview
) -> Written:
    """Pass a 101 on, and then bytes until both ends are gone. Raises UpstreamError if the upstream has left already."""
    client, protocol = request.transport, request.protocol
    if client is None:
        raise ConnectionResetError
    upstream, after = response.take_over()
    early, protocol._message_tail = protocol._message_tail, b""  # noqa: SLF001
    head = build_switch(response, rewrite)
    ends = Tunnel(client, upstream, buffer)
    try:
        await ends.run(head + after, early)
    finally:
        response.tunnelled = (len(early) + ends.client.received, len(after) + ends.upstream.received)
    return Written(response.status, keep_alive=False)
