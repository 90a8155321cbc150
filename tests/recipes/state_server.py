"""Where Terraform keeps a state by HTTP: ``GET``, ``POST`` and ``DELETE`` for it, ``LOCK`` and ``UNLOCK`` for who may."""

import json
from typing import Any

from aiohttp import web

from upstreams import ApiUpstream, Check


class StateServer(ApiUpstream):
    """One state, at any path. 423 with the lock's holder where another has it."""

    def __init__(self, check: Check) -> None:
        super().__init__(check)
        self.state = b""
        self.holder: dict[str, Any] | None = None

    async def reply(self, request: web.Request, body: bytes) -> web.StreamResponse:
        match request.method:
            case "LOCK" if self.holder is None:
                self.holder = json.loads(body)
            case "UNLOCK" if self._is_held_by(json.loads(body)["ID"]):
                self.holder = None
            case "GET":
                return web.Response(status=200 if self.state else 204, body=self.state)
            case "POST" if self._is_held_by(request.query.get("ID")):
                self.state = body
            case _:
                return web.json_response(self.holder, status=423)
        return web.Response()

    def _is_held_by(self, lock: str | None) -> bool:
        return (self.holder or {}).get("ID") == lock
