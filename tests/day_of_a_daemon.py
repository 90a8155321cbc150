"""A day of a daemon's in a minute, as a program: real sockets, real servers, a clock that it moves itself.

Everything that happens in a day happens in each cycle of two hours: tokens are renewed, a program and a file give others, an
API says 401 to everybody, replies are lost, a login ends and begins again, the clock is set, the machine sleeps, the token
endpoint is away for an hour. It prints what came of the calls, and what there was of everything after each cycle. Its log goes
to standard error.

The servers have a clock of their own, which nobody sets.
"""

import asyncio
import gc
import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

from bearerd import logs
from bearerd.core.accounts import (
    Account,
    ClientAuth,
    CommandSource,
    FileSource,
    Grant,
    OAuthSource,
    Source,
    StaticSource,
)
from bearerd.core.configuration import Configuration, Limits, Listen, Logging, Store
from bearerd.core.redaction import Secret
from bearerd.core.targets import parse_route, sort_routes
from bearerd.daemon import Daemon
from bearerd.demo.authorization_server import AuthorizationServer, Ledger, Lifetimes
from bearerd.loop import new_event_loop
from bearerd.settings import Loaded
from clocks import FakeClock
from mixed_load import BusyApi
from patience import settle

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
CYCLE_S: Final = 2 * HOUR
HOST: Final = "127.0.0.1"
CLIENT: Final = "service"
SECRET: Final = Secret("demo-secret-of-the-day")
STATIC: Final = "static-token"
NAVIGATION: Final = {
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "cross-site",
}
LOGINS: Final = ("short", "long")
"""The accounts that somebody logs in to."""
AT_WORK: Final = ("TokenManager._refresh", "TokenManager._adopt", "LoginHook")
UP: Final = frozenset({200})
ANYTHING: Final = frozenset({200, 401, 503})
PATIENCE_S: Final = 60.0
SLICE_S: Final = 2.0


class MeddledServer:
    """An authorization server whose token endpoint errs as `fault` says, and may be away."""

    def __init__(self, lifetime_s: int, clock: Callable[[], float]) -> None:
        self._lifetimes = Lifetimes(access_s=lifetime_s)
        self._clock = clock
        self._runner: web.AppRunner
        self._site: web.TCPSite
        self._port = 0
        self.fault = ""
        self.ledger: AuthorizationServer

    async def __aenter__(self) -> Self:
        with socket.create_server((HOST, 0)) as free:
            self._port = free.getsockname()[1]
        self.ledger = AuthorizationServer(
            f"http://{HOST}:{self._port}", CLIENT, SECRET, lifetimes=self._lifetimes, clock=self._clock
        )
        application = self.ledger.build_application()
        application.middlewares.append(self._meddle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self.come_back()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def end_logins(self) -> None:
        """Forget them all."""
        self.ledger._ledger = Ledger()

    async def go_away(self) -> None:
        """Nothing listens there any more."""
        await self._site.stop()

    async def come_back(self) -> None:
        self._site = web.TCPSite(self._runner, HOST, self._port)
        await self._site.start()

    @web.middleware
    async def _meddle(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path != "/token" or not self.fault:
            return await handler(request)
        match self.fault:
            case "error":
                return web.Response(status=500, text="<h1>no</h1>")
            case "nonsense":
                return web.Response(text="<h1>welcome</h1>", content_type="text/html")
            case "lost":  # what was asked for is done
                await handler(request)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


@dataclass(frozen=True, slots=True)
class Sample:
    """What there is in the process when nothing is under way. `blocks` is Python's own memory, `resident` all of it in bytes."""

    at_s: float
    blocks: int
    resident: int
    tasks: int
    timers: int
    descriptors: int
    threads: int


class Day:
    """The daemon, its clock, and everybody around it."""

    def __init__(self, folder: Path, step_s: float) -> None:
        """Calls are `step_s` apart, and the shortest tokens last two of them."""
        self._folder = folder
        self._step_s = step_s
        self._lifetime_s = round(2 * step_s)
        self._steps = 0
        self._slept_s = 0.0
        self._began_at = time.time()
        self.clock = FakeClock(self._began_at)
        self.short = MeddledServer(self._lifetime_s, self.true_time)
        self.long = MeddledServer(3600, self.true_time)
        self.api = BusyApi(self._describe, self.true_time)
        self._written: Configuration
        self.daemon: Daemon
        self.http: aiohttp.ClientSession
        self.calls: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.samples: list[Sample] = []

    def true_time(self) -> float:
        return self._began_at + self.clock.steady() + self._slept_s

    async def _describe(self, token: str) -> dict[str, object]:
        for server in (self.short, self.long):
            known = server.ledger.introspect(token)
            if known is not None:
                return {"active": True, "exp": known.expires_at}
        good = token == STATIC or token.startswith(("filed-", "printed-"))
        return {"active": good, "exp": self.true_time() + DAY}

    # ------------------------------------------------------------ the daemon

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.short, self.long, self.api:
            self.file_token()
            self._written = self._configuration()
            self.daemon = Daemon(
                self._written, self.clock, reread=lambda: Loaded(self._written, None, (), ())
            )
            await self.daemon.start()
            await self.daemon.started()
            for account in LOGINS:
                await self.log_in(account)
            try:
                yield
            finally:
                await self.daemon.stop(1.0)

    def file_token(self) -> None:
        (self._folder / "filed").write_text(f"filed-{self._steps}")

    def _configuration(self) -> Configuration:
        sources: dict[str, Source] = {
            "service": OAuthSource(
                Grant.CLIENT_CREDENTIALS, CLIENT, client_secret=SECRET, issuer=self.short.ledger.issuer
            ),
            "short": _login(self.short),
            "long": _login(self.long),
            "printed": CommandSource(("sh", "-c", "echo printed-$$"), 30.0),
            "filed": FileSource(str(self._folder / "filed")),
            "static": StaticSource(Secret(STATIC)),
        }
        return Configuration(
            accounts={name: Account(name, source) for name, source in sources.items()},
            routes=sort_routes([parse_route(f"/{name}/", self.api.url, name) for name in sources]),
            listen=Listen(hosts=(HOST,), port=0),
            limits=Limits(upstream_idle_s=0.2),
            store=Store(
                path=str(self._folder / "vault"), key_source="file", key_file=str(self._folder / "vault.key")
            ),
            log=Logging(audit=str(self._folder / "audit")),
        )

    async def rewrite(self, *further: str) -> None:
        """Have it read a configuration that has `further` accounts, too."""
        usual = self._configuration()
        accounts = {name: Account(name, StaticSource(Secret(STATIC))) for name in further}
        routes = [parse_route(f"/{name}/", self.api.url, name) for name in further]
        self._written = replace(
            usual, accounts=usual.accounts | accounts, routes=sort_routes([*usual.routes, *routes])
        )
        report = await self.daemon.reload()
        self.wrong += report.problems

    # ------------------------------------------------------------ time

    async def step(self) -> None:
        """What falls due in a step's time comes to its end, and no later than `SLICE_S` after that."""
        left = self._step_s
        while left > 0:
            passed = min(left, max(SLICE_S, next(iter(self.clock.armed), left)))
            self.clock.advance(passed)
            left -= passed
            await self.quiet()
        self._steps += 1

    async def quiet(self) -> None:
        """Until nothing is being refreshed."""
        await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE_S):
            while any(name_of(task).startswith(AT_WORK) for task in asyncio.all_tasks()):  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.001)

    # ------------------------------------------------------------ calls

    async def call(self, account: str, expected: frozenset[int] = UP, path: str = "small") -> None:
        async with self.http.get(f"{self._url}/{account}/{path}") as response:
            await response.read()
        self._count(account, response.status, expected)

    def _count(self, account: str, status: int, expected: frozenset[int]) -> None:
        self.calls[f"{account} {status}"] += 1
        if status not in expected and len(self.wrong) < 20:
            self.wrong.append(f"{account} at {self.clock.steady():.0f} s: {status}")

    async def calls_of_all(self, expected: frozenset[int] = UP, *, spared: Collection[str] = ()) -> None:
        """One with each account, of `spared` ones with whatever comes of it; and now and then of other kinds."""
        for account in ("service", "short", "long", "printed", "filed", "static"):
            await self.call(account, ANYTHING if account in spared else expected)
        if self._steps % 8 == 0 and expected is UP:
            await self._other_calls()

    async def _other_calls(self) -> None:
        async with self.http.post(f"{self._url}/static/echo", data=b"x" * 100_000) as response:
            await response.read()
            self._count("static", response.status, UP)
        async with self.http.get(f"{self._url}/static/events") as response:
            await response.content.readuntil(b"\n\n")
        async with self.http.ws_connect(f"{self._url}/static/socket") as tunnel:
            await tunnel.send_str("x")
            assert await tunnel.receive_str() == "x"
        with suppress(aiohttp.ClientPayloadError):
            await self.call("static", UP, "cut")
        with suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await self.call("static", UP, "never")
        await self.call("nowhere", frozenset({404}))

    @property
    def _url(self) -> str:
        return f"http://{HOST}:{self.daemon.port}"

    async def log_in(self, account: str) -> None:
        """As a person does, at a form."""
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            async with browser.get(
                f"{self._url}/-/login/{account}", headers=NAVIGATION, allow_redirects=False
            ) as response:
                asked = response.headers["Location"]
            form = dict(parse_qsl(urlsplit(asked).query)) | {"decision": "allow", "name": "someone"}
            async with browser.post(asked.partition("?")[0], data=form, allow_redirects=False) as response:
                back = URL(response.headers["Location"], encoded=True)
            async with browser.get(back, headers=NAVIGATION) as response:
                self._count("login", response.status, UP)

    # ------------------------------------------------------------ what there is

    async def _measure(self) -> Sample:
        """Once the connections of the calls have ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while self.api.connections:  # noqa: ASYNC110  # nobody tells
                    await asyncio.sleep(0.05)
        await settle(0.1)
        gc.collect()
        return Sample(
            round(self.clock.steady()),
            sys.getallocatedblocks(),
            int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
            len(asyncio.all_tasks()),
            len(self.clock.armed),
            descriptors(),
            threading.active_count(),
        )

    # ------------------------------------------------------------ what happens

    async def pass_time(
        self, seconds: float, expected: frozenset[int] = UP, *, spared: Collection[str] = ()
    ) -> None:
        for _ in range(max(1, round(seconds / self._step_s))):
            await self.step()
            await self.calls_of_all(expected, spared=spared)

    async def cycle(self) -> None:
        """Two hours."""
        async with aiohttp.ClientSession() as self.http:
            await self._all_there_is()
        self.samples.append(await self._measure())

    async def _all_there_is(self) -> None:
        began_at = self.clock.steady()
        for happens in (
            self._calm,
            self._refusals,
            self._bad_endpoint,
            self._lost_reply,
            self._ended_login,
            self._other_times,
            self._sleep,
            self._other_words,
        ):
            await happens()
        await self.pass_time(began_at + HOUR - self.clock.steady())
        await self._absence()

    async def _calm(self) -> None:
        self.file_token()
        await self.pass_time(600)

    async def _refusals(self) -> None:
        """A 401 for everybody, for a while; then for one token at a time, which nobody is to see."""
        self.api.storm = True
        await self.pass_time(120, frozenset({401, 503}))
        self.api.storm = False
        await self.pass_time(120, UP | {503})
        for account in ("service", "short", "long", "printed"):
            await self.call(account)
            await self.api.refuse()
            await self.call(account)
            await self.call(account)

    async def _bad_endpoint(self) -> None:
        """For longer than its tokens last. It costs no login."""
        for fault in ("error", "nonsense", "reset"):
            self.short.fault = fault
            await self.pass_time(2 * self._lifetime_s, spared=("service", "short"))
            self.short.fault = ""
            await self.pass_time(60, spared=("service", "short"))
            await self.pass_time(60)

    async def _lost_reply(self) -> None:
        """From a server that does not forgive it."""
        self.short.fault = "lost"
        await self.pass_time(2 * self._lifetime_s, spared=("service", "short"))
        self.short.fault = ""
        await self.pass_time(60, spared=("service", "short"))
        await self.log_in("short")
        await self.pass_time(60)

    async def _ended_login(self) -> None:
        """By the server, and a person is in no hurry to log in again."""
        self.short.end_logins()
        await self.pass_time(2 * self._lifetime_s, spared=("short",))
        await self.call("short", frozenset({503}))
        await self.log_in("short")
        await self.pass_time(60)

    async def _other_times(self) -> None:
        for offset_s in (HOUR, -HOUR, DAY, -DAY, 60 - self.true_time(), 0.0):
            self.clock.set_wall(self.true_time() + offset_s)
            await self.calls_of_all()
            await self.pass_time(60)

    async def _sleep(self) -> None:
        self.clock.suspend(8 * HOUR)
        self._slept_s += 8 * HOUR
        await self.calls_of_all()

    async def _other_words(self) -> None:
        """A configuration that has an account more, and then has it no more."""
        for _ in range(5):
            await self.rewrite("further")
            await self.call("further")
            await self.calls_of_all()
            await self.rewrite()
            await self.calls_of_all()
            await self.call("further", frozenset({404}))

    async def _absence(self) -> None:
        """No token endpoint for an hour. What has a token uses it to its end; then it is 503, and soon after that it is 200."""
        for server in (self.short, self.long):
            await server.go_away()
        await self.pass_time(HOUR, UP | {503})
        for server in (self.short, self.long):
            await server.come_back()
        await self.pass_time(60, UP | {503})
        await self.calls_of_all()


def _login(server: MeddledServer) -> OAuthSource:
    return OAuthSource(
        Grant.AUTHORIZATION_CODE,
        "demo-app",
        ClientAuth.NONE,
        issuer=server.ledger.issuer,
        scopes=("openid", "demo:read"),
    )


def name_of(task: "asyncio.Task[Any]") -> str:
    return getattr(task.get_coro(), "__qualname__", "")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def main(folder: Path, cycles: int, step_s: float) -> dict[str, object]:
    defects: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(str(context)))
    day = Day(folder, step_s)
    async with day.running():
        for _ in range(cycles):
            await day.cycle()
    gc.collect()
    return {
        "samples": [asdict(sample) for sample in day.samples],
        "calls": day.calls,
        "wrong": day.wrong,
        "defects": defects,
    }


if __name__ == "__main__":
    logs.write_aside()
    logs.configure(Logging(level="debug", format="json"))
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        report = runner.run(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
    sys.stdout.write(json.dumps(report) + "\n")
