"""Spans of calls, refreshes and logins, made from what the rest of the program tells anyway."""

import random
import time
from collections.abc import Sequence
from typing import Final, Protocol

from bearerd.core.calls import Asker, Entry
from bearerd.core.guard import Head
from bearerd.core.lifecycle import (
    Event,
    InFlight,
    LoginFailed,
    LoginPending,
    LoginStarted,
    RefreshFailed,
    RefreshSucceeded,
    State,
    TokenBorrowed,
    TokenStored,
    generation_of,
    phase_of,
)
from bearerd.core.spans import Span, build_login, build_refresh, build_spans, recorded
from bearerd.core.traces import RANDOM, SAMPLED, TraceContext, Trail, parse_traceparent
from bearerd.ports import Clock

_ids: Final = random.Random()  # noqa: S311  # ids tell spans apart, and are no secrets


class Sink(Protocol):
    """Where spans go. Nothing of it may raise, or wait for anything."""

    def wants(self, parent: TraceContext | None, trace_id: str) -> bool:
        """Whether a trace is to be recorded. `parent` is the client's place in it, if the client began it."""

    def take(self, span: Span) -> None: ...


class Tracer:
    """Follows calls and accounts. An observer of calls (`forward.observed`)."""

    shut = False

    def __init__(self, sink: Sink, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock
        self._logins: dict[str, float] = {}  # when they were begun

    def enter(self, head: Head) -> Trail | None:
        """The way of a call that begins now; None where it is not to be recorded. A client's trace that is not valid is
        none (W3C Trace Context section 4.3).
        """
        parent = parse_traceparent(head.every(b"traceparent"))
        context = self._begin(parent)
        return None if context is None else Trail(context, parent, time.perf_counter())

    def write(self, entry: Entry) -> None:
        trail = entry.head.trail
        if trail is not None:
            now = time.perf_counter()
            for span in build_spans(entry, trail, now, self._clock.wall() - now):
                self._sink.take(span)

    def changed(
        self, account: str, before: State, event: Event, after: State, askers: Sequence[Asker]
    ) -> None:
        """What happens to an account; `askers` are the calls that wait for its token."""
        match event:
            case RefreshSucceeded():
                self._refreshed(account, before, after, askers, "refreshed")
            case TokenBorrowed():
                self._refreshed(account, before, after, askers, "borrowed")
            case RefreshFailed(failure=failure):
                self._refreshed(account, before, after, askers, str(failure.kind))
            case LoginStarted():
                self._logins[account] = self._clock.wall()
            case TokenStored() if isinstance(before, LoginPending):
                self._login_over(account, done=True)
            case LoginFailed():
                self._login_over(account, done=False)

    def _refreshed(
        self, account: str, before: State, after: State, askers: Sequence[Asker], result: str
    ) -> None:
        phase = phase_of(before)
        waiting = recorded(askers)
        context = waiting[0].at(new_id(8)) if waiting else self._begin(None)
        if context is not None and isinstance(phase, InFlight):
            generation = generation_of(after)
            now = self._clock.wall()
            self._sink.take(
                build_refresh(account, context, waiting, phase.started_at, now, result, generation)
            )

    def _login_over(self, account: str, *, done: bool) -> None:
        began_at = self._logins.pop(account, None)
        context = self._begin(None)
        if began_at is not None and context is not None:
            self._sink.take(build_login(account, context, began_at, self._clock.wall(), done=done))

    def _begin(self, parent: TraceContext | None) -> TraceContext | None:
        trace_id = new_id(16) if parent is None else parent.trace_id
        if not self._sink.wants(parent, trace_id):
            return None
        return TraceContext(
            trace_id, new_id(8), SAMPLED | (RANDOM if parent is None else parent.flags & RANDOM)
        )


def new_id(size: int) -> str:
    """So many random bytes in hexadecimal, not all of them zero."""
    return f"{_ids.getrandbits(8 * size) or 1:0{2 * size}x}"
