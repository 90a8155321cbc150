"""What processes that share an account tell each other of a failed refresh."""

import pytest

from bearerd.core.failures import FailureNote, build_note, encode_note, explain, heed, parse_note
from bearerd.core.lifecycle import REPLY_LOST, Failure, FailureKind

DOWN = Failure(FailureKind.TRANSIENT, "down")
REJECTED = Failure(FailureKind.GRANT_REJECTED, "invalid_grant")
UNKNOWN = Failure(FailureKind.OUTCOME_UNKNOWN, "no reply")


def note(
    failure: Failure, *, author: str = "sibling", generation: int = 3, at: float = 1000.0
) -> FailureNote:
    return build_note(None, failure, author, generation, at)


def test_the_delay_doubles_up_to_30_s() -> None:
    delays = []
    last = None
    for _ in range(8):
        last = build_note(last, DOWN, "me", 3, 1000.0)
        delays.append(last.next_at - last.failed_at)
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]
    assert build_note(last, DOWN, "me", 4, 1000.0).count == 1


def test_what_the_server_asks_for_is_kept_to_up_to_5_min() -> None:
    for asked, delay in ((0.2, 1), (120, 120), (9999, 300)):
        made = note(Failure(FailureKind.TRANSIENT, "down", asked))
        assert made.next_at - made.failed_at == delay


@pytest.mark.parametrize(
    ("author", "generation", "now", "expected"),
    [
        ("me", 3, 1000.25, Failure(FailureKind.TRANSIENT, "down", 0.75)),
        ("sibling", 3, 1000.25, None),  # its own backoff says when
        ("me", 3, 1001.0, None),
        ("me", 4, 1000.25, None),
        ("me", 3, 999.0, None),  # the clock was set back since
    ],
)
def test_a_passing_failure_is_heeded_by_others_for_its_time(
    author: str, generation: int, now: float, expected: Failure | None
) -> None:
    assert heed(note(DOWN), author, generation, now) == expected


@pytest.mark.parametrize("author", ["me", "sibling"])
def test_a_rejected_grant_is_rejected_for_everybody_and_for_ever(author: str) -> None:
    assert heed(note(REJECTED), author, 3, 9e9) == REJECTED
    assert heed(note(REJECTED), author, 4, 1000.0) is None


def test_no_note_says_nothing() -> None:
    assert heed(None, "me", 3, 1000.0) is None
    assert explain(REJECTED, None, 3) == REJECTED


def test_a_lost_reply_is_remembered_until_the_next_generation() -> None:
    lost = build_note(note(UNKNOWN), DOWN, "me", 3, 1001.0)
    assert lost.lost
    assert explain(REJECTED, lost, 3) == Failure(FailureKind.GRANT_REJECTED, REPLY_LOST)
    assert explain(REJECTED, lost, 4) == REJECTED
    assert explain(DOWN, lost, 3) == DOWN
    assert not build_note(lost, DOWN, "me", 4, 1002.0).lost


def test_a_note_survives_its_file() -> None:
    made = note(Failure(FailureKind.PERMANENT, "invalid_client", 7.0))
    assert parse_note(encode_note(made)) == made
    assert parse_note(None) is None
