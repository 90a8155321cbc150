"""Logins from the outside: a real server with its own forms, a real browser, the real binary under load."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest

from browser import browsing
from daemons import RunningDaemon
from oidc_peer import OidcPeer
from people import Person
from upstreams import ApiUpstream


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def configure(folder: Path, peer: OidcPeer, api: ApiUpstream, further: str = "") -> str:
    return f"""
{further}
[store]
path = "{folder}/vault"
key_file = "{folder}/vault.key"
[accounts.work]
issuer = "{peer.issuer}"
client_id = "app-client"
scopes = ["openid", "offline_access", "api:read"]
authorization_params = {{ prompt = "consent" }}
[routes."/"]
upstream = "{api.url}"
"""


@asynccontextmanager
async def running(
    folder: Path, *, lifetime_s: int, further: str = ""
) -> AsyncIterator[tuple[RunningDaemon, OidcPeer, ApiUpstream]]:
    async with OidcPeer(access_token_s=lifetime_s) as peer, ApiUpstream(peer.introspect) as api:
        toml = configure(folder, peer, api, further)
        async with RunningDaemon(folder, toml, runtime=folder) as daemon:
            yield daemon, peer, api


async def log_in(person: Person, daemon: RunningDaemon) -> str:
    """By the daemon's login page, the server's forms and the callback; the text of the last page."""
    back = await person.log_in(f"{daemon.url}/-/login/work", f"{daemon.url}/-/callback")
    status, page = await person.open(back)
    assert status == 200
    return page


async def call(http: aiohttp.ClientSession, daemon: RunningDaemon) -> tuple[int, float]:
    """Status and seconds of one call."""
    began = time.perf_counter()
    async with http.get(f"{daemon.url}/x") as response:
        await response.read()
        return response.status, time.perf_counter() - began


class Load:
    """So many calls a second, evenly, until it is ended; what came of them."""

    def __init__(self, http: aiohttp.ClientSession, daemon: RunningDaemon, rate: int) -> None:
        self._http = http
        self._daemon = daemon
        self._rate = rate
        self.seen: list[tuple[float, int, float]] = []

    async def _one(self, at: float) -> None:
        status, took_s = await call(self._http, self._daemon)
        self.seen.append((at, status, took_s))

    async def run(self, seconds: float) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as calls:
            for number in range(int(seconds * self._rate)):
                await asyncio.sleep(max(0.0, began + number / self._rate - time.monotonic()))
                calls.create_task(self._one(time.monotonic()))

    @property
    def statuses(self) -> Counter[int]:
        return Counter(status for _, status, _ in self.seen)


async def live(folder: Path, lifetimes: int) -> None:
    """In a real browser: log in at the server's own forms, live so long on rotated tokens, log out, log in again."""
    lifetime_s = 6
    async with running(folder, lifetime_s=lifetime_s) as (daemon, peer, api), browsing() as tab:
        page = tab.page

        async def pass_the_forms() -> None:
            await page.get_by_placeholder("Enter any login").fill("demo-user")
            await page.get_by_placeholder("and password").fill("any")
            await page.get_by_role("button", name="Sign-in").click()
            await page.get_by_role("button", name="Continue").click()
            await page.wait_for_url(f"{daemon.url}/hello")

        await page.goto(f"{daemon.url}/hello")
        await page.get_by_role("link", name="Log in").click()
        await pass_the_forms()
        end = time.monotonic() + lifetimes * lifetime_s
        async with aiohttp.ClientSession() as http:
            while time.monotonic() < end:
                assert (await call(http, daemon))[0] == 200
                await asyncio.sleep(0.2)
        log = await peer.log()
        refreshes = [request for request in log.requests if request.grant_type == "refresh_token"]
        assert len(refreshes) >= lifetimes
        assert {request.status for request in refreshes} == {200}
        assert len({request.refresh_token for request in refreshes}) == len(refreshes)
        assert log.presented_twice == ()
        assert api.unauthorized == 0

        last = api.calls[-1].values(b"authorization")[0].removeprefix(b"Bearer ").decode()
        assert await peer.introspect(last)
        await page.goto(f"{daemon.url}/-/")
        assert "demo-user" in await tab.text()
        await page.get_by_role("button", name="Log out").click()
        await page.get_by_role("link", name="Log in").wait_for()
        assert not await peer.introspect(last)
        assert (await peer.log()).grants_revoked == 1

        await page.goto(f"{daemon.url}/hello")
        await page.get_by_role("link", name="Log in").click()
        await page.get_by_role("button", name="Continue").click()
        await page.wait_for_url(f"{daemon.url}/hello")
        # The server's own forms want fonts from elsewhere; nothing of ours does.
        assert [said for said in tab.complaints if "ERR_NAME_NOT_RESOLVED" not in said] == []


@pytest.mark.waits
async def test_a_browser_at_a_real_server(tmp_path: Path) -> None:
    await live(tmp_path, 3)


@pytest.mark.soak
async def test_twenty_lifetimes_after_a_login_in_a_browser(tmp_path: Path) -> None:
    await live(tmp_path, 20)


async def lack(
    folder: Path, http: aiohttp.ClientSession, seconds: float, prompt: Callable[[list[float]], bool]
) -> None:
    """100 calls a second to an account nobody has logged in to: one hook call, no waiting; then a login helps at once.

    `prompt` judges how many seconds each call took that was refused.
    """
    hook = folder / "hook"
    hook.write_text(f'#!/bin/sh\necho "$BEARERD_LOGIN_ACCOUNT $BEARERD_LOGIN_URL" >> "{folder}/hooked"\n')
    hook.chmod(0o700)
    further = f'[hooks]\non_login_needed = ["{hook}"]'
    async with (
        running(folder, lifetime_s=600, further=further) as (daemon, peer, api),
        Person() as person,
    ):
        load = Load(http, daemon, 100)
        await load.run(seconds)
        assert load.statuses.keys() == {503}
        refused = [took_s for _, _, took_s in load.seen]
        assert prompt(refused), sorted(refused)[-20:]
        assert (folder / "hooked").read_text() == f"work {daemon.url}/-/login/work\n"
        assert (await peer.log()).requests == ()
        assert api.calls == []

        load = Load(http, daemon, 100)
        running_on = asyncio.create_task(load.run(60))
        await asyncio.sleep(1)
        await log_in(person, daemon)
        done_at = time.monotonic()
        await asyncio.sleep(2)
        running_on.cancel()
        with suppress(asyncio.CancelledError):
            await running_on
        assert {status for at, status, _ in load.seen if at >= done_at} == {200}
        assert (folder / "hooked").read_text().count("\n") == 1


@pytest.mark.alone
async def test_calls_without_a_login_are_refused_at_once(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """Whatever else the machine does, most calls are not late; how few may be, the soak says."""
    await lack(tmp_path, http, 8, lambda refused: statistics.median(refused) < 0.010)


@pytest.mark.soak
async def test_a_minute_of_calls_without_a_login(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    await lack(
        tmp_path, http, 60, lambda refused: sum(took_s >= 0.010 for took_s in refused) <= len(refused) * 0.01
    )


async def outlive(folder: Path, http: aiohttp.ClientSession, lifetimes: int) -> None:
    """20 calls a second after a login: nothing fails, and nothing waits for a refresh, for they run ahead."""
    lifetime_s = 10
    async with running(folder, lifetime_s=lifetime_s) as (daemon, peer, api), Person() as person:
        await log_in(person, daemon)
        load = Load(http, daemon, 20)
        await load.run(lifetimes * lifetime_s)
        assert load.statuses.keys() == {200}
        assert api.unauthorized == 0
        at = [request.at for request in (await peer.log()).requests]
        gaps = [later - earlier for earlier, later in pairwise(at)]
        assert len(gaps) >= lifetimes
        # Ahead: the token that is replaced is good for a second yet, the last half of which a call would wait in.
        assert max(gaps) < lifetime_s - 1


@pytest.mark.waits
async def test_after_a_login_no_call_waits(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    await outlive(tmp_path, http, 2)


@pytest.mark.soak
async def test_ten_lifetimes_after_a_login(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    await outlive(tmp_path, http, 10)
