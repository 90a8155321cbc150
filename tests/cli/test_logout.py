"""`logout`, by itself and at a running daemon, and what it says of what is left."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bearerd.control.rendezvous import ENDING, GREETING
from commands import Ended, Terminal, run, write
from daemons import RunningDaemon
from faults import refused_port
from login_server import LoginServer
from login_world import Browser
from upstreams import ApiUpstream, accept_any_of

LOGGED_OUT = Ended(0, "", "bearerd: work is logged out\n")
STILL_THERE = "bearerd: work is logged out, and its store still has the login; log out again\n"
NOT_IN = Ended(0, "", "bearerd: work was not logged in\n")


def configure(folder: Path, server: LoginServer, upstream: str = "http://127.0.0.1:9") -> str:
    return f"""
[store]
path = "{folder}/vault"
key_file = "{folder}/vault.key"
[accounts.work]
issuer = "{server.issuer}"
client_id = "app"
[routes."/"]
upstream = "{upstream}"
"""


def lines(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


async def log_in(file: Path) -> None:
    async with Terminal("login", "-c", file, "--no-browser") as terminal, Browser() as browser:
        address = await terminal.until(r"\n(http://\S+/authorize\S+)\n")
        terminal.type(f"{(await browser.go(address)).location}\n")
        assert await terminal.end() == 0


@pytest.fixture
async def server() -> AsyncIterator[LoginServer]:
    async with LoginServer() as running:
        yield running


@pytest.fixture
def file(tmp_path: Path, server: LoginServer) -> Path:
    """Of an account that no daemon serves."""
    return write(tmp_path, f"[listen]\nport = {refused_port()}\n{configure(tmp_path, server)}")


async def test_what_was_never_logged_in(server: LoginServer, file: Path) -> None:
    assert await run("logout", "-c", file) == NOT_IN
    assert server.revoked == []


async def test_alone(server: LoginServer, file: Path) -> None:
    await log_in(file)
    assert (await run("token", "work", "-c", file)).status == 0
    assert await run("logout", "work", "-c", file) == LOGGED_OUT
    assert server.revoked == ["refresh_token"]
    ended = await run("token", "work", "-c", file)
    cure = f"bearerd login work -c {file}"
    assert ended == Ended(4, "", f"bearerd: account work: logged out; log in with: {cure}\n")
    assert await run("logout", "-c", file) == NOT_IN
    assert server.revoked == ["refresh_token"]
    await log_in(file)
    assert (await run("token", "work", "-c", file)).status == 0


async def test_a_server_that_is_away(server: LoginServer, file: Path) -> None:
    """The tokens are gone from here all the same, and what the server still has is said."""
    await log_in(file)
    await server.close()
    ended = await run("logout", "-c", file)
    assert (ended.status, ended.out) == (0, "")
    warning, end = ended.err.splitlines()
    assert warning.startswith("bearerd: warning: the issuer cannot be reached: ")
    assert "until" in warning
    assert end == "bearerd: work is logged out"
    assert (await run("token", "work", "-c", file)).status == 4


async def test_at_a_daemon(tmp_path: Path, server: LoginServer) -> None:
    async with ApiUpstream(accept_any_of(server.valid)) as api, aiohttp.ClientSession() as http:
        async with RunningDaemon(tmp_path, configure(tmp_path, server, api.url)) as daemon:
            file = tmp_path / "bearerd.toml"
            assert await run("logout", "-c", file) == NOT_IN
            await log_in(file)
            for words, status in (((), 200), (("logout",), 503)):
                for word in words:
                    assert await run(word, "-c", file) == LOGGED_OUT
                async with http.get(f"{daemon.url}/x") as response:
                    assert response.status == status
        assert server.revoked == ["refresh_token"]
        levels = [line["level"] for line in lines(daemon.log) if line["event"] == "token.login_required"]
        assert levels == ["error", "info"], "at first, and by the logout, which is nobody's mistake"


@asynccontextmanager
async def peer(runtime: Path, reply: bytes) -> AsyncIterator[None]:
    """Something that is taken for a daemon, and says `reply` to whatever it is asked."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        await reader.readline()
        writer.write(reply)
        writer.close()

    folder = runtime / "bearerd"
    folder.mkdir(mode=0o700)
    listening = await asyncio.start_unix_server(answer, folder / f"1-a{ENDING}")
    async with listening:
        yield


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            {"done": {"revoked": True, "wiped": False, "problem": "the disk is full"}},
            f"bearerd: warning: the disk is full\n{STILL_THERE}",
        ),
        (
            {"error": {"kind": "login_failed", "text": "not today"}},
            "bearerd: not today; try again, or see what is wrong with: bearerd doctor\n",
        ),
        ({"error": "what"}, "bearerd: the running bearerd is of another version; restart it\n"),
        ({"done": 1}, "bearerd: the running bearerd is of another version; restart it\n"),
    ],
)
async def test_a_daemon_that_says_it_did_not_work(
    runtime: Path, file: Path, reply: object, said: str
) -> None:
    async with peer(runtime, json.dumps(reply).encode() + b"\n"):
        assert await run("logout", "-c", file) == Ended(1, "", said)


async def test_an_account_without_logins_has_none_to_give_up(tmp_path: Path) -> None:
    """Whatever it keeps on disk: to start a daemon would not help."""
    toml = '[accounts.job]\ntoken = "made-up"\n[routes."/"]\nupstream = "http://127.0.0.1:9"\n'
    text = "bearerd: account job has no login, for its tokens need no person; see it with: bearerd status\n"
    assert await run("logout", "job", "-c", write(tmp_path, toml)) == Ended(1, "", text)
