"""A second address, for probes alone: no Host rule and no key, and nothing there but what probes ask for.

It has connections and limits of its own, so neither do its clients get in the way of calls, nor calls in theirs.
"""

import asyncio
import socket
from typing import Final

from aiohttp import web

from bearerd.control.answers import read_head
from bearerd.control.probes import Probes
from bearerd.core.configuration import Limits
from bearerd.core.guard import Guard, Head
from bearerd.core.problems import Problem
from bearerd.core.targets import path_of
from bearerd.forward.reply import answer_problem
from bearerd.gate import Door, Gate
from bearerd.listening import accept_from, accept_no_more

CONNECTIONS: Final = 32
LIMITS: Final = Limits(header_read_s=5.0, body_idle_s=5.0, keep_alive_s=5.0)
_NOBODYS: Final = Guard(frozenset(), frozenset(), b"")
_DOOR: Final = Door(_NOBODYS, lambda _: None)  # whoever gets here may ask
_NO_PAGE: Final = Problem(
    404,
    "no_such_page",
    "here there are livez, readyz, healthz and metrics, and nothing else; open one of them",
)
_READ_ONLY: Final = Problem(
    405, "method_refused", "this page is read with GET; send that", headers=(("Allow", "GET, HEAD"),)
)


class ProbeServer:
    """Answers on its own sockets until it is closed, which is after all calls have ended."""

    def __init__(self, probes: Probes, limits: Limits = LIMITS) -> None:
        """Of `limits`, those of time hold."""
        self._probes = probes
        self._gate = Gate(self._answer, limits, CONNECTIONS)
        self._servers: list[asyncio.Server] = []

    async def listen(self, sockets: list[socket.socket]) -> None:
        """Take connections from `sockets`, which are its own from now on."""
        self._servers = await accept_from(sockets, self._gate.by(_DOOR))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Each connection is for one request: one that is kept would be in the way of the next prober."""
        head = read_head(request, request.raw_path, _NOBODYS)
        response = await self._find(head)
        response.force_close()
        return response

    async def _find(self, head: Head) -> web.Response:
        if head.method not in {"GET", "HEAD"}:
            return answer_problem(_READ_ONLY, head)
        path = path_of(head.target).decode("latin-1")
        name = path.removeprefix("/-").removeprefix("/")
        return await self._probes.answer(name, head) or answer_problem(_NO_PAGE, head)

    async def aclose(self) -> None:
        await accept_no_more(self._servers)
        await self._gate.shutdown(0)
