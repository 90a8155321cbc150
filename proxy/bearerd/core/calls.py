"""What there is to tell of a call once it is over: who called, where it went, what came of it."""

from dataclasses import dataclass
from typing import Literal

from bearerd.core.guard import Head
from bearerd.core.traces import TraceContext

Cut = Literal["client", "upstream", "stop"]
"""Who ended a call before its answer was whole: the client, the upstream, or this daemon at its own end."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who has called: the name of the client key, or the user id of the process at the other end. None: not known."""

    key: str | None = None
    uid: int | None = None


@dataclass(frozen=True, slots=True)
class Asker:
    """A call that waits for a token: what logs call it, the trace it is in, and what it waits in if that is recorded."""

    request_id: str
    trace_id: str | None = None
    context: TraceContext | None = None


@dataclass(slots=True)
class Entry:
    """One call. `status` is None where no answer was begun. `problem` is the code of an answer of our own.

    `received` and `sent` are bytes of bodies, from the client and to it, without framing. `fingerprint` is that of the
    token the call was last sent with. What it is called, and the trace it is in, its head knows.
    """

    peer: Peer
    head: Head
    status: int | None
    route: str | None = None
    account: str | None = None
    received: int = 0
    sent: int = 0
    duration_s: float = 0.0
    problem: str | None = None
    cut: Cut | None = None
    replayed: bool = False
    fingerprint: str | None = None
