"""The life of one account's token, as a table: state, event and ``now`` in; state and actions out.

Nothing else may change a state. Freshness is derived from ``now`` and never stored. Instants are
epoch seconds; ``now`` never runs slower than real time (see `effective_now`), so a clock set back
cannot lengthen a token's life.
"""

from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Final

from bearerd.core.tokens import NOTHING, TokenSet


class FailureKind(StrEnum):
    """What a failed refresh means for the login."""

    TRANSIENT = "transient"  # network, 408, 429, 5xx, an unreadable reply: try again
    PERMANENT = "permanent"  # the client or the request is refused: a person must change something
    GRANT_REJECTED = "grant_rejected"  # invalid_grant: the login is over
    POSTPONED = "postponed"  # nothing was sent: the reply could not be kept, or it is not this process's turn
    UNCHANGED = "unchanged"  # the source has no other token than the one that an API refused
    OUTCOME_UNKNOWN = "outcome_unknown"  # the request left and no reply came: it may have been spent


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that gave no token. `reason` is a sentence for people and holds no secret.

    `error` is the server's own word for it (RFC 6749 section 5.2), where it gave one.
    """

    kind: FailureKind
    reason: str
    retry_after_s: float | None = None
    error: str | None = None


class Freshness(Enum):
    """How a token may be used at an instant."""

    FRESH = "fresh"
    ADVISORY = "advisory"  # use it, and refresh in the background
    MANDATORY = "mandatory"  # wait for the refresh; use it only if that fails
    EXPIRED = "expired"  # never use it


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of the lifecycle, in seconds unless they say fraction.

    `renewable` is True where a token can be had with no refresh token and no person
    (client credentials, a command, a file).
    """

    renewable: bool
    advisory_s: float = 300.0
    advisory_fraction: float = 0.20
    jitter_fraction: float = 0.10
    mandatory_s: float = 30.0
    mandatory_fraction: float = 0.05
    backoff_first_s: float = 1.0
    backoff_max_s: float = 300.0
    backoff_expired_s: float = 30.0
    caller_wait_s: float = 10.0
    future_tolerance_s: float = 60.0


# ---------------------------------------------------------------- states


@dataclass(frozen=True, slots=True)
class Idle:
    """No refresh under way and no failure to wait out."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """A refresh of generation `basis` runs since `started_at`; `failures` before it failed in a row."""

    started_at: float
    basis: int
    failures: int = 0
    reply_lost: bool = False
    last: Failure | None = None


@dataclass(frozen=True, slots=True)
class Backoff:
    """The last attempt failed at `failed_at`; no other before `retry_at(...)`.

    `not_before` is what the server asked for by Retry-After, and is kept to; `until` is our own choice.
    """

    failed_at: float
    until: float
    not_before: float
    failures: int
    failure: Failure
    reply_lost: bool = False


RefreshPhase = Idle | InFlight | Backoff
IDLE: Final = Idle()


@dataclass(frozen=True, slots=True)
class NoToken:
    """Nothing yet."""

    phase: RefreshPhase = IDLE


@dataclass(frozen=True, slots=True)
class LoginPending:
    """A person is logging in. A token that is still good goes on being used; `forgotten` as below."""

    token: TokenSet | None
    reason: str
    forgotten: int = 0


@dataclass(frozen=True, slots=True)
class Active:
    """A token. `jitter` in [0, 1) moves its advisory instant; `rejected` says an API refused it.

    Where the token is borrowed from a sibling, `own` is what the account has of its own: refreshes go on from there.
    """

    token: TokenSet
    jitter: float = 0.0
    rejected: bool = False
    phase: RefreshPhase = IDLE
    own: TokenSet | None = None


@dataclass(frozen=True, slots=True)
class LoginRequired:
    """Only a person can go on. The last access token, if any, is used until it expires.

    `forgotten` is the generation of what was given up, so that what comes late of it stays superseded.
    """

    reason: str
    token: TokenSet | None = None
    forgotten: int = 0


State = NoToken | LoginPending | Active | LoginRequired

# ---------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Started:
    """The account is put to use, with what the store holds."""

    token: TokenSet | None
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenStored:
    """A login, or another process, put a token in the store."""

    token: TokenSet
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed: the timer, or a call that found the token not fresh."""


@dataclass(frozen=True, slots=True)
class SourceChanged:
    """What tokens come from (a file) is not what it was; reading it again spends nothing."""


@dataclass(frozen=True, slots=True)
class CallRejected:
    """An API answered 401 to the token of this generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class RefreshSucceeded:
    """The refresh that began from generation `basis` saved, or found in the store, `token`."""

    token: TokenSet
    basis: int
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenBorrowed:
    """The refresh that began from generation `basis` could not be made, and a sibling lent `token` meanwhile."""

    token: TokenSet
    basis: int
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class RefreshFailed:
    """The refresh that began from generation `basis` gave no token."""

    failure: Failure
    basis: int
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class LoginStarted:
    """A person has begun to log in."""


@dataclass(frozen=True, slots=True)
class LoginFailed:
    """The login came to nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """The login was given up on purpose; by another process where `generation` is its tombstone's."""

    generation: int | None = None


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """What the store holds cannot be used. `reason` names the cure."""

    reason: str


RefreshEvent = RefreshSucceeded | TokenBorrowed | RefreshFailed
LoginEvent = LoginStarted | LoginFailed | LoggedOut | StoreFailed
Event = Started | TokenStored | Ticked | SourceChanged | CallRejected | RefreshEvent | LoginEvent

# ---------------------------------------------------------------- actions


@dataclass(frozen=True, slots=True)
class StartRefresh:
    """Begin the one refresh that may be in flight, from generation `basis`.

    `rejected` says that an API refused that generation: the same access token again is no success. From the mandatory
    instant on it is one: there may be no other, and nothing but that API's word against it.
    """

    basis: int
    rejected: bool


@dataclass(frozen=True, slots=True)
class Settle:
    """Wake whoever waits for a refresh: the state has changed for them."""


Action = StartRefresh | Settle
Step = tuple[State, tuple[Action, ...]]

# ---------------------------------------------------------------- time

_REFUSALS: Final = frozenset({FailureKind.PERMANENT, FailureKind.GRANT_REJECTED})
_BY_MANDATORY: Final = frozenset({FailureKind.POSTPONED, FailureKind.UNCHANGED})


def effective_now(wall: float, steady: float, since_wall: float, since_steady: float) -> float:
    """Wall time that has not run slower than the steady clock since the token was taken in.

    A clock set back would otherwise lengthen the token's life. A clock set forward, or a suspend the steady
    clock slept through, shows in `wall` itself.
    """
    return max(wall, since_wall + (steady - since_steady))


def advisory_at(token: TokenSet, jitter: float, policy: Policy) -> float:
    """When a background refresh begins: the window before expiry, and up to a tenth of it earlier."""
    window = min(policy.advisory_s, policy.advisory_fraction * token.lifetime_s)
    return token.expires_at - window * (1 + policy.jitter_fraction * jitter)


def mandatory_at(token: TokenSet, policy: Policy) -> float:
    """When calls wait for the refresh rather than race the expiry."""
    return token.expires_at - min(policy.mandatory_s, policy.mandatory_fraction * token.lifetime_s)


def freshness(token: TokenSet, jitter: float, now: float, policy: Policy) -> Freshness:
    """How `token` may be used at `now`. One obtained far in the future cannot be judged: refresh it."""
    if now >= token.expires_at:
        return Freshness.EXPIRED
    if now >= mandatory_at(token, policy) or now < token.obtained_at - policy.future_tolerance_s:
        return Freshness.MANDATORY
    if now >= advisory_at(token, jitter, policy):
        return Freshness.ADVISORY
    return Freshness.FRESH


def retry_at(backoff: Backoff, token: TokenSet | None, policy: Policy) -> float:
    """When the next attempt is due: our own delay is cut to 30 s once the token has expired.

    A client that is refused for good is not retried faster for it. What was postponed, or to have another token than one
    that was refused, is due by the mandatory instant at the latest.
    """
    if backoff.failure.kind in _REFUSALS:
        return backoff.until
    if backoff.failure.kind in _BY_MANDATORY and token:
        return min(backoff.until, max(mandatory_at(token, policy), backoff.failed_at))
    expired_at = max(token.expires_at, backoff.failed_at) if token else backoff.failed_at
    return max(backoff.not_before, min(backoff.until, expired_at + policy.backoff_expired_s))


def was_put_off(backoff: Backoff) -> bool:
    """Whether nothing was tried because the token could still be used. Once an API has refused it, that is over."""
    return backoff.failure.kind is FailureKind.POSTPONED


def next_wakeup(state: State, policy: Policy) -> float | None:
    """The instant at which `Ticked` is due, or None where only an event from outside can help."""
    match state:
        case NoToken(phase=Backoff() as backoff):
            return retry_at(backoff, None, policy)
        case Active(token=token, rejected=rejected, phase=Backoff() as backoff):
            return (
                backoff.failed_at if rejected and was_put_off(backoff) else retry_at(backoff, token, policy)
            )
        case Active(token=token, jitter=jitter, phase=Idle()):
            return advisory_at(token, jitter, policy) if _can_refresh(state, policy) else token.expires_at
        case _:
            return None


# ---------------------------------------------------------------- transitions

REPLY_LOST: Final = "the reply to a refresh was lost on the way and the old refresh token is spent"
LOGGED_OUT: Final = "logged out"
NEVER_LOGGED_IN: Final = "nobody has logged in yet"
NOT_RENEWABLE: Final = "the access token has expired and the server gave no refresh token"
SLOW: Final = "the token endpoint has not answered yet"


def transition(state: State, event: Event, now: float, policy: Policy) -> Step:
    """The table. Every event is legal in every state; one that means nothing there changes nothing."""
    match event:
        case Started(token=token, jitter=jitter):
            return _tick(Active(token, jitter) if token else state, now, policy)
        case Ticked():
            return _tick(state, now, policy)
        case TokenStored():
            return _token_stored(state, event)
        case SourceChanged():
            return _begin(state, now, policy) if _can_refresh(state, policy) else (state, ())
        case CallRejected(generation=generation):
            return _call_rejected(state, generation, now, policy)
        case RefreshSucceeded() | TokenBorrowed() | RefreshFailed():
            return _refresh_ended(state, event, now, policy)
        case _:
            return _login_event(state, event)


def _token_stored(state: State, event: TokenStored) -> Step:
    """A higher generation wins; a refresh in flight runs on and is found superseded when it ends.

    What was borrowed is replaced by its own generation too, once its lender has saved it with its refresh token.
    """
    lent = _lent(state)
    if event.token.generation <= generation_of(state) - (1 if lent else 0):
        return state, ()
    phase = phase_of(state)
    kept = phase if isinstance(phase, InFlight) else IDLE
    return Active(event.token, event.jitter, _is_refused(state, event.token), kept), (Settle(),)


def _is_refused(state: State, token: TokenSet) -> bool:
    """Whether `token` is the very one, borrowed so far, that an API has refused."""
    lent = _lent(state)
    return (
        lent is not None
        and isinstance(state, Active)
        and state.rejected
        and lent.access_token == token.access_token
    )


def _call_rejected(state: State, generation: int, now: float, policy: Policy) -> Step:
    """A refusal of the current generation forces one refresh; of an older one, nothing."""
    if not isinstance(state, Active) or state.token.generation != generation:
        return state, ()
    return _tick(replace(state, rejected=True), now, policy)


def _refresh_ended(state: State, event: RefreshEvent, now: float, policy: Policy) -> Step:
    """What a refresh gave counts only where it is still the one in flight and its basis the one in force."""
    phase = phase_of(state)
    if not isinstance(phase, InFlight) or phase.basis != event.basis:
        return state, ()
    if generation_of(state) != event.basis:
        return _with_phase(state, IDLE), (Settle(),)
    if isinstance(event, RefreshSucceeded):
        return Active(event.token, event.jitter), (Settle(),)
    if isinstance(event, TokenBorrowed):
        return Active(event.token, event.jitter, own=owned(state) or NOTHING), (Settle(),)
    return _refresh_failed(state, phase, event, now, policy), (Settle(),)


def _refresh_failed(state: State, phase: InFlight, event: RefreshFailed, now: float, policy: Policy) -> State:
    """Only a rejected grant ends a login, and only where there is one to end.

    What had been borrowed ends with it, and its generation, which no store has, is forgotten: the next login may
    come by the same.
    """
    kind = event.failure.kind
    lost = phase.reply_lost or kind is FailureKind.OUTCOME_UNKNOWN
    if kind is FailureKind.GRANT_REJECTED and not policy.renewable:
        reason = REPLY_LOST if lost else event.failure.reason
        if _lent(state):
            return LoginRequired(reason, forgotten=own_generation_of(state))
        return LoginRequired(reason, token_of(state))
    return _with_phase(state, _back_off(phase, event, lost, now, policy))


def _login_event(state: State, event: LoginEvent) -> Step:
    match event, state:
        case LoggedOut(generation=None), _:
            return LoginRequired(LOGGED_OUT, forgotten=generation_of(state) + 1), (Settle(),)
        case LoggedOut(generation=int() as generation), _ if generation > own_generation_of(state):
            return LoginRequired(LOGGED_OUT, forgotten=generation), (Settle(),)
        case StoreFailed(reason=reason), NoToken():
            return LoginRequired(reason), (Settle(),)
        case LoginStarted(), LoginRequired(reason=reason, token=token, forgotten=forgotten):
            return LoginPending(token, reason, forgotten), ()
        case LoginStarted(), NoToken():
            return LoginPending(None, NEVER_LOGGED_IN), ()
        case LoginFailed(reason=reason), LoginPending(token=token, forgotten=forgotten):
            return LoginRequired(reason, token, forgotten), (Settle(),)
        case _:
            return state, ()


def _tick(state: State, now: float, policy: Policy) -> Step:
    """Begin a refresh if one is wanted, possible and not to be waited for."""
    phase = phase_of(state)
    if not _wants_refresh(state, now, policy):
        return state, ()
    if not _can_refresh(state, policy):
        return _without_refresh(state, now)
    if isinstance(phase, Backoff) and now < (next_wakeup(state, policy) or now):
        return state, ()
    return _begin(state, now, policy)


def _wants_refresh(state: State, now: float, policy: Policy) -> bool:
    match state:
        case NoToken():
            return True
        case Active(token=token, jitter=jitter, rejected=rejected):
            return rejected or freshness(token, jitter, now, policy) is not Freshness.FRESH
        case _:
            return False


def _can_refresh(state: State, policy: Policy) -> bool:
    match state:
        case NoToken():
            return policy.renewable
        case Active():
            own = owned(state)
            return policy.renewable or (own is not None and own.refresh_token is not None)
        case _:
            return False


def _without_refresh(state: State, now: float) -> Step:
    """Nothing can be done about a token but use it to its end."""
    match state:
        case Active(token=token) if now < token.expires_at:
            return state, ()
        case Active():
            return LoginRequired(NOT_RENEWABLE, forgotten=generation_of(state)), (Settle(),)
        case _:
            return LoginRequired(NEVER_LOGGED_IN), (Settle(),)


def _begin(state: State, now: float, policy: Policy) -> Step:
    basis = generation_of(state)
    rejected = isinstance(state, Active) and state.rejected and now < mandatory_at(state.token, policy)
    match phase_of(state):
        case InFlight():
            return state, ()
        case Backoff(failure=Failure(kind=FailureKind.UNCHANGED)) if not rejected:
            phase = InFlight(now, basis)  # what failed was to have another token, and calls did not need that
        case Backoff(failures=failures, reply_lost=reply_lost, failure=failure):
            phase = InFlight(now, basis, failures, reply_lost, failure)
        case _:
            phase = InFlight(now, basis)
    return _with_phase(state, phase), (StartRefresh(basis, rejected),)


def _back_off(phase: InFlight, event: RefreshFailed, lost: bool, now: float, policy: Policy) -> Backoff:
    """Full jitter over a delay that doubles; a refusal for good goes straight to the longest delay."""
    ceiling = min(policy.backoff_max_s, policy.backoff_first_s * 2 ** min(phase.failures, 30))
    delay = policy.backoff_max_s if event.failure.kind in _REFUSALS else ceiling * (1 - event.jitter)
    asked = min(event.failure.retry_after_s or 0.0, policy.backoff_max_s)
    return Backoff(now, now + delay, now + asked, phase.failures + 1, event.failure, lost)


def token_of(state: State) -> TokenSet | None:
    """The token the state holds, usable or not."""
    return None if isinstance(state, NoToken) else state.token


def owned(state: State) -> TokenSet | None:
    """What the account has of its own, from which a refresh goes on: the token, unless that is borrowed."""
    return state.own if isinstance(state, Active) and state.own else token_of(state)


def _lent(state: State) -> TokenSet | None:
    """The token, if it is borrowed."""
    return state.token if isinstance(state, Active) and state.own else None


def own_generation_of(state: State) -> int:
    """The last generation that is known to have been saved, or to be this process's to save."""
    return state.own.generation if isinstance(state, Active) and state.own else generation_of(state)


def generation_of(state: State) -> int:
    """The generation in force, or the last one that was; 0 where there never was any."""
    token = token_of(state)
    if token is not None:
        return token.generation
    return state.forgotten if isinstance(state, LoginRequired | LoginPending) else 0


def phase_of(state: State) -> RefreshPhase:
    """Where the account is in refreshing; `Idle` in states that do not refresh."""
    return state.phase if isinstance(state, NoToken | Active) else IDLE


def _with_phase(state: State, phase: RefreshPhase) -> State:
    return replace(state, phase=phase) if isinstance(state, NoToken | Active) else state


# ---------------------------------------------------------------- what a call may do


@dataclass(frozen=True, slots=True)
class Use:
    """Send this token."""

    token: TokenSet


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for the refresh in flight, at most until this instant."""

    until: float


@dataclass(frozen=True, slots=True)
class RefuseForNow:
    """No token before the next attempt, `retry_after_s` from now."""

    reason: str
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class RefuseForLogin:
    """No token until a person has logged in."""

    reason: str


Verdict = Use | Wait | RefuseForNow | RefuseForLogin


def decide_loan(state: State, now: float) -> TokenSet | None:
    """What a sibling may be lent: the token, if it has neither expired nor been refused by an API."""
    token = token_of(state)
    refused = isinstance(state, Active) and state.rejected
    return token if token is not None and now < token.expires_at and not refused else None


def is_first(phase: RefreshPhase) -> bool:
    """Whether an attempt is in flight that calls wait for. One that was put off before it has told them nothing."""
    if not isinstance(phase, InFlight):
        return False
    return phase.failures == 0 or (phase.last is not None and phase.last.kind is FailureKind.POSTPONED)


def decide_call(state: State, now: float, policy: Policy) -> Verdict:
    """What a call does at `now`. Call it after the `Ticked` that may begin a refresh.

    A valid token is used with no wait until its mandatory instant. From there on, or where an API has refused
    it, calls wait for the first attempt only (see `is_first`); once one has failed, a token still valid is used, and with
    none they are refused at once.
    """
    token = token_of(state)
    usable = token is not None and now < token.expires_at
    phase = phase_of(state)
    if token is not None and usable and not _must_wait(state, token, now, policy):
        return Use(token)
    if isinstance(phase, InFlight) and is_first(phase) and now < phase.started_at + policy.caller_wait_s:
        return Wait(phase.started_at + policy.caller_wait_s)
    if token is not None and usable:
        return Use(token)
    return _refuse(state, phase, now, policy)


def decide_replay(state: State, rejected: int, now: float, policy: Policy) -> Verdict:
    """What a call does whose token of generation `rejected` got a 401. Call it after `CallRejected`."""
    phase = phase_of(state)
    if generation_of(state) != rejected:
        return decide_call(state, now, policy)
    if isinstance(phase, InFlight) and now < phase.started_at + policy.caller_wait_s:
        return Wait(phase.started_at + policy.caller_wait_s)
    return _refuse(state, phase, now, policy)


def _must_wait(state: State, token: TokenSet, now: float, policy: Policy) -> bool:
    if not isinstance(state, Active):
        return False
    return state.rejected or freshness(token, state.jitter, now, policy) is Freshness.MANDATORY


def _refuse(state: State, phase: RefreshPhase, now: float, policy: Policy) -> Verdict:
    match phase:
        case Backoff() as backoff:
            return RefuseForNow(
                backoff.failure.reason, max(retry_at(backoff, token_of(state), policy) - now, 0)
            )
        case InFlight(last=last):
            return RefuseForNow(last.reason if last else SLOW, 1.0)
        case _:
            reason = state.reason if isinstance(state, LoginRequired | LoginPending) else NEVER_LOGGED_IN
            return RefuseForLogin(reason)
