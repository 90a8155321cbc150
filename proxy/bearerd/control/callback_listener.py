"""A port that is open only while a login may come back to it (RFC 8252 section 7.3)."""

import asyncio
import errno
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from aiohttp import web

from bearerd.control.answers import answer_page, read_head
from bearerd.core.guard import Guard, Head, refuse
from bearerd.core.pages import build_problem_page
from bearerd.core.problems import Problem
from bearerd.core.redirects import Place
from bearerd.core.targets import path_of
from bearerd.errors import CannotListen, LoginFailed
from bearerd.listening import accept_from, accept_no_more, open_sockets

Handler = Callable[[Head], Awaitable[web.Response]]

LINE_LIMIT: Final = 16 << 10
CUT_OFF_S: Final = 1.0  # for answers under way when it closes

# The server's own logger would quote requests that it cannot read, and they may have a code in them.
_SILENT: Final = logging.getLogger("bearerd.callback")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False

_ELSEWHERE: Final = Problem(404, "no_such_page", "only the end of a login is here; go on where it was begun")
_READ_ONLY: Final = Problem(
    405, "method_refused", "this page is read with GET; send that", headers=(("Allow", "GET"),)
)


class CallbackListener:
    """Listens at `place`. What comes back there goes to `handler`, and nothing else does.

    Its guard is the daemon's: one `Host`, no calls by other sites' pages but top-level navigations.
    """

    def __init__(self, place: Place, handler: Handler) -> None:
        self._place = place
        self._handler = handler
        authority, path = place.authority.encode(), place.path.encode()
        self._guard = Guard(
            frozenset({authority}),
            frozenset({b"http://" + authority}),
            secrets.token_hex(8).encode(),
            frozenset({path}),
        )
        self._server: web.Server | None = None
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Raises LoginFailed where the port is another program's: a login must not come back to that."""
        try:
            sockets = open_sockets(self._place.hosts, self._place.port)
        except CannotListen as problem:
            cure = "stop that program" if problem.number == errno.EADDRINUSE else "change redirect_uri"
            raise LoginFailed(
                f"the login would come back to this machine, but port {problem}; {cure} and log in again"
            ) from None
        if not sockets:
            raise LoginFailed(
                f"the login would come back to {self._place.authority}, which this machine lacks; set redirect_uri of the account to an address of this machine"
            )
        self._server = web.Server(
            self._answer,
            access_log=None,
            logger=_SILENT,
            max_line_size=LINE_LIMIT,
            handler_cancellation=False,
        )
        self._servers = await accept_from(sockets, self._server)

    async def aclose(self) -> None:
        """Give the port back; an answer under way is still sent."""
        await accept_no_more(self._servers)
        if self._server is not None:
            await self._server.shutdown(CUT_OFF_S)
        self._servers, self._server = [], None

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        head = read_head(request, request.raw_path, self._guard)
        problem = refuse(self._guard, head) or self._refuse(head)
        if problem is not None:
            page = replace(build_problem_page(problem, b""), alone=True)
            response = answer_page(problem.status, page, problem.headers)
        else:
            response = await self._handler(head)
        response.force_close()
        return response

    def _refuse(self, head: Head) -> Problem | None:
        if path_of(head.target) != self._place.path.encode():
            return _ELSEWHERE
        return None if head.method == "GET" else _READ_ONLY
