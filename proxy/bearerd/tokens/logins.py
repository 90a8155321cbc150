"""Logins under way: at most one of each account, however it was begun, and who waits for one to end."""

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from bearerd.core.accounts import OAuthSource
from bearerd.core.authorization import (
    ENTROPY_BYTES,
    LIFETIME_S,
    Callback,
    CallbackRefused,
    Transaction,
    build_authorization_url,
    build_transaction,
    check_callback,
    is_bound,
    parse_pasted,
)
from bearerd.core.device import DeviceAuthorization, decide_poll
from bearerd.core.lifecycle import Failure
from bearerd.core.metadata import Metadata
from bearerd.core.redaction import Secret
from bearerd.core.tokens import TokenSet
from bearerd.errors import LoginFailed, LoginRefused
from bearerd.ports import AuthorizationServer, Clock, Timer
from bearerd.tokens.manager import TokenManager
from bearerd.tokens.refresh import Redeem

T = TypeVar("T")
Announce = Callable[[DeviceAuthorization], Awaitable[None]]
BindingOf = Callable[[Transaction], Secret | None]

UNKNOWN: Final = (
    "this login is not known here: it was used, has expired or was replaced by a newer one; begin again"
)
NOT_YOURS: Final = "this login was begun elsewhere and can only end there; begin again here"
EXPIRED: Final = "the login was not finished within ten minutes; begin again"
REPLACED: Final = "another login of this account was begun meanwhile; go on with that one"
ABANDONED: Final = "the login was given up where it was begun; begin again"
SHORT_LIVED: Final = (
    "the server gave no refresh token; for a login that lasts, add offline_access to scopes, or what this server calls it, and "
    'authorization_params = { prompt = "consent" }, then log in again'
)
GIVEN_UP: Final = "the account was logged out meanwhile; begin again"
NO_STATE: Final = "the server wants its address checked: paste the whole address, not the code alone"
RECONFIGURED: Final = "the configuration of this account has changed meanwhile; log in again"
STILL_REFRESHING: Final = (
    "a refresh is still under way; what comes of it is revoked and wiped when it has ended"
)
LOGOUT_S: Final = 35.0  # a refresh under way is waited for, and is seldom this long


@dataclass(frozen=True, slots=True)
class Party:
    """What belongs to one account."""

    source: OAuthSource
    server: AuthorizationServer
    manager: TokenManager


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A login at its end, its tokens in the store. `expires_at` is the access token's, in epoch seconds.

    `problem` says why the login ends then, if it cannot be renewed, and what would mend that.
    """

    account: str
    subject: str | None
    expires_at: float
    return_to: str = "/-/"
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class LogoutReport:
    """`problem` says what the server or the store still has of the login, and why; `wiped` is of the store."""

    revoked: bool
    problem: str | None = None
    wiped: bool = True


@dataclass(frozen=True, slots=True)
class _Pending:
    """A login under way: its transaction and the server it is with, or None where it goes on at another device."""

    timer: Timer
    request: tuple[Transaction, Metadata] | None = None


class Logins:
    """The logins of all accounts. `draw` gives so many random bytes."""

    def __init__(
        self,
        parties: Mapping[str, Party],
        clock: Clock,
        *,
        draw: Callable[[int], bytes] = secrets.token_bytes,
        logout_s: float = LOGOUT_S,
    ) -> None:
        self._parties = parties
        self._clock = clock
        self._draw = draw
        self._logout_s = logout_s
        self._pending: dict[str, _Pending] = {}
        self._watchers: dict[str, set[asyncio.Future[LoggedIn]]] = {}
        self._works: set[asyncio.Task[Any]] = set()

    def turn_to(self, parties: Mapping[str, Party]) -> None:
        """From now on the accounts are these. A login goes on if its account does, and comes back to the same place."""
        waiting = (account for account, watchers in self._watchers.items() if watchers)
        for account in {*self._pending, *waiting}:
            if not _goes_on(self._parties.get(account), parties.get(account)):
                self._drop(account)
                self._failed(account, LoginFailed(RECONFIGURED))
        self._parties = parties

    @property
    def accounts(self) -> tuple[str, ...]:
        """Those a person may log in to here."""
        return tuple(name for name, party in self._parties.items() if party.source.interactive)

    def find(self, state: Secret | None) -> Transaction | None:
        """The login under way that has this `state`."""
        return next((transaction for transaction, _ in self._requests() if _has(transaction, state)), None)

    async def begin(
        self, account: str, *, redirect_uri: str, binding: Secret, return_to: str = "/-/"
    ) -> tuple[str, Transaction]:
        """The address to open in a browser, and the transaction; one that was under way is replaced.

        `binding` is a secret of whoever begins, who has to show it at the end. Raises LoginFailed.
        """
        party = self._interactive(account)
        server = await party.server.describe()
        if isinstance(server, Failure):
            raise LoginFailed(server.reason)
        self._check(account, party)
        transaction = build_transaction(
            account,
            redirect_uri=redirect_uri,
            binding=binding,
            return_to=return_to,
            oidc="openid" in party.source.scopes,
            entropy=self._draw(ENTROPY_BYTES),
            now=self._clock.wall(),
        )
        try:
            url = build_authorization_url(party.source, server, transaction)
        except ValueError as problem:
            raise LoginFailed(str(problem)) from None
        self._put(account, LIFETIME_S, (transaction, server))
        return url, transaction

    async def finish(self, callback: Callback, binding_of: BindingOf) -> LoggedIn:
        """End the login that `callback` belongs to. Only with the right binding it is used up by this.

        Runs on if its caller is cancelled. Raises LoginRefused, and LoginFailed where the server gave no tokens.
        """
        found = next((request for request in self._requests() if _has(request[0], callback.state)), None)
        if found is None:
            raise LoginRefused(UNKNOWN)
        transaction, server = found
        if not is_bound(transaction, binding_of(transaction)):
            raise LoginRefused(NOT_YOURS)
        account = transaction.account
        self._drop(account)
        try:
            code = check_callback(callback, transaction, server, self._clock.wall())
        except CallbackRefused as refusal:
            raise self._failed(account, LoginRefused(str(refusal), ended=True)) from None
        party = self._parties[account]
        return await self._run(
            self._redeem(
                account, party, lambda: party.server.redeem(code, transaction), transaction.return_to
            )
        )

    async def paste(self, account: str, text: str, binding: Secret) -> LoggedIn:
        """End a login by what a person has pasted: the callback's address, or the code alone.

        A code without its state is still tied to this login, by PKCE. Raises as `finish` does.
        """
        pending = self._pending.get(account)
        if pending is None or pending.request is None:
            raise LoginRefused(UNKNOWN)
        transaction, server = pending.request
        try:
            pasted = parse_pasted(text)
        except CallbackRefused as refusal:
            raise LoginRefused(str(refusal)) from None
        if isinstance(pasted, Secret):
            if server.iss_required:
                raise LoginRefused(NO_STATE)
            pasted = Callback(state=transaction.state, code=pasted)
        return await self.finish(pasted, lambda _: binding)

    async def device(self, account: str, announce: Announce) -> LoggedIn:
        """Log in by another device (RFC 8628). `announce` shows a person what to do. Raises LoginFailed."""
        party = self._interactive(account)
        device = await party.server.authorize_device()
        if isinstance(device, Failure):
            raise LoginFailed(device.reason)
        self._check(account, party)
        pending = self._put(account, device.expires_at - self._clock.wall())
        try:
            await announce(device)
            return await self._poll(account, pending, party, device)
        except BaseException:
            if self._pending.get(account) is pending:
                self._drop(account)
                party.manager.login_failed(ABANDONED)
            raise

    async def _poll(
        self, account: str, pending: _Pending, party: Party, device: DeviceAuthorization
    ) -> LoggedIn:
        interval_s = device.interval_s
        while True:
            await self._sleep(interval_s)
            if self._pending.get(account) is not pending:
                over = self._clock.wall() >= device.expires_at
                raise LoginFailed(EXPIRED if over else REPLACED)
            outcome = await self._run(self._redeem_device(account, pending, party, device))
            if isinstance(outcome, LoggedIn):
                return outcome
            next_s = decide_poll(outcome, interval_s)
            if next_s is None:
                self._drop(account)
                raise self._failed(account, LoginFailed(outcome.reason))
            interval_s = next_s

    async def _redeem_device(
        self, account: str, pending: _Pending, party: Party, device: DeviceAuthorization
    ) -> LoggedIn | Failure:
        outcome = await party.manager.login(lambda: party.server.redeem_device(device))
        if isinstance(outcome, Failure):
            return outcome
        if self._pending.get(account) is pending:
            self._drop(account)
        return self._succeeded(account, outcome, "/-/")

    async def wait(self, account: str) -> LoggedIn:
        """Until a login of `account`, however it was begun, has come to its end. Raises LoginFailed."""
        watcher: asyncio.Future[LoggedIn] = asyncio.get_running_loop().create_future()
        self._watchers.setdefault(account, set()).add(watcher)
        try:
            return await watcher
        finally:
            self._watchers[account].discard(watcher)

    def abandon(self, account: str, binding: Secret) -> None:
        """Whoever began with `binding` has gone."""
        pending = self._pending.get(account)
        if pending and pending.request and is_bound(pending.request[0], binding):
            self._drop(account)
            self._failed(account, LoginFailed(ABANDONED))

    async def logout(self, account: str) -> LogoutReport:
        """Forget the login here, in the store and at the server, as far as each can be reached. Raises LoginFailed."""
        party = self._parties.get(account)
        if party is None:
            raise LoginFailed(
                f"account {account} has no login that could be given up; see it with: bearerd status"
            )
        if account in self._pending:
            self._drop(account)
            self._failed(account, LoginFailed(GIVEN_UP))
        try:
            async with asyncio.timeout(self._logout_s):
                return await self._run(_log_out(party))
        except TimeoutError:
            return LogoutReport(revoked=False, problem=STILL_REFRESHING, wiped=False)

    def _interactive(self, account: str) -> Party:
        party = self._parties.get(account)
        if party is None or not party.source.interactive:
            raise LoginFailed(
                f"account {account} is not one that a person may log in to here; log in where its vault is filled, or see its grant and login with: bearerd config show"
            )
        return party

    def _check(self, account: str, party: Party) -> None:
        """Raises LoginFailed where the account is not what it was when this login began."""
        if not _goes_on(party, self._parties.get(account)):
            raise LoginFailed(RECONFIGURED)

    async def _redeem(self, account: str, party: Party, redeem: Redeem, return_to: str) -> LoggedIn:
        outcome = await party.manager.login(redeem)
        if isinstance(outcome, Failure):
            raise self._failed(account, LoginFailed(outcome.reason))
        return self._succeeded(account, outcome, return_to)

    def _succeeded(self, account: str, token: TokenSet, return_to: str) -> LoggedIn:
        problem = None if token.refresh_token else SHORT_LIVED
        done = LoggedIn(account, token.subject, token.expires_at, return_to, problem)
        for watcher in self._watchers.get(account, ()):
            if not watcher.done():
                watcher.set_result(done)
        return done

    def _failed(self, account: str, error: LoginFailed) -> LoginFailed:
        if account in self._parties:
            self._parties[account].manager.login_failed(str(error))
        for watcher in self._watchers.get(account, ()):
            if not watcher.done():
                watcher.set_exception(LoginFailed(str(error)))
        return error

    def _requests(self) -> Iterator[tuple[Transaction, Metadata]]:
        return (pending.request for pending in self._pending.values() if pending.request)

    def _put(
        self, account: str, lifetime_s: float, request: tuple[Transaction, Metadata] | None = None
    ) -> _Pending:
        self._drop(account)
        timer = self._clock.call_later(max(lifetime_s, 0.0), lambda: self._expire(account, pending))
        pending = _Pending(timer, request)
        self._pending[account] = pending
        self._parties[account].manager.login_started()
        return pending

    def _drop(self, account: str) -> None:
        pending = self._pending.pop(account, None)
        if pending is not None:
            pending.timer.cancel()

    def _expire(self, account: str, pending: _Pending) -> None:
        if self._pending.get(account) is pending:
            self._drop(account)
            self._failed(account, LoginFailed(EXPIRED))

    async def _sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        timer = self._clock.call_later(seconds, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """`work`'s result; it goes on if the caller is cancelled."""
        task = asyncio.create_task(work)
        self._works.add(task)
        task.add_done_callback(self._works.discard)
        return await asyncio.shield(task)


def _goes_on(old: Party | None, new: Party | None) -> bool:
    """Whether a login that was begun with `old` may end with `new`."""
    if old is None or new is None or old.manager is not new.manager:
        return False
    return new.source.interactive and old.source.redirect_uri == new.source.redirect_uri


def _has(transaction: Transaction, state: Secret | None) -> bool:
    asked = state.reveal() if state else ""
    return hmac.compare_digest(transaction.state.reveal().encode(), asked.encode())


async def _log_out(party: Party) -> LogoutReport:
    wiped = await party.manager.logout()
    last = wiped.last
    if last is None:
        return LogoutReport(revoked=False, problem=wiped.problem, wiped=wiped.problem is None)
    if last.refresh_token:
        unrevoked = await party.server.revoke(last.refresh_token, "refresh_token")
    else:
        unrevoked = await party.server.revoke(last.access_token, "access_token")
    problems = [problem for problem in (wiped.problem, unrevoked) if problem]
    return LogoutReport(unrevoked is None, "; ".join(problems) or None, wiped.problem is None)
