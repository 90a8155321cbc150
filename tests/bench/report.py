"""docs/benchmarks.md and its charts, from what was measured and a template of what was not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

from bench.charts import Chart, draw
from bench.contestants import VARIANTS
from bench.figures import DIRECT, Outcome, Row
from bench.hotpath import Cost, build_costs_table
from bench.tables import OURS, STREAM_KIB, build_bar, build_table, build_tables, mib_per_s
from bench.workloads import DOWN, ONE_MIB, SMALL, STREAMS, UP, Workload

TEMPLATE: Final = Path(__file__).with_name("benchmarks.md.in")
DOCUMENT: Final = "benchmarks.md"
CHARTS: Final = "benchmarks"


@dataclass(frozen=True, slots=True)
class Report:
    """What a whole run came to. `machine` is a list of names and values; `command` repeats it."""

    machine: Sequence[tuple[str, str]]
    command: str
    outcome: Outcome
    costs: list[Cost]


def write_report(docs: Path, report: Report) -> None:
    """Every figure that has a bar must have been measured: KeyError where one was not, and nothing is written."""
    text = build_document(report)
    charts = build_charts(report.outcome)
    folder = docs / CHARTS
    folder.mkdir(exist_ok=True)
    for name, svg in charts.items():
        (folder / name).write_text(svg, encoding="utf-8")
    (docs / DOCUMENT).write_text(text, encoding="utf-8")


def build_document(report: Report) -> str:
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    text = template.substitute(
        command=report.command,
        machine=build_table([["", ""], *report.machine]),
        bar=build_bar(report.outcome),
        tables=build_tables(report.outcome),
        costs=build_costs_table(report.costs),
    )
    return text.rstrip("\n") + "\n"


def build_charts(outcome: Outcome) -> dict[str, str]:
    """By the name of the file."""
    return {
        "cpu.svg": draw(
            _one("CPU time of a small GET", "us per call", SMALL, outcome, lambda row: (row.cpu_us,))
        ),
        "latency.svg": draw(
            _one(
                "Time added to a small GET, 32 connections",
                "us more than without a proxy",
                SMALL,
                outcome,
                lambda row: (row.added_p50_us, row.added_p99_us),
                ("p50", "p99"),
            )
        ),
        "throughput.svg": draw(_throughput(outcome)),
        "memory.svg": draw(
            _one(
                "Memory of an open stream of events",
                "KiB of resident memory per stream, of 1,000",
                STREAMS,
                outcome,
                lambda row: (row.held_kib,),
                goal=STREAM_KIB,
            )
        ),
    }


def _one(
    title: str,
    unit: str,
    workload: Workload,
    outcome: Outcome,
    values: Callable[[Row], tuple[float, ...]],
    series: tuple[str, ...] = ("",),
    goal: float | None = None,
) -> Chart:
    """The least first: what is measured by time or memory is better when it is less."""
    rows = {
        name: values(row)
        for name, row in outcome.of(workload.name).items()
        if name != DIRECT and name not in VARIANTS
    }
    return Chart(title, unit, series, dict(sorted(rows.items(), key=lambda item: item[1])), OURS, goal)


def _throughput(outcome: Outcome) -> Chart:
    """Who cannot do one of the three is in the tables only. The most first."""
    workloads = (ONE_MIB, DOWN, UP)
    found = [outcome.of(workload.name) for workload in workloads]
    names = [name for name in found[0] if name != DIRECT and all(name in rows for rows in found)]
    bars = {
        name: tuple(mib_per_s(rows[name], workload) for rows, workload in zip(found, workloads, strict=True))
        for name in names
    }
    bars = dict(sorted(bars.items(), key=lambda item: -sum(item[1])))
    series = ("1 MiB down", "100 MiB down", "100 MiB up")
    return Chart("Throughput of large bodies", "MiB/s", series, bars, OURS)
