"""Accounts as the login service has them: one that a person may log in to, one that nobody may, and nothing else around them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from authorization_servers import ISSUER, FakeAuthorizationServer
from bearerd.core.accounts import Grant, OAuthSource
from bearerd.core.calls import Asker
from bearerd.core.lifecycle import Event, Failure, Policy, State
from bearerd.core.redirects import Landing
from bearerd.core.tokens import Granted, TokenSet
from bearerd.stores.memory import MemoryLock, MemoryStore
from bearerd.tokens.logins import Party
from bearerd.tokens.manager import TokenManager
from bearerd.tokens.refresh import RefreshProtocol
from clocks import FakeClock

BASE: Final = "http://127.0.0.1:6750"
LANDING: Final = Landing(f"{BASE}/-/callback", BASE, "/-/callback")
DONE: Final = {"done": {"account": "work", "subject": "someone", "expires_at": 1_000_600.0, "problem": None}}
"""How a login ends that comes to something."""

_SOURCE: Final = OAuthSource(Grant.AUTHORIZATION_CODE, "cli", issuer=ISSUER)


class _Unused:
    """A token source, and an observer, of which nothing is wanted here."""

    async def obtain(self, current: TokenSet | None) -> Granted | Failure:
        raise AssertionError(current)

    async def aclose(self) -> None: ...

    def unsaved(self, reason: str | None) -> None:
        raise AssertionError(reason)

    def defect(self, exc: Exception) -> None:
        raise exc


class _Source(_Unused):
    def changed(self) -> bool:
        return False


class _Observer(_Unused):
    def changed(self, before: State, event: Event, after: State, askers: Sequence[Asker]) -> None: ...


def build_parties(server: FakeAuthorizationServer, clock: FakeClock) -> dict[str, Party]:
    """An account called work, and one called closed at which nobody may log in. Their managers are not started."""
    sources = {"work": _SOURCE, "closed": replace(_SOURCE, login=False)}
    return {name: _build_party(source, server, clock) for name, source in sources.items()}


def _build_party(source: OAuthSource, server: FakeAuthorizationServer, clock: FakeClock) -> Party:
    protocol = RefreshProtocol(_Source(), MemoryStore(), MemoryLock(), clock, _Observer())
    manager = TokenManager(protocol, Policy(renewable=False), _Observer(), draw=lambda: 0.0)
    return Party(source, server, manager)


def is_under_way(clock: FakeClock) -> bool:
    """Whether a login is: it has a timer of its own, and the accounts have none beyond 30 s."""
    return any(due > 31 for due in clock.armed)
