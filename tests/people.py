"""A person at a browser, as far as a login needs one: follows redirects, fills in forms, keeps cookies."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final, Self
from urllib.parse import urljoin

import aiohttp

STEPS: Final = 15
_CANCEL: Final = re.compile(r'href="([^"]*/abort)"')


@dataclass
class Form:
    """A form of a page: where it goes, and its fields with the values they have."""

    action: str = ""
    fields: dict[str, str] = field(default_factory=dict)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(given.get("action", "")))
        elif tag in {"input", "button"} and self.forms and "name" in given:
            self.forms[-1].fields.setdefault(given["name"], given.get("value", ""))


def parse_forms(page: str) -> list[Form]:
    """The forms of an HTML page, in order."""
    parser = _Forms()
    parser.feed(page)
    return parser.forms


class Person:
    """Has a browser of their own, whose cookies nobody else has. Knows any login by one name and any password."""

    def __init__(self, name: str = "demo-user") -> None:
        self._answers = {"login": name, "password": "any", "name": name}
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        jar = aiohttp.CookieJar(unsafe=True)  # which keeps those of addresses too
        self._http = aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=60))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def log_in(self, url: str, until: str, **answers: str) -> str:
        """Open `url` and do what the pages ask, up to the first address that begins with `until`, which is returned.

        That address is not opened. `answers` are for fields of forms.
        """
        method, data = "GET", None
        for _ in range(STEPS):
            if url.startswith(until):
                return url
            async with self._http.request(method, url, data=data, allow_redirects=False) as response:
                page = await response.text()
            if response.status in {302, 303}:
                method, data, url = "GET", None, urljoin(url, response.headers["Location"])
                continue
            assert response.status == 200, f"{response.status} at {url}: {page[:500]}"
            method, url, data = self._fill_in(url, page, answers)
        raise AssertionError(f"the login did not end; it is at {url}")

    async def cancel(self, url: str, until: str) -> str:
        """Open `url`, follow the link that calls the login off, and return the address it ends at, as `log_in` does."""
        async with self._http.get(url) as response:
            found = _CANCEL.search(await response.text())
            assert found, f"{response.url} has no link to call the login off"
            url = urljoin(str(response.url), found[1])
        return await self.log_in(url, until)

    async def approve_device(self, url: str, user_code: str = "", **answers: str) -> str:
        """Type a user code in at `url`, agree to everything, and return the page one is left with.

        With ``abort="yes"`` the device is refused at the question whether it is one's own.
        """
        method, data = "GET", None
        for _ in range(STEPS):
            async with self._http.request(method, url, data=data, allow_redirects=False) as response:
                page = await response.text()
            if response.status in {302, 303}:
                method, data, url = "GET", None, urljoin(url, response.headers["Location"])
            elif not parse_forms(page) or "abort" in (data or {}):
                return page
            else:
                code = {"user_code": user_code} if user_code else {}
                method, url, data = self._fill_in(url, page, answers | code)
        raise AssertionError(f"the login did not end; it is at {url}")

    async def open(self, url: str, **headers: str) -> tuple[int, str]:
        """Status and text of a page, opened as by the address bar."""
        async with self._http.get(url, headers=headers) as response:
            return response.status, await response.text()

    def _fill_in(self, url: str, page: str, answers: dict[str, str]) -> tuple[str, str, dict[str, str]]:
        form = parse_forms(page)[0]
        known = self._answers | answers
        fields = {
            name: known.get(name, value)
            for name, value in form.fields.items()
            if name != "abort" or "abort" in answers
        }
        return "POST", urljoin(url, form.action), fields
