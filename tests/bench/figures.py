"""Figures of a comparison: read from what programs print, and taken together."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

REFERENCE: Final = "nginx"
LARGE_BUFFERS: Final = "nginx, 64 KiB buffers"
DIRECT: Final = "no proxy"


class BenchError(Exception):
    """The comparison cannot be made, or would not be fair."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the load said of one run. Latencies in microseconds."""

    calls: int
    seconds: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a workload against one proxy; `cpu_s` is what the proxy used meanwhile.

    `idle_mib` is its resident memory before, and `held_kib` what it grew by for each connection held open.
    """

    proxy: str
    workload: str
    load: Load
    cpu_s: float
    idle_mib: float = 0.0
    held_kib: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """The runs of one proxy with one workload, taken together. What is added is to the same without a proxy.

    No proxy is a row, too: what it reaches is the most that the load and the upstream can.
    """

    proxy: str
    workload: str
    rps: float
    added_p50_us: float
    added_p99_us: float
    cpu_us: float
    idle_mib: float = 0.0
    held_kib: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that was measured. `left_out` has the reason for a workload and a proxy that cannot do it."""

    rows: tuple[Row, ...]
    left_out: dict[tuple[str, str], str]

    def of(self, workload: str) -> dict[str, Row]:
        return {row.proxy: row for row in self.rows if row.workload == workload}

    def missing(self, workload: str) -> dict[str, str]:
        return {proxy: why for (where, proxy), why in self.left_out.items() if where == workload}


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


def parse_load(line: str) -> Load:
    """What load.go prints. Raises `BenchError` with what it says where a call failed or bytes were missing."""
    try:
        return Load(**json.loads(line))
    except (ValueError, TypeError):
        raise BenchError(line.strip() or "the load ended without a word") from None


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
    """Calls add up over the rounds; CPU per call is the median, percentiles of different runs can only be averaged."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.workload, run.proxy), []).append(run)
    return [
        _build_row(group, groups.get((workload, DIRECT), group)) for (workload, _), group in groups.items()
    ]


def _build_row(runs: Sequence[Run], direct: Sequence[Run]) -> Row:
    return Row(
        runs[0].proxy,
        runs[0].workload,
        sum(run.load.calls for run in runs) / sum(run.load.seconds for run in runs),
        fmean(run.load.p50_us for run in runs) - fmean(run.load.p50_us for run in direct),
        fmean(run.load.p99_us for run in runs) - fmean(run.load.p99_us for run in direct),
        median(run.cpu_s / run.load.calls for run in runs) * 1e6,
        fmean(run.idle_mib for run in runs),
        fmean(run.held_kib for run in runs),
    )
