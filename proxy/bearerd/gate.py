"""The client's side of connections: whose and how many there are, how large and how slow the requests on them may be.

aiohttp's server reads the requests. What it leaves open is closed here: it has no time limit for a head or a body under
way, does not tell the reader of a chunked body that it is broken, drops what is left of an upload when it is to end, and
loses what a client sends right behind a request that offers an upgrade other than to WebSocket.
"""

import asyncio
import select
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, cast

import structlog
from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo, _RequestHandler

from bearerd.core.configuration import Limits
from bearerd.core.guard import Guard, Head
from bearerd.core.headers import nominated
from bearerd.core.limits import (
    FIELD_LIMIT,
    FIELDS,
    HEAD_LIMIT,
    HEAD_TIMEOUT,
    HEAD_TOO_LARGE,
    TARGET_LIMIT,
    TARGET_TOO_LONG,
    TOO_MANY_CONNECTIONS,
)
from bearerd.core.problems import Problem
from bearerd.forward.direct import DirectCall
from bearerd.forward.pieces import READ_BUFFER, Flow, read_in_pieces
from bearerd.forward.reply import end_with, last_answer, say_no_more, unread
from bearerd.forward.spool import BodyStalled
from bearerd.ids import identify
from bearerd.meters import Meters
from bearerd.peers import GONE

LEAVING_S: Final = 0.5  # between looks at a client that is kept waiting
LINGER_S: Final = 1.0  # for a client to read the last answer
FRESH_S: Final = 2.0  # at the end, for the first request of a connection that was opened for one
REFUSALS: Final = 8  # that are said at the same time; whoever comes beside them is told nothing
STRANGERS: Final = 1024  # users whose refusal is logged
_UNREADABLE: Final = Problem(
    400,
    "bad_request",
    "this is not an HTTP request that can be read; send HTTP/1.1, without TLS",
    "http_request_error",
    close=True,
)
_DEFECT: Final = Problem(
    500,
    "internal_error",
    "bearerd met an error of its own; see its log, which says where, and report it",
    "proxy_internal_error",
    close=True,
)


Begin = Callable[["Client", RawRequestMessage, StreamReader], DirectCall | None]
"""Forwards a request that is complete, without a handler, if it can."""


def begin_nothing(client: "Client", message: RawRequestMessage, payload: StreamReader) -> None:
    """Every request needs the handler."""


@dataclass(frozen=True, slots=True)
class Callers:
    """Who may connect: `users`, by what `user_of` says of a connection. All others get `refusal`."""

    user_of: Callable[[asyncio.BaseTransport], int]
    users: frozenset[int]
    refusal: Problem


@dataclass(slots=True)
class Door:
    """A way in: what is asked of those who come by it, as of now. `judge` says why a request is refused, if it is. Without
    `callers` anybody may come.
    """

    guard: Guard
    judge: Callable[[Head], Problem | None]
    callers: Callers | None = None


class Gate(web.Server):
    """aiohttp's low-level server, with limits. `connections` is how many it serves at once, by whatever door."""

    def __init__(
        self,
        handler: _RequestHandler,
        limits: Limits,
        connections: int,
        begin: Begin = begin_nothing,
        meters: Meters | None = None,
    ) -> None:
        super().__init__(
            self._hand_on,
            request_factory=self._begin,
            handler_cancellation=True,
            keepalive_timeout=limits.keep_alive_s,
            access_log=None,
            auto_decompress=False,
            max_line_size=TARGET_LIMIT,
            max_field_size=FIELD_LIMIT,
            max_headers=FIELDS,
            read_bufsize=READ_BUFFER,
        )
        self.limits = limits
        self.begin = begin
        self._handler = handler
        self.served = 0
        self.finishing = False
        self.closed = False
        self.fresh_s = FRESH_S
        self.refusals: set[asyncio.Transport] = set()
        self._empty: asyncio.Event | None = None
        self._sending_away: asyncio.TimerHandle | None = None
        self.most = connections
        self._meters = meters or Meters()
        self._full = False
        self._strangers: set[int] = set()
        self._log = structlog.get_logger("bearerd.gate")

    def by(self, door: Door) -> Callable[[], RequestHandler]:
        """What makes the protocols of the connections that come by `door`."""
        return lambda: Client(self, door, self._loop, **self._kwargs)

    def turn_to(self, handler: _RequestHandler, limits: Limits, connections: int, begin: Begin) -> None:
        """Have whatever comes next handled by these, and judged as the doors say now; also by whom is connected already.

        Their idle connections are kept as long as was right when they came.
        """
        self._handler, self.begin = handler, begin
        self.limits, self.most = limits, connections
        self._kwargs["keepalive_timeout"] = limits.keep_alive_s
        for client in cast(list[Client], self.connections):
            client.guard, client.judge = client.door.guard, client.door.judge

    def _hand_on(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """A request that was read and not yet taken up is the next handler's."""
        return self._handler(request)

    def judge(self, client: "Client", transport: asyncio.BaseTransport) -> Problem | None:
        """Why a client is not served, or None for one that is counted now. Whoever may not connect counts for nothing."""
        problem = self._judge(client, transport)
        if problem is not None:
            self._meters.connections_refused[problem.code] += 1
        return problem

    def _judge(self, client: "Client", transport: asyncio.BaseTransport) -> Problem | None:
        callers = client.door.callers
        if callers is not None:
            client.user = callers.user_of(transport)
            if client.user not in callers.users:
                self._tell_of(client.user)
                return callers.refusal
        return None if self.admit() else TOO_MANY_CONNECTIONS

    def admit(self) -> bool:
        """Count one more, if there may be. That there may not is logged once, until half of them have left."""
        if self.served < self.most:
            self.served += 1
            self._meters.connections += 1
            return True
        if not self._full:
            self._log.warning("connections.full", connections=self.served)
        self._full = True
        return False

    def leave(self) -> None:
        """One less."""
        self.served -= 1
        self._full = self._full and self.served > self.most // 2
        if self._empty is not None and not self.served:
            self._empty.set()

    def _tell_of(self, stranger: int) -> None:
        """Once of each."""
        if stranger != GONE and stranger not in self._strangers and len(self._strangers) < STRANGERS:
            self._strangers.add(stranger)
            self._log.warning("peer.refused", uid=stranger if stranger >= 0 else None)

    def pre_shutdown(self) -> None:
        """Take no new request; those under way come to their end."""
        self.finishing = True
        for client in self.connections:
            cast(Client, client).finish()
        self._sending_away = self._loop.call_later(self.fresh_s, self._send_away)

    def _send_away(self) -> None:
        for client in self.connections:
            cast(Client, client).leave_if_fresh()

    async def drained(self, limit_s: float) -> None:
        """Until no client is connected any more, who then has all of its last answer; at most `limit_s` seconds."""
        if self.served:
            self._empty = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._empty.wait()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # as the server has it
        """Close every connection; what is under way has `timeout` seconds. One that still comes is closed at once."""
        self.closed = True
        if self._sending_away is not None:
            self._sending_away.cancel()
        for transport in self.refusals:
            transport.abort()
        await super().shutdown(timeout)

    def tell(self, problem: Problem, head: Head) -> None:
        """Log that a client was refused before its request could be read."""
        self._meters.refusals[problem.code] += 1
        self._log.warning("request.unreadable", problem=problem.code, **identify(head))

    def _begin(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        protocol.taken = payload  # type: ignore[attr-defined]  # a `Client`, always
        if message.version < HttpVersion11 and not message.should_close:
            message = _believe_connection(message)
        return _Request(message, payload, protocol, writer, task, self._loop)


class _Request(web.BaseRequest):
    """One whose answer says that it is the last on its connection, where it is (RFC 9112 section 9.6)."""

    @property
    def keep_alive(self) -> bool:
        return not (self._message.should_close or cast(Client, self._protocol).finishing)


def _believe_connection(message: RawRequestMessage) -> RawRequestMessage:
    """The parser takes Proxy-Connection for Connection too, and an HTTP/1.0 client would wait for the end (RFC 9112 C.2.2)."""
    return message._replace(should_close=b"keep-alive" not in nominated(message.raw_headers))


class _Part(Enum):
    """What the client is in the middle of sending."""

    NONE = auto()
    HEAD = auto()
    BODY = auto()


class _Refused(HttpProcessingError):  # noqa: N818  # what is done with a request, not an error of anybody's
    """A request that the parser has nothing against so far."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(code=problem.status, message=problem.code)
        self.problem = problem


class Client(RequestHandler):
    """One connection. A timer runs where a head or a body did not come in one piece, one at most.

    It is not set anew for each piece: it looks when it is due whether anything came. `taken` is the body of the
    request that was last taken up, `user` whose connection it is, where that was asked.
    """

    __slots__ = (
        "_begun",
        "_broken",
        "_early",
        "_gate",
        "_heard_at",
        "_leaving",
        "_offers",
        "_part",
        "_size",
        "_timer",
        "door",
        "finishing",
        "flow",
        "guard",
        "judge",
        "taken",
        "user",
    )

    def __init__(self, gate: Gate, door: Door, loop: asyncio.AbstractEventLoop, **settings: object) -> None:
        super().__init__(gate, loop=loop, **settings)  # type: ignore[arg-type]  # as `web.Server` has it
        self._gate = gate
        self.door = door
        self.guard = door.guard
        self.judge = door.judge
        self._part = _Part.NONE
        self._size = 0  # of a head under way, or what there was of a body
        self._heard_at = 0.0  # the first byte of a head, the last one of a body
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._early: tuple[RawRequestMessage | _ErrInfo, StreamReader] | None = None  # what is put by
        self._broken = False  # nothing that still comes is a request
        self.finishing = False
        self._begun: DirectCall | None = None  # the call under way that needs no handler, or did not till now
        self._offers = False  # the request under way offers an upgrade that the parser does not know
        self.flow: Flow | None = None
        self.taken: StreamReader = EMPTY_PAYLOAD
        self.user: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._gate.closed:  # it was on its way when there was still somebody here
            transport.set_protocol(asyncio.Protocol())
            cast(asyncio.Transport, transport).abort()
            return
        problem = self._gate.judge(self, transport)
        if problem is None:
            self.finishing = self._gate.finishing
            super().connection_made(transport)
            read_in_pieces(self, transport)
        else:
            _Refusal(self._gate, cast(asyncio.Transport, transport), self._loop, problem)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._gate.leave()
        for timer in (self._timer, self._leaving):
            if timer is not None:
                timer.cancel()
        begun = self.take_begun()
        if begun is not None:
            begun.abandon()
        super().connection_lost(exc)
        self._flow_on()

    def data_received(self, data: bytes) -> None:
        """A request that comes in one piece, as most do, costs no more than this look at it."""
        if self._broken:
            return
        if self._begun is not None:
            self.go_on()
        if self._early is not None:
            self._queue_early(self._early)
        waiter, self._waiter = self._waiter, None  # who is woken when it is known that a handler is needed
        count = self._request_count
        super().data_received(data)
        self._waiter = waiter
        new = self._request_count > count
        simple = self._is_simple(new=new)
        if simple and (self._put_by() if waiter is None else self._begin()):
            return
        self._wake()
        if not (simple or self._close or self._force_close):
            self._examine(data, new=new)
        elif simple and self.finishing:
            self.close()
        self._flow_on()

    def _flow_on(self) -> None:
        if self.flow is not None and not self.flow.go_on():
            self.flow = None

    def _is_simple(self, *, new: bool) -> bool:
        """Whether the last request has come in one piece, and is nothing special."""
        if not new or self._part is not _Part.NONE:
            return False
        message, payload = self._messages[-1]
        return payload.is_eof() and type(message) is RawRequestMessage and not message.upgrade

    def _begin(self) -> bool:
        """Forward the one request that there is, which stays in the queue until it is answered."""
        message, payload = cast(tuple[RawRequestMessage, StreamReader], self._messages[0])
        if len(self._messages) > 1 or message.should_close or self.finishing:
            return False
        if self._paused or self._reading_paused:
            return False
        self._begun = self._gate.begin(self, message, payload)
        return self._begun is not None

    def _put_by(self) -> bool:
        """Whether a request waits for the server's task to see that the one before it has been answered.

        That takes a turn of the loop, in which a quick client is quicker. The task would take the request up, and be late
        for the next one again: calls that needed the task once would need it for ever.
        """
        if self._request_in_progress or len(self._messages) > 1 or not self._keepalive:
            return False
        self._early = self._messages.popleft()
        self._loop.call_soon(self._begin_early)
        return True

    def _begin_early(self) -> None:
        if self._early is None:
            return
        self._queue_early(self._early)
        if self._waiter is None or not self._begin():
            self._wake()
            if self.finishing:
                self.close()

    def _queue_early(self, early: tuple[RawRequestMessage | _ErrInfo, StreamReader]) -> None:
        self._messages.appendleft(early)
        self._early = None

    def answer(self, data: bytes) -> None:
        """The call that was begun is over, with this."""
        self._begun = None
        self._messages.popleft()
        if self._parser is not None and self.transport is not None:
            self._parser.message_consumed()
            self.transport.write(data)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def go_on(self) -> None:
        """The call that was begun needs the handler, which takes it with `take_begun`."""
        if self._begun is not None:
            self._begun.hand_over()
        self._wake()

    def take_begun(self) -> DirectCall | None:
        begun, self._begun = self._begun, None
        return begun

    def _wake(self) -> None:
        if self._messages and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _process_keepalive(self) -> None:
        if self._begun is not None or self._early is not None:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """It was we who kept the client waiting."""
        if self._part is _Part.BODY:
            self._heard_at = self._loop.time()
        if self._reading_paused:  # else there is nothing to resume, though every reader of a body asks for it
            super().resume_reading(resume_parser)

    def pause_reading(self) -> None:
        """A transport that is not read from does not tell that its client has left, so we look."""
        if self.flow is not None:
            return  # what comes is passed on at once
        super().pause_reading()
        if self._leaving is None:
            self._leaving = self._loop.call_later(LEAVING_S, self._look_for_client)

    def _look_for_client(self) -> None:
        self._leaving = None
        if not self._reading_paused or self.transport is None:
            return
        if has_left(self.transport):
            self.transport.abort()
        else:
            self._leaving = self._loop.call_later(LEAVING_S, self._look_for_client)

    def finish(self) -> None:
        """Take no further request. One that is coming is read to its end, and so is the first one of all: the client has
        connected for it, and could not know.
        """
        self.finishing = True
        if self._begun is not None:
            self.go_on()
        if self._is_idle:
            self.force_close()  # the server's own `close` would leave it open, and deaf
        elif self._part is _Part.NONE and self._request_count:
            self.close()

    @property
    def _is_idle(self) -> bool:
        waits = self._waiter is not None and not self._waiter.done() and self._begun is None
        return waits and self._part is _Part.NONE and self._request_count > 0

    def leave_if_fresh(self) -> None:
        """Close a connection that has had no request, and has none coming."""
        if not self._request_count and self._part is _Part.NONE:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be read. Nothing of it is shown or logged: it may hold anything."""
        del request, message
        if isinstance(exc, ConnectionError):
            raise exc
        problem = _explain(exc) if status == 400 or isinstance(exc, _Refused) else _DEFECT
        head = unread()
        self._gate.tell(problem, head)
        return cast(web.StreamResponse, end_with(self.transport, problem, head))

    def _examine(self, data: bytes, *, new: bool) -> None:
        """What state the bytes that came have left the connection in."""
        message, payload = self._messages[-1] if self._messages else (None, self.taken)
        if isinstance(message, _ErrInfo):
            self._break(message)
        elif self._upgraded or self._payload_parser is not None:
            self._part = _Part.NONE
        elif new or self._part is _Part.BODY:
            self._follow(data, payload, message if new else None)
        elif self._part is _Part.HEAD or data.strip(b"\r\n"):
            self._read_on(len(data))

    def _follow(self, data: bytes, body: StreamReader, message: RawRequestMessage | None) -> None:
        """A request has come as far as the end of `data`, or to its own; `message` is its head, if it has just come."""
        if message is not None:
            self._offers = message.upgrade
        if self._offers and body.is_eof() and self._has_more(data, body, new=message is not None):
            self.finishing = True
        self._size = body.total_bytes
        if not body.is_eof():
            self._wait_for(_Part.BODY)
            return
        self._part = _Part.NONE
        if self.finishing:
            self.close()

    def _has_more(self, data: bytes, body: StreamReader, *, new: bool) -> bool:
        """Whether `data` may go on behind the request that ends in it. The parser has lost that: nobody can answer it."""
        if new:
            data, before = data.partition(b"\r\n\r\n")[2], 0
        else:
            before = self._size
        return len(data) != body.total_bytes - before

    def _read_on(self, size: int) -> None:
        """A head is not complete yet."""
        if self._part is not _Part.HEAD:
            self._wait_for(_Part.HEAD)
            self._size = 0
            self.keep_alive(True)  # stops the server's own timer, which is for idle connections
        self._size += size
        if self._size > HEAD_LIMIT + TARGET_LIMIT:
            self._refuse(HEAD_TOO_LARGE)

    def _wait_for(self, part: _Part) -> None:
        self._part = part
        self._heard_at = self._loop.time()
        due = self._heard_at + self._limit_s
        if self._timer is None or self._timer.when() > due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due, self._look)

    @property
    def _limit_s(self) -> float:
        limits = self._gate.limits
        return limits.header_read_s if self._part is _Part.HEAD else limits.body_idle_s

    def _look(self) -> None:
        """Whether what was waited for has come too late."""
        self._timer = None
        if self._part is _Part.NONE:
            return
        now = self._loop.time()
        if self._held_back:
            self._heard_at = now
        due = self._heard_at + self._limit_s
        if now < due:
            self._timer = self._loop.call_at(due, self._look)
        elif self._part is _Part.HEAD:
            self._refuse(HEAD_TIMEOUT)
        else:
            self._give_up()

    @property
    def _held_back(self) -> bool:
        """Whether it is we who do not read on, or who have not answered what came before."""
        if self._part is _Part.HEAD:
            return self._waiter is None
        waits = self.flow is not None or self._body._waiter is not None  # noqa: SLF001  # decision 0002
        return self._reading_paused or self._buffer_paused or not waits

    @property
    def _body(self) -> StreamReader:
        """What is being sent, if anything is."""
        return self._messages[-1][1] if self._messages else self.taken

    def _give_up(self) -> None:
        """The body will not come any more; whoever reads it gets to know."""
        self._broken, self._part = True, _Part.NONE
        self._body.set_exception(BodyStalled())
        self._flow_on()

    def _break(self, message: _ErrInfo) -> None:
        """The parser has given up: in a body, which its reader must be told, or between requests."""
        self._messages.pop()
        self._broken, self._part = True, _Part.NONE
        body = self._messages[-1][1] if self._messages else self.taken
        if body.is_eof():
            self._messages.append((message, self._linger()))
        else:
            body.set_exception(RequestPayloadError())

    def _refuse(self, problem: Problem) -> None:
        """Answer with `problem` when all that came before has been answered, and read no further."""
        self._broken, self._part = True, _Part.NONE
        error = _Refused(problem)
        self._messages.append((_ErrInfo(problem.status, error, error.message), self._linger()))
        self._wake()

    def _linger(self) -> StreamReader:
        """A body that ends after a while: until then the server takes and drops whatever comes."""
        payload = StreamReader(self, READ_BUFFER, loop=self._loop)
        self._loop.call_later(LINGER_S, payload.feed_eof)
        return payload


def has_left(transport: asyncio.Transport) -> bool:
    """Whether the other side of a connection has closed or reset it, behind what is not read yet. Only Linux tells."""
    if sys.platform != "linux":
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def _explain(exc: BaseException | None) -> Problem:
    if isinstance(exc, _Refused):
        return exc.problem
    if isinstance(exc, LineTooLong):
        return TARGET_TOO_LONG if exc.args[1] == TARGET_LIMIT else HEAD_TOO_LARGE
    if isinstance(exc, HttpProcessingError) and exc.message.startswith("Too many headers"):
        return HEAD_TOO_LARGE
    return _UNREADABLE


class _Refusal(asyncio.Protocol):
    """A connection that is not served: told why, and closed when the client has, or after a moment."""

    def __init__(
        self, gate: Gate, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, problem: Problem
    ) -> None:
        self._refusals, self._transport = gate.refusals, transport
        self._refusals.add(transport)
        transport.set_protocol(self)
        self._timer = loop.call_later(LINGER_S, transport.abort)
        if len(self._refusals) > REFUSALS:
            transport.abort()
        else:
            transport.write(last_answer(problem, unread()))
            say_no_more(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        del exc
        self._refusals.discard(self._transport)
        self._timer.cancel()
