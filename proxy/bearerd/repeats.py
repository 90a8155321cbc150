"""Keeps an event that comes again and again from filling the log (`core.repeats`)."""

import threading
from collections.abc import Callable
from typing import Final

import structlog
from structlog.typing import EventDict, WrappedLogger

from bearerd.core.repeats import PER_S, Key, Run, count, key_of

RUNS: Final = 1024  # that are told apart


class Repeats:
    """A structlog processor. `clock` gives seconds that only ever go forward.

    What was not said is told by `log.suppressed` when its minute is over, with the next event of any kind, or by `flush`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._runs: dict[Key, tuple[Run, EventDict]] = {}
        self._due = float("inf")  # when the first of them may be over
        self._lock = threading.RLock()

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        del logger, method
        key = key_of(event)
        if key is None and self._clock() < self._due:
            return event
        with self._lock:
            now = self._clock()
            if now >= self._due:
                self._tell(now)
            if key is not None and not self._admit(key, event, now):
                raise structlog.DropEvent
        return event

    def forget(self) -> None:
        """Begin anew: another log is set up."""
        with self._lock:
            self._runs.clear()
            self._due = float("inf")

    def flush(self) -> None:
        """Tell of all that was not said."""
        with self._lock:
            self._tell(float("inf"))

    def _admit(self, key: Key, event: EventDict, now: float) -> bool:
        if key not in self._runs and len(self._runs) >= RUNS:
            key = key[:1]
        run = count(self._runs[key][0] if key in self._runs else None, now)
        self._runs[key] = run, event
        self._due = min(self._due, run.began_at + PER_S)
        return not run.unsaid

    def _tell(self, now: float) -> None:
        over = {key: of for key, of in self._runs.items() if of[0].over(now)}
        for key in over:
            del self._runs[key]
        self._due = min((run.began_at + PER_S for run, _ in self._runs.values()), default=float("inf"))
        for run, event in over.values():
            if run.unsaid:
                of = {kind: event[kind] for kind in ("account", "route", "problem") if kind in event}
                log = structlog.get_logger("bearerd.logs")
                log.warning("log.suppressed", of=event["event"], suppressed=run.unsaid, **of)
