"""A keep-alive pool of connections to upstreams."""

import asyncio
from collections import defaultdict
from collections.abc import Hashable, Iterable
from functools import partial
from typing import Final

from bearerd.core.targets import DIRECT, Origin, Way
from bearerd.errors import UpstreamClosed
from bearerd.forward.dialing import CONNECT_S, Dialer, Resolve, resolve_by_system
from bearerd.forward.upstream import Connection, Shelf, UpstreamRequest, UpstreamResponse
from bearerd.trust import Trust

IDLE_S: Final = 15.0  # how long a connection is kept for the next call
_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


class UpstreamPool:
    """Idle connections by origin and way, newest first. A call takes one or opens one."""

    def __init__(
        self,
        trust: Trust | None = None,
        *,
        connect_s: float = CONNECT_S,
        idle_s: float = IDLE_S,
        resolve: Resolve = resolve_by_system,
    ) -> None:
        """Connections are opened within `connect_s` seconds, and kept for the next call for `idle_s`."""
        self._dialer = Dialer(trust or Trust(), connect_s=connect_s, resolve=resolve)
        self._idle_s = idle_s
        self._idle: defaultdict[Hashable, Shelf] = defaultdict(Shelf)
        self._sweeper: asyncio.TimerHandle | None = None

    async def send(
        self, origin: Origin, request: UpstreamRequest, way: Way = DIRECT, begun: Connection | None = None
    ) -> UpstreamResponse:
        """Send to `origin` and return its response. Raises UpstreamError, UpstreamTimeout, BodyError.

        A kept connection that dies before a byte of the response: an idempotent request without a body is
        sent once more, on a new connection; any other is not (RFC 9110 section 9.2.2).
        `begun` is one of `take`, on which this very request is under way.
        """
        connection = begun or self.take(self.shelf(origin, way))
        if connection is None:
            return await (await self._connect(origin, way)).exchange(request)
        try:
            return await (connection.response() if begun else connection.exchange(request))
        except UpstreamClosed:
            if request.body is not None or request.method not in _REPEATABLE:
                raise
        return await (await self._connect(origin, way)).exchange(request)

    def shelf(self, origin: Origin, way: Way) -> Shelf:
        """Where the idle connections of one kind are. It is the same for as long as the pool has that kind."""
        return self._idle[_kind(origin, way)]

    def keep(self, connection: Connection) -> None:
        """Take back a connection that is ready for another call."""
        if connection.shelf.closed:
            connection.close()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        connection.shelf.append(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._idle_s, self._sweep)

    def close(self) -> None:
        """Close every idle connection; those in use close when their calls end."""
        self._dialer.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._idle.default_factory = _build_closed
        for shelf in self._idle.values():
            _close(shelf)

    def adjust(self, *, connect_s: float, idle_s: float) -> None:
        """Other limits, for connections that are opened, and for what is idle, from now on."""
        self._dialer.connect_s = connect_s
        self._idle_s = idle_s

    def keep_only(self, ways: Iterable[tuple[Origin, Way]]) -> None:
        """Close what is idle and of another kind. What is in use and of another kind is closed after it."""
        kinds = {_kind(*way) for way in ways}
        for kind in self._idle.keys() - kinds:
            _close(self._idle.pop(kind))

    def take(self, connections: Shelf) -> Connection | None:
        """A connection from a shelf, for one exchange."""
        oldest = asyncio.get_running_loop().time() - self._idle_s
        while connections:
            connection = connections.pop()
            if connection.alive and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    def _sweep(self) -> None:
        """Close what has been idle for too long; look again as long as anything is left."""
        self._sweeper = None
        now = asyncio.get_running_loop().time()
        for connections in self._idle.values():
            kept = [connection for connection in connections if now - connection.idle_since < self._idle_s]
            for connection in connections[: len(connections) - len(kept)]:
                connection.close()
            connections[:] = [connection for connection in kept if connection.alive]
        if any(self._idle.values()):
            self._sweeper = asyncio.get_running_loop().call_later(self._idle_s, self._sweep)

    async def _connect(self, origin: Origin, way: Way) -> Connection:
        return await self._dialer.dial(origin, way, partial(Connection, self.shelf(origin, way), self.keep))


def _kind(origin: Origin, way: Way) -> Hashable:
    return origin if way is DIRECT else (origin, way)


def _build_closed() -> Shelf:
    shelf = Shelf()
    shelf.closed = True
    return shelf


def _close(shelf: Shelf) -> None:
    shelf.closed = True
    for connection in shelf:
        connection.close()
    shelf.clear()
