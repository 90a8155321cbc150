"""What a daemon has to do all day: calls of every kind, at a modest rate, and the API that they end at."""

import asyncio
import hashlib
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Self

import aiohttp
from aiohttp import web

BIG: Final = bytes(512 << 10)
UPLOAD: Final = bytes(200 << 10)
EVENTS: Final = 5
LONGEST_S: Final = 30.0  # for any one call, on a machine with much else to do
AS_IT_SHOULD: Final = "as it should"
SHOWN: Final = 20  # of what went wrong
_BEARER: Final = re.compile(r"Bearer (\S+)")

Describe = Callable[[str], Awaitable[dict[str, Any]]]
Act = Callable[[], Awaitable[str]]
"""One thing that a client does, as what came of it."""


class BusyApi:
    """Takes each token until its server says it ends by the `clock`, or `refuse` was told of it. Keeps nothing of a call.

    `describe` is asked once of each token. In a `storm` none is good. `unauthorized` is how many calls were answered 401.
    """

    def __init__(self, describe: Describe, clock: Callable[[], float] = time.time) -> None:
        self._describe = describe
        self._clock = clock
        self.storm = False
        self._ends_at: dict[str, float] = {}
        self._latest = ""
        self._refused: set[str] = set()
        self.unauthorized = 0
        application = web.Application(middlewares=[self._check], client_max_size=len(BIG))
        application.router.add_get("/small", _small)
        application.router.add_post("/echo", _echo)
        application.router.add_get("/events", _events)
        application.router.add_get("/socket", _socket)
        application.router.add_get("/big", _big)
        application.router.add_get("/cut", _cut)
        application.router.add_route("*", "/never", _never)
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=1.0, handler_cancellation=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @property
    def connections(self) -> int:
        """How many it has now."""
        assert self._runner.server is not None
        return len(self._runner.server.connections)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def refuse(self) -> str:
        """From now on the token that came last is no good."""
        self._refused.add(self._latest)
        return AS_IT_SHOULD

    @web.middleware
    async def _check(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        found = _BEARER.fullmatch(request.headers.get("Authorization", ""))
        if found is None or not await self._is_good(found[1]):
            self.unauthorized += 1
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    async def _is_good(self, token: str) -> bool:
        now = self._clock()
        if token not in self._ends_at:
            said = await self._describe(token)
            self._ends_at = {text: at for text, at in self._ends_at.items() if now < at}
            self._refused.intersection_update(self._ends_at)
            self._ends_at[token] = said["exp"] if said["active"] else 0.0
        self._latest = token
        return now < self._ends_at[token] and token not in self._refused and not self.storm


async def _small(request: web.Request) -> web.Response:
    del request
    return web.Response(text="hi")


async def _echo(request: web.Request) -> web.Response:
    return web.Response(text=hashlib.sha256(await request.read()).hexdigest())


async def _events(request: web.Request) -> web.StreamResponse:
    """Until the client has left."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    while True:
        await response.write(b"data: x\n\n")
        await asyncio.sleep(0.02)


async def _socket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data)
    return socket


async def _big(request: web.Request) -> web.Response:
    del request
    return web.Response(body=BIG)


async def _cut(request: web.Request) -> web.StreamResponse:
    """Less than was announced."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"x")
    assert request.transport is not None
    request.transport.abort()
    return response


async def _never(request: web.Request) -> web.Response:
    """Neither reads nor answers until the client has left."""
    del request
    await asyncio.Event().wait()
    raise AssertionError


class MixedLoad:
    """Clients of the daemon at `url` until they are told to stop.

    `done` counts what came of what they did, by its kind; `wrong` is what should not have come, the first of it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._port = int(url.rpartition(":")[2])
        self._http: aiohttp.ClientSession
        self._single: aiohttp.ClientSession
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def __aenter__(self) -> Self:
        limit = aiohttp.ClientTimeout(total=LONGEST_S)
        self._http = aiohttp.ClientSession(timeout=limit)
        self._single = aiohttp.ClientSession(
            timeout=limit, connector=aiohttp.TCPConnector(force_close=True, limit=0)
        )
        for _ in range(6):
            self.add("small", 0.1, self.small)
        self.add("single", 0.2, self.single)
        self.add("post", 0.1, self.post)
        self.add("upload", 0.5, self.upload)
        self.add("events", 0.5, self.events)
        self.add("socket", 0.5, self.socket)
        self.add("given up", 0.2, self.give_up)
        self.add("broken off", 0.5, self.break_off)
        self.add("cut", 0.5, self.cut)
        self.add("slow", 1.0, self.slow)
        self.add("nowhere", 1.0, lambda: self.get("/nowhere", 404))
        self.add("no request", 1.0, self.no_request)
        self.add("status", 1.0, lambda: self.get("/-/status", 200))
        self.add("page", 5.0, lambda: self.get("/-/", 200))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        await self._http.close()
        await self._single.close()

    def add(self, kind: str, pause_s: float, act: Act) -> None:
        """A client that does it again and again, so often that one begins each `pause_s` seconds, if it can."""
        self._tasks.append(asyncio.create_task(self._repeat(kind, pause_s, act)))

    async def _repeat(self, kind: str, pause_s: float, act: Act) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                async with asyncio.timeout(LONGEST_S):
                    outcome = await act()
            except (OSError, aiohttp.ClientError, EOFError, TimeoutError) as exc:
                outcome = f"{type(exc).__name__}: {exc}"
            self.done[kind if outcome == AS_IT_SHOULD else f"{kind}: {outcome}"] += 1
            if outcome != AS_IT_SHOULD and len(self.wrong) < SHOWN:
                self.wrong.append(f"{kind}: {outcome}")
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, began + pause_s - time.monotonic())):
                    await self._stopping.wait()

    async def get(self, path: str, status: int) -> str:
        async with self._http.get(self._url + path) as response:
            await response.read()
            return _judge(response.status == status, response.status)

    async def small(self) -> str:
        async with self._http.get(f"{self._url}/api/small") as response:
            return _judge(response.status == 200 and await response.text() == "hi", response.status)

    async def single(self) -> str:
        """On a connection of its own."""
        async with self._single.get(f"{self._url}/api/small") as response:
            return _judge(response.status == 200 and await response.text() == "hi", response.status)

    async def post(self) -> str:
        return await self._send(b"x" * 3000, b"x" * 3000)

    async def upload(self) -> str:
        async def pieces() -> Any:
            for start in range(0, len(UPLOAD), 1 << 14):
                yield UPLOAD[start : start + (1 << 14)]

        return await self._send(UPLOAD, pieces())

    async def _send(self, body: bytes, data: Any) -> str:
        async with self._http.post(f"{self._url}/api/echo", data=data) as response:
            same = await response.text() == hashlib.sha256(body).hexdigest()
            return _judge(response.status == 200 and same, response.status)

    async def events(self) -> str:
        """A stream that is left after a few of its events."""
        async with self._single.get(f"{self._url}/api/events") as response:
            for _ in range(EVENTS if response.status == 200 else 0):
                assert await response.content.readuntil(b"\n\n") == b"data: x\n\n"
            return _judge(response.status == 200, response.status)

    async def socket(self) -> str:
        async with self._single.ws_connect(f"{self._url}/api/socket") as socket:
            for number in range(3):
                await socket.send_str(f"{number}")
                if await socket.receive_str() != f"{number}":
                    return "another text"
        return AS_IT_SHOULD

    async def give_up(self) -> str:
        """On a call that is not answered."""
        return await self._leave(b"GET /api/never HTTP/1.1\r\n", b"\r\n")

    async def break_off(self) -> str:
        """An upload, in the middle."""
        return await self._leave(b"POST /api/echo HTTP/1.1\r\n", b"Content-Length: 9999\r\n\r\nxxx")

    async def _leave(self, start: bytes, rest: bytes) -> str:
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(start + self._host() + rest)
        await asyncio.sleep(0.05)
        writer.transport.abort()
        return AS_IT_SHOULD

    async def cut(self) -> str:
        try:
            await self.get("/api/cut", 200)
        except aiohttp.ClientPayloadError:
            return AS_IT_SHOULD
        return "whole"

    async def slow(self) -> str:
        """A reader that takes its time over a large answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 12)
        try:
            writer.write(
                b"GET /api/big HTTP/1.1\r\n" + self._host() + b"X-Note: slow\r\nConnection: close\r\n\r\n"
            )
            head = await reader.readuntil(b"\r\n\r\n")
            left = len(BIG)
            while data := await reader.read(1 << 14):
                left -= len(data)
                await asyncio.sleep(0.01)
            return _judge(head[9:12] == b"200" and left == 0, f"{head[9:12].decode()}, {left} bytes too few")
        finally:
            writer.transport.abort()

    async def no_request(self) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(b"GET / HTTP/1.1\r\nbad field\r\n\r\n")
            return _judge((await reader.read())[9:12] == b"400", "not 400")
        finally:
            writer.transport.abort()

    def _host(self) -> bytes:
        return f"Host: 127.0.0.1:{self._port}\r\n".encode()


def _judge(good: object, otherwise: object) -> str:
    return AS_IT_SHOULD if good else str(otherwise)
