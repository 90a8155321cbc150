"""The authorization server that the tests of logins rely on."""

from urllib.parse import parse_qs, urlsplit

import aiohttp

from login_server import LoginServer

ASKED = {
    "state": "s",
    "redirect_uri": "http://127.0.0.1:1/back",
    "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",  # RFC 7636 appendix B
    "nonce": "n",
}
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


async def callback(http: aiohttp.ClientSession, server: LoginServer) -> dict[str, list[str]]:
    url = f"{server.issuer}/authorize"
    async with http.get(url, params=ASKED, allow_redirects=False) as response:
        assert response.status == 302
        return parse_qs(urlsplit(response.headers["Location"]).query)


async def redeem(http: aiohttp.ClientSession, server: LoginServer, code: str, verifier: str) -> int:
    form = {
        "grant_type": "authorization_code",
        "client_id": "me",
        "code": code,
        "code_verifier": verifier,
    }
    async with http.post(f"{server.issuer}/token", data=form) as response:
        return response.status


async def test_a_code_is_good_once_and_with_its_verifier() -> None:
    async with LoginServer() as server, aiohttp.ClientSession() as http:
        (code,) = (await callback(http, server))["code"]
        assert await redeem(http, server, code, VERIFIER) == 200
        assert await redeem(http, server, code, VERIFIER) == 400
        (code,) = (await callback(http, server))["code"]
        assert await redeem(http, server, code, "x" * 43) == 400
        assert server.token_requests == 3
        assert len(server.valid) == 1


async def test_it_refuses_and_errs_when_told_to() -> None:
    async with LoginServer(names_itself=True) as server, aiohttp.ClientSession() as http:
        server.denial = ("access_denied", "no")
        assert await callback(http, server) == {
            "state": ["s"],
            "iss": [server.issuer],
            "error": ["access_denied"],
            "error_description": ["no"],
        }
        server.denial, server.error = None, "server_error"
        (code,) = (await callback(http, server))["code"]
        assert await redeem(http, server, code, VERIFIER) == 400


async def test_it_counts_revocations() -> None:
    async with LoginServer() as server, aiohttp.ClientSession() as http:
        form = {"token": "t", "token_type_hint": "refresh_token"}
        async with http.post(f"{server.issuer}/revoke", data=form) as response:
            assert response.status == 200
        assert server.revoked == ["refresh_token"]
