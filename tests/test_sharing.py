"""One login shared by many processes, on a real server that ends a grant whose refresh token comes twice."""

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import pytest

from daemons import RunningDaemon
from faults import FaultServer, pause, read, reply, send
from oidc_peer import BASIC_CLIENT, OidcPeer
from upstreams import ApiUpstream

LIFETIME_S = 10
WINDOW_S = LIFETIME_S * 0.2 * 1.1
MIN_VALID_S = 2
SURE_S = LIFETIME_S - 1  # what a token is good for at the server, where `exp` is in whole seconds


def configure(folder: Path, peer: OidcPeer, api: ApiUpstream, refresh_token: str) -> str:
    return f"""
[store]
path = "{folder}/vault"
key_file = "{folder}/vault.key"
[accounts.login]
refresh_token = "{refresh_token}"
issuer = "{peer.issuer}"
client_id = "{BASIC_CLIENT.client_id}"
client_secret = "{BASIC_CLIENT.client_secret}"
[routes."/"]
upstream = "{api.url}"
"""


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def status(http: aiohttp.ClientSession, daemon: RunningDaemon) -> int:
    async with http.get(f"{daemon.url}/x") as response:
        await response.read()
        return response.status


async def print_token(folder: Path, runtime: str = "nowhere", form: str = "raw") -> tuple[int, str]:
    """`bearerd token`, as its status and what it printed. It asks the daemons whose sockets are in `runtime`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bearerd", "token", "login", "-c", str(folder / "bearerd.toml")),
        *("--min-valid", str(MIN_VALID_S), "--format", form),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env=os.environ | {"XDG_RUNTIME_DIR": str(folder / runtime)},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode().strip() or err.decode()


class Party:
    """Daemons under load and loops of `bearerd token`, until `end`; everything they saw."""

    def __init__(
        self, folder: Path, peer: OidcPeer, http: aiohttp.ClientSession, end: float, pause_s: float
    ) -> None:
        self._pause_s = pause_s
        self._folder = folder
        self._peer = peer
        self._http = http
        self._end = end
        self.calls: Counter[int] = Counter()
        self.slowest_s = 0.0
        self.tokens: Counter[str] = Counter()

    async def call(self, daemon: RunningDaemon) -> None:
        while time.monotonic() < self._end:
            began = time.monotonic()
            self.calls[await status(self._http, daemon)] += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            await asyncio.sleep(0.1)

    async def ask(self, runtime: str) -> None:
        while time.monotonic() < self._end:
            began_at = time.time()
            code, printed = await print_token(self._folder, runtime, "json")
            self.tokens[printed if code else await self._judge(json.loads(printed), began_at)] += 1
            await asyncio.sleep(self._pause_s)

    async def _judge(self, handed: dict[str, Any], began_at: float) -> str:
        """What a token is worth that was asked for at `began_at`.

        On a machine this busy a token can reach its end before the server is asked about it; `exp` is whole seconds.
        """
        if handed["expires_at"] < began_at + MIN_VALID_S:
            return "handed out with too little time left"
        if await self._peer.introspect(handed["access_token"]):
            return "good"
        return "good to its end" if time.time() > handed["expires_at"] - 1 else "refused before its end"


async def share(
    folder: Path, http: aiohttp.ClientSession, *, daemons: int, loops: int, expiries: int, good: float
) -> None:
    """So many processes through so many expiries: no refresh token twice, one grant per window, nothing fails.

    Every other loop of `bearerd token` finds no daemon and goes by the vault. `good` is the part of their tokens that must
    still be good when the server is asked; of few of them, a busy machine makes many late.
    """
    async with OidcPeer(access_token_s=LIFETIME_S) as peer, ApiUpstream(peer.introspect) as api:
        toml = configure(folder, peer, api, await peer.mint_refresh_token())
        async with AsyncExitStack() as stack:
            running = [
                await stack.enter_async_context(RunningDaemon(folder, toml, runtime=folder))
                for _ in range(daemons)
            ]
            end = time.monotonic() + expiries * (LIFETIME_S - WINDOW_S)
            party = Party(folder, peer, http, end, pause_s=loops / 10)  # so many interpreters start and end
            await asyncio.gather(
                *(party.call(daemon) for daemon in running),
                *(party.ask("" if loop % 2 else "nowhere") for loop in range(loops)),
            )
        replays = sum(daemon.log.count('"replayed": true') for daemon in running)
        log = await peer.log()
        assert set(party.calls) == {200}
        assert set(party.tokens) <= {"good", "good to its end"}
        assert party.tokens["good"] > good * party.tokens.total()
        assert log.presented_twice == ()
        assert log.grants_revoked == 0
        gaps = [later.at - earlier.at for earlier, later in pairwise(log.requests)]
        assert len(gaps) >= expiries - 2
        judge_gaps(gaps)
        if max(gaps) + party.slowest_s < SURE_S:  # and no call was under way with the old one at its end
            assert api.unauthorized == replays == 0


def judge_gaps(gaps: list[float]) -> None:
    """No grant before its window, ever: a token's life is counted from a moment after the server saw the request.

    A late one is nobody's fault but the machine's: whoever has the lock may be kept from running with it, and the
    others then wait as they must, and so do their calls. A program that is late would be so most of the time.
    """
    assert min(gaps) > LIFETIME_S - WINDOW_S - 0.1
    assert median(gaps) < SURE_S


@pytest.mark.waits
async def test_processes_share_a_login(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    await share(tmp_path, http, daemons=3, loops=2, expiries=4, good=0.5)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_twenty_processes_and_fifty_expiries(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    await share(tmp_path, http, daemons=5, loops=15, expiries=50, good=0.95)


async def start_and_kill(folder: Path, toml: str, http: aiohttp.ClientSession) -> None:
    daemon = RunningDaemon(folder, toml)
    await daemon.__aenter__()
    assert await status(http, daemon) == 200
    os.kill(daemon.pid, signal.SIGKILL)
    assert await daemon.end() == -signal.SIGKILL


async def test_a_kill_of_everything_costs_no_token(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """One that is good for longer than any machine takes for three starts."""
    async with OidcPeer(access_token_s=600) as peer, ApiUpstream(peer.introspect) as api:
        toml = configure(tmp_path, peer, api, await peer.mint_refresh_token())
        for _ in range(3):
            await start_and_kill(tmp_path, toml, http)
        assert len((await peer.log()).requests) == 1


@pytest.mark.waits
async def test_after_a_kill_of_everything_the_first_call_needs_no_login(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with OidcPeer(access_token_s=LIFETIME_S) as peer, ApiUpstream(peer.introspect) as api:
        toml = configure(tmp_path, peer, api, await peer.mint_refresh_token())
        await start_and_kill(tmp_path, toml, http)
        assert len((await peer.log()).requests) == 1
        await asyncio.sleep(LIFETIME_S)
        async with RunningDaemon(tmp_path, toml) as daemon:
            assert await status(http, daemon) == 200
        assert len((await peer.log()).requests) == 2
        assert (await peer.log()).presented_twice == ()


async def test_the_port_does_not_wait_for_the_key(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with OidcPeer() as peer, ApiUpstream(peer.introspect) as api:
        toml = configure(tmp_path, peer, api, await peer.mint_refresh_token())
        async with RunningDaemon(tmp_path, toml) as daemon:
            assert await status(http, daemon) == 200
        events = [
            event for event in ("daemon.listening", "vault.key_read", "daemon.started") if event in daemon.log
        ]
        assert events == sorted(events, key=daemon.log.index)
        assert len(events) == 3


async def test_a_sibling_s_failure_is_not_repeated_by_others(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """A spent refresh token is presented to the server twice at the most: once it is rejected, nobody tries again."""
    async with OidcPeer() as peer, ApiUpstream(peer.introspect) as api:
        spent = await peer.mint_refresh_token()
        await peer.refresh(BASIC_CLIENT, spent)
        toml = configure(tmp_path, peer, api, spent)
        for _ in range(3):
            async with RunningDaemon(tmp_path, toml) as daemon:
                assert await status(http, daemon) == 503
        code, said = await print_token(tmp_path)
        assert code == 4
        assert "invalid_grant" in said
        assert len((await peer.log()).requests) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.waits
async def test_a_token_command_that_is_told_to_end_saves_what_it_had_sent_for(
    tmp_path: Path, number: signal.Signals
) -> None:
    """As by `timeout 5 bearerd token`: the reply comes after the signal, and is in the vault for the next process."""
    granted = {
        "access_token": "the-token",
        "token_type": "Bearer",
        "expires_in": 600,
        "refresh_token": "next",
    }
    answer = reply(json.dumps(granted).encode(), "200 OK", "Content-Type: application/json")
    async with FaultServer([read, pause(1.0), send(answer)]) as server:
        (tmp_path / "bearerd.toml").write_text(f"""
[store]
path = "{tmp_path}/vault"
key_file = "{tmp_path}/vault.key"
[accounts.login]
refresh_token = "first"
client_id = "cli"
token_endpoint = "{server.url}/token"
[routes."/"]
upstream = "http://127.0.0.1:9"
""")
        words = (sys.executable, "-m", "bearerd", "token", "login", "-c", str(tmp_path / "bearerd.toml"))
        environ = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
        process = await asyncio.create_subprocess_exec(
            *words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environ
        )
        async with asyncio.timeout(60):
            while not server.requests:  # noqa: ASYNC110  # it happens in another process
                await asyncio.sleep(0.02)
        process.send_signal(number)
        out, err = await process.communicate()
        assert process.returncode == 1
        assert out == b""
        assert b"Traceback" not in err
        assert await print_token(tmp_path) == (0, "the-token")
        assert server.connections == 1
