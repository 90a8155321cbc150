"""Commands beside a daemon that listens on a Unix socket alone: what they say of it, and what they do without a port."""

import asyncio
import json
from pathlib import Path

import pytest

from bearerd.cli.status import fetch_by_socket
from bearerd.errors import BearerdError
from commands import Ended, Terminal, run
from daemons import RunningDaemon, killed
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


async def curl(socket: Path, path: str) -> str:
    words = ("curl", "-sS", "--unix-socket", str(socket), f"http://localhost{path}")
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0].decode()


async def test_what_is_said_of_it(tmp_path: Path, socket: Path, file: Path) -> None:
    async with RunningDaemon(tmp_path, TOML, listen=f'hosts = []\nsocket = "{socket}"') as daemon:
        assert f"bearerd listens on unix:{socket}\n" in daemon.log
        (document,) = json.loads((await run("status", "--json", "-c", file)).out)["daemons"]
        assert (document["addresses"], document["socket"]) == ([], str(socket))
        assert f"<code>unix:{socket}</code>" in await curl(socket, "/-/")
        without_control = await run("status", "-c", file, XDG_RUNTIME_DIR="/nowhere", TMPDIR="/nowhere")
        assert "work     active" in without_control.out
        assert (await run("token", "work", "-c", file)).out == "the-static-token\n"
        assert await run("exec", "-c", file, "--", "true") == Ended(
            1,
            "",
            f"bearerd: bearerd listens on unix:{socket} alone, which no base URL can name; "
            "give it an address in listen.hosts, or tell the program of the socket yourself\n",
        )
        assert await run("run", "-c", file) == Ended(
            78,
            "",
            f"bearerd: listen.socket: {socket} is in use by another program; stop that, or name another path\n",
        )
        assert socket.is_socket()
    assert not socket.exists()


def test_a_socket_on_which_nobody_answers(socket: Path) -> None:
    with pytest.raises(BearerdError, match=f"^no bearerd answers on {socket}; start one with: bearerd run$"):
        fetch_by_socket(str(socket))


async def test_one_that_was_killed_is_followed_by_the_next(tmp_path: Path, socket: Path) -> None:
    listen = f'socket = "{socket}"\nport = 0'
    async with killed(RunningDaemon(tmp_path, TOML, listen=listen)):
        """It is given no time to take its socket away."""
    assert socket.is_socket()
    async with RunningDaemon(tmp_path, TOML, listen=listen) as daemon:
        assert '"work"' in await curl(socket, "/-/status")
        assert f"listens on {daemon.url} and http://[::1]:{daemon.port} and unix:{socket}\n" in daemon.log
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
            assert f"Account work needs a login: bearerd login work -c {file}\n" in daemon.log
            assert "/-/" not in daemon.log.partition("listens on")[2].partition("{")[0]
            assert json.loads(await curl(socket, "/-/login/work"))["code"] == "no_such_page"
            async with Terminal("login", "-c", file, "--no-browser") as terminal, Browser() as browser:
                address = await terminal.until(r"\n(http://\S+/authorize\?\S+)\n")
                back = (await browser.go(address)).location
                assert "Account work is logged in" in (await browser.follow(back)).text
                assert await terminal.end() == 0
        assert len(list((tmp_path / "vault").glob("work-*.vault"))) == 1
