"""Probes as orchestrators send them: to the port of the calls, and to an address of their own."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from bearerd.control.health import Health, Store
from bearerd.control.metrics import MetricsPage, Readings
from bearerd.control.probes import Probes
from bearerd.core.accounts import Account, Grant, OAuthSource, StaticSource
from bearerd.core.configuration import Configuration, Keys, Limits, Listen, Logging
from bearerd.core.configuration import Store as StoreSettings
from bearerd.core.redaction import Secret
from bearerd.core.targets import parse_route
from bearerd.daemon import Daemon
from bearerd.errors import ConfigError, NotConfigured
from bearerd.listening import open_sockets
from bearerd.meters import Meters
from bearerd.probing import CONNECTIONS, ProbeServer
from bearerd.settings import load
from callers import connected, running
from clocks import FakeClock
from faults import FaultServer, read, refused_port, reply, send, serve, talk, until
from patience import within

HI: Final = reply(b"hi")
PROBED: Final = Listen(hosts=("127.0.0.1",), port=0, probes=("127.0.0.1", 0))


async def ask(port: int, path: str, *, method: str = "GET", fields: str = "") -> tuple[int, str]:
    """Status and body. `Host` is nobody's."""
    request = f"{method} {path} HTTP/1.1\r\nHost: a-pod\r\n{fields}\r\n".encode()
    head, _, body = (await talk(port, request)).partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


@asynccontextmanager
async def probed(limits: Limits | None = None, log: Logging | None = None) -> AsyncIterator[Daemon]:
    async with (
        FaultServer([serve(HI)]) as server,
        running(server.url, listen=PROBED, limits=limits, log=log) as daemon,
    ):
        yield daemon


async def readiness(daemon: Daemon, expected: int) -> str:
    """What is said of it once it is so."""
    async with within(15):
        while (found := await ask(daemon.probes_port, "/readyz"))[0] != expected:  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.02)
    return found[1]


# ---------------------------------------------------------------- readiness


async def test_while_it_ends_readiness_is_down_at_once_and_the_call_in_flight_finishes() -> None:
    arrived, answer = asyncio.Event(), asyncio.Event()

    async def tell(_: object) -> None:
        arrived.set()

    async with FaultServer([read, tell, until(answer), send(HI)]) as server, AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(running(server.url, listen=PROBED))
        client = await stack.enter_async_context(connected(daemon))
        client.write("GET / HTTP/1.1")
        await arrived.wait()
        assert (await ask(daemon.probes_port, "/readyz"))[0] == 200
        stopping = asyncio.create_task(daemon.stop())
        await asyncio.sleep(0)
        status, text = await ask(daemon.probes_port, "/readyz")
        assert (status, "[-]drain failed" in text, "[+]store ok" in text) == (503, True, True)
        assert (await ask(daemon.probes_port, "/livez")) == (200, "ok\n")
        assert "bearerd_ready 0.0\n" in (await ask(daemon.probes_port, "/metrics"))[1]
        answer.set()
        assert (await client.answer()).endswith(b"hi")
        await stopping


async def test_one_account_that_is_logged_out_is_no_reason_against_readiness() -> None:
    person = OAuthSource(
        Grant.AUTHORIZATION_CODE,
        "client",
        authorization_endpoint="https://login.example.com/a",
        token_endpoint="https://login.example.com/t",
    )
    subject = Configuration(
        accounts={"me": Account("me", person), "work": Account("work", StaticSource(Secret("t")))},
        routes=(
            parse_route("/me", "http://127.0.0.1:9", "me"),
            parse_route("/", "http://127.0.0.1:9", "work"),
        ),
        listen=PROBED,
        store=StoreSettings(kind="memory"),
    )
    daemon = Daemon(subject)
    await daemon.start()
    try:
        await daemon.started()
        assert await ask(daemon.probes_port, "/readyz") == (200, "ok\n")
        metrics = (await ask(daemon.probes_port, "/metrics"))[1]
        assert 'bearerd_login_required{account="me"} 1.0\n' in metrics
        assert 'bearerd_login_required{account="work"} 0.0\n' in metrics
    finally:
        await daemon.stop(0)


def put_a_file_in_its_place(folder: Path) -> None:
    """Whoever has just come to write to it makes it anew, so more than once if need be."""
    while not folder.is_file():
        folder.rename(folder.with_name(f"was-{time.monotonic_ns()}"))
        with suppress(IsADirectoryError):
            folder.write_text("no folder")


async def test_a_vault_that_can_no_longer_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "vault"
    key = tmp_path / "key"
    key.write_text("0" * 64)
    key.chmod(0o600)
    source = OAuthSource(
        Grant.REFRESH_TOKEN,
        "client",
        token_endpoint=f"http://127.0.0.1:{refused_port()}/t",
        refresh_token=Secret("made-up"),
    )
    subject = Configuration(
        accounts={"work": Account("work", source)},
        routes=(parse_route("/", "http://127.0.0.1:9", "work"),),
        listen=PROBED,
        store=StoreSettings(kind="vault", path=str(folder), key_source="file", key_file=str(key)),
    )
    daemon = Daemon(subject)
    await daemon.start()
    try:
        await daemon.started()
        assert await ask(daemon.probes_port, "/readyz") == (200, "ok\n")
        put_a_file_in_its_place(folder)
        daemon.health._store._seen_at = float("-inf")  # as five seconds later
        status, text = await ask(daemon.probes_port, "/readyz?verbose")
        assert (status, "[-]store failed: " in text) == (503, True)
        assert "made-up" not in text
    finally:
        await daemon.stop(0)


async def test_an_audit_log_without_which_no_call_is_made(tmp_path: Path) -> None:
    log = Logging(audit=str(tmp_path / "audit"), audit_required=True)
    async with probed(log=log) as daemon, connected(daemon) as client:
        assert await ask(daemon.probes_port, "/readyz") == (200, "ok\n")
        (tmp_path / "audit").rename(tmp_path / "before")
        (tmp_path / "audit").mkdir()
        client.write("GET / HTTP/1.1")
        await client.answer()
        assert "[-]audit failed" in await readiness(daemon, 503)
        (tmp_path / "audit").rmdir()
        await readiness(daemon, 200)


@pytest.mark.parametrize("prefix", ["", "/-"])
@pytest.mark.parametrize(("page", "kind"), [("livez", "livez"), ("readyz", "readyz"), ("healthz", "readyz")])
async def test_what_is_looked_at_is_listed(prefix: str, page: str, kind: str) -> None:
    async with probed() as daemon:
        await daemon.started()
        status, text = await ask(daemon.probes_port, f"{prefix}/{page}?verbose")
        assert status == 200
        assert text.endswith(f"{kind} check passed\n")
        assert text.startswith("[+]")


# ---------------------------------------------------------------- the address


async def test_nothing_else_is_served_there() -> None:
    async with probed() as daemon:
        for path in (
            "/",
            "/-/",
            "/-/status",
            "/-/login",
            "/x",
            "/livez/",
            "/-/-/livez",
            "//livez",
            "/%6civez",
        ):
            status, text = await ask(daemon.probes_port, path)
            assert (path, status) == (path, 404)
            assert "work" not in text
        for method in ("POST", "DELETE", "OPTIONS", "TRACE"):
            assert (await ask(daemon.probes_port, "/livez", method=method))[0] == 405
        assert (await ask(daemon.probes_port, "/livez", method="HEAD")) == (200, "")
        assert sum(daemon.meters.of_calls("/", "work").classes) == 0


async def test_neither_host_nor_origin_nor_key_matter_there_but_they_do_for_metrics_elsewhere(
    tmp_path: Path,
) -> None:
    keys = Keys(use="required", file=str(tmp_path / "keys"))
    async with FaultServer([serve(HI)]) as server:
        daemon = Daemon(
            Configuration(
                accounts={"work": Account("work", StaticSource(Secret("t")))},
                routes=(parse_route("/", server.url, "work"),),
                listen=PROBED,
                keys=replace(keys, use="off"),
            )
        )
        await daemon.start()
        try:
            origin = "Origin: http://evil.test\r\n"
            assert (await ask(daemon.probes_port, "/metrics", fields=origin))[0] == 200
            close = "Connection: close\r\n"
            assert (await ask(daemon.port, "/-/metrics", fields=close))[0] == 421
            request = (
                f"GET /-/metrics HTTP/1.1\r\nHost: localhost:{daemon.port}\r\n{origin}{close}\r\n".encode()
            )
            assert (await talk(daemon.port, request)).startswith(b"HTTP/1.1 403 ")
        finally:
            await daemon.stop(0)


async def test_clients_that_hold_all_connections_keep_no_probe_away_and_probes_no_client() -> None:
    async with probed(Limits(connections=1)) as daemon, AsyncExitStack() as stack:
        await stack.enter_async_context(connected(daemon))
        await readiness(daemon, 200)  # after some turns of the loop
        assert (await ask(daemon.probes_port, "/livez"))[0] == 200
        assert (await talk(daemon.port, b"")).startswith(b"HTTP/1.1 503 ")
    async with probed() as daemon, AsyncExitStack() as stack:
        for _ in range(CONNECTIONS + 3):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.probes_port)))
            sock.setblocking(False)
        client = await stack.enter_async_context(connected(daemon))
        client.write("GET / HTTP/1.1")
        await client.exactly(HI)


@pytest.mark.parametrize("sent", [b"", b"GET /livez HT"])
async def test_who_says_nothing_there_is_shown_out(sent: bytes) -> None:
    async def look() -> None:
        """Nothing to see."""

    def read_nothing() -> Readings:
        raise AssertionError

    health = Health(Store(look, FakeClock()), lambda: True, lambda: False)
    (sock,) = open_sockets(("127.0.0.1",), 0)
    server = ProbeServer(
        Probes(health, MetricsPage(Meters(), read_nothing)), Limits(header_read_s=0.2, keep_alive_s=0.2)
    )
    await server.listen([sock])
    try:
        answer = await talk(sock.getsockname()[1], sent)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
    finally:
        await server.aclose()


async def test_an_address_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=f"listen.probes: {port} on 127.0.0.1 is in use by another program"
        ):
            async with running("http://127.0.0.1:9", listen=replace(PROBED, probes=("127.0.0.1", port))):
                raise AssertionError


async def test_without_a_setting_there_is_no_such_address() -> None:
    async with running("http://127.0.0.1:9") as daemon:
        assert daemon.probes_port == 0


# ---------------------------------------------------------------- the setting

TEXT: Final = '[accounts.work]\ntoken = "t"\n[routes."/"]\nupstream = "https://api.example.com"\n[listen]\n'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('probes = "localhost:9450"', "is not an address"),
        ('probes = "127.0.0.1"', "no address with a port"),
        ('probes = ":9450"', "is not an address"),
        ('probes = "127.0.0.1:99999"', "no address with a port"),
        ('probes = "::1:9450"', r"write it like \[::1\]:9450"),
        ('probes = "[127.0.0.1]:9450"', r"write it like \[::1\]:9450"),
        ('probes = "127.0.0.1:6750"', "has the port of listen.port"),
        ('probes = "0.0.0.0:9450"', "probes_remote = true"),
        ('probes = "[::]:9450"\nremote = true', "probes_remote = true"),
        ("probes_remote = true", "means nothing without listen.probes"),
    ],
)
def test_a_setting_that_is_refused(tmp_path: Path, line: str, problem: str) -> None:
    file = tmp_path / "bearerd.toml"
    file.write_text(TEXT + line)
    with pytest.raises(ConfigError, match=problem) as caught:
        load(file, {}, {})
    assert not isinstance(caught.value, NotConfigured)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('probes = "127.0.0.1:9450"', ("127.0.0.1", 9450)),
        ('probes = "[0:0::1]:09450"', ("::1", 9450)),
        ('probes = "0.0.0.0:9450"\nprobes_remote = true', ("0.0.0.0", 9450)),
    ],
)
def test_a_setting_that_is_taken(tmp_path: Path, line: str, expected: tuple[str, int]) -> None:
    file = tmp_path / "bearerd.toml"
    file.write_text(TEXT + line)
    assert load(file, {}, {}).configuration.listen.probes == expected
