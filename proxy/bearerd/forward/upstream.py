"""Exchanges with upstreams, over asyncio transports.

Heads are written as raw bytes and read by aiohttp's own response parser, so nothing is re-quoted, decoded,
decompressed, redirected or sent twice behind our back.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import aiohttp
from aiohttp import hdrs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpParser, HttpResponseParser, RawResponseMessage

from bearerd.core.fields import Fields
from bearerd.core.headers import LAST_CHUNK, build_chunk
from bearerd.core.heads import HeadCheck, read_plain
from bearerd.core.upgrades import agreed
from bearerd.errors import UpstreamClosed, UpstreamError, UpstreamTimeout
from bearerd.forward.expectation import Expectation
from bearerd.forward.pieces import READ_BUFFER, Flow, Write, pour, read_in_pieces

FIELD_LIMIT: Final = 32 << 10
FIELDS: Final = 128
INTERIM: Final = 32  # responses in a row before the one that counts
_REFUSED: Final = "the upstream refuses the client's certificate, or wants one; see client_cert_file"
_NOT_HTTP: Final = "the upstream's response is not valid HTTP; see upstream of the route"


class BodyError(Exception):
    """The client's side of a request body failed while it was being sent."""


class _Gone(Exception):  # noqa: N818  # a signal between two methods, not an error of anybody's
    """The upstream closed while a body was being sent to it. A client that leaves looks like this too: keep apart."""


class Body(Protocol):
    """What is sent behind the head of a request."""

    async def pour(self, write: Write, drain: Callable[[], Awaitable[None]]) -> None:
        """Give it to `write` from its start, and wait for `drain` where that takes no more."""


@dataclass(slots=True)
class UpstreamRequest:
    """One request in wire form. `chunked` says how `body` is framed; without a body `head` is all of it.

    `idle_s` is for how many seconds the upstream may be silent; None for any number.
    `upgrade` has the protocols that `head` asks for: a 101 to one of them is taken.
    `expectation` is what `body` waits for, if `head` says so.
    """

    method: str
    head: bytes = field(repr=False)
    body: Body | None = None
    chunked: bool = False
    idle_s: float | None = None
    upgrade: bytes | None = None
    expectation: Expectation | None = None


class UpstreamResponse:
    """A response whose head has arrived. To be ended by `aclose`, however far it was read."""

    __slots__ = (
        "_connection",
        "_content",
        "chunked",
        "fields",
        "reason",
        "status",
        "switched_to",
        "tunnelled",
    )

    def __init__(
        self, connection: "Connection", message: RawResponseMessage, content: aiohttp.StreamReader
    ) -> None:
        self.status = message.code
        self.reason = message.reason.encode("utf-8", "surrogateescape")
        self.fields = Fields(message.raw_headers)
        self.chunked = message.chunked
        self.switched_to = connection.switched_to
        self.tunnelled = (0, 0)  # bytes after a 101: from the client, and from the upstream
        self._content = content
        self._connection = connection

    @property
    def received(self) -> int:
        """Bytes of the body that have come, without framing."""
        return self._content.total_bytes

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

    async def pour(self, write: Write) -> bool:
        """Give `write` what comes of the body, as it comes, until its end or until `write` takes no more for now.

        Returns whether that was the end. Raises UpstreamError if it was cut short.
        """
        try:
            await pour(self._content, write)
        except (aiohttp.ClientError, OSError):
            raise UpstreamError("the upstream broke off its response") from None
        return self.complete

    def take_over(self) -> tuple[asyncio.Transport, bytes]:
        """After a 101: the connection, which is the caller's to end from now on, and what came after the head.

        Raises UpstreamError if it is closed. It is not read from until the caller says so.
        """
        return self._connection.take_over()

    async def aclose(self) -> None:
        """Give the connection back if both messages are complete, else close it."""
        if self._content.is_eof() and self._content.exception() is None:
            self._content.read_nowait()
        pump = self._connection.pump
        self._connection.end(reusable=self.complete)
        if pump is not None and not pump.done():
            pump.cancel()
            await asyncio.wait([pump])


class Receiver(Protocol):
    """Who waits for a response."""

    def takes(self, status: int) -> bool:
        """Whether `relay` may be given a response with that status."""

    def relay(self, status: int, answer: bytes) -> None:
        """The exchange is over, and this is all of it, as it can be passed on."""

    def settle(self) -> None:
        """There is an outcome, which is to be asked for with `response`."""


class Shelf(list["Connection"]):
    """The idle connections of one kind. Once it is `closed`, none that comes back is kept."""

    closed = False


class Connection(BaseProtocol):
    """One connection, used by one call at a time."""

    def __init__(self, shelf: Shelf, keep: "Callable[[Connection], None]") -> None:
        """`shelf` is where it is while it is idle; `keep` takes it back."""
        super().__init__(asyncio.get_running_loop())
        self.shelf = shelf
        self._give_back = keep
        self._busy = False  # with an exchange
        self._receiver: Receiver | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._outcome: UpstreamResponse | Exception | None = None
        self._payload: aiohttp.StreamReader | None = None
        self._heads = HeadCheck()
        self._keep = False
        self._received = False
        self._sent = False
        self._with_body = True
        self._interim = 0
        self._watch: _Watch | None = None
        self._asked: bytes | None = None
        self._expectation: Expectation | None = None
        self._after = b""
        self.flow: Flow | None = None
        self.pump: asyncio.Task[None] | None = None
        self.switched_to: bytes | None = None
        self.idle_since = 0.0

    @property
    def alive(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def begin(self, request: UpstreamRequest) -> None:
        """Send a request. The outcome is to be asked for with `response`."""
        self.begin_whole(request.head, request.idle_s)
        self._with_body = request.method != "HEAD"
        self._asked = request.upgrade
        self._expectation = request.expectation
        if request.body is not None:
            self._sent = False
            self.pump = asyncio.create_task(self._send_body(request.body, chunked=request.chunked))

    def begin_whole(self, message: bytes, idle_s: float | None, receiver: Receiver | None = None) -> None:
        """Send a request that is all in `message`, is no HEAD, and asks for nothing but an answer. `receiver` gets that.

        `idle_s` is as in `UpstreamRequest`.
        """
        assert self.transport is not None  # noqa: S101  # only live connections are handed out
        self._busy = self._sent = self._with_body = True
        self._keep = self._received = False
        self._asked = self._expectation = self._outcome = None
        self._receiver = receiver
        self.transport.write(message)
        if idle_s is not None:
            self._watch = _Watch(self, idle_s)

    async def response(self) -> UpstreamResponse:
        """The response to the request that was begun, once its head is here. Raises UpstreamError, BodyError."""
        if self._outcome is None:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            except BaseException:
                self.abandon()
                raise
        if isinstance(self._outcome, UpstreamResponse):
            return self._outcome
        assert self._outcome is not None  # noqa: S101  # the waiter was told
        self.abandon()
        raise self._outcome

    async def exchange(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and wait for the head of its response. Raises UpstreamError, BodyError."""
        self.begin(request)
        return await self.response()

    def forget_receiver(self) -> None:
        """`response` will be asked for the outcome."""
        self._receiver = None

    def abandon(self) -> None:
        """Give up the request that was begun: nobody waits for its response."""
        self._receiver = self._waiter = None
        if self.pump is not None:
            self.pump.cancel()
        self.end(reusable=False)

    def end(self, *, reusable: bool) -> None:
        """The call is over; only a connection in a known state goes back to the pool."""
        parser, self._parser = self._parser, None
        self._busy = False
        self._payload = self.pump = None
        self._watch_no_more()
        whole = reusable and self._sent and (parser is None or _is_between_messages(parser))
        if whole and self._keep and self.alive:
            self._give_back(self)
        else:
            self.close()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        read_in_pieces(self, transport)

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            if self.switched_to is not None:
                self._after += data
            elif data:
                self.close()  # nobody asked for these bytes: they could be taken for the next answer
            return
        if self._watch is not None:
            self._watch.touch()
        if self._parser is None:
            self._received = True
            if self._receiver is not None and self._relay(self._receiver, data):
                return
            self._begin_to_parse()
        assert self._parser is not None  # noqa: S101  # just made, or a moment ago
        self._parse(self._parser, data)

    def _relay(self, receiver: Receiver, data: bytes) -> bool:
        """Whether `data` was the whole response, and has been passed on."""
        plain = read_plain(data)
        if plain is None or not receiver.takes(plain[0]):
            return False
        self._receiver = None
        self._keep = True
        self.end(reusable=True)
        receiver.relay(*plain)
        return True

    def _parse(self, parser: HttpParser[RawResponseMessage], data: bytes) -> None:
        if not self._heads.complete and not self._heads.feed(data):
            self._fail(UpstreamError(_NOT_HTTP))
            return
        try:
            messages, upgraded, tail = parser.feed_data(data)
        except Exception:  # noqa: BLE001  # whatever the parser raises, the response is not HTTP
            self._fail(UpstreamError(_NOT_HTTP))
            return
        for message, payload in messages:
            if self._expectation is not None:
                self._expectation.hear(message.code)
            self._take(message, payload, tail if upgraded else None)
        self._flow_on()

    def _flow_on(self) -> None:
        if self.flow is not None and not self.flow.go_on():
            self.flow = None

    def pause_reading(self) -> None:
        if self.flow is None:  # else what comes is passed on at once
            super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:  # else there is nothing to resume, though every reader of a body asks for it
            super().resume_reading(resume_parser)

    def eof_received(self) -> None:
        """Closing follows by itself: a half-open upstream is of no use."""

    def connection_lost(self, exc: BaseException | None) -> None:
        error = UpstreamError if self._received else UpstreamClosed
        parser, payload = self._parser, self._payload
        if parser is not None and payload is not None and not payload.is_eof():
            _end_payload(parser, payload, exc)
            self._flow_on()
        self._parser = None
        if _is_about_certificates(exc):
            self._fail(UpstreamError(_REFUSED))
        self._fail(error("the upstream closed the connection before it answered"))
        super().connection_lost(exc)

    def _begin_to_parse(self) -> None:
        self._interim = 0
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

    def waits_for_upstream(self) -> bool:
        """Whether it is the upstream that has to do something next: to answer, to go on, or to read on."""
        if self._payload is not None and (self._payload.is_eof() or self._reading_paused):
            return False
        return self._sent or self._paused

    def give_up(self, idle_s: float) -> None:
        """End an exchange whose upstream has been silent for that long."""
        self._fail(
            UpstreamTimeout(
                f"the upstream has been silent for {idle_s:g} seconds; set response_idle of the route to more if it may be"
            )
        )

    def _take(
        self, message: RawResponseMessage, payload: aiohttp.StreamReader, after_switch: bytes | None
    ) -> None:
        if 100 <= message.code < 200 and message.code != 101:
            self._interim += 1  # and is not passed on
            if self._interim > INTERIM:
                self._fail(UpstreamError("the upstream sends interim responses without end"))
        elif not self._heads.complete:  # the parser has seen an end where none is
            self._fail(UpstreamError(_NOT_HTTP))
        elif after_switch is not None or not 200 <= message.code <= 599:
            self._switch(message, after_switch)
        elif _is_coded(message):
            self._fail(UpstreamError("the upstream's response has a transfer coding that was not asked for"))
        elif payload is aiohttp.EMPTY_PAYLOAD and self._with_body:
            self._fail(UpstreamError("the upstream's response has a length that cannot be"))
        elif self._outcome is not None:
            self.close()  # a second answer to one request
        else:
            self._answer(message, payload)

    def _answer(self, message: RawResponseMessage, payload: aiohttp.StreamReader) -> None:
        self._payload = payload
        self._keep = not message.should_close
        self._settle(UpstreamResponse(self, message, payload))

    def _switch(self, message: RawResponseMessage, after: bytes | None) -> None:
        protocol = agreed(Fields(message.raw_headers), self._asked)
        if after is None or protocol is None or message.version < (1, 1) or self._outcome is not None:
            self._fail(UpstreamError("the upstream's response has a status that was not asked for"))
            return
        self._watch_no_more()
        self.switched_to = protocol
        self._after = after
        self._parser = None
        self._busy = False
        self._pause_transport_reading()
        self._settle(UpstreamResponse(self, message, aiohttp.EMPTY_PAYLOAD))

    def _settle(self, outcome: UpstreamResponse | Exception) -> None:
        self._outcome = outcome
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.settle()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _watch_no_more(self) -> None:
        if self._watch is not None:
            self._watch.end()
            self._watch = None

    def take_over(self) -> tuple[asyncio.Transport, bytes]:
        transport, self.transport = self.transport, None
        if transport is None:
            raise UpstreamError("the upstream closed the connection before it could be used")
        return transport, self._after

    def _fail(self, error: Exception) -> None:
        if self._busy and self._outcome is None:
            self._settle(error)
        elif self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(aiohttp.ClientPayloadError(str(error)))
            self._flow_on()
        self.close()

    async def _send_body(self, body: Body, *, chunked: bool) -> None:
        try:
            if self._expectation is not None and not await self._expectation.met():
                return  # and the connection, on which a body is owed, is not used again
            await body.pour(self._write_chunk if chunked else self._write, self._drain)
            if chunked:
                self._write(LAST_CHUNK)
            await self._drain()
            self._sent = True
        except _Gone:
            return  # `connection_lost` says so to whoever waits
        except Exception:  # noqa: BLE001  # whatever the client's side raises, its body cannot be finished
            self._fail(BodyError())

    def _write(self, data: bytes) -> bool:
        if self.transport is None:
            return False
        self.transport.write(data)
        if self._watch is not None:
            self._watch.touch()
        return not self._paused

    def _write_chunk(self, data: bytes) -> bool:
        return self._write(build_chunk(data))

    async def _drain(self) -> None:
        try:
            await self._drain_helper()
        except ConnectionError:
            raise _Gone from None


class _Watch:
    """Gives an exchange up after `idle_s` seconds in which the upstream did nothing and nobody else had to.

    One timer for the whole exchange: it is not moved by what happens, but looks back when it fires.
    """

    __slots__ = ("_connection", "_idle_s", "_loop", "_timer", "_touched_at")

    def __init__(self, connection: Connection, idle_s: float) -> None:
        self._connection = connection
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self.touch()
        self._timer = self._loop.call_later(idle_s, self._look)

    def touch(self) -> None:
        self._touched_at = self._loop.time()

    def end(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        if not self._connection.waits_for_upstream():
            self.touch()
        left_s = self._touched_at + self._idle_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._connection.give_up(self._idle_s)


def _is_about_certificates(exc: BaseException | None) -> bool:
    """Since TLS 1.3 a client's certificate is judged after the handshake: an alert comes in place of an answer."""
    reason = exc.reason or "" if isinstance(exc, ssl.SSLError) else ""
    return "CERTIFICATE" in reason or "UNKNOWN_CA" in reason


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
