"""Clients that read slowly, and upstreams that do, many at once, against what a daemon's process holds in memory."""

import asyncio
import resource
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from daemons import RunningDaemon
from relays import _Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SIZE: Final = 100 << 20
PER_STREAM: Final = 128 << 10
COUNTS: Final = [100, pytest.param(2000, marks=pytest.mark.soak)]
AT_ONCE: Final = 50
RECEIVE_BUFFER: Final = 4096  # of a client that reads slowly
TOML: Final = """
[accounts.a]
token = "t"
[routes."/"]
upstream = "{url}"
[limits]
connections = 2500
replay_body = 0
replay_total = 0
"""
_BLOCK: Final = bytes(65536)


class LargeUpstream(_Server):
    """Answers GET with `SIZE` bytes, as fast as they are taken; of anything else it reads no more than the head.

    `sent` is how much it got rid of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hang_up(self) -> None:
        """On all there are."""
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"GET "):
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's has it
            await asyncio.Event().wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        for _ in range(SIZE // len(_BLOCK)):
            writer.write(_BLOCK)
            await writer.drain()
            self.sent += len(_BLOCK)


class Crowd:
    """Clients that have asked. They read nothing of what is answered, and send as much as is taken."""

    def __init__(self, daemon: RunningDaemon, start_line: bytes, length: int) -> None:
        fields = b"Host: localhost:%d\r\nContent-Length: %d\r\n\r\n" % (daemon.port, length)
        self._port = daemon.port
        self._request = start_line + b"\r\n" + fields
        self._length = length
        self._socks: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.sent = 0

    async def grow(self, count: int) -> None:
        while len(self._socks) < count:
            more = min(AT_ONCE, count - len(self._socks))
            self._socks += await asyncio.gather(*(self._ask() for _ in range(more)))

    async def read(self, count: int, size: int) -> None:
        """The first `count` of them, so much each."""
        async with asyncio.timeout(60):
            await asyncio.gather(*(self._read(sock, size) for sock in self._socks[:count]))

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in self._socks:
            sock.close()

    async def _read(self, sock: socket.socket, left: int) -> None:
        while left > 0:
            data = await asyncio.get_running_loop().sock_recv(sock, min(left, 65536))
            assert data
            left -= len(data)

    async def _ask(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", self._port))
        await loop.sock_sendall(sock, self._request)
        if self._length:
            self._tasks.append(asyncio.create_task(self._send(sock)))
        return sock

    async def _send(self, sock: socket.socket) -> None:
        while True:
            await asyncio.get_running_loop().sock_sendall(sock, _BLOCK)
            self.sent += len(_BLOCK)


@asynccontextmanager
async def crowd(daemon: RunningDaemon, start_line: bytes, length: int = 0) -> AsyncIterator[Crowd]:
    clients = Crowd(daemon, start_line, length)
    try:
        yield clients
    finally:
        await clients.leave()


def resident(daemon: RunningDaemon) -> int:
    """Bytes of memory."""
    pages = int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def settled(daemon: RunningDaemon, upstream: LargeUpstream, clients: Crowd) -> int:
    """The daemon's memory when nothing moves any more."""
    seen = (-1, -1, -1)
    async with asyncio.timeout(120):
        while (now := (upstream.sent, clients.sent, resident(daemon))) != seen:
            seen = now
            await asyncio.sleep(0.4)
    return now[2]


@pytest.fixture
def _descriptors() -> None:
    """As many as there may be: this process has both ends of everything."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.mark.usefixtures("_descriptors")
@pytest.mark.parametrize("count", COUNTS)
async def test_slow_readers_of_a_large_answer(tmp_path: Path, count: int) -> None:
    """And they lose nothing: what they read on is there."""
    async with LargeUpstream() as upstream, RunningDaemon(tmp_path, TOML.format(url=upstream.url)) as daemon:
        async with crowd(daemon, b"GET / HTTP/1.1") as clients:
            await clients.grow(10)
            before = await settled(daemon, upstream, clients)
            await clients.grow(10 + count)
            growth = await settled(daemon, upstream, clients) - before
            assert growth / count < PER_STREAM, growth / count
            assert upstream.sent < SIZE * count // 4
            await clients.read(20, 1 << 16)
        assert "connections.f" not in daemon.log  # neither fewer nor full


@pytest.mark.usefixtures("_descriptors")
@pytest.mark.parametrize("count", COUNTS)
async def test_uploads_that_nobody_reads(tmp_path: Path, count: int) -> None:
    async with LargeUpstream() as upstream, RunningDaemon(tmp_path, TOML.format(url=upstream.url)) as daemon:
        async with crowd(daemon, b"PUT / HTTP/1.1", SIZE) as clients:
            await clients.grow(10)
            before = await settled(daemon, upstream, clients)
            await clients.grow(10 + count)
            growth = await settled(daemon, upstream, clients) - before
            assert growth / count < PER_STREAM, growth / count
            assert clients.sent < SIZE * count // 4
            upstream.hang_up()
        assert "connections.f" not in daemon.log
