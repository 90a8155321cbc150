"""One account's tokens: the state, its timer, its one refresh task, and the calls that wait for it.

Every decision is `core.lifecycle`'s; this module feeds it events and carries out its actions.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from bearerd.core.calls import Asker
from bearerd.core.lifecycle import (
    Active,
    Backoff,
    CallRejected,
    Event,
    Failure,
    FailureKind,
    Idle,
    InFlight,
    LoggedOut,
    LoginFailed,
    LoginStarted,
    NoToken,
    Policy,
    RefreshFailed,
    RefreshSucceeded,
    RefuseForLogin,
    RefuseForNow,
    Settle,
    SourceChanged,
    Started,
    StartRefresh,
    State,
    StoreFailed,
    Ticked,
    TokenBorrowed,
    TokenStored,
    Use,
    Verdict,
    Wait,
    advisory_at,
    decide_call,
    decide_loan,
    decide_replay,
    effective_now,
    generation_of,
    is_first,
    mandatory_at,
    next_wakeup,
    owned,
    phase_of,
    token_of,
    transition,
)
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Borrowed, TokenSet, Tombstone, import_refresh_token
from bearerd.errors import LoginRequired, StoreError, TokenUnavailable
from bearerd.ports import Clock, Observer, Timer
from bearerd.tokens.refresh import Redeem, RefreshProtocol, Wiped

T = TypeVar("T")

POLL_S: Final = 30.0  # the longest sleep: a suspended machine's timers cannot be trusted further
SHORTEST_SLEEP_S: Final = 0.01  # an instant that is due by the timer and not yet by the clock
NOTHING_TO_SPEND: Final = (
    "the server gave no refresh token, so only a login gives a new token; log in again when this one ends"
)
DEFECT: Final = Failure(FailureKind.TRANSIENT, "an internal error, which the log has")


class TokenManager:
    """Hands out tokens of one account. To be used on one event loop.

    `draw` gives numbers in [0, 1) for jitter; `poll_s` is how often the source is asked whether it changed.
    """

    def __init__(
        self,
        protocol: RefreshProtocol,
        policy: Policy,
        observer: Observer,
        *,
        draw: Callable[[], float] = random.random,
        poll_s: float = POLL_S,
    ) -> None:
        self._protocol = protocol
        self._clock: Clock = protocol.clock
        self._policy = policy
        self._observer = observer
        self._draw = draw
        self._poll_s = min(poll_s, POLL_S)
        self._state: State = NoToken()
        self._since = (self._clock.wall(), self._clock.steady())
        self._fresh_until = float("-inf")
        self._waiters: dict[asyncio.Future[None], Asker | None] = {}  # in the order in which they came
        self._task: asyncio.Task[None] | None = None
        self._adoption: asyncio.Task[None] | None = None
        self._works: set[asyncio.Task[Any]] = set()
        self._timer: Timer | None = None
        self._started = asyncio.Event()
        self._closed = False
        self._resting = False

    @property
    def state(self) -> State:
        return self._state

    @property
    def busy(self) -> bool:
        """Whether a refresh, a login or a logout is under way, or what came of one is not saved yet."""
        works = any(not work.done() for work in (self._task, *self._works) if work is not None)
        return works or self.unsaved

    @property
    def unsaved(self) -> bool:
        """Whether tokens that have been given to this process are not in the store."""
        return self._protocol.unsaved

    async def start(self, refresh_token: Secret | None = None) -> None:
        """Read the store and begin the first refresh, if one is wanted. Returns without waiting for it.

        `refresh_token` is what the configuration gives an account to begin with.
        """
        try:
            stored = await self._protocol.store.load()
        except StoreError as problem:
            self._dispatch(Started(None) if self._policy.renewable else StoreFailed(str(problem)))
            self._started.set()
            return
        imported = import_refresh_token(refresh_token, stored) if refresh_token else None
        if imported is None and isinstance(stored, Tombstone):
            self._dispatch(LoggedOut(stored.generation))
        else:
            token = imported or (stored if isinstance(stored, TokenSet) else None)
            self._dispatch(Started(token, self._draw()))
        self._started.set()

    def start_idle(self) -> None:
        """In place of `start`, for a process that only logs in or out: nothing is read, and nothing refreshed."""
        self._started.set()

    async def aclose(self) -> None:
        """Stop the timer and wait for a refresh in flight: what has left must be saved. What was only read need not be."""
        self._closed = True
        self._protocol.stop_waiting()
        if self._timer is not None:
            self._timer.cancel()
        if self._adoption is not None:
            self._adoption.cancel()
        tasks = [task for task in (self._task, *self._works) if task is not None]
        if tasks:
            await asyncio.wait(tasks)
        await self._protocol.aclose()

    def renewed(self) -> None:
        """The source asks in another way now. What it has failed at is tried again, and what costs nothing is asked for."""
        phase = phase_of(self._state)
        failed = isinstance(phase, Backoff) and self._now() >= phase.not_before
        if failed or (self._policy.renewable and isinstance(phase, Idle)):
            self._dispatch(SourceChanged())

    def rest(self) -> None:
        """Do nothing by itself any more. Calls that still have it are served, as by a process that shares the store."""
        self._resting = True
        self._arm()

    async def leave(self) -> None:
        """End, once all that it was given is in the store, however long that takes. No call may have it any more."""
        self._closed = True
        self.rest()
        tasks = [task for task in (self._task, self._adoption, *self._works) if task is not None]
        if tasks:
            await asyncio.wait(tasks)
        await self._protocol.settled()
        await self.aclose()

    def current(self) -> TokenSet | None:
        """The token, if it can be used with nothing else to be done; else call `token`."""
        if self._now() < self._fresh_until:
            return token_of(self._state)
        return None

    def loan(self) -> TokenSet | None:
        """The token that a sibling may be lent now. Begins nothing and waits for nothing."""
        return decide_loan(self._state, self._now())

    async def token(self, min_valid_s: float = 0.0, *, asker: Asker | None = None) -> TokenSet:
        """A token that has not expired, waiting for a refresh where it must. `asker` is the call that it is for.

        One that is good for less than `min_valid_s` is not given while the first attempt to replace it runs; none
        is begun for that before it is due. Raises TokenUnavailable and LoginRequired.
        """
        return await self._settle(lambda: self._decide_call(min_valid_s), asker)

    async def refresh(self) -> TokenSet:
        """A newer token than there is, of the refresh in flight or of one begun for this.

        Our own pause after a failure is cut short by it, one that the server asked for is not.
        Raises TokenUnavailable and LoginRequired.
        """
        await self._started.wait()
        basis = generation_of(self._state)
        phase = phase_of(self._state)
        if not isinstance(phase, Backoff) or self._now() >= phase.not_before:
            self._dispatch(SourceChanged())
        if isinstance(self._state, Active) and isinstance(phase_of(self._state), Idle):
            raise LoginRequired(NOTHING_TO_SPEND)
        return await self._settle(lambda: decide_replay(self._state, basis, self._now(), self._policy))

    async def force_refresh(self, rejected: int, *, asker: Asker | None = None) -> TokenSet:
        """A token of another generation than `rejected`, which an API answered with 401.

        If the current one already differs, it is that; else one refresh is forced, shared by all who ask. `asker` is the call
        that it is for.
        Raises TokenUnavailable and LoginRequired.
        """
        return await self._settle(lambda: self._decide_replay(rejected), asker)

    def login_started(self) -> None:
        """A person has begun to log in. A token that is good goes on being used."""
        self._dispatch(LoginStarted())

    def login_failed(self, reason: str) -> None:
        """The login under way came to nothing; what was in force before still is."""
        self._dispatch(LoginFailed(reason))

    async def login(self, redeem: Redeem) -> TokenSet | Failure:
        """Put the tokens to use that `redeem` gives, once they are in the store. Runs on if its caller is cancelled."""
        await self._started.wait()
        return await asyncio.shield(self._begin(self._login(redeem)))

    async def logout(self) -> Wiped:
        """No token from now on. What is left of a refresh in flight is waited for, and wiped too.

        Runs on if its caller is cancelled.
        """
        await self._started.wait()
        self._dispatch(LoggedOut())
        return await asyncio.shield(self._begin(self._logout()))

    async def _login(self, redeem: Redeem) -> TokenSet | Failure:
        outcome = await self._protocol.login(redeem, generation_of(self._state))
        if isinstance(outcome, TokenSet):
            self._dispatch(TokenStored(outcome, self._draw()))
        return outcome

    async def _logout(self) -> Wiped:
        wiped = await self._protocol.logout(generation_of(self._state))
        self._dispatch(LoggedOut(wiped.generation))
        return wiped

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that `aclose` waits for."""
        task = asyncio.create_task(work)
        self._works.add(task)
        task.add_done_callback(self._works.discard)
        return task

    def _decide_call(self, min_valid_s: float) -> Verdict:
        self._dispatch(Ticked())
        now = self._now()
        verdict = decide_call(self._state, now, self._policy)
        if isinstance(verdict, Use) and verdict.token.expires_at < now + min_valid_s:
            phase = phase_of(self._state)
            until = phase.started_at + self._policy.caller_wait_s if isinstance(phase, InFlight) else now
            return Wait(until) if is_first(phase) and now < until else verdict
        return verdict

    def _decide_replay(self, rejected: int) -> Verdict:
        self._dispatch(CallRejected(rejected))
        return decide_replay(self._state, rejected, self._now(), self._policy)

    async def _settle(self, decide: Callable[[], Verdict], asker: Asker | None = None) -> TokenSet:
        await self._started.wait()
        while True:
            match decide():
                case Use(token=token):
                    return token
                case Wait(until=until):
                    await self._wait(until - self._now(), asker)
                case RefuseForNow(reason=reason, retry_after_s=retry_after_s):
                    raise TokenUnavailable(reason, retry_after_s)
                case RefuseForLogin(reason=reason):
                    raise LoginRequired(reason)

    async def _wait(self, limit_s: float, asker: Asker | None) -> None:
        """Until the refresh in flight has ended. A waiter that is cancelled cancels nothing else."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = asker
        timer = self._clock.call_later(max(limit_s, SHORTEST_SLEEP_S), lambda: _wake(waiter))
        try:
            await waiter
        finally:
            timer.cancel()
            del self._waiters[waiter]

    def _now(self) -> float:
        return effective_now(self._clock.wall(), self._clock.steady(), *self._since)

    def _dispatch(self, event: Event) -> None:
        before = self._state
        self._state, actions = transition(before, event, self._now(), self._policy)
        if self._state is not before:
            self._entered(before, event)
        for action in actions:
            match action:
                case StartRefresh():
                    self._start_refresh(action)
                case Settle():
                    for waiter in self._waiters:
                        _wake(waiter)

    def _entered(self, before: State, event: Event) -> None:
        state = self._state
        if token_of(state) is not token_of(before):
            self._since = (self._clock.wall(), self._clock.steady())
        self._fresh_until = (
            advisory_at(state.token, state.jitter, self._policy)
            if isinstance(state, Active) and not state.rejected
            else float("-inf")
        )
        self._arm()
        askers = tuple(asker for asker in self._waiters.values() if asker is not None)
        self._observer.changed(before, event, state, askers)

    def _start_refresh(self, action: StartRefresh) -> None:
        if not self._closed:
            self._task = asyncio.create_task(self._refresh(action, self._task))

    async def _refresh(self, action: StartRefresh, earlier: asyncio.Task[None] | None) -> None:
        """Run the protocol and report. `earlier` is a superseded refresh that may still be running."""
        if earlier is not None:
            await asyncio.wait([earlier])
        token, own = token_of(self._state), owned(self._state)
        if token is not None and generation_of(self._state) != action.basis:
            # Adopted since this was begun: it is not what was to be replaced, and must not be spent for it.
            self._dispatch(RefreshSucceeded(token, action.basis, self._draw()))
            return
        lent = token if token is not own else None
        urgent = action.rejected or token is None or self._now() >= mandatory_at(token, self._policy)
        try:
            outcome = await self._protocol.run(own, rejected=action.rejected, urgent=urgent, lent=lent)
        except Exception as exc:  # noqa: BLE001  # a defect in a port must not end the account's renewal
            self._observer.defect(exc)
            outcome = DEFECT
        match outcome:
            case Failure():
                self._dispatch(RefreshFailed(outcome, action.basis, self._draw()))
            case Tombstone(generation=generation):
                self._dispatch(LoggedOut(generation))
                self._dispatch(RefreshFailed(DEFECT, action.basis))  # ends the refresh if the logout did not
            case Borrowed(token=token):
                self._dispatch(TokenBorrowed(token, action.basis, self._draw()))
            case TokenSet():
                self._dispatch(RefreshSucceeded(outcome, action.basis, self._draw()))

    async def _adopt(self) -> None:
        """Take over what another process has saved. What cannot be read now is tried at the next tick."""
        try:
            stored = await self._protocol.store.load()
        except StoreError:
            return
        match stored:
            case TokenSet():
                self._dispatch(TokenStored(stored, self._draw()))
            case Tombstone(generation=generation):
                self._dispatch(LoggedOut(generation))

    def _arm(self) -> None:
        """Set the timer for what is due next, at most `poll_s` away."""
        if self._timer is not None:
            self._timer.cancel()
        if self._closed or self._resting:
            return
        due = next_wakeup(self._state, self._policy)
        delay_s = self._poll_s if due is None else min(self._poll_s, due - self._now())
        self._timer = self._clock.call_later(max(delay_s, SHORTEST_SLEEP_S), self._on_timer)

    def _on_timer(self) -> None:
        flying = isinstance(phase_of(self._state), InFlight)
        if not flying and self._protocol.store.changed():
            self._adoption = asyncio.create_task(self._adopt())
        changed = not flying and self._protocol.source.changed()
        self._dispatch(SourceChanged() if changed else Ticked())
        self._arm()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
