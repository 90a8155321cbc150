"""The refresh protocol: lock, re-read, adopt or spend, save, release."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import pytest

from bearerd.core.calls import Asker
from bearerd.core.failures import CUT_SHORT, FailureNote, build_mark, build_note
from bearerd.core.lifecycle import REPLY_LOST, Event, Failure, FailureKind, State
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Borrowed, Granted, TokenSet, Tombstone
from bearerd.errors import RefreshLockTimeout, StoreError, StoreUnwritable
from bearerd.stores.memory import MemoryStore
from bearerd.tokens.refresh import ENDING, LENDER_GONE, SAME_TOKEN, RefreshProtocol
from clocks import FakeClock
from patience import settle, within

UNKNOWN = Failure(FailureKind.OUTCOME_UNKNOWN, "no reply")
REJECTED = Failure(FailureKind.GRANT_REJECTED, "invalid_grant")
DOWN = Failure(FailureKind.TRANSIENT, "down")
NEW = Granted(Secret("new"), 60.0, Secret("r2"))
HAVE = TokenSet(1, Secret("old"), 0.0, 60.0, Secret("r1"), "read")


class Alarms:
    """An observer that writes down what it is told."""

    def __init__(self, steps: list[str]) -> None:
        self._steps = steps

    def changed(self, before: State, event: Event, after: State, askers: Sequence[Asker]) -> None:
        raise AssertionError(f"the protocol changes no state: {before}, {event}, {after}, {askers}")

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
        self.busy = asyncio.Lock()  # a sibling's, if it is locked
        self.loans: list[TokenSet] = []  # the last one is lent for ever
        self.asked: list[int] = []
        self.protocol = RefreshProtocol(
            *(self, self, self, self.clock, Alarms(self.steps)),
            stays=stays,
            siblings=self,
            patience_s=0.01,
        )

    async def borrow(self, above: int) -> TokenSet | None:
        self.asked.append(above)
        loan = self.loans.pop(0) if len(self.loans) > 1 else self.loans[0] if self.loans else None
        return loan if loan is not None and loan.generation > above else None

    def hold(self) -> AbstractAsyncContextManager[None]:
        return self._held()

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[None]:
        async with self.busy:
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
        self,
        have: TokenSet | None = HAVE,
        *,
        rejected: bool = False,
        urgent: bool = False,
        lent: TokenSet | None = None,
    ) -> TokenSet | Tombstone | Borrowed | Failure:
        return await self.protocol.run(have, rejected=rejected, urgent=urgent, lent=lent)


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


async def test_an_unknown_outcome_stays_one_where_the_next_attempt_tells_nothing() -> None:
    """Else nobody would know why the token is rejected when the server is back."""
    journal = Journal(UNKNOWN, replace(DOWN, retry_after_s=7.0))
    assert await journal.run() == Failure(FailureKind.OUTCOME_UNKNOWN, "down", 7.0)
    note = await journal.store.load_note()
    assert note is not None
    assert note.lost


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
        async with asyncio.timeout(10):
            while len(journal.steps) < 8:  # noqa: ASYNC110  # the saver runs by itself
                await asyncio.sleep(0.05)
        assert journal.steps[6:8] == ["save", "alarm: no room"]
        journal.full = None
        async with asyncio.timeout(10):
            while "unlock" not in journal.steps:  # noqa: ASYNC110  # the saver runs by itself
                await asyncio.sleep(0.05)
        assert journal.steps[-3:] == ["save", "alarm: None", "unlock"]
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


LENT = TokenSet(2, Secret("lent"), 90.0, 150.0)


class TestLoans:
    """While a sibling keeps the lock, the token that it has in force is borrowed."""

    async def test_a_lock_that_is_had_soon_asks_nobody(self) -> None:
        journal = Journal(NEW)
        journal.loans = [LENT]
        assert isinstance(await journal.run(), TokenSet)
        assert journal.asked == []

    async def test_it_is_borrowed_and_nothing_is_spent_or_saved(self) -> None:
        journal = Journal()
        journal.loans = [LENT]
        async with journal.busy:
            assert await journal.run(urgent=True) == Borrowed(LENT)
        assert journal.steps == []
        async with within(1), journal.hold():
            """The wait for the lock has been given up."""

    async def test_siblings_are_asked_again_and_again(self) -> None:
        """First for what is newer than the account's own; what has expired is no loan."""
        journal = Journal()
        expired = replace(LENT, expires_at=100.0)
        journal.loans = [replace(LENT, generation=1), expired, LENT]
        async with journal.busy:
            assert await journal.run() == Borrowed(LENT)
        assert journal.asked == [1, 1, 1]

    async def test_only_a_newer_one_takes_the_place_of_what_is_lent_already(self) -> None:
        journal = Journal()
        newer = replace(LENT, generation=3)
        journal.loans = [LENT, replace(LENT, access_token=Secret("another")), newer]
        async with journal.busy:
            assert await journal.run(lent=LENT) == Borrowed(newer)
        assert journal.asked == [2, 2, 2]

    async def test_the_very_token_that_an_api_has_refused_is_no_loan_by_whatever_generation(self) -> None:
        journal = Journal()
        newer = replace(LENT, generation=4, access_token=Secret("newer"))
        journal.loans = [replace(LENT, generation=3), newer]
        async with journal.busy:
            assert await journal.run(lent=LENT, rejected=True, urgent=True) == Borrowed(newer)

    async def test_the_lock_is_preferred_if_it_comes_at_last(self) -> None:
        journal = Journal()
        await journal.store.save(replace(LENT, refresh_token=Secret("r2")))
        await journal.busy.acquire()
        running = asyncio.create_task(journal.run())
        await settle(0.05)
        journal.busy.release()
        assert await running == replace(LENT, refresh_token=Secret("r2"))

    async def test_who_keeps_the_lock_asks_nobody(self) -> None:
        journal = Journal(NEW, Granted(Secret("newer"), 60.0, Secret("r3")))
        journal.loans = [replace(LENT, generation=9)]
        journal.full = "no room"
        first = await journal.run(urgent=True)
        assert isinstance(first, TokenSet)
        assert isinstance(await journal.run(first, urgent=True), TokenSet)
        assert journal.asked == []
        journal.full = None
        await journal.protocol.aclose()

    @pytest.mark.parametrize("urgent", [False, True])
    async def test_what_the_lender_has_saved_is_adopted(self, urgent: bool) -> None:  # a table's column
        journal = Journal()
        saved = replace(LENT, refresh_token=Secret("r2"))
        await journal.store.save(saved)
        assert await journal.run(lent=LENT, urgent=urgent) == saved

    async def test_unless_an_api_has_refused_it_then_it_is_replaced_at_once(self) -> None:
        journal = Journal(Granted(Secret("newer"), 60.0, Secret("r3")))
        await journal.store.save(replace(LENT, refresh_token=Secret("r2")))
        token = await journal.run(lent=LENT, rejected=True, urgent=True)
        assert isinstance(token, TokenSet)
        assert (token.generation, token.refresh_token) == (3, Secret("r3"))
        assert "spend r2" in journal.steps

    async def test_what_a_lender_that_is_gone_has_lent_is_used_to_its_end(self) -> None:
        """The store is still at what the lender had spent, or at something between."""
        journal = Journal()
        await journal.store.save(HAVE)
        assert await journal.run(lent=LENT) == LENDER_GONE
        between = replace(LENT, generation=3)
        await journal.store.save(replace(HAVE, generation=2))
        assert await journal.run(lent=between) == LENDER_GONE
        assert [step for step in journal.steps if step.startswith("spend")] == []

    async def test_at_its_end_what_was_spent_is_presented_once_and_a_rejection_is_explained(self) -> None:
        """Whether the lender's mark could be saved or not. Nobody presents it after that."""
        journal = Journal(REJECTED)
        await journal.store.save(HAVE)
        failure = Failure(FailureKind.GRANT_REJECTED, CUT_SHORT)
        assert await journal.run(lent=LENT, urgent=True) == failure
        assert await journal.run(lent=LENT, urgent=True) == failure
        assert [step for step in journal.steps if step.startswith("spend")] == ["spend r1"]

    async def test_a_server_that_forgives_gives_a_generation_beyond_what_was_lent(self) -> None:
        journal = Journal(NEW)
        await journal.store.save(HAVE)
        token = await journal.run(lent=LENT, urgent=True)
        assert isinstance(token, TokenSet)
        assert token.generation == 3

    async def test_the_very_token_that_was_lent_and_refused_is_no_success(self) -> None:
        journal = Journal(Granted(Secret("lent"), 60.0))
        assert await journal.run(lent=LENT, rejected=True, urgent=True) == SAME_TOKEN

    @pytest.mark.parametrize("tombstone", [2, 3])
    async def test_a_logout_is_heeded_whatever_was_lent(self, tombstone: int) -> None:
        journal = Journal()
        await journal.store.save(Tombstone(tombstone))
        assert await journal.run(lent=replace(LENT, generation=3)) == Tombstone(tombstone)

    async def test_a_login_since_then_is_adopted_at_the_end_of_what_was_lent(self) -> None:
        journal = Journal()
        login = replace(HAVE, generation=2)
        await journal.store.save(login)
        assert await journal.run(lent=replace(LENT, generation=3), urgent=True) == login


@pytest.mark.parametrize(("urgent", "kind"), [(False, FailureKind.POSTPONED), (True, FailureKind.TRANSIENT)])
async def test_a_lock_that_is_never_had_puts_a_refresh_off_while_it_can_be(
    urgent: bool,  # a table's column
    kind: FailureKind,
) -> None:
    class Held(Journal):
        def hold(self) -> AbstractAsyncContextManager[None]:
            raise RefreshLockTimeout("another process has held it for 30 s")

    assert await Held().run(urgent=urgent) == Failure(kind, "another process has held it for 30 s")


async def test_a_process_that_ends_does_not_wait_for_the_lock() -> None:
    journal = Journal()
    async with journal.busy, within(1):
        running = asyncio.create_task(journal.run())
        await asyncio.sleep(0)
        journal.protocol.stop_waiting()
        assert await running == ENDING


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
