"""Connections to upstreams: a keep-alive pool per origin, over asyncio transports.

Heads are written as raw bytes and read by aiohttp's own response parser, so nothing is re-quoted, decoded,
decompressed, redirected or sent twice behind our back.
"""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import hdrs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpParser, HttpResponseParser, RawResponseMessage

from bearerd.core.headers import LAST_CHUNK, build_chunk
from bearerd.core.heads import HeadCheck
from bearerd.core.targets import Origin
from bearerd.errors import UpstreamClosed, UpstreamError, UpstreamTimeout

CONNECT_S: Final = 10.0
IDLE_S: Final = 15.0  # how long a connection is kept for the next call
READ_BUFFER: Final = 1 << 16
FIELD_LIMIT: Final = 32 << 10
FIELDS: Final = 128
_NOT_HTTP: Final = "the upstream's response is not valid HTTP"
_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


class BodyError(Exception):
    """The client's side of a request body failed while it was being sent."""


class _Gone(Exception):  # noqa: N818  # a signal between two methods, not an error of anybody's
    """The upstream closed while a body was being sent to it. A client that leaves looks like this too: keep apart."""


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request in wire form. `chunked` says how `body` is framed; without a body `head` is all of it."""

    method: str
    head: bytes
    body: AsyncIterator[bytes] | None = None
    chunked: bool = False


class UpstreamResponse:
    """A response whose head has arrived. To be ended by `aclose`, however far it was read."""

    def __init__(
        self,
        connection: "_Connection",
        message: RawResponseMessage,
        content: aiohttp.StreamReader,
        pump: asyncio.Task[None] | None,
    ) -> None:
        self.status = message.code
        self.reason = message.reason.encode("utf-8", "surrogateescape")
        self.headers = message.raw_headers
        self.chunked = message.chunked
        self._content = content
        self._connection = connection
        self._pump = pump

    @property
    def complete(self) -> bool:
        """True where the whole body has arrived and been read."""
        return self._content.at_eof()

    def ready(self) -> bytes:
        """What of the body is here already, without waiting. Raises UpstreamError if it was cut short."""
        try:
            return self._content.read_nowait()
        except (aiohttp.ClientError, OSError):
            raise UpstreamError("the upstream broke off its response") from None

    async def read(self) -> bytes:
        """The next bytes of the body as they come; empty at its end. Raises UpstreamError if it was cut short."""
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, OSError):
            raise UpstreamError("the upstream broke off its response") from None

    async def aclose(self) -> None:
        """Give the connection back if both messages are complete, else close it."""
        if self._content.is_eof() and self._content.exception() is None:
            self._content.read_nowait()
        self._connection.end(reusable=self.complete)
        if self._pump is not None and not self._pump.done():
            self._pump.cancel()
            await asyncio.wait([self._pump])


class _Connection(BaseProtocol):
    """One connection, used by one call at a time."""

    def __init__(self, pool: "UpstreamPool", origin: Origin) -> None:
        super().__init__(asyncio.get_running_loop())
        self._pool = pool
        self._origin = origin
        self._answer: asyncio.Future[tuple[RawResponseMessage, aiohttp.StreamReader]] | None = None
        self._payload: aiohttp.StreamReader | None = None
        self._heads = HeadCheck()
        self._keep = False
        self._received = False
        self._sent = False
        self._with_body = True
        self.idle_since = 0.0

    @property
    def alive(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    async def exchange(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and wait for the head of its response. Raises UpstreamError, BodyError."""
        assert self.transport is not None  # noqa: S101  # only live connections are handed out
        self._begin(request)
        assert self._answer is not None  # noqa: S101  # just set
        self.transport.write(request.head)
        pump = None
        if request.body is not None:
            pump = asyncio.create_task(self._send_body(request.body, chunked=request.chunked))
        try:
            message, content = await self._answer
        except BaseException:
            if pump is not None:
                pump.cancel()
            self.end(reusable=False)
            raise
        return UpstreamResponse(self, message, content, pump)

    def end(self, *, reusable: bool) -> None:
        """The call is over; only a connection in a known state goes back to the pool."""
        parser = self._parser
        self._answer = self._payload = self._parser = None
        whole = reusable and self._sent and parser is not None and _is_between_messages(parser)
        if whole and self._keep and self.alive:
            self._pool.keep(self._origin, self)
        else:
            self.close()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            if data:
                self.close()  # nobody asked for these bytes: they could be taken for the next answer
            return
        self._received = True
        if not self._heads.complete and not self._heads.feed(data):
            self._fail(UpstreamError(_NOT_HTTP))
            return
        try:
            messages, upgraded, _ = self._parser.feed_data(data)
        except Exception:  # noqa: BLE001  # whatever the parser raises, the response is not HTTP
            self._fail(UpstreamError(_NOT_HTTP))
            return
        for message, payload in messages:
            self._take(message, payload, upgraded=upgraded)

    def eof_received(self) -> None:
        """Closing follows by itself: a half-open upstream is of no use."""

    def connection_lost(self, exc: BaseException | None) -> None:
        error = UpstreamError if self._received else UpstreamClosed
        parser, payload = self._parser, self._payload
        if parser is not None and payload is not None and not payload.is_eof():
            _end_payload(parser, payload, exc)
        self._parser = None
        self._fail(error("the upstream closed the connection before it answered"))
        super().connection_lost(exc)

    def _begin(self, request: UpstreamRequest) -> None:
        self._keep = self._received = False
        self._sent = request.body is None
        self._with_body = request.method != "HEAD"
        self._answer = self._loop.create_future()
        self._heads = HeadCheck()
        self._parser = HttpResponseParser(
            self,
            self._loop,
            READ_BUFFER,
            max_line_size=FIELD_LIMIT,
            max_field_size=FIELD_LIMIT,
            max_headers=FIELDS,
            payload_exception=aiohttp.ClientPayloadError,
            response_with_body=self._with_body,
            read_until_eof=True,
            auto_decompress=False,
        )

    def _take(self, message: RawResponseMessage, payload: aiohttp.StreamReader, *, upgraded: bool) -> None:
        if 100 <= message.code < 200 and message.code != 101:
            return  # interim responses are not passed on
        if not self._heads.complete:  # the parser has seen an end where none is
            self._fail(UpstreamError(_NOT_HTTP))
        elif upgraded or not 200 <= message.code <= 599:
            self._fail(UpstreamError("the upstream's response has a status that was not asked for"))
        elif _is_coded(message):
            self._fail(UpstreamError("the upstream's response has a transfer coding that was not asked for"))
        elif payload is aiohttp.EMPTY_PAYLOAD and self._with_body:
            self._fail(UpstreamError("the upstream's response has a length that cannot be"))
        elif self._answer is None or self._answer.done():
            self.close()  # a second answer to one request
        else:
            self._payload = payload
            self._keep = not message.should_close
            self._answer.set_result((message, payload))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        elif self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(aiohttp.ClientPayloadError(str(error)))
        self.close()

    async def _send_body(self, body: AsyncIterator[bytes], *, chunked: bool) -> None:
        try:
            async for chunk in body:
                await self._write(build_chunk(chunk) if chunked else chunk)
            if chunked:
                await self._write(LAST_CHUNK)
            self._sent = True
        except _Gone:
            return  # `connection_lost` says so to whoever waits
        except Exception:  # noqa: BLE001  # whatever the client's side raises, its body cannot be finished
            self._fail(BodyError())

    async def _write(self, data: bytes) -> None:
        if self.transport is None:
            raise _Gone
        self.transport.write(data)
        try:
            await self._drain_helper()
        except ConnectionError:
            raise _Gone from None


def _is_coded(message: RawResponseMessage) -> bool:
    """Whether there is a transfer coding other than chunked, which would be lost (RFC 9112 sections 6.1 and 7)."""
    codings = message.headers.getall(hdrs.TRANSFER_ENCODING, None)
    if codings is None:
        return False
    return message.version < (1, 1) or len(codings) != 1 or codings[0].lower() != "chunked"


def _end_payload(
    parser: HttpParser[RawResponseMessage], payload: aiohttp.StreamReader, exc: BaseException | None
) -> None:
    """A body delimited by the connection's end is complete at a clean one; any other is cut short."""
    if exc is not None:
        # No end beside it: a reader that has been told of one does not ask further.
        payload.set_exception(aiohttp.ClientPayloadError())
        return
    try:
        parser.feed_eof()
    except Exception:  # noqa: BLE001  # the parser's way of saying that the body is not complete
        payload.set_exception(aiohttp.ClientPayloadError())


def _is_between_messages(parser: HttpParser[RawResponseMessage]) -> bool:
    """True where no byte of a further message has been read, which the next call would take for its own answer."""
    try:
        return parser.feed_eof() is None
    except Exception:  # noqa: BLE001  # the parser's way of saying that there was something
        return False


class UpstreamPool:
    """Idle connections by origin, newest first. A call takes one or opens one."""

    def __init__(
        self, *, tls: ssl.SSLContext | None = None, connect_s: float = CONNECT_S, idle_s: float = IDLE_S
    ) -> None:
        self._tls = tls
        self._connect_s = connect_s
        self._idle_s = idle_s
        self._closed = False
        self._idle: defaultdict[Origin, list[_Connection]] = defaultdict(list)
        self._sweeper: asyncio.TimerHandle | None = None

    async def send(self, origin: Origin, request: UpstreamRequest) -> UpstreamResponse:
        """Send to `origin` and return its response. Raises UpstreamError, UpstreamTimeout, BodyError.

        A kept connection that dies before a byte of the response: an idempotent request without a body is
        sent once more, on a new connection; any other is not (RFC 9110 section 9.2.2).
        """
        connection = self._take_idle(origin)
        if connection is None:
            return await (await self._connect(origin)).exchange(request)
        try:
            return await connection.exchange(request)
        except UpstreamClosed:
            if request.body is not None or request.method not in _REPEATABLE:
                raise
        return await (await self._connect(origin)).exchange(request)

    def keep(self, origin: Origin, connection: _Connection) -> None:
        """Take back a connection that is ready for another call."""
        if self._closed:
            connection.close()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle[origin].append(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._idle_s, self._sweep)

    def close(self) -> None:
        """Close every idle connection; those in use close when their calls end."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    def _take_idle(self, origin: Origin) -> _Connection | None:
        connections = self._idle[origin]
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
        for origin, connections in list(self._idle.items()):
            kept = [connection for connection in connections if now - connection.idle_since < self._idle_s]
            for connection in connections[: len(connections) - len(kept)]:
                connection.close()
            self._idle[origin] = [connection for connection in kept if connection.alive]
        if any(self._idle.values()):
            self._sweeper = asyncio.get_running_loop().call_later(self._idle_s, self._sweep)

    async def _connect(self, origin: Origin) -> _Connection:
        loop = asyncio.get_running_loop()
        tls = self._context() if origin.scheme == "https" else None
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self, origin),
                    origin.host,
                    origin.port,
                    ssl=tls,
                    server_hostname=origin.host if tls else None,
                )
        except TimeoutError:
            raise UpstreamTimeout(f"{origin} did not accept a connection in time") from None
        except ssl.SSLError:
            raise UpstreamError(f"{origin} has no certificate that can be trusted") from None
        except (OSError, UnicodeError):  # the latter for a name that no resolver can be asked for
            raise UpstreamError(f"{origin} cannot be connected to") from None
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls
