"""The process that refreshes is killed, for real, at each point of a refresh; what does the next one find?

The server is real and strict: a refresh token that comes twice ends the login.
"""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import pytest

from bearerd.assembly import Vault
from bearerd.core.failures import CUT_SHORT
from bearerd.core.redaction import Secret
from bearerd.core.tokens import TokenSet, Tombstone, origin_of
from bearerd.ports import RefreshLock, TokenStore
from bearerd.settings import load
from oidc_peer import BASIC_CLIENT, OidcPeer, Pause

SCENARIOS: Final = ("first", "due")  # there is no token yet; there is one, which has expired
OWN_S: Final = 1.0  # for what the next process does, beyond what every process of its kind takes to start
BUSY_S: Final = (
    8.0  # the same where others use the machine: less than any wait of ours, which is 10 s or 30 s
)
VICTIM: Final = """
import sys
from bearerd import failpoints
failpoints.arm(sys.argv[1], sys.argv[2])
from bearerd.cli import main
main(["token", "login", "-c", sys.argv[3]])
"""


@dataclass(frozen=True, slots=True)
class Point:
    """Where a process is killed, and what holds from there on."""

    name: str
    requests: int  # that have left by then
    lost: bool = False  # the reply dies with the process
    saved: bool = False  # the new token can be read from the disk
    of: str = ""  # which file is being written
    left: tuple[
        str, ...
    ] = ()  # endings of what is on the disk after it, beside an older vault, lock and mark


POINTS: Final = (
    Point("before_send", 0),
    Point("after_send", 1, lost=True),
    Point("after_reply", 1, lost=True),
    Point("mid_write", 1, lost=True, of=".vault", left=(".next",)),
    Point("before_rename", 1, saved=True, of=".vault", left=(".next",)),
    Point("before_unlock", 1, saved=True, left=(".vault",)),
)


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that has ended."""

    status: int
    out: str
    err: str
    duration_s: float


async def run(*words: str) -> Ended:
    began_at = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode().strip(), err.decode(), time.monotonic() - began_at)


class Login:
    """A login that lives in a folder of its own."""

    def __init__(self, folder: Path, peer: OidcPeer, refresh_token: str) -> None:
        self._folder = folder
        self._peer = peer
        self._refresh_token = refresh_token
        self.file = folder / "bearerd.toml"
        folder.mkdir()
        self.configure(refresh_token)

    def configure(self, refresh_token: str) -> None:
        self.file.write_text(f"""
[store]
path = "{self._folder}/vault"
key_file = "{self._folder}/vault.key"
[accounts.login]
refresh_token = "{refresh_token}"
token_endpoint = "{self._peer.token_endpoint}"
client_id = "{BASIC_CLIENT.client_id}"
client_secret = "{BASIC_CLIENT.client_secret}"
[routes."/"]
upstream = "http://127.0.0.1:9"
""")
        self.file.chmod(0o600)

    def open(self) -> tuple[TokenStore, RefreshLock]:
        configuration = load(self.file, {}, os.environ).configuration
        return Vault(configuration.store).open(configuration.accounts["login"])

    async def expire(self) -> None:
        """As if there had been a token for an hour, until a moment ago."""
        now = time.time()
        seed = Secret(self._refresh_token)
        token = TokenSet(1, Secret("expired"), now - 3600, now - 1, seed, origin=origin_of(seed))
        await self.open()[0].save(token)

    def endings(self) -> set[str]:
        return {path.name[path.name.index(".") :] for path in (self._folder / "vault").iterdir()}

    async def token(self) -> Ended:
        return await run("-m", "bearerd", "token", "login", "-c", str(self.file))

    async def die(self, point: Point) -> Ended:
        return await run("-c", VICTIM, point.name, point.of, str(self.file))


async def kill_at(point: Point, scenario: str, folder: Path, peer: OidcPeer) -> tuple[Login, Ended]:
    """Kill a process at `point` and look at what it leaves; the process that came next, and its login."""
    login = Login(folder, peer, await peer.mint_refresh_token())
    if scenario == "due":
        await login.expire()
    before = len((await peer.log()).requests)
    victim = await login.die(point)
    assert (victim.status, victim.out, victim.err) == (-signal.SIGKILL, "", "")
    await peer.wait_for_requests(before + point.requests)
    await look(login, point, scenario)
    return login, await login.token()


async def look(login: Login, point: Point, scenario: str) -> None:
    """Nothing is torn and nothing is locked."""
    store, lock = login.open()
    async with asyncio.timeout(BUSY_S), lock.hold():
        found = await store.load()
    generation = None if found is None else found.generation
    old, new = (1, 2) if scenario == "due" else (None, 1)
    assert not isinstance(found, Tombstone)
    assert generation == (new if point.saved else old)
    expected = {".lock", ".failure", *point.left} | ({".vault"} if scenario == "due" else set())
    assert login.endings() == expected


async def judge(point: Point, following: Ended, peer: OidcPeer, own_s: float = BUSY_S) -> str:
    """What became of the login: it goes on, or a new one is asked for where that cannot be helped; soon in any case."""
    if following.duration_s > own_s:
        assert following.duration_s - await start_s() < own_s
    if following.status == 0:
        assert await peer.introspect(following.out)
        assert following.err == ""
        return "token"
    assert point.lost, following.err
    assert (following.status, following.out) == (4, "")
    assert following.err.splitlines()[-1].startswith(f"bearerd: account login: {CUT_SHORT}; ")
    return "login"


async def start_s() -> float:
    """What every process of this kind takes, whatever it finds."""
    return (
        await run("-c", "import bearerd.alone, bearerd.cli.token, bearerd.daemon, bearerd.settings")
    ).duration_s


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
async def test_the_next_process_goes_on(point: Point, scenario: str, tmp_path: Path) -> None:
    async with OidcPeer() as peer:
        login, following = await kill_at(point, scenario, tmp_path / "login", peer)
        outcome = await judge(point, following, peer)
        assert outcome == ("login" if point.lost else "token")
        if point.lost:  # a new login brings the account back, whatever is noted of the old one
            login.configure(await peer.mint_refresh_token())
            assert await judge(point, await login.token(), peer) == "token"


async def kill_the_holder(folder: Path, at_once_s: float) -> None:
    async with OidcPeer() as peer:
        login = Login(folder / "login", peer, await peer.mint_refresh_token())
        await peer.pause(Pause.HANG)
        words = ("-m", "bearerd", "token", "login", "-c", str(login.file))
        holder = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
        )
        await peer.wait_for_requests(1)
        waiting = asyncio.create_task(login.token())
        await start_s()  # it has started by then, too,
        await asyncio.sleep(2)  # and is at the lock
        assert not waiting.done()
        await peer.pause(Pause.NONE)
        killed_at = time.monotonic()
        holder.kill()
        following = await waiting
        assert time.monotonic() - killed_at < at_once_s
        assert following.status == 0
        assert await peer.introspect(following.out)
        assert await holder.wait() == -signal.SIGKILL


async def test_who_waits_for_the_lock_goes_on_at_once(tmp_path: Path) -> None:
    """The holder is killed from outside while it waits for a reply; the server had done nothing yet."""
    await kill_the_holder(tmp_path, BUSY_S)


@pytest.mark.soak
async def test_who_waits_for_the_lock_goes_on_within_a_second(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / str(number)).mkdir()
        await kill_the_holder(tmp_path / str(number), OWN_S)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_hundred_times_each(tmp_path: Path) -> None:
    async with OidcPeer() as one, OidcPeer() as other:
        outcomes: Counter[tuple[str, str]] = Counter()
        longest: dict[str, float] = {}

        async def work(peer: OidcPeer, part: str, scenario: str) -> None:
            for point, number in product(POINTS, range(50)):
                folder = tmp_path / f"{part}-{point.name}-{number}"
                _, following = await kill_at(point, scenario, folder, peer)
                outcomes[point.name, await judge(point, following, peer, OWN_S)] += 1
                longest[point.name] = max(longest.get(point.name, 0), following.duration_s)

        await asyncio.gather(work(one, "one", "first"), work(other, "other", "due"))
    print(f"\n{'killed at':<14} {'times':>5} {'token':>5} {'login':>5}  longest next process")  # noqa: T201
    for point in POINTS:
        token, login = (outcomes[point.name, outcome] for outcome in ("token", "login"))
        print(  # noqa: T201  # the soak's result
            f"{point.name:<14} {token + login:>5} {token:>5} {login:>5}  {longest[point.name]:.2f} s"
        )
