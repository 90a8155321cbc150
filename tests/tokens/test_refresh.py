"""The refresh protocol: lock, re-read, adopt or spend, save, release."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from bearerd.core.lifecycle import REPLY_LOST, Failure, FailureKind
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted, TokenSet
from bearerd.stores.memory import MemoryStore
from bearerd.tokens.refresh import SAME_TOKEN, RefreshProtocol
from clocks import FakeClock

UNKNOWN = Failure(FailureKind.OUTCOME_UNKNOWN, "no reply")
REJECTED = Failure(FailureKind.GRANT_REJECTED, "invalid_grant")
DOWN = Failure(FailureKind.TRANSIENT, "down")
NEW = Granted(Secret("new"), 60.0, Secret("r2"))
HAVE = TokenSet(1, Secret("old"), 0.0, 60.0, Secret("r1"), "read")


class Journal:
    """Lock, store and source that write down what is done, in order. The source gives `replies` in turn."""

    def __init__(self, *replies: Granted | Failure) -> None:
        self.replies = list(replies)
        self.steps: list[str] = []
        self.store = MemoryStore()
        self.appears: TokenSet | None = None  # what a sibling saves while the source is asked

    def hold(self) -> AbstractAsyncContextManager[None]:
        return self._held()

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[None]:
        self.steps.append("lock")
        try:
            yield
        finally:
            self.steps.append("unlock")

    async def load(self) -> TokenSet | None:
        self.steps.append("load")
        return await self.store.load()

    async def save(self, token: TokenSet) -> None:
        self.steps.append("save")
        await self.store.save(token)

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

    async def run(self, have: TokenSet | None = HAVE, *, rejected: bool = False) -> TokenSet | Failure:
        return await RefreshProtocol(self, self, self, FakeClock(100.0)).run(have, rejected=rejected)


async def test_a_refresh_is_saved_before_it_is_used_and_all_of_it_is_under_the_lock() -> None:
    journal = Journal(NEW)
    token = await journal.run()
    assert token == TokenSet(2, Secret("new"), 100.0, 160.0, Secret("r2"), "read")
    assert journal.steps == ["lock", "load", "spend r1", "save", "unlock"]
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
    assert journal.steps == ["lock", "load", "spend r1", "spend r1", "save", "unlock"]


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
    assert journal.steps == ["lock", "load", "spend r1", "unlock"]


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
