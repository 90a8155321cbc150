"""The manager: one refresh for everybody, ahead of time, whatever the callers and the clock do."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from bearerd.core.calls import Asker
from bearerd.core.lifecycle import Event, Failure, FailureKind, LoginRequired, Policy, State, token_of
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted, TokenSet, Tombstone, origin_of
from bearerd.errors import LoginRequired as LoginRequiredError
from bearerd.errors import StoreError, StoreUnwritable, TokenUnavailable
from bearerd.stores.memory import MemoryLock, MemoryStore
from bearerd.tokens.manager import TokenManager
from bearerd.tokens.refresh import RefreshProtocol
from clocks import FakeClock
from patience import settle, within

DOWN = Failure(FailureKind.TRANSIENT, "the token endpoint cannot be reached")
REJECTED = Failure(FailureKind.GRANT_REJECTED, "the token endpoint says invalid_grant")


class ScriptedSource:
    """Gives numbered tokens of `lifetime_s`, or `failure`; with `gate` cleared, an attempt hangs until it is set."""

    def __init__(self, lifetime_s: float = 1000.0) -> None:
        self.lifetime_s = lifetime_s
        self.failure: Failure | None = None
        self.defect: Exception | None = None
        self.spent: list[str | None] = []
        self.dirty = False
        self.constant = False  # one token, again and again
        self.closed = False
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def attempts(self) -> int:
        return len(self.spent)

    async def obtain(self, current: TokenSet | None) -> Granted | Failure:
        refresh_token = current.refresh_token if current else None
        self.spent.append(refresh_token.reveal() if refresh_token else None)
        self.dirty = False
        number = self.attempts
        await self.gate.wait()
        if self.defect is not None:
            raise self.defect
        if self.constant:
            return Granted(Secret("a"), self.lifetime_s)
        return self.failure or Granted(Secret(f"a{number}"), self.lifetime_s, Secret(f"r{number}"))

    def changed(self) -> bool:
        return self.dirty

    async def aclose(self) -> None:
        self.closed = True


class Recorder:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.defects: list[Exception] = []
        self.alarms: list[str | None] = []
        self.askers: list[Sequence[Asker]] = []

    def changed(self, before: State, event: Event, after: State, askers: Sequence[Asker]) -> None:
        assert before is not after
        self.events.append(event)
        self.askers.append(askers)

    def unsaved(self, reason: str | None) -> None:
        self.alarms.append(reason)

    def defect(self, exc: Exception) -> None:
        self.defects.append(exc)


class Account:
    """A manager with its parts in the test's hands."""

    def __init__(self, *, renewable: bool = True) -> None:
        self.clock = FakeClock()
        self.source = ScriptedSource()
        self.store: Any = MemoryStore()
        self.seen = Recorder()
        self.lock: Any = MemoryLock()
        self.manager = self.build(renewable=renewable)

    def build(self, *, renewable: bool) -> TokenManager:
        protocol = RefreshProtocol(self.source, self.store, self.lock, self.clock, self.seen)
        return TokenManager(protocol, Policy(renewable=renewable), self.seen, draw=lambda: 0.0)

    async def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await turns()


class Unreadable(MemoryStore):
    """A store that is damaged until it holds `mended`."""

    def __init__(self) -> None:
        super().__init__()
        self.mended: TokenSet | None = None

    async def load(self) -> TokenSet | Tombstone | None:
        if self.mended is None:
            raise StoreError("the vault is damaged; restore it")
        return self.mended

    def changed(self) -> bool:
        return self.mended is not None


class Shared(MemoryStore):
    """A store that tells when somebody else has saved, as a file does."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign = False

    async def load(self) -> TokenSet | Tombstone | None:
        self.foreign = False
        return await super().load()

    async def save_elsewhere(self, record: TokenSet | Tombstone) -> None:
        await self.save(record)
        self.foreign = True

    def changed(self) -> bool:
        return self.foreign


async def turns(count: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never held")


@pytest.fixture
async def account() -> AsyncIterator[Account]:
    subject = Account()
    yield subject
    subject.source.gate.set()
    await subject.manager.aclose()


class TestColdStart:
    async def test_the_token_is_fetched_before_the_first_call(self, account: Account) -> None:
        await account.manager.start()
        await turns()
        token = account.manager.current()
        assert token is not None
        assert token.access_token.reveal() == "a1"

    async def test_a_thousand_calls_on_a_cold_start_cost_one_request(self, account: Account) -> None:
        account.source.gate.clear()
        await account.manager.start()
        calls = [asyncio.create_task(account.manager.token()) for _ in range(1000)]
        await turns()
        account.source.gate.set()
        tokens = await asyncio.gather(*calls)
        assert {token.generation for token in tokens} == {1}
        assert account.source.attempts == 1

    async def test_whose_calls_wait_is_known_in_the_order_in_which_they_came(self, account: Account) -> None:
        account.source.gate.clear()
        await account.manager.start()
        calls = [asyncio.create_task(account.manager.token(asker=Asker(f"{n}"))) for n in range(3)]
        calls.append(asyncio.create_task(account.manager.token()))
        await turns()
        calls.pop(1).cancel()
        await turns()
        account.source.gate.set()
        await asyncio.gather(*calls)
        assert account.seen.askers[-1] == (Asker("0"), Asker("2"))

    async def test_a_stored_token_is_used_and_nothing_is_spent(self, account: Account) -> None:
        now, origin = account.clock.wall(), origin_of(Secret("seed"))
        await account.store.save(TokenSet(7, Secret("kept"), now, now + 1000, Secret("r7"), origin=origin))
        await account.manager.start(Secret("seed"))
        assert (await account.manager.token()).generation == 7
        assert account.source.attempts == 0

    async def test_another_refresh_token_in_the_configuration_is_another_login(self) -> None:
        account = Account(renewable=False)
        now = account.clock.wall()
        await account.store.save(TokenSet(7, Secret("kept"), now, now + 1000, Secret("r7"), origin="another"))
        await account.manager.start(Secret("seed"))
        assert (await account.manager.token()).generation == 9
        assert account.source.spent == ["seed"]
        await account.manager.aclose()

    async def test_a_refresh_token_that_was_logged_out_does_not_come_back(self) -> None:
        account = Account(renewable=False)
        await account.store.save(Tombstone(3, origin_of(Secret("seed"))))
        await account.manager.start(Secret("seed"))
        with pytest.raises(LoginRequiredError, match="logged out"):
            await account.manager.token()
        assert account.source.attempts == 0
        await account.manager.aclose()

    async def test_a_store_that_cannot_be_read_says_so_until_it_can(self) -> None:
        account = Account(renewable=False)
        account.store = Unreadable()
        account.manager = account.build(renewable=False)
        await account.manager.start(Secret("seed"))
        with pytest.raises(LoginRequiredError, match="damaged; restore it"):
            await account.manager.token()
        now = account.clock.wall()
        account.store.mended = TokenSet(4, Secret("kept"), now, now + 1000, Secret("r4"))
        await account.later(30)
        assert (await account.manager.token()).generation == 4
        assert account.source.attempts == 0
        await account.manager.aclose()

    async def test_a_bare_refresh_token_is_spent_once_and_then_its_successors(self) -> None:
        account = Account(renewable=False)
        await account.manager.start(Secret("seed"))
        await account.manager.token()
        await account.later(801)
        await account.later(801)
        assert account.source.spent == ["seed", "r1", "r2"]
        await account.manager.aclose()

    async def test_an_account_that_needs_a_login_says_so_at_once(self) -> None:
        account = Account(renewable=False)
        await account.manager.start()
        with pytest.raises(LoginRequiredError, match="nobody has logged in yet"):
            await account.manager.token()
        await account.manager.aclose()


class TestAhead:
    async def test_the_timer_refreshes_in_the_window_and_not_before(self, account: Account) -> None:
        await account.manager.start()
        await turns()
        await account.later(799)
        assert account.source.attempts == 1
        await account.later(2)
        assert account.source.attempts == 2
        assert (await account.manager.token()).access_token.reveal() == "a2"

    async def test_calls_do_not_wait_for_a_slow_refresh_while_the_token_is_good(
        self, account: Account
    ) -> None:
        await account.manager.start()
        await turns()
        account.source.gate.clear()
        await account.later(805)
        assert account.source.attempts == 2
        assert (await account.manager.token()).generation == 1
        account.source.gate.set()
        await turns()
        assert (await account.manager.token()).generation == 2

    async def test_calls_wait_from_the_mandatory_instant_on(self, account: Account) -> None:
        await account.manager.start()
        await turns()
        account.source.gate.clear()
        account.clock.suspend(975)
        call = asyncio.create_task(account.manager.token())
        await turns()
        assert not call.done()
        account.source.gate.set()
        assert (await call).generation == 2

    async def test_ten_lifetimes_pass_without_a_call_that_waits(self, account: Account) -> None:
        await account.manager.start()
        await turns()
        for _ in range(10_000):
            await account.later(1)
            token = account.manager.current() or token_of(account.manager.state)
            assert token is not None
            assert account.clock.wall() < token.expires_at
        assert account.source.attempts == pytest.approx(10_000 / 800, abs=1)


class Busy:
    """A lock that a sibling keeps until `free`."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._sibling = self._lock.acquire()

    async def keep(self) -> None:
        await self._sibling

    def free(self) -> None:
        self._lock.release()

    def hold(self) -> AbstractAsyncContextManager[None]:
        return self._lock


class Lender:
    """A sibling that lends `token`."""

    def __init__(self) -> None:
        self.token: TokenSet | None = None

    async def borrow(self, above: int) -> TokenSet | None:
        return self.token if self.token is not None and self.token.generation > above else None


class Borrowing(Account):
    """An account whose sibling keeps the lock from the start on."""

    def build(self, *, renewable: bool) -> TokenManager:
        self.store = Shared()
        self.lock = Busy()
        self.lender = Lender()
        protocol = RefreshProtocol(
            *(self.source, self.store, self.lock, self.clock, self.seen),
            siblings=self.lender,
            patience_s=0.001,
        )
        return TokenManager(protocol, Policy(renewable=renewable), self.seen, draw=lambda: 0.0)

    def issue(self, generation: int, refresh_token: str | None = None) -> TokenSet:
        now = self.clock.wall()
        secret = Secret(refresh_token) if refresh_token else None
        return TokenSet(generation, Secret(f"b{generation}"), now, now + 1000, secret)

    async def begin(self) -> None:
        """The token in the store expires, and the sibling's successor of it cannot be saved."""
        await self.lock.keep()
        await self.store.save(self.issue(1, "r1"))
        await self.manager.start()
        self.clock.suspend(1000)
        self.lender.token = self.issue(2)


@pytest.fixture
async def borrowing() -> AsyncIterator[Borrowing]:
    subject = Borrowing(renewable=False)
    await subject.begin()
    yield subject
    await subject.manager.aclose()


class TestLoans:
    async def test_calls_go_on_with_what_a_sibling_lends_and_it_is_not_saved(
        self, borrowing: Borrowing
    ) -> None:
        assert (await borrowing.manager.token()).access_token == Secret("b2")
        assert borrowing.manager.loan() == borrowing.lender.token
        stored = await borrowing.store.load()
        assert stored.generation == 1
        assert borrowing.source.attempts == 0

    async def test_one_loan_follows_another(self, borrowing: Borrowing) -> None:
        for generation in range(2, 6):
            borrowing.lender.token = borrowing.issue(generation)
            assert (await borrowing.manager.token()).generation == generation
            borrowing.clock.suspend(1000)
        assert borrowing.source.attempts == 0

    async def test_what_the_sibling_has_saved_is_adopted_and_refreshed_from(
        self, borrowing: Borrowing
    ) -> None:
        await borrowing.manager.token()
        await borrowing.store.save_elsewhere(borrowing.issue(2, "r2"))
        borrowing.lock.free()
        await borrowing.later(30)
        assert token_of(borrowing.manager.state) == await borrowing.store.load()
        borrowing.clock.suspend(1000)
        assert (await borrowing.manager.token()).generation == 3
        assert borrowing.source.spent == ["r2"]

    async def test_a_refused_loan_is_replaced_once_there_is_another(self, borrowing: Borrowing) -> None:
        await borrowing.manager.token()
        replay = asyncio.create_task(borrowing.manager.force_refresh(2))
        await settle(0.05)
        assert not replay.done()
        borrowing.lender.token = borrowing.issue(3)
        assert (await replay).generation == 3

    async def test_with_its_lender_gone_it_is_used_to_its_end_and_then_the_login_is_over(
        self, borrowing: Borrowing
    ) -> None:
        borrowing.source.failure = REJECTED
        await borrowing.manager.token()
        borrowing.lock.free()
        for _ in range(94):
            await borrowing.later(10)
            assert (await borrowing.manager.token()).generation == 2
        assert borrowing.source.attempts == 0
        await borrowing.later(60)
        with pytest.raises(LoginRequiredError, match="cut short before its reply was saved"):
            await borrowing.manager.token()
        assert borrowing.source.spent == ["r1"]

    async def test_the_end_of_the_process_does_not_wait_for_the_lock(self, borrowing: Borrowing) -> None:
        async with within(1):
            await borrowing.manager.aclose()


class TestClock:
    async def test_after_8_hours_of_suspend_the_next_call_refreshes_and_succeeds(
        self, account: Account
    ) -> None:
        await account.manager.start()
        await turns()
        account.clock.suspend(8 * 3600)
        assert account.manager.current() is None
        assert (await account.manager.token()).generation == 2
        assert account.source.attempts == 2

    @pytest.mark.parametrize("jump_s", [-3600, -86_400, -1_000_000, 3600, 86_400])
    async def test_a_jump_of_the_clock_costs_one_refresh_and_no_call(
        self, account: Account, jump_s: float
    ) -> None:
        await account.manager.start()
        await turns()
        account.clock.set_wall(account.clock.wall() + jump_s)
        await account.manager.token()
        await account.later(999 if jump_s < 0 else 1)
        assert (await account.manager.token()).generation == 2
        assert account.source.attempts == 2

    async def test_a_token_ends_with_its_issued_lifetime_though_the_clock_was_set_back(
        self, account: Account
    ) -> None:
        await account.manager.start()
        await turns()
        account.source.failure = DOWN
        account.clock.set_wall(account.clock.wall() - 86_400)
        await account.later(999)
        assert (await account.manager.token()).generation == 1
        await account.later(2)
        with pytest.raises(TokenUnavailable):
            await account.manager.token()

    async def test_it_never_sleeps_longer_than_30_s(self, account: Account) -> None:
        account.source.lifetime_s = 100_000
        await account.manager.start()
        await turns()
        for _ in range(20):
            assert len(account.clock.armed) == 1
            assert account.clock.armed[0] <= 30.0
            await account.later(29)


class TestEndpointDown:
    async def test_a_valid_token_is_served_until_it_expires_then_503_at_once_then_back(
        self, account: Account
    ) -> None:
        await account.manager.start()
        await turns()
        account.source.failure = DOWN
        for _ in range(99):
            await account.later(10)
            assert (await account.manager.token()).generation == 1
        await account.later(11)
        for _ in range(900):
            await account.later(10)
            with pytest.raises(TokenUnavailable) as refusal:
                async with within(0.05):
                    await account.manager.token()
            assert 0 <= refusal.value.retry_after_s <= 30
        account.source.failure = None
        await account.later(30)
        assert (await account.manager.token()).generation == 2

    async def test_attempts_follow_the_backoff_whatever_the_call_rate(self, account: Account) -> None:
        account.source.failure = DOWN
        await account.manager.start()
        await turns()
        results = await asyncio.gather(
            *(account.manager.token() for _ in range(1000)), return_exceptions=True
        )
        assert all(isinstance(result, TokenUnavailable) for result in results)
        assert account.source.attempts == 1

    async def test_a_hanging_endpoint_is_waited_for_10_s_and_its_late_answer_counts(
        self, account: Account
    ) -> None:
        account.source.gate.clear()
        await account.manager.start()
        call = asyncio.create_task(account.manager.token())
        await turns()
        await account.later(9.9)
        assert not call.done()
        await account.later(0.2)
        with pytest.raises(TokenUnavailable, match="has not answered yet"):
            await call
        with pytest.raises(TokenUnavailable):
            async with within(0.05):
                await account.manager.token()
        account.source.gate.set()
        await turns()
        assert (await account.manager.token()).generation == 1
        assert account.source.attempts == 1

    async def test_a_defect_in_the_source_is_reported_and_tried_again(self, account: Account) -> None:
        account.source.defect = RuntimeError("a bug")
        await account.manager.start()
        await turns()
        with pytest.raises(TokenUnavailable, match="internal error"):
            await account.manager.token()
        assert account.seen.defects == [account.source.defect]
        account.source.defect = None
        await account.later(30)
        assert (await account.manager.token()).generation == 1


class TestRejectedCalls:
    async def test_200_calls_refused_for_one_token_cost_one_refresh(self, account: Account) -> None:
        await account.manager.start()
        sent = await account.manager.token()
        newer = await asyncio.gather(*(account.manager.force_refresh(sent.generation) for _ in range(200)))
        assert {token.generation for token in newer} == {2}
        assert account.source.attempts == 2

    async def test_a_late_refusal_of_an_older_token_costs_nothing(self, account: Account) -> None:
        await account.manager.start()
        sent = await account.manager.token()
        await account.manager.force_refresh(sent.generation)
        assert (await account.manager.force_refresh(sent.generation)).generation == 2
        assert account.source.attempts == 2

    async def test_the_very_same_token_again_is_no_answer_to_a_refusal(self, account: Account) -> None:
        account.store = MemoryStore()
        await account.manager.start()
        sent = await account.manager.token()
        account.source.spent.clear()  # the next token is called a1 as well
        with pytest.raises(TokenUnavailable, match="the very token again"):
            await account.manager.force_refresh(sent.generation)
        assert (await account.manager.token()).generation == 1

    async def test_a_source_that_has_no_other_token_is_believed_when_the_time_of_that_is_over(
        self, account: Account
    ) -> None:
        """One 401, for whatever reason, and the account of a configured token would have ended an hour later."""
        account.source.constant = True
        await account.manager.start()
        sent = await account.manager.token()
        with pytest.raises(TokenUnavailable, match="the very token again"):
            await account.manager.force_refresh(sent.generation)
        for _ in range(300):
            await account.later(10)
            assert (await account.manager.token()).access_token == sent.access_token
        account.clock.suspend(86_400)
        assert (await account.manager.token()).access_token == sent.access_token
        assert account.manager.current() is not None

    async def test_a_sibling_s_token_is_adopted_before_anything_is_spent(self, account: Account) -> None:
        await account.manager.start()
        sent = await account.manager.token()
        now = account.clock.wall()
        await account.store.save(TokenSet(9, Secret("sibling"), now, now + 500))
        assert (await account.manager.force_refresh(sent.generation)).access_token.reveal() == "sibling"
        assert account.source.attempts == 1


class TestCancellation:
    async def test_a_waiter_that_leaves_cancels_nothing(self, account: Account) -> None:
        account.source.gate.clear()
        await account.manager.start()
        leaving = asyncio.create_task(account.manager.token())
        staying = asyncio.create_task(account.manager.token())
        await turns()
        leaving.cancel()
        await turns()
        account.source.gate.set()
        assert (await staying).generation == 1
        assert await account.store.load() == await staying

    async def test_closing_waits_for_the_refresh_in_flight_and_saves_it(self, account: Account) -> None:
        account.source.gate.clear()
        await account.manager.start()
        await turns()
        closing = asyncio.create_task(account.manager.aclose())
        await turns()
        assert not closing.done()
        account.source.gate.set()
        await closing
        assert await account.store.load() is not None
        assert account.source.closed
        assert account.clock.armed == []


class TestSiblings:
    """What other processes do to the same account."""

    async def started(self) -> Account:
        account = Account(renewable=False)
        account.store = Shared()
        account.manager = account.build(renewable=False)
        await account.manager.start(Secret("seed"))
        assert (await account.manager.token()).generation == 1
        return account

    async def test_a_token_stored_by_a_sibling_is_adopted_within_30_s(self) -> None:
        account = await self.started()
        now = account.clock.wall()
        await account.store.save_elsewhere(TokenSet(2, Secret("sibling"), now, now + 1000, Secret("r9")))
        await account.later(30)
        assert (await account.manager.token()).access_token.reveal() == "sibling"
        assert account.source.attempts == 1
        await account.manager.aclose()

    async def test_a_token_adopted_as_a_refresh_begins_is_not_spent_by_it(self) -> None:
        account = await self.started()
        await account.later(799)
        now = account.clock.wall()
        await account.store.save_elsewhere(TokenSet(2, Secret("sibling"), now, now + 1000, Secret("r9")))
        await account.later(1)
        assert (await account.manager.token()).access_token.reveal() == "sibling"
        assert account.source.attempts == 1
        await account.later(799)
        assert account.source.spent[1:] == ["r9"], "in its own time"
        await account.manager.aclose()

    async def test_a_logout_elsewhere_is_a_logout_here(self) -> None:
        account = await self.started()
        await account.store.save_elsewhere(Tombstone(2))
        await account.later(30)
        with pytest.raises(LoginRequiredError, match="logged out"):
            await account.manager.token()
        await account.manager.aclose()

    async def test_a_logout_found_by_a_refresh_ends_it_and_the_login(self) -> None:
        account = await self.started()
        await account.store.save(Tombstone(2))
        with pytest.raises(LoginRequiredError, match="logged out"):
            await account.manager.force_refresh(1)
        assert account.source.attempts == 1
        now = account.clock.wall()
        await account.store.save_elsewhere(TokenSet(3, Secret("login"), now, now + 1000, Secret("r")))
        await account.later(30)
        assert (await account.manager.token()).generation == 3
        await account.manager.aclose()


class TestSourceThatChanges:
    async def test_a_change_is_seen_by_the_timer(self, account: Account) -> None:
        await account.manager.start()
        await turns()
        account.source.dirty = True
        await account.later(30)
        assert (await account.manager.token()).generation == 2

    async def test_a_change_during_a_refresh_begins_no_second_one(self, account: Account) -> None:
        await account.manager.start()
        await turns()
        account.source.gate.clear()
        await account.later(805)
        account.source.dirty = True
        await account.later(60)
        assert account.source.attempts == 2


async def test_a_rejected_grant_ends_the_login_and_the_attempts() -> None:
    account = Account(renewable=False)
    await account.manager.start(Secret("seed"))
    await account.manager.token()
    account.source.failure = REJECTED
    await account.later(2000)
    with pytest.raises(LoginRequiredError, match="invalid_grant"):
        await account.manager.token()
    attempts = account.source.attempts
    await account.later(5000)
    assert account.source.attempts == attempts == 2
    assert isinstance(account.manager.state, LoginRequired)
    await account.manager.aclose()


class Crowded(MemoryStore):
    """A store that has no room as long as `full` says so."""

    full = False

    async def save(self, record: TokenSet | Tombstone) -> None:
        if self.full:
            raise StoreUnwritable("no room")
        await super().save(record)


class TestReload:
    """What becomes of a manager whose configuration has changed."""

    async def test_one_at_rest_begins_nothing_by_itself(self, account: Account) -> None:
        await account.manager.start()
        await account.manager.token()
        account.manager.rest()
        assert account.clock.armed == []
        await account.later(900)
        assert account.source.attempts == 1

    async def test_one_at_rest_serves_the_calls_that_still_have_it(self, account: Account) -> None:
        await account.manager.start()
        sent = await account.manager.token()
        account.manager.rest()
        assert (await account.manager.force_refresh(sent.generation)).access_token.reveal() == "a2"
        assert account.clock.armed == []

    async def test_leaving_waits_for_the_refresh_in_flight(self, account: Account) -> None:
        account.source.gate.clear()
        await account.manager.start()
        await turns()
        leaving = asyncio.create_task(account.manager.leave())
        await turns()
        assert not leaving.done()
        account.source.gate.set()
        await leaving
        assert await account.store.load() is not None
        assert account.source.closed

    async def test_leaving_waits_until_what_it_has_is_saved_and_keeps_the_lock(self) -> None:
        account = Account(renewable=False)
        account.store = store = Crowded()
        account.manager = account.build(renewable=False)
        store.full = True
        await account.manager.start(Secret("seed"))
        await account.manager.token()
        leaving = asyncio.create_task(account.manager.leave())
        async with within(2):
            while len(account.seen.alarms) < 3:  # noqa: ASYNC110  # there is nothing that would tell
                await asyncio.sleep(0.01)
        assert not leaving.done()
        assert account.lock.hold().locked()
        store.full = False
        async with within(5):
            await leaving
        assert account.source.closed
        assert not account.lock.hold().locked()
        stored = await store.load()
        assert isinstance(stored, TokenSet)
        assert stored.refresh_token == Secret("r1")

    async def test_ending_ends_one_that_still_tries_to_leave(self) -> None:
        """SIGTERM does not wait for a disk to come round, after one last attempt."""
        account = Account(renewable=False)
        account.store = store = Crowded()
        account.manager = account.build(renewable=False)
        store.full = True
        await account.manager.start(Secret("seed"))
        await account.manager.token()
        leaving = asyncio.create_task(account.manager.leave())
        await turns()
        async with within(5):
            await account.manager.aclose()
            await leaving

    async def test_what_costs_nothing_is_asked_for_again_by_the_new_words(self, account: Account) -> None:
        await account.manager.start()
        await account.manager.token()
        account.manager.renewed()
        await turns()
        assert account.source.attempts == 2
        account.source.gate.clear()
        account.manager.renewed()
        await turns()
        account.manager.renewed()
        await turns()
        assert account.source.attempts == 3, "one at a time"
        account.source.gate.set()

    async def test_a_refresh_token_is_not_spent_for_it(self) -> None:
        account = Account(renewable=False)
        await account.manager.start(Secret("seed"))
        await account.manager.token()
        account.manager.renewed()
        await turns()
        assert account.source.spent == ["seed"]
        await account.manager.aclose()

    async def test_but_for_what_has_failed_it_is_at_once(self) -> None:
        account = Account(renewable=False)
        account.source.failure = Failure(FailureKind.PERMANENT, "invalid_client")
        await account.manager.start(Secret("seed"))
        await turns()
        assert account.source.spent == ["seed"]
        account.source.failure = None
        account.manager.renewed()
        await turns()
        assert (await account.manager.token()).access_token.reveal() == "a2"
        assert account.source.spent == ["seed", "seed"]
        await account.manager.aclose()
