"""A day of a daemon's by a clock that runs ahead: what there is after two hours is what there is at its end.

A shorter day always, a whole one by `make soak`; what happens in it is in `day_of_a_daemon`.
"""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

import canaries
from day_of_a_daemon import Sample
from log_events import TABLE

PROGRAM: Final = Path(__file__).parent / "day_of_a_daemon.py"
LIMIT_S: Final = 900.0
BLOCKS: Final = 2000  # of Python's memory: caches of libraries fill up, and each of them has an end
MEMORY: Final = 2 << 20  # bytes of the process
THREADS: Final = 4  # that a pool for slow work may still have begun
"""What it may have more at the end, which is less than an object for each call."""


@dataclass(frozen=True, slots=True)
class Day:
    """What the program told, and its log."""

    samples: list[Sample]
    calls: dict[str, int]
    wrong: list[str]
    defects: list[str]
    log: list[dict[str, Any]]


async def live(folder: Path, cycles: int, step_s: float) -> Day:
    with (folder / "log").open("w+", encoding="utf-8") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(PROGRAM), str(folder), str(cycles), str(step_s)),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=log,
        )
        async with asyncio.timeout(LIMIT_S):
            out, _ = await process.communicate()
        log.seek(0)
        text = log.read()
    canaries.note("the log of a day", text)
    assert process.returncode == 0, text[-3000:]
    report = json.loads(out)
    report["samples"] = [Sample(**sample) for sample in report["samples"]]
    return Day(**report, log=[json.loads(line) for line in text.splitlines()])


def count(log: list[dict[str, Any]]) -> Counter[str]:
    """How often each event happened, whether it was said or not."""
    events = Counter(event["event"] for event in log)
    for event in log:
        if event["event"] == "log.suppressed":
            events[event["of"]] += event["suppressed"]
    return events


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("cycles", "step_s"),
    [(2, 100.0), pytest.param(12, 30.0, marks=[pytest.mark.soak, pytest.mark.timeout(LIMIT_S)])],
    ids=["four hours", "a day"],
)
async def test_there_is_no_more_of_anything_at_its_end(tmp_path: Path, cycles: int, step_s: float) -> None:
    day = await live(tmp_path, cycles, step_s)
    assert day.wrong == []
    assert day.defects == []
    first, last = day.samples[0], day.samples[-1]
    assert last.at_s - first.at_s >= (cycles - 1) * 2 * 3600
    assert (last.tasks, last.timers, last.descriptors) == (first.tasks, first.timers, first.descriptors)
    assert last.threads <= first.threads + THREADS
    assert last.blocks - first.blocks < BLOCKS
    assert last.resident - first.resident < MEMORY
    events = count(day.log)
    assert set(events) <= TABLE.keys()
    assert not {event for event in events if event.endswith(".defect")} | {"library.message"} & set(events)
    assert day.calls["login 200"] == events["login.done"] == 2 + 2 * cycles
    assert events["token.login_required"] == 2 + 2 * cycles
    assert events["token.refreshed"] > 50 * cycles
    assert events["token.refresh_failed"] > 10 * cycles
    assert events["config.reloaded"] == 10 * cycles
