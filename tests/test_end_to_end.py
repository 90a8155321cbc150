"""The main job, on real parts: npm's oidc-provider, a bearerd process, real clients, an API that checks tokens."""

import asyncio
import resource
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest
from openai import AsyncOpenAI

from daemons import RunningDaemon
from oidc_peer import BASIC_CLIENT, POST_CLIENT, Client, OidcPeer, Pause, TokenRequest
from upstreams import CHAT_REPLY, ApiUpstream, Call

LIFETIME_S = 10
WINDOW_S = LIFETIME_S * 0.2 * 1.1  # the advisory window and its jitter


def account(name: str, peer: OidcPeer, client: Client, refresh_token: str | None = None) -> str:
    """An `[accounts]` table: client credentials, or a login given as its refresh token."""
    grant = f'refresh_token = "{refresh_token}"' if refresh_token else 'grant = "client_credentials"'
    store = '[store]\nkind = "memory"' if refresh_token else ""
    return f"""
{store}
[accounts.{name}]
{grant}
issuer = "{peer.issuer}"
client_id = "{client.client_id}"
client_secret = "{client.client_secret}"
client_auth = "{client.auth}"
"""


def route(prefix: str, api: ApiUpstream, name: str) -> str:
    return f'[routes."{prefix}"]\nupstream = "{api.url}"\naccount = "{name}"\n'


def bearers(calls: list[Call]) -> Counter[bytes]:
    return Counter(call.values(b"authorization")[0] for call in calls)


def of_client(requests: tuple[TokenRequest, ...], client: Client) -> list[TokenRequest]:
    return [request for request in requests if request.client == client.client_id]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


async def statuses(http: aiohttp.ClientSession, url: str, count: int) -> Counter[int]:
    """How many of `count` calls at once were answered with which status."""

    async def call() -> int:
        async with http.get(url) as response:
            await response.read()
            return response.status

    return Counter(await asyncio.gather(*(call() for _ in range(count))))


@pytest.mark.waits
async def test_sixty_seconds_of_ten_second_tokens(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """Two accounts, 20 calls a second, every token introspected: nothing fails, nothing is refreshed early."""
    async with OidcPeer(access_token_s=LIFETIME_S) as peer, ApiUpstream(peer.introspect) as api:
        first = await peer.mint_refresh_token(POST_CLIENT)
        toml = account("service", peer, BASIC_CLIENT) + account("login", peer, POST_CLIENT, first)
        toml += route("/service/", api, "service") + route("/login/", api, "login")
        async with RunningDaemon(tmp_path, toml) as daemon:
            seen: Counter[int] = Counter()
            end = time.monotonic() + 60
            while time.monotonic() < end:
                started = time.monotonic()
                for prefix in ("service", "login"):
                    seen += await statuses(http, f"{daemon.url}/{prefix}/x", 10)
                await asyncio.sleep(max(0.0, started + 1 - time.monotonic()))
        assert set(seen) == {200}
        assert seen[200] >= 1000
        assert api.unauthorized == 0
        assert '"replayed": true' not in daemon.log
        requests = (await peer.log()).requests
        assert (await peer.log()).presented_twice == ()
        assert (await peer.log()).grants_revoked == 0
        for client in (BASIC_CLIENT, POST_CLIENT):
            at = [request.at for request in of_client(requests, client)]
            gaps = [later - earlier for earlier, later in pairwise(at)]
            assert 6 <= len(gaps) <= 8
            assert all(LIFETIME_S - WINDOW_S - 0.1 < gap < LIFETIME_S for gap in gaps)


async def test_the_openai_sdk_streams_a_completion_with_a_dummy_key(tmp_path: Path) -> None:
    async with OidcPeer() as peer, ApiUpstream(peer.introspect) as api:
        toml = account("llm", peer, BASIC_CLIENT) + route("/", api, "llm")
        async with (
            RunningDaemon(tmp_path, toml) as daemon,
            AsyncOpenAI(base_url=f"{daemon.url}/v1", api_key="dummy", max_retries=0) as client,
        ):
            stream = await client.chat.completions.create(
                model="any", messages=[{"role": "user", "content": "hello"}], stream=True
            )
            words = [chunk.choices[0].delta.content or "" async for chunk in stream]
            whole = await client.chat.completions.create(
                model="any", messages=[{"role": "user", "content": "hello"}]
            )
        assert "".join(words) == CHAT_REPLY == whole.choices[0].message.content
        assert len(words) > 5
        assert all(call.authorized for call in api.calls)
        assert b"dummy" not in b"".join(value for call in api.calls for _, value in call.raw_headers)


@pytest.mark.alone
async def test_a_thousand_calls_on_a_cold_start_cost_one_token_request(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with OidcPeer() as peer, ApiUpstream(peer.introspect) as api:
        await peer.pause(Pause.CLOSED)  # so that the daemon is up and has no token yet
        toml = account("service", peer, BASIC_CLIENT) + route("/", api, "service")
        async with RunningDaemon(tmp_path, toml) as daemon:
            async with http.get(f"{daemon.url}/x") as response:
                assert response.status == 503
            await peer.pause(Pause.NONE)
            (await recovered(http, daemon)).check()
        assert len((await peer.log()).requests) == 1

    async with OidcPeer() as peer, ApiUpstream(peer.introspect) as api:
        toml = account("service", peer, BASIC_CLIENT) + route("/", api, "service")
        async with RunningDaemon(tmp_path, toml) as daemon:
            assert await statuses(http, f"{daemon.url}/x", 1000) == {200: 1000}
        assert len((await peer.log()).requests) == 1


class Promptness:
    """How long refusals take. A busy machine holds up some; none may wait by rule, as for a token, which takes 10 s."""

    def __init__(self) -> None:
        self._took_s: list[float] = []

    def add(self, seconds: float) -> None:
        self._took_s.append(seconds)

    def check(self) -> None:
        """Wherever this runs; there may have been none."""
        assert statistics.median(self._took_s or [0.0]) < 0.05
        assert max(self._took_s, default=0.0) < 5

    def check_each(self) -> None:
        """On a machine with nothing else to do."""
        slow = [seconds for seconds in self._took_s if seconds >= 0.05]
        assert len(slow) <= max(1, len(self._took_s) // 100), slow
        assert all(seconds < 1.0 for seconds in slow)


async def recovered(http: aiohttp.ClientSession, daemon: RunningDaemon) -> Promptness:
    """Returns when a call succeeds; each call before is refused at once with a time to come again.

    The attempts are at most 30 s apart. What it takes the machine to notice is its own.
    """
    refusals = Promptness()
    async with asyncio.timeout(30 + 10):
        while True:
            called = time.monotonic()
            async with http.get(f"{daemon.url}/x") as response:
                await response.read()
            if response.status == 200:
                return refusals
            assert response.status == 503
            assert 1 <= int(response.headers["Retry-After"]) <= 30
            refusals.add(time.monotonic() - called)
            await asyncio.sleep(0.1)


async def lack_a_token_endpoint(folder: Path, http: aiohttp.ClientSession) -> tuple[Promptness, Promptness]:
    """For ten lifetimes: 200 until the token expires, then 503, then 200 within 30 s; no restart.

    Returns how long the refusals took in that time, and after it.
    """
    lifetime_s = 5
    async with OidcPeer(access_token_s=lifetime_s) as peer, ApiUpstream(peer.introspect) as api:
        toml = account("service", peer, BASIC_CLIENT) + route("/", api, "service")
        async with RunningDaemon(folder, toml) as daemon:
            assert await statuses(http, f"{daemon.url}/x", 1) == {200: 1}
            received_by = time.time()
            await peer.pause(Pause.REFUSE)
            issued = (await peer.log()).requests[-1]
            assert issued.expires_at is not None
            refusals = Promptness()
            outcomes: list[tuple[float, float, int]] = []
            while time.time() < received_by + 10 * lifetime_s:
                began, called = time.time(), time.monotonic()
                async with http.get(f"{daemon.url}/x") as response:
                    await response.read()
                if response.status == 503:
                    assert 1 <= int(response.headers["Retry-After"]) <= 30
                    refusals.add(time.monotonic() - called)
                outcomes.append((began, time.time(), response.status))
                await asyncio.sleep(0.05)
            # The server's own expiry is in whole seconds, ours up to one second later.
            assert {status for _, ended, status in outcomes if ended < issued.expires_at} == {200}
            assert {status for began, _, status in outcomes if began > received_by + lifetime_s} == {503}
            await peer.pause(Pause.NONE)
            return refusals, await recovered(http, daemon)


@pytest.mark.waits
async def test_ten_lifetimes_without_a_token_endpoint(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    for refusals in await lack_a_token_endpoint(tmp_path, http):
        refusals.check()


@pytest.mark.soak
async def test_each_call_without_a_token_endpoint_is_refused_at_once(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """Within 50 ms."""
    for refusals in await lack_a_token_endpoint(tmp_path, http):
        refusals.check_each()


class HoldsBack:
    """Answers `count` calls with a revoked token all together, once the last of them is there."""

    def __init__(self, peer: OidcPeer, count: int) -> None:
        self._peer = peer
        self._count = count
        self._held = 0
        self._all_there = asyncio.Event()
        self.revoked: str | None = None

    async def check(self, token: str) -> bool:
        if token != self.revoked:
            return await self._peer.introspect(token)
        self._held += 1
        if self._held == self._count:
            self._all_there.set()
        await self._all_there.wait()
        return False


async def test_200_calls_refused_for_one_revoked_token(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """One refresh, 200 replays, and no client sees any of it."""
    async with OidcPeer() as peer:
        gate = HoldsBack(peer, 200)
        async with ApiUpstream(gate.check) as api:
            first = await peer.mint_refresh_token()
            toml = account("login", peer, BASIC_CLIENT, first) + route("/", api, "login")
            async with RunningDaemon(tmp_path, toml) as daemon:
                assert await statuses(http, f"{daemon.url}/x", 1) == {200: 1}
                gate.revoked = api.calls[0].values(b"authorization")[0].removeprefix(b"Bearer ").decode()
                await peer.revoke(gate.revoked)
                assert await statuses(http, f"{daemon.url}/x", 200) == {200: 200}
            assert api.unauthorized == 200
            # Read once it has ended: an answer may be here before its line in the log.
            assert daemon.log.count('"replayed": true') == 200
            assert len(bearers(api.calls)) == 2
            assert len((await peer.log()).requests) == 2
            assert (await peer.log()).presented_twice == ()


@pytest.mark.parametrize("size", [0, 1000, 1 << 20])
async def test_a_replay_carries_the_body(tmp_path: Path, http: aiohttp.ClientSession, size: int) -> None:
    async with OidcPeer() as peer, ApiUpstream(peer.introspect) as api:
        toml = account("service", peer, POST_CLIENT) + route("/", api, "service")
        async with RunningDaemon(tmp_path, toml) as daemon:
            await statuses(http, f"{daemon.url}/x", 1)
            await peer.revoke(api.calls[0].values(b"authorization")[0].removeprefix(b"Bearer ").decode())
            async with http.post(f"{daemon.url}/x", data=b"b" * size) as response:
                assert response.status == 200
        assert [call.authorized for call in api.calls] == [True, False, True]
        assert api.calls[1].body_sha256 == api.calls[2].body_sha256


async def test_a_body_too_big_to_keep_gets_the_401_as_it_is_and_the_next_call_succeeds(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with OidcPeer() as peer, ApiUpstream(peer.introspect) as api:
        toml = account("service", peer, BASIC_CLIENT) + route("/", api, "service")
        async with RunningDaemon(tmp_path, toml) as daemon:
            await statuses(http, f"{daemon.url}/x", 1)
            await peer.revoke(api.calls[0].values(b"authorization")[0].removeprefix(b"Bearer ").decode())
            async with http.post(f"{daemon.url}/x", data=BytesIO(b"b" * ((1 << 20) + 1))) as response:
                assert response.status == 401
                assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
            assert await statuses(http, f"{daemon.url}/x", 1) == {200: 1}


async def test_an_api_that_always_says_401_costs_one_grant_and_not_one_per_call(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async def never(token: str) -> bool:
        return not token

    async with OidcPeer() as peer, ApiUpstream(never) as api:
        toml = account("service", peer, BASIC_CLIENT) + route("/", api, "service")
        async with RunningDaemon(tmp_path, toml) as daemon:
            for _ in range(20):
                assert await statuses(http, f"{daemon.url}/x", 1) == {401: 1}
        assert len(api.calls) == 21
        assert len((await peer.log()).requests) == 2


async def test_a_login_that_ended_says_so_and_asks_the_server_no_more(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with OidcPeer() as peer, ApiUpstream(peer.introspect) as api:
        spent = await peer.mint_refresh_token()
        await peer.refresh(BASIC_CLIENT, spent)
        toml = account("login", peer, BASIC_CLIENT, spent) + route("/", api, "login")
        async with RunningDaemon(tmp_path, toml) as daemon:
            for _ in range(20):
                async with http.get(f"{daemon.url}/x") as response:
                    problem = await response.json(content_type="application/problem+json")
                assert response.status == 503
                assert problem["code"] == "login_required"
                assert response.headers["x-should-retry"] == "false"
                assert "Retry-After" not in response.headers
        assert len((await peer.log()).requests) == 2
        assert api.calls == []
