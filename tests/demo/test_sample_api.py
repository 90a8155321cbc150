import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict
from yarl import URL

from bearerd.demo.authorization_server import AccessToken
from bearerd.demo.sample_api import SampleApi

NOW = 1_000_000.0
TOKEN = "the-token"
FINGERPRINT = hashlib.sha256(TOKEN.encode()).hexdigest()[:12]
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Api:
    """The API on a real socket; `tokens` are the active ones."""

    def __init__(self) -> None:
        self.tokens = {TOKEN: AccessToken("alice", ("read",), NOW, NOW + 42.25)}
        self.site = TestServer(
            SampleApi(self.tokens.get, self.tokens.__delitem__, clock=lambda: NOW).build_application()
        )

    def url(self, path: str) -> URL:
        return URL(f"http://127.0.0.1:{self.site.port}{path}", encoded=True)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = Api()
    async with api.site:
        yield api


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize("path", ["/hello", "/revoke-me"])
@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        ["Bearer other"],
        [f"Basic {TOKEN}"],
        [TOKEN],
        [f"Bearer {TOKEN} more"],
        [f"Bearer {TOKEN}", "Bearer other"],
        [f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
    ],
)
async def test_anything_but_one_active_bearer_token_gets_401(
    api: Api, http: aiohttp.ClientSession, path: str, values: list[str]
) -> None:
    headers = CIMultiDict([("Authorization", value) for value in values])
    async with http.post(api.url(path), headers=headers) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        assert (await response.json())["error"] == "invalid_token"
    assert TOKEN in api.tokens


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize(
    "path", ["/", "/hello", "/a%2Fb/%C3%A9?x=1&y=%20&x=2", "/a//b/../c", "/%0A", "/revoke-me/too"]
)
async def test_any_method_and_path_is_answered_with_what_was_seen(
    api: Api, http: aiohttp.ClientSession, method: str, path: str
) -> None:
    async with http.request(method, api.url(path), headers=BEARER, data=b"x" * 100_000) as response:
        text = await response.text()
    assert response.status == 200
    assert response.content_type == "application/json"
    assert json.loads(text) == {
        "method": method,
        "path": path,
        "subject": "alice",
        "seconds_left": 42.2,
        "token_fingerprint": FINGERPRINT,
    }
    assert TOKEN not in text
    assert text.endswith("\n}\n")


@pytest.mark.parametrize("target", ["/a?", "//a", "/a?b?c", "/%zz", "/a#b", "http://elsewhere/a", "/\\"])
async def test_odd_targets_are_shown_as_sent(api: Api, target: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.site.port)
    head = f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["path"] == target


async def test_head_is_answered_and_the_scheme_is_read_in_any_case(
    api: Api, http: aiohttp.ClientSession
) -> None:
    async with http.head(api.url("/hello"), headers={"Authorization": f"bEARER {TOKEN}"}) as response:
        assert response.status == 200
        assert await response.read() == b""


async def test_revoke_me_ends_the_token_in_use(api: Api, http: aiohttp.ClientSession) -> None:
    async with http.get(api.url("/revoke-me"), headers=BEARER) as response:
        assert response.status == 200
        assert TOKEN in api.tokens
    async with http.post(api.url("/revoke-me"), headers=BEARER) as response:
        assert response.status == 200
        assert await response.text() == f'{{\n  "revoked": "{FINGERPRINT}"\n}}\n'
    async with http.get(api.url("/hello"), headers=BEARER) as response:
        assert response.status == 401
