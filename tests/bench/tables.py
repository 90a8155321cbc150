"""Figures set in Markdown tables: one for each workload, and one of those that have a bar to meet."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from bench.figures import DIRECT, LARGE_BUFFERS, REFERENCE, Outcome, Row
from bench.workloads import DOWN, ONE_MIB, SMALL, STREAMS, UP, WORKLOADS, Workload

OURS: Final = "bearerd"
ENVOY: Final = "envoy"
NONE: Final = "-"

Cell = Callable[[Row], str]
Shown = Callable[[float], str]


def build_tables(outcome: Outcome) -> str:
    """A table for each workload that was measured, and beneath it who is left out, and why."""
    return "\n".join(build_section(workload, outcome) for workload in WORKLOADS if outcome.of(workload.name))


def build_section(workload: Workload, outcome: Outcome) -> str:
    rows = outcome.of(workload.name)
    columns = _COLUMNS[workload.kind](workload, rows)
    # Without a proxy there is nothing added and nothing used: only the rate of large bodies is of use.
    shown = [row for row in rows.values() if row.proxy != DIRECT or workload.kind == "bodies"]
    lines = [[row.proxy, *(cell(row) for cell in columns.values())] for row in shown]
    left_out = "; ".join(f"{proxy}: {why}" for proxy, why in outcome.missing(workload.name).items())
    note = f"\nLeft out: {left_out}.\n" if left_out else ""
    return f"### {workload.name}\n\n{build_table([['proxy', *columns], *lines])}{note}"


def mib_per_s(row: Row, workload: Workload) -> float:
    return row.rps * workload.body_mib


def _columns_of_calls(_: Workload, rows: Mapping[str, Row]) -> dict[str, Cell]:
    return {
        "calls/s": lambda row: f"{row.rps:.0f}",
        "added p50 us": lambda row: f"{row.added_p50_us:.0f}",
        "added p99 us": lambda row: f"{row.added_p99_us:.0f}",
        "CPU us/call": lambda row: f"{row.cpu_us:.1f}",
        f"CPU / {REFERENCE}": lambda row: _ratio(row.cpu_us, _cpu_us(rows)),
    }


def _columns_of_bodies(workload: Workload, rows: Mapping[str, Row]) -> dict[str, Cell]:
    reference = rows.get(REFERENCE)
    return {
        "MiB/s": lambda row: f"{mib_per_s(row, workload):.0f}",
        f"% of {REFERENCE}": lambda row: f"{row.rps / reference.rps * 100:.0f}" if reference else NONE,
        "CPU ms/100 MiB": lambda row: f"{row.cpu_us / 10 / workload.body_mib:.1f}" if row.cpu_us else NONE,
        f"CPU / {REFERENCE}": lambda row: _ratio(row.cpu_us, _cpu_us(rows)) if row.cpu_us else NONE,
    }


def _columns_of_streams(*_: object) -> dict[str, Cell]:
    return {
        "idle MiB": lambda row: f"{row.idle_mib:.1f}",
        "KiB/stream": lambda row: f"{row.held_kib:.1f}",
        "added p50 us": lambda row: f"{row.added_p50_us:.0f}",
        "added p99 us": lambda row: f"{row.added_p99_us:.0f}",
    }


def _columns_of_sockets(*_: object) -> dict[str, Cell]:
    return {
        "idle MiB": lambda row: f"{row.idle_mib:.1f}",
        "KiB/socket": lambda row: f"{row.held_kib:.1f}",
    }


_COLUMNS: Final[dict[str, Callable[[Workload, Mapping[str, Row]], dict[str, Cell]]]] = {
    "calls": _columns_of_calls,
    "bodies": _columns_of_bodies,
    "streams": _columns_of_streams,
    "sockets": _columns_of_sockets,
}


def _cpu_us(rows: Mapping[str, Row]) -> float:
    return rows[REFERENCE].cpu_us if REFERENCE in rows else 0.0


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.2f}" if reference else NONE


BESIDE: Final = (OURS, ENVOY, "go", REFERENCE)
PERCENT_OF_REFERENCE: Final = 70.0
STREAM_KIB: Final = 40.0
EVENT_MS: Final = 1.0


def build_bar(outcome: Outcome) -> str:
    """The figures that were promised, and whether they hold. Raises KeyError where one was not measured."""
    lines = [
        ["figure", *BESIDE, "bar", "verdict"],
        *_bar_of_calls(outcome.of(SMALL.name)),
        *(line for workload in (ONE_MIB, DOWN, UP) for line in _bar_of_bodies(workload, outcome)),
        *_bar_of_streams(outcome.of(STREAMS.name)),
    ]
    return build_table(lines)


def _bar_of_calls(rows: Mapping[str, Row]) -> list[list[str]]:
    cpu_us = _beside(rows, lambda row: row.cpu_us)
    ratios = {name: cpu_us[OURS] / value for name, value in cpu_us.items()}
    met = cpu_us[OURS] <= cpu_us[ENVOY]
    return [
        _line("CPU us of a small GET", cpu_us, _tenths, f"at most {ENVOY}'s", met=met),
        _line(f"{OURS}'s in that of each", ratios, _hundredths),
    ]


def _bar_of_bodies(workload: Workload, outcome: Outcome) -> list[list[str]]:
    rows = outcome.of(workload.name)
    best = rows[REFERENCE]
    rate = _beside(rows, lambda row: row.rps / best.rps * 100)
    large = _beside(rows, lambda row: row.rps / rows[LARGE_BUFFERS].rps * 100)
    what = workload.name.partition(",")[0]
    bar = f"{PERCENT_OF_REFERENCE:.0f} at least"
    return [
        _line(f"{what}: MiB/s", _beside(rows, lambda row: mib_per_s(row, workload)), _whole),
        _judge(f"{what}: % of {REFERENCE}", rate, bar),
        _judge(f"{what}: % of {LARGE_BUFFERS}", large, bar),
    ]


def _judge(figure: str, percents: Mapping[str, float], bar: str) -> list[str]:
    return _line(figure, percents, _whole, bar, met=percents[OURS] >= PERCENT_OF_REFERENCE)


def _bar_of_streams(rows: Mapping[str, Row]) -> list[list[str]]:
    kib = _beside(rows, lambda row: row.held_kib)
    added_ms = _beside(rows, lambda row: row.added_p50_us / 1000)
    return [
        _line(
            "KiB of memory for a stream",
            kib,
            _tenths,
            f"{STREAM_KIB:.0f} at most",
            met=kib[OURS] <= STREAM_KIB,
        ),
        _line(
            "ms added to an event, p50",
            added_ms,
            _hundredths,
            f"{EVENT_MS:.0f} at most",
            met=added_ms[OURS] <= EVENT_MS,
        ),
    ]


def _beside(rows: Mapping[str, Row], value: Callable[[Row], float]) -> dict[str, float]:
    return {name: value(rows[name]) for name in BESIDE}


def _line(
    figure: str, values: Mapping[str, float], show: Shown, bar: str = "", *, met: bool | None = None
) -> list[str]:
    verdict = "" if met is None else ("met" if met else "**not met**")
    return [figure, *(show(values[name]) for name in BESIDE), bar, verdict]


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _tenths(value: float) -> str:
    return f"{value:.1f}"


def _hundredths(value: float) -> str:
    return f"{value:.2f}"


def build_table(lines: Iterable[Sequence[str]]) -> str:
    """Names to the left, numbers to the right."""
    lines = list(lines)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "".join(_build_line(line, widths) for line in (lines[0], rule, *lines[1:]))


def _build_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = cells
    padded = (cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True))
    return f"| {' | '.join([name.ljust(widths[0]), *padded])} |\n"
