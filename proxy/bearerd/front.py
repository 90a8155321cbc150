"""The first to see a request: guard, then a page of our own or a call to forward."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import structlog
from aiohttp import StreamReader, web
from aiohttp.http_parser import RawRequestMessage

from bearerd.control.answers import read_head
from bearerd.control.pages import Pages
from bearerd.core.cors import preflight
from bearerd.core.guard import Guard, Head, is_own
from bearerd.core.problems import DEFECT, Problem
from bearerd.forward.direct import Caller, DirectCall
from bearerd.forward.handler import Forwarder
from bearerd.forward.reply import Written, answer_preflight, answer_problem, end_with
from bearerd.ids import identify
from bearerd.privacy import frames


class Guarded(Caller, Protocol):
    """Whoever sent a request, by a door with this guard. `judge` says why a request is refused, if it is."""

    @property
    def guard(self) -> Guard: ...

    @property
    def judge(self) -> Callable[[Head], Problem | None]: ...


class Front:
    """Answers every request, and knows when none is under way."""

    def __init__(self, forwarder: Forwarder, pages: Pages) -> None:
        self._forwarder = forwarder
        self._pages = pages
        self._in_flight = 0
        self._reading = 0  # of our own pages
        self._idle: asyncio.Event | None = None
        self._log = structlog.get_logger("bearerd.front")

    @property
    def calls_in_flight(self) -> int:
        """How many calls are under way. Our own pages are none."""
        return self._in_flight - self._reading

    async def drained(self) -> None:
        """Until nothing is in flight. Whoever waits sees to it that nothing begins."""
        if self._in_flight:
            self._idle = asyncio.Event()
            await self._idle.wait()

    def begin(self, caller: Guarded, message: RawRequestMessage, payload: StreamReader) -> DirectCall | None:
        """Forward a request at once, if that can be."""
        guard = caller.guard
        try:
            head = read_head(message, message.path, guard)
            if caller.judge(head) is not None or is_own(guard, head.target):
                return None
            call = self._forwarder.begin(caller, head, payload)
        except Exception:  # noqa: BLE001  # a defect is met again, and answered, as an ordinary call
            return None
        if call is not None:
            call.front = self
            self._in_flight += 1
        return call

    def end(self) -> None:
        """One call less."""
        self._in_flight -= 1
        if self._idle is not None and not self._in_flight:
            self._idle.set()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        caller = cast(Guarded, request.protocol)
        begun = caller.take_begun()
        front = self
        if begun is None:
            self._in_flight += 1
        else:
            front = cast(Front, begun.front)  # which may have been another, then
        try:
            return await front._answer(request, caller, begun)  # noqa: SLF001  # its own class's
        finally:
            front.end()

    async def _answer(
        self, request: web.BaseRequest, caller: Guarded, begun: DirectCall | None
    ) -> web.StreamResponse:
        guard = caller.guard
        if begun is not None:
            head = begun.head  # it was let in already, whatever has become of its key since
        else:
            head = read_head(request, request.raw_path, guard)
            problem = caller.judge(head)
            if problem is not None:
                return cast(web.StreamResponse, self._refused(request, head, problem))
        try:
            if is_own(guard, head.target):
                return await self._show(request, head)
            asked = preflight(guard, head) if head.grant else None
            if asked is not None:
                return answer_preflight(asked)
            return await self._forwarder.handle(request, head, begun)
        except ConnectionError:
            raise
        except Exception as exc:  # noqa: BLE001  # one call's defect must not show its values, nor end the daemon
            self._log.error("request.defect", trace=frames(exc), **identify(head))
            return answer_problem(DEFECT, head)

    async def _show(self, request: web.BaseRequest, head: Head) -> web.Response:
        self._reading += 1
        try:
            page = await self._pages.answer(request, head)
        finally:
            self._reading -= 1
        return answer_problem(page, head) if isinstance(page, Problem) else page

    def _refused(self, request: web.BaseRequest, head: Head, problem: Problem) -> web.Response | Written:
        self._forwarder.refused(problem, request, head)
        return end_with(request.transport, problem, head) if problem.close else answer_problem(problem, head)
