"""A storm of reloads while calls of every kind go on: nothing of it may be felt by any of them."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
from aiohttp import web

from daemons import RunningDaemon
from oidc_peer import BASIC_CLIENT, POST_CLIENT, OidcPeer

GUST_S: Final = 0.1  # between two signals
CALLERS: Final = 8
PACE_S: Final = CALLERS / 200  # of each caller: 200 calls a second in all
HOST: Final = "127.0.0.1"


class Api:
    """Takes tokens that its authorization server takes, until they expire: echo, endless events at /sse, echo at /ws."""

    def __init__(self, peer: OidcPeer) -> None:
        self._peer = peer
        self._known: dict[str, float] = {}  # when each token expires
        self.unauthorized = 0
        application = web.Application()
        application.router.add_get("/sse", self._stream)
        application.router.add_get("/ws", self._echo)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._runner.addresses[0][1]}"

    def refreshed(self, lifetime_s: float) -> bool:
        """Whether calls have come with a token that was issued since the first one must have expired."""
        return max(self._known.values()) - min(self._known.values()) >= lifetime_s

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _takes(self, request: web.Request) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer":
            return False
        if token not in self._known:
            said = await self._peer.describe(token)
            self._known[token] = float(said["exp"]) if said["active"] else 0.0
        return time.time() < self._known[token] + 1  # it expires in whole seconds, up to one too early

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not await self._takes(request):
            self.unauthorized += 1
            return web.Response(status=401)
        return web.Response(body=body or b"empty")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if not await self._takes(request):
            return web.Response(status=401)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        number = 0
        with suppress(ConnectionError):
            while True:
                await response.write(b"data: %d\n\n" % number)
                number += 1
                await asyncio.sleep(0.05)
        return response

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        if not await self._takes(request):
            return web.Response(status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket


class Weather:
    """The configurations of a storm, by number. Every second one is bad, each in its own way."""

    def __init__(self, folder: Path, peer: OidcPeer, api: Api, first: str) -> None:
        self._folder = folder
        self._peer = peer
        self._api = api
        self._first = first

    def __getitem__(self, number: int) -> str:
        return self.bad(number // 2) if number % 2 else self.good(number // 2)

    def good(self, number: int) -> str:
        """Accounts and routes come, go and change; what /, /login/ and their accounts are for stays."""
        return "".join(
            (
                self._steady(number),
                f'[limits]\nreplay_body = "{512 + number % 3}KiB"\nupstream_idle = {14 + number % 2}\n',
                self._guest("static", 'token = "guest"', number % 2),
                self._guest("file", f'token_file = "{self._folder}/token-{number % 3}"', number % 3),
                f'[log]\naudit = "{self._folder}/audit-{number % 2}"\n' if number % 4 else "",
            )
        )

    def bad(self, number: int) -> str:
        good = self.good(number)
        return (
            "[listen\n",
            f"{good}[accounts.work.what]\n",
            good.replace('account = "login"', 'account = "logni"'),
            f'{good}[store]\nkind = "memory"\n'
            if "[store]" not in good
            else good.replace('/vault"', '/other"'),
            f'{good}[routes."/tls/"]\nupstream = "https://example.com"\nca_file = "absent.pem"\naccount = "login"\n',
            good.replace("[limits]", "[limits]\nconnections = 0"),
        )[number % 6]

    def _steady(self, number: int) -> str:
        scopes = '"openid", "offline_access", "api:read"'
        ended = f'ended_errors = ["gone_{number % 3}"]'
        return f"""
[store]
kind = "vault"
path = "{self._folder}/vault"
key_file = "{self._folder}/vault.key"
[accounts.login]
refresh_token = "{self._first}"
issuer = "{self._peer.issuer}"
client_id = "{BASIC_CLIENT.client_id}"
client_secret = "{BASIC_CLIENT.client_secret}"
scopes = [{scopes}]
{ended if number % 2 else ""}
[accounts.service]
grant = "client_credentials"
issuer = "{self._peer.issuer}"
client_id = "{POST_CLIENT.client_id}"
client_secret = "{POST_CLIENT.client_secret}"
client_auth = "client_secret_{"post" if number % 3 else "basic"}"
[routes."/"]
upstream = "{self._api.url}"
account = "login"
headers = {{ X-Number = "{number % 5}" }}
[routes."/service/"]
upstream = "{self._api.url}"
account = "service"
"""

    def _guest(self, name: str, source: str, turn: int) -> str:
        if not turn:
            return ""
        return f'[accounts.{name}]\n{source}\n[routes."/{name}-{turn}/"]\nupstream = "{self._api.url}"\naccount = "{name}"\n'


class Callers:
    """Calls of every kind, until they are stopped. `failures` says what went wrong, and is to be empty."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = asyncio.Event()
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []

    @asynccontextmanager
    async def calling(self) -> AsyncIterator["Callers"]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None)
        ) as http:
            tasks = [asyncio.create_task(self._call(http, number)) for number in range(CALLERS)]
            streams = (self._read(http), self._talk(http))
            tasks += [asyncio.create_task(self._noted(stream)) for stream in streams]
            try:
                yield self
            finally:
                self._over.set()
                async with asyncio.timeout(30):
                    await asyncio.gather(*tasks)

    async def _noted(self, stream: Any) -> None:
        try:
            await stream
        except (aiohttp.ClientError, OSError) as exc:
            self.failures.append(repr(exc))

    async def _call(self, http: aiohttp.ClientSession, number: int) -> None:
        """Half of them by the direct way, half with a body that comes in chunks, by either account."""
        url = self._url + ("/service/x" if number % 4 < 2 else "/x")
        while not self._over.is_set():
            begun = time.monotonic()
            body = _chunks() if number % 2 else None
            try:
                async with http.request("POST" if body else "GET", url, data=body) as response:
                    text = await response.text()
            except (aiohttp.ClientError, OSError) as exc:
                self.failures.append(repr(exc))
            else:
                self.answers["chunked" if body else "plain"] += 1
                if response.status != 200 or text != ("onetwo" if body else "empty"):
                    self.failures.append(f"{response.status} {text}")
            await asyncio.sleep(max(0.0, begun + PACE_S - time.monotonic()))

    async def _read(self, http: aiohttp.ClientSession) -> None:
        """Events, each of which has to come, in order."""
        async with http.get(f"{self._url}/sse") as response:
            number = 0
            if response.status != 200:
                self.failures.append(f"{response.status} for events")
            while not self._over.is_set():
                line = await response.content.readline()
                if line.strip() and line != b"data: %d\n" % number:
                    self.failures.append(f"{line!r} for event {number}")
                    return
                number += bool(line.strip())
                self.answers["events"] = number

    async def _talk(self, http: aiohttp.ClientSession) -> None:
        async with http.ws_connect(f"{self._url}/ws") as socket:
            number = 0
            while not self._over.is_set():
                await socket.send_str(str(number))
                if (said := await socket.receive()).data != str(number):
                    self.failures.append(f"{said!r} for message {number}")
                    return
                number += 1
                self.answers["messages"] = number
                await asyncio.sleep(0.05)


async def _chunks() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


async def blow(daemon: RunningDaemon, weather: Weather, seconds: float) -> int:
    """Signals for so long, each after another configuration. How many there were."""
    gusts = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or not gusts:
        daemon.configure(weather[gusts])
        os.kill(daemon.pid, signal.SIGHUP)
        gusts += 1
        await asyncio.sleep(GUST_S)
    return gusts


async def until_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  # there is nothing that would tell
            await asyncio.sleep(0.05)
