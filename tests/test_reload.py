"""Another configuration while a daemon runs: what takes effect, what goes on, what is refused."""

import asyncio
import gc
import json
import os
import pty
import signal
import socket
import sys
import threading
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from structlog.testing import capture_logs

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
from bearerd.core.client_keys import ClientKey, digest_of
from bearerd.core.configuration import Configuration, Keys, Limits, Listen, Logging, Store
from bearerd.core.redaction import Secret
from bearerd.core.reloading import Report
from bearerd.core.targets import Route, Tls, Way, parse_route, sort_routes
from bearerd.daemon import Daemon
from bearerd.errors import ConfigError
from bearerd.regime import Regime
from bearerd.reloads import Reloads
from bearerd.serving import Hangups
from bearerd.settings import Loaded
from bearerd.stores.client_keys import ClientKeyFile
from bearerd.tokens.manager import TokenManager
from callers import Client, connected, warm
from certificates import Authority
from daemons import RunningDaemon
from faults import FaultServer, hang, read, refused_port, reply, send, serve, until
from upstreams import ApiUpstream, accept_any_of

HI: Final = reply(b"hi")
SOON_S: Final = 15.0  # what takes no time at all, on a busy machine
ONE: Final = StaticSource(Secret("one"))
TWO: Final = StaticSource(Secret("two"))
LOCAL: Final = Listen(hosts=("127.0.0.1",), port=0)


def build(
    sources: dict[str, Source], *routes: Route, store: Store | None = None, log: Logging | None = None
) -> Configuration:
    return Configuration(
        accounts={name: Account(name, source) for name, source in sources.items()},
        routes=sort_routes(routes),
        listen=LOCAL,
        store=store or Store(kind="memory"),
        log=log or Logging(access=False),
    )


class World:
    """A daemon, and the configuration that it will read next."""

    def __init__(self, configuration: Configuration) -> None:
        self.next = configuration
        self.problem: Exception | None = None
        self.read = 0
        self.daemon = Daemon(configuration, reread=self._read)

    async def turn_to(self, configuration: Configuration) -> Report:
        self.next = configuration
        return await self.daemon.reload()

    async def ended(self) -> None:
        """Until no call goes by an earlier configuration, and what those alone had has ended."""
        await until_true(lambda: not self.daemon._ends)

    def _read(self) -> Loaded:
        self.read += 1
        if self.problem is not None:
            raise self.problem
        return Loaded(self.next, None, (), ("a warning",))


@asynccontextmanager
async def running(configuration: Configuration) -> AsyncIterator[World]:
    world = World(configuration)
    await world.daemon.start()
    try:
        yield world
    finally:
        await world.daemon.stop(0.2)


async def until_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110  # there is nothing that would tell
            await asyncio.sleep(0.01)


async def ask(client: Client, path: str = "/", *fields: str) -> tuple[int, bytes]:
    client.write(f"GET {path} HTTP/1.1", *fields)
    raw = await client.answer()
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def bearer(api: ApiUpstream) -> bytes:
    return api.calls[-1].values(b"authorization")[0]


class TestWhatTakesEffect:
    async def test_routes_and_accounts_for_the_next_call_of_a_connection(self) -> None:
        async with ApiUpstream(accept_any_of({"one", "two"})) as api:
            root, more = parse_route("/", api.url, "a"), parse_route("/more/", f"{api.url}/base", "b")
            async with running(build({"a": ONE}, root)) as world, connected(world.daemon) as client:
                await ask(client)
                assert bearer(api) == b"Bearer one"
                report = await world.turn_to(build({"a": ONE, "b": TWO}, root, more))
                assert report == Report(added=("accounts.b", 'routes."/more"'), warnings=("a warning",))
                assert (await ask(client, "/more/x"))[0] == 200
                assert api.calls[-1].raw_path == "/base/x"
                assert bearer(api) == b"Bearer two"
                report = await world.turn_to(build({"a": TWO}, root))
                assert report.changed == ("accounts.a",)
                assert report.removed == ("accounts.b", 'routes."/more"')
                assert (await ask(client, "/more/x"))[0] == 200, "the root's, now"
                assert api.calls[-1].raw_path == "/more/x"
                assert bearer(api) == b"Bearer two"
                assert [each["name"] for each in world.daemon.status()["accounts"]] == ["a"]

    async def test_hosts_for_the_next_call_of_a_connection(self) -> None:
        async with ApiUpstream(accept_any_of({"one"})) as api:
            base = build({"a": ONE}, parse_route("/", api.url, "a"))
            async with running(base) as world, connected(world.daemon) as client:
                assert (await ask(client))[0] == 200
                client.host = "other.test"
                await world.turn_to(
                    replace(base, listen=replace(LOCAL, allowed_hosts=frozenset({"other.test"})))
                )
                assert (await ask(client))[0] == 200
                async with connected(world.daemon) as later:
                    later.host = "other.test"
                    assert (await ask(later))[0] == 200
                await world.turn_to(base)
                assert (await ask(client))[0] == 421
                async with connected(world.daemon) as later:
                    later.host = "other.test"
                    assert (await ask(later))[0] == 421

    async def test_keys_for_the_next_call_of_a_connection(self, tmp_path: Path) -> None:
        file = tmp_path / "keys"
        async with ApiUpstream(accept_any_of({"one"})) as api:
            base = build({"a": ONE}, parse_route("/", api.url, "a"))
            needed = replace(base, keys=Keys(use="required", file=str(file)))
            async with running(base) as world, connected(world.daemon) as client:
                assert (await ask(client))[0] == 200
                refused = await world.turn_to(needed)
                assert "there is no key in" in refused.problems[0]
                assert (await ask(client))[0] == 200, "nobody could call otherwise"
                make_key(file)
                assert (await world.turn_to(needed)).changed == ("keys.use", "keys.file")
                assert (await ask(client))[0] == 401
                await world.turn_to(base)
                assert (await ask(client))[0] == 200

    async def test_limits(self) -> None:
        async with ApiUpstream(accept_any_of({"one"})) as api:
            base = build({"a": ONE}, parse_route("/", api.url, "a"))
            async with running(base) as world, connected(world.daemon) as client:
                assert (await ask(client))[0] == 200
                limits = Limits(
                    header_read_s=0.1, connections=1, keep_alive_s=7.0, replay_total=5, replay_body=5
                )
                await world.turn_to(replace(base, limits=limits))
                async with connected(world.daemon) as another:
                    assert (await another.answer()).startswith(b"HTTP/1.1 503 ")
                assert (await ask(client))[0] == 200, "who is in stays"
                client.writer.write(b"GET / HT")
                assert (await client.answer()).startswith(b"HTTP/1.1 408 ")
                budget = world.daemon._front._forwarder._budget
                assert (budget.left, budget.per_call) == (5, 5)

    async def test_time_that_an_idle_connection_is_kept(self) -> None:
        base = build({"a": ONE}, parse_route("/", "http://127.0.0.1:9", "a"))
        async with running(base) as world, connected(world.daemon):
            await world.turn_to(replace(base, limits=Limits(keep_alive_s=0.2)))
            async with connected(world.daemon) as later:
                await ask(later, "/-/livez")
                assert await later.rest() == b""

    async def test_the_program_for_logins(self, tmp_path: Path) -> None:
        login = OAuthSource(Grant.AUTHORIZATION_CODE, "app", issuer="http://127.0.0.1:9")
        base = build({"a": login}, parse_route("/", "http://127.0.0.1:9", "a"))
        async with running(base) as world, connected(world.daemon) as client:
            told = tmp_path / "told"
            hook = ("sh", "-c", f'echo "$BEARERD_LOGIN_ACCOUNT" > {told}.new && mv {told}.new {told}')
            assert (await world.turn_to(replace(base, on_login_needed=hook))).changed == (
                "hooks.on_login_needed",
            )
            assert (await ask(client))[0] == 503
            await until_true(told.exists)
            assert told.read_text() == "a\n"

    async def test_an_audit_log_begins_moves_and_ends(self, tmp_path: Path) -> None:
        async with ApiUpstream(accept_any_of({"one"})) as api:
            base = build({"a": ONE}, parse_route("/", api.url, "a"))
            async with running(base) as world, connected(world.daemon) as client:
                for name, path in (("", "/0"), ("one", "/1"), ("one", "/2"), ("two", "/3"), ("", "/4")):
                    file = str(tmp_path / name) if name else ""
                    await world.turn_to(replace(base, log=Logging(access=False, audit=file)))
                    assert (await ask(client, path))[0] == 200
                await world.ended()
                assert paths(tmp_path / "one") == ["/1", "/2"]
                assert paths(tmp_path / "two") == ["/3"]
                folder = str(tmp_path / "absent" / "log")
                refused = await world.turn_to(replace(base, log=Logging(access=False, audit=folder)))
                assert refused.problems[0].startswith(f"log.audit: {folder}: No such file")

    async def test_what_is_required_of_the_same_audit_log(self, tmp_path: Path) -> None:
        base = build({"a": ONE}, parse_route("/", "http://127.0.0.1:9", "a"))
        log = Logging(access=False, audit=str(tmp_path / "audit"))
        async with running(replace(base, log=log)) as world:
            audit = world.daemon._regime.audit
            await world.turn_to(replace(base, log=replace(log, audit_required=True)))
            assert world.daemon._regime.audit is audit
            assert audit is not None
            assert audit.required

    async def test_a_file_of_tls_with_other_contents(self, tmp_path: Path) -> None:
        """Its name is the same; the settings have a hash of what is in it."""
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        old, new = Authority(tmp_path / "one", "one"), Authority(tmp_path / "two", "two")
        file = tmp_path / "ca.pem"
        file.write_bytes(old.ca_file.read_bytes())
        context = new.server("localhost")
        server = await asyncio.start_server(answer_hi, "127.0.0.1", 0, ssl=context)
        async with server:
            url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
            base = build({"a": ONE}, secure(url, file, "1"))
            async with running(base) as world, connected(world.daemon) as client:
                assert (await ask(client))[0] == 502
                file.write_bytes(new.ca_file.read_bytes())
                assert (await world.turn_to(base)).changed == ()
                assert (await ask(client))[0] == 502, "the settings say that it is the same"
                assert (await world.turn_to(build({"a": ONE}, secure(url, file, "2")))).changed == (
                    'routes."/"',
                )
                assert (await ask(client))[0] == 200
                await world.ended()
                await world.turn_to(build({"a": TWO}, secure(url, file, "2")))
                assert len(world.daemon._ground.trust._contexts) == 1, (
                    "what is left of others goes with the next"
                )
                file.unlink()
                refused = await world.turn_to(build({"a": ONE}, secure(url, file, "3")))
                assert "ca_file" in refused.problems[0]
                assert (await ask(client))[0] == 200


def secure(url: str, file: Path, seal: str) -> Route:
    return replace(parse_route("/", url, "a"), way=Way(Tls(str(file), seal=seal)))


async def answer_hi(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(HI)
    writer.close()


def paths(file: Path) -> list[str]:
    return [json.loads(line)["path"] for line in file.read_text().splitlines()]


def make_key(file: Path) -> None:
    key = ClientKey("test", digest_of(b"brd_x"), 0)
    ClientKeyFile(file).change(lambda _: [key])


class TestWhatGoesOn:
    async def test_readiness_also_while_a_new_account_is_read_from_its_store(self) -> None:
        async with running(build({"a": ONE}, parse_route("/", "http://127.0.0.1:9", "a"))) as world:
            await world.daemon.started()
            await world.turn_to(build({"b": TWO}, parse_route("/", "http://127.0.0.1:9", "b")))
            assert world.daemon._has_started()
            assert world.daemon.meters.reloads.accepted == 1

    async def test_a_call_by_a_route_that_has_gone(self) -> None:
        """One of each way: with an answer at once, and with one that comes in two pieces."""
        go = asyncio.Event()
        async with FaultServer([read, until(go), send(HI), hang], [serve(HI)]) as server:
            base = build({"a": ONE}, parse_route("/", server.url, "a"))
            async with running(base) as world, connected(world.daemon) as client:
                client.write("GET / HTTP/1.1")
                await until_true(lambda: bool(server.requests))
                other = f"http://127.0.0.1:{refused_port()}"
                await world.turn_to(build({"b": TWO}, parse_route("/b/", other, "b")))
                assert world.daemon._draining, "the call keeps what it needs"
                go.set()
                assert (await client.answer()).endswith(b"hi")
                assert (await ask(client))[0] == 404
                await world.ended()
                assert not world.daemon._draining

    @pytest.mark.parametrize("cut", [1, len(HI) - 1])
    async def test_a_call_that_was_begun_without_a_task_and_turns_out_to_need_one(self, cut: int) -> None:
        go, more = asyncio.Event(), asyncio.Event()
        script = [read, until(go), send(HI[:cut]), until(more), send(HI[cut:]), hang]
        async with FaultServer(script) as server:
            base = build({"a": ONE}, parse_route("/", server.url, "a"))
            async with running(base) as world, connected(world.daemon) as client:
                await warm(world.daemon)
                client.write("GET / HTTP/1.1")
                await until_true(lambda: bool(server.requests))
                assert world.daemon._front._in_flight == 1
                await world.turn_to(build({"b": TWO}, parse_route("/b/", "http://127.0.0.1:9", "b")))
                go.set()
                await asyncio.sleep(0.05)
                await world.turn_to(build({"b": ONE}, parse_route("/b/", "http://127.0.0.1:9", "b")))
                more.set()
                await client.exactly(HI)
                await world.ended()
                assert world.daemon._front._in_flight == 0
                assert server.connections == 1

    async def test_a_replay_with_the_account_that_the_call_began_with(self) -> None:
        go = asyncio.Event()
        no = reply(b"", "401 Unauthorized")
        async with FaultServer([read, until(go), send(no), serve(HI)]) as server:
            base = build(
                {"a": CommandSource(("sh", "-c", "echo token-$$"), 20)}, parse_route("/", server.url, "a")
            )
            async with running(base) as world, connected(world.daemon) as client:
                client.write("GET / HTTP/1.1")
                await until_true(lambda: bool(server.requests))
                await world.turn_to(build({"a": ONE}, parse_route("/", "http://127.0.0.1:9", "a")))
                go.set()
                assert (await client.answer()).endswith(b"hi")
            first, second = (request.partition(b"Bearer ")[2].split()[0] for request in server.requests)
            assert first != second
            assert second.startswith(b"token-")

    async def test_a_connection_to_an_upstream_that_stays(self) -> None:
        async with FaultServer([serve(HI, HI, HI)]) as server:
            route = parse_route("/", server.url, "a")
            async with running(build({"a": ONE}, route)) as world, connected(world.daemon) as client:
                for source in (ONE, TWO, ONE):
                    await world.turn_to(build({"a": source}, route))
                    assert (await ask(client))[0] == 200
            assert server.connections == 1

    async def test_connections_to_an_upstream_that_has_gone_are_closed(self) -> None:
        """Those that are idle at once, one that is in use when its call is over."""
        go = asyncio.Event()
        async with FaultServer([read, until(go), send(HI), hang]) as server:
            here, gone = parse_route("/", "http://127.0.0.1:9", "a"), parse_route("/gone/", server.url, "a")
            async with running(build({"a": ONE}, gone)) as world, connected(world.daemon) as client:
                await warm(world.daemon, 2)
                client.write("GET /gone/ HTTP/1.1")
                await until_true(lambda: bool(server.requests))
                await world.turn_to(build({"a": ONE}, here))
                go.set()
                assert (await client.answer()).endswith(b"hi")
                await world.ended()
                assert set(world.daemon._pool._idle) == {here.origin}
                await until_true(lambda: all(peer.gone.is_set() for peer in server.peers))

    async def test_what_was_learnt_of_a_route(self) -> None:
        """That it says 401 whatever the token is, which is not to cost another one after each reload."""
        tried = 0

        async def never(token: str) -> bool:
            nonlocal tried
            tried += 1
            return token == ""

        source = CommandSource(("sh", "-c", "echo token-$$"), 20)
        async with ApiUpstream(never) as api:
            base = build({"a": source}, parse_route("/", api.url, "a"))
            async with running(base) as world, connected(world.daemon) as client:
                assert (await ask(client))[0] == 401
                assert tried == 2
                await world.turn_to(replace(base, limits=Limits(drain_s=1.0)))
                assert (await ask(client))[0] == 401
                assert tried == 3, "no replay"
                await world.turn_to(
                    build({"a": replace(source, timeout_s=19)}, parse_route("/", api.url, "a"))
                )
                assert (await ask(client))[0] == 401
                assert tried == 5, "another account may be another matter"

    async def test_lines_of_a_call_in_the_audit_log_that_it_began_with(self, tmp_path: Path) -> None:
        go = asyncio.Event()
        async with FaultServer([read, until(go), send(HI), hang]) as server:
            base = build({"a": ONE}, parse_route("/", server.url, "a"))
            log = Logging(access=False, audit=str(tmp_path / "one"))
            async with running(replace(base, log=log)) as world, connected(world.daemon) as client:
                client.write("GET /slow HTTP/1.1")
                await until_true(lambda: bool(server.requests))
                await world.turn_to(replace(base, log=replace(log, audit=str(tmp_path / "two"))))
                go.set()
                await client.answer()
                await world.ended()
            assert paths(tmp_path / "one") == ["/slow"]
            assert paths(tmp_path / "two") == []

    async def test_stopping_waits_for_calls_of_earlier_configurations_too(self, tmp_path: Path) -> None:
        go = asyncio.Event()
        async with FaultServer([read, until(go), send(HI), hang]) as server:
            log = Logging(access=False, audit=str(tmp_path / "audit"))
            base = build({"a": ONE}, parse_route("/", server.url, "a"), log=log)
            world = World(base)
            await world.daemon.start()
            async with connected(world.daemon) as client:
                client.write("GET /slow HTTP/1.1")
                await until_true(lambda: bool(server.requests))
                await world.turn_to(build({"a": ONE}, parse_route("/", "http://127.0.0.1:9", "a")))
                stopping = asyncio.create_task(world.daemon.stop(SOON_S))
                await asyncio.sleep(0.05)
                assert not stopping.done()
                go.set()
                assert (await client.answer()).endswith(b"hi")
                await stopping
            assert paths(tmp_path / "audit") == ["/slow"]


class TokenServer:
    """A token endpoint that gives a pair for a pair, each once. With `gate` cleared it takes a request and waits.

    `presented` are the refresh tokens that came, `secrets` the client secrets beside them.
    """

    def __init__(self, *, lifetime_s: float = 1000.0) -> None:
        self.lifetime_s = lifetime_s
        self.presented: list[str] = []
        self.secrets: list[str] = []
        self.refused = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._good = {"r0"}
        application = web.Application()
        application.router.add_post("/token", self._grant)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/token"

    def source(self, secret: str = "s", **other: object) -> OAuthSource:
        return replace(
            OAuthSource(
                Grant.REFRESH_TOKEN,
                "app",
                client_auth=ClientAuth.POST,
                client_secret=Secret(secret),
                token_endpoint=self.url,
                refresh_token=Secret("r0"),
            ),
            **other,  # type: ignore[arg-type]  # by name
        )

    async def asked(self, times: int) -> None:
        await until_true(lambda: len(self.presented) >= times)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        await self._runner.cleanup()

    async def _grant(self, request: web.Request) -> web.Response:
        form = parse_qs(await request.text())
        (token,) = form.get("refresh_token", ["none"])
        self.presented.append(token)
        self.secrets += form.get("client_secret", [])
        await self.gate.wait()
        if form["grant_type"] == ["client_credentials"]:
            return self._answer("service")
        if token not in self._good:
            self.refused += 1
            return web.json_response({"error": "invalid_grant"}, status=400)
        self._good = {f"r{len(self.presented)}"}
        return self._answer("login", refresh_token=f"r{len(self.presented)}")

    def _answer(self, kind: str, **more: str) -> web.Response:
        token = {"access_token": f"{kind}-{len(self.presented)}", "token_type": "Bearer"}
        return web.json_response(token | {"expires_in": self.lifetime_s} | more)


@pytest.fixture
async def tokens() -> AsyncIterator[TokenServer]:
    async with TokenServer() as server:
        yield server


@pytest.fixture
async def api() -> AsyncIterator[ApiUpstream]:
    async def any_token(token: str) -> bool:
        return token.startswith(("login", "service", "guest"))

    async with ApiUpstream(any_token) as upstream:
        yield upstream


@pytest.fixture(params=["vault", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return Store(kind="memory")
    return Store(
        kind="vault", path=str(tmp_path / "vault"), key_source="file", key_file=str(tmp_path / "key")
    )


class TestLogins:
    """A refresh token is presented once, whatever becomes of the account that has it."""

    async def test_an_account_that_is_asked_for_in_another_way_keeps_its_manager_and_its_token(
        self, tokens: TokenServer, api: ApiUpstream, store: Store
    ) -> None:
        route = parse_route("/", api.url, "a")
        async with (
            running(build({"a": tokens.source()}, route, store=store)) as world,
            connected(world.daemon) as client,
        ):
            assert (await ask(client))[0] == 200
            manager = world.daemon._regime.managers["a"]
            report = await world.turn_to(build({"a": tokens.source("rotated")}, route, store=store))
            assert report.changed == ("accounts.a",)
            assert world.daemon._regime.managers["a"] is manager
            assert (await ask(client))[0] == 200
            assert bearer(api) == b"Bearer login-1"
            await manager.refresh()
            assert tokens.presented == ["r0", "r1"]
            assert tokens.secrets == ["s", "rotated"]

    async def test_a_refresh_in_flight_ends_as_it_began_and_its_pair_is_used(
        self, tokens: TokenServer, api: ApiUpstream, store: Store
    ) -> None:
        route = parse_route("/", api.url, "a")
        async with (
            running(build({"a": tokens.source()}, route, store=store)) as world,
            connected(world.daemon) as client,
        ):
            assert (await ask(client))[0] == 200
            tokens.gate.clear()
            manager = world.daemon._regime.managers["a"]
            refresh = asyncio.create_task(manager.refresh())
            await tokens.asked(2)
            await world.turn_to(build({"a": tokens.source("rotated")}, route, store=store))
            assert (await ask(client))[0] == 200, "the token in force is good"
            tokens.gate.set()
            assert (await refresh).access_token.reveal() == "login-2"
            await manager.refresh()
            assert tokens.presented == ["r0", "r1", "r2"]
            assert tokens.secrets == ["s", "s", "rotated"]
            assert tokens.refused == 0

    async def test_one_that_is_gone_and_comes_back_while_its_refresh_is_in_flight(
        self, tokens: TokenServer, api: ApiUpstream, store: Store
    ) -> None:
        """The earlier manager saves what comes; the later one waits for the lock, and finds it."""
        there = build({"a": tokens.source()}, parse_route("/", api.url, "a"), store=store)
        gone = build({"b": ONE}, parse_route("/", api.url, "b"), store=store)
        async with running(there) as world, connected(world.daemon) as client:
            assert (await ask(client))[0] == 200
            tokens.gate.clear()
            earlier = world.daemon._regime.managers["a"]
            refresh = asyncio.create_task(earlier.refresh())
            await tokens.asked(2)
            await world.turn_to(gone)
            await world.turn_to(there)
            later = world.daemon._regime.managers["a"]
            assert later is not earlier
            assert (await ask(client))[0] == 200
            another = asyncio.create_task(later.refresh())
            await asyncio.sleep(0.1)
            tokens.gate.set()
            assert (await refresh).access_token.reveal() == "login-2"
            assert (await another).access_token.reveal() == "login-2"
            await world.ended()
            assert earlier._closed
            assert not later._closed
            await later.refresh()
            assert tokens.presented == ["r0", "r1", "r2"]
            assert tokens.refused == 0

    async def test_what_a_removed_account_was_given_is_saved(
        self, tokens: TokenServer, api: ApiUpstream, tmp_path: Path
    ) -> None:
        store = Store(
            kind="vault", path=str(tmp_path / "v"), key_source="file", key_file=str(tmp_path / "key")
        )
        there = build({"a": tokens.source()}, parse_route("/", api.url, "a"), store=store)
        gone = build({"b": ONE}, parse_route("/", api.url, "b"), store=store)
        tokens.gate.clear()
        async with running(there) as world, connected(world.daemon) as client:
            await tokens.asked(1)
            await world.turn_to(gone)
            assert world.daemon._ends
            tokens.gate.set()
            await world.ended()
            await world.turn_to(there)
            assert (await ask(client))[0] == 200
            assert bearer(api) == b"Bearer login-1"
            assert tokens.presented == ["r0"]

    async def test_another_refresh_token_is_another_login(
        self, tokens: TokenServer, api: ApiUpstream, store: Store
    ) -> None:
        route = parse_route("/", api.url, "a")
        async with (
            running(build({"a": tokens.source()}, route, store=store)) as world,
            connected(world.daemon) as client,
        ):
            assert (await ask(client))[0] == 200
            tokens._good = {"fresh"}
            source = tokens.source(refresh_token=Secret("fresh"))
            await world.turn_to(build({"a": source}, route, store=store))
            assert (await ask(client))[0] == 200
            assert bearer(api) == b"Bearer login-2"
            assert tokens.presented == ["r0", "fresh"]

    async def test_a_secret_that_is_right_at_last_is_tried_at_once(
        self, tokens: TokenServer, api: ApiUpstream
    ) -> None:
        """An account that has failed, and one of a service: what costs nothing is asked for by the new words soon."""
        service = tokens.source(grant=Grant.CLIENT_CREDENTIALS, refresh_token=None)
        route = parse_route("/", api.url, "a")
        async with running(build({"a": service}, route)) as world, connected(world.daemon) as client:
            assert (await ask(client))[0] == 200
            manager = world.daemon._regime.managers["a"]
            await world.turn_to(build({"a": replace(service, client_secret=Secret("rotated"))}, route))
            assert world.daemon._regime.managers["a"] is manager
            await tokens.asked(2)
            assert tokens.secrets == ["s", "rotated"]

    async def test_other_scopes_of_a_service_are_another_token(
        self, tokens: TokenServer, api: ApiUpstream
    ) -> None:
        service = tokens.source(grant=Grant.CLIENT_CREDENTIALS, refresh_token=None)
        route = parse_route("/", api.url, "a")
        async with running(build({"a": service}, route)) as world, connected(world.daemon) as client:
            assert (await ask(client))[0] == 200
            await world.turn_to(build({"a": replace(service, scopes=("more",))}, route))
            assert (await ask(client))[0] == 200
            assert bearer(api) == b"Bearer service-2"


class TestRefused:
    async def test_what_cannot_change_while_it_runs(self, tmp_path: Path) -> None:
        async with ApiUpstream(accept_any_of({"one"})) as api:
            base = build({"a": ONE}, parse_route("/", api.url, "a"))
            async with running(base) as world, connected(world.daemon) as client:
                regime = world.daemon._regime
                other = replace(
                    build({"b": TWO}, parse_route("/b/", api.url, "b")),
                    listen=Listen(port=1, socket=str(tmp_path / "s")),
                    store=Store(kind="vault"),
                )
                with capture_logs() as said:
                    report = await world.turn_to(other)
                cure = "cannot change while bearerd runs; restart it, or take the change back"
                assert report.problems == tuple(
                    f"{name}: {cure}"
                    for name in ("listen.hosts", "listen.port", "listen.socket", "store.kind")
                )
                assert world.daemon._regime is regime
                assert (await ask(client))[0] == 200
                (line,) = [each for each in said if each["event"] == "config.refused"]
                assert line["problems"] == report.problems

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (
                {"keys": Keys(use="required", file="/nowhere/keys")},
                "keys: there is no key in /nowhere/keys",
            ),
            (
                {"log": Logging(audit="/nowhere/audit")},
                "log.audit: /nowhere/audit: No such file or directory",
            ),
            (
                {"routes": (secure("https://x", Path("/nowhere/ca"), ""),)},
                'routes."/".ca_file: /nowhere/ca cannot be read',
            ),
        ],
        ids=["keys", "audit", "tls"],
    )
    async def test_what_the_settings_alone_cannot_tell(self, change: dict[str, object], problem: str) -> None:
        base = build({"a": ONE}, parse_route("/", "http://127.0.0.1:9", "a"))
        async with running(base) as world:
            regime = world.daemon._regime
            report = await world.turn_to(replace(base, **change))  # type: ignore[arg-type]  # by name
            assert report.problems[0].startswith(problem)
            assert world.daemon._regime is regime

    async def test_a_redirect_that_leads_nowhere(self) -> None:
        login = OAuthSource(
            Grant.AUTHORIZATION_CODE,
            "app",
            issuer="http://127.0.0.1:9",
            redirect_uri="https://away.example/x",
        )
        base = build({"a": ONE}, parse_route("/", "http://127.0.0.1:9", "a"))
        async with running(base) as world:
            report = await world.turn_to(replace(base, accounts={**base.accounts, "b": Account("b", login)}))
            assert report.problems[0].startswith("accounts.b.redirect_uri: ")

    async def test_an_account_whose_vault_has_no_key(self, tmp_path: Path) -> None:
        """And once there is one, that is noticed."""
        store = Store(
            path=str(tmp_path / "vault"), key_source="file", key_file=str(tmp_path / "none" / "key")
        )
        base = build({"a": ONE}, parse_route("/", "http://127.0.0.1:9", "a"), store=store)
        login = OAuthSource(Grant.AUTHORIZATION_CODE, "app", issuer="http://127.0.0.1:9")
        more = replace(base, accounts={**base.accounts, "b": Account("b", login)})
        (tmp_path / "none").write_text("no folder")
        async with running(base) as world:
            assert "key" in (await world.turn_to(more)).problems[0]
            assert set(world.daemon._regime.managers) == {"a"}
            (tmp_path / "none").unlink()
            assert (await world.turn_to(more)).added == ("accounts.b",)

    async def test_a_file_that_is_not_good(self) -> None:
        async with running(build({"a": ONE}, parse_route("/", "http://127.0.0.1:9", "a"))) as world:
            world.problem = ConfigError("one: is wrong\ntwo: is too")
            assert (await world.daemon.reload()).problems == ("one: is wrong", "two: is too")

    async def test_a_defect_changes_nothing_and_tells_nothing(self) -> None:
        async with running(build({"a": ONE}, parse_route("/", "http://127.0.0.1:9", "a"))) as world:
            await world.daemon.started()
            world.problem = RuntimeError("a secret")
            with capture_logs() as said:
                report = await world.daemon.reload()
            assert report.problems == ("bearerd met an error of its own; its log says where",)
            assert [line["event"] for line in said] == ["config.defect", "config.refused"]
            assert "a secret" not in repr(said)

    async def test_a_daemon_that_has_read_none(self) -> None:
        daemon = Daemon(build({"a": ONE}, parse_route("/", "http://127.0.0.1:9", "a")))
        await daemon.start()
        report = await daemon.reload()
        assert report.problems == ("there is nothing to reload: no configuration was read at the start",)
        await daemon.stop(0)


class TestOneAfterTheOther:
    async def test_never_two_at_once(self) -> None:
        under_way, most = 0, 0

        async def once() -> Report:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1
            return Report()

        reloads = Reloads(once)
        tasks = set()
        for _ in range(20):
            tasks.add(reloads.ask())
            await asyncio.sleep(0.002)
        await asyncio.gather(*tasks)
        assert most == 1
        assert len(tasks) > 1

    async def test_who_asks_while_one_runs_gets_the_next_and_all_of_them_get_one(self) -> None:
        held, begun = threading.Event(), threading.Event()
        base = build({"a": ONE}, parse_route("/", "http://127.0.0.1:9", "a"))
        async with running(base) as world:
            world._read = hold(world._read, begun, held)  # type: ignore[method-assign]
            world.daemon._reread = world._read
            first = world.daemon.reload()
            await asyncio.to_thread(begun.wait, SOON_S)
            later = [world.daemon.reload() for _ in range(10)]
            world.next = replace(base, limits=Limits(connections=7))
            assert not first.done()
            held.set()
            await asyncio.gather(first, *later)
            assert world.read == 2
            assert world.daemon._configuration.limits.connections == 7

    async def test_stopping_does_not_wait_for_a_disk_that_hangs(self) -> None:
        held, begun = threading.Event(), threading.Event()
        base = build({"a": ONE}, parse_route("/", "http://127.0.0.1:9", "a"))
        world = World(base)
        world.daemon._reread = hold(world._read, begun, held)
        await world.daemon.start()
        waiting = [world.daemon.reload(), world.daemon.reload()]
        await asyncio.to_thread(begun.wait, SOON_S)
        waiting.append(world.daemon.reload())
        async with asyncio.timeout(SOON_S):
            await world.daemon.stop(0)
        held.set()
        assert all(task.cancelled() for task in waiting)

    async def test_nothing_is_left_of_forty_of_them(self, tokens: TokenServer, api: ApiUpstream) -> None:
        """No manager, no configuration, no task, no descriptor."""
        root = parse_route("/", api.url, "a")
        log = Logging(access=False)
        kinds = [
            build({"a": tokens.source()}, root),
            build(
                {"a": tokens.source("t"), "b": StaticSource(Secret("guest"))},
                root,
                parse_route("/b", api.url, "b"),
            ),
            build({"a": tokens.source(), "b": FileSource("/nowhere")}, root, log=replace(log, access=True)),
        ]
        async with running(kinds[0]) as world, connected(world.daemon) as client:

            async def turn(times: int) -> tuple[int, int, int, int]:
                for number in range(times):
                    await world.turn_to(kinds[number % len(kinds)])
                    assert (await ask(client))[0] == 200
                await world.turn_to(kinds[0])
                await world.ended()
                await world.daemon.started()
                gc.collect()
                living = [type(each) for each in gc.get_objects()]
                files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
                return living.count(TokenManager), living.count(Regime), len(asyncio.all_tasks()), files

            before = await turn(4)
            assert await turn(36) == before
            assert tokens.presented == ["r0"]


def hold(reread: Callable[[], Loaded], begun: threading.Event, held: threading.Event) -> Callable[[], Loaded]:
    """As `reread`, by a disk that hangs until `held` is set."""

    def slowly() -> Loaded:
        begun.set()
        held.wait(SOON_S)
        return reread()

    return slowly


TOML = """
[accounts.work]
token = "one"
[routes."/"]
upstream = "{}"
"""


class TestProcess:
    async def test_a_signal_while_calls_end_is_heard_by_nobody(self, tmp_path: Path) -> None:
        """Nor does it kill."""
        go = asyncio.Event()
        async with FaultServer([read, until(go), send(HI), hang]) as server:
            async with (
                RunningDaemon(tmp_path, TOML.format(server.url)) as daemon,
                connected(daemon) as client,
            ):
                client.write("GET / HTTP/1.1")
                await until_true(lambda: bool(server.requests))
                os.kill(daemon.pid, signal.SIGTERM)
                await until_true(lambda: refuses(daemon.port))
                os.kill(daemon.pid, signal.SIGHUP)
                await asyncio.sleep(0.1)
                go.set()
                assert (await client.answer()).endswith(b"hi")
                assert await daemon.ended() == 0
            assert "config." not in daemon.log

    async def test_the_demo_has_nothing_to_reload_and_goes_on(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bearerd", "demo", "--port", "0"), stdout=DEVNULL, stderr=PIPE
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(60):
                while b"daemon.started" not in await process.stderr.readline():
                    """It starts."""
                process.send_signal(signal.SIGHUP)
                while b"nothing to reload" not in (line := await process.stderr.readline()):
                    assert line
        finally:
            process.terminate()
            await process.stderr.read()
            assert await process.wait() == 0

    async def test_a_terminal_that_is_closed_ends_it(self, tmp_path: Path) -> None:
        """With the signal that asks for a reload where there is none."""
        file = tmp_path / "bearerd.toml"
        file.write_text("[listen]\nport = 0\n" + TOML.format("http://127.0.0.1:9"))
        screen, keyboard = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", AT_A_TERMINAL, sys.executable, "-m", "bearerd", "run", "-c", str(file)),
            stdin=keyboard,
            stdout=keyboard,
            stderr=keyboard,
            start_new_session=True,
        )
        os.close(keyboard)
        said = b""
        async with asyncio.timeout(60):
            while b"listens on" not in said:
                said += await asyncio.to_thread(os.read, screen, 4096)
            process.send_signal(signal.SIGHUP)
            while b"config.reloaded" not in said:
                said += await asyncio.to_thread(os.read, screen, 4096)
            os.close(screen)
            assert await process.wait() == 0

    async def test_signals_that_come_early_are_one_that_comes_in_time(self) -> None:
        stopping, heard = asyncio.Event(), asyncio.Queue[None]()
        hangups = Hangups(stopping)
        try:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGHUP)
                await asyncio.sleep(0.05)
            assert heard.empty()
            hangups.tell(lambda: heard.put_nowait(None))
            assert heard.qsize() == 1
            os.kill(os.getpid(), signal.SIGHUP)
            async with asyncio.timeout(SOON_S):
                await heard.get()
                await heard.get()
            hangups.ignore()
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.05)
            assert heard.empty()
            assert not stopping.is_set()
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)


AT_A_TERMINAL: Final = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def refuses(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0
