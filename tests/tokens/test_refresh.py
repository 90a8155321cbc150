"""The refresh protocol: lock, re-read, adopt or spend, save, release."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import pytest

from bearerd.core.failures import CUT_SHORT, FailureNote, build_mark, build_note
from bearerd.core.lifecycle import REPLY_LOST, Event, Failure, FailureKind, State
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted, TokenSet, Tombstone
from bearerd.errors import StoreError, StoreUnwritable
from bearerd.stores.memory import MemoryStore
from bearerd.tokens.refresh import SAME_TOKEN, RefreshProtocol
from clocks import FakeClock

UNKNOWN = Failure(FailureKind.OUTCOME_UNKNOWN, "no reply")
REJECTED = Failure(FailureKind.GRANT_REJECTED, "invalid_grant")
DOWN = Failure(FailureKind.TRANSIENT, "down")
NEW = Granted(Secret("new"), 60.0, Secret("r2"))
HAVE = TokenSet(1, Secret("old"), 0.0, 60.0, Secret("r1"), "read")


class Alarms:
    """An observer that writes down what it is told."""

    def __init__(self, steps: list[str]) -> None:
        self._steps = steps

    def changed(self, before: State, event: Event, after: State) -> None:
        raise AssertionError(f"the protocol changes no state: {before}, {event}, {after}")

    def unsaved(self, reason: str | None) -> None:
        self._steps.append(f"alarm: {reason}")

    def defect(self, exc: Exception) -> None:
        raise exc


class Journal:
    """Lock, store and source that write down what is done, in order. The source gives `replies` in turn."""

    def __init__(self, *replies: Granted | Failure, stays: bool = True) -> None:
        self.replies = list(replies)
        self.steps: list[str] = []
        self.store = MemoryStore()
        self.clock = FakeClock(100.0)
        self.full: str | None = None  # why nothing can be written
        self.appears: TokenSet | None = None  # what a sibling saves while the source is asked
        self.protocol = RefreshProtocol(self, self, self, self.clock, Alarms(self.steps), stays=stays)

    def hold(self) -> AbstractAsyncContextManager[None]:
        return self._held()

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[None]:
        self.steps.append("lock")
        try:
            yield
        finally:
            self.steps.append("unlock")

    async def load(self) -> TokenSet | Tombstone | None:
        self.steps.append("load")
        return await self.store.load()

    async def save(self, record: TokenSet | Tombstone) -> None:
        self.steps.append("save")
        if self.full:
            raise StoreUnwritable(self.full)
        await self.store.save(record)

    async def check_writable(self) -> None:
        if self.full:
            raise StoreUnwritable(self.full)

    async def load_note(self) -> FailureNote | None:
        return await self.store.load_note()

    async def save_note(self, note: FailureNote) -> None:
        self.steps.append("note")
        await self.store.save_note(note)

    async def obtain(self, current: TokenSet | None) -> Granted | Failure:
        self.steps.append(
            f"spend {current.refresh_token.reveal()}" if current and current.refresh_token else "ask"
        )
        if self.appears is not None:
            await self.store.save(self.appears)
        await asyncio.sleep(0)
        return self.replies.pop(0)

    def changed(self) -> bool:
        return False

    async def aclose(self) -> None:
        self.steps.append("close")

    async def run(
        self, have: TokenSet | None = HAVE, *, rejected: bool = False, urgent: bool = False
    ) -> TokenSet | Tombstone | Failure:
        return await self.protocol.run(have, rejected=rejected, urgent=urgent)


async def test_a_refresh_is_saved_before_it_is_used_and_all_of_it_is_under_the_lock() -> None:
    journal = Journal(NEW)
    token = await journal.run()
    assert token == TokenSet(2, Secret("new"), 100.0, 160.0, Secret("r2"), "read")
    assert journal.steps == ["lock", "load", "note", "spend r1", "save", "unlock"]
    assert await journal.store.load() == token


async def test_a_newer_generation_in_the_store_is_adopted_and_nothing_is_spent() -> None:
    journal = Journal()
    sibling = TokenSet(2, Secret("sibling"), 50.0, 110.0)
    await journal.store.save(sibling)
    assert await journal.run() == sibling
    assert journal.steps == ["lock", "load", "unlock"]


async def test_the_same_generation_in_the_store_is_not_newer() -> None:
    journal = Journal(NEW)
    await journal.store.save(HAVE)
    token = await journal.run()
    assert isinstance(token, TokenSet)
    assert token.generation == 2


async def test_an_unknown_outcome_is_tried_once_more_at_once() -> None:
    journal = Journal(UNKNOWN, NEW)
    assert isinstance(await journal.run(), TokenSet)
    assert journal.steps == ["lock", "load", "note", "spend r1", "spend r1", "save", "unlock"]


async def test_an_unknown_outcome_then_a_rejection_says_that_the_reply_was_lost() -> None:
    failure = await Journal(UNKNOWN, REJECTED).run()
    assert failure == Failure(FailureKind.GRANT_REJECTED, REPLY_LOST)


async def test_two_unknown_outcomes_end_nothing() -> None:
    journal = Journal(UNKNOWN, UNKNOWN)
    assert await journal.run() == UNKNOWN
    assert journal.steps.count("spend r1") == 2


async def test_a_rejection_is_believed_only_after_the_store_was_read_again() -> None:
    journal = Journal(REJECTED)
    journal.appears = TokenSet(2, Secret("sibling"), 50.0, 110.0)
    assert await journal.run() == journal.appears
    assert await Journal(REJECTED).run() == REJECTED


async def test_a_failure_saves_nothing() -> None:
    journal = Journal(DOWN)
    assert await journal.run() == DOWN
    assert journal.steps == ["lock", "load", "note", "spend r1", "note", "unlock"]


@pytest.mark.parametrize(("rejected", "expected"), [(True, Failure), (False, TokenSet)])
async def test_the_same_access_token_again_is_a_failure_only_if_it_was_refused(
    rejected: bool,  # a table's column
    expected: type,
) -> None:
    journal = Journal(Granted(Secret("old"), 60.0))
    result = await journal.run(rejected=rejected)
    assert isinstance(result, expected)
    assert (result == SAME_TOKEN) is rejected


async def test_the_lock_is_released_when_the_source_breaks() -> None:
    journal = Journal()
    with pytest.raises(IndexError):
        await journal.run()
    assert journal.steps[-1] == "unlock"


class TestNoRoom:
    """A store that cannot be written: nothing is spent that can be put off, and nothing spent is lost."""

    async def test_a_refresh_is_put_off_while_it_can_be(self) -> None:
        journal = Journal()
        journal.full = "no room"
        assert await journal.run() == Failure(FailureKind.POSTPONED, "no room")
        assert journal.steps == ["lock", "load", "unlock"]

    async def test_a_process_that_ends_puts_it_off_even_then(self) -> None:
        journal = Journal(stays=False)
        journal.full = "no room"
        assert await journal.run(urgent=True) == Failure(FailureKind.POSTPONED, "no room")

    async def test_a_grant_that_spends_nothing_is_not_put_off(self) -> None:
        journal = Journal(NEW)
        journal.full = "no room"
        assert isinstance(await journal.run(None), TokenSet)
        await journal.protocol.aclose()

    async def test_at_the_mandatory_instant_it_is_spent_used_and_kept_with_the_lock_until_saved(self) -> None:
        journal = Journal(NEW)
        journal.full = "no room"
        token = await journal.run(urgent=True)
        assert isinstance(token, TokenSet)
        assert journal.steps == ["lock", "load", "note", "spend r1", "save", "alarm: no room"]
        await asyncio.sleep(0.6)
        assert journal.steps[6:] == ["save", "alarm: no room"]
        journal.full = None
        async with asyncio.timeout(5):
            while "unlock" not in journal.steps:  # noqa: ASYNC110  # the saver runs by itself
                await asyncio.sleep(0.05)
        assert journal.steps[8:] == ["save", "alarm: None", "unlock"]
        assert await journal.store.load() == token
        await journal.protocol.aclose()

    async def test_the_next_refresh_goes_on_under_the_same_lock_and_spends_the_successor(self) -> None:
        journal = Journal(NEW, Granted(Secret("newer"), 60.0, Secret("r3")))
        journal.full = "no room"
        first = await journal.run(urgent=True)
        assert isinstance(first, TokenSet)
        second = await journal.run(first, urgent=True)
        assert isinstance(second, TokenSet)
        assert journal.steps.count("lock") == 1
        assert "unlock" not in journal.steps
        assert [step for step in journal.steps if step.startswith("spend")] == ["spend r1", "spend r2"]
        journal.full = None
        await journal.protocol.aclose()
        assert journal.steps[-3:] == ["alarm: None", "unlock", "close"]
        assert await journal.store.load() == second

    async def test_room_that_came_back_between_two_refreshes_ends_it(self) -> None:
        journal = Journal(NEW, Granted(Secret("newer"), 60.0, Secret("r3")))
        journal.full = "no room"
        first = await journal.run(urgent=True)
        journal.full = None
        assert isinstance(first, TokenSet)
        second = await journal.run(first)
        assert journal.steps[-1] == "unlock"
        assert await journal.store.load() == second
        await journal.protocol.aclose()


class TestTold:
    """Processes that share an account heed each other's failures."""

    async def told(
        self, journal: Journal, failure: Failure, *, author: str = "sibling", at: float = 99.5
    ) -> None:
        await journal.store.save_note(build_note(None, failure, author, HAVE.generation, at))

    async def test_a_sibling_s_failure_stands_for_an_attempt_of_our_own(self) -> None:
        journal = Journal()
        await self.told(journal, DOWN)
        assert await journal.run() == Failure(FailureKind.TRANSIENT, "down", 0.5)
        assert journal.steps == ["lock", "load", "unlock"]

    async def test_once_its_time_is_over_the_next_attempt_is_ours(self) -> None:
        journal = Journal(NEW)
        await self.told(journal, DOWN, at=98.9)
        assert isinstance(await journal.run(), TokenSet)

    async def test_a_grant_that_was_rejected_is_not_presented_again_by_anybody(self) -> None:
        journal = Journal()
        await self.told(journal, REJECTED, at=1.0)
        assert await journal.run() == REJECTED

    async def test_a_reply_that_a_sibling_lost_explains_a_rejection(self) -> None:
        journal = Journal(REJECTED)
        await self.told(journal, UNKNOWN, at=1.0)
        assert await journal.run() == Failure(FailureKind.GRANT_REJECTED, REPLY_LOST)

    async def test_an_attempt_that_its_process_did_not_live_through_explains_a_rejection(self) -> None:
        journal = Journal(REJECTED)
        await journal.store.save_note(build_mark("sibling", HAVE.generation, 99.9))
        assert await journal.run() == Failure(FailureKind.GRANT_REJECTED, CUT_SHORT)

    async def test_it_does_not_delay_the_next_attempt_which_may_well_succeed(self) -> None:
        journal = Journal()
        with pytest.raises(IndexError):  # the source breaks, and what it was asked may have been done
            await journal.run()
        journal.replies.append(NEW)
        assert isinstance(await journal.run(), TokenSet)

    async def test_one_s_own_mark_explains_nothing(self) -> None:
        assert await Journal(REJECTED).run() == REJECTED

    async def test_another_login_of_the_same_generation_is_not_judged_by_it(self) -> None:
        journal = Journal(REJECTED, NEW)
        first, second = (replace(HAVE, generation=0, origin=origin) for origin in ("a", "b"))
        assert await journal.run(first) == REJECTED
        assert await journal.run(first) == REJECTED
        assert isinstance(await journal.run(second), TokenSet)

    async def test_a_note_of_an_earlier_generation_says_nothing(self) -> None:
        journal = Journal(NEW)
        await journal.store.save_note(build_note(None, REJECTED, "sibling", HAVE.generation - 1, 99.9))
        assert isinstance(await journal.run(), TokenSet)


async def test_a_tombstone_in_the_store_is_handed_on() -> None:
    journal = Journal()
    await journal.store.save(Tombstone(2))
    assert await journal.run() == Tombstone(2)


async def test_a_lock_that_cannot_be_had_is_a_passing_failure_and_nothing_is_spent() -> None:
    class Held(Journal):
        def hold(self) -> AbstractAsyncContextManager[None]:
            raise StoreError("another process has held it for 30 s")

    journal = Held()
    assert await journal.run() == Failure(FailureKind.TRANSIENT, "another process has held it for 30 s")
    assert journal.steps == []


async def test_a_rotated_refresh_token_is_kept_though_the_access_token_is_the_one_that_was_refused() -> None:
    journal = Journal(Granted(Secret("old"), 60.0, Secret("r2")))
    token = await journal.run(rejected=True)
    assert isinstance(token, TokenSet)
    assert await journal.store.load() == token
    assert token.refresh_token == Secret("r2")
