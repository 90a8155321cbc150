"""Events that come again and again, in a log as it is set up."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from bearerd import logs
from bearerd.core.configuration import Logging
from bearerd.core.repeats import MOST, PER_S
from bearerd.repeats import RUNS, Repeats


class Steady:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Log:
    """A log of JSON lines by a clock of the test's."""

    def __init__(self) -> None:
        self.clock = Steady()
        self._stream = io.StringIO()
        self.repeats = Repeats(self.clock)
        structlog.configure(
            processors=[self.repeats, structlog.processors.add_log_level, logs.render],
            logger_factory=structlog.WriteLoggerFactory(self._stream),
        )
        self.log = structlog.get_logger("x")

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    def count(self, event: str) -> int:
        return sum(entry["event"] == event for entry in self.said())


@pytest.fixture
def log() -> Iterator[Log]:
    yield Log()
    structlog.reset_defaults()


def test_a_flood_is_a_few_lines_and_then_one_that_counts_the_rest(log: Log) -> None:
    for number in range(100):
        log.log.warning("request.refused", problem="origin_refused", path=f"/{number}")
    assert log.count("request.refused") == MOST
    log.clock.now += PER_S
    log.log.info("request.forwarded", route="/")
    assert log.said()[-2:] == [
        {
            "level": "warning",
            "event": "log.suppressed",
            "of": "request.refused",
            "suppressed": 100 - MOST,
            "problem": "origin_refused",
        },
        {"level": "info", "event": "request.forwarded", "route": "/"},
    ]
    log.log.warning("request.refused", problem="origin_refused", path="/")
    assert log.count("request.refused") == MOST + 1
    assert log.count("log.suppressed") == 1


def test_one_flood_hides_no_other_event(log: Log) -> None:
    for number in range(MOST * 3):
        log.log.warning("token.refresh_failed", account="work", kind="transient", reason="no")
        log.log.warning("token.refresh_failed", account="home", kind="transient", reason="no")
        log.log.error("token.login_required", account="work", reason="no")
        log.log.info("request.forwarded", number=number)
    assert log.count("token.refresh_failed") == MOST * 2
    assert log.count("token.login_required") == MOST * 3
    assert log.count("request.forwarded") == MOST * 3


def test_what_was_not_said_is_told_at_the_end(log: Log) -> None:
    for _ in range(MOST + 3):
        log.log.warning("x.y", account="work")
    log.repeats.flush()
    assert log.said()[-1]["suppressed"] == 3
    log.repeats.flush()
    assert log.count("log.suppressed") == 1


def test_more_kinds_than_are_told_apart_are_limited_together(log: Log) -> None:
    for number in range(RUNS * 2):
        log.log.warning("x.y", reason=f"{number}")
    assert log.count("x.y") <= RUNS + MOST
    log.clock.now += PER_S
    log.log.warning("x.y", reason="new")
    assert (
        sum(entry["suppressed"] for entry in log.said() if entry["event"] == "log.suppressed") == RUNS - MOST
    )
    assert log.said()[-1]["reason"] == "new"


def test_a_log_that_is_set_up_limits_repeats() -> None:
    stream = io.StringIO()
    logs.configure(Logging(format="json"), stream)
    for _ in range(MOST * 2):
        structlog.get_logger("x").warning("x.y")
    structlog.reset_defaults()
    assert stream.getvalue().count("x.y") == MOST
