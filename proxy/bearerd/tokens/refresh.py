"""The refresh protocol, once for everybody: lock, re-read, adopt or spend, save, release."""

from dataclasses import dataclass, replace

from bearerd.core.lifecycle import REPLY_LOST, Failure, FailureKind
from bearerd.core.tokens import Granted, TokenSet, build_token_set
from bearerd.ports import Clock, RefreshLock, TokenSource, TokenStore

SAME_TOKEN = Failure(FailureKind.TRANSIENT, "the source gave the very token again that the API refused")


@dataclass(frozen=True, slots=True)
class RefreshProtocol:
    """The ports of one account. `run` is called by the manager alone, once at a time."""

    source: TokenSource
    store: TokenStore
    lock: RefreshLock
    clock: Clock

    async def run(self, have: TokenSet | None, *, rejected: bool) -> TokenSet | Failure:
        """A token newer than `have`: a sibling's from the store if there is one, else a new one, saved.

        `rejected` says that an API refused `have`: the same access token again is a failure.
        """
        async with self.lock.hold():
            stored = await self._newer_than(have)
            if stored is not None:
                return stored
            outcome = await self._spend(have)
            if isinstance(outcome, Failure):
                return await self._before_giving_up(have, outcome)
            if rejected and have is not None and outcome.access_token == have.access_token:
                return SAME_TOKEN
            token = build_token_set(outcome, have, self.clock.wall())
            await self.store.save(token)
            return token

    async def _newer_than(self, have: TokenSet | None) -> TokenSet | None:
        stored = await self.store.load()
        known = have.generation if have else 0
        return stored if stored is not None and stored.generation > known else None

    async def _spend(self, have: TokenSet | None) -> Granted | Failure:
        """One attempt, and one more at once where no reply came: servers with a reuse leeway forgive.

        If the second is rejected, the reply that was lost had the successor of what is spent now.
        """
        outcome = await self.source.obtain(have)
        if not isinstance(outcome, Failure) or outcome.kind is not FailureKind.OUTCOME_UNKNOWN:
            return outcome
        again = await self.source.obtain(have)
        if isinstance(again, Failure) and again.kind is FailureKind.GRANT_REJECTED:
            return replace(again, reason=REPLY_LOST)
        return again

    async def _before_giving_up(self, have: TokenSet | None, failure: Failure) -> TokenSet | Failure:
        """A rejected grant ends the login only if no sibling has renewed it meanwhile."""
        if failure.kind is not FailureKind.GRANT_REJECTED:
            return failure
        return await self._newer_than(have) or failure
