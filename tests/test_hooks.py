"""The program that tells a person to log in: run seldom, bounded, and of no account to any call."""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from bearerd.core.accounts import Account, Grant, OAuthSource
from bearerd.core.configuration import Configuration, Listen, Logging, Store
from bearerd.core.lifecycle import Active, LoginPending, LoginRequired
from bearerd.core.redaction import Secret
from bearerd.core.targets import parse_route
from bearerd.core.tokens import TokenSet
from bearerd.daemon import Daemon
from bearerd.hooks import LoginHook
from clocks import FakeClock

LOST = LoginRequired("logged out")
GOOD = Active(TokenSet(2, Secret("t"), 0.0, 1e12))
URL = "http://127.0.0.1:6750/-/login/work"
WRITE = (
    "import os, sys; open(sys.argv[1], 'a').write(' '.join("
    "[os.environ['BEARERD_LOGIN_ACCOUNT'], os.environ['BEARERD_LOGIN_URL'], os.environ['MARK'], "
    "str(os.isatty(0)), repr(sys.stdin.read())]) + chr(10))"
)


@asynccontextmanager
async def hook(*argv: str, limit_s: float = 20.0) -> AsyncIterator[tuple[LoginHook, FakeClock]]:
    clock = FakeClock()
    made = LoginHook(argv, clock, os.environ | {"MARK": "$(touch no-shell)"}, limit_s=limit_s)
    try:
        yield made, clock
    finally:
        await made.aclose()


async def ended(made: LoginHook) -> None:
    await asyncio.gather(*made._runs)


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


async def test_it_is_told_who_and_where(tmp_path: Path) -> None:
    file = tmp_path / "told"
    async with hook(sys.executable, "-c", WRITE, str(file)) as (made, _):
        made.refused("work", LOST, URL)
        await ended(made)
        assert lines(file) == [f"work {URL} $(touch no-shell) False ''"]


@pytest.mark.threat(9)
async def test_it_gets_no_secret_and_may_be_bearerd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEARERD_ACCOUNTS__WORK__CLIENT_SECRET", "s3cret")
    monkeypatch.setenv("bearerd_store__key_secret", "s3cret")
    monkeypatch.setenv("BEARERD_CONFIG", "/etc/bearerd.toml")
    file = tmp_path / "told"
    async with hook("sh", "-c", f"env > {file}") as (made, _):
        made.refused("work", LOST, URL)
        await ended(made)
    assert "s3cret" not in file.read_text()
    assert {"BEARERD_CONFIG=/etc/bearerd.toml", f"BEARERD_LOGIN_URL={URL}"} <= set(lines(file))


async def test_once_for_each_loss_of_each_account(tmp_path: Path) -> None:
    file = tmp_path / "told"
    async with hook("sh", "-c", f"echo $BEARERD_LOGIN_ACCOUNT >> {file}") as (made, clock):
        for _ in range(100):
            made.refused("work", LOST, URL)
            made.refused("home", LOST, URL)
            made.refused("idle", LoginPending(None, "x"), URL)
        await ended(made)
        assert sorted(lines(file)) == ["home", "work"]
        clock.advance(3600)
        made.changed("work", LoginPending(None, "x"))
        made.changed("work", LOST)
        made.refused("work", LOST, URL)
        await ended(made)
        assert len(lines(file)) == 2
        made.changed("work", GOOD)
        made.refused("work", LOST, URL)
        made.refused("home", LOST, URL)
        await ended(made)
        assert sorted(lines(file)) == ["home", "work", "work"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("/nowhere/at-all",), "cannot be started: No such file"),
        (("sh", "-c", "exit 3"), "status=3"),
    ],
)
async def test_what_fails_is_for_the_log(
    argv: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with hook(*argv) as (made, _):
        made.refused("work", LOST, URL)
        await ended(made)
    assert said in capsys.readouterr().out


async def test_it_is_killed_with_what_it_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pid"
    async with hook("sh", "-c", f"sleep 60 & echo $! > {file}; wait", limit_s=2) as (made, _):
        made.refused("work", LOST, URL)
        await ended(made)
    assert "still ran after 2 s" in capsys.readouterr().out
    await gone(int(file.read_text()))


async def test_the_end_of_the_daemon_is_its_end(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    async with hook("sh", "-c", f"echo $$ > {file}; exec sleep 60") as (made, _):
        made.refused("work", LOST, URL)
        while not lines(file):  # noqa: ASYNC110  # another process writes it
            await asyncio.sleep(0.01)
    await gone(int(file.read_text()))


async def gone(pid: int) -> None:
    """Until the process `pid` has ended, and whoever is to wait for it has."""
    for _ in range(1000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"process {pid} still runs")


async def test_no_program_no_run() -> None:
    async with hook() as (made, _):
        made.refused("work", LOST, URL)
        assert not made._runs


@pytest.mark.alone
async def test_calls_are_refused_at_once_and_one_program_is_run(tmp_path: Path) -> None:
    """A hundred calls a second to an account that nobody has logged in to."""
    file = tmp_path / "told"
    source = OAuthSource(Grant.AUTHORIZATION_CODE, "id", issuer="http://[::1]:9")
    daemon = Daemon(
        Configuration(
            accounts={"work": Account("work", source)},
            routes=(parse_route("/", "http://[::1]:9", "work"),),
            listen=Listen(port=0),
            store=Store(kind="memory"),
            log=Logging(access=False),
            on_login_needed=("sh", "-c", f"echo $BEARERD_LOGIN_URL >> {file}; sleep 30"),
        )
    )
    await daemon.start()
    await daemon.started()
    url = f"http://127.0.0.1:{daemon.port}"
    took = []
    try:
        async with aiohttp.ClientSession() as http:
            for _ in range(200):
                began_at = time.perf_counter()
                async with http.get(f"{url}/x") as response:
                    assert response.status == 503
                    await response.read()
                took.append(time.perf_counter() - began_at)
                await asyncio.sleep(max(0.0, 0.01 - took[-1]))
    finally:
        await daemon.stop(0.2)
    assert lines(file) == [f"{url}/-/login/work"]
    assert statistics.median(took) < 0.01  # on a busy machine some are late; none has to wait
