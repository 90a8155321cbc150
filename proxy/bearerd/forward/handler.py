"""One call from end to end: route, token, upstream, one replay where the token is not taken, relay."""

import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import Final, cast

import structlog
from aiohttp import StreamReader, web
from aiohttp.streams import EMPTY_PAYLOAD

from bearerd.core.calls import Asker
from bearerd.core.fields import Fields
from bearerd.core.guard import Head
from bearerd.core.headers import Rewrite, count_down
from bearerd.core.limits import BODY_TIMEOUT
from bearerd.core.problems import DEFECT, Problem, broken_upstream, no_token
from bearerd.core.replay import OPEN, ReplayGate, may_force, replay_rejected
from bearerd.core.rules import judge
from bearerd.core.sandbox import WORKER_REFUSED, asks_for_worker, may_become_page
from bearerd.core.targets import Route, has_token, match_route, path_of
from bearerd.core.tokens import TokenSet
from bearerd.core.upgrades import wanted
from bearerd.errors import CUT_SHORT, LoginRequired, TokenError, UpstreamError, kind_of
from bearerd.forward.direct import Caller, DirectCall, is_ordinary
from bearerd.forward.expectation import Expectation, Patience, add_expectation
from bearerd.forward.lanes import Lane
from bearerd.forward.pool import UpstreamPool
from bearerd.forward.reply import CONTINUE, Written, answer_problem, cut_off, relay
from bearerd.forward.spool import BodyStalled, Disk, Spool, SpoolBudget
from bearerd.forward.tunnel import CHUNK, hold_back, tunnel
from bearerd.forward.upstream import BodyError, Connection, UpstreamRequest, UpstreamResponse
from bearerd.ids import identify, request_id
from bearerd.meters import LEFT, Meters
from bearerd.tokens.manager import TokenManager

_NO_ROUTE: Final = Problem(
    404,
    "no_route",
    "no route has this path; see the routes with: bearerd config show",
    "destination_not_found",
)
_BAD_BODY: Final = Problem(
    400,
    "bad_request",
    "the request body is not framed as it should be; send it with a right Content-Length, or in chunks",
    "http_request_error",
    close=True,
)
_BODY_LOST: Final = Problem(
    500,
    "internal_error",
    "what was kept of the request body on disk could not be read back; see the log, which says why, and send the call again",
    "proxy_internal_error",
    close=True,
)
_TOKEN_IN_QUERY: Final = Problem(
    403,
    "token_in_query",
    "the query has an access_token, which is the daemon's to give; take it out, or set query_token of the route",
    "http_request_denied",
)


class _Call:
    """What one call knows of itself. `begun` is how it was sent already, if it was.

    `token` is what it was sent with last, and `response` what it got; `problem` is our answer in its place. `cut_short`
    says that the upstream broke `response` off.
    """

    __slots__ = (
        "begun",
        "body",
        "cut_short",
        "head",
        "lane",
        "problem",
        "replayed",
        "request",
        "response",
        "started_at",
        "token",
        "upgrade",
    )

    def __init__(self, request: web.BaseRequest, head: Head, lane: Lane, begun: DirectCall | None) -> None:
        self.request = request
        self.head = head
        self.lane = lane
        self.begun = begun
        self.body: Spool | None = None
        self.upgrade = wanted(head, lane.route.upgrades)
        if self.upgrade is not None and not hold_back(request):
            self.upgrade = None
        self.replayed = False
        self.token: TokenSet | None = None
        self.response: UpstreamResponse | None = None
        self.problem: Problem | None = None
        self.cut_short = False
        self.started_at = time.perf_counter() if begun is None else begun.started_at

    @property
    def route(self) -> Route:
        return self.lane.route


class Forwarder:
    """Sends calls to their upstreams with a token of their route's account."""

    def __init__(
        self,
        routes: Sequence[Route],
        managers: Mapping[str, TokenManager],
        pool: UpstreamPool,
        budget: SpoolBudget,
        disk: Disk,
        *,
        pseudonym: str,
        meters: Meters | None = None,
        login_urls: Mapping[str, str] | None = None,
        login_needed: Callable[[str], None] | None = None,
    ) -> None:
        """`disk` is for routes that want it. `login_urls` is where people log in to accounts; `login_needed` is told of
        each call that is refused for it.
        """
        self._routes = tuple(routes)
        self._meters = meters or Meters()
        self._lanes = {
            route.prefix: Lane(route, self._routes, managers[route.account], pool, self._meters)
            for route in routes
        }
        self._pool = pool
        self._budget = budget
        self._disk = disk
        self._tunnel_buffer = memoryview(bytearray(CHUNK))
        self._via = {(1, minor): f"1.{minor} {pseudonym}".encode() for minor in (0, 1)}
        self._direct: Callable[..., DirectCall] = DirectCall
        self._login_urls = login_urls or {}
        self._login_needed = login_needed
        self.gates: dict[Route, ReplayGate] = {}
        self.patience = Patience()
        self._log = structlog.get_logger("bearerd.forward")

    def inherit(self, earlier: "Forwarder", routes: Collection[Route]) -> None:
        """What has been learnt of `routes`, which have not changed: whether they say 401 for reasons of their own."""
        self.gates = {route: gate for route, gate in earlier.gates.items() if route in routes}
        self.patience.inherit(earlier.patience, routes)

    def begin(self, caller: Caller, head: Head, payload: StreamReader) -> DirectCall | None:
        """Send a call on at once, if it has to wait for nobody but the upstream. `payload` is all of its body."""
        lane = self._admit(head)
        if isinstance(lane, Problem) or not is_ordinary(head):
            return None
        token = lane.current()
        body = None if payload is EMPTY_PAYLOAD else self._spool(payload, head, lane.route)
        if token is None or (body is not None and _may_be_in_vain(head, body)):
            return None
        connection = self._pool.take(lane.shelf)
        if connection is None:
            return None
        call = self._direct(caller, head, lane, token, connection, self._answered)
        try:
            call.send(self._via[head.version], body)
        except BaseException:
            connection.close()
            raise
        return call

    async def handle(
        self, request: web.BaseRequest, head: Head, begun: DirectCall | None = None
    ) -> web.StreamResponse:
        """Answer one call that the guard let pass. Whatever fails becomes a problem, or cuts the answer off.

        `begun` is what `begin` has made of this call, if it has.
        """
        lane = self._admit(head)
        if isinstance(lane, Lane) and not lane.route.browser_app and asks_for_worker(head):
            lane = WORKER_REFUSED
        if isinstance(lane, Problem):
            self.refused(lane, request, head)
            return answer_problem(lane, head)
        call = _Call(request, head, lane, begun)
        if begun is None:
            ask = partial(_continue, request) if _asks(head) else None
            call.body = self._spool(request.content, head, lane.route, ask)
        else:
            call.body = begun.body
        status = LEFT
        try:
            answer = await self._forward(call)
            status = answer.status
        except ConnectionError:
            raise
        except Exception:
            status = DEFECT.status
            raise
        finally:
            self._count(call, status)
            if call.body is not None:
                call.body.release()
        return cast(web.StreamResponse, answer)

    def _count(self, call: _Call, status: int) -> None:
        if status < 200:  # nobody waited for an answer any more, or it was a tunnel
            call.lane.meter.ended(status)
        else:
            call.lane.meter.answered(status, time.perf_counter() - call.started_at)

    def refused(self, problem: Problem, request: web.BaseRequest, head: Head) -> None:
        """Say that a call was not made, whoever refused it."""
        del request
        self._meters.refusals[problem.code] += 1
        if problem is not _NO_ROUTE:
            path = path_of(head.target).decode("latin-1")
            self._log.warning(
                "request.refused", problem=problem.code, method=head.method, path=path, **identify(head)
            )

    def _admit(self, head: Head) -> Lane | Problem:
        """The lane that a call takes, or why it takes none. Every call goes by this, however it goes on."""
        route = match_route(self._routes, head.target)
        if route is None:
            return _NO_ROUTE
        problem = _refuse(route, head)
        if problem is not None:
            return problem
        lane = self._lanes[route.prefix]
        return lane if lane.own is None else lane.choose(lane.own, head)

    def _answered(self, call: DirectCall, status: int) -> None:
        del status
        self._reopen(call.lane.route)

    async def _forward(self, call: _Call) -> web.Response | Written:
        try:
            response = await self._send_with_replay(call)
        except TokenError as error:
            return _answer(call, self._no_token(call.route.account, error))
        except UpstreamError as error:
            return self._upstream_failed(call, error)
        except BodyError:
            return _answer(call, _bad_body(call))
        call.response = response
        rewrite = partial(call.lane.rewrite, call.head.target)
        if response.switched_to is not None:
            return await self._switch(call, response, rewrite)
        transport = call.request.transport  # the server lets go of it before it cancels us
        grant = call.head.grant + (call.lane.grant if may_become_page(call.head) else ())
        try:
            call.lane.meter.streams += 1
            return await relay(call.request, response, rewrite, grant)
        except UpstreamError:
            call.lane.meter.upstream_errors[CUT_SHORT] += 1
            self._log.warning("request.cut_short", route=call.route.name, **identify(call.head))
            call.cut_short = True
            return cut_off(transport)
        except BaseException:
            cut_off(transport)
            raise
        finally:
            call.lane.meter.streams -= 1
            await response.aclose()

    async def _switch(
        self, call: _Call, response: UpstreamResponse, rewrite: Rewrite
    ) -> web.Response | Written:
        call.lane.meter.tunnels += 1
        try:
            return await tunnel(call.request, response, rewrite, self._tunnel_buffer)
        except UpstreamError as error:
            return self._upstream_failed(call, error)
        finally:
            call.lane.meter.tunnels -= 1
            await response.aclose()

    def _upstream_failed(self, call: _Call, error: UpstreamError) -> web.Response:
        call.lane.meter.upstream_errors[kind_of(error)] += 1
        return _answer(call, broken_upstream(error))

    def _no_token(self, account: str, error: TokenError) -> Problem:
        if isinstance(error, LoginRequired) and self._login_needed is not None:
            self._login_needed(account)
        return no_token(account, error, self._login_urls.get(account))

    async def _send_with_replay(self, call: _Call) -> UpstreamResponse:
        if call.lane.credential is None:  # what becomes of the client's own says nothing of ours
            return await self._send(call, None)
        manager = call.lane.manager
        begun, call.begun = call.begun, None
        token = begun.token if begun is not None else manager.current() or await self._wait_for_token(call)
        response = await self._attempt(call, token, None if begun is None else begun.connection)
        if response.status not in call.route.retry_statuses:
            self._reopen(call.route)
            return response
        try:
            newer = await self._newer_token(call, manager, token)
            if newer is None:
                return response
        except BaseException:
            await response.aclose()
            raise
        return await self._replay(call, response, newer)

    async def _wait_for_token(self, call: _Call) -> TokenSet:
        return await call.lane.manager.token(asker=_asker(call.head))

    async def _force_refresh(self, call: _Call, rejected: TokenSet) -> TokenSet:
        return await call.lane.manager.force_refresh(rejected.generation, asker=_asker(call.head))

    async def _newer_token(self, call: _Call, manager: TokenManager, sent: TokenSet) -> TokenSet | None:
        """A token worth a replay after `sent` was not taken, or None where the answer is to be relayed."""
        if call.body is not None and not call.body.replayable:
            return None
        current = manager.current()
        if current is not None and current.generation != sent.generation:
            return current
        if not may_force(self.gates.get(call.route, OPEN), time.monotonic()):
            return None
        try:
            newer = await self._force_refresh(call, sent)
        except TokenError as error:
            self._log.warning(
                "request.not_replayed", route=call.route.name, reason=str(error), **identify(call.head)
            )
            return None
        # The body went on being sent meanwhile, and may have outgrown what is kept of it.
        return newer if call.body is None or call.body.replayable else None

    async def _replay(self, call: _Call, rejected: UpstreamResponse, token: TokenSet) -> UpstreamResponse:
        await rejected.aclose()
        call.replayed = True
        response = await self._attempt(call, token)
        rejected_again = response.status in call.route.retry_statuses
        call.lane.meter.replays["rejected" if rejected_again else "accepted"] += 1
        if rejected_again:
            gate = self.gates.get(call.route, OPEN)
            self.gates[call.route] = replay_rejected(gate, time.monotonic())
        else:
            self._reopen(call.route)
        return response

    def _reopen(self, route: Route) -> None:
        if self.gates:
            self.gates.pop(route, None)

    def _attempt(
        self, call: _Call, token: TokenSet, begun: Connection | None = None
    ) -> Coroutine[None, None, UpstreamResponse]:
        call.token = token
        if call.body is not None and _may_be_in_vain(call.head, call.body):
            return self._ask_and_send(call, token)
        return self._send(call, token, begun)

    async def _ask_and_send(self, call: _Call, token: TokenSet) -> UpstreamResponse:
        expectation = self.patience.expect(call.route)
        response = await self._send(call, token, expectation=expectation)
        if expectation is None or not self.patience.learn(call.route, expectation, response.status):
            return response
        await response.aclose()
        return await self._send(call, token)

    async def _send(
        self,
        call: _Call,
        token: TokenSet | None,
        begun: Connection | None = None,
        expectation: Expectation | None = None,
    ) -> UpstreamResponse:
        route, head = call.route, call.head
        length = head.get(b"content-length")
        chunked = call.body is not None and length is None
        start = call.lane.build_head(
            head,
            self._fields_of(head),
            self._via[head.version],
            token,
            length,
            chunked=chunked,
            upgrade=call.upgrade,
            forwarded=call.lane.tell(head, _address_of(call.request)) if call.lane.tells else (),
        )
        if expectation is not None:
            start = add_expectation(start)
        idle_s = route.response_idle_s
        request = UpstreamRequest(head.method, start, call.body, chunked, idle_s, call.upgrade, expectation)
        return await self._pool.send(route.origin, request, route.way, begun)

    def _fields_of(self, head: Head) -> Fields:
        """What the client's fields are for the upstream."""
        return Fields(count_down(head.headers)) if head.method == "OPTIONS" else head

    def _spool(
        self, content: StreamReader, head: Head, route: Route, ask: Callable[[], None] | None = None
    ) -> Spool | None:
        length = int(head.get(b"content-length") or 0)
        if length == 0 and head.get(b"transfer-encoding") is None:
            return None
        return Spool(content, self._budget, self._disk if route.disk_spool else None, length, ask)


def _refuse(route: Route, head: Head) -> Problem | None:
    if b"?" in head.target and not route.query_token and has_token(head.target):
        return _TOKEN_IN_QUERY
    if route.rules is None:
        return None
    return judge(route.rules, head.method, head.target[len(route.prefix) :], head.headers)


def _asker(head: Head) -> Asker:
    return Asker(request_id(head), head.trace_id, None if head.trail is None else head.trail.here)


def _address_of(request: web.BaseRequest) -> str | None:
    """None for a client by a Unix socket: what that may be called is its own to choose, line ends and all."""
    peer = request.get_extra_info("peername")
    return peer[0] if isinstance(peer, tuple) else None


def _asks(head: Head) -> bool:
    """Whether the client waits with its body until it is told to send it (RFC 9110 section 10.1.1)."""
    return head.version >= (1, 1) and head.get(b"expect") is not None


def _continue(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.write(CONTINUE)


def _may_be_in_vain(head: Head, body: Spool) -> bool:
    """Whether a 401 could cost the body: it is not sent yet, and may be too large to be kept.

    One without a length is mostly small, so the upstream is not asked for it alone; but a client that waits may wait.
    """
    if not body.untouched or not body.doubtful:
        return False
    return head.get(b"content-length") is not None or _asks(head)


def _answer(call: _Call, problem: Problem) -> web.Response:
    call.problem = problem
    return answer_problem(problem, call.head)


def _bad_body(call: _Call) -> Problem:
    if call.body is not None and call.body.lost:
        return _BODY_LOST
    return BODY_TIMEOUT if isinstance(call.request.content.exception(), BodyStalled) else _BAD_BODY
