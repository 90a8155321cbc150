"""An API that wants a bearer token and answers with what it saw of the call."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping

from aiohttp import web

from bearerd.demo.authorization_server import AccessToken

Introspect = Callable[[str], AccessToken | None]
Revoke = Callable[[str], None]


class SampleApi:
    """The API of the demo. `introspect` gives an active token or None; `revoke` ends one."""

    def __init__(
        self, introspect: Introspect, revoke: Revoke, clock: Callable[[], float] = time.time
    ) -> None:
        self._introspect = introspect
        self._revoke = revoke
        self._clock = clock

    def build_application(self) -> web.Application:
        """An application that takes any method and any path."""
        application = web.Application()
        application.router.add_post("/revoke-me", self._revoke_me)
        application.router.add_route("*", r"/{path:[\s\S]*}", self._echo)  # a dot leaves out %0A
        return application

    async def _echo(self, request: web.Request) -> web.Response:
        token = _bearer_of(request)
        known = self._introspect(token)
        if known is None:
            return _unauthorized()
        return _answer(
            {
                "method": request.method,
                "path": request.raw_path,
                "subject": known.subject,
                "seconds_left": round(known.expires_at - self._clock(), 1),
                "token_fingerprint": fingerprint(token),
            }
        )

    async def _revoke_me(self, request: web.Request) -> web.Response:
        token = _bearer_of(request)
        if self._introspect(token) is None:
            return _unauthorized()
        self._revoke(token)
        return _answer({"revoked": fingerprint(token)})


def fingerprint(token: str) -> str:
    """Tells tokens apart without showing them: 12 hex digits of the SHA-256."""
    return hashlib.sha256(token.encode()).hexdigest()[:12]


def _bearer_of(request: web.Request) -> str:
    """The token of the only Authorization header, else the empty text, which is no token (RFC 6750 2.1)."""
    values = request.headers.getall("Authorization", [])
    scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else ""


def _unauthorized() -> web.Response:
    return _answer(
        {"error": "invalid_token", "error_description": "the access token is missing, expired or revoked"},
        status=401,
        headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
    )


def _answer(
    reply: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Pretty-printed and ending in a newline: people read it in a terminal."""
    text = json.dumps(reply, indent=2) + "\n"
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")
