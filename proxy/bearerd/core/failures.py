"""A failed refresh, as processes that share an account tell each other of it."""

import json
from dataclasses import asdict, dataclass
from typing import Final

from bearerd.core.lifecycle import REPLY_LOST, Failure, FailureKind

_FIRST_S: Final = 1.0
_LONGEST_S: Final = 30.0
_ASKED_S: Final = 300.0

CUT_SHORT: Final = (
    "an earlier refresh was cut short before its reply was saved, and the old refresh token is spent"
)


@dataclass(frozen=True, slots=True)
class FailureNote:
    """The last failure of a refresh from `generation`, by the process called `author`.

    No other process tries again before `next_at`. `lost` says that a reply to a request that was sent never came.
    `origin` is the token's: logins that were brought in before anything was saved have one generation in common.
    """

    author: str
    generation: int
    failed_at: float
    next_at: float
    kind: FailureKind
    reason: str
    count: int = 1
    lost: bool = False
    origin: str | None = None

    def concerns(self, generation: int, origin: str | None) -> bool:
        return (self.generation, self.origin) == (generation, origin)


def build_mark(author: str, generation: int, now: float, origin: str | None = None) -> FailureNote:
    """The note of an attempt about to be made: only if its process dies in it does anybody else come to read it.

    It delays nobody.
    """
    kind = FailureKind.OUTCOME_UNKNOWN
    return FailureNote(author, generation, now, now, kind, CUT_SHORT, 0, lost=True, origin=origin)


def build_note(
    previous: FailureNote | None,
    failure: Failure,
    author: str,
    generation: int,
    now: float,
    origin: str | None = None,
) -> FailureNote:
    """The note of a failure just met: the delay doubles with each in a row, up to 30 s or what the server asks for."""
    same = previous is not None and previous.concerns(generation, origin)
    count = previous.count + 1 if same and previous else 1
    delay_s = max(
        min(_LONGEST_S, _FIRST_S * 2 ** min(count - 1, 10)), min(failure.retry_after_s or 0.0, _ASKED_S)
    )
    lost = failure.kind is FailureKind.OUTCOME_UNKNOWN or bool(same and previous and previous.lost)
    return FailureNote(
        author, generation, now, now + delay_s, failure.kind, failure.reason, count, lost, origin
    )


def heed(
    note: FailureNote | None, author: str, generation: int, now: float, origin: str | None = None
) -> Failure | None:
    """The failure that stands for an attempt `author` would make now, or None where the attempt is to be made.

    A rejected grant is rejected for everybody. One's own passing failures are for one's own backoff to heed. A
    note from the future is by a clock that was set back since.
    """
    if note is None or not note.concerns(generation, origin):
        return None
    if note.kind is FailureKind.GRANT_REJECTED:
        return Failure(note.kind, note.reason)
    if note.author == author or not note.failed_at <= now < note.next_at:
        return None
    return Failure(note.kind, note.reason, note.next_at - now)


def explain(
    failure: Failure,
    note: FailureNote | None,
    generation: int,
    origin: str | None = None,
    *,
    succeeded: bool = False,
) -> Failure:
    """A rejection after a lost reply means that the reply had the successor of what was spent.

    After a mark it is not known how far its process came, and no more than that is said. `succeeded` says that there
    has been a successor, whose process ended with it unsaved: its mark may not have been saved either.
    """
    if failure.kind is not FailureKind.GRANT_REJECTED or failure.reason == REPLY_LOST:
        return failure
    if succeeded:
        return Failure(failure.kind, CUT_SHORT)
    if note is None or not note.concerns(generation, origin) or not note.lost:
        return failure
    return Failure(failure.kind, CUT_SHORT if note.reason == CUT_SHORT else REPLY_LOST)


def encode_note(note: FailureNote) -> bytes:
    return json.dumps(asdict(note)).encode()


def parse_note(data: bytes | None) -> FailureNote | None:
    """A note, or None for what is none: it is only ever a hint."""
    try:
        fields = json.loads(data or b"")
        return FailureNote(**(fields | {"kind": FailureKind(fields["kind"])}))
    except (ValueError, TypeError, KeyError):
        return None
