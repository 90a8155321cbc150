"""What a command does by itself, where no daemon serves the account: a token, a login, a logout, by way of the store."""

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from aiohttp import web

from bearerd.assembly import SystemClock, Vault, build_manager, build_party, first_refresh_token, needs_vault
from bearerd.control.answers import answer_page
from bearerd.control.callback_listener import CallbackListener
from bearerd.control.login_pages import build_closing
from bearerd.control.terminal import Hear, Reply, Say, TerminalLogins, advise
from bearerd.core.accounts import Account, OAuthSource
from bearerd.core.authorization import CallbackRefused, parse_callback
from bearerd.core.configuration import Configuration
from bearerd.core.guard import Head
from bearerd.core.lifecycle import token_of
from bearerd.core.reach import build_reach
from bearerd.core.redaction import Secret
from bearerd.core.redirects import Landing, parse_place
from bearerd.core.tokens import TokenSet
from bearerd.errors import BearerdError, ConfigError, Interrupted, LoginFailed, LoginRequired
from bearerd.listening import open_sockets
from bearerd.tokens.logins import Logins


async def fetch_token(
    configuration: Configuration, account: Account, *, min_valid_s: float = 0.0, force: bool = False
) -> TokenSet:
    """One token of `account`, for a process that ends after it. Raises TokenError, StoreError.

    SIGTERM and SIGHUP end it with Interrupted, once what a refresh under way gives has been saved.
    """
    _cancel_at(signal.SIGTERM, signal.SIGHUP)
    vault = Vault(configuration.store) if needs_vault(account, configuration.store) else None
    manager = build_manager(account, SystemClock(), vault, stays=False)
    try:
        if vault is not None:
            await vault.key()
        await manager.start(first_refresh_token(account))
        token = await (manager.refresh() if force else manager.token(min_valid_s))
    except LoginRequired as problem:
        source = account.source
        here = isinstance(source, OAuthSource) and source.interactive
        raise LoginRequired(advise(account.name, str(problem), here=here)) from None
    except asyncio.CancelledError:
        raise Interrupted("interrupted; what had been sent was waited for") from None
    finally:
        await manager.aclose()
    # A refresh that was due has been waited for just now, and its token lasts longer than the one in force before.
    return token_of(manager.state) or token


def _cancel_at(*numbers: signal.Signals) -> None:
    """The first of these signals cancels this task; the next are ignored."""
    loop = asyncio.get_running_loop()
    waiting = [asyncio.current_task(loop)]

    def cancel() -> None:
        while waiting:
            task = waiting.pop()
            if task is not None:
                task.cancel()

    for number in numbers:
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, cancel)


@asynccontextmanager
async def _logins(configuration: Configuration, account: Account) -> AsyncIterator[Logins]:
    """The logins of one account, kept in the vault. Raises StoreError, and BearerdError where nothing is kept."""
    if not isinstance(account.source, OAuthSource) or not account.source.spends:
        raise LoginFailed(
            f"account {account.name} has no login, for its tokens need no person; see it with: bearerd status"
        )
    if not needs_vault(account, configuration.store):
        raise BearerdError(
            f"account {account.name} keeps nothing on disk, so only a running bearerd can log in and out; "
            "start one with: bearerd run"
        )
    vault, clock = Vault(configuration.store), SystemClock()
    party = build_party(account, clock, vault, stays=False)
    assert party is not None  # noqa: S101  # the source is one of those that have a party
    party.manager.start_idle()
    try:
        await vault.key()
        yield Logins({account.name: party}, clock)
    finally:
        await party.manager.aclose()


async def log_out(configuration: Configuration, account: Account) -> Reply:
    """Raises BearerdError where that cannot even be tried."""
    async with _logins(configuration, account) as logins:
        return await TerminalLogins(logins, {}, {}).log_out(account.name)


async def log_in(configuration: Configuration, account: Account, way: str, say: Say, hear: Hear) -> Reply:
    """As `TerminalLogins.log_in`; a browser comes back to a listener of our own, which is open before it is opened.

    SIGTERM and SIGHUP cancel it, once what a code has been redeemed for is saved. Raises BearerdError where it cannot
    even be tried.
    """
    _cancel_at(signal.SIGTERM, signal.SIGHUP)
    landing = _find_landing(configuration, account)
    binding = Secret(secrets.token_urlsafe(32))
    async with AsyncExitStack() as stack:
        logins = await stack.enter_async_context(_logins(configuration, account))
        terminal = TerminalLogins(logins, {account.name: landing}, {}, binding=binding)
        if way == "device":
            return await terminal.log_in(account.name, way, say, hear)
        with suppress(ValueError):  # it leads to another machine, where the address is to be copied
            listener = CallbackListener(parse_place(landing.redirect_uri), _End(logins, binding).answer)
            await listener.start()
            stack.push_async_callback(listener.aclose)
        return await terminal.log_in(account.name, "paste", say, hear)


def _find_landing(configuration: Configuration, account: Account) -> Landing:
    """Where a daemon of this configuration would have it. Raises ConfigError, LoginFailed."""
    port = configuration.listen.port
    if port == 0:
        (sock,) = open_sockets(("127.0.0.1",), 0)
        port = sock.getsockname()[1]
        sock.close()
    try:
        landings = build_reach(configuration, port, "").landings
    except ValueError as problem:
        raise ConfigError(str(problem)) from None
    if account.name not in landings:
        raise LoginFailed(
            f"account {account.name} is not one that a person may log in to here; log in where its vault is filled, or see its grant and login with: bearerd config show"
        )
    return landings[account.name]


class _End:
    """The page on which a browser ends that has logged in for a terminal: this listener is its binding."""

    def __init__(self, logins: Logins, binding: Secret) -> None:
        self._logins = logins
        self._binding = binding

    async def answer(self, head: Head) -> web.Response:
        try:
            callback = parse_callback(head.target.partition(b"?")[2])
            done = await self._logins.finish(callback, lambda _: self._binding)
        except (CallbackRefused, LoginFailed) as problem:
            return answer_page(400, build_closing("The login did not work", str(problem), good=False))
        who = f" as {done.subject}" if done.subject else ""
        text = f"account {done.account} is logged in{who}"
        return answer_page(200, build_closing("You are logged in", text, good=True))
