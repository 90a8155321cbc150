"""Traces, as a collector gets them over a socket; and collectors that fail, which harm no call."""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_ON,
    ParentBased,
    Sampler,
    TraceIdRatioBased,
)
from structlog.testing import capture_logs

from bearerd.core.accounts import CommandSource, FileSource
from bearerd.core.configuration import Logging
from bearerd.core.lifecycle import (
    Active,
    Failure,
    FailureKind,
    InFlight,
    LoginFailed,
    LoginPending,
    LoginStarted,
    NoToken,
    RefreshFailed,
    TokenStored,
)
from bearerd.core.redaction import MASK, Secret
from bearerd.core.spans import Span
from bearerd.core.tokens import TokenSet
from bearerd.core.traces import TraceContext
from bearerd.errors import ConfigError, TokenError
from bearerd.forward.observed import ObservedForwarder
from bearerd.telemetry import LIMIT, Telemetry, find_endpoint, open_telemetry
from bearerd.tracing import Tracer
from callers import ANOTHER, STATIC, Client, connected, running, warm
from clocks import FakeClock
from collectors import Sent, spans_of
from faults import FaultServer, Step, hang, read, refused_port, repeat, reply, reset, send, serve
from patience import within

HI: Final = reply(b"hi")
NO: Final = reply(b"no", "401 Unauthorized")
TAKEN: Final = reply(b"")
TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT: Final = "00f067aa0ba902b7"
PARENT: Final = f"traceparent: 00-{TRACE}-{CLIENT}-01"
NOW: Final = 1_700_000_000.0


class World:
    """A traced daemon between `upstream` and `collector`, and a client of it."""

    def __init__(self, client: Client, upstream: FaultServer, collector: FaultServer) -> None:
        self.client = client
        self.upstream = upstream
        self.collector = collector

    def spans(self) -> list[Sent]:
        """All that there are, once the daemon has ended; without those of the account's first token."""
        found = spans_of(self.collector.requests)
        first = next(span for span in found if span.name == "token refresh")
        return [span for span in found if span is not first]

    def told(self) -> list[str | None]:
        """The trace contexts that the upstream has got."""
        found = [re.search(r"(?i)\r\ntraceparent: (.*?)\r\n", raw.decode()) for raw in self.upstream.requests]
        return [match and match[1] for match in found]


def traces(collector: str) -> Logging:
    return Logging(access=False, traces=True, traces_endpoint=f"{collector}/v1/traces")


@asynccontextmanager
async def traced(*scripts: Sequence[Step], kept: bool = False, **of: Any) -> AsyncIterator[World]:
    """When the context ends, all has been sent."""
    async with FaultServer(*scripts) as upstream, FaultServer([serve(TAKEN)]) as collector:
        log = traces(collector.url)
        async with running(upstream.url, source=of.pop("source", STATIC), log=log, **of) as daemon:
            if kept:
                await warm(daemon)
            with suppress(TokenError):
                await daemon._regime.managers["work"].token()
            async with connected(daemon) as client:
                yield World(client, upstream, collector)


async def until_true(condition: Callable[[], bool]) -> None:
    async with within(10):
        while not condition():  # noqa: ASYNC110  # there is nothing that would tell
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------- collectors that fail


async def endless(peer: Any) -> None:
    await read(peer)
    await send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")(peer)
    await repeat(b"x" * 65536, 1_000)(peer)


FAILING: Final[dict[str, Sequence[Step]]] = {
    "hangs": [hang],
    "resets": [reset],
    "refuses": [serve(reply(b"", "500 No"))],
    "leads elsewhere": [serve(reply(b"", "307 Elsewhere", "Location: /elsewhere"))],
    "is no HTTP": [read, send(b"nonsense\r\n\r\n")],
    "has no end": [endless],
}


@pytest.mark.threat(10)
async def test_a_collector_that_fails_harms_no_call() -> None:
    """Nor the end of the daemon, and what is lost is counted. All of them at once: each takes as long as it may."""
    with capture_logs() as said:
        await asyncio.gather(fail_at(refused_port()), *(fail(script) for script in FAILING.values()))
    events = [entry["event"] for entry in said]
    assert not {"traces.defect", "request.defect", "library.message"} & set(events)
    # The first token's, and of each call two. The collector that has no end has taken them.
    assert [entry["lost"] for entry in said if entry["event"] == "traces.incomplete"] == [7] * len(FAILING)


async def fail(script: Sequence[Step]) -> None:
    async with FaultServer(script) as collector:
        await fail_at(collector.port)
        assert collector.connections
        assert not any(b"elsewhere" in request for request in collector.requests)


async def fail_at(collector: int) -> None:
    log = traces(f"http://127.0.0.1:{collector}")
    async with (
        FaultServer([serve(HI)]) as upstream,
        running(upstream.url, log=log) as daemon,
        connected(daemon) as client,
    ):
        for _ in range(3):
            client.write("GET / HTTP/1.1")
            assert (await client.answer()).endswith(b"hi")


class Fake:
    """An exporter that is `let_go` before it says whether it has taken something."""

    def __init__(self, *, taken: bool = True, held: bool = False, problem: Exception | None = None) -> None:
        self.let_go = threading.Event()
        if not held:
            self.let_go.set()
        self.taken = taken
        self.problem = problem
        self.spans: list[Span] = []
        self.shut = False

    def export(self, spans: Sequence[Span]) -> bool:
        assert self.let_go.wait(20)
        self.spans += spans
        if self.problem is not None:
            raise self.problem
        return self.taken

    def shutdown(self) -> None:
        self.shut = True
        self.let_go.set()


def context(number: int = 1) -> TraceContext:
    return TraceContext(TRACE, f"{number:016x}", 1)


SPAN: Final = Span("x", "internal", context(), None, NOW, NOW + 1, {})


async def test_calls_never_wait_and_what_there_is_no_room_for_is_counted() -> None:
    exporter = Fake(held=True)
    subject = Telemetry(exporter, ALWAYS_ON, gather_s=0)
    for _ in range(LIMIT * 2):
        subject.take(SPAN)
    assert LIMIT - 600 < subject.lost <= LIMIT
    with capture_logs() as said:
        exporter.let_go.set()
        await subject.aclose()
    assert exporter.shut
    assert len(exporter.spans) + subject.lost == LIMIT * 2
    assert [entry["event"] for entry in said] == ["traces.incomplete"]
    subject.take(SPAN)
    assert len(exporter.spans) + subject.lost == LIMIT * 2 + 1


async def test_an_exporter_that_hangs_is_left_behind() -> None:
    exporter = Fake(held=True)
    subject = Telemetry(exporter, ALWAYS_ON, gather_s=0, close_s=0.1)
    subject.take(SPAN)
    async with asyncio.timeout(15):
        await subject.aclose()
    assert exporter.shut


async def test_a_failure_is_said_once_and_its_end_too() -> None:
    exporter = Fake(taken=False)
    subject = Telemetry(exporter, ALWAYS_ON, gather_s=0)
    with capture_logs() as said:
        for count in (1, 2):
            subject.take(SPAN)
            await until_true(lambda count=count: subject.lost == count)  # type: ignore[misc]
        exporter.taken = True
        subject.take(SPAN)
        await until_true(lambda: len(said) == 2)
        exporter.problem = ValueError("s3cret")
        subject.take(SPAN)
        await until_true(lambda: len(said) == 4)
        await subject.aclose()
    assert [entry["event"] for entry in said] == [
        "traces.failed",
        "traces.recovered",
        "traces.defect",
        "traces.failed",
        "traces.incomplete",
    ]
    assert said[1]["lost"] == 2
    assert "s3cret" not in str(said)


async def test_what_is_given_last_is_sent() -> None:
    exporter = Fake()
    subject = Telemetry(exporter, ALWAYS_ON, gather_s=60)
    subject.take(SPAN)
    await subject.aclose()
    assert len(exporter.spans) == 1


async def test_nothing_runs_where_nothing_is_recorded() -> None:
    subject = Telemetry(Fake(), ALWAYS_ON)
    await subject.aclose()
    assert not [thread for thread in threading.enumerate() if thread.name == "bearerd-traces"]


@pytest.mark.parametrize("parent", [None, TraceContext(TRACE, CLIENT, 0), TraceContext(TRACE, CLIENT, 1)])
@pytest.mark.parametrize(
    "sampler", [DEFAULT_ON, ParentBased(ALWAYS_ON), ALWAYS_ON, ALWAYS_OFF, TraceIdRatioBased(0.0)]
)
def test_the_sampler_is_the_librarys(sampler: Sampler, parent: TraceContext | None) -> None:
    follows = isinstance(sampler, ParentBased)
    wanted = parent is None or parent.sampled if follows else sampler is ALWAYS_ON
    assert Telemetry(Fake(), sampler).wants(parent, TRACE) == wanted


# ---------------------------------------------------------------- where spans go


@pytest.mark.parametrize(
    ("given", "environ", "endpoint"),
    [
        ("", {}, "http://localhost:4318/v1/traces"),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, "http://127.0.0.1:1/v1/traces"),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1]:1/a/"}, "http://[::1]:1/a/v1/traces"),
        (
            "",
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:2/b",
            },
            "http://localhost:2/b",
        ),
        (
            "https://far.example/x",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://evil.test"},
            "https://far.example/x",
        ),
    ],
)
def test_where_spans_go(given: str, environ: dict[str, str], endpoint: str) -> None:
    assert find_endpoint(given, environ) == endpoint


@pytest.mark.threat(9)
@pytest.mark.parametrize("url", ["https://collector.example", "http://127.evil.test", "http://10.0.0.1:4318"])
@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_no_variable_alone_sends_them_to_another_machine(variable: str, url: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable} leads to another machine.*log.traces_endpoint"):
        find_endpoint("", {variable: url})


def test_a_variable_that_is_no_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_ENDPOINT: is no http or https URL"):
        open_telemetry(Logging(traces=True), {"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4317"})


def test_without_the_extra_the_start_ends_with_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from bearerd.core.configuration import Logging\n"
        "from bearerd.telemetry import open_telemetry\n"
        "open_telemetry(Logging(traces=True), {})\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'bearerd[otel]'" in ended.stderr


@pytest.mark.threat(9)
async def test_neither_a_proxy_nor_a_password_of_the_environment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{refused_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue")
    async with traced([serve(HI)]) as world:
        world.client.write("GET / HTTP/1.1")
        await world.client.answer()
    assert world.collector.requests
    head = world.collector.requests[0].partition(b"\r\n\r\n")[0].lower()
    assert b"\r\nx-team: blue" in head
    assert b"authorization" not in head


# ---------------------------------------------------------------- a trace


@pytest.mark.threat(9)
@pytest.mark.parametrize("kept", [False, True], ids=["ordinary", "direct"])
async def test_one_trace_shows_call_401_refresh_and_replay_in_order(kept: bool) -> None:
    """And the upstream is told of the same trace, each time by the span of that very attempt."""
    async with traced([serve(NO, HI)], kept=kept, source=ANOTHER) as world:
        world.client.write("GET /a/b?code=s3cret HTTP/1.1", PARENT, "tracestate: a=b")
        assert (await world.client.answer()).endswith(b"hi")
    call, refused, wait, refresh, replay = world.spans()
    assert [span.name for span in (call, refused, wait, refresh, replay)] == [
        "GET /",
        "GET",
        "token wait",
        "token refresh",
        "GET",
    ]
    assert [span.kind for span in (call, refused, wait, refresh, replay)] == [
        *("server", "client", "internal", "internal", "client")
    ]
    assert {span.trace_id for span in world.spans()} == {TRACE}
    assert call.parent_id == CLIENT
    assert {refused.parent_id, wait.parent_id, replay.parent_id} == {call.span_id}
    assert refresh.parent_id == wait.span_id
    assert call.began_at <= refused.began_at <= refused.ended_at <= wait.began_at <= refresh.began_at
    assert refresh.ended_at <= replay.began_at <= replay.ended_at <= call.ended_at
    assert wait.ended_at <= replay.began_at
    assert world.told() == [f"00-{TRACE}-{span.span_id}-01" for span in (refused, replay)]
    assert all(b"\r\ntracestate: a=b\r\n" in request for request in world.upstream.requests)
    assert (refused.attributes["http.response.status_code"], refused.attributes["error.type"]) == (401, "401")
    assert replay.attributes["http.request.resend_count"] == 1
    assert replay.attributes["server.port"] == world.upstream.port
    assert refresh.attributes.items() >= {"bearerd.result": "refreshed", "bearerd.generation": 2}.items()
    assert [span.failed for span in world.spans()] == [False, True, False, False, False]
    expected = {
        "http.request.method": "GET",
        "http.route": "/",
        "url.path": "/a/b",
        "http.response.status_code": 200,
        "bearerd.account": "work",
        "bearerd.replayed": True,
    }
    assert call.attributes.items() >= expected.items()
    sent = b"".join(world.collector.requests)
    tokens = [re.search(rb"Bearer (\S+)", request) for request in world.upstream.requests]
    assert b"s3cret" not in sent
    assert b"Bearer" not in sent
    assert len({token and token[1] for token in tokens}) == 2


@pytest.mark.threat(9)
async def test_a_secret_in_a_path_is_in_no_span() -> None:
    async with traced([serve(HI)]) as world:
        world.client.write("GET /a/api_key=s3cret/b HTTP/1.1", "X-Api-Key: s3cret", "Cookie: a=s3cret")
        await world.client.answer()
    assert world.spans()[0].attributes["url.path"] == f"/a/api_key={MASK}"
    assert b"s3cret" not in b"".join(world.collector.requests)


@pytest.mark.parametrize("kept", [False, True], ids=["ordinary", "direct"])
@pytest.mark.parametrize(
    "fields", [(), ("traceparent: 00-nonsense", "TraceState: a=b"), (PARENT, PARENT, "tracestate: a=b")]
)
async def test_a_call_without_a_valid_trace_begins_one(kept: bool, fields: tuple[str, ...]) -> None:
    async with traced([serve(HI)], kept=kept) as world:
        world.client.write("GET / HTTP/1.1", *fields)
        await world.client.answer()
    call, sending = world.spans()
    assert call.parent_id == ""
    assert call.trace_id == sending.trace_id not in {TRACE, "0" * 32}
    assert world.told() == [f"00-{call.trace_id}-{sending.span_id}-03"]
    assert b"tracestate" not in world.upstream.requests[0].lower()
    assert world.upstream.requests[0].lower().count(b"traceparent") == 1


@pytest.mark.parametrize("kept", [False, True], ids=["ordinary", "direct"])
async def test_what_the_client_does_not_record_is_not_recorded_here(kept: bool) -> None:
    fields = (f"TraceParent: 00-{TRACE}-{CLIENT}-00", "tracestate: a=b")
    async with traced([serve(HI)], kept=kept) as world:
        world.client.write("GET / HTTP/1.1", *fields)
        await world.client.answer()
    assert world.spans() == []
    lines = world.upstream.requests[0].decode().split("\r\n")
    assert [line for line in lines if line.lower().startswith("trace")] == list(fields)


async def test_the_standard_variables_say_what_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with traced([serve(HI)]) as world:
        world.client.write("GET / HTTP/1.1", PARENT)
        await world.client.answer()
    assert world.collector.requests == []
    assert world.told() == [PARENT.partition(": ")[2]]


async def test_a_call_that_gets_no_token_shows_why(tmp_path: Path) -> None:
    async with traced([hang], source=FileSource(str(tmp_path / "none"))) as world:
        world.client.write("DELETE / HTTP/1.1")
        assert (await world.client.problem())[0] == 503
    spans = spans_of(world.collector.requests)
    call = next(span for span in spans if span.kind == "server")
    wait = next(span for span in spans if span.name == "token wait")
    failed = [span for span in spans if span.name == "token refresh"]
    assert call.attributes["bearerd.problem"] == call.attributes["error.type"] == "token_unavailable"
    assert wait.attributes["error.type"] == "token_unavailable"
    assert {span.attributes["error.type"] for span in failed} == {"transient"}
    assert all(span.failed for span in (call, wait, *failed))


async def test_an_upstream_that_is_not_there() -> None:
    async with FaultServer([serve(TAKEN)]) as collector:
        log = traces(collector.url)
        async with (
            running(f"http://127.0.0.1:{refused_port()}", log=log) as daemon,
            connected(daemon) as client,
        ):
            client.write("PROPFIND / HTTP/1.1")
            assert (await client.problem())[0] == 502
    call, sending = (span for span in spans_of(collector.requests) if span.name != "token refresh")
    assert call.name == "_OTHER /"
    assert sending.attributes["error.type"] == call.attributes["error.type"] == "upstream_broken"


@pytest.mark.parametrize("kept", [False, True], ids=["ordinary", "direct"])
async def test_a_client_that_leaves(kept: bool) -> None:
    async with traced([read, hang], kept=kept) as world:
        world.client.write("GET / HTTP/1.1")
        await until_true(lambda: bool(world.upstream.requests))
        world.client.writer.transport.abort()
        await until_true(lambda: any(peer.gone.is_set() for peer in world.upstream.peers))
    call, sending = world.spans()
    assert (call.attributes["error.type"], sending.attributes["error.type"]) == ("client", "cancelled")


async def test_what_is_refused_shows_why() -> None:
    async with traced([hang]) as world:
        world.client.write("GET /?access_token=x HTTP/1.1")
        assert (await world.client.problem())[0] == 403
    (call,) = world.spans()
    assert (call.attributes["bearerd.problem"], call.failed) == ("token_in_query", False)


async def test_calls_that_wait_for_a_refresh_of_anothers_are_linked_to_it(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    held = CommandSource(("sh", "-c", f"until [ -e '{gate}' ]; do sleep 0.05; done; echo $$"), 30)
    async with (
        FaultServer([serve(NO, HI)], [serve(HI)]) as upstream,
        FaultServer([serve(TAKEN)]) as collector,
        running(upstream.url, source=held, log=traces(collector.url)) as daemon,
    ):
        manager = daemon._regime.managers["work"]
        await manager.token()
        gate.unlink()
        async with connected(daemon) as first, connected(daemon) as second:
            for waiting, client in enumerate([first, second]):
                client.write("GET / HTTP/1.1")
                await until_true(lambda waiting=waiting: len(manager._waiters) > waiting)  # type: ignore[misc]
            gate.touch()
            for client in (first, second):
                assert (await client.answer()).endswith(b"hi")
        await until_true(lambda: len(spans_of(collector.requests)) == 9)
    spans = spans_of(collector.requests)
    refresh = [span for span in spans if span.name == "token refresh"][1]
    waits = [span for span in spans if span.name == "token wait"]
    assert (refresh.trace_id, refresh.parent_id) == (waits[0].trace_id, waits[0].span_id)
    assert refresh.links == ((waits[1].trace_id, waits[1].span_id),)


async def test_without_it_calls_are_observed_at_most() -> None:
    async with running("http://127.0.0.1:1") as daemon:
        assert type(daemon._front._forwarder) is ObservedForwarder


# ---------------------------------------------------------------- accounts


class Kept:
    """A sink that has all that it wants."""

    def __init__(self, *, wanted: bool = True) -> None:
        self.wanted = wanted
        self.spans: list[Span] = []

    def wants(self, parent: TraceContext | None, trace_id: str) -> bool:
        assert parent is None
        assert len(trace_id) == 32
        return self.wanted

    def take(self, span: Span) -> None:
        self.spans.append(span)


TOKEN: Final = TokenSet(3, Secret("t0ken"), NOW, NOW + 100)


@pytest.mark.parametrize(("event", "error"), [(TokenStored(TOKEN), None), (LoginFailed("no"), "failed")])
def test_a_login_lasts_from_its_beginning(event: TokenStored | LoginFailed, error: str | None) -> None:
    sink, clock = Kept(), FakeClock()
    tracer = Tracer(sink, clock)
    pending = LoginPending(None, "x")
    began_at = clock.wall()
    tracer.changed("work", NoToken(), LoginStarted(), pending, ())
    clock.advance(30)
    tracer.changed("work", pending, event, NoToken(), ())
    (span,) = sink.spans
    assert (span.name, span.error, span.began_at, span.ended_at) == ("login", error, began_at, began_at + 30)
    assert span.attributes == {"bearerd.account": "work"}
    tracer.changed("work", pending, event, NoToken(), ())
    assert len(sink.spans) == 1


def test_what_another_process_has_stored_is_no_login() -> None:
    sink = Kept()
    Tracer(sink, FakeClock()).changed("work", NoToken(), TokenStored(TOKEN), NoToken(), ())
    assert sink.spans == []


@pytest.mark.parametrize("wanted", [False, True])
def test_a_refresh_that_nobody_waits_for_is_a_trace_of_its_own(wanted: bool) -> None:
    sink, clock = Kept(wanted=wanted), FakeClock()
    before = Active(TOKEN, phase=InFlight(clock.wall() - 2, 3))
    failed = RefreshFailed(Failure(FailureKind.TRANSIENT, "s3cret"), 3)
    Tracer(sink, clock).changed("work", before, failed, Active(TOKEN), ())
    assert len(sink.spans) == wanted
    for span in sink.spans:
        assert (span.parent, span.links, span.error) == (None, (), "transient")
        assert span.ended_at - span.began_at == 2
        assert "s3cret" not in str(span)
