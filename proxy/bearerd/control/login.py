"""Login and logout in a browser."""

import asyncio
import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode

import structlog
from aiohttp import web

from bearerd.control import login_pages as pages
from bearerd.control.answers import answer_page, forget_addresses, send_on
from bearerd.control.relays import Relays
from bearerd.core.authorization import (
    LIFETIME_S,
    CallbackRefused,
    Transaction,
    parse_callback,
    parse_return_to,
)
from bearerd.core.csrf import build_token, is_token
from bearerd.core.guard import Guard, Head, is_same_origin
from bearerd.core.headers import cookie
from bearerd.core.problems import Problem
from bearerd.core.redaction import Secret
from bearerd.core.redirects import Landing
from bearerd.errors import LoginFailed, LoginRefused
from bearerd.tokens.logins import Logins

CSRF_COOKIE: Final = "bearerd_csrf"
_CSRF_VALUE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
FORM_LIMIT: Final = 4096
FORM_S: Final = 10.0

_NO_LOGIN: Final = Problem(
    404,
    "no_such_page",
    "there is no account with this name that a person may log in to here; see them on the status page",
)
_GET_ONLY: Final = Problem(
    405, "method_refused", "this page is read with GET; send that", headers=(("Allow", "GET"),)
)
_POST_ONLY: Final = Problem(
    405,
    "method_refused",
    "a logout is a POST; use the button on the status page, or bearerd logout",
    headers=(("Allow", "POST"),),
)
_NOT_OURS: Final = Problem(
    403,
    "origin_refused",
    "only a page of this daemon's own may ask for this; open the status page",
    "http_request_denied",
)
_STALE: Final = Problem(
    403,
    "form_refused",
    "this form was not given to this browser by the daemon that runs now; open the status page and try again",
    "http_request_denied",
)


class BrowserLogins:
    """Begins and ends logins for browsers, which are known by a cookie of each login.

    Forms carry a token that is made of a cookie and a key of this process: nothing is kept for them.
    """

    def __init__(
        self,
        logins: Logins,
        landings: Mapping[str, Landing],
        guard: Guard,
        *,
        draw: Callable[[int], str] = secrets.token_urlsafe,
    ) -> None:
        self._logins = logins
        self._landings = landings
        self._guard = guard
        self._draw = draw
        self._key = secrets.token_bytes(32)
        self._relays = Relays(logins)
        self._begun: dict[str, str] = {}  # the cookie of each account's last login that began here
        self._log = structlog.get_logger("bearerd.login")

    @property
    def accounts(self) -> tuple[str, ...]:
        return tuple(account for account in self._logins.accounts if account in self._landings)

    def turn_to(self, landings: Mapping[str, Landing], guard: Guard) -> None:
        """From now on logins come back to these places, and this is what our own pages are."""
        self._landings, self._guard = landings, guard

    async def aclose(self) -> None:
        await self._relays.aclose()

    # ------------------------------------------------------------ login

    async def choose(self, head: Head) -> web.Response | Problem:
        """The login page where no account is named."""
        match self.accounts:
            case ():
                return _NO_LOGIN
            case (account,):
                return await self.begin(head, account)
        if head.method != "GET":
            return _GET_ONLY
        return answer_page(200, pages.build_choice(self.accounts, _return_to(head)))

    async def begin(self, head: Head, account: str) -> web.Response | Problem:
        """Send the browser to the authorization server; first to where its cookie will be seen again."""
        if account not in self.accounts:
            return _NO_LOGIN
        if head.method != "GET":
            return _GET_ONLY
        landing = self._landings[account]
        if _host(head) != landing.authority and not _moved(head):
            query = urlencode({"return_to": _return_to(head), "moved": "1"})
            return send_on(f"{landing.origin}/-/login/{account}?{query}")
        binding = Secret(self._draw(32))
        try:
            url, transaction = await self._logins.begin(
                account, redirect_uri=landing.redirect_uri, binding=binding, return_to=_return_to(head)
            )
            await self._hold(account, landing, binding)
        except LoginFailed as problem:
            self._log.warning("login.not_begun", account=account, reason=str(problem))
            return answer_page(503, pages.build_not_begun(account, str(problem)))
        self._begun[account] = name = _cookie_name(transaction.state)
        self._log.info("login.begun", account=account)
        return send_on(url, [("Set-Cookie", _set_cookie(name, binding.reveal(), landing, int(LIFETIME_S)))])

    async def _hold(self, account: str, landing: Landing, binding: Secret) -> None:
        try:
            await self._relays.hold(account, landing)
        except LoginFailed:
            self._logins.abandon(account, binding)
            raise

    async def end(self, head: Head) -> web.Response | Problem:
        """The callback: the browser is back from the authorization server."""
        try:
            return await self._finish(head)
        finally:
            forget_addresses()

    async def _finish(self, head: Head) -> web.Response | Problem:
        if head.method != "GET":
            return _GET_ONLY
        try:
            callback = parse_callback(head.target.partition(b"?")[2])
        except CallbackRefused as refusal:
            return self._refused(400, None, str(refusal))
        transaction = self._logins.find(callback.state)
        if transaction is not None and self._begun.get(transaction.account) != _cookie_name(
            transaction.state
        ):
            return answer_page(400, pages.build_terminal_s(transaction.account))
        account = transaction.account if transaction else None
        try:
            done = await self._logins.finish(callback, lambda begun: _binding(head, begun))
        except LoginFailed as problem:
            return self._refused(400 if isinstance(problem, LoginRefused) else 502, account, str(problem))
        self._log.info("login.done", account=done.account)
        return answer_page(200, pages.build_done(done), self._forget(transaction))

    def _forget(self, transaction: Transaction | None) -> list[tuple[str, str]]:
        landing = self._landings.get(transaction.account) if transaction is not None else None
        if transaction is None or landing is None:
            return []
        return [("Set-Cookie", _set_cookie(_cookie_name(transaction.state), "", landing, 0))]

    def _refused(self, status: int, account: str | None, reason: str) -> web.Response:
        self._log.warning("login.failed", account=account, reason=reason)
        return answer_page(status, pages.build_failed(account, reason))

    # ------------------------------------------------------------ logout

    def proof(self, head: Head) -> tuple[Secret, list[tuple[str, str]]]:
        """The token for this browser's forms, and the fields that give it a cookie if it has none."""
        known = cookie(head.headers, CSRF_COOKIE)
        if known is not None and _CSRF_VALUE.fullmatch(known):
            return build_token(self._key, known), []
        # Lax: with Strict, a link from elsewhere would come without it, and replace what another tab's form needs.
        value = self._draw(32)
        given = ("Set-Cookie", f"{CSRF_COOKIE}={value}; Path=/-/; HttpOnly; SameSite=Lax")
        return build_token(self._key, value), [given]

    async def log_out(self, request: web.BaseRequest, head: Head, account: str) -> web.Response | Problem:
        if account not in self.accounts:
            return _NO_LOGIN
        if head.method != "POST":
            return _POST_ONLY
        if not is_same_origin(self._guard, head):
            return _NOT_OURS
        form = await _read_form(request)
        if not is_token(self._key, cookie(head.headers, CSRF_COOKIE), form.get("csrf")):
            return _STALE
        report = await self._logins.logout(account)
        self._log.info("login.given_up", account=account, revoked=report.revoked, problem=report.problem)
        if report.problem:
            return answer_page(200, pages.build_logged_out(account, report.problem))
        return send_on("/-/", status=303)


def _host(head: Head) -> str:
    return (head.get(b"host") or b"").decode("latin-1").lower()


def _query(head: Head, name: str) -> str | None:
    text = head.target.partition(b"?")[2].decode("latin-1")
    try:
        return dict(parse_qsl(text, max_num_fields=20)).get(name)
    except ValueError:
        return None


def _return_to(head: Head) -> str:
    return parse_return_to(_query(head, "return_to"))


def _moved(head: Head) -> bool:
    """Whether we have sent it here ourselves: what is in front of us may show us another Host than the browser's."""
    return _query(head, "moved") is not None


def _cookie_name(state: Secret) -> str:
    return f"bearerd_login_{hashlib.sha256(state.reveal().encode()).hexdigest()[:8]}"


def _set_cookie(name: str, value: str, landing: Landing, max_age_s: int) -> str:
    secure = "; Secure" if landing.origin.startswith("https:") else ""
    return f"{name}={value}; Max-Age={max_age_s}; Path={landing.path}; HttpOnly; SameSite=Lax{secure}"


def _binding(head: Head, transaction: Transaction) -> Secret | None:
    value = cookie(head.headers, _cookie_name(transaction.state))
    return Secret(value) if value else None


async def _read_form(request: web.BaseRequest) -> dict[str, str]:
    """The fields of a small form; none for anything else."""
    length = request.content_length
    if request.content_type != "application/x-www-form-urlencoded" or not length or length > FORM_LIMIT:
        return {}
    try:
        async with asyncio.timeout(FORM_S):
            body = await request.content.readexactly(length)
        return dict(parse_qsl(body.decode("ascii"), max_num_fields=20))
    except (asyncio.IncompleteReadError, TimeoutError, ValueError):
        return {}
