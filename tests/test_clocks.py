"""The fake clock keeps time as the real one does."""

from clocks import FakeClock


def test_timers_fire_in_order_at_their_own_instants() -> None:
    clock = FakeClock(100.0)
    seen: list[tuple[str, float]] = []
    clock.call_later(2.0, lambda: seen.append(("late", clock.wall())))
    clock.call_later(1.0, lambda: seen.append(("early", clock.wall())))
    clock.call_later(5.0, lambda: seen.append(("later", clock.wall())))
    clock.advance(3.0)
    assert seen == [("early", 101.0), ("late", 102.0)]
    assert clock.armed == [2.0]


def test_a_timer_set_by_a_timer_fires_within_the_same_advance() -> None:
    clock = FakeClock(100.0)
    seen: list[float] = []

    def again() -> None:
        clock.call_later(1.0, lambda: seen.append(clock.steady()))

    clock.call_later(1.0, again)
    clock.advance(2.0)
    assert seen == [2.0]


def test_a_cancelled_timer_does_not_fire() -> None:
    clock = FakeClock()
    seen: list[str] = []
    clock.call_later(1.0, lambda: seen.append("fired")).cancel()
    clock.advance(2.0)
    assert seen == []


def test_a_suspend_moves_the_wall_alone() -> None:
    clock = FakeClock(100.0)
    clock.suspend(50.0)
    assert (clock.wall(), clock.steady()) == (150.0, 0.0)
