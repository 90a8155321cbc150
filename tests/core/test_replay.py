"""An API that says 401 for reasons of its own must not cost a grant per call."""

import pytest

from bearerd.core.replay import OPEN, ReplayGate, may_force, replay_rejected


def test_it_begins_open() -> None:
    assert may_force(OPEN, 0.0)


def test_a_second_401_closes_it_for_a_minute() -> None:
    gate = replay_rejected(OPEN, 100.0)
    assert not may_force(gate, 100.0)
    assert not may_force(gate, 159.9)
    assert may_force(gate, 160.0)


def test_pauses_double_up_to_ten_minutes() -> None:
    gate, now, pauses = OPEN, 100.0, []
    for _ in range(6):
        gate = replay_rejected(gate, now)
        pauses.append(gate.closed_until - now)
        now = gate.closed_until
    assert pauses == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]


@pytest.mark.parametrize("now", [100.0, 130.0, 159.9])
def test_calls_under_way_together_count_as_one(now: float) -> None:
    gate = replay_rejected(OPEN, 100.0)
    assert replay_rejected(gate, now) == gate


def test_a_gate_closed_long_ago_still_doubles() -> None:
    """Only an answer that is not 401 opens it for good: the caller goes back to `OPEN`."""
    gate = replay_rejected(ReplayGate(closed_until=160.0, pause_s=60.0), 10_000.0)
    assert gate == ReplayGate(closed_until=10_120.0, pause_s=120.0)
