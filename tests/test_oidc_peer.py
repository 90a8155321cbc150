import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import pytest
import pytest_asyncio

from oidc_peer import (
    APP_CLIENT,
    BASIC_CLIENT,
    POST_CLIENT,
    Client,
    NodeFailedError,
    OidcPeer,
    Pause,
    find_node,
    hash_of,
)
from people import Person, parse_forms


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest_asyncio.fixture
async def peer() -> AsyncIterator[OidcPeer]:
    async with OidcPeer() as running:
        yield running


@pytest.mark.parametrize("client", [BASIC_CLIENT, POST_CLIENT], ids=lambda client: client.auth)
async def test_client_credentials_give_an_active_token(peer: OidcPeer, client: Client) -> None:
    reply = await peer.request_token(client, grant_type="client_credentials", scope="api:read")
    assert reply.status == 200
    assert reply.body["token_type"] == "Bearer"
    assert reply.body["expires_in"] == 600
    assert "refresh_token" not in reply.body
    assert await peer.introspect(reply.access_token)
    assert not await peer.introspect("made up")


async def test_a_wrong_secret_is_refused(peer: OidcPeer) -> None:
    for client in (BASIC_CLIENT, POST_CLIENT):
        wrong = replace(client, client_secret="wrong")
        reply = await peer.request_token(wrong, grant_type="client_credentials")
        assert (reply.status, reply.body["error"]) == (401, "invalid_client")


async def test_the_log_tells_the_methods_apart_where_the_server_does_not(peer: OidcPeer) -> None:
    for client in (BASIC_CLIENT, replace(BASIC_CLIENT, auth=POST_CLIENT.auth)):
        assert (await peer.request_token(client, grant_type="client_credentials")).status == 200
    assert [each.auth for each in (await peer.log()).requests] == [BASIC_CLIENT.auth, POST_CLIENT.auth]


async def test_a_secret_must_be_form_encoded_before_base64(peer: OidcPeer) -> None:
    pair = aiohttp.encode_basic_auth(BASIC_CLIENT.client_id, BASIC_CLIENT.client_secret)
    async with (
        aiohttp.ClientSession(headers={"Authorization": pair}) as http,
        http.post(peer.token_endpoint, data={"grant_type": "client_credentials"}) as response,
    ):
        assert response.status in {400, 401}


async def test_the_endpoints_are_those_the_server_advertises(peer: OidcPeer) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{peer.issuer}/.well-known/openid-configuration") as response,
    ):
        metadata = await response.json()
    assert metadata["issuer"] == peer.issuer
    assert metadata["token_endpoint"] == peer.token_endpoint
    assert metadata["introspection_endpoint"] == peer.introspection_endpoint
    assert metadata["revocation_endpoint"] == peer.revocation_endpoint


@pytest.mark.parametrize("client", [BASIC_CLIENT, POST_CLIENT], ids=lambda client: client.auth)
async def test_a_refresh_rotates(peer: OidcPeer, client: Client) -> None:
    tokens = [await peer.mint_refresh_token(client)]
    for _ in range(3):
        reply = await peer.refresh(client, tokens[-1])
        assert reply.status == 200
        assert reply.body["scope"] == "openid offline_access api:read"
        assert await peer.introspect(reply.access_token)
        tokens.append(reply.refresh_token)
    assert len(set(tokens)) == 4
    assert (await peer.log()).presented_twice == ()


async def test_a_replayed_refresh_token_kills_the_whole_family(peer: OidcPeer) -> None:
    first = await peer.mint_refresh_token()
    other = await peer.mint_refresh_token()
    fresh = await peer.refresh(BASIC_CLIENT, first)
    for dead in (first, fresh.refresh_token):
        reply = await peer.refresh(BASIC_CLIENT, dead)
        assert (reply.status, reply.body["error"]) == (400, "invalid_grant")
    assert not await peer.introspect(fresh.access_token)
    log = await peer.log()
    assert log.grants_revoked == log.grants_revoked_by_reuse == 1
    assert log.presented_twice == (hash_of(first),)
    assert (await peer.refresh(BASIC_CLIENT, other)).status == 200


async def test_of_parallel_refreshes_with_one_token_one_wins_and_the_family_dies(peer: OidcPeer) -> None:
    first = await peer.mint_refresh_token()
    replies = await asyncio.gather(*(peer.refresh(BASIC_CLIENT, first) for _ in range(10)))
    won = [reply for reply in replies if reply.status == 200]
    assert len(won) == 1
    assert (await peer.refresh(BASIC_CLIENT, won[0].refresh_token)).body["error"] == "invalid_grant"
    assert (await peer.log()).grants_revoked_by_reuse >= 1


async def test_a_refresh_token_belongs_to_its_client(peer: OidcPeer) -> None:
    token = await peer.mint_refresh_token(BASIC_CLIENT)
    assert (await peer.refresh(POST_CLIENT, token)).body["error"] == "invalid_grant"
    assert (await peer.refresh(BASIC_CLIENT, token)).status == 200


async def test_revoke_ends_one_access_token_only(peer: OidcPeer) -> None:
    first = await peer.refresh(BASIC_CLIENT, await peer.mint_refresh_token())
    second = await peer.refresh(BASIC_CLIENT, first.refresh_token)
    machine = await peer.request_token(BASIC_CLIENT, grant_type="client_credentials")
    await peer.revoke(first.access_token)
    assert not await peer.introspect(first.access_token)
    assert await peer.introspect(second.access_token)
    await peer.revoke(machine.access_token)
    assert not await peer.introspect(machine.access_token)
    assert (await peer.refresh(BASIC_CLIENT, second.refresh_token)).status == 200
    assert (await peer.log()).grants_revoked == 0


async def test_a_client_may_revoke_its_grant_itself(peer: OidcPeer) -> None:
    reply = await peer.refresh(BASIC_CLIENT, await peer.mint_refresh_token())
    headers, data = BASIC_CLIENT.authenticate({"token": reply.refresh_token})
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(peer.revocation_endpoint, data=data) as response,
    ):
        assert response.status == 200
    assert not await peer.introspect(reply.access_token)
    log = await peer.log()
    assert (log.grants_revoked, log.grants_revoked_by_reuse) == (1, 0)


REDIRECT = "http://127.0.0.1:12345/-/callback"


def authorize(peer: OidcPeer, **changes: str) -> str:
    """The address at which a login of the public client begins."""
    query = {
        "response_type": "code",
        "client_id": APP_CLIENT.client_id,
        "redirect_uri": REDIRECT,
        "scope": "openid",
        "state": "s",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
    }
    return f"{peer.issuer}/auth?" + urlencode(
        {key: value for key, value in (query | changes).items() if value}
    )


async def test_a_person_logs_in_and_may_call_it_off(peer: OidcPeer) -> None:
    async with Person("somebody") as person:
        back = await person.log_in(authorize(peer), REDIRECT)
        answer = parse_qs(urlsplit(back).query)
        assert set(answer) == {"code", "state", "iss"}
        assert answer["iss"] == [peer.issuer]
    async with Person() as person:
        back = await person.cancel(authorize(peer), REDIRECT)
        assert parse_qs(urlsplit(back).query)["error"] == ["access_denied"]


@pytest.mark.parametrize("missing", ["code_challenge", "code_challenge_method"])
async def test_a_public_client_needs_pkce_with_s256(peer: OidcPeer, missing: str) -> None:
    async with Person() as person:
        back = await person.log_in(authorize(peer, **{missing: ""}), REDIRECT)
    assert parse_qs(urlsplit(back).query)["error"] == ["invalid_request"]


async def test_a_redirect_uri_may_have_any_port_but_no_other_path(peer: OidcPeer) -> None:
    """RFC 8252 section 7.3."""
    elsewhere = "http://127.0.0.1:12345/other"
    async with Person() as person:
        assert await person.log_in(authorize(peer), REDIRECT)
        with pytest.raises(AssertionError, match="400 at"):
            await person.log_in(authorize(peer, redirect_uri=elsewhere), elsewhere)


def test_forms_are_found_in_a_page() -> None:
    page = """<form action="/a"><input name="x" value="1"><input type=submit><button name=abort value=yes></form>
        <input name="y"><form><input name="z"></form>"""
    first, second = parse_forms(page)
    assert (first.action, first.fields) == ("/a", {"x": "1", "abort": "yes", "y": ""})
    assert (second.action, second.fields) == ("", {"z": ""})


@pytest.mark.waits
async def test_lifetimes_are_honoured() -> None:
    async with OidcPeer(access_token_s=3, refresh_token_s=5) as peer:
        reply = await peer.refresh(BASIC_CLIENT, await peer.mint_refresh_token())
        issued_by = time.time()
        assert reply.body["expires_in"] == 3
        assert await peer.introspect(reply.access_token)
        await asyncio.sleep(issued_by + 3.1 - time.time())
        assert not await peer.introspect(reply.access_token)
        await asyncio.sleep(issued_by + 5.1 - time.time())
        expired = await peer.refresh(BASIC_CLIENT, reply.refresh_token)
        assert expired.body["error"] == "invalid_grant"
        assert (await peer.log()).grants_revoked == 0


async def test_the_log_tells_what_was_asked_and_given(peer: OidcPeer) -> None:
    began_at = time.time()
    token = await peer.mint_refresh_token()
    await peer.request_token(POST_CLIENT, grant_type="client_credentials")
    await peer.refresh(BASIC_CLIENT, token)
    await peer.refresh(BASIC_CLIENT, "made up")
    machine, good, bad = (await peer.log()).requests
    assert (machine.client, machine.grant_type, machine.refresh_token) == (
        "post-client",
        "client_credentials",
        None,
    )
    assert (good.client, good.grant_type, good.refresh_token) == (
        "basic-client",
        "refresh_token",
        hash_of(token),
    )
    assert (good.status, good.error) == (200, None)
    assert (bad.status, bad.error, bad.expires_at) == (400, "invalid_grant", None)
    assert began_at - 1 <= machine.at <= good.at <= bad.at <= time.time() + 1
    for each in (machine, good):
        assert each.expires_at is not None
        assert 599 <= each.expires_at - each.at <= 600


@pytest.mark.parametrize("mode", [Pause.REFUSE, Pause.ERROR500, Pause.CLOSED])
async def test_a_pause_spends_nothing_and_ends(peer: OidcPeer, mode: Pause) -> None:
    token = await peer.mint_refresh_token()
    await peer.pause(mode)
    expected = {Pause.REFUSE: aiohttp.ServerDisconnectedError, Pause.CLOSED: aiohttp.ClientConnectorError}
    if mode in expected:
        with pytest.raises(expected[mode]):
            await peer.refresh(BASIC_CLIENT, token)
    else:
        assert (await peer.refresh(BASIC_CLIENT, token)).status == 500
    await peer.pause(Pause.NONE)
    assert (await peer.refresh(BASIC_CLIENT, token)).status == 200
    log = await peer.log()
    assert log.presented_twice == ()
    seen = [] if mode is Pause.CLOSED else [(mode, hash_of(token))]
    assert [(each.mode, each.refresh_token) for each in log.requests[:-1]] == seen


async def test_a_hanging_endpoint_never_answers_and_introspection_goes_on(peer: OidcPeer) -> None:
    machine = await peer.request_token(BASIC_CLIENT, grant_type="client_credentials")
    token = await peer.mint_refresh_token()
    await peer.pause(Pause.HANG)
    hanging = asyncio.create_task(peer.refresh(BASIC_CLIENT, token))
    await peer.wait_for_requests(2)
    assert await peer.introspect(machine.access_token)
    await peer.pause(Pause.NONE)
    assert (await peer.refresh(BASIC_CLIENT, token)).status == 200
    assert not hanging.done()
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    assert (await peer.log()).requests[1].status is None


async def test_a_lost_reply_has_spent_the_token(peer: OidcPeer) -> None:
    token = await peer.mint_refresh_token()
    await peer.pause(Pause.LOST)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await peer.refresh(BASIC_CLIENT, token)
    await peer.pause(Pause.NONE)
    assert (await peer.refresh(BASIC_CLIENT, token)).body["error"] == "invalid_grant"
    log = await peer.log()
    assert [each.status for each in log.requests] == [200, 400]
    assert log.presented_twice == (hash_of(token),)
    assert log.grants_revoked_by_reuse == 1


@pytest.mark.parametrize("mode", [Pause.NONE, Pause.HANG, Pause.CLOSED])
async def test_nothing_is_left_running(mode: Pause) -> None:
    hanging: asyncio.Task[object] | None = None
    async with OidcPeer() as peer:
        pid, issuer = peer.pid, peer.issuer
        await peer.pause(mode)
        if mode is Pause.HANG:
            hanging = asyncio.create_task(peer.request_token(BASIC_CLIENT, grant_type="client_credentials"))
            await peer.wait_for_requests(1)
    assert peer.exit_status == 0, "it has ended by itself"
    if hanging is not None:
        await asyncio.gather(hanging, return_exceptions=True)
    assert not is_running(pid)
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(issuer)


KILLED_INSIDE = """
import asyncio, os, signal
from oidc_peer import OidcPeer

async def main():
    async with OidcPeer() as peer:
        print(peer.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_the_server_does_not_outlive_a_test_run_that_is_killed() -> None:
    run = [sys.executable, "-c", KILLED_INSIDE]
    killed = subprocess.run(run, cwd=Path(__file__).parent, stdout=subprocess.PIPE, check=False)
    pid = int(killed.stdout)
    for _ in range(1000):
        if not is_running(pid):
            break
        time.sleep(0.02)
    assert not is_running(pid)


async def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(
        RuntimeError, match=r"(?s)\(status 1\); run make test.*ttl\.AccessToken must be a positive"
    ):
        await OidcPeer(access_token_s=-1).__aenter__()


@pytest.mark.parametrize("times", [1, 2])
async def test_where_node_crashes_it_is_started_once_more(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes = tmp_path / "node"
    crashes.write_text(
        f"""#!/bin/sh
echo >>{tmp_path}/starts
[ $(wc -l <{tmp_path}/starts) -gt {times} ] || kill -SEGV $$
exec {find_node()} "$@"
"""
    )
    crashes.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(NodeFailedError, match="status -11") if times > 1 else nullcontext():
        async with OidcPeer() as peer:
            assert (await peer.request_token(BASIC_CLIENT, grant_type="client_credentials")).status == 200


def test_missing_node_is_an_error_that_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="run make test"):
        find_node()
