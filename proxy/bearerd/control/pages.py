"""The control endpoints: probes, metrics, status, login, logout."""

import json
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from bearerd.control.answers import answer_page, answer_plainly, send_on
from bearerd.control.login import BrowserLogins
from bearerd.control.probes import Probes
from bearerd.control.status_page import build_status_page
from bearerd.core.guard import Head
from bearerd.core.problems import Problem
from bearerd.core.redirects import CALLBACK
from bearerd.core.targets import in_control, path_of

_NO_PAGE: Final = Problem(
    404,
    "no_such_page",
    "under /-/ there are the status page, status, livez, readyz, healthz, metrics, login, callback and logout, and nothing "
    "else; open /-/",
)
_READ_ONLY: Final = Problem(
    405, "method_refused", "this page is read with GET; send that", headers=(("Allow", "GET, HEAD"),)
)
_LOGIN: Final = "/-/login/"
_LOGOUT: Final = "/-/logout/"


class Pages:
    """Answers what lies under the control prefix, and callbacks that lie elsewhere.

    `status` builds the status document.
    """

    def __init__(self, status: Callable[[], dict[str, Any]], logins: BrowserLogins, probes: Probes) -> None:
        self._status = status
        self._probes = probes
        self._logins = logins

    async def answer(self, request: web.BaseRequest, head: Head) -> web.Response | Problem:
        path = path_of(head.target).decode("latin-1")
        if path == "/-/login":
            return await self._logins.choose(head)
        if path.startswith(_LOGIN):
            return await self._logins.begin(head, path.removeprefix(_LOGIN))
        if path.startswith(_LOGOUT):
            return await self._logins.log_out(request, head, path.removeprefix(_LOGOUT))
        if path == CALLBACK or not in_control(head.target):
            return await self._end(head)
        page = self._read(head, path) or await self._probes.answer(path.removeprefix("/-/"), head) or _NO_PAGE
        return page if isinstance(page, Problem) or head.method in {"GET", "HEAD"} else _READ_ONLY

    async def _end(self, head: Head) -> web.Response | Problem:
        return await self._logins.end(head) if self._logins.accounts else _NO_PAGE

    def _read(self, head: Head, path: str) -> web.Response | None:
        match path:
            case "/-/status":
                text = json.dumps(self._status(), indent=2) + "\n"
                return answer_plainly(text, "application/json; charset=utf-8")
            case "/-":
                return send_on("/-/")
            case "/-/":
                token, fields = self._logins.proof(head)
                return answer_page(200, build_status_page(self._status(), token), fields)
            case _:
                return None
