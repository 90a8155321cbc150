"""The refresh protocol, once for everybody: lock, re-read, adopt or spend, save, release."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace

from bearerd import failpoints
from bearerd.core.failures import FailureNote, build_mark, build_note, explain, heed
from bearerd.core.lifecycle import REPLY_LOST, Failure, FailureKind
from bearerd.core.redaction import Secret
from bearerd.core.tokens import NOTHING, Borrowed, Granted, TokenSet, Tombstone, build_token_set
from bearerd.errors import RefreshLockTimeout, StoreError, StoreUnwritable
from bearerd.ports import Clock, Observer, RefreshLock, Siblings, TokenSource, TokenStore

SAME_TOKEN = Failure(FailureKind.UNCHANGED, "the source gave the very token again that the API refused")
LENDER_GONE = Failure(
    FailureKind.POSTPONED,
    "the process that lent its token ended before it had saved its refresh token; the token is used to its end",
)
LOST = "; this process ends, and with it the only tokens that were good: log in again"
ENDING = Failure(FailureKind.TRANSIENT, "this process ends")
PATIENCE_S = 1.0  # a refresh by a sibling takes less, and its result is then in the store
_FIRST_SAVE_S = 0.5
_LONGEST_SAVE_S = 10.0

Redeem = Callable[[], Awaitable[Granted | Failure]]
"""Exchanges what a login gave for tokens."""


@dataclass(frozen=True, slots=True)
class Wiped:
    """What a logout left: the tombstone's generation, the tokens to revoke, and why the store still has them, if so."""

    generation: int
    last: TokenSet | None
    problem: str | None = None


class RefreshProtocol:
    """The ports of one account, for its manager alone.

    A rotated pair that cannot be saved is used and kept here, **with the lock**, until it has been saved: no other
    process may spend the refresh token that it replaced.
    """

    def __init__(
        self,
        source: TokenSource,
        store: TokenStore,
        lock: RefreshLock,
        clock: Clock,
        observer: Observer,
        *,
        stays: bool = True,
        siblings: Siblings | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`stays` is False for a process that ends after one token: it must not be left with a pair unsaved.

        `siblings` are asked for a token each `patience_s` for which the lock cannot be had.
        """
        self.source = source
        self.store = store
        self.clock = clock
        self._lock = lock
        self._observer = observer
        self._stays = stays
        self._siblings = siblings
        self._patience_s = patience_s
        self._ending = False
        self._author = secrets.token_hex(8)
        self._turn = asyncio.Lock()
        self._unsaved: TokenSet | None = None
        self._held = AsyncExitStack()
        self._alarmed = False
        self._relieved = asyncio.Event()
        self._saver: asyncio.Task[None] | None = None

    @property
    def unsaved(self) -> bool:
        """Whether a pair has come whose place in the store still has the one that was spent for it."""
        return self._unsaved is not None

    async def run(
        self, have: TokenSet | None, *, rejected: bool, urgent: bool, lent: TokenSet | None = None
    ) -> TokenSet | Tombstone | Borrowed | Failure:
        """A record newer than `have`: a sibling's from the store if there is one, else a new token, saved.

        While another process keeps the lock, the token that it has in force, if it lends one. `lent` is such a token
        that is in use instead of `have` now.

        `rejected` says that an API refused the token in use: the same access token again is a failure. `urgent` says
        that a refresh can no longer be put off where the store cannot be written.
        """
        try:
            async with AsyncExitStack() as stack:
                loan = await self._enter(stack, lent or have, rejected=rejected)
                if loan is not None:
                    return loan
                outcome = await self._renew(have, lent, rejected=rejected, urgent=urgent)
                failpoints.reach("before_unlock")
                return outcome
        except RefreshLockTimeout as problem:
            return Failure(FailureKind.TRANSIENT if urgent else FailureKind.POSTPONED, str(problem))
        except StoreError as problem:
            return Failure(FailureKind.TRANSIENT, str(problem))

    def stop_waiting(self) -> None:
        """Give up waiting for the lock, soon: who waits for it has sent nothing yet.

        A process that ends after one token waits on: it began nothing that it does not want.
        """
        self._ending = True

    async def login(self, redeem: Redeem, known: int) -> TokenSet | Failure:
        """What `redeem` gives, saved above every generation there is; `known` is the last that this process knows of.

        What could not be kept is not asked for. Nothing is taken over from the login before.
        """
        try:
            async with self._alone():
                stored = await self.store.load()
                unwritable = await self._preflight(urgent=True)
                if unwritable is not None:
                    return unwritable
                granted = await redeem()
                if isinstance(granted, Failure):
                    return granted
                generation = self._above(stored, known)
                origin = stored.origin if stored else None
                token = build_token_set(granted, None, self.clock.wall())
                return await self._keep(replace(token, generation=generation, origin=origin))
        except StoreError as problem:
            return Failure(FailureKind.TRANSIENT, str(problem))

    async def logout(self, known: int) -> Wiped:
        """Forget every token, of the store too, in a way that no other process can undo."""
        last = self._unsaved
        try:
            async with self._alone():
                stored = await self.store.load()
                last = self._unsaved or (stored if isinstance(stored, TokenSet) else None)
                origin = stored.origin if stored else None
                tombstone = Tombstone(self._above(stored, known), origin)
                self._unsaved = None
                await self.store.save(tombstone)
                return Wiped(tombstone.generation, last)
        except StoreError as problem:
            return Wiped(known, last, str(problem))

    def _above(self, stored: TokenSet | Tombstone | None, known: int) -> int:
        unsaved = self._unsaved.generation if self._unsaved else 0
        return max(known, unsaved, stored.generation if stored else 0) + 1

    async def _enter(
        self, stack: AsyncExitStack, in_use: TokenSet | None, *, rejected: bool
    ) -> Borrowed | Failure | None:
        """Have `stack` hold the lock; or give a sibling's token where it cannot be had soon."""
        if self._siblings is None:  # then nobody else has the lock for long either
            await stack.enter_async_context(self._alone())
            return None
        taking = asyncio.create_task(stack.enter_async_context(self._alone()))
        try:
            while not (await asyncio.wait([taking], timeout=self._patience_s))[0]:
                if self._ending and self._stays:
                    return ENDING
                loan = await self._borrow(self._siblings, in_use or NOTHING, rejected=rejected)
                if loan is not None and not taking.done():
                    return loan
            await taking
            return None
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    async def _borrow(self, siblings: Siblings, in_use: TokenSet, *, rejected: bool) -> Borrowed | None:
        """A newer token than the one in use that can be used, and is not the very one that was refused."""
        if self._unsaved is not None:
            return None
        token = await siblings.borrow(in_use.generation)
        if token is None or token.expires_at <= self.clock.wall():
            return None
        return None if rejected and token.access_token == in_use.access_token else Borrowed(token)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """The lock, and one task of this process at a time. It is kept beyond the end with a pair that is not saved."""
        async with self._turn, AsyncExitStack() as stack:
            await self._end_saver()
            if self._unsaved is None:
                await stack.enter_async_context(self._lock.hold())
            else:
                await stack.enter_async_context(self._held.pop_all())
            try:
                yield
            finally:
                if self._unsaved is not None:
                    self._held = stack.pop_all()
                    self._saver = asyncio.create_task(self._save_at_last())

    async def settled(self) -> None:
        """Until nothing is left to be saved. Whoever waits sees to it that nothing new begins."""
        while self._saver is not None and self._unsaved is not None:
            await asyncio.wait([self._saver])

    async def aclose(self) -> None:
        """Give up the source, and a pair that could not be saved, after one last attempt."""
        await self._end_saver()
        await self._try_to_save(LOST)
        await self._held.aclose()
        await self.source.aclose()

    async def _renew(
        self, have: TokenSet | None, lent: TokenSet | None, *, rejected: bool, urgent: bool
    ) -> TokenSet | Tombstone | Failure:
        stored = await self.store.load()
        if rejected and isinstance(stored, TokenSet) and lent is not None and _is_of(lent, stored):
            have, lent = stored, None  # its lender has saved it, and it is this one that is to be replaced
        found = _look(stored, have, lent, urgent=urgent)
        return found or await self._replace(have, lent, rejected=rejected, urgent=urgent)

    async def _replace(
        self, have: TokenSet | None, lent: TokenSet | None, *, rejected: bool, urgent: bool
    ) -> TokenSet | Tombstone | Failure:
        """Spend what `have` has for a new token. Where `lent` succeeded it, it has been spent, as far as is known:

        it is presented only now that nothing else is left, to servers that forgive or do not replace refresh tokens.
        """
        known = have.generation if have else 0
        note = await self.store.load_note()
        told = heed(note, self._author, known, self.clock.wall(), have.origin if have else None)
        if told is not None:
            return told
        if have is not None and have.refresh_token is not None:
            unwritable = await self._preflight(urgent=urgent)
            if unwritable is not None:
                return unwritable
            await self.store.save_note(build_mark(self._author, known, self.clock.wall(), have.origin))
        failpoints.reach("before_send")
        outcome = await self._spend(have)
        failpoints.reach("after_reply")
        if isinstance(outcome, Failure):
            return await self._give_up(have, outcome, note, succeeded=lent is not None)
        if rejected and have is not None and _is_same(outcome, lent or have, have.refresh_token):
            return SAME_TOKEN
        above = lent.generation if lent else 0
        return await self._keep(build_token_set(outcome, have, self.clock.wall(), above=above))

    async def _preflight(self, *, urgent: bool) -> Failure | None:
        """A refresh token is not spent for a successor that cannot be kept, as long as it can be put off."""
        try:
            await self.store.check_writable()
        except StoreUnwritable as problem:
            if not (urgent and self._stays):
                return Failure(FailureKind.POSTPONED, str(problem))
        return None

    async def _spend(self, have: TokenSet | None) -> Granted | Failure:
        """One attempt, and one more at once where no reply came: servers with a reuse leeway forgive.

        If the second is rejected, the reply that was lost had the successor of what is spent now. If it does not come to that,
        what has become of the first is still not known.
        """
        outcome = await self.source.obtain(have)
        if not isinstance(outcome, Failure) or outcome.kind is not FailureKind.OUTCOME_UNKNOWN:
            return outcome
        again = await self.source.obtain(have)
        if isinstance(again, Failure) and again.kind is FailureKind.GRANT_REJECTED:
            return replace(again, reason=REPLY_LOST)
        if isinstance(again, Failure) and again.kind is FailureKind.TRANSIENT:
            return replace(again, kind=FailureKind.OUTCOME_UNKNOWN)
        return again

    async def _give_up(
        self, have: TokenSet | None, failure: Failure, note: FailureNote | None, *, succeeded: bool
    ) -> TokenSet | Tombstone | Failure:
        """A rejected grant ends the login only if no sibling has renewed it meanwhile. Siblings are told.

        `note` is what was noted before this attempt; `succeeded` is as in `explain`.
        """
        known, origin = (have.generation, have.origin) if have else (0, None)
        failure = explain(failure, note, known, origin, succeeded=succeeded)
        if failure.kind is FailureKind.GRANT_REJECTED:
            stored = await self.store.load()
            if stored is not None and stored.generation > known:
                return stored
        now = self.clock.wall()
        await self.store.save_note(build_note(note, failure, self._author, known, now, origin))
        return failure

    async def _keep(self, token: TokenSet) -> TokenSet:
        """Save before anybody uses it; where that fails, use it all the same and go on trying."""
        self._unsaved = token
        await self._try_to_save()
        return token

    async def _try_to_save(self, else_: str = "") -> None:
        if self._unsaved is None:
            return
        try:
            await self.store.save(self._unsaved)
        except StoreError as problem:
            self._alarmed = True
            self._observer.unsaved(f"{problem}{else_}")
            return
        self._unsaved = None
        if self._alarmed:
            self._alarmed = False
            self._observer.unsaved(None)

    async def _save_at_last(self) -> None:
        """Try again and again, until it is saved or somebody else goes on with it; then let go of the lock."""
        pause_s = _FIRST_SAVE_S
        while self._unsaved is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._relieved.wait()
                return
            await self._try_to_save()
            pause_s = min(_LONGEST_SAVE_S, pause_s * 2)
        await self._held.aclose()

    async def _end_saver(self) -> None:
        """Between two attempts, never within one: a save that runs on unseen could come after a newer one."""
        if self._saver is not None:
            self._relieved.set()
            await asyncio.wait([self._saver])
            self._relieved.clear()
            self._saver = None


def _look(
    stored: TokenSet | Tombstone | None, have: TokenSet | None, lent: TokenSet | None, *, urgent: bool
) -> TokenSet | Tombstone | Failure | None:
    """What is in the store by the time the lock is held, if it is newer than `have`; None where `have` is to be spent.

    A store that has less than was lent says that the lender is gone, with its refresh token. What it lent is then used
    as long as it can be: to present the refresh token that it had spent may well end the login for all who still do.
    """
    newer = stored if stored is not None and stored.generation > (have or NOTHING).generation else None
    if lent is None or urgent or isinstance(newer, Tombstone):
        return newer
    return newer if newer is not None and newer.generation >= lent.generation else LENDER_GONE


def _is_of(lent: TokenSet, stored: TokenSet) -> bool:
    """Whether `stored` is what was lent, complete."""
    return (lent.generation, lent.access_token) == (stored.generation, stored.access_token)


def _is_same(granted: Granted, in_use: TokenSet, refresh_token: Secret | None) -> bool:
    """True where nothing new came. A refresh token that was rotated is new, whatever the access token, and is kept."""
    return granted.access_token == in_use.access_token and granted.refresh_token in {None, refresh_token}
