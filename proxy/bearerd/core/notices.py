"""When the program that tells a person to log in is run: not for every call that needs it."""

from dataclasses import dataclass
from typing import Final

from bearerd.core.lifecycle import LoginRequired, State

PAUSE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Notice:
    """The last one of an account, `at` by a clock that only goes forward. `heeded` once there was a token again."""

    at: float
    heeded: bool = False


def decide_notice(last: Notice | None, state: State, now: float) -> Notice | None:
    """The notice to give now that a call was refused in `state`, or None.

    There is one for each time that a login is lost, none while somebody is logging in, and two are at least
    `PAUSE_S` apart.
    """
    if not isinstance(state, LoginRequired):
        return None
    if last is not None and (not last.heeded or now < last.at + PAUSE_S):
        return None
    return Notice(now)
