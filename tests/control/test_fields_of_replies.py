"""Threat 9: nothing of ours is kept by a cache, and no address of ours is told to another site, whatever the answer."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final

import pytest

from bearerd.core.accounts import Grant, OAuthSource
from login_world import NAVIGATION, World, world

pytestmark = pytest.mark.threat(9)

PATHS: Final = (
    *("/-", "/-/", "/-/status", "/-/livez", "/-/readyz", "/-/healthz", "/-/nope", "/-/metrics"),
    *("/-/login", "/-/login/me", "/-/login/work", "/-/login/nobody"),
    *("/-/callback", "/-/callback?code=c&state=s", "/-/callback?error=x&state=s", "/-/callback?%zz"),
    *("/-/logout/me", "/-/logout/nobody", "/-/..", "/-/%2e%2e/"),
)
PAGE: Final = (*(f"{name}: {value}" for name, value in NAVIGATION.items()), "Accept: text/html")
"""What a request says beside its method, path and host, by what it is."""
KINDS: Final = {
    "program": (),
    "person": PAGE,
    "elsewhere": ("Origin: http://evil.test", "Sec-Fetch-Site: cross-site"),
    "elsewhere, a person": ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Accept: text/html"),
    "own form": ("Sec-Fetch-Site: same-origin", "Content-Type: application/x-www-form-urlencoded"),
    "token in query": (),
    "broken": ("Transfer-Encoding: gzip",),
    "looping": ("Max-Forwards: 0",),
    "large": (f"X: {'x' * 40_000}",),
}
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "OPTIONS", "TRACE")


@pytest.fixture
async def made() -> AsyncIterator[World]:
    """With an account whose server cannot be asked beside the one that can."""
    second = OAuthSource(Grant.AUTHORIZATION_CODE, "x", issuer="http://[::1]:9")
    async with world(others={"work": second}) as running:
        yield running


async def ask(
    made: World, method: str, path: str, host: str, fields: tuple[str, ...]
) -> tuple[int, dict[str, str]]:
    """The status and the fields of an answer, by their lower-case names."""
    reader, writer = await asyncio.open_connection("127.0.0.1", made.daemon.port)
    lines = (f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", "Content-Length: 0", *fields)
    writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    start, *rest = answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    return int(start.split()[1]), {
        name.lower(): value for name, _, value in (line.partition(": ") for line in rest)
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_every_path_with_every_method(made: World, kind: str) -> None:
    seen = set()
    query = "?access_token=x" if kind == "token in query" else ""
    for host in (f"127.0.0.1:{made.daemon.port}", "evil.test"):
        for path in PATHS:
            for method in METHODS:
                status, fields = await ask(made, method, path + query, host, KINDS[kind])
                what = f"{status} for {method} {path} of {host}"
                seen.add(status)
                assert fields.get("cache-control") == "no-store", what
                expected = "same-origin" if has_form(status, method, path + query, fields) else "no-referrer"
                assert fields.get("referrer-policy") == expected, what
                assert fields.get("x-content-type-options") == "nosniff", what
    assert seen >= {"program": {200, 302, 400, 404, 405, 421, 503}}.get(kind, {421}) or kind in {
        "broken",
        "large",
    }
    assert made.server.token_requests == 0


def has_form(status: int, method: str, path: str, fields: dict[str, str]) -> bool:
    """The status page's address says nothing, and without an origin its form could not be told from another's."""
    page = fields.get("content-type", "").startswith("text/html")
    return (
        page and status == 200 and method in {"GET", "HEAD"} and re.fullmatch(r"/-/(\?.*)?", path) is not None
    )


async def test_calls_that_are_refused_on_the_way(made: World) -> None:
    """Not below ``/-/``, and yet our own words."""
    for path, fields, expected in (
        ("/me/x", (), 503),
        ("/nowhere", (), 404),
        ("/me/x?access_token=t", (), 403),
        (f"/me/{'x' * 17_000}", (), 414),
        ("/me/x", ("Via: 1.1 x",), 503),
    ):
        for more in ((), PAGE):
            host = f"127.0.0.1:{made.daemon.port}"
            status, answered = await ask(made, "GET", path, host, (*fields, *more))
            assert status == expected
            assert answered.get("cache-control") == "no-store"
            assert answered.get("referrer-policy") == "no-referrer"
