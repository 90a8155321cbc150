"""A storm of reloads, as signals to a process: no call fails, no spent refresh token is presented."""

import json
from contextlib import suppress
from pathlib import Path

import pytest

from commands import run
from daemons import RunningDaemon
from oidc_peer import BASIC_CLIENT, OidcPeer
from storms import Api, Callers, Weather, blow, until_true


@pytest.mark.parametrize(
    ("seconds", "lifetime_s"),
    [
        pytest.param(1.5, 3, id="short"),
        pytest.param(60.0, 10, id="long", marks=pytest.mark.soak),
    ],
)
async def test_a_storm(tmp_path: Path, seconds: float, lifetime_s: int) -> None:
    """200 calls a second by two accounts and either way, events and a WebSocket; the signals are 0.1 s apart.

    Every second configuration is bad. The tokens expire meanwhile, and are refreshed at a server that ends a login
    whose refresh token comes twice.
    """
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    async with OidcPeer(access_token_s=lifetime_s) as peer, Api(peer) as api:
        weather = Weather(tmp_path, peer, api, await peer.mint_refresh_token(BASIC_CLIENT))
        async with RunningDaemon(tmp_path, weather[0], runtime) as daemon:
            async with Callers(daemon.url).calling() as callers:
                await until_true(lambda: len(callers.answers) == 4)
                before = descriptors(daemon.pid)
                gusts = await blow(daemon, weather, seconds)
                await until_true(lambda: api.refreshed(lifetime_s))
                daemon.configure(weather[0])
                ended = await run("reload", "-c", daemon.file, XDG_RUNTIME_DIR=str(runtime))
            said = await run("status", "--json", "-c", daemon.file, XDG_RUNTIME_DIR=str(runtime))
            left = descriptors(daemon.pid)
        log = await peer.log()
    assert callers.failures == []
    assert api.unauthorized == 0
    assert log.presented_twice == ()
    assert log.grants_revoked == 0
    assert ended.status == 0, ended.err
    assert left <= before
    (status,) = json.loads(said.out)["daemons"]
    assert [(each["name"], each["state"]) for each in status["accounts"]] == [
        ("login", "active"),
        ("service", "active"),
    ]
    assert [route["prefix"] for route in status["routes"]] == ["/service", "/"]
    lines = [json.loads(line) for line in daemon.log.splitlines() if line.startswith("{")]
    outcomes = [line["event"] for line in lines if line["event"].startswith("config.")]
    assert set(outcomes) == {"config.reloaded", "config.refused"}
    assert len(outcomes) <= gusts + 1
    assert "library.message" not in daemon.log


def descriptors(pid: int) -> int:
    """How many files a daemon has open; 0 where only root may look."""
    with suppress(PermissionError):
        return len(list(Path(f"/proc/{pid}/fd").glob("*")))
    return 0
