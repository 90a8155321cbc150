"""Commands beside a daemon that listens on a Unix socket alone: what they say of it, and what they do without a port."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bearerd.cli.status import fetch_by_socket
from bearerd.errors import BearerdError
from commands import Ended, Terminal, run
from daemons import RunningDaemon
from faults import refused_port
from login_server import LoginServer
from login_world import Browser
from upstreams import ApiUpstream, accept_any_of

TOML = """
[accounts.work]
token = "the-static-token"
[routes."/"]
upstream = "http://127.0.0.1:9"
"""


@pytest.fixture
def socket(runtime: Path) -> Path:
    return (runtime / "calls.sock").resolve()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bearerd.toml"


@pytest_asyncio.fixture
async def daemon(tmp_path: Path, socket: Path) -> AsyncIterator[RunningDaemon]:
    async with RunningDaemon(tmp_path, TOML, listen=f'hosts = []\nsocket = "{socket}"') as daemon:
        yield daemon


async def curl(socket: Path, path: str) -> str:
    words = ("curl", "-sS", "--unix-socket", str(socket), f"http://localhost{path}")
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0].decode()


async def test_where_it_listens(daemon: RunningDaemon, socket: Path, file: Path) -> None:
    assert f"bearerd listens on unix:{socket}\n" in daemon.log
    ended = await run("status", "--json", "-c", file)
    (document,) = json.loads(ended.out)["daemons"]
    assert (document["addresses"], document["socket"]) == ([], str(socket))
    assert f"<code>unix:{socket}</code>" in await curl(socket, "/-/")


async def test_status_without_a_control_socket(daemon: RunningDaemon, file: Path) -> None:
    """As where it could not be made."""
    assert daemon.port == 0
    ended = await run("status", "-c", file, XDG_RUNTIME_DIR="/nowhere", TMPDIR="/nowhere")
    assert ended.out.startswith("ACCOUNT")
    assert "work     active" in ended.out


def test_a_socket_on_which_nobody_answers(socket: Path) -> None:
    with pytest.raises(BearerdError, match=f"^no bearerd answers on {socket}; start one with: bearerd run$"):
        fetch_by_socket(str(socket))


async def test_several_are_told_apart(daemon: RunningDaemon, tmp_path: Path, socket: Path) -> None:
    (tmp_path / "other").mkdir()
    async with RunningDaemon(tmp_path / "other", TOML) as other:
        ended = await run("status")
    assert f"unix:{socket}, process {daemon.pid}, " in ended.out
    assert f" and http://[::1]:{other.port}, process {other.pid}, " in ended.out


async def test_exec_says_why_it_cannot(daemon: RunningDaemon, socket: Path, file: Path) -> None:
    assert daemon.port == 0
    assert await run("exec", "-c", file, "--", "true") == Ended(
        1,
        "",
        f"bearerd: bearerd listens on unix:{socket} alone, which no base URL can name; "
        "give it an address in listen.hosts, or tell the program of the socket yourself\n",
    )


async def test_a_token_by_the_control_socket(daemon: RunningDaemon, file: Path) -> None:
    assert daemon.port == 0
    assert (await run("token", "work", "-c", file)).out == "the-static-token\n"


async def test_a_second_one_is_refused_in_one_line(daemon: RunningDaemon, socket: Path, file: Path) -> None:
    assert daemon.port == 0
    ended = await run("run", "-c", file)
    assert ended == Ended(
        78,
        "",
        f"bearerd: listen.socket: {socket} is in use by another program; stop that, or name another path\n",
    )
    assert socket.is_socket()


async def test_one_that_was_killed_is_followed_by_the_next(tmp_path: Path, socket: Path) -> None:
    listen = f'hosts = []\nsocket = "{socket}"'
    first = RunningDaemon(tmp_path, TOML, listen=listen)
    await first.__aenter__()
    os.kill(first.pid, 9)
    assert await first.ended() == -9
    assert socket.is_socket()
    async with RunningDaemon(tmp_path, TOML, listen=listen):
        assert '"work"' in await curl(socket, "/-/status")
    assert not socket.exists()


LOGIN = """
[store]
path = "{folder}/vault"
key_file = "{folder}/vault.key"
[accounts.work]
issuer = "{issuer}"
client_id = "app-client"
scopes = ["openid", "offline_access", "api:read"]
authorization_params = {{ prompt = "consent" }}
[routes."/"]
upstream = "{upstream}"
"""


async def test_a_login_opens_a_port_of_its_own(tmp_path: Path, socket: Path, file: Path) -> None:
    """The daemon has none, and says of no page that it can be opened. The login is in the vault they share."""
    async with LoginServer() as server, ApiUpstream(accept_any_of(server.valid)) as api:
        toml = LOGIN.format(folder=tmp_path, issuer=server.issuer, upstream=api.url)
        listen = f'hosts = []\nport = {refused_port()}\nsocket = "{socket}"'
        async with RunningDaemon(tmp_path, toml, listen=listen) as daemon:
            problem = json.loads(await curl(socket, "/x"))
            assert problem["code"] == "login_required"
            assert "login_url" not in problem
            assert "needs a login" not in daemon.log
            assert json.loads(await curl(socket, "/-/login/work"))["code"] == "no_such_page"
            async with Terminal("login", "-c", file, "--no-browser") as terminal, Browser() as browser:
                address = await terminal.until(r"\n(http://\S+/authorize\?\S+)\n")
                back = (await browser.go(address)).location
                assert "Account work is logged in" in (await browser.follow(back)).text
                assert await terminal.end() == 0
        assert len(list((tmp_path / "vault").glob("work-*.vault"))) == 1
