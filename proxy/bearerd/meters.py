"""What is counted while a daemon works, in plain numbers. `control.metrics` makes metrics of them when somebody asks.

Nothing is looked up, labelled or locked while a call is under way: whoever counts has its meter at hand.
"""

from bisect import bisect_left
from collections import Counter
from typing import Final

CALL_BOUNDS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
WAIT_BOUNDS_S: Final = (0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LEFT: Final = 0
"""In place of a status: the client left before it had an answer."""


class Histogram:
    """How often a number of seconds was met, by upper bounds. The last of `counts` is for what is beyond all of them."""

    __slots__ = ("bounds", "counts", "sum_s")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum_s += seconds


class CallMeter(Histogram):
    """The calls of one route with the credential of one account, or with the clients' own.

    Durations are of calls that were answered; tunnels last as long as somebody wants them to, and are not among them.
    """

    __slots__ = ("classes", "replays", "streams", "tunnels", "upstream_errors")

    def __init__(self) -> None:
        super().__init__(CALL_BOUNDS_S)
        self.classes = [0] * 6  # by the first digit of the status; first those without any
        self.upstream_errors: Counter[str] = Counter()
        self.replays: Counter[str] = Counter()
        self.streams = 0  # answers being passed on now that did not come in one piece
        self.tunnels = 0  # open now

    def answered(self, status: int, seconds: float) -> None:
        """A call is over, which took that long."""
        self.classes[status // 100] += 1
        self.counts[bisect_left(CALL_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def ended(self, status: int) -> None:
        """A call is over whose duration says nothing."""
        self.classes[status // 100] += 1


class AccountMeter:
    """One account's tokens. `unsaved` says that one is in use which could not be saved."""

    __slots__ = ("lock_waits", "refreshes", "unsaved")

    def __init__(self) -> None:
        self.refreshes: Counter[str] = Counter()  # by result: succeeded, borrowed, or a kind of failure
        self.lock_waits = Histogram(WAIT_BOUNDS_S)
        self.unsaved = False


class Reloads:
    """How often the configuration was read again. `last_ok` and `ok_at`, in epoch seconds, begin with that of the start."""

    __slots__ = ("accepted", "last_ok", "ok_at", "refused")

    def __init__(self) -> None:
        self.accepted = self.refused = 0
        self.last_ok = True
        self.ok_at = 0.0

    def began(self, now: float) -> None:
        """The configuration of the start is in force."""
        self.ok_at = now

    def ended(self, now: float, *, ok: bool) -> None:
        """One more reading, after which the configuration is the new one, or still the old one."""
        self.last_ok = ok
        if ok:
            self.accepted += 1
            self.ok_at = now
        else:
            self.refused += 1


class Meters:
    """All meters of one process. They are kept when the configuration changes: what is counted never falls."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str], CallMeter] = {}
        self.accounts: dict[str, AccountMeter] = {}
        self.refusals: Counter[str] = Counter()  # of requests, by the code of the problem
        self.connections = 0  # that were ever served
        self.connections_refused: Counter[str] = Counter()  # by the code of the problem
        self.reloads = Reloads()

    def of_calls(self, route: str, account: str) -> CallMeter:
        """The same for as long as the process lives. `account` is empty for the clients' own credentials."""
        return self.calls.setdefault((route, account), CallMeter())

    def of_account(self, account: str) -> AccountMeter:
        """The same for as long as the process lives."""
        return self.accounts.setdefault(account, AccountMeter())
