import asyncio
import logging
import re
import shlex

import aiohttp
import pytest

from bearerd.core.accounts import ClientAuth, Grant, OAuthSource
from bearerd.core.targets import build_target, match_route
from bearerd.demo.authorization_server import Lifetimes
from bearerd.demo.world import Demo
from both_loops import LOOPS


async def fetch_token(demo: Demo, http: aiohttp.ClientSession) -> str:
    async with http.post(
        f"{demo.issuer}/token",
        data={"grant_type": "client_credentials"},
        headers={"Authorization": aiohttp.encode_basic_auth(demo.client_id, demo.client_secret.reveal())},
    ) as response:
        assert response.status == 200
        return str((await response.json())["access_token"])


async def call(demo: Demo, http: aiohttp.ClientSession, method: str, path: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with http.request(method, demo.api_url + path, headers=headers) as response:
        await response.read()
        return response.status


async def discover_call_and_revoke() -> None:
    async with Demo.start() as demo, aiohttp.ClientSession() as http:
        async with http.get(f"{demo.issuer}/.well-known/oauth-authorization-server") as response:
            assert (await response.json())["issuer"] == demo.issuer
        token = await fetch_token(demo, http)
        assert await call(demo, http, "GET", "/hello", token) == 200
        assert await call(demo, http, "POST", "/revoke-me", token) == 200
        assert await call(demo, http, "GET", "/hello", token) == 401
        assert await call(demo, http, "GET", "/hello", await fetch_token(demo, http)) == 200
        assert demo.authorization_server.token_requests == 2


@pytest.mark.parametrize("loop", LOOPS)
def test_a_token_of_the_one_server_is_good_at_the_other_until_revoked(loop: str) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(discover_call_and_revoke())


async def test_nothing_listens_after_the_end_even_with_a_client_still_connected() -> None:
    async with aiohttp.ClientSession() as http:
        async with Demo.start() as demo:
            await fetch_token(demo, http)
        for url in (demo.issuer, demo.api_url):
            with pytest.raises(aiohttp.ClientConnectorError):
                await http.get(url)


async def test_two_starts_share_neither_ports_nor_secrets() -> None:
    async with Demo.start() as one, Demo.start() as two:
        assert len({one.issuer, one.api_url, two.issuer, two.api_url}) == 4
        assert one.client_secret != two.client_secret
        assert one.client_secret.reveal() not in repr(one)


async def test_the_configuration_leads_to_both_servers() -> None:
    async with Demo.start() as demo:
        configuration = demo.configuration(1234)
    assert configuration.listen.port == 1234
    assert configuration.accounts["service"].name == "service"
    assert configuration.accounts["service"].source == OAuthSource(
        grant=Grant.CLIENT_CREDENTIALS,
        client_id=demo.client_id,
        client_auth=ClientAuth.BASIC,
        client_secret=demo.client_secret,
        issuer=demo.issuer,
    )
    route = match_route(configuration.routes, b"/service/hello?x=1")
    assert route is not None
    assert route.account == "service"
    assert str(route.origin) == demo.api_url
    assert build_target(route, b"/service/hello?x=1") == b"/hello?x=1"
    assert configuration.accounts["me"].source == OAuthSource(
        grant=Grant.AUTHORIZATION_CODE,
        client_id="bearerd-demo-app",
        client_auth=ClientAuth.NONE,
        issuer=demo.issuer,
        scopes=("openid", "demo:read"),
    )
    assert configuration.store.kind == "memory"


async def test_the_text_is_a_sentence_three_commands_and_a_page() -> None:
    async with Demo.start(Lifetimes(access_s=17)) as demo:
        text = demo.first_lines(1234)
        secret = demo.client_secret.reveal()
    assert re.match(r"bearerd demo: [^.]+\.\n", text)
    *commands, page = (line for line in text.splitlines() if line.startswith("  "))
    assert page == "  http://127.0.0.1:1234/me/hello"
    assert len(commands) == 3
    assert all("http://127.0.0.1:1234/service/" in command for command in commands)
    assert all(shlex.split(command, comments=True) == shlex.split(command) for command in commands)
    assert "17 seconds" in text
    assert secret not in text


async def test_calls_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Demo.start() as demo, aiohttp.ClientSession() as http:
        await call(demo, http, "GET", "/hello", "x")
    assert [record for record in caplog.records if record.name.startswith("aiohttp")] == []
