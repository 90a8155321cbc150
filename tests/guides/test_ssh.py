"""The guide for SSH: logins that begin far from the browser, and calls that come by a forwarded port or socket."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

import canaries
from bearerd.settings import load
from blocks import Window, pattern, read_steps
from daemons import RunningDaemon
from faults import refused_port
from guides.guide import HERE, LOGIN, Guide, run_script
from login_server import LoginServer
from login_world import Browser
from oidc_peer import OidcPeer
from upstreams import ApiUpstream, accept_any_of

REMOTE: Final = {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22", "BROWSER": ""}
ACCOUNT: Final = """
[accounts.work]
issuer = "{issuer}"
client_id = "app-client"
scopes = ["openid", "offline_access"]
[routes."/"]
upstream = "http://127.0.0.1:9"
"""


def configure(home: Path, issuer: str) -> None:
    """By the file that is found without being named."""
    file = home / ".config" / "bearerd" / "bearerd.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f"[listen]\nport = {refused_port()}\n{ACCOUNT.format(issuer=issuer)}")
    file.chmod(0o600)


@pytest.mark.usefixtures("key_file")
class TestLogins:
    async def test_pasting(self, home: Path) -> None:
        async with LoginServer(subject="you@example.com") as server, Browser() as browser:
            configure(home, server.issuer)
            guide = Guide("ssh", home, {LOGIN: server.issuer})
            (step,) = read_steps(guide.block("paste"))
            async with Window(step, home, **REMOTE) as window:
                await window.until(pattern(step.output))
                address = await window.until(r"\n(http://\S+/authorize\?\S+)\n")
                window.type((await browser.go(address)).location + "\n")
                assert await window.end() == 0
                said = re.search(r"\nbearerd: work is logged in .*\n", window.shown)
        assert said
        assert re.sub(r"at 2\S+", "at TIME", said[0].strip()) in re.sub(
            r"at 2\S+", "at TIME", guide.page.read_text()
        )

    async def test_another_device(self, home: Path) -> None:
        async with OidcPeer() as peer:
            configure(home, peer.issuer)
            (step,) = read_steps(Guide("ssh", home, {LOGIN: peer.issuer}).block("device"))
            async with Window(step, home) as window:
                await window.until(pattern(step.output.removesuffix("...")))


def test_its_settings_are_taken(tmp_path: Path) -> None:
    for name in ("key file", "other port", "public url", "keys"):
        file = tmp_path / "bearerd.toml"
        file.write_text(Guide("ssh", tmp_path, {}).block(name).text + ACCOUNT.format(issuer=LOGIN))
        file.chmod(0o600)
        assert load(file, {}, {}).warnings == ()


@asynccontextmanager
async def forwarded(port: int, at: Path | int) -> AsyncIterator[None]:
    """What ssh does with a forwarded port or socket: the bytes of each connection, both ways."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        further, onward = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, onward), copy(further, writer))

    if isinstance(at, Path):
        server = await asyncio.start_unix_server(serve, at)
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", at)
    async with server:
        yield


async def test_calls_to_the_laptop_from_over_there(home: Path) -> None:
    """By a socket and by a port of the same number; another number is another name, and no key is no call."""
    guide = Guide("ssh", home, {})
    token, folder = canaries.make("access"), home / ".config" / "bearerd"
    folder.mkdir(parents=True)
    async with ApiUpstream(accept_any_of({token})) as api:
        toml = f'[accounts.work]\ntoken = "{token}"\n[routes."/"]\nupstream = "{api.url}"\n'
        toml += guide.block("keys").text
        (folder / "bearerd.toml").write_text(toml)
        (said,) = await guide.follow("key")
        key = re.search(r"bearerd_[0-9a-f]{64}", said)
        assert key
        async with RunningDaemon(folder, toml) as daemon:
            other, socket = refused_port(), home / "bearerd.sock"
            by_port, by_socket = commands_over_there(guide, daemon.port, socket, key[0])
            async with forwarded(daemon.port, socket), forwarded(daemon.port, other):
                for command in (by_port, by_socket):
                    assert '"path": "/hello"' in (await run_script(command, home)).out
                elsewhere = by_port.replace(f":{daemon.port}/", f":{other}/")
                assert '"wrong_authority"' in (await run_script(elsewhere, home)).out
                without = re.sub(r'-H "[^"]+" ', "", by_socket)
                assert '"key_missing"' in (await run_script(without, home)).out
                await guide.follow("revoke")
                assert '"key_refused"' in (await run_script(by_socket, home)).out
        assert len(api.calls) == 2


def commands_over_there(guide: Guide, port: int, socket: Path, key: str) -> list[str]:
    """What the guide has the other machine call: by a port, and by a socket."""
    shown = {"/home/me/bearerd.sock": str(socket), "bearerd_...": key}
    shown |= {HERE: f"127.0.0.1:{port}", "localhost:6750": f"localhost:{port}"}
    text = "\n".join(re.findall(r"(?m)^dev\$ (curl .+)$", guide.page.read_text()))
    for there, real in shown.items():
        assert there in text
        text = text.replace(there, real)
    return text.splitlines()
