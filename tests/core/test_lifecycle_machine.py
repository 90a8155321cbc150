"""The lifecycle under arbitrary histories: the invariants that no order of events may break."""

from collections import Counter
from dataclasses import replace
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bearerd.core.lifecycle import (
    Active,
    Backoff,
    CallRejected,
    Event,
    Failure,
    FailureKind,
    Freshness,
    InFlight,
    LoggedOut,
    LoginFailed,
    LoginRequired,
    LoginStarted,
    NoToken,
    Policy,
    RefreshFailed,
    RefreshSucceeded,
    SourceChanged,
    Started,
    StartRefresh,
    State,
    Ticked,
    TokenBorrowed,
    TokenStored,
    Use,
    Wait,
    advisory_at,
    decide_call,
    freshness,
    generation_of,
    next_wakeup,
    own_generation_of,
    owned,
    phase_of,
    retry_at,
    token_of,
    transition,
    was_put_off,
)
from bearerd.core.redaction import Secret
from bearerd.core.tokens import TokenSet

JITTERS = st.floats(0.0, 0.999)
LIFETIMES = st.sampled_from([2.0, 10.0, 60.0, 600.0, 3600.0])


class Lifecycle(RuleBasedStateMachine):
    """An account, its clock, and a server that answers refreshes late, wrongly or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.state: State = NoToken()
        self.policy = Policy(renewable=True)
        self.flying: list[StartRefresh] = []
        self.orphans: list[StartRefresh] = []  # refreshes whose account was logged out meanwhile
        self.forced: Counter[Secret] = Counter()
        self.failed: Counter[int] = Counter()
        self.lent: set[Secret] = set()
        self.count = count()

    @initialize(renewable=st.booleans(), stored=st.booleans(), lifetime_s=LIFETIMES, jitter=JITTERS)
    def begin(self, *, renewable: bool, stored: bool, lifetime_s: float, jitter: float) -> None:
        self.policy = Policy(renewable=renewable)
        self.feed(Started(self.issue(lifetime_s) if stored else None, jitter))

    # ---- what may happen

    @rule(seconds=st.sampled_from([0.01, 0.5, 3.0, 29.0, 100.0, 4000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.feed(Ticked())

    @rule()
    def time_passes_to_the_next_wakeup(self) -> None:
        due = next_wakeup(self.state, self.policy)
        if due is not None:
            self.now = max(self.now, due)
        self.feed(Ticked())

    @rule()
    def time_passes_to_the_expiry(self) -> None:
        token = token_of(self.state)
        self.now = max(self.now, token.expires_at if token else 0.0)

    @rule(behind=st.integers(0, 2))
    def call_is_rejected(self, behind: int) -> None:
        self.feed(CallRejected(generation_of(self.state) - behind))

    @rule()
    def source_changes(self) -> None:
        self.feed(SourceChanged())

    def land(self, which: int) -> StartRefresh:
        """A refresh that ends now: the one in flight, or an orphan."""
        refreshes = self.flying if self.flying and (which % 2 or not self.orphans) else self.orphans
        return refreshes.pop(which % len(refreshes))

    @precondition(lambda self: self.flying or self.orphans)
    @rule(lifetime_s=LIFETIMES, jitter=JITTERS, which=st.integers(0, 9), behind=st.integers(0, 1))
    def refresh_succeeds(self, lifetime_s: float, jitter: float, which: int, behind: int) -> None:
        """What it gives is newer than what the account has of its own; not always than what it had borrowed."""
        action = self.land(which)
        generation = max(own_generation_of(self.state), action.basis - behind) + 1
        self.feed(RefreshSucceeded(self.issue(lifetime_s, generation), action.basis, jitter))

    @precondition(lambda self: self.flying or self.orphans)
    @rule(lifetime_s=LIFETIMES, jitter=JITTERS, which=st.integers(0, 9), ahead=st.integers(0, 2))
    def sibling_lends(self, lifetime_s: float, jitter: float, which: int, ahead: int) -> None:
        action = self.land(which)
        token = self.issue(lifetime_s, action.basis + 1 + ahead)
        self.lent.add(token.access_token)
        self.feed(TokenBorrowed(replace(token, refresh_token=None), action.basis, jitter))

    @precondition(lambda self: self.flying or self.orphans)
    @rule(
        kind=st.sampled_from(FailureKind),
        jitter=JITTERS,
        asked=st.none() | st.floats(0, 1000),
        which=st.integers(0, 9),
    )
    def refresh_fails(self, kind: FailureKind, jitter: float, asked: float | None, which: int) -> None:
        action = self.land(which)
        self.failed[action.basis] += 1
        self.feed(RefreshFailed(Failure(kind, str(kind), asked), action.basis, jitter))

    @rule(lifetime_s=LIFETIMES, jitter=JITTERS, behind=st.integers(-1, 2))
    def somebody_stores_a_token(self, lifetime_s: float, jitter: float, behind: int) -> None:
        token = self.issue(lifetime_s, generation=max(1, generation_of(self.state) - behind))
        self.feed(TokenStored(token, jitter))

    @rule(behind=st.integers(-1, 2))
    def somebody_logs_out(self, behind: int) -> None:
        self.feed(LoggedOut(generation_of(self.state) - behind))

    @rule(event=st.sampled_from([LoginStarted(), LoginFailed("denied"), LoggedOut()]))
    def person_acts(self, event: Event) -> None:
        self.feed(event)

    # ---- how it is driven

    def issue(self, lifetime_s: float, generation: int = 1) -> TokenSet:
        name = Secret(f"a{next(self.count)}")
        return TokenSet(generation, name, self.now, self.now + lifetime_s, Secret("r"))

    def feed(self, event: Event) -> None:
        before = self.state
        self.state, actions = transition(before, event, self.now, self.policy)
        self.check_what_ends_a_login(before, event)
        self.check_generation(before, event)
        if isinstance(event, LoggedOut | LoginStarted) and not isinstance(phase_of(self.state), InFlight):
            self.orphans += self.flying
            self.flying = []
        for action in actions:
            if isinstance(action, StartRefresh):
                self.check_start(before, event, action)
                self.flying.append(action)

    # ---- what must hold

    def check_start(self, before: State, event: Event, action: StartRefresh) -> None:
        """One in flight; none before its window or its backoff; one per rejected token, and its retries."""
        assert not self.flying
        assert isinstance(phase_of(self.state), InFlight)
        if action.rejected:
            token = token_of(self.state)
            assert token is not None
            self.forced[token.access_token] += 1
            assert self.forced[token.access_token] <= 1 + self.failed[action.basis]
        if isinstance(event, SourceChanged):
            return
        phase, token = phase_of(before), token_of(self.state)
        if isinstance(phase, Backoff) and not (action.rejected and was_put_off(phase)):
            assert self.now >= retry_at(phase, token, self.policy)
        if isinstance(self.state, Active) and not action.rejected:
            assert self.now >= advisory_at(self.state.token, self.state.jitter, self.policy)

    def check_what_ends_a_login(self, before: State, event: Event) -> None:
        if not isinstance(self.state, LoginRequired) or isinstance(before, LoginRequired):
            return
        token, own = token_of(before), owned(before)
        assert (
            isinstance(event, LoggedOut | LoginFailed)
            or (_is_rejection(event) and not self.policy.renewable)
            or (isinstance(event, Started) and event.token is None and not self.policy.renewable)
            or (token is not None and own is not None and own.refresh_token is None)
        )
        if token is not None and not isinstance(event, LoggedOut | LoginFailed | RefreshFailed):
            assert self.now >= token.expires_at

    def check_generation(self, before: State, event: Event) -> None:
        """Nothing but a new start goes back to an older token, not even a logout and what comes after it.

        What was borrowed counts for nothing in this once it is given back: no store may ever have it.
        """
        if isinstance(event, Started):
            return
        assert own_generation_of(self.state) >= own_generation_of(before)
        if not _is_borrowed(before):
            assert generation_of(self.state) >= generation_of(before)
            if generation_of(self.state) == generation_of(before):
                assert token_of(self.state) in {token_of(before), None} or _is_borrowed(self.state)

    @invariant()
    def no_expired_token_is_handed_out(self) -> None:
        verdict = decide_call(self.state, self.now, self.policy)
        if isinstance(verdict, Use):
            assert self.now < verdict.token.expires_at

    @invariant()
    def a_valid_token_is_used_without_a_wait(self) -> None:
        match self.state:
            case Active(token=token, jitter=jitter, rejected=False):
                if freshness(token, jitter, self.now, self.policy) in {Freshness.FRESH, Freshness.ADVISORY}:
                    assert decide_call(self.state, self.now, self.policy) == Use(token)

    @invariant()
    def whoever_waits_waits_for_something(self) -> None:
        verdict = decide_call(self.state, self.now, self.policy)
        if isinstance(verdict, Wait):
            assert isinstance(phase_of(self.state), InFlight)
            assert self.now < verdict.until <= self.now + self.policy.caller_wait_s

    @invariant()
    def the_timer_never_stops_while_something_can_be_done(self) -> None:
        if isinstance(self.state, Active) and not isinstance(self.state.phase, InFlight):
            assert next_wakeup(self.state, self.policy) is not None

    @invariant()
    def what_is_borrowed_is_never_what_a_refresh_goes_on_from(self) -> None:
        own = owned(self.state)
        assert own is None or own.access_token not in self.lent

    @invariant()
    def what_a_lender_saves_is_adopted(self) -> None:
        if _is_borrowed(self.state):
            saved = self.issue(3600.0, generation_of(self.state))
            state, _ = transition(self.state, TokenStored(saved), self.now, self.policy)
            assert (token_of(state), owned(state)) == (saved, saved)

    @invariant()
    def a_stored_login_brings_the_account_back(self) -> None:
        login = self.issue(3600.0, generation_of(self.state) + 1)
        state, _ = transition(self.state, TokenStored(login), self.now, self.policy)
        assert decide_call(state, self.now, self.policy) == Use(login)


def _is_borrowed(state: State) -> bool:
    return owned(state) is not token_of(state)


def _is_rejection(event: Event) -> bool:
    return isinstance(event, RefreshFailed) and event.failure.kind is FailureKind.GRANT_REJECTED


Lifecycle.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestLifecycle = Lifecycle.TestCase
