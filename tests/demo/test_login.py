"""Logins at the demo's authorization server: what is refused, and how, and what a code is good for."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from bearerd.core.pkce import build_challenge, build_verifier
from bearerd.core.redaction import Secret
from bearerd.demo.authorization_server import AuthorizationServer
from people import parse_forms

VERIFIER: Final = build_verifier(bytes(range(32)))
REDIRECT: Final = "http://127.0.0.1:9/-/callback?x=1"
GOOD: Final = {
    "response_type": "code",
    "client_id": "demo-app",
    "redirect_uri": REDIRECT,
    "state": "st&te",
    "scope": "openid demo:read",
    "nonce": "n",
    "code_challenge": build_challenge(VERIFIER),
    "code_challenge_method": "S256",
}


@dataclass
class Peer:
    """The server on a real socket, whose time a test may set."""

    server: AuthorizationServer
    url: str
    http: aiohttp.ClientSession
    now: list[float]

    async def get(self, **changes: str | None) -> tuple[int, dict[str, str], str]:
        """Status, parameters of the redirect and text of the authorization page."""
        query = {name: value for name, value in (GOOD | changes).items() if value is not None}
        async with self.http.get(
            f"{self.url}/authorize?{urlencode(query)}", allow_redirects=False
        ) as response:
            return response.status, _answer(response), await response.text()

    async def decide(
        self, decision: str = "allow", name: str = "demo-user", **changes: str
    ) -> dict[str, str]:
        form = GOOD | {"decision": decision, "name": name} | changes
        async with self.http.post(f"{self.url}/authorize", data=form, allow_redirects=False) as response:
            assert response.status == 303
            return _answer(response)

    async def redeem(self, code: str, **changes: str) -> tuple[int, dict[str, Any]]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "client_id": "demo-app",
            "redirect_uri": REDIRECT,
            "code_verifier": VERIFIER.reveal(),
        }
        return await self.post("/token", **(form | changes))

    async def post(self, path: str, **form: str) -> tuple[int, dict[str, Any]]:
        async with self.http.post(self.url + path, data=form) as response:
            return response.status, await response.json()


def _answer(response: aiohttp.ClientResponse) -> dict[str, str]:
    location = response.headers.get("Location", "")
    assert not location or location.startswith(REDIRECT)
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


@asynccontextmanager
async def running() -> AsyncIterator[Peer]:
    now = [1_000_000.0]
    server = AuthorizationServer("http://issuer.test", "service", Secret("s"), clock=lambda: now[0])
    async with TestServer(server.build_application()) as listening, aiohttp.ClientSession() as http:
        yield Peer(server, str(listening.make_url("")).rstrip("/"), http, now)


async def test_the_form_asks_for_a_name_and_carries_what_was_asked() -> None:
    async with running() as peer:
        status, answer, page = await peer.get(state='"><script>alert(1)</script>')
    assert (status, answer) == (200, {})
    assert "<script>" not in page
    form = parse_forms(page)[0]
    assert form.action == "/authorize"
    assert form.fields["state"] == '"><script>alert(1)</script>'
    assert form.fields["name"] == "demo-user"


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "service"},
        {"client_id": None},
        {"redirect_uri": None},
        {"redirect_uri": "https://127.0.0.1/"},
        {"redirect_uri": "http://evil.test/"},
        {"redirect_uri": "http://127.0.0.1.evil.test/"},
        {"redirect_uri": "http://127.0.0.1:9/#x"},
        {"redirect_uri": "http://127.0.0.1\\@evil.test/"},
        {"redirect_uri": "http://[::1/"},
        {"redirect_uri": "javascript:alert(1)"},
    ],
)
async def test_a_stranger_is_told_and_never_redirected(changes: dict[str, str | None]) -> None:
    async with running() as peer:
        status, answer, page = await peer.get(**changes)
    assert (status, answer) == (400, {})
    assert "This login cannot begin" in page


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"scope": "demo:admin"}, "invalid_scope"),
    ],
)
async def test_the_client_is_told_of_its_mistakes_by_a_redirect(
    changes: dict[str, str | None], error: str
) -> None:
    expected = {"x": "1", "error": error, "state": "st&te", "iss": "http://issuer.test"}
    async with running() as peer:
        assert (await peer.get(**changes))[:2] == (303, expected)
        if None not in changes.values():
            assert await peer.decide(**{name: str(value) for name, value in changes.items()}) == expected


@pytest.mark.parametrize(
    ("decision", "name"),
    [("deny", "demo-user"), ("", "x"), ("allow", " "), ("allow", "x" * 65), ("allow", "a\nb")],
)
async def test_no_code_without_a_person_who_agrees(decision: str, name: str) -> None:
    async with running() as peer:
        answer = await peer.decide(decision, name)
    assert answer["error"] == "access_denied"
    assert "code" not in answer


async def test_a_login_and_its_refreshes() -> None:
    async with running() as peer:
        answer = await peer.decide()
        assert (answer["state"], answer["iss"]) == ("st&te", "http://issuer.test")
        status, reply = await peer.redeem(answer["code"])
        assert status == 200
        token = peer.server.introspect(reply["access_token"])
        assert token is not None
        assert token.subject == "demo-user"
        form = {"grant_type": "refresh_token", "client_id": "demo-app"}
        status, renewed = await peer.post("/token", **form, refresh_token=reply["refresh_token"])
        assert status == 200
        assert renewed["refresh_token"] != reply["refresh_token"]
        other = {"grant_type": "refresh_token", "client_id": "service", "client_secret": "s"}
        assert (await peer.post("/token", **other, refresh_token=renewed["refresh_token"]))[0] == 400
        assert (await peer.post("/token", **form, refresh_token=renewed["refresh_token"]))[0] == 200


async def test_the_id_token_is_signed_by_the_published_key() -> None:
    async with running() as peer:
        _, reply = await peer.redeem((await peer.decide())["code"])
        async with peer.http.get(f"{peer.url}/.well-known/jwks.json") as response:
            key = (await response.json())["keys"][0]
    signed, _, signature = reply["id_token"].rpartition(".")
    raw = _decode(signature)
    x, y = (int.from_bytes(_decode(key[axis]), "big") for axis in "xy")
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    numbers = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    public.verify(encode_dss_signature(*numbers), signed.encode(), ec.ECDSA(SHA256()))
    assert json.loads(_decode(signed.split(".")[1])) == {
        "iss": "http://issuer.test",
        "sub": "demo-user",
        "preferred_username": "demo-user",
        "aud": "demo-app",
        "iat": 1_000_000,
        "exp": 1_000_060,
        "nonce": "n",
    }


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def test_a_code_that_comes_twice_ends_what_it_was_spent_for() -> None:
    async with running() as peer:
        code = (await peer.decide())["code"]
        _, reply = await peer.redeem(code)
        assert await peer.redeem(code) == (400, {"error": "invalid_grant", "error_description": SPENT})
        assert peer.server.introspect(reply["access_token"]) is None
        status, _ = await peer.post(
            "/token", grant_type="refresh_token", client_id="demo-app", refresh_token=reply["refresh_token"]
        )
        assert status == 400


SPENT: Final = "the code is unknown, spent, expired or not this client's"


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "x" * 43},
        {"code_verifier": ""},
        {"redirect_uri": "http://127.0.0.1:9/-/other"},
        {"client_id": "service", "client_secret": "s"},
    ],
)
async def test_a_code_is_good_for_whoever_asked_alone(changes: dict[str, str]) -> None:
    async with running() as peer:
        code = (await peer.decide())["code"]
        assert (await peer.redeem(code, **changes))[1]["error"] == "invalid_grant"
        assert (await peer.redeem("made-up"))[1]["error"] == "invalid_grant"


async def test_a_code_lasts_a_minute() -> None:
    async with running() as peer:
        code = (await peer.decide())["code"]
        peer.now[0] += 60
        assert (await peer.redeem(code))[0] == 400


async def test_the_public_client_gets_nothing_for_itself() -> None:
    async with running() as peer:
        status, reply = await peer.post("/token", grant_type="client_credentials", client_id="demo-app")
        assert (status, reply["error"]) == (400, "unauthorized_client")
        status, reply = await peer.post("/introspect", token="x", client_id="demo-app")
        assert (status, reply["error"]) == (401, "invalid_client")
