"""When a 401, or what a route has in its place, is worth a forced refresh.

An API that says 401 for reasons of its own must not cost a grant per call.
"""

from dataclasses import dataclass

FIRST_PAUSE_S = 60.0
LONGEST_PAUSE_S = 600.0


@dataclass(frozen=True, slots=True)
class ReplayGate:
    """Forced refreshes of one route are off until `closed_until`; `pause_s` is the last pause, 0 for none."""

    closed_until: float = 0.0
    pause_s: float = 0.0


OPEN = ReplayGate()


def may_force(gate: ReplayGate, now: float) -> bool:
    """True where a 401 may force a refresh at `now` (seconds of a steady clock)."""
    return now >= gate.closed_until


def replay_rejected(gate: ReplayGate, now: float) -> ReplayGate:
    """The replay got a 401 too: pause for 60 s, twice as long each time, up to 10 min.

    Calls that were under way together count as one.
    """
    if now < gate.closed_until:
        return gate
    pause_s = min(LONGEST_PAUSE_S, gate.pause_s * 2 or FIRST_PAUSE_S)
    return ReplayGate(now + pause_s, pause_s)
