"""Each metric there is moves by what it is said to be about, over real sockets, and is in the documentation."""

import asyncio
import inspect
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from prometheus_client.core import Metric

from bearerd import __version__
from bearerd.core.accounts import Account, CommandSource, Grant, OAuthSource, Source
from bearerd.core.configuration import Configuration, Limits, Listen, Logging, Store
from bearerd.core.redaction import Secret
from bearerd.core.targets import parse_route
from bearerd.daemon import Daemon
from bearerd.errors import ConfigError
from bearerd.settings import Loaded
from callers import ANOTHER, STATIC, connected, running
from faults import FaultServer, hang, read, refused_port, reply, reset, send, serve, talk, until
from patience import within
from scrapes import OPENMETRICS, Samples, parse, read_samples, samples_of, scrape

DOCUMENT: Final = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")
HI: Final = reply(b"hi")
NO: Final = reply(b"no", "401 Unauthorized")
CALLS: Final = "{account=work,%sroute=/}"
SWITCH: Final = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
ASK: Final = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)
MOVED_BY: Final[dict[str, Callable[..., Awaitable[None]]]] = {}
"""The test of each family of ours."""
MOVED_ELSEWHERE: Final = {
    "bearerd_token_unsaved": (
        "test_full_disk.py",
        "test_a_lender_that_dies_unsaved_costs_a_login_once_what_it_lent_has_ended",
    ),
    "bearerd_log_lines_lost": ("test_outlet.py", "test_a_log_that_nobody_reads_stops_no_call_nor_the_end"),
}
"""Those that it takes more to move than there is here."""

Test = Callable[..., Awaitable[None]]


def moves(*families: str) -> Callable[[Test], Test]:
    """Marks a test of these families."""

    def mark(test: Test) -> Test:
        MOVED_BY.update(dict.fromkeys(families, test))
        return test

    return mark


async def until_sample(daemon: Daemon, name: str, value: float) -> Samples:
    """The samples once this one is so."""
    async with within(15):
        while (samples := await read_samples(daemon)).get(name) != value:  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.02)
    return samples


async def no_client(daemon: Daemon) -> None:
    assert daemon._server is not None
    async with within(15):
        while daemon._server.served:  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def alone(source: Source, store: Store | None = None) -> AsyncIterator[Daemon]:
    """A daemon with that account, whatever becomes of it."""
    daemon = Daemon(
        Configuration(
            accounts={"work": Account("work", source)},
            routes=(parse_route("/", "http://127.0.0.1:9", "work"),),
            listen=Listen(hosts=("127.0.0.1",), port=0),
            store=store or Store(kind="memory"),
        )
    )
    await daemon.start()
    try:
        yield daemon
    finally:
        await daemon.stop(0)


# ---------------------------------------------------------------- what each is about


@moves("bearerd_build_info", "bearerd_ready")
async def test_what_it_is() -> None:
    async with running("http://127.0.0.1:9") as daemon:
        samples = await until_sample(daemon, "bearerd_ready{}", 1)
        version = sys.version.split(" ", maxsplit=1)[0]
        assert samples[f"bearerd_build_info{{python={version},version={__version__}}}"] == 1
        daemon.health.draining = True
        assert (await read_samples(daemon))["bearerd_ready{}"] == 0


@moves("bearerd_requests", "bearerd_request_duration_seconds")
async def test_calls_by_their_class_and_how_long_they_take() -> None:
    answers = [HI, reply(b"", "302 Found"), reply(b"", "404 No"), reply(b"", "500 No")]
    async with (
        FaultServer([serve(*answers)]) as server,
        running(server.url) as daemon,
        connected(daemon) as client,
    ):
        for _ in range(5):
            client.write("GET / HTTP/1.1")
            await client.answer()
        samples = await until_sample(daemon, "bearerd_request_duration_seconds_count" + CALLS % "", 5)
        counts = {code: samples["bearerd_requests_total" + CALLS % f"code={code},"] for code in CLASSES}
        assert counts == {"none": 0, "1xx": 0, "2xx": 1, "3xx": 1, "4xx": 1, "5xx": 2}
        assert 0 < samples["bearerd_request_duration_seconds_sum" + CALLS % ""] < 60
        assert samples["bearerd_request_duration_seconds_bucket" + CALLS % "le=+Inf,"] == 5
        assert samples["bearerd_request_duration_seconds_bucket" + CALLS % "le=300.0,"] == 5


CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


@moves("bearerd_requests_in_flight", "bearerd_streams", "bearerd_tunnels", "bearerd_connections")
async def test_what_is_open_now() -> None:
    stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    async with (
        FaultServer([read, send(stream), hang], [read, send(SWITCH), hang], [read, hang]) as server,
        running(server.url) as daemon,
    ):
        names = ("requests_in_flight{}", "streams" + CALLS % "", "tunnels" + CALLS % "")
        assert [(await read_samples(daemon))[f"bearerd_{name}"] for name in names] == [0, 0, 0]
        async with connected(daemon) as one, connected(daemon) as two, connected(daemon) as three:
            one.write("GET / HTTP/1.1")
            await one.head()
            two.write("GET / HTTP/1.1", *ASK)
            await two.head()
            three.write("GET / HTTP/1.1")
            samples = await until_sample(daemon, "bearerd_requests_in_flight{}", 3)
            assert [samples[f"bearerd_{name}"] for name in names] == [3, 1, 1]
            assert samples["bearerd_connections{}"] == 4  # with that of the scrape
        samples = await until_sample(daemon, "bearerd_connections{}", 1)
        assert [samples[f"bearerd_{name}"] for name in names] == [0, 0, 0]


@moves("bearerd_upstream_errors")
async def test_upstreams_that_fail() -> None:
    async with (
        FaultServer(
            [read, reset], [read, send(b"no HTTP\r\n\r\n"), hang], [read, send(HI[:-1])], [read, hang]
        ) as server,
        running(server.url, response_idle_s=0.1) as daemon,
    ):
        for _ in range(4):
            body = b"POST / HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"
            try:
                await talk(daemon.port, body % daemon.port)
            except ConnectionResetError:
                """Of the answer that was cut short."""
        samples = await until_sample(daemon, "bearerd_upstream_errors_total" + CALLS % "kind=timeout,", 1)
        for kind in ("closed", "invalid", "cut_short"):
            assert samples["bearerd_upstream_errors_total" + CALLS % f"kind={kind},"] == 1
        assert samples["bearerd_upstream_errors_total" + CALLS % "kind=unreachable,"] == 0
    async with running(f"http://127.0.0.1:{refused_port()}") as daemon, connected(daemon) as client:
        client.write("GET / HTTP/1.1")
        await client.answer()
        await until_sample(daemon, "bearerd_upstream_errors_total" + CALLS % "kind=unreachable,", 1)


@moves("bearerd_replays", "bearerd_token_refreshes", "bearerd_refresh_lock_wait_seconds")
async def test_a_token_that_is_refused_and_replaced() -> None:
    async with (
        FaultServer([serve(NO, HI, NO, NO)]) as server,
        running(server.url, source=ANOTHER) as daemon,
        connected(daemon) as client,
    ):
        refreshed = "bearerd_token_refreshes_total{account=work,result=succeeded}"
        await until_sample(daemon, refreshed, 1)
        for _ in range(2):
            client.write("GET / HTTP/1.1")
            await client.answer()
        samples = await until_sample(daemon, "bearerd_replays_total" + CALLS % "result=rejected,", 1)
        assert samples["bearerd_replays_total" + CALLS % "result=accepted,"] == 1
        assert samples[refreshed] == 3
        assert samples["bearerd_refresh_lock_wait_seconds_count{account=work}"] == 3


async def test_a_refresh_that_fails() -> None:
    async with alone(CommandSource(("sh", "-c", "exit 1"), 30)) as daemon:
        failed = "bearerd_token_refreshes_total{account=work,result=transient}"
        async with within(15):
            # The next failure may be there as soon as this one.
            while not (await read_samples(daemon)).get(failed):  # noqa: ASYNC110  # no event
                await asyncio.sleep(0.02)


@moves("bearerd_login_required", "bearerd_token_expiry_timestamp_seconds")
async def test_the_state_of_accounts() -> None:
    person = OAuthSource(
        Grant.AUTHORIZATION_CODE,
        "client",
        authorization_endpoint="https://login.example.com/a",
        token_endpoint="https://login.example.com/t",
    )
    async with alone(person) as daemon:
        await daemon.started()
        samples = await until_sample(daemon, "bearerd_login_required{account=work}", 1)
        assert "bearerd_token_expiry_timestamp_seconds{account=work}" not in samples
    async with running("http://127.0.0.1:9", source=STATIC) as daemon:
        await daemon.started()
        samples = await until_sample(daemon, "bearerd_login_required{account=work}", 0)
        left_s = samples["bearerd_token_expiry_timestamp_seconds{account=work}"] - time.time()
        assert 60 < left_s < 366 * 86_400


@moves(
    "bearerd_requests_refused",
    "bearerd_connections_accepted",
    "bearerd_connections_refused",
    "bearerd_connections_limit",
)
async def test_what_is_not_let_in() -> None:
    async with (
        FaultServer([serve(HI)]) as server,
        running(server.url, limits=Limits(connections=2)) as daemon,
    ):
        async with connected(daemon) as one, connected(daemon) as two:
            for client in (one, two):
                client.write("GET / HTTP/1.1", "Origin: http://evil.test")
                assert (await client.problem())[0] == 403
            assert (await talk(daemon.port, b"")).startswith(b"HTTP/1.1 503 ")
        await no_client(daemon)
        assert (await talk(daemon.port, b"no HTTP\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        samples = await read_samples(daemon)
        assert samples["bearerd_requests_refused_total{reason=origin_refused}"] == 2
        assert samples["bearerd_requests_refused_total{reason=bad_request}"] == 1
        assert samples["bearerd_connections_refused_total{reason=too_many_connections}"] == 1
        assert samples["bearerd_connections_accepted_total{}"] == 4
        assert samples["bearerd_connections_limit{}"] == 2


@moves("bearerd_spool_bytes", "bearerd_spool_limit_bytes")
async def test_bodies_that_are_kept() -> None:
    answer = asyncio.Event()
    limits = Limits(replay_body=10, replay_total=100, spool_body=50_000, spool_total=500_000)
    async with (
        FaultServer([read, until(answer), send(HI), hang]) as server,
        running(server.url, limits=limits, disk_spool=True) as daemon,
        connected(daemon) as small,
        connected(daemon) as large,
    ):
        small.write("POST / HTTP/1.1", "Content-Length: 5", body=b"small")
        await until_sample(daemon, "bearerd_spool_bytes{medium=memory}", 5)
        large.write("POST / HTTP/1.1", "Content-Length: 40000", body=b"x" * 40_000)
        samples = await until_sample(daemon, "bearerd_spool_bytes{medium=disk}", 40_000)
        assert samples["bearerd_spool_limit_bytes{medium=memory}"] == 100
        assert samples["bearerd_spool_limit_bytes{medium=disk}"] == 500_000
        answer.set()
        await until_sample(daemon, "bearerd_spool_bytes{medium=disk}", 0)
        await until_sample(daemon, "bearerd_spool_bytes{medium=memory}", 0)


@moves("bearerd_audit_lines_lost")
async def test_lines_of_the_audit_log_that_are_lost(tmp_path: Path) -> None:
    log = Logging(audit=str(tmp_path / "audit"))
    async with (
        FaultServer([serve(HI)]) as server,
        running(server.url, log=log) as daemon,
        connected(daemon) as client,
    ):
        assert (await read_samples(daemon))["bearerd_audit_lines_lost_total{}"] == 0
        audit = daemon._regime.audit
        assert audit is not None
        audit._room = -1  # as if 4 MiB of lines waited for a disk
        client.write("GET / HTTP/1.1")
        await client.answer()
        await until_sample(daemon, "bearerd_audit_lines_lost_total{}", 1)


@moves(
    "bearerd_config_reloads",
    "bearerd_config_last_reload_successful",
    "bearerd_config_last_reload_success_timestamp_seconds",
)
async def test_readings_of_the_configuration_and_what_they_leave_as_it_is() -> None:
    stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    before = time.time()
    async with FaultServer([read, send(stream), hang], [serve(HI)]) as server:
        first = Configuration(
            accounts={"work": Account("work", STATIC)},
            routes=(parse_route("/", server.url, "work"),),
            listen=Listen(hosts=("127.0.0.1",), port=0),
        )
        following = [first, replace(first, routes=(parse_route("/", f"{server.url}/v2", "work"),))]

        def reread() -> Loaded:
            if not following:
                raise ConfigError("a file that is no good")
            return Loaded(following.pop(), None, (), ())

        daemon = Daemon(first, reread=reread)
        await daemon.start()
        try:
            samples = await read_samples(daemon)
            began = samples["bearerd_config_last_reload_success_timestamp_seconds{}"]
            assert before <= began <= time.time()
            assert samples["bearerd_config_last_reload_successful{}"] == 1
            async with connected(daemon) as listener, connected(daemon) as client:
                listener.write("GET / HTTP/1.1")
                await listener.head()
                await daemon.reload()
                client.write("GET / HTTP/1.1")
                await client.exactly(HI)
                samples = await until_sample(daemon, "bearerd_requests_total" + CALLS % "code=2xx,", 1)
                assert samples["bearerd_requests_in_flight{}"] == 1
                assert samples["bearerd_streams" + CALLS % ""] == 1
                assert samples["bearerd_config_reloads_total{result=accepted}"] == 1
                accepted = samples["bearerd_config_last_reload_success_timestamp_seconds{}"]
                assert accepted > began
                following.clear()
                await daemon.reload()
            samples = await until_sample(daemon, "bearerd_requests_in_flight{}", 0)
            assert samples["bearerd_requests_total" + CALLS % "code=2xx,"] == 1
            assert samples["bearerd_requests_total" + CALLS % "code=none,"] == 1
            assert samples["bearerd_config_last_reload_successful{}"] == 0
            assert samples["bearerd_config_last_reload_success_timestamp_seconds{}"] == accepted
            assert samples["bearerd_config_reloads_total{result=refused}"] == 1
        finally:
            await daemon.stop(0)


# ---------------------------------------------------------------- all of them


async def all_families(folder: Path, accept: str = "") -> list[Metric]:
    async with running("http://127.0.0.1:9", log=Logging(audit=str(folder / "audit"))) as daemon:
        return parse(*await scrape(daemon, accept))


async def test_no_metric_without_a_test_and_a_row_in_the_documentation(tmp_path: Path) -> None:
    families = {family.name: family for family in await all_families(tmp_path)}
    ours = {name for name in families if name.startswith("bearerd_")}
    assert ours == set(MOVED_BY) | set(MOVED_ELSEWHERE)
    for name, (file, test) in MOVED_ELSEWHERE.items():
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        assert name in text.partition(f"async def {test}(")[2].partition("\n\n\n")[0]
    assert all(inspect.iscoroutinefunction(test) for test in MOVED_BY.values())
    rows = {
        row[1]: row for row in re.finditer(r"(?m)^\| `(bearerd_\w+)(?:\{([^}]*)\})?` \| (\w+) \| ", DOCUMENT)
    }
    names = {name + "_total" * (family.type == "counter"): family for name, family in families.items()}
    assert all(f"`{name}`" in DOCUMENT for name in names if name not in rows)
    names = {name: family for name, family in names.items() if name.startswith("bearerd_")}
    assert set(rows) == set(names)
    for name, family in names.items():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert rows[name][3] == family.type, name
        if family.samples:
            assert set((rows[name][2] or "").replace(" ", "").split(",")) - {""} == labels, name


@pytest.mark.parametrize(
    "accept", ["", "*/*", OPENMETRICS, "application/openmetrics-text;version=junk\t", "\xff;;=,"]
)
async def test_both_formats_say_the_same_and_hold_to_the_rules(tmp_path: Path, accept: str) -> None:
    """Of OpenMetrics, and of promtool's lint: base units, help, no type in the name."""
    families = await all_families(tmp_path, accept)
    for family in families:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert family.documentation.endswith(".")
        assert not re.search(r"(counter|gauge|histogram|_ms|milli|minutes|_count|_total)$", family.name)
        if re.search(r"(duration|wait|timestamp)", family.name):
            assert family.name.endswith("_seconds")
    plain = samples_of(await all_families(tmp_path))
    assert {name for name in samples_of(families) if name.startswith("bearerd_")} == {
        name for name in plain if name.startswith("bearerd_")
    }


async def test_the_media_type_is_what_was_asked_for() -> None:
    async with running("http://127.0.0.1:9") as daemon:
        assert (await scrape(daemon))[0] == "text/plain; version=0.0.4; charset=utf-8"
        kind, text = await scrape(daemon, OPENMETRICS)
        assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert text.endswith("# EOF\n")


async def test_no_metric_has_anything_of_a_request_or_a_token_in_it() -> None:
    secret = Secret("canary-4711-token")
    source = replace(STATIC, token=secret)
    async with (
        FaultServer([serve(HI)]) as server,
        running(server.url, source=source) as daemon,
        connected(daemon) as client,
    ):
        client.write("GET /canary-4711/path?q=canary-4711 HTTP/1.1", "X-Canary: canary-4711")
        await client.answer()
        client.write("GET /x HTTP/1.1", "Origin: http://canary-4711.test")
        await client.problem()
        for accept in ("", OPENMETRICS):
            assert "canary-4711" not in (await scrape(daemon, accept))[1]


async def test_metrics_by_a_name_that_is_not_ours_or_a_page_elsewhere_are_refused() -> None:
    async with running("http://127.0.0.1:9") as daemon:
        for host, origin, status in (
            ("evil.test", "", 421),
            (f"localhost:{daemon.port}", "http://evil.test", 403),
        ):
            fields = f"Host: {host}\r\nConnection: close\r\n" + (f"Origin: {origin}\r\n" if origin else "")
            answer = await talk(daemon.port, f"GET /-/metrics HTTP/1.1\r\n{fields}\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert b"bearerd_ready" not in answer
