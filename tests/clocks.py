"""A clock that tests move by hand."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count


@dataclass(order=True, slots=True)
class FakeTimer:
    """A call due at a steady instant."""

    due: float
    order: int
    callback: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """Wall and steady time. `advance` runs both and fires timers in order; `set_wall` moves the wall alone."""

    def __init__(self, wall: float = 1_000_000.0) -> None:
        self._wall = wall
        self._steady = 0.0
        self._timers: list[FakeTimer] = []
        self._order = count()

    def wall(self) -> float:
        return self._wall

    def steady(self) -> float:
        return self._steady

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self._steady + delay_s, next(self._order), callback)
        heapq.heappush(self._timers, timer)
        return timer

    @property
    def armed(self) -> list[float]:
        """Seconds until each timer that is set."""
        return sorted(timer.due - self._steady for timer in self._timers if not timer.cancelled)

    def advance(self, seconds: float) -> None:
        """Let time pass, firing what falls due on the way."""
        end = self._steady + seconds
        while self._timers and self._timers[0].due <= end:
            timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self._pass(timer.due - self._steady)
                timer.callback()
        self._pass(end - self._steady)

    def suspend(self, seconds: float) -> None:
        """The machine sleeps: the wall goes on, the steady clock and all timers stand still."""
        self._wall += seconds

    def set_wall(self, wall: float) -> None:
        self._wall = wall

    def _pass(self, seconds: float) -> None:
        self._steady += seconds
        self._wall += seconds
