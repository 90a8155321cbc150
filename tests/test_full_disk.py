"""A vault that cannot be written to, for three real reasons, under two daemons that share it.

A refresh token that was replaced and cannot be saved is kept by one of them, with the lock; the other borrows. The
server is real and strict: a refresh token that comes twice ends the login.
"""

import asyncio
import signal
import time
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from bearerd.core.failures import CUT_SHORT
from daemons import RunningDaemon, kill, killed
from oidc_peer import BASIC_CLIENT, OidcPeer
from scrapes import read_samples
from upstreams import ApiUpstream

LIFETIME_S: Final = 10
EXPIRIES: Final = 2
PATIENCE_S: Final = 40.0  # the longest pause between two attempts to save is 10 s
CALL_GAP_S: Final = 0.1

Daemons = tuple[RunningDaemon, RunningDaemon]
Fault = Callable[[Path, Daemons], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def no_room(disk: Path, daemons: Daemons) -> AsyncIterator[None]:
    """ENOSPC."""
    del daemons
    await asyncio.to_thread(fill, disk / "filler")
    yield
    (disk / "filler").unlink()


@asynccontextmanager
async def read_only(disk: Path, daemons: Daemons) -> AsyncIterator[None]:
    """EROFS, as of a file system that the kernel has found damaged."""
    del daemons

    async def remounted() -> bool:
        return await ended("mount", "-o", "remount,ro", str(disk)) == 0  # not while a file is being written

    await until(remounted)
    yield
    await run("mount", "-o", "remount,rw", str(disk))


@asynccontextmanager
async def failing(disk: Path, daemons: Daemons) -> AsyncIterator[None]:
    """EIO, from each fsync that either daemon makes, in any of its threads."""
    del disk
    async with AsyncExitStack() as stack:
        for daemon in daemons:
            await stack.enter_async_context(traced(daemon.pid))
        yield


@asynccontextmanager
async def traced(pid: int) -> AsyncIterator[None]:
    words = ("-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO")
    tracer = await asyncio.create_subprocess_exec("strace", *words, "-p", str(pid), stdin=DEVNULL)

    async def attached() -> bool:
        return all(is_traced(task, tracer) for task in Path(f"/proc/{pid}/task").iterdir())

    try:
        await until(attached)
        yield
    finally:
        tracer.send_signal(signal.SIGINT)  # it lets go of what it was attached to
        await tracer.wait()


def is_traced(task: Path, tracer: Process) -> bool:
    return f"TracerPid:\t{tracer.pid}\n" in (task / "status").read_text()


FAULTS: Final = (no_room, read_only, failing)


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    await run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        await run("umount", str(folder))


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def configure(disk: Path, peer: OidcPeer, api: ApiUpstream, refresh_token: str) -> str:
    return f"""
[store]
path = "{disk}/vault"
key_file = "{disk}/vault.key"
[accounts.login]
refresh_token = "{refresh_token}"
issuer = "{peer.issuer}"
client_id = "{BASIC_CLIENT.client_id}"
client_secret = "{BASIC_CLIENT.client_secret}"
[routes."/"]
upstream = "{api.url}"
"""


async def call(http: aiohttp.ClientSession, daemon: RunningDaemon) -> int:
    async with http.get(f"{daemon.url}/x") as response:
        await response.read()
        return response.status


async def call_until(end: float, http: aiohttp.ClientSession, daemon: RunningDaemon) -> Counter[int]:
    seen: Counter[int] = Counter()
    while time.monotonic() < end:
        seen[await call(http, daemon)] += 1
        await asyncio.sleep(CALL_GAP_S)
    return seen


async def through(http: aiohttp.ClientSession, daemons: Daemons, duration_s: float) -> None:
    """Calls at both, all along: each is answered by the API."""
    end = time.monotonic() + duration_s
    for seen in await asyncio.gather(*(call_until(end, http, daemon) for daemon in daemons)):
        assert set(seen) == {200}


async def until_said(event: str, daemons: Daemons) -> tuple[RunningDaemon, RunningDaemon]:
    """The one whose log has it, and the other."""
    one, two = daemons

    async def said() -> bool:
        return event in one.log or event in two.log

    await until(said)
    return (one, two) if event in one.log else (two, one)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110  # it happens in other processes
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.waits
async def test_it_costs_no_call_and_no_login(
    fault: Fault, tmp_path: Path, disk: Path, http: aiohttp.ClientSession
) -> None:
    """The two have a configuration file each: it is the vault that they have in common."""
    async with OidcPeer(access_token_s=LIFETIME_S) as peer, ApiUpstream(peer.introspect) as api:
        toml = configure(disk, peer, api, await peer.mint_refresh_token())
        folders = [make(tmp_path / name) for name in ("one", "two", "next")]
        one, two, following = (RunningDaemon(folder, toml, runtime=tmp_path) for folder in folders)
        async with killed(one), killed(two):
            assert await call(http, one) == await call(http, two) == 200
            async with fault(disk, (one, two)):
                await through(http, (one, two), EXPIRIES * LIFETIME_S + 1)
            await until_said("token.saved_at_last", (one, two))
        async with following:
            assert await call(http, following) == 200
        log = await peer.log()
    assert log.presented_twice == ()
    assert log.grants_revoked == 0
    said = one.log + two.log
    assert "token.unsaved" in said
    assert "token.login_required" not in said


@pytest.mark.waits
async def test_a_lender_that_dies_unsaved_costs_a_login_once_what_it_lent_has_ended(
    tmp_path: Path, disk: Path, http: aiohttp.ClientSession
) -> None:
    """No program can prevent that: the only refresh token that was good died with it. It is said as it is.

    The spent one is presented a second time, for servers that forgive, when nothing can be lost by it any more.
    """
    async with OidcPeer(access_token_s=LIFETIME_S) as peer, ApiUpstream(peer.introspect) as api:
        toml = configure(disk, peer, api, await peer.mint_refresh_token())
        one, two = (RunningDaemon(make(tmp_path / name), toml, runtime=tmp_path) for name in ("one", "two"))
        async with killed(one), killed(two), no_room(disk, (one, two)):
            calls = asyncio.create_task(through(http, (one, two), LIFETIME_S + 2))
            borrower, lender = await until_said("token.borrowed", (one, two))
            await calls
            samples = await read_samples(lender)
            assert samples["bearerd_token_unsaved{account=login}"] == 1
            samples = await read_samples(borrower)
            assert samples["bearerd_token_unsaved{account=login}"] == 0
            assert samples["bearerd_token_refreshes_total{account=login,result=borrowed}"] >= 1
            await kill(lender)
            lent = (await peer.log()).requests
            assert lent[-1].expires_at is not None
            at_end = time.monotonic() + lent[-1].expires_at - time.time() - 1
            assert set(await call_until(at_end, http, borrower)) == {200}
            assert (await peer.log()).requests == lent
            await until_said("token.login_required", (borrower, borrower))
            assert await call(http, borrower) == 503
            await asyncio.sleep(2)
        log = await peer.log()
    assert f'"reason": "{CUT_SHORT}"' in borrower.log
    assert len(log.requests) == len(lent) + 1
    assert log.presented_twice == (log.requests[-1].refresh_token,)


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def fill(file: Path) -> None:
    """Take all the room there is."""
    with file.open("wb", buffering=0) as out:
        try:
            while True:
                out.write(bytes(4096))
        except OSError:
            return


async def ended(*words: str) -> int:
    process = await asyncio.create_subprocess_exec(*words, stdin=DEVNULL, stderr=DEVNULL)
    return await process.wait()


async def run(*words: str) -> None:
    assert await ended(*words) == 0
