"""`login`, as a person at a terminal meets it: by itself and at a running daemon, and with everything that goes wrong."""

import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from commands import CTRL_C, CTRL_D, Terminal, run, write
from daemons import RunningDaemon, killed
from faults import refused_port
from login_server import LoginServer
from login_world import Browser
from oidc_peer import OidcPeer
from people import Person
from upstreams import ApiUpstream, accept_any_of

ADDRESS: Final = r"\n(http://\S+/authorize\?\S+)\n"
REAL_ADDRESS: Final = r"\n(http://\S+/auth\?\S+)\n"
LOGGED_IN: Final = r"bearerd: work is logged in as someone@example.com; its token expires at 2\S+"
TAKEN: Final = (
    "bearerd: the login would come back to this machine, but port {port} on 127.0.0.1 is in use by another program; "
    "stop that program and log in again\n"
)
MISTAKEN: Final = "http://127.0.0.1/-/callback?code=stolen&state=foreign"


def configure(folder: Path, issuer: str, upstream: str = "http://127.0.0.1:9", account: str = "") -> str:
    return f"""
[store]
path = "{folder}/vault"
key_file = "{folder}/vault.key"
[accounts.work]
issuer = "{issuer}"
client_id = "app-client"
scopes = ["openid", "offline_access", "api:read"]
authorization_params = {{ prompt = "consent" }}
{account}
[routes."/"]
upstream = "{upstream}"
"""


@pytest.fixture
async def server() -> AsyncIterator[LoginServer]:
    async with LoginServer() as running:
        yield running


@pytest.fixture
def file(tmp_path: Path, server: LoginServer) -> Path:
    """Of an account that nobody has logged in to, and no daemon serves."""
    return write(tmp_path, f"[listen]\nport = {refused_port()}\n{configure(tmp_path, server.issuer)}")


def port_of(file: Path) -> int:
    return int(file.read_text().partition("port = ")[2].split()[0])


async def approve(address: str) -> str:
    """What a person's browser, anywhere, is sent back to."""
    async with Browser() as browser:
        return (await browser.go(address)).location


def opener(folder: Path) -> tuple[dict[str, str], Path]:
    """A browser that notes how it was started, and the file it notes that in, a line each argument."""
    noted = folder / "opened"
    program = folder / "a browser"
    program.write_text(
        f'#!/bin/sh\nenv > "{noted}.env"\nprintf "%s\\n" "$@" > "{noted}.new"\nmv "{noted}.new" "{noted}"\n'
    )
    program.chmod(0o700)
    return {"BROWSER": str(program)}, noted


class TestAtARealServer:
    """No browser on this machine: the person has one elsewhere."""

    @asynccontextmanager
    async def place(self, folder: Path, *, daemon: bool) -> AsyncIterator[tuple[OidcPeer, Path]]:
        async with OidcPeer() as peer, ApiUpstream(peer.introspect) as api:
            toml = configure(folder, peer.issuer, api.url)
            if daemon:
                async with RunningDaemon(folder, toml):
                    yield peer, folder / "bearerd.toml"
            else:
                yield peer, write(folder, f"[listen]\nport = {refused_port()}\n{toml}")

    async def live_token(self, peer: OidcPeer, file: Path) -> None:
        """There is one, and the server knows it; after a logout there is none, and it does not."""
        ended = await run("token", "-c", file, "work")
        assert ended.status == 0
        assert (await peer.introspect(ended.out.strip())) is True
        async with Terminal("logout", "-c", file) as terminal:
            assert await terminal.end() == 0
            assert terminal.shown == "bearerd: work is logged out\n"
        assert (await peer.introspect(ended.out.strip())) is False
        assert (await run("token", "-c", file, "work")).status == 4

    @pytest.mark.parametrize("daemon", [False, True], ids=["alone", "at a daemon"])
    async def test_an_address_is_pasted(self, tmp_path: Path, daemon: bool) -> None:
        async with self.place(tmp_path, daemon=daemon) as (peer, file):
            async with Terminal("login", "-c", file, "--no-browser") as terminal:
                address = await terminal.until(REAL_ADDRESS)
                terminal.type(f"{MISTAKEN}\n")
                await terminal.until("bearerd: this login is not known here")
                assert (await peer.log()).requests == ()
                async with Person() as person:
                    back = await person.log_in(address, parse_qs(urlsplit(address).query)["redirect_uri"][0])
                terminal.type(f"{back}\n")
                assert await terminal.end() == 0
                assert "bearerd: work is logged in as demo-user; its token expires at 2" in terminal.shown
            await self.live_token(peer, file)

    @pytest.mark.parametrize("daemon", [False, True], ids=["alone", "at a daemon"])
    @pytest.mark.waits
    async def test_another_device(self, tmp_path: Path, daemon: bool) -> None:
        async with self.place(tmp_path, daemon=daemon) as (peer, file):
            async with Terminal("login", "-c", file, "--device") as terminal:
                code = await terminal.until(r"and enter the code (\w{4}-\w{4})\n")
                address = await terminal.until(r"\n(http://\S+/device)\n")
                await terminal.until("bearerd: waiting for you to finish there\n")
                assert "▀" in terminal.shown, "the QR code"
                async with Person() as person:
                    await person.approve_device(address, code)
                assert await terminal.end() == 0
                assert "bearerd: work is logged in as demo-user; its token expires at 2" in terminal.shown
            await self.live_token(peer, file)

    @pytest.mark.waits
    async def test_a_device_that_is_refused(self, tmp_path: Path) -> None:
        async with self.place(tmp_path, daemon=False) as (peer, file):
            async with Terminal("login", "-c", file, "--device") as terminal:
                code = await terminal.until(r"and enter the code (\w{4}-\w{4})\n")
                address = await terminal.until(r"\n(http://\S+/device)\n")
                async with Person() as person:
                    await person.approve_device(address, code, abort="yes")
                assert await terminal.end() == 1
                assert "access_denied" in terminal.shown
            assert {request.error for request in (await peer.log()).requests} <= {
                "authorization_pending",
                "access_denied",
            }
            assert (await run("token", "-c", file, "work")).status == 4


class TestAlone:
    @pytest.mark.threat(9)
    async def test_a_browser_is_opened_on_an_address_that_is_listened_for(
        self, server: LoginServer, file: Path, tmp_path: Path
    ) -> None:
        variables, noted = opener(tmp_path)
        secret = {"BEARERD_HOOKS__ON_LOGIN_NEEDED": '["true", "s3cret-of-ours"]'}
        async with Terminal("login", "-c", file, **variables, **secret) as terminal:
            address = await terminal.until(ADDRESS)
            assert "bearerd: a browser was opened on this address:" in terminal.shown
            async with Browser() as browser:
                end = await browser.follow(await approve(address))
            assert end.status == 200
            assert "Account work is logged in as someone@example.com" in end.text
            assert await terminal.end() == 0
            await terminal.until(LOGGED_IN)
        assert noted.read_text() == f"{address}\n"
        assert "BROWSER=" in (tmp_path / "opened.env").read_text()
        assert "s3cret-of-ours" not in (tmp_path / "opened.env").read_text()
        assert server.token_requests == 1
        assert (await run("token", "work", "-c", file)).out.strip() in server.valid

    async def test_the_listener_and_the_paste_race(self, server: LoginServer, file: Path) -> None:
        async with Terminal("login", "-c", file, "--no-browser") as terminal, Browser() as browser:
            address = await terminal.until(ADDRESS)
            terminal.type("not an address\n\n")
            await terminal.until("bearerd: this address has no code in it")
            assert (await browser.follow(await approve(address))).status == 200
            assert await terminal.end() == 0
        assert server.token_requests == 1

    async def test_a_code_alone_is_pasted(self, server: LoginServer, file: Path) -> None:
        async with Terminal("login", "-c", file, "--no-browser") as terminal:
            back = await approve(await terminal.until(ADDRESS))
            terminal.type(f"  {back.partition('code=')[2]}  \n")
            assert await terminal.end() == 0
        assert server.token_requests == 1

    async def test_without_input_the_browser_ends_it(self, server: LoginServer, file: Path) -> None:
        async with Terminal("login", "-c", file, "--no-browser") as terminal, Browser() as browser:
            address = await terminal.until(ADDRESS)
            terminal.type(CTRL_D)
            assert (await browser.follow(await approve(address))).status == 200
            assert await terminal.end() == 0
        assert server.token_requests == 1

    async def test_what_is_not_of_this_login_asks_the_server_nothing(
        self, server: LoginServer, file: Path
    ) -> None:
        async with Terminal("login", "-c", file, "--no-browser") as terminal, Browser() as browser:
            back = await approve(await terminal.until(ADDRESS))
            forged = back.replace("state=", "state=x")
            assert (await browser.follow(forged)).status == 400
            terminal.type(f"{forged}\n")
            await terminal.until("bearerd: this login is not known here")
            assert server.token_requests == 0
            assert (await browser.follow(back)).status == 200
            assert await terminal.end() == 0

    async def test_a_denial(self, server: LoginServer, file: Path) -> None:
        """The server's text is shown as text: it moves no cursor and clears no screen."""
        server.denial = ("access_denied", "not \x1b[2Jtoday\x07")
        async with Terminal("login", "-c", file, "--no-browser") as terminal:
            terminal.type(await approve(await terminal.until(ADDRESS)) + "\n")
            assert await terminal.end() == 1
            said = terminal.shown.splitlines()[-1]
        assert said.startswith("bearerd: ")
        assert "access_denied" in said
        assert said.isprintable()
        assert server.token_requests == 0

    async def test_a_name_moves_no_cursor_either(self, server: LoginServer, file: Path) -> None:
        server.subject = "some\x1b[2Jone\r\x9b"
        async with Terminal("login", "-c", file, "--no-browser") as terminal:
            terminal.type(await approve(await terminal.until(ADDRESS)) + "\n")
            assert await terminal.end() == 0
            assert "bearerd: work is logged in as some[2Jone; its" in terminal.shown

    async def test_a_login_that_nothing_can_renew_is_called_so(self, server: LoginServer, file: Path) -> None:
        server.lasting = False
        async with Terminal("login", "-c", file, "--no-browser") as terminal:
            terminal.type(await approve(await terminal.until(ADDRESS)) + "\n")
            assert await terminal.end() == 0
            said = terminal.shown.splitlines()[-1]
        assert re.fullmatch(
            r"bearerd: work is logged in as someone@example\.com until 2\S+: the server gave no refresh token; .*, then log in again",
            said,
        )

    async def test_a_server_that_gives_no_tokens(self, server: LoginServer, file: Path) -> None:
        server.error = "server_error"
        async with Terminal("login", "-c", file, "--no-browser") as terminal:
            terminal.type(await approve(await terminal.until(ADDRESS)) + "\n")
            assert await terminal.end() == 1
            assert "server_error" in terminal.shown.splitlines()[-1]
        assert server.token_requests == 1

    @pytest.mark.parametrize("end", [CTRL_C, signal.SIGTERM, signal.SIGHUP], ids=str)
    async def test_giving_up(self, server: LoginServer, file: Path, end: str | signal.Signals) -> None:
        async with Terminal("login", "-c", file, "--no-browser") as terminal:
            await terminal.until("press Enter")
            if isinstance(end, str):
                terminal.type(end)
            else:
                os.kill(terminal.pid, end)
            assert await terminal.end() == 130
            assert terminal.shown.endswith("bearerd: the login was given up\n")
        assert server.token_requests == 0

    @pytest.mark.threat(16)
    async def test_a_port_that_is_taken_opens_no_browser(self, file: Path, tmp_path: Path) -> None:
        variables, noted = opener(tmp_path)
        port = port_of(file)
        with socket.create_server(("127.0.0.1", port)):
            async with Terminal("login", "-c", file, **variables) as terminal:
                assert await terminal.end() != 0
                assert terminal.shown == TAKEN.format(port=port)
        assert not noted.exists()

    async def test_two_at_once(self, server: LoginServer, file: Path) -> None:
        """The second is told, and the first goes on."""
        async with Terminal("login", "-c", file, "--no-browser") as first:
            address = await first.until(ADDRESS)
            async with Terminal("login", "-c", file, "--no-browser") as second:
                assert await second.end() != 0
                assert second.shown == TAKEN.format(port=port_of(file))
            first.type(await approve(address) + "\n")
            assert await first.end() == 0
        assert server.token_requests == 1

    async def test_a_server_that_is_away(self, tmp_path: Path) -> None:
        variables, noted = opener(tmp_path)
        away = f"http://127.0.0.1:{refused_port()}"
        file = write(tmp_path, f"[listen]\nport = {refused_port()}\n{configure(tmp_path, away)}")
        for words in ((), ("--no-browser",), ("--device",)):
            async with Terminal("login", "-c", file, *words, **variables) as terminal:
                assert await terminal.end() == 1
                assert terminal.shown.startswith("bearerd: ")
                assert "Traceback" not in terminal.shown
        assert not noted.exists()

    @pytest.mark.parametrize(
        "endpoint",
        [
            "javascript:alert(1)",
            "file:///etc/passwd",
            "http://login.example.com/authorize",
            "https://login.example.com/authorize?a=$(id)",
            "https://login.example.com/authorize;id",
            "https://login.example.com/`id`",
            "--help",
        ],
    )
    async def test_addresses_that_no_browser_is_opened_on(
        self, tmp_path: Path, server: LoginServer, endpoint: str
    ) -> None:
        variables, noted = opener(tmp_path)
        server.authorization_endpoint = endpoint
        file = write(tmp_path, f"[listen]\nport = {refused_port()}\n{configure(tmp_path, server.issuer)}")
        async with Terminal("login", "-c", file, **variables) as terminal:
            assert await terminal.end() == 1
            assert "authorization_endpoint" in terminal.shown
        assert not noted.exists()

    async def test_a_login_far_away_opens_nothing_here(self, file: Path, tmp_path: Path) -> None:
        """Over SSH, or without a display: the address alone is of use."""
        variables = {"BROWSER": "", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
        del tmp_path
        async with Terminal("login", "-c", file, **variables, SSH_CONNECTION="a 1 b 22") as terminal:
            await terminal.until("bearerd: this is a remote session, so no browser is opened\n")
            await terminal.until("press Enter")
        async with Terminal("login", "-c", file, **variables, SSH_CONNECTION="") as terminal:
            await terminal.until("bearerd: there is no display here, so no browser is opened\n")
            await terminal.until("press Enter")


class TestWords:
    @pytest.mark.parametrize(
        ("accounts", "words", "said"),
        [
            ("", ("wrok",), "there is no account wrok; there is work"),
            ("", ("--device", "--no-browser"), "--device needs no browser here anyway"),
            ('[accounts.a]\ntoken = "t"\n', ("a",), "account a is not one that a person may log in to"),
            (
                '[accounts.other]\nissuer = "https://a.example"\nclient_id = "b"\n',
                (),
                "there are several accounts; name one of other, work",
            ),
        ],
    )
    async def test_what_is_not_understood(
        self, tmp_path: Path, accounts: str, words: tuple[str, ...], said: str
    ) -> None:
        toml = configure(tmp_path, "http://127.0.0.1:9")
        ended = await run("login", *words, "-c", write(tmp_path, f'{toml}account = "work"\n{accounts}'))
        assert ended.status in {1, 2}
        assert said in ended.err
        assert ended.out == ""

    async def test_no_account_is_for_a_person(self, tmp_path: Path) -> None:
        file = write(
            tmp_path,
            '[accounts.a]\ntoken = "t"\n[routes."/"]\nupstream = "http://127.0.0.1:9"\naccount = "a"\n',
        )
        for command in ("login", "logout"):
            ended = await run(command, "-c", file)
            assert (
                ended.status,
                "there is no account that a person may log in to; see the grants with: bearerd config show"
                in ended.err,
            ) == (2, True)

    async def test_what_is_kept_in_memory_is_kept_by_a_daemon(self, tmp_path: Path) -> None:
        toml = configure(tmp_path, "http://127.0.0.1:9").partition("[accounts")
        file = write(tmp_path, f'[store]\nkind = "memory"\n{"".join(toml[1:])}')
        for command in ("login", "logout"):
            ended = await run(command, "-c", file)
            assert (ended.status, ended.out) == (1, "")
            assert ended.err.endswith(
                "only a running bearerd can log in and out; start one with: bearerd run\n"
            )

    async def test_where_login_is_off(self, tmp_path: Path) -> None:
        file = write(tmp_path, "login = false\n" + configure(tmp_path, "http://127.0.0.1:9"))
        ended = await run("login", "-c", file)
        assert ended.status != 0
        assert "login" in ended.err


class TestAtADaemon:
    @asynccontextmanager
    async def daemon(self, folder: Path, server: LoginServer) -> AsyncIterator[tuple[RunningDaemon, Path]]:
        async with ApiUpstream(accept_any_of(server.valid)) as api:
            toml = configure(folder, server.issuer, api.url)
            async with RunningDaemon(folder, toml) as daemon:
                yield daemon, folder / "bearerd.toml"

    async def status(self, daemon: RunningDaemon) -> int:
        """Of a call."""
        async with aiohttp.ClientSession() as http, http.get(f"{daemon.url}/x") as response:
            return response.status

    async def test_the_daemons_page_is_opened(self, tmp_path: Path, server: LoginServer) -> None:
        variables, noted = opener(tmp_path)
        async with (
            self.daemon(tmp_path, server) as (daemon, file),
            Terminal("login", "-c", file, **variables) as terminal,
            Browser() as browser,
        ):
            page = await terminal.until(r"\n(http://\S+)\n")
            assert page == f"{daemon.url}/-/login/work"
            assert await self.status(daemon) == 503
            begun = await browser.go(page)
            back = await browser.go(begun.location)
            assert (await browser.follow(back.location)).status == 200
            assert await terminal.end() == 0
            await terminal.until(LOGGED_IN)
            assert noted.read_text() == f"{page}\n"
            assert await self.status(daemon) == 200

    async def test_a_login_at_the_page_ends_those_in_terminals(
        self, tmp_path: Path, server: LoginServer
    ) -> None:
        """Whatever was begun where: the account is logged in, and nobody goes on waiting."""
        async with (
            self.daemon(tmp_path, server) as (daemon, file),
            Terminal("login", "-c", file, "--no-browser") as first,
            Browser() as browser,
        ):
            old = await first.until(ADDRESS)
            async with Terminal("login", "-c", file, "--no-browser") as second:
                await second.until(ADDRESS)
                first.type(await approve(old) + "\n")
                await first.until(
                    "bearerd: this login is not known here: it was used, has expired or was replaced"
                )
                begun = await browser.go(f"{daemon.url}/-/login/work")
                back = await browser.go(begun.location)
                assert (await browser.follow(back.location)).status == 200
                assert await second.end() == 0
                assert await first.end() == 0
            assert server.token_requests == 1

    async def test_a_stolen_callback_ends_nothing(self, tmp_path: Path, server: LoginServer) -> None:
        """An address of a terminal's login, opened in a browser, is of no use there: it is not the terminal."""
        async with (
            self.daemon(tmp_path, server) as (daemon, file),
            Terminal("login", "-c", file, "--no-browser") as terminal,
            Browser() as browser,
        ):
            back = await approve(await terminal.until(ADDRESS))
            assert (await browser.follow(back)).status == 400
            assert server.token_requests == 0
            terminal.type(f"{back}\n")
            assert await terminal.end() == 0
            assert await self.status(daemon) == 200

    async def test_giving_up_is_known_to_the_daemon(self, tmp_path: Path, server: LoginServer) -> None:
        async with self.daemon(tmp_path, server) as (_, file):
            async with Terminal("login", "-c", file, "--no-browser") as terminal:
                back = await approve(await terminal.until(ADDRESS))
                assert '"login_pending"' in (await run("status", "--json", "-c", file)).out
                terminal.type(CTRL_C)
                assert await terminal.end() == 130
            said = (await run("status", "--json", "-c", file)).out
            assert '"login_required"' in said
            assert "given up where it was begun" in said
            async with Browser() as browser:
                assert (await browser.follow(back)).status == 400
        assert server.token_requests == 0

    async def test_a_daemon_that_dies(self, tmp_path: Path, server: LoginServer) -> None:
        daemon = RunningDaemon(tmp_path, configure(tmp_path, server.issuer))
        async with (
            killed(daemon),
            Terminal("login", "-c", tmp_path / "bearerd.toml", "--no-browser") as terminal,
        ):
            await terminal.until("press Enter")
            os.kill(daemon.pid, signal.SIGKILL)
            assert await terminal.end() == 1
            assert terminal.shown.endswith("this login has ended; log in again\n")

    async def test_logged_out_meanwhile(self, tmp_path: Path, server: LoginServer) -> None:
        async with (
            self.daemon(tmp_path, server) as (_, file),
            Terminal("login", "-c", file, "--no-browser") as terminal,
        ):
            await terminal.until("press Enter")
            assert (await run("logout", "-c", file)).status == 0
            assert await terminal.end() == 1
            assert terminal.shown.endswith("bearerd: the account was logged out meanwhile; begin again\n")
