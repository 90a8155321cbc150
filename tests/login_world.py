"""A browser as far as HTTP goes, and a daemon with somebody to log in to it, all on real sockets."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

import canaries
from bearerd.core.accounts import Account, ClientAuth, Grant, OAuthSource, Source
from bearerd.core.configuration import Configuration, Keys, Listen, Logging, Store
from bearerd.core.targets import parse_route
from bearerd.daemon import Daemon
from login_server import LoginServer
from upstreams import ApiUpstream, accept_any_of

NAVIGATION: Final = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none"}
SENT_ON: Final = ("Location", "Set-Cookie")
CROSS_SITE: Final = NAVIGATION | {"Sec-Fetch-Site": "cross-site"}


@dataclass
class Answer:
    """What the browser got. `text` is as a person reads it: no markup, entities undone."""

    status: int
    headers: Mapping[str, str]
    source: str

    @property
    def text(self) -> str:
        without = re.sub(r"(?s)<(style|script).*?</\1>|<[^>]*>", "", self.source)
        return unescape(" ".join(without.split()))

    @property
    def location(self) -> str:
        return self.headers["Location"]


class Browser:
    """Goes where it is told, redirects only when told, and keeps cookies as browsers do: by host and path, not port."""

    def __init__(self) -> None:
        self._http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def go(self, url: str | URL, **headers: str) -> Answer:
        """As from the address bar."""
        return await self._ask("GET", url, NAVIGATION | headers, None)

    async def follow(self, url: str) -> Answer:
        """As by another site's redirect or link."""
        return await self._ask("GET", url, CROSS_SITE, None)

    async def post(self, url: str, form: dict[str, str], **headers: str) -> Answer:
        """As by a form of a page of `url`'s own origin, unless `headers` say otherwise."""
        parts = urlsplit(url)
        own = {"Origin": f"{parts.scheme}://{parts.netloc}", "Sec-Fetch-Site": "same-origin"}
        return await self._ask("POST", url, own | headers, form)

    def cookies(self, url: str) -> dict[str, str]:
        return {name: morsel.value for name, morsel in self._http.cookie_jar.filter_cookies(URL(url)).items()}

    async def _ask(
        self, method: str, url: str | URL, headers: dict[str, str], form: dict[str, str] | None
    ) -> Answer:
        async with self._http.request(
            method, url, headers=headers, data=form, allow_redirects=False
        ) as response:
            answer = Answer(response.status, response.headers, await response.text())
        self._note(str(url), answer)
        return answer

    def _note(self, url: str, answer: Answer) -> None:
        """An address it is sent to, and a cookie it is given, are the browser's to know."""
        for address in (url, answer.headers.get("Location", "")):
            canaries.know_address(address)
        fields = [f"{name}: {value}" for name, value in answer.headers.items() if name not in SENT_ON]
        canaries.note(f"the page at {urlsplit(url).path}", "\n".join([*fields, answer.source]))


def raw_url(url: str) -> URL:
    """`url` with nothing mended on the way."""
    return URL(url, encoded=True)


@dataclass
class World:
    """A daemon with an account `me`, its authorization server, the API behind both."""

    daemon: Daemon
    server: LoginServer
    api: ApiUpstream

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.daemon.port}"

    def state(self, account: str = "me") -> str:
        (found,) = (row for row in self.daemon.status()["accounts"] if row["name"] == account)
        return str(found["state"])

    async def begin(self, browser: Browser, path: str = "/-/login/me") -> str:
        """Where the browser is to go at the authorization server."""
        answer = await browser.go(self.url + path)
        assert answer.status == 302, answer.text
        return answer.location

    async def approved(self, browser: Browser, path: str = "/-/login/me") -> str:
        """The callback's address, not yet opened: the person has agreed at the authorization server."""
        answer = await browser.go(await self.begin(browser, path))
        assert answer.status == 302
        return answer.location

    async def log_in(self, browser: Browser) -> Answer:
        answer = await browser.follow(await self.approved(browser))
        assert answer.status == 200, answer.text
        return answer

    async def refused(self, browser: Browser, url: str, said: str) -> Answer:
        """A callback that ends in a plain page, and in no request to the token endpoint."""
        before = (self.server.token_requests, self.state())
        answer = await browser.follow(url)
        assert answer.status == 400
        assert said in answer.text
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert (self.server.token_requests, self.state()) == before
        return answer


@asynccontextmanager
async def world(
    listen: Listen | None = None,
    others: dict[str, Source] | None = None,
    *,
    names_itself: bool = False,
    keys: Keys | None = None,
    **account: Any,
) -> AsyncIterator[World]:
    async with (
        LoginServer(names_itself=names_itself) as server,
        ApiUpstream(accept_any_of(server.valid)) as api,
    ):
        settings = {"client_auth": ClientAuth.NONE, "issuer": server.issuer, "scopes": ("openid",)} | account
        sources = {"me": OAuthSource(Grant.AUTHORIZATION_CODE, "bearerd", **settings)} | (others or {})
        daemon = Daemon(
            Configuration(
                accounts={name: Account(name, source) for name, source in sources.items()},
                routes=(parse_route("/me/", api.url, "me"),),
                listen=listen or Listen(port=0),
                store=Store(kind="memory"),
                log=Logging(access=False),
                keys=keys or Keys(),
            )
        )
        await daemon.start()
        await daemon.started()
        try:
            yield World(daemon, server, api)
        finally:
            await daemon.stop(0.5)
