"""What `bearerd token --min-valid`, `--force` and `bearerd refresh` want of the manager."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from bearerd.core.calls import Asker
from bearerd.core.lifecycle import NEVER_LOGGED_IN, Event, Failure, FailureKind, Policy, State
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted, TokenSet
from bearerd.errors import LoginRequired, TokenUnavailable
from bearerd.stores.memory import MemoryLock, MemoryStore
from bearerd.tokens.manager import NOTHING_TO_SPEND, TokenManager
from bearerd.tokens.refresh import RefreshProtocol
from clocks import FakeClock

DOWN = Failure(FailureKind.TRANSIENT, "it is down")
BUSY = Failure(FailureKind.TRANSIENT, "it is busy", 100.0)


class Strict:
    """An observer to whom nothing untoward may be told."""

    def changed(self, before: State, event: Event, after: State, askers: Sequence[Asker]) -> None:
        pass

    def unsaved(self, reason: str | None) -> None:
        raise AssertionError(reason)

    def defect(self, exc: Exception) -> None:
        raise exc


class Account:
    """A manager whose source gives t1, t2 ... for 1000 s, or `failure`, once `gate` is set."""

    def __init__(self, *, renewable: bool = True) -> None:
        self.given = 0
        self.failure: Failure | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.clock = FakeClock()
        self.store = MemoryStore()
        protocol = RefreshProtocol(self, self.store, MemoryLock(), self.clock, Strict())
        self.manager = TokenManager(protocol, Policy(renewable=renewable), Strict(), draw=lambda: 0.0)

    async def obtain(self, current: TokenSet | None) -> Granted | Failure:
        del current
        self.given += 1
        number = self.given
        await self.gate.wait()
        return self.failure or Granted(Secret(f"t{number}"), 1000.0)

    def changed(self) -> bool:
        return False

    async def aclose(self) -> None:
        pass

    async def token(self, min_valid_s: float = 0.0) -> str:
        return (await self.manager.token(min_valid_s)).access_token.reveal()

    async def refresh(self) -> str:
        return (await self.manager.refresh()).access_token.reveal()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Account"]:
        await self.manager.start()
        try:
            yield self
        finally:
            self.gate.set()
            await self.manager.aclose()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class TestMinValid:
    async def test_none_is_begun_before_its_time_however_much_is_wished(self) -> None:
        async with Account().running() as account:
            for _ in range(5):
                assert await account.token(5000.0) == "t1"
            account.clock.advance(799.0)
            assert await account.token(500.0) == "t1"
            assert account.given == 1

    async def test_one_that_is_due_is_waited_for(self) -> None:
        async with Account().running() as account:
            assert await account.token() == "t1"
            account.gate.clear()
            account.clock.advance(801.0)
            assert await account.token(100.0) == "t1"
            waiting = asyncio.create_task(account.token(500.0))
            await settle()
            assert not waiting.done()
            account.gate.set()
            assert await waiting == "t2"
            assert account.given == 2

    async def test_one_that_takes_long_is_waited_for_as_calls_wait(self) -> None:
        async with Account().running() as account:
            assert await account.token() == "t1"
            account.gate.clear()
            account.clock.advance(801.0)
            waiting = asyncio.create_task(account.token(500.0))
            await settle()
            account.clock.advance(10.1)
            assert await waiting == "t1"
            assert await account.token(500.0) == "t1"

    async def test_where_it_fails_there_is_still_the_token(self) -> None:
        async with Account().running() as account:
            assert await account.token() == "t1"
            account.failure = DOWN
            account.clock.advance(801.0)
            assert await account.token(500.0) == "t1"
            assert await account.token(500.0) == "t1"
            account.gate.clear()
            account.clock.advance(5.0)
            await settle()
            assert account.given == 3
            assert await account.token(500.0) == "t1"


class TestRefresh:
    async def test_it_is_a_new_one_and_everybody_has_it(self) -> None:
        async with Account().running() as account:
            assert await account.token() == "t1"
            assert await account.refresh() == "t2"
            assert await account.token() == "t2"

    async def test_all_who_ask_at_once_share_one(self) -> None:
        async with Account().running() as account:
            assert await account.token() == "t1"
            assert await asyncio.gather(*(account.refresh() for _ in range(50))) == ["t2"] * 50
            assert account.given == 2

    async def test_the_first_token_of_all_is_a_new_one(self) -> None:
        async with Account().running() as account:
            assert await account.refresh() == "t1"
            assert account.given == 1

    async def test_a_failure_is_raised_and_the_token_kept(self) -> None:
        async with Account().running() as account:
            assert await account.token() == "t1"
            account.failure = DOWN
            with pytest.raises(TokenUnavailable, match="it is down"):
                await account.refresh()
            assert await account.token() == "t1"

    async def test_a_pause_of_our_own_is_cut_short(self) -> None:
        async with Account().running() as account:
            assert await account.token() == "t1"
            account.failure = DOWN
            with pytest.raises(TokenUnavailable):
                await account.refresh()
            account.failure = None
            assert await account.refresh() == "t3"

    async def test_a_pause_that_the_server_asked_for_is_kept(self) -> None:
        async with Account().running() as account:
            assert await account.token() == "t1"
            account.failure = BUSY
            for _ in range(3):
                with pytest.raises(TokenUnavailable, match="it is busy"):
                    await account.refresh()
            assert account.given == 2

    async def test_a_caller_who_leaves_ends_nothing(self) -> None:
        async with Account().running() as account:
            assert await account.token() == "t1"
            account.gate.clear()
            caller = asyncio.create_task(account.refresh())
            await settle()
            caller.cancel()
            await asyncio.wait([caller])
            account.gate.set()
            await settle()
            assert await account.token() == "t2"

    async def test_where_nothing_can_be_spent_only_a_login_helps(self) -> None:
        subject = Account(renewable=False)
        now = subject.clock.wall()
        await subject.store.save(TokenSet(1, Secret("of-a-login"), now, now + 1000.0))
        async with subject.running() as account:
            with pytest.raises(LoginRequired, match=NOTHING_TO_SPEND):
                await account.refresh()
            assert await account.token() == "of-a-login"
        async with Account(renewable=False).running() as account:
            with pytest.raises(LoginRequired, match=NEVER_LOGGED_IN):
                await account.refresh()
