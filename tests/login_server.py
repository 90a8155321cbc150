"""An authorization server on a real port that lets everybody in, counts, and errs where the test says so."""

import base64
import hashlib
import json
import time
from typing import Final, Self
from urllib.parse import urlencode

from aiohttp import web

import canaries

HOST: Final = "127.0.0.1"


class LoginServer:
    """Serves between ``__aenter__`` and ``__aexit__``. Codes are good once, and only with their verifier.

    `token_requests` and `revoked` are what arrived; `error` is what the token endpoint says instead of tokens. The
    person is called `subject`, and sent to `authorization_endpoint` where that is given. With `denial` nobody is let in, for that reason. `valid` are the access tokens in force.
    Without `lasting` there are no refresh tokens.
    """

    def __init__(self, *, subject: str = "someone@example.com", names_itself: bool = False) -> None:
        self.subject = subject
        self.names_itself = names_itself
        self.token_requests = 0
        self.revoked: list[str] = []
        self.error: str | None = None
        self.denial: tuple[str, str] | None = None
        self.authorization_endpoint: str | None = None
        self.lifetime_s = 600
        self.lasting = True
        self.valid: set[str] = set()
        self._codes: dict[str, tuple[str, str | None]] = {}  # to challenge and nonce
        application = web.Application()
        application.router.add_get("/.well-known/openid-configuration", self._describe)
        application.router.add_get("/authorize", self._authorize)
        application.router.add_post("/token", self._token)
        application.router.add_post("/revoke", self._revoke)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)

    @property
    def issuer(self) -> str:
        return f"http://{HOST}:{self._runner.addresses[0][1]}"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """From now on nothing listens there."""
        await self._runner.cleanup()

    async def _describe(self, _: web.Request) -> web.Response:
        document: dict[str, object] = {
            name: f"{self.issuer}/{path}"
            for name, path in (
                ("authorization_endpoint", "authorize"),
                ("token_endpoint", "token"),
                ("revocation_endpoint", "revoke"),
            )
        }
        if self.authorization_endpoint:
            document["authorization_endpoint"] = self.authorization_endpoint
        document |= {"issuer": self.issuer, "code_challenge_methods_supported": ["S256"]}
        document["authorization_response_iss_parameter_supported"] = self.names_itself
        return web.json_response(document)

    async def _authorize(self, request: web.Request) -> web.Response:
        query = request.query
        canaries.know(query["state"], "state")
        answer = {"state": query["state"]} | ({"iss": self.issuer} if self.names_itself else {})
        if self.denial:
            answer |= {"error": self.denial[0], "error_description": self.denial[1]}
        else:
            code = canaries.make("code")
            self._codes[code] = (query["code_challenge"], query.get("nonce"))
            answer["code"] = code
        return web.Response(status=302, headers={"Location": f"{query['redirect_uri']}?{urlencode(answer)}"})

    async def _token(self, request: web.Request) -> web.Response:
        self.token_requests += 1
        form = await request.post()
        challenge, nonce = self._codes.pop(str(form.get("code")), (None, None))
        verifier = str(form.get("code_verifier", ""))
        canaries.know(verifier, "verifier")
        if self.error or (form["grant_type"] == "authorization_code" and challenge != _challenge(verifier)):
            return web.json_response({"error": self.error or "invalid_grant"}, status=400)
        token = canaries.make("access")
        self.valid.add(token)
        reply = {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": self.lifetime_s,
        }
        if self.lasting:
            reply["refresh_token"] = canaries.make("refresh")
        if nonce is not None:
            reply["id_token"] = self._id_token(str(form["client_id"]), nonce)
        return web.json_response(reply)

    async def _revoke(self, request: web.Request) -> web.Response:
        form = await request.post()
        self.revoked.append(str(form["token_type_hint"]))
        return web.Response()

    def _id_token(self, client_id: str, nonce: str) -> str:
        claims = {
            "iss": self.issuer,
            "aud": client_id,
            "exp": time.time() + 600,
            "nonce": nonce,
            "email": self.subject,
        }
        return f"e30.{_encode(json.dumps(claims).encode())}.c2ln"


def _challenge(verifier: str) -> str:
    return _encode(hashlib.sha256(verifier.encode()).digest())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
