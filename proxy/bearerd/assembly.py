"""How an account is put together: its source, its store, its lock, its manager."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakValueDictionary

import structlog

from bearerd.control.rendezvous import VaultEntry
from bearerd.control.siblings import VaultSiblings
from bearerd.core.accounts import Account, CommandSource, FileSource, OAuthSource, StaticSource
from bearerd.core.calls import Asker
from bearerd.core.configuration import Store
from bearerd.core.lifecycle import (
    Event,
    LoggedOut,
    LoginRequired,
    Policy,
    RefreshFailed,
    RefreshSucceeded,
    State,
    TokenBorrowed,
    TokenStored,
)
from bearerd.core.redaction import Secret
from bearerd.core.targets import Route
from bearerd.core.vault import Key, build_identity
from bearerd.errors import ConfigError, StoreError
from bearerd.meters import AccountMeter, Histogram, Meters
from bearerd.oauth.endpoint import OAuthTokenSource
from bearerd.oauth.exchange import open_session
from bearerd.oauth.server import OAuthServer
from bearerd.ports import Clock, RefreshLock, Timer, TokenSource, TokenStore
from bearerd.privacy import frames
from bearerd.settings.problems import setting_name
from bearerd.sources.command import CommandTokenSource
from bearerd.sources.file import POLL_S as FILE_POLL_S
from bearerd.sources.file import FileTokenSource
from bearerd.sources.static import StaticTokenSource
from bearerd.stores.keys import load_key
from bearerd.stores.lock import KernelLock
from bearerd.stores.memory import MemoryLock, MemoryStore
from bearerd.stores.vault import VaultFolder, VaultStore
from bearerd.tokens.logins import Party
from bearerd.tokens.manager import POLL_S, TokenManager
from bearerd.tokens.refresh import RefreshProtocol
from bearerd.tracing import Tracer
from bearerd.trust import Trust, Untrustworthy


class SystemClock:
    """The machine's clocks and the running event loop's timers."""

    wall = staticmethod(time.time)
    steady = staticmethod(time.monotonic)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(delay_s, callback)


Heed = Callable[[str, State], None]
"""Is told an account's new state."""


def prepare_tls(trust: Trust, routes: Iterable[Route]) -> None:
    """Make TLS ready for `routes`. In a thread: it would hold up calls. Raises ConfigError."""
    for route in routes:
        try:
            if route.origin.scheme == "https":
                trust.context(route.way.tls)
        except Untrustworthy as exc:  # the file has changed since the settings were read
            raise ConfigError(f"{setting_name(('routes', route.name, exc.key))}: {exc.text}") from None


class MeasuredLock:
    """A lock, and how long it was waited for, be it in vain."""

    def __init__(self, lock: RefreshLock, clock: Clock, waits: Histogram) -> None:
        self._lock = lock
        self._clock = clock
        self._waits = waits

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        began_at = self._clock.steady()
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._lock.hold())
            finally:
                self._waits.observe(self._clock.steady() - began_at)
            yield


class AccountLog:
    """Tells the log what happens to an account, and `heed` what state it is in."""

    def __init__(
        self,
        account: str,
        heed: Heed | None = None,
        tracer: Tracer | None = None,
        meter: AccountMeter | None = None,
    ) -> None:
        self._account = account
        self._meter = meter or AccountMeter()
        self._tracer = tracer
        self._heed = heed
        self._log = structlog.get_logger("bearerd.tokens").bind(account=account)

    def changed(self, before: State, event: Event, after: State, askers: Sequence[Asker]) -> None:
        if self._heed is not None:
            self._heed(self._account, after)
        if self._tracer is not None:
            self._tracer.changed(self._account, before, event, after, askers)
        first = _describe(askers)
        match event:
            case RefreshSucceeded(token=token):
                self._meter.refreshes["succeeded"] += 1
                self._log.info(
                    "token.refreshed",
                    generation=token.generation,
                    lifetime_s=round(token.lifetime_s),
                    **first,
                )
            case TokenBorrowed(token=token):
                self._meter.refreshes["borrowed"] += 1
                self._log.info("token.borrowed", generation=token.generation, **first)
            case TokenStored(token=token):
                self._log.info("token.stored", generation=token.generation)
            case RefreshFailed(failure=failure):
                self._meter.refreshes[failure.kind] += 1
                self._log.warning(
                    "token.refresh_failed", kind=str(failure.kind), reason=failure.reason, **first
                )
        if isinstance(after, LoginRequired) and not isinstance(before, LoginRequired):
            tell = self._log.info if isinstance(event, LoggedOut) else self._log.error
            tell("token.login_required", reason=after.reason)

    def unsaved(self, reason: str | None) -> None:
        self._meter.unsaved = reason is not None
        if reason is None:
            self._log.info("token.saved_at_last")
        else:
            self._log.error("token.unsaved", reason=reason)

    def defect(self, exc: Exception) -> None:
        self._log.error("token.defect", trace=frames(exc))


def _describe(askers: Sequence[Asker]) -> dict[str, object]:
    """How many calls wait, and which of them has waited longest."""
    if not askers:
        return {}
    first = askers[0]
    trace = {} if first.trace_id is None else {"trace_id": first.trace_id}
    return {"waiting": len(askers), "request_id": first.request_id, **trace}


def build_source(account: Account, clock: Clock) -> TokenSource:
    """The adapter for where an account's tokens come from. Needs a running event loop."""
    match account.source:
        case OAuthSource() as source:
            return OAuthTokenSource(OAuthServer(source, clock, open_session()))
        case CommandSource() as source:
            return CommandTokenSource(source, clock)
        case FileSource() as source:
            return FileTokenSource(source, clock)
        case StaticSource() as source:
            return StaticTokenSource(source, clock)


def build_policy(account: Account) -> Policy:
    source = account.source
    return Policy(renewable=not (isinstance(source, OAuthSource) and source.spends))


def first_refresh_token(account: Account) -> Secret | None:
    """What an account's configuration gives it to begin with."""
    return account.source.refresh_token if isinstance(account.source, OAuthSource) else None


def needs_vault(account: Account, settings: Store) -> bool:
    """By default only what cannot be had again without a person is kept at rest."""
    if not isinstance(account.source, OAuthSource) or settings.kind == "memory":
        return False
    return settings.kind == "vault" or account.source.spends


class Memory:
    """What keeps accounts that are kept nowhere else, for as long as anything has it.

    Two managers of one login have one store and one lock here too, while the earlier of them comes to its end.
    """

    def __init__(self) -> None:
        self._kept: WeakValueDictionary[str, _Kept] = WeakValueDictionary()

    def open(self, account: Account) -> tuple[TokenStore, RefreshLock]:
        if not isinstance(account.source, OAuthSource) or not account.source.spends:
            return MemoryStore(), MemoryLock()
        stem = build_identity(account.name, account.source).stem
        kept = self._kept.get(stem) or self._kept.setdefault(stem, _Kept())
        return kept, kept.lock


class _Kept(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.lock = MemoryLock()


class Vault:
    """The vault folder of this configuration. Its key is read once, at the first need."""

    def __init__(self, settings: Store) -> None:
        self._settings = settings
        self._folder = VaultFolder(Path(settings.path))
        self._key: asyncio.Task[Key] | None = None

    async def key(self) -> Key:
        """Raises StoreError, each time again, where the key cannot be had."""
        if self._key is None:
            self._key = asyncio.create_task(load_key(self._settings, self._folder, create=True))
        return await asyncio.shield(self._key)

    async def check(self) -> None:
        """Raises StoreError unless the key has been had and the folder can be read, which a thread looks at."""
        if self._key is None or not self._key.done():
            raise StoreError("the vault's key has not been read yet")
        await self.key()
        await asyncio.to_thread(self._folder.sealed_names)

    async def ready(self) -> None:
        """See that the key can be had, by another attempt if it could not be. Raises StoreError."""
        if self._key is not None and self._key.done() and self._key.exception() is not None:
            self._key = None
        await self.key()

    def entry(self, account: Account) -> VaultEntry:
        """What processes that share the account's credential, whatever their configuration, have in common."""
        folder = os.path.realpath(self._settings.path)
        return VaultEntry(folder, build_identity(account.name, account.source).stem)

    def open(self, account: Account) -> tuple[TokenStore, RefreshLock]:
        identity = build_identity(account.name, account.source)
        return VaultStore(self._folder, identity, self.key), KernelLock(self._folder, identity.stem)


@dataclass(frozen=True, slots=True)
class Holding:
    """An account that is served. It has a `server` if it asks one, a `party` if a login belongs to it, and an `entry` if it
    is kept at rest.
    """

    account: Account
    manager: TokenManager
    server: OAuthServer | None = None
    party: Party | None = None
    entry: VaultEntry | None = None


class Holdings:
    """Puts accounts together as a daemon serves them. `heed` is told of those that have logins."""

    def __init__(self, settings: Store, clock: Clock, heed: Heed, meters: Meters) -> None:
        self.vault = Vault(settings)
        self._meters = meters
        self.tracer: Tracer | None = None
        self._settings = settings
        self._clock = clock
        self._heed = heed
        self._memory = Memory()

    def build(self, account: Account) -> Holding:
        """Needs a running event loop."""
        vault = self.vault if needs_vault(account, self._settings) else None
        entry = vault.entry(account) if vault is not None else None
        if not isinstance(account.source, OAuthSource):
            source = build_source(account, self._clock)
            return Holding(account, self._build_manager(account, source, vault), entry=entry)
        server = OAuthServer(account.source, self._clock, open_session())
        manager = self._build_manager(account, OAuthTokenSource(server), vault)
        return Holding(account, manager, server, _build_party(account, server, manager), entry)

    def renew(self, holding: Holding, account: Account) -> Holding:
        """The same credential, asked for as `account` says from now on (`Fate.RENEWED`)."""
        server, source = holding.server, account.source
        if server is None or not isinstance(source, OAuthSource):
            raise TypeError("only what asks a server can be renewed")
        server.renew(source)
        holding.manager.renewed()
        return replace(holding, account=account, party=_build_party(account, server, holding.manager))

    def needs_key(self, accounts: Iterable[Account]) -> bool:
        return any(needs_vault(account, self._settings) for account in accounts)

    def _build_manager(self, account: Account, source: TokenSource, vault: Vault | None) -> TokenManager:
        spends = isinstance(account.source, OAuthSource) and account.source.spends
        return _build_manager(
            account,
            source,
            self._clock,
            vault,
            stays=True,
            heed=self._heed if spends else None,
            memory=self._memory,
            tracer=self.tracer,
            meter=self._meters.of_account(account.name),
        )


def _build_party(account: Account, server: OAuthServer, manager: TokenManager) -> Party | None:
    source = account.source
    return Party(source, server, manager) if isinstance(source, OAuthSource) and source.spends else None


def build_manager(account: Account, clock: Clock, vault: Vault | None, *, stays: bool = True) -> TokenManager:
    """The manager of an account, kept in `vault` or, where that is None, as long as the process lasts."""
    return _build_manager(account, build_source(account, clock), clock, vault, stays=stays)


def build_party(account: Account, clock: Clock, vault: Vault | None, *, stays: bool = True) -> Party | None:
    """As `build_manager`, for an account that a login belongs to; None for any other."""
    if not isinstance(account.source, OAuthSource) or not account.source.spends:
        return None
    server = OAuthServer(account.source, clock, open_session())
    manager = _build_manager(account, OAuthTokenSource(server), clock, vault, stays=stays)
    return _build_party(account, server, manager)


def _build_manager(
    account: Account,
    source: TokenSource,
    clock: Clock,
    vault: Vault | None,
    *,
    stays: bool,
    heed: Heed | None = None,
    memory: Memory | None = None,
    tracer: Tracer | None = None,
    meter: AccountMeter | None = None,
) -> TokenManager:
    observer = AccountLog(account.name, heed, tracer, meter)
    store, lock = vault.open(account) if vault is not None else (memory or Memory()).open(account)
    if meter is not None:
        lock = MeasuredLock(lock, clock, meter.lock_waits)
    siblings = VaultSiblings(os.environ, vault.entry(account)) if vault is not None else None
    protocol = RefreshProtocol(source, store, lock, clock, observer, stays=stays, siblings=siblings)
    poll_s = FILE_POLL_S if isinstance(account.source, FileSource) else POLL_S
    return TokenManager(protocol, build_policy(account), observer, poll_s=poll_s)
