"""A running bearerd whose clock is set: forward, back, to 1970. Everybody else's goes on as it was.

Its wall clock is faked by libfaketime; its timers and `time.monotonic` are real, as they are where a person or NTP sets
a clock.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from clocks import FakedClock
from daemons import RunningDaemon
from oidc_peer import BASIC_CLIENT, OidcPeer
from upstreams import ApiUpstream

HOUR: Final = 3600
DAY: Final = 24 * HOUR
JUMPS: Final = ("+1 h", "-1 h", "+1 d", "-1 d", "1970", "now")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the clock is faked by way of LD_PRELOAD")


class JumpingClock(FakedClock):
    """One that is set in all the ways that are tried."""

    def jump(self, name: str) -> None:
        offsets = {"+1 h": HOUR, "-1 h": -HOUR, "+1 d": DAY, "-1 d": -DAY, "1970": 60 - time.time(), "now": 0}
        self.set(offsets[name])


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JumpingClock:
    """The clock of whatever is started after this, so peers that are to have the true one are fixtures before it."""
    faked = JumpingClock(tmp_path)
    for name, value in faked.environment().items():
        monkeypatch.setenv(name, value)
    return faked


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def lifetime_s() -> int:
    return 600


@pytest.fixture
async def peer(lifetime_s: int) -> AsyncIterator[OidcPeer]:
    async with OidcPeer(access_token_s=lifetime_s) as running:
        yield running


@pytest.fixture
async def api(peer: OidcPeer) -> AsyncIterator[ApiUpstream]:
    async with ApiUpstream(peer.introspect) as running:
        yield running


async def configure(folder: Path, peer: OidcPeer, api: ApiUpstream) -> str:
    return f"""
[store]
path = "{folder}/vault"
key_file = "{folder}/vault.key"
[accounts.login]
refresh_token = "{await peer.mint_refresh_token()}"
issuer = "{peer.issuer}"
client_id = "{BASIC_CLIENT.client_id}"
client_secret = "{BASIC_CLIENT.client_secret}"
[routes."/"]
upstream = "{api.url}"
"""


async def status(http: aiohttp.ClientSession, daemon: RunningDaemon) -> int:
    async with http.get(f"{daemon.url}/x") as response:
        await response.read()
        return response.status


@pytest.mark.waits
async def test_each_jump_costs_one_refresh_at_the_most_and_no_call(
    tmp_path: Path, peer: OidcPeer, api: ApiUpstream, clock: JumpingClock, http: aiohttp.ClientSession
) -> None:
    toml = await configure(tmp_path, peer, api)
    async with RunningDaemon(tmp_path, toml) as daemon:
        assert await status(http, daemon) == 200
        for jump in JUMPS:
            before = len((await peer.log()).requests)
            clock.jump(jump)
            for _ in range(5):
                assert await status(http, daemon) == 200, jump
                await asyncio.sleep(0.1)
            assert len((await peer.log()).requests) - before <= 1, jump
    before = len((await peer.log()).requests)
    async with RunningDaemon(tmp_path, toml) as daemon:  # what it finds was stored by a clock a day ahead
        assert await status(http, daemon) == 200
        assert await status(http, daemon) == 200
    assert len((await peer.log()).requests) - before <= 1
    log = await peer.log()
    assert log.presented_twice == ()
    assert log.grants_revoked == 0
    assert api.unauthorized == 0


@pytest.mark.parametrize("lifetime_s", [15])  # its refresh begins 2 s or more before the server's end of it
@pytest.mark.waits
async def test_a_clock_set_back_does_not_lengthen_a_token_s_life(
    tmp_path: Path, peer: OidcPeer, api: ApiUpstream, clock: JumpingClock, http: aiohttp.ClientSession
) -> None:
    async with RunningDaemon(tmp_path, await configure(tmp_path, peer, api)) as daemon:
        assert await status(http, daemon) == 200
        clock.jump("-1 h")
        seen: Counter[int] = Counter()
        end = time.monotonic() + 17
        while time.monotonic() < end:
            seen[await status(http, daemon)] += 1
            await asyncio.sleep(0.25)
    assert set(seen) == {200}
    assert api.unauthorized == 0
    assert 2 <= len((await peer.log()).requests) <= 3
