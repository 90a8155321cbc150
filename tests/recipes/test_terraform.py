"""A state that an HTTP server keeps: by Terraform itself, and by its calls where tokens are revoked."""

import json
import platform
import re
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest

from oidc_peer import OidcPeer
from recipes.recipe import STATIC, TOKEN, Recipe, account_of, following
from recipes.state_server import StateServer
from upstreams import accept_any_of

SERVER = "https://state.example.com"
LOCK = {"ID": "7a1c", "Operation": "OperationTypeApply", "Who": "me"}
METHODS = 'methods = ["GET", "POST", "DELETE", "LOCK", "UNLOCK"]\n'


def addresses(recipe: Recipe) -> dict[str, str]:
    """The settings of the page's backend."""
    return dict(re.findall(r'(\w+) += "(http[^"]+)"', recipe.write("main.tf").read_text()))


async def call(
    http: aiohttp.ClientSession, method: str, url: str, body: object = None, **query: str
) -> tuple[int, str]:
    data = BytesIO(json.dumps(body).encode()) if body else None
    async with http.request(method, url, data=data, params=query) as response:
        return response.status, await response.text()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the package index has Terraform for no other")
async def test_terraform_applies(tmp_path: Path, here: Path) -> None:
    async with OidcPeer() as peer, StateServer(peer.introspect) as server:
        account = account_of(peer, tmp_path)
        async with following("terraform", tmp_path, account, {SERVER: server.url}) as recipe:
            recipe.write("main.tf")
            (here / "more.tf").write_text('resource "terraform_data" "greeting" { input = "hello" }\n')
            await recipe.run("terraform")
        assert {call.method for call in server.calls} == {"GET", "POST", "LOCK", "UNLOCK"}
        assert json.loads(server.state)["resources"][0]["name"] == "greeting"
        assert server.holder is None
        assert server.unauthorized == 0


async def test_a_state_is_locked_saved_and_unlocked_with_tokens_that_are_revoked(tmp_path: Path) -> None:
    """Before the lock and before the state of 2 MiB: both are sent again, whole."""
    state = {"version": 4, "padding": "x" * (2 << 20)}
    async with (
        OidcPeer() as peer,
        StateServer(peer.introspect) as server,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http,
    ):
        account = account_of(peer, tmp_path)
        async with following("terraform", tmp_path, account, {SERVER: server.url}, more=METHODS) as recipe:
            at = addresses(recipe)
            assert await call(http, "GET", at["address"]) == (204, "")
            await peer.revoke(server.last_token)
            assert (await call(http, "LOCK", at["lock_address"], LOCK))[0] == 200
            status, holder = await call(http, "LOCK", at["lock_address"], {"ID": "another"})
            assert (status, json.loads(holder)) == (423, LOCK)
            await peer.revoke(server.last_token)
            assert (await call(http, "POST", at["address"], state, ID=LOCK["ID"]))[0] == 200
            assert (await call(http, "UNLOCK", at["unlock_address"], LOCK))[0] == 200
            status, kept = await call(http, "GET", at["address"])
            assert json.loads(kept) == state
        assert server.unauthorized == 2


@pytest.mark.soak
async def test_a_method_that_the_rules_do_not_name_is_refused(tmp_path: Path) -> None:
    async with StateServer(accept_any_of({TOKEN})) as server, aiohttp.ClientSession() as http:
        rule = METHODS.replace('"LOCK", ', "")
        async with following("terraform", tmp_path, STATIC, {SERVER: server.url}, more=rule) as recipe:
            status, problem = await call(http, "LOCK", addresses(recipe)["lock_address"], LOCK)
    assert (status, json.loads(problem)["code"]) == (403, "refused_by_methods")
    assert server.calls == []
