"""The control endpoints: liveness, readiness, status."""

import json
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from bearerd.core.guard import Head
from bearerd.core.problems import Problem
from bearerd.core.targets import path_of

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Server": "bearerd",
}
_NO_PAGE: Final = Problem(
    404, "no_such_page", "under /-/ there are livez, readyz and status, and nothing else"
)
_READ_ONLY: Final = Problem(
    405, "method_refused", "this page is read with GET", headers=(("Allow", "GET, HEAD"),)
)


class Pages:
    """Answers what lies under the control prefix. `status` builds the status document."""

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self._status = status

    def answer(self, head: Head) -> web.Response | Problem:
        """Readiness is liveness for now: configuration and store are there before the port is."""
        match path_of(head.target):
            case b"/-/livez" | b"/-/readyz" | b"/-/healthz":
                page = web.Response(text="ok\n", headers=_HEADERS)
            case b"/-/status":
                text = json.dumps(self._status(), indent=2) + "\n"
                page = web.Response(text=text, content_type="application/json", headers=_HEADERS)
            case _:
                return _NO_PAGE
        return page if head.method in {"GET", "HEAD"} else _READ_ONLY
