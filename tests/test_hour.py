"""A daemon under a mixed load, with tokens that last ten seconds: nothing fails, and nothing is left behind.

`make soak` has an hour of it; `SOAK_S` in the environment is another number of seconds.
"""

import asyncio
import json
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

import canaries
from commands import run, write
from daemons import RunningDaemon
from log_events import TABLE
from mixed_load import AS_IT_SHOULD, BusyApi, MixedLoad
from oidc_peer import BASIC_CLIENT, POST_CLIENT, OidcPeer
from patience import settle
from users import looks_into_daemon

LIFETIME_S: Final = 10
MIN_VALID_S: Final = 2
SHORT_S: Final = 3.0
LONG_S: Final = float(os.environ.get("SOAK_S", "3600"))
SAMPLE_S: Final = 0.2
RELOAD_S: Final = 0.7
THREADS: Final = 12
GROWTH: Final = 2 << 20  # bytes that it may have more in the last fifth of the time than in the second
TOML: Final = """
[limits]
upstream_idle = 1
[log]
format = "json"
audit = "{folder}/audit.log"
[store]
path = "{folder}/vault"
key_file = "{folder}/vault.key"
[accounts.login]
refresh_token = "{refresh_token}"
issuer = "{peer.issuer}"
client_id = "{basic.client_id}"
client_secret = "{basic.client_secret}"
[accounts.service]
grant = "client_credentials"
issuer = "{peer.issuer}"
client_id = "{post.client_id}"
client_secret = "{post.client_secret}"
client_auth = "client_secret_post"
[routes."/api/"]
upstream = "{api.url}"
account = "login"
[routes."/service/"]
upstream = "{api.url}"
account = "service"
"""

FURTHER: Final = """
[accounts.further]
token = "s3cret-further"
[routes."/further/"]
upstream = "http://127.0.0.1:9"
account = "further"
"""


class WatchedDaemon(RunningDaemon):
    """Its log is read as it is written, and not kept: `events` counts it by name, `unread` are lines of another form."""

    def __init__(self, folder: Path, toml: str) -> None:
        super().__init__(folder, toml, runtime=folder)
        self.events: Counter[str] = Counter()
        self.bad: list[dict[str, Any]] = []
        self.unread: list[bytes] = []

    def heed(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            self.unread.append(line)
            return
        if not self.events[event["event"]]:
            canaries.note("the log of a daemon", line)
        self.events[event["event"]] += 1
        if (event["level"] == "error" and event["event"] != "config.refused") or event[
            "event"
        ] == "library.message":
            self.bad.append(event)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process has at one time. `resident` is in bytes."""

    resident: int
    descriptors: int
    threads: int


def look_at(pid: int) -> Sample:
    folder = Path(f"/proc/{pid}")
    pages = int((folder / "statm").read_text().split()[1])
    return Sample(
        pages * os.sysconf("SC_PAGE_SIZE"),
        len(list((folder / "fd").iterdir())),
        len(list((folder / "task").iterdir())),
    )


async def watch(daemon: WatchedDaemon, seconds: float) -> list[Sample]:
    end = time.monotonic() + seconds
    samples = []
    while time.monotonic() < end:
        samples.append(look_at(daemon.pid))
        await asyncio.sleep(SAMPLE_S)
    return samples


async def idle(api: BusyApi) -> None:
    """When the daemon has given up its connections to the API, as it does where no calls come."""
    async with asyncio.timeout(60):
        while api.connections:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.05)
    await settle(0.1)


def fifths(samples: list[Sample]) -> list[int]:
    """How much memory it has had in each fifth of the time."""
    size = len(samples) // 5
    return [
        round(statistics.median(sample.resident for sample in samples[number * size : (number + 1) * size]))
        for number in range(5)
    ]


def growth(samples: list[Sample]) -> int:
    """By how many bytes it has more in the last fifth of the time than in the second."""
    parts = fifths(samples)
    return parts[4] - parts[1]


class TokenUser:
    """Asks as another program does, of the daemon whose control socket is in `runtime`, or by way of the vault.

    A daemon that does not greet within a second is passed over, and the file is read in its place, which may be the bad one
    then: on a machine with other work that happens. `late` counts it, and the user asks again.
    """

    def __init__(self, file: Path, runtime: Path) -> None:
        self._words = ("token", "login", "--min-valid", str(MIN_VALID_S), "-c", file)
        self._runtime = runtime
        self.late = 0

    async def ask(self) -> str:
        ended = await run(*self._words, XDG_RUNTIME_DIR=str(self._runtime))
        if "is not TOML" in ended.err:
            self.late += 1
            ended = await run(*self._words, XDG_RUNTIME_DIR=str(self._runtime))
        return AS_IT_SHOULD if ended.status == 0 else ended.err


class Editor:
    """Changes the configuration of a daemon again and again: there is another account, or none, or an error."""

    def __init__(self, daemon: WatchedDaemon, toml: str) -> None:
        self._daemon = daemon
        self._toml = (toml + FURTHER, toml + "nonsense", toml)
        self._edits = 0

    async def edit(self) -> str:
        self._daemon.configure(self._toml[self._edits % len(self._toml)])
        os.kill(self._daemon.pid, signal.SIGHUP)
        self._edits += 1
        return AS_IT_SHOULD


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[tuple[WatchedDaemon, BusyApi, OidcPeer, Editor]]:
    async with OidcPeer(access_token_s=LIFETIME_S) as peer:

        async def describe(token: str) -> dict[str, Any]:
            canaries.know(token, "access token")
            return await peer.describe(token)

        async with BusyApi(describe) as api:
            toml = TOML.format(
                folder=folder,
                peer=peer,
                api=api,
                basic=BASIC_CLIENT,
                post=POST_CLIENT,
                refresh_token=await peer.mint_refresh_token(),
            )
            async with WatchedDaemon(folder, toml) as daemon:
                yield daemon, api, peer, Editor(daemon, toml)


@looks_into_daemon
@pytest.mark.parametrize(
    "seconds",
    [SHORT_S, pytest.param(LONG_S, marks=[pytest.mark.soak, pytest.mark.timeout(LONG_S + 600)])],
    ids=["short", "long"],
)
async def test_nothing_fails_and_nothing_is_left_behind(tmp_path: Path, seconds: float) -> None:
    async with world(tmp_path) as (daemon, api, peer, editor):
        async with aiohttp.request("GET", f"{daemon.url}/api/small") as response:
            assert response.status == 200
        (tmp_path / "usual").mkdir()
        usual = write(tmp_path / "usual", daemon.file.read_text())  # which is good while the other is not
        await idle(api)
        user = TokenUser(daemon.file, tmp_path)
        before = look_at(daemon.pid)
        async with MixedLoad(daemon.url) as load:
            load.add("token", 5.0, user.ask)
            load.add("token by the vault", 10.0, TokenUser(usual, tmp_path / "none").ask)
            load.add("refused", 7.0, api.refuse)
            load.add("reload", RELOAD_S, editor.edit)
            load.add("metrics", 1.0, partial(load.get, "/-/metrics", 200))
            samples = await watch(daemon, seconds)
        await idle(api)
        after = look_at(daemon.pid)
        log = await peer.log()
    told: dict[str, object] = {"before": asdict(before), "after": asdict(after), "resident": fifths(samples)}
    told |= {
        "done": load.done,
        "events": daemon.events,
        "grants": len(log.requests),
        "401": api.unauthorized,
        "late": user.late,
    }
    print(json.dumps(told))  # noqa: T201  # the soak's result
    assert load.wrong == []
    assert user.late <= load.done["token"] / 100
    assert daemon.bad == []
    assert daemon.unread == []
    assert set(daemon.events) <= TABLE.keys()
    assert daemon.events["config.reloaded"] > 0
    assert log.presented_twice == ()
    assert log.grants_revoked == 0
    assert after.descriptors == before.descriptors
    assert max(sample.threads for sample in samples) < THREADS
    assert growth(samples) < GROWTH
