"""One call from end to end: route, token, upstream, one replay where the token is not taken, relay."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, cast

import structlog
from aiohttp import web

from bearerd.core.guard import Head
from bearerd.core.headers import Rewrite, build_head, count_down, field, request_headers
from bearerd.core.limits import BODY_TIMEOUT
from bearerd.core.problems import Problem, broken_upstream, no_token
from bearerd.core.replay import OPEN, ReplayGate, may_force, replay_rejected
from bearerd.core.rewrites import rewrite_field
from bearerd.core.rules import judge
from bearerd.core.targets import Route, build_target, has_token, match_route, path_of
from bearerd.core.tokens import TokenSet
from bearerd.core.upgrades import wanted
from bearerd.errors import LoginRequired, TokenError, UpstreamError
from bearerd.forward.pool import UpstreamPool
from bearerd.forward.reply import CONTINUE, Written, answer_problem, cut_off, relay
from bearerd.forward.spool import BodyStalled, Disk, Spool, SpoolBudget
from bearerd.forward.tunnel import CHUNK, hold_back, tunnel
from bearerd.forward.upstream import BodyError, UpstreamRequest, UpstreamResponse
from bearerd.tokens.manager import TokenManager

_NO_ROUTE: Final = Problem(
    404,
    "no_route",
    "no route has this path; see the routes with: bearerd config show",
    "destination_not_found",
)
_BAD_BODY: Final = Problem(
    400, "bad_request", "the request body is not framed as it should be", "http_request_error", close=True
)
_BODY_LOST: Final = Problem(
    500,
    "internal_error",
    "what was kept of the request body on disk could not be read back; the log says why",
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
    """What one call knows of itself."""

    __slots__ = ("body", "head", "replayed", "request", "route", "started_at", "upgrade")

    def __init__(self, request: web.BaseRequest, head: Head, route: Route, body: Spool | None) -> None:
        self.request = request
        self.head = head
        self.route = route
        self.body = body
        self.upgrade = wanted(head, route.upgrades)
        if self.upgrade is not None and not hold_back(request):
            self.upgrade = None
        self.replayed = False
        self.started_at = time.perf_counter()


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
        access: bool,
        login_urls: Mapping[str, str] | None = None,
        login_needed: Callable[[str], None] | None = None,
    ) -> None:
        """`disk` is for routes that want it. `login_urls` is where people log in to accounts; `login_needed` is told of each call that is refused for it."""
        self._routes = tuple(routes)
        self._managers = managers
        self._pool = pool
        self._budget = budget
        self._disk = disk
        self._tunnel_buffer = memoryview(bytearray(CHUNK))
        self._via = {(1, minor): f"1.{minor} {pseudonym}".encode() for minor in (0, 1)}
        self._access = access
        self._login_urls = login_urls or {}
        self._login_needed = login_needed
        self._gates: dict[Route, ReplayGate] = {}
        self._log = structlog.get_logger("bearerd.forward")

    async def handle(self, request: web.BaseRequest, head: Head) -> web.StreamResponse:
        """Answer one call that the guard let pass. Whatever fails becomes a problem, or cuts the answer off."""
        route = match_route(self._routes, head.target)
        if route is None:
            return answer_problem(_NO_ROUTE, head)
        problem = _refuse(route, head)
        if problem is not None:
            path = path_of(head.target).decode("latin-1")
            self._log.warning("request.refused", problem=problem.code, method=head.method, path=path)
            return answer_problem(problem, head)
        call = _Call(request, head, route, self._spool(request, head, route))
        try:
            answer = await self._forward(call)
        finally:
            if call.body is not None:
                call.body.release()
        self._log_access(call, answer.status)
        return cast(web.StreamResponse, answer)

    async def _forward(self, call: _Call) -> web.Response | Written:
        try:
            response = await self._send_with_replay(call)
        except TokenError as error:
            return answer_problem(self._no_token(call.route.account, error), call.head)
        except UpstreamError as error:
            return answer_problem(broken_upstream(error), call.head)
        except BodyError:
            return answer_problem(_bad_body(call), call.head)
        rewrite = partial(rewrite_field, self._routes, call.route, call.head.target)
        if response.switched_to is not None:
            return await self._switch(call, response, rewrite)
        transport = call.request.transport  # the server lets go of it before it cancels us
        try:
            return await relay(call.request, response, rewrite)
        except UpstreamError:
            self._log.warning("request.cut_short", route=call.route.name)
            return cut_off(transport)
        except BaseException:
            cut_off(transport)
            raise
        finally:
            await response.aclose()

    async def _switch(
        self, call: _Call, response: UpstreamResponse, rewrite: Rewrite
    ) -> web.Response | Written:
        try:
            return await tunnel(call.request, response, rewrite, self._tunnel_buffer)
        except UpstreamError as error:
            return answer_problem(broken_upstream(error), call.head)
        finally:
            await response.aclose()

    def _no_token(self, account: str, error: TokenError) -> Problem:
        if isinstance(error, LoginRequired) and self._login_needed is not None:
            self._login_needed(account)
        return no_token(account, error, self._login_urls.get(account))

    async def _send_with_replay(self, call: _Call) -> UpstreamResponse:
        manager = self._managers[call.route.account]
        token = manager.current() or await manager.token()
        if field(call.head.headers, b"expect") is not None and call.body is not None:
            self._continue(call.request)
        response = await self._send(call, token)
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

    async def _newer_token(self, call: _Call, manager: TokenManager, sent: TokenSet) -> TokenSet | None:
        """A token worth a replay after `sent` was not taken, or None where the answer is to be relayed."""
        if call.body is not None and not call.body.replayable:
            return None
        current = manager.current()
        if current is not None and current.generation != sent.generation:
            return current
        if not may_force(self._gates.get(call.route, OPEN), time.monotonic()):
            return None
        try:
            newer = await manager.force_refresh(sent.generation)
        except TokenError as error:
            self._log.warning("request.not_replayed", route=call.route.name, reason=str(error))
            return None
        # The body went on being sent meanwhile, and may have outgrown what is kept of it.
        return newer if call.body is None or call.body.replayable else None

    async def _replay(self, call: _Call, rejected: UpstreamResponse, token: TokenSet) -> UpstreamResponse:
        await rejected.aclose()
        call.replayed = True
        response = await self._send(call, token)
        if response.status in call.route.retry_statuses:
            gate = self._gates.get(call.route, OPEN)
            self._gates[call.route] = replay_rejected(gate, time.monotonic())
        else:
            self._reopen(call.route)
        return response

    def _reopen(self, route: Route) -> None:
        if self._gates:
            self._gates.pop(route, None)

    async def _send(self, call: _Call, token: TokenSet) -> UpstreamResponse:
        route, head = call.route, call.head
        length = field(head.headers, b"content-length")
        chunked = call.body is not None and length is None
        headers = request_headers(
            count_down(head.headers) if head.method == "OPTIONS" else head.headers,
            authority=route.origin.authority.encode("ascii"),
            via=self._via[head.version],
            framing=_framing(length, chunked=chunked),
            authorization=b"Bearer " + token.access_token.reveal().encode("ascii"),
            cookies=route.cookies,
            upgrade=call.upgrade,
        )
        start_line = b"%b %b HTTP/1.1" % (head.method.encode("ascii"), build_target(route, head.target))
        body = call.body.chunks() if call.body is not None else None
        request = UpstreamRequest(
            head.method, build_head(start_line, headers), body, chunked, route.response_idle_s, call.upgrade
        )
        return await self._pool.send(route.origin, request, route.way)

    def _spool(self, request: web.BaseRequest, head: Head, route: Route) -> Spool | None:
        length = int(field(head.headers, b"content-length") or 0)
        if length == 0 and field(head.headers, b"transfer-encoding") is None:
            return None
        return Spool(request.content, self._budget, self._disk if route.disk_spool else None, length)

    def _continue(self, request: web.BaseRequest) -> None:
        """Tell a client that waits with its body to send it (RFC 9110 section 10.1.1)."""
        if request.version >= (1, 1) and request.transport is not None:
            request.transport.write(CONTINUE)

    def _log_access(self, call: _Call, status: int) -> None:
        if self._access:
            self._log.info(
                "request.forwarded",
                method=call.head.method,
                path=path_of(call.head.target).decode("latin-1"),
                route=call.route.name,
                account=call.route.account,
                status=status,
                replayed=call.replayed,
                duration_s=round(time.perf_counter() - call.started_at, 6),
            )


def _refuse(route: Route, head: Head) -> Problem | None:
    if b"?" in head.target and not route.query_token and has_token(head.target):
        return _TOKEN_IN_QUERY
    if route.rules is None:
        return None
    return judge(route.rules, head.method, head.target[len(route.prefix) :], head.headers)


def _bad_body(call: _Call) -> Problem:
    if call.body is not None and call.body.lost:
        return _BODY_LOST
    return BODY_TIMEOUT if isinstance(call.request.content.exception(), BodyStalled) else _BAD_BODY


def _framing(length: bytes | None, *, chunked: bool) -> tuple[bytes, bytes] | None:
    if chunked:
        return (b"Transfer-Encoding", b"chunked")
    return None if length is None else (b"Content-Length", length)
