"""Spans to a collector, by OpenTelemetry's protocol over HTTP, beside the event loop.

A thread of its own sends what has gathered. Calls only ever append to a queue that has a limit: what a collector that hangs does not
take is lost, and counted.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from bearerd import __version__
from bearerd.core.configuration import Logging
from bearerd.core.spans import Span, Value
from bearerd.core.targets import parse_origin
from bearerd.core.traces import TraceContext
from bearerd.errors import ConfigError
from bearerd.privacy import frames

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import SpanContext

LIMIT: Final = 4096  # spans that wait
BATCH: Final = 512
GATHER_S: Final = 0.5
CLOSE_S: Final = 2.0  # for a collector that does not answer
_DEFAULT: Final = "http://localhost:4318/v1/traces"
_PLACES: Final = (("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""), ("OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/traces"))


class Exporter(Protocol):
    """What sends spans. For one thread at a time."""

    def export(self, spans: Sequence[Span]) -> bool:
        """Whether the collector has taken them. May take as long as a collector does."""

    def shutdown(self) -> None:
        """Give up what is being sent, as far as that can be."""


class Telemetry:
    """A sink for spans (`tracing.Sink`). `wants` is the sampler's word on a trace that a client has begun, or that begins."""

    def __init__(
        self,
        exporter: Exporter,
        sampler: "Sampler",
        *,
        gather_s: float = GATHER_S,
        close_s: float = CLOSE_S,
    ) -> None:
        self._exporter = exporter
        self.wants = _decide_by(sampler)
        self._gather_s = gather_s
        self._close_s = close_s
        self._waiting: deque[Span] = deque()
        self._some = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = False
        self._under_way = 0
        self._over = False  # what the thread does now is no longer waited for
        self._log = structlog.get_logger("bearerd.telemetry")
        self.lost = 0

    def take(self, span: Span) -> None:
        if len(self._waiting) >= LIMIT or self._closing.is_set():
            self.lost += 1
            return
        self._waiting.append(span)
        if self._thread is None:
            # One that hangs with a collector must not keep the process from its end.
            self._thread = threading.Thread(target=self._run, name="bearerd-traces", daemon=True)
            self._thread.start()
        self._some.set()

    async def aclose(self) -> None:
        """Send what there is, within the time for that."""
        self._closing.set()
        self._some.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, self._close_s)
        self._over = True
        self._exporter.shutdown()
        lost = self.lost + self._under_way + len(self._waiting)
        if lost:
            self._log.warning("traces.incomplete", lost=lost)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._some.wait()
            self._closing.wait(self._gather_s)
            self._some.clear()
            self._send_all()

    def _send_all(self) -> None:
        while self._waiting and not self._over:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._under_way = len(batch)
            try:
                taken = self._exporter.export(batch)
            except Exception as exc:  # noqa: BLE001  # a library's defect must not end the thread
                self._log.error("traces.defect", trace=frames(exc))
                taken = False
            if not self._over:
                self._note(taken=taken)

    def _note(self, *, taken: bool) -> None:
        if not taken:
            self.lost += self._under_way
        self._under_way = 0
        if not taken and not self._failing:
            self._log.warning(
                "traces.failed", because="the collector does not take them; calls go on without"
            )
        elif taken and self._failing:
            self._log.info("traces.recovered", lost=self.lost)
        self._failing = not taken


def open_telemetry(settings: Logging, environ: Mapping[str, str]) -> Telemetry:
    """As the settings and the standard variables say. Raises ConfigError. Takes a moment: it imports much."""
    try:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415  # an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  # likewise
    except ImportError:
        raise ConfigError(
            "log.traces: needs OpenTelemetry; install it with: pip install 'bearerd[otel]'"
        ) from None
    endpoint = find_endpoint(settings.traces_endpoint, environ)
    own = Resource({"service.name": "bearerd", "service.version": __version__})
    # It knows the sampler that OTEL_TRACES_SAMPLER names; nothing else is asked of it.
    sampler = TracerProvider(resource=own, shutdown_on_exit=False).sampler
    for name in ("opentelemetry.exporter", "urllib3"):  # what they have to say is said here, once
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return Telemetry(_Otlp(endpoint, own.merge(OTELResourceDetector().detect())), sampler)


def find_endpoint(given: str, environ: Mapping[str, str]) -> str:
    """Where spans go: what is `given`, else what a standard variable says if that is on this machine. Raises ConfigError."""
    if given:
        return given
    for variable, path in _PLACES:
        found = environ.get(variable)
        if found:
            try:
                origin, _ = parse_origin(found)
            except ValueError:
                raise ConfigError(
                    f"{variable}: is no http or https URL; write it like http://127.0.0.1:4318"
                ) from None
            if not origin.loopback:
                raise ConfigError(
                    f"log.traces: {variable} leads to another machine, {origin.host}; if paths, routes and account names "
                    "may go there, say so with log.traces_endpoint"
                )
            return found.rstrip("/") + path if path else found
    return _DEFAULT


class _Otlp:
    """OpenTelemetry's own exporter, by a session that goes nowhere else and reads no more than it must."""

    def __init__(self, endpoint: str, resource: "Resource") -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # an extra

        self._resource = resource
        self._exporter = OTLPSpanExporter(endpoint=endpoint, session=_build_session())

    def export(self, spans: Sequence[Span]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415  # an extra

        built = [_build_readable(span, self._resource) for span in spans]
        return self._exporter.export(built) is SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _build_session() -> Any:
    import requests  # noqa: PLC0415  # comes with the extra

    class Session(requests.Session):
        """No proxy and no password of the environment's, no redirect, and no body of an answer, however long that is."""

        def request(self, *args: Any, **kwargs: Any) -> requests.Response:
            answer = super().request(*args, **kwargs | {"allow_redirects": False, "stream": True})
            answer.close()
            if answer.is_redirect:
                raise requests.TooManyRedirects("collectors do not send us elsewhere")
            return answer

    session = Session()
    session.trust_env = False
    return session


def _build_readable(span: Span, resource: "Resource") -> "ReadableSpan":
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415  # an extra
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode  # noqa: PLC0415

    error: dict[str, Value] = {} if span.error is None else {"error.type": span.error}
    return ReadableSpan(
        span.name,
        context=_place(span.context),
        parent=None if span.parent is None else _place(span.parent, remote=span.kind == "server"),
        resource=resource,
        attributes={**span.attributes, **error},
        links=[Link(_place(link)) for link in span.links],
        kind=SpanKind[span.kind.upper()],
        status=Status(StatusCode.UNSET if span.error is None else StatusCode.ERROR),
        start_time=round(span.began_at * 1e9),
        end_time=round(span.ended_at * 1e9),
        instrumentation_scope=InstrumentationScope("bearerd", __version__),
    )


def _place(context: TraceContext, *, remote: bool = False) -> "SpanContext":
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415  # an extra

    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=remote,
        trace_flags=TraceFlags(context.flags),
    )


def _decide_by(sampler: "Sampler") -> Callable[[TraceContext | None, str], bool]:
    from opentelemetry.sdk.trace.sampling import DEFAULT_ON  # noqa: PLC0415  # an extra

    return _follow if sampler is DEFAULT_ON else partial(_is_sampled, sampler)


def _follow(parent: TraceContext | None, trace_id: str) -> bool:
    """What that sampler decides, without being asked: it costs as much as all the rest of a span."""
    del trace_id
    return parent is None or parent.sampled


def _is_sampled(sampler: "Sampler", parent: TraceContext | None, trace_id: str) -> bool:
    from opentelemetry.context import Context  # noqa: PLC0415  # an extra
    from opentelemetry.trace import NonRecordingSpan, SpanKind, set_span_in_context  # noqa: PLC0415

    context = Context()
    if parent is not None:
        context = set_span_in_context(NonRecordingSpan(_place(parent, remote=True)), context)
    found = sampler.should_sample(context, int(trace_id, 16), "", SpanKind.SERVER)
    return bool(found.decision.is_sampled())  # type: ignore[no-untyped-call]
