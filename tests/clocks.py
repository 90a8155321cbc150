"""Clocks that tests move by hand: one for code, and one for processes."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path


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


def find_library() -> Path:
    """Debian's package faketime, or another's of the same layout."""
    for pattern in ("lib/*/faketime", "lib/faketime", "lib64/faketime"):
        for found in Path("/usr").glob(f"{pattern}/libfaketimeMT.so.1"):
            return found
    raise RuntimeError("libfaketime is not installed and the tests need it: run make test")


class FakedClock:
    """What the wall clock of processes shows that are started under it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "faketime"
        self.set(0)

    def set(self, offset_s: float) -> None:
        """So many seconds ahead of the true time, from now on."""
        following = self._file.with_suffix(".next")
        following.write_text(f"{offset_s:+.0f}\n")
        following.rename(self._file)

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(find_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # the older name of it
            "NO_FAKE_STAT": "1",  # the times of files do not jump with a clock
        }
