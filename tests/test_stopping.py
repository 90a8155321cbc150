"""A daemon is told to end, as a process, with everything under way that there can be."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from bearerd.assembly import Vault
from bearerd.core.tokens import TokenSet
from bearerd.settings import load
from callers import Client, connected
from daemons import RunningDaemon
from faults import FaultServer, Peer, hang, read, reply, send, until
from test_full_disk import fill

BUSY_S = 30.0
GRANTED = b'{"access_token": "new-access", "refresh_token": "new-refresh", "token_type": "Bearer", "expires_in": 3600}'
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
ASK = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==")


async def echo(peer: Peer) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while data := await loop.sock_recv(peer._sock, 1024):
            await peer.send(data)
    peer.gone.set()


class World:
    """An API with a stream, a place for uploads and a WebSocket; a token endpoint that answers when it is let."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.go = asyncio.Event()
        self.end = asyncio.Event()
        self.events = FaultServer([read, send(EVENTS), until(self.end)])
        self.uploads = FaultServer([read, send(reply(b"taken")), hang])
        self.sockets = FaultServer([read, send(SWITCH), echo])
        answer = reply(GRANTED, "200 OK", "Content-Type: application/json")
        self.tokens = FaultServer([read, until(self.go), send(answer), hang])

    def toml(self, drain: str) -> str:
        return f"""
[limits]
drain = "{drain}"
[store]
path = "{self.folder}/vault"
key_file = "{self.folder}/vault.key"
[accounts.api]
token = "static-token"
[accounts.login]
token_endpoint = "{self.tokens.url}/token"
client_id = "test-client"
refresh_token = "old-refresh"
[routes."/events"]
upstream = "{self.events.url}"
account = "api"
[routes."/uploads"]
upstream = "{self.uploads.url}"
account = "api"
[routes."/socket"]
upstream = "{self.sockets.url}"
account = "api"
"""

    async def saved(self) -> str | None:
        """The refresh token on the disk."""
        loaded = load(self.folder / "bearerd.toml", {}, os.environ).configuration
        store, _ = Vault(loaded.store).open(loaded.accounts["login"])
        found = await store.load()
        return found.refresh_token.reveal() if isinstance(found, TokenSet) and found.refresh_token else None


@asynccontextmanager
async def world(folder: Path, drain: str) -> AsyncIterator[tuple[World, RunningDaemon]]:
    """And a daemon before it, which has not been started."""
    made = World(folder)
    async with made.events, made.uploads, made.sockets, made.tokens:
        yield made, RunningDaemon(folder, made.toml(drain))


async def true(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(BUSY_S):
        while not condition():  # noqa: ASYNC110  # it happens in another process
            await asyncio.sleep(0.02)


class Calls:
    """A stream, an upload and a WebSocket, begun and not at their end."""

    def __init__(self, stream: Client, upload: Client, tunnel: Client) -> None:
        self.stream, self.upload, self.tunnel = stream, upload, tunnel

    async def begin(self, made: World) -> None:
        self.stream.write("GET /events HTTP/1.1")
        assert (await self.stream.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        await self.stream.exactly(b"b\r\ndata: one\n\n\r\n")
        self.upload.write("POST /uploads HTTP/1.1", "Content-Length: 6", body=b"abc")
        self.tunnel.write("GET /socket HTTP/1.1", *ASK)
        assert b" 101 " in await self.tunnel.head()
        await self.speak()
        await true(lambda: made.tokens.requests and made.uploads.connections)

    async def speak(self) -> None:
        self.tunnel.writer.write(b"hello")
        await self.tunnel.exactly(b"hello")


@asynccontextmanager
async def begun(daemon: RunningDaemon, made: World) -> AsyncIterator[Calls]:
    async with connected(daemon) as stream, connected(daemon) as upload, connected(daemon) as tunnel:
        calls = Calls(stream, upload, tunnel)
        await calls.begin(made)
        yield calls


async def cut(client: Client) -> bytes:
    """What still came of an answer that was not brought to its end."""
    with suppress(ConnectionError):
        return await client.rest()
    return b""


class TestInOrder:
    async def test_what_ends_by_itself_is_let(self, tmp_path: Path) -> None:
        async with world(tmp_path, "60s") as (made, daemon), daemon, begun(daemon, made) as calls:
            os.kill(daemon.pid, signal.SIGTERM)
            await true(lambda: "daemon.stopping" in daemon.log)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", daemon.port)
            await calls.speak()
            calls.upload.writer.write(b"def")
            heard = await calls.upload.rest()
            assert heard.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nConnection: close\r\n" in heard
            made.end.set()
            assert await calls.stream.rest() == b"0\r\n\r\n"
            calls.tunnel.writer.close()
            await true(lambda: "daemon.saving" in daemon.log)
            assert await made.saved() is None
            made.go.set()
            assert await daemon.ended() == 0
        assert made.uploads.requests[0].endswith(b"abcdef")
        assert await made.saved() == "new-refresh"

    async def test_what_does_not_is_cut_short_and_the_refresh_is_saved(self, tmp_path: Path) -> None:
        async with world(tmp_path, "300ms") as (made, daemon), daemon, begun(daemon, made) as calls:
            os.kill(daemon.pid, signal.SIGTERM)
            assert not (await cut(calls.stream)).endswith(b"0\r\n\r\n")
            assert await cut(calls.upload) == b""
            assert await cut(calls.tunnel) == b""
            await true(lambda: "daemon.saving" in daemon.log)
            made.go.set()
            assert await daemon.ended() == 0
        assert made.uploads.requests == []
        assert await made.saved() == "new-refresh"
        assert len(made.tokens.requests) == 1
        assert "new-refresh" not in daemon.log


class TestDuringTheStart:
    async def test_a_key_that_is_not_to_be_had_yet_does_not_hold_it_up(self, tmp_path: Path) -> None:
        """Another process keeps the lock of the vault's key, for which this one would wait for half a minute."""
        (tmp_path / "vault").mkdir(mode=0o700)
        with (tmp_path / "vault" / "key.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            file = tmp_path / "bearerd.toml"
            file.write_text(f"""
[listen]
port = 0
[store]
path = "{tmp_path}/vault"
key_file = "{tmp_path}/vault.key"
[accounts.login]
token_endpoint = "http://127.0.0.1:9/token"
client_id = "test-client"
refresh_token = "old-refresh"
[routes."/"]
upstream = "http://127.0.0.1:9"
""")
            file.chmod(0o600)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bearerd", "run", "-c", str(file)),
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=PIPE,
            )
            assert process.stderr is not None
            async with asyncio.timeout(BUSY_S):
                while b"daemon.listening" not in (line := await process.stderr.readline()):
                    assert line, "it has ended"
                process.terminate()
                rest = await process.stderr.read()
                assert await process.wait() == 0
        assert b"daemon.stopped" in rest
        assert b"listens on" not in rest


class TestAtOnce:
    async def test_a_second_signal_waits_for_nothing(self, tmp_path: Path) -> None:
        async with world(tmp_path, "60s") as (made, daemon):
            await daemon.__aenter__()
            async with begun(daemon, made) as calls:
                os.kill(daemon.pid, signal.SIGTERM)
                await true(lambda: "daemon.stopping" in daemon.log)
                os.kill(daemon.pid, signal.SIGINT)
                assert await daemon.ended() == -signal.SIGINT
                await cut(calls.stream)
        assert "daemon.cut_short" in daemon.log

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems have no first process of a container")
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a first process; run by CI")
    def test_the_first_process_of_a_container_dies_too(self) -> None:
        program = "from bearerd.serving import Signals; Signals().die(); print('it lives')"
        ended = subprocess.run(
            ("unshare", "--pid", "--fork", sys.executable, "-c", program),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, ended.stdout) == (128 + signal.SIGTERM, "")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


class TestNothingLost:
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk; run by CI")
    async def test_tokens_that_have_no_room_on_the_disk_are_said_to_be_lost(self, small_disk: Path) -> None:
        async with world(small_disk, "300ms") as (made, daemon):
            await daemon.__aenter__()
            await true(lambda: made.tokens.requests)
            fill(small_disk / "filler")
            made.go.set()
            await true(lambda: "token.unsaved" in daemon.log)
            os.kill(daemon.pid, signal.SIGTERM)
            assert await daemon.ended() == 1
        assert "; this process ends, and with it the only tokens that were good: log in again" in daemon.log
        assert "bearerd: tokens that had been refreshed could not be saved, and are lost" in daemon.log

    async def test_one_that_comes_as_everything_is_to_end_at_once_is_saved_first(
        self, tmp_path: Path
    ) -> None:
        """Its predecessor was spent: without it a person would have to log in."""
        async with world(tmp_path, "60s") as (made, daemon):
            await daemon.__aenter__()
            async with begun(daemon, made) as calls:
                os.kill(daemon.pid, signal.SIGTERM)
                await true(lambda: "daemon.stopping" in daemon.log)
                made.go.set()
                await true(
                    lambda: (
                        "token.refreshed"
                        in daemon.log.replace('"account": "api", "event": "token.refreshed"', "")
                    )
                )
                os.kill(daemon.pid, signal.SIGTERM)
                assert await daemon.ended() == -signal.SIGTERM
                await cut(calls.stream)
        assert await made.saved() == "new-refresh"


class TestSurroundings:
    """What a process is born into."""

    TOML = '[accounts.a]\ntoken = "static-token"\n[routes."/"]\nupstream = "http://127.0.0.1:9"\n'

    @asynccontextmanager
    async def started(
        self, folder: Path, *before: str
    ) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
        file = folder / "bearerd.toml"
        file.write_text(f"[listen]\nport = 0\n{self.TOML}")
        file.chmod(0o600)
        process = await asyncio.create_subprocess_exec(
            *(*before, sys.executable, "-m", "bearerd", "run", "-c", str(file)),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
        )
        assert process.stderr is not None
        async with asyncio.timeout(60):
            while (line := await process.stderr.readline()) and b"listens on http" not in line:
                """It is being started."""
        try:
            yield process, int(line.split()[3].rpartition(b":")[2])
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def test_an_interrupt_that_the_shell_ignores_is_ignored(self, tmp_path: Path) -> None:
        async with self.started(tmp_path, "sh", "-c", 'trap "" INT; exec "$@"', "sh") as (process, port):
            process.send_signal(signal.SIGINT)
            async with (
                aiohttp.ClientSession() as http,
                http.get(f"http://127.0.0.1:{port}/-/livez") as answer,
            ):
                assert answer.status == 200
            process.terminate()
            async with asyncio.timeout(BUSY_S):
                assert await process.wait() == 0

    async def test_nobody_reads_what_it_says_any_more(self, tmp_path: Path) -> None:
        async with self.started(tmp_path) as (process, port):
            process._transport.get_pipe_transport(2).close()  # type: ignore[attr-defined]  # there is no other way
            async with aiohttp.ClientSession() as http:
                for _ in range(3):
                    async with http.get(f"http://127.0.0.1:{port}/x") as answer:
                        assert answer.status == 502
            process.terminate()
            async with asyncio.timeout(BUSY_S):
                assert await process.wait() == 0
