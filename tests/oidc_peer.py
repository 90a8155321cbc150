"""A real authorization server as a peer of the tests: npm's oidc-provider, started and ended with node.

Its traps: a spent refresh token presented again ends the whole grant; ``exp`` is in whole seconds, so a
token lives up to one second less than its ``expires_in``; refresh tokens need ``offline_access``; a
client may authenticate by either method, whichever it is registered with.
"""

import asyncio
import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Final, Self
from urllib.parse import quote_plus

import aiohttp

FOLDER: Final = Path(__file__).parent / "peers" / "oidc"
READY_S: Final = 60.0  # Node takes its time beside others
STOP_S: Final = 20.0
HTTP_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Client:
    """A client the server knows, and how it authenticates (RFC 6749 section 2.3.1)."""

    client_id: str
    client_secret: str
    auth: str

    def authenticate(self, form: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """The headers and the form of a request to the token endpoint and its like."""
        if self.auth == "none":
            return {}, {**form, "client_id": self.client_id}
        if self.auth == "client_secret_post":
            return {}, {**form, "client_id": self.client_id, "client_secret": self.client_secret}
        pair = aiohttp.encode_basic_auth(quote_plus(self.client_id), quote_plus(self.client_secret))
        return {"Authorization": pair}, dict(form)


BASIC_CLIENT: Final = Client("basic-client", "b: s%cret+/&=", "client_secret_basic")
POST_CLIENT: Final = Client("post-client", "p: s%cret+/&=", "client_secret_post")
APP_CLIENT: Final = Client("app-client", "", "none")
"""Public, with PKCE, for logins: on loopback redirect URIs, and on other devices."""
RESOURCE_SERVER: Final = Client("resource-server", "resource-server-secret", "client_secret_basic")


class Pause(StrEnum):
    """How the token endpoint answers."""

    NONE = "none"  # as it should
    REFUSE = "refuse"  # reads the request, does nothing, cuts the connection
    HANG = "hang"  # reads the request and never answers it, not even once the pause is over
    ERROR500 = "error500"
    LOST = "lost"  # does what was asked, rotation included, and cuts the connection instead of answering
    CLOSED = "closed"  # nothing listens at the issuer's port: discovery and introspection are away too


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One request the token endpoint saw. Refresh tokens stand as `hash_of` them.

    `client` and `status` are None where a pause kept the request from the server proper.
    """

    at: float
    mode: Pause
    client: str | None
    auth: str | None  # the method used: the server accepts both from either client
    grant_type: str | None
    refresh_token: str | None
    status: int | None
    error: str | None
    expires_at: int | None

    @property
    def reached_the_server(self) -> bool:
        return self.mode in {Pause.NONE, Pause.LOST}


@dataclass(frozen=True, slots=True)
class Log:
    """Everything the token endpoint saw so far, in order of arrival."""

    requests: tuple[TokenRequest, ...]
    grants_revoked: int
    grants_revoked_by_reuse: int

    @property
    def presented_twice(self) -> tuple[str, ...]:
        """Hashes of the refresh tokens that reached the server more than once."""
        seen = Counter(each.refresh_token for each in self.requests if each.reached_the_server)
        return tuple(token for token, times in seen.items() if token is not None and times > 1)


@dataclass(frozen=True, slots=True)
class TokenReply:
    """Status and JSON body of a token endpoint's answer."""

    status: int
    body: dict[str, Any]

    @property
    def access_token(self) -> str:
        return str(self.body["access_token"])

    @property
    def refresh_token(self) -> str:
        return str(self.body["refresh_token"])


def hash_of(token: str) -> str:
    """What the log shows in place of a refresh token: 16 hex digits of its SHA-256."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


class NodeFailedError(Exception):
    """Node hung or crashed before the server ran. It says nothing of what is tested, so one more start may follow."""


class OidcPeer:
    """The server, running between ``__aenter__`` and ``__aexit__``. Lifetimes are whole seconds."""

    def __init__(
        self, *, access_token_s: int = 600, refresh_token_s: int = 86_400, device_code_s: int = 600
    ) -> None:
        self._settings = {
            "access_token_s": access_token_s,
            "refresh_token_s": refresh_token_s,
            "device_code_s": device_code_s,
        }
        self._process: asyncio.subprocess.Process
        self._stderr: IO[bytes]
        self._http: aiohttp.ClientSession
        self._control: str
        self.issuer: str

    @property
    def token_endpoint(self) -> str:
        return f"{self.issuer}/token"

    @property
    def introspection_endpoint(self) -> str:
        return f"{self.token_endpoint}/introspection"

    @property
    def revocation_endpoint(self) -> str:
        return f"{self.token_endpoint}/revocation"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative where it had to be killed."""
        return self._process.returncode

    async def __aenter__(self) -> Self:
        try:
            ready = await self._start()
        except NodeFailedError:
            ready = await self._start()
        self.issuer, self._control = ready["issuer"], ready["control"]
        # Node closes a connection that has been idle for five seconds, and may do so when it is just to be used.
        connector = aiohttp.TCPConnector(force_close=True)
        self._http = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=HTTP_S))
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._http.close()
        finally:
            await self._stop()

    async def _start(self) -> dict[str, str]:
        """Its addresses. Raises RuntimeError with what the server says against its start, or NodeFailedError."""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed in _stop
        self._process = await asyncio.create_subprocess_exec(
            *(find_node(), FOLDER / "server.mjs", json.dumps(self._settings)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._stderr,
        )
        try:
            return await self._read_ready()
        except BaseException:
            if self._process.returncode is None:
                self._process.kill()
            await self._stop()
            raise

    async def _read_ready(self) -> dict[str, str]:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                line = await self._process.stdout.readline()
                status = None if line else await self._process.wait()
        except TimeoutError:
            raise NodeFailedError(f"node was not ready in {READY_S:g} s") from None
        if status is None:
            ready: dict[str, str] = json.loads(line)
            return ready
        if status < 0:
            raise NodeFailedError(f"node ended with status {status}")
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace")
        raise RuntimeError(
            f"the authorization server did not start (status {status}); run make test. It said:\n{said}"
        )

    async def _stop(self) -> None:
        """The server ends by itself once its stdin closes; a stuck one is killed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        finally:
            self._stderr.close()

    async def request_token(self, client: Client, **form: str) -> TokenReply:
        """One request to the token endpoint. Network failures are aiohttp's own exceptions."""
        headers, data = client.authenticate(form)
        async with self._http.post(self.token_endpoint, data=data, headers=headers) as response:
            body = await response.json() if response.content_type == "application/json" else {}
            return TokenReply(response.status, body)

    async def refresh(self, client: Client, refresh_token: str) -> TokenReply:
        return await self.request_token(client, grant_type="refresh_token", refresh_token=refresh_token)

    async def introspect(self, token: str) -> bool:
        """Whether the server calls this token active (RFC 7662)."""
        return bool((await self.describe(token))["active"])

    async def describe(self, token: str) -> dict[str, Any]:
        """All that the server says of a token (RFC 7662 section 2.2)."""
        headers, data = RESOURCE_SERVER.authenticate({"token": token})
        async with self._http.post(self.introspection_endpoint, data=data, headers=headers) as response:
            response.raise_for_status()
            reply: dict[str, Any] = await response.json()
            return reply

    async def mint_refresh_token(
        self, client: Client = BASIC_CLIENT, *, scope: str = "openid offline_access api:read"
    ) -> str:
        """The first refresh token of a new grant, as a login in a browser would have given it."""
        reply = await self._ask("POST", "/refresh-token", client_id=client.client_id, scope=scope)
        return str(reply["refresh_token"])

    async def revoke(self, token: str) -> None:
        """End one access token, and nothing else of its grant."""
        reply = await self._ask("POST", "/revoke-access", token=token)
        assert reply["revoked"], "the server does not know this access token"

    async def pause(self, mode: Pause) -> None:
        """Holds for requests that arrive from now on."""
        await self._ask("POST", "/pause", mode=mode)

    async def log(self) -> Log:
        seen = await self._ask("GET", "/log")
        requests = tuple(TokenRequest(**{**each, "mode": Pause(each["mode"])}) for each in seen["requests"])
        return Log(requests, seen["grants_revoked"], seen["grants_revoked_by_reuse"])

    async def wait_for_requests(self, count: int) -> None:
        """Until the token endpoint has seen so many, those it does not answer included; at most 30 s."""
        async with asyncio.timeout(HTTP_S):
            while len((await self.log()).requests) < count:  # noqa: ASYNC110  # it happens in another process
                await asyncio.sleep(0.01)

    async def _ask(self, method: str, path: str, **body: str) -> dict[str, Any]:
        data = json.dumps(body) if body else None
        async with self._http.request(method, self._control + path, data=data) as response:
            text = await response.text()
            assert response.status == 200, text
            reply: dict[str, Any] = json.loads(text)
            return reply


def find_node() -> str:
    """The node program. Raises `RuntimeError` where it, or the server's package, is not installed."""
    node = shutil.which("node")
    if node is None:
        raise RuntimeError("node is not installed and the tests need it: run make test")
    if not (FOLDER / "node_modules" / "oidc-provider").is_dir():
        raise RuntimeError("the authorization server's packages are not installed: run make test")
    return node
