"""Figures of a comparison: read from what programs print, taken together, set in tables."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

REFERENCE: Final = "nginx"
DIRECT: Final = "no proxy"


class BenchError(Exception):
    """The comparison cannot be made, or would not be fair."""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk said of one run. Latencies in microseconds."""

    calls: int
    seconds: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a workload against one proxy; `cpu_s` is what the proxy used meanwhile."""

    proxy: str
    workload: str
    load: Load
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """The runs of one proxy with one workload, taken together. What is added is to the same without a proxy."""

    proxy: str
    workload: str
    rps: float
    added_p50_us: float
    added_p99_us: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Stat:
    """What is needed of ``/proc/PID/stat``. `ticks` include those of children that have ended; `pages` are resident."""

    pid: int
    parent: int
    ticks: int
    pages: int = 0


_LATENCY: Final = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)$", re.MULTILINE)
_UNITS_US: Final = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}
_TOTAL: Final = re.compile(r"^\s+(\d+) requests in ([\d.]+)(us|ms|s|m),", re.MULTILINE)
_FAILED: Final = re.compile(r"^\s+(Non-2xx or 3xx responses: .*|Socket errors: .*)$", re.MULTILINE)


def parse_wrk(text: str) -> Load:
    """Raises `BenchError` where calls failed, where there were none, or where this is not wrk's output."""
    failures = _FAILED.findall(text)
    total = _TOTAL.search(text)
    latency_us = {name: float(value) * _UNITS_US[unit] for name, value, unit in _LATENCY.findall(text)}
    if failures:
        raise BenchError("; ".join(failures))
    if total is None or latency_us.keys() != {"50", "99"}:
        raise BenchError(f"wrk said something else than expected:\n{text}")
    if total[1] == "0":
        raise BenchError("no call was completed")
    seconds = float(total[2]) * _UNITS_US[total[3]] / 1e6
    return Load(int(total[1]), seconds, latency_us["50"], latency_us["99"])


def parse_stat(text: str) -> Stat:
    """The second field is a program's name in parentheses and may hold any of both; see proc(5)."""
    pid, _, rest = text.partition(" (")
    fields = rest.rpartition(") ")[2].split()
    return Stat(int(pid), int(fields[1]), sum(map(int, fields[11:15])), int(fields[21]))


def family_of(stats: Sequence[Stat], root: int) -> list[Stat]:
    """A process and its descendants."""
    family = {root}
    while grown := {stat.pid for stat in stats if stat.parent in family} - family:
        family |= grown
    return [stat for stat in stats if stat.pid in family]


def build_rows(runs: Sequence[Run]) -> list[Row]:
    """Calls and CPU add up over the rounds; percentiles of different runs can only be averaged."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.workload, run.proxy), []).append(run)
    return [
        _build_row(group, groups.get((workload, DIRECT), group))
        for (workload, proxy), group in groups.items()
        if proxy != DIRECT
    ]


def _build_row(runs: Sequence[Run], direct: Sequence[Run]) -> Row:
    calls = sum(run.load.calls for run in runs)
    return Row(
        runs[0].proxy,
        runs[0].workload,
        calls / sum(run.load.seconds for run in runs),
        fmean(run.load.p50_us for run in runs) - fmean(run.load.p50_us for run in direct),
        fmean(run.load.p99_us for run in runs) - fmean(run.load.p99_us for run in direct),
        sum(run.cpu_s for run in runs) / calls * 1e6,
    )


HEADINGS: Final = (
    "proxy",
    "calls/s",
    "added p50 us",
    "added p99 us",
    "CPU us/call",
    f"CPU / {REFERENCE}",
    "idle MiB",
)


def build_tables(rows: Sequence[Row], idle_mib: dict[str, float]) -> str:
    """A Markdown table for each workload. `idle_mib` is each proxy's resident memory before any call."""
    texts = []
    for workload in dict.fromkeys(row.workload for row in rows):
        own = [row for row in rows if row.workload == workload]
        reference = next((row.cpu_us for row in own if row.proxy == REFERENCE), None)
        cells = [_build_cells(row, reference, idle_mib[row.proxy]) for row in own]
        texts.append(f"### {workload}\n\n{_build_table([HEADINGS, *cells])}")
    return "\n".join(texts)


def _build_cells(row: Row, reference_us: float | None, idle_mib: float) -> tuple[str, ...]:
    ratio = f"{row.cpu_us / reference_us:.2f}" if reference_us else "-"
    numbers = (f"{row.rps:.0f}", f"{row.added_p50_us:.0f}", f"{row.added_p99_us:.0f}", f"{row.cpu_us:.1f}")
    return (row.proxy, *numbers, ratio, f"{idle_mib:.0f}")


def _build_table(lines: Sequence[Sequence[str]]) -> str:
    """Names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "".join(_build_line(line, widths) for line in (lines[0], rule, *lines[1:]))


def _build_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = cells
    padded = (cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True))
    return f"| {' | '.join([name.ljust(widths[0]), *padded])} |\n"
