"""Metrics for Prometheus and whatever reads its formats, made of the meters when somebody asks.

prometheus-client is imported then, in a thread: whoever never asks has nothing of it.
"""

import asyncio
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from bearerd import __version__
from bearerd.core.lifecycle import FailureKind, LoginRequired, State, token_of
from bearerd.errors import UPSTREAM_KINDS
from bearerd.meters import AccountMeter, Histogram, Meters

if TYPE_CHECKING:
    from prometheus_client.core import Metric

OPENMETRICS: Final = "application/openmetrics-text"
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS: Final = f"{OPENMETRICS}; version=1.0.0; charset=utf-8"
_CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
_REPLAYS: Final = ("accepted", "rejected")
_REFRESHES: Final = ("succeeded", "borrowed", *FailureKind)
_CALLS: Final = ("route", "account")


@dataclass(frozen=True, slots=True)
class Readings:
    """What is no count, at one moment. `spooled` has bytes kept and the most there may be, by where they are kept.

    `audit_lost` is None where there is no audit log.
    """

    states: Mapping[str, State]
    in_flight: int
    connections: int
    connections_limit: int
    log_lost: int = 0
    spooled: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    audit_lost: int | None = None


class MetricsPage:
    """Answers with all metrics there are. `read` is asked for what is not in `meters`."""

    def __init__(self, meters: Meters, read: Callable[[], Readings]) -> None:
        self._meters = meters
        self._read = read

    async def answer(self, accept: str, *, ready: bool) -> tuple[str, str]:
        """The text and its media type: OpenMetrics for those who say that they take it, else Prometheus' own format."""
        await asyncio.to_thread(_prepare)
        families = list(build_families(self._meters, self._read(), ready=ready))
        openmetrics = OPENMETRICS in accept.lower()
        text = await asyncio.to_thread(_write, families, openmetrics=openmetrics)
        return text, _OPENMETRICS if openmetrics else _TEXT


class _Found:
    """What the library takes for a registry."""

    def __init__(self, families: "Iterable[Metric]") -> None:
        self._families = families

    def collect(self) -> "Iterable[Metric]":
        return self._families


def _prepare() -> None:
    """Imports take 50 ms of CPU the first time."""
    import prometheus_client.openmetrics.exposition  # noqa: PLC0415, F401  # see above


def _write(families: "list[Metric]", *, openmetrics: bool) -> str:
    from prometheus_client import ProcessCollector, exposition  # noqa: PLC0415  # as in `_prepare`
    from prometheus_client.openmetrics import exposition as openmetrics_exposition  # noqa: PLC0415  # likewise

    found = _Found([*families, *ProcessCollector(registry=None).collect()])
    write = openmetrics_exposition.generate_latest if openmetrics else exposition.generate_latest
    return write(found).decode()


def build_families(meters: Meters, readings: Readings, *, ready: bool) -> "Iterator[Metric]":
    """All but those of the process. Their names and labels are what docs/operations.md says."""
    yield _built()
    yield _gauge("ready", "Whether new calls are wanted: 1 where readyz says 200.", ready)
    yield from _calls(meters)
    yield from _gauges_of_calls(meters, readings)
    yield from _accounts(meters.accounts)
    yield from _states(readings.states)
    yield from _connections(meters, readings)
    yield from _keeping(readings)
    yield from _reloads(meters)


def _built() -> "Metric":
    from prometheus_client.core import InfoMetricFamily  # noqa: PLC0415  # as in `_prepare`

    version = {"version": __version__, "python": platform.python_version()}
    return InfoMetricFamily("bearerd_build", "Which bearerd this is, and on which Python.", version)


def _calls(meters: Meters) -> "Iterator[Metric]":
    calls = meters.calls.items()
    yield _counter(
        "requests",
        "Calls that are over, by the class of their status; none where the client left before there was one.",
        (*_CALLS, "code"),
        (
            ((*names, code), count)
            for names, meter in calls
            for code, count in zip(_CLASSES, meter.classes, strict=True)
        ),
    )
    yield _histogram(
        "request_duration_seconds",
        "Time from a request to the end of its answer. Tunnels are not among it.",
        _CALLS,
        calls,
    )
    yield _counter(
        "upstream_errors",
        "Calls that an upstream failed, by what went wrong.",
        (*_CALLS, "kind"),
        (((*names, kind), meter.upstream_errors[kind]) for names, meter in calls for kind in UPSTREAM_KINDS),
    )
    yield _counter(
        "replays",
        "Calls that were sent again with a newer token, by whether the upstream took that.",
        (*_CALLS, "result"),
        (((*names, result), meter.replays[result]) for names, meter in calls for result in _REPLAYS),
    )
    yield _counter(
        "requests_refused",
        "Requests that were not forwarded, by the code of the problem that was answered.",
        ("reason",),
        (((reason,), count) for reason, count in meters.refusals.items()),
    )


def _gauges_of_calls(meters: Meters, readings: Readings) -> "Iterator[Metric]":
    calls = meters.calls.items()
    yield _gauge("requests_in_flight", "Calls under way, streams and tunnels among them.", readings.in_flight)
    yield _gauges(
        "streams",
        "Answers being passed on now that did not come in one piece.",
        _CALLS,
        ((names, meter.streams) for names, meter in calls),
    )
    yield _gauges(
        "tunnels",
        "Connections that have become tunnels, such as WebSockets.",
        _CALLS,
        ((names, meter.tunnels) for names, meter in calls),
    )


def _accounts(accounts: Mapping[str, AccountMeter]) -> "Iterator[Metric]":
    yield _counter(
        "token_refreshes",
        "Attempts to get a newer token, by how they ended.",
        ("account", "result"),
        (
            ((name, result), meter.refreshes[result])
            for name, meter in accounts.items()
            for result in _REFRESHES
        ),
    )
    yield _histogram(
        "refresh_lock_wait_seconds",
        "Time until the account's lock was held, or was given up.",
        ("account",),
        (((name,), meter.lock_waits) for name, meter in accounts.items()),
    )
    yield _gauges(
        "token_unsaved",
        "Whether a token is in use that could not be saved: 1 if the process must not end now.",
        ("account",),
        (((name,), meter.unsaved) for name, meter in accounts.items()),
    )


def _states(states: Mapping[str, State]) -> "Iterator[Metric]":
    tokens = ((name, token_of(state)) for name, state in states.items())
    yield _gauges(
        "token_expiry_timestamp_seconds",
        "When the token in use expires; absent without a token.",
        ("account",),
        (((name,), token.expires_at) for name, token in tokens if token is not None and token.expires_at),
    )
    yield _gauges(
        "login_required",
        "Whether a person has to log in.",
        ("account",),
        (((name,), isinstance(state, LoginRequired)) for name, state in states.items()),
    )


def _connections(meters: Meters, readings: Readings) -> "Iterator[Metric]":
    yield _gauge("connections", "Connections of clients.", readings.connections)
    yield _gauge(
        "connections_limit", "How many connections of clients there may be.", readings.connections_limit
    )
    yield _counter(
        "connections_accepted", "Connections of clients that were served.", (), [((), meters.connections)]
    )
    yield _counter(
        "connections_refused",
        "Connections that were not served, by the code of the problem that was answered.",
        ("reason",),
        (((reason,), count) for reason, count in meters.connections_refused.items()),
    )


def _keeping(readings: Readings) -> "Iterator[Metric]":
    yield _gauges(
        "spool_bytes",
        "Bytes of request bodies kept for a replay.",
        ("medium",),
        (((medium,), kept) for medium, (kept, _) in readings.spooled.items()),
    )
    yield _gauges(
        "spool_limit_bytes",
        "The most bytes of request bodies that are kept.",
        ("medium",),
        (((medium,), most) for medium, (_, most) in readings.spooled.items()),
    )
    lost = readings.log_lost
    yield _counter("log_lines_lost", "Lines of the log for which there was no room.", (), [((), lost)])
    if readings.audit_lost is not None:
        lost = readings.audit_lost
        yield _counter(
            "audit_lines_lost", "Lines of the audit log for which there was no room.", (), [((), lost)]
        )


def _reloads(meters: Meters) -> "Iterator[Metric]":
    reloads = meters.reloads
    yield _counter(
        "config_reloads",
        "How often the configuration was read again, and put in force or refused.",
        ("result",),
        [(("accepted",), reloads.accepted), (("refused",), reloads.refused)],
    )
    yield _gauge(
        "config_last_reload_successful", "Whether the last reading was put in force.", reloads.last_ok
    )
    yield _gauge(
        "config_last_reload_success_timestamp_seconds",
        "Since when the configuration is in force.",
        reloads.ok_at,
    )


Rows = Iterable[tuple[tuple[str, ...], float]]
"""Values by those of the labels."""


def _gauge(name: str, text: str, value: float) -> "Metric":
    return _gauges(name, text, (), [((), value)])


def _gauges(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> "Metric":
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415  # as in `_prepare`

    family = GaugeMetricFamily(f"bearerd_{name}", text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> "Metric":
    from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415  # as in `_prepare`

    family = CounterMetricFamily(f"bearerd_{name}", text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _histogram(
    name: str, text: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], Histogram]]
) -> "Metric":
    from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415  # as in `_prepare`

    family = HistogramMetricFamily(f"bearerd_{name}", text, labels=labels)
    for values, histogram in rows:
        bounds = [*map(str, histogram.bounds), "+Inf"]
        family.add_metric(
            values, list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.sum_s
        )
    return family
