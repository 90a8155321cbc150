"""How often an event is logged that comes again and again: so many times a minute, and then how many there were."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

MOST: Final = 10
PER_S: Final = 60.0
_KINDS: Final = ("event", "account", "route", "problem", "kind", "reason", "logger")
# Each of them is news: a call, what the state of an account has become, what happens to the daemon and to the log itself.
_ALWAYS: Final = frozenset(
    {"request.forwarded", "token.login_required", "token.unsaved", "token.saved_at_last"}
)
_ALWAYS_OF: Final = frozenset({"audit", "config", "daemon", "log"})

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """The same event over and over, from the instant `began_at` on: how often it was `said`, and how often it was not."""

    began_at: float
    said: int = 1
    unsaid: int = 0

    def over(self, now: float) -> bool:
        return now - self.began_at >= PER_S


def key_of(event: Mapping[str, object]) -> Key | None:
    """What makes two events the same: what has happened, and to whom. None for what is always said."""
    name = str(event.get("event"))
    if name in _ALWAYS or name.partition(".")[0] in _ALWAYS_OF:
        return None
    return tuple(f"{kind}={event[kind]}" for kind in _KINDS if kind in event)


def count(run: Run | None, now: float) -> Run:
    """`run` with one more. It is to be said if none is unsaid then."""
    if run is None or run.over(now):
        return Run(now)
    return replace(run, said=run.said + 1) if run.said < MOST else replace(run, unsaid=run.unsaid + 1)
