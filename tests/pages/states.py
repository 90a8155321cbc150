"""What can follow what in the life of an account: every event is given to every state that the table itself leads to."""

from collections.abc import Iterable, Iterator
from typing import Final

from bearerd.core.lifecycle import (
    NEVER_LOGGED_IN,
    NOT_RENEWABLE,
    Active,
    Backoff,
    CallRejected,
    Event,
    Failure,
    FailureKind,
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
    State,
    StoreFailed,
    Ticked,
    TokenBorrowed,
    TokenStored,
    generation_of,
    phase_of,
    token_of,
    transition,
)
from bearerd.core.redaction import Secret
from bearerd.core.tokens import TokenSet

Steps = dict[tuple[str, str], list[str]]
"""By the names of two states: what leads from the one to the other."""

POLICIES: Final = (Policy(renewable=False), Policy(renewable=True))
_LIFETIME_S: Final = 100.0
INSTANTS: Final = (10.0, 85.0, 97.0, 150.0, 1000.0)  # fresh, advisory, mandatory, expired, past every pause
WORDS: Final[dict[type[Event], str]] = {
    Started: "in the vault",
    TokenStored: "a login is stored",
    Ticked: "its time has come",
    SourceChanged: "its file has changed",
    CallRejected: "an API says 401",
    RefreshSucceeded: "a new token",
    TokenBorrowed: "a borrowed token",
    RefreshFailed: "no new token",
    LoginStarted: "a login begins",
    LoginFailed: "the login fails",
    LoggedOut: "a logout",
    StoreFailed: "the vault is no good",
}
_REASONS: Final = {NEVER_LOGGED_IN: "nobody has logged in", NOT_RENEWABLE: "expired, not renewable"}
_GRANT_REJECTED: Final = "invalid_grant"
_SUPERSEDED: Final = "a login is stored meanwhile"


def read_states() -> Steps:
    """Between the states of an account."""
    return _gather(
        (type(before).__name__, _word(event, after), type(after).__name__)
        for before, event, after in _walk()
        if type(before) is not type(after)
    )


def read_phases() -> Steps:
    """Between the phases of a refresh, where the state stays."""
    return _gather(
        (type(phase_of(before)).__name__, _word_of_phase(before, event), type(phase_of(after)).__name__)
        for before, event, after in _walk()
        if type(before) is type(after) and type(phase_of(before)) is not type(phase_of(after))
    )


def _gather(steps: Iterable[tuple[str, str, str]]) -> Steps:
    """In the order of `WORDS`."""
    order = [*WORDS.values(), *_REASONS.values(), _GRANT_REJECTED, _SUPERSEDED]
    found: dict[tuple[str, str], set[str]] = {}
    for before, word, after in steps:
        found.setdefault((before, after), set()).add(word)
    return {pair: sorted(words, key=order.index) for pair, words in sorted(found.items())}


def _word(event: Event, after: State) -> str:
    """A login that is over says why."""
    reason = _REASONS.get(after.reason) if isinstance(after, LoginRequired) else None
    return reason or (_GRANT_REJECTED if isinstance(event, RefreshFailed) else _word_of(event))


def _word_of(event: Event) -> str:
    """To find nothing at the start is a tick and no more."""
    return WORDS[Ticked if event == Started(None) else type(event)]


def _word_of_phase(before: State, event: Event) -> str:
    phase = phase_of(before)
    superseded = isinstance(phase, InFlight) and phase.basis != generation_of(before)
    return _SUPERSEDED if superseded else _word_of(event)


def _walk() -> Iterator[tuple[State, Event, State]]:
    for policy in POLICIES:
        yield from _walk_under(policy)


def _walk_under(policy: Policy) -> Iterator[tuple[State, Event, State]]:
    """Each kind of state once."""
    kinds = set()
    waiting: list[State] = [NoToken()]
    while waiting:
        state = waiting.pop()
        for event, now in ((event, now) for event in read_events(state) for now in INSTANTS):
            after, _ = transition(state, event, now, policy)
            yield state, event, after
            if _kind(after) not in kinds:
                kinds.add(_kind(after))
                waiting.append(after)


def _kind(state: State) -> tuple[object, ...]:
    """What a table may look at, but for instants."""
    token, phase = token_of(state), phase_of(state)
    return (
        type(state),
        token and token.refresh_token,
        isinstance(state, Active) and (state.rejected, state.own is None),
        type(phase),
        isinstance(phase, InFlight) and phase.basis == generation_of(state),
        phase.failure.kind if isinstance(phase, Backoff) else None,
    )


def read_events(state: State) -> Iterator[Event]:
    """One of each that may make a difference. `Started` is for the state before all others: an account is put to use once."""
    if state == NoToken():
        yield from (Started(None), *map(Started, _tokens(1)))
    phase, generation = phase_of(state), generation_of(state)
    basis = phase.basis if isinstance(phase, InFlight) else generation
    yield from (Ticked(), SourceChanged(), CallRejected(generation))
    yield from (
        LoginStarted(),
        LoginFailed("it came to nothing"),
        LoggedOut(),
        StoreFailed("it cannot be read"),
    )
    for token in _tokens(generation + 1):
        yield from (TokenStored(token), RefreshSucceeded(token, basis), TokenBorrowed(token, basis))
    yield from (RefreshFailed(Failure(kind, "it was refused"), basis) for kind in FailureKind)


def _tokens(generation: int) -> Iterator[TokenSet]:
    for refresh_token in (None, Secret("made-up")):
        yield TokenSet(generation, Secret("made-up"), 0.0, _LIFETIME_S, refresh_token)
