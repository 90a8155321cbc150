"""Logins in a terminal, as a conversation: one side keeps the account, the other has the person.

What is said to the person is one of `{"login": {"url"}}`, `{"device": {...}}` and `{"refused": text}`; what is heard
is what they have pasted. It ends with `{"done": {...}}` or `{"error": {...}}`.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from bearerd.control.status import ELSEWHERE
from bearerd.core.authorization import LIFETIME_S
from bearerd.core.device import DeviceAuthorization
from bearerd.core.redaction import Secret
from bearerd.core.redirects import Landing
from bearerd.errors import LoginFailed, LoginRefused
from bearerd.tokens.logins import ABANDONED, EXPIRED, LoggedIn, Logins, LogoutReport

Reply = dict[str, Any]
Say = Callable[[Reply], Awaitable[None]]
Hear = Callable[[], Awaitable[str | None]]
"""What was pasted next; None once nobody is there any more."""

WAYS: Final = ("browser", "paste", "device")


class TerminalLogins:
    """`binding` is what every login begun here ends with; by default each has another."""

    def __init__(
        self,
        logins: Logins,
        landings: Mapping[str, Landing],
        login_urls: Mapping[str, str],
        *,
        binding: Secret | None = None,
        limit_s: float = LIFETIME_S,
    ) -> None:
        self._logins = logins
        self._landings = landings
        self._login_urls = login_urls
        self._binding = binding
        self._limit_s = limit_s

    @property
    def accounts(self) -> tuple[str, ...]:
        """Those a person may log in to here."""
        return self._logins.accounts

    def offers(self, account: str, way: str) -> bool:
        """False where a login would have to end in a browser, and none gets here."""
        return way == "device" or account in self._landings or account not in self._logins.accounts

    async def log_in(self, account: str, way: str, say: Say, hear: Hear) -> Reply:
        """Talk until `account` is logged in, by whatever login of it that is, or until that is over."""
        try:
            async with asyncio.timeout(self._limit_s):
                return build_done(await self._first(account, way, say, hear))
        except LoginFailed as problem:
            return build_error(str(problem))
        except TimeoutError:
            return build_error(EXPIRED)

    async def log_out(self, account: str) -> Reply:
        try:
            return build_logged_out(await self._logins.logout(account))
        except LoginFailed as problem:
            return build_error(str(problem))

    async def _first(self, account: str, way: str, say: Say, hear: Hear) -> LoggedIn:
        """Of a login that has ended elsewhere, this one, and the other side leaving."""
        steps = {"browser": self._by_browser, "paste": self._by_paste, "device": self._by_device}
        elsewhere = asyncio.create_task(self._logins.wait(account))
        await asyncio.sleep(0)  # from here on it will be told
        here = asyncio.create_task(steps[way](account, say, hear))
        try:
            await asyncio.wait({elsewhere, here}, return_when=asyncio.FIRST_COMPLETED)
            # What breaks off here gives the login up, which is then told there too.
            broken = here.done() and not isinstance(here.exception(), LoginFailed | None)
            done = here.result() if broken or not elsewhere.done() else elsewhere.result()
        finally:
            elsewhere.cancel()
            here.cancel()
            await asyncio.gather(elsewhere, here, return_exceptions=True)
        if done is None:
            raise LoginFailed(ABANDONED)
        return done

    async def _by_browser(self, account: str, say: Say, hear: Hear) -> None:
        """At our own page: there the browser gets the cookie that it ends the login with."""
        if account not in self._logins.accounts:
            raise LoginFailed(
                f"account {account} is not one that a person may log in to here; log in where its vault is filled, or see its grant and login with: bearerd config show"
            )
        await say({"login": {"url": self._login_urls[account]}})
        while await hear() is not None:
            await say({"refused": "this login ends in the browser; to paste an address, use --no-browser"})

    async def _by_paste(self, account: str, say: Say, hear: Hear) -> None:
        binding = self._binding or Secret(secrets.token_urlsafe(32))
        landing = self._landings.get(account)
        if landing is None:
            raise LoginFailed(
                f"account {account} is not one that a person may log in to here; log in where its vault is filled, or see its grant and login with: bearerd config show"
            )
        url, _ = await self._logins.begin(account, redirect_uri=landing.redirect_uri, binding=binding)
        try:
            await say({"login": {"url": url}})
            while (text := await hear()) is not None:
                await self._paste(account, text, binding, say)
        finally:
            self._logins.abandon(account, binding)

    async def _paste(self, account: str, text: str, binding: Secret, say: Say) -> None:
        """A wrong paste may be followed by the right one. One that ended the login is told of where it is waited for."""
        try:
            await self._logins.paste(account, text, binding)
        except LoginRefused as refusal:
            if not refusal.ended:
                await say({"refused": str(refusal)})

    async def _by_device(self, account: str, say: Say, hear: Hear) -> LoggedIn | None:
        async def announce(device: DeviceAuthorization) -> None:
            await say(build_device(device))

        there = asyncio.create_task(self._logins.device(account, announce))
        gone = asyncio.create_task(_leave(hear))
        try:
            await asyncio.wait({there, gone}, return_when=asyncio.FIRST_COMPLETED)
            return there.result() if there.done() else gone.result()
        finally:
            there.cancel()
            gone.cancel()
            await asyncio.gather(there, gone, return_exceptions=True)


async def _leave(hear: Hear) -> LoggedIn | None:
    while await hear() is not None:
        """Nothing is to be pasted."""
    return None


def advise(account: str, reason: str, *, here: bool = True) -> str:
    """`reason`, and what to do about it, for a command that needs a login. `here` says that a person may do that here."""
    if here:
        return f"account {account}: {reason}; log in with: bearerd login {account}"
    return f"account {account}: {reason}; {ELSEWHERE}"


def build_device(device: DeviceAuthorization) -> Reply:
    return {
        "device": {
            "verification_uri": device.verification_uri,
            "verification_uri_complete": device.verification_uri_complete,
            "user_code": device.user_code,
            "expires_at": device.expires_at,
        }
    }


def build_done(done: LoggedIn) -> Reply:
    return {
        "done": {
            "account": done.account,
            "subject": done.subject,
            "expires_at": done.expires_at,
            "problem": done.problem,
        }
    }


def build_logged_out(report: LogoutReport) -> Reply:
    return {"done": {"revoked": report.revoked, "wiped": report.wiped, "problem": report.problem}}


def build_error(text: str) -> Reply:
    return {"error": {"kind": "login_failed", "text": text}}
