"""A TCP server that plays scripts, for the ways in which a peer can fail that no HTTP library would let it.

A script is a list of steps, one script for each connection; the last one serves every further connection.
When a script ends, its connection is closed cleanly. Works on any event loop: it uses bare sockets.
"""

import asyncio
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from types import TracebackType
from typing import Final, Self

Step = Callable[["Peer"], Awaitable[None]]
Script = Sequence[Step]

FIRST_PORT: Final = 20_000  # below what systems give out by themselves
PORTS_EACH: Final = 500
SHARES: Final = 24
LONGEST_S: Final = 60.0  # no script hangs for longer than this: a test that goes wrong must end


class Peer:
    """One connection, as a script sees it. `gone` is set when the other side is known to have left."""

    def __init__(self, sock: socket.socket, server: "FaultServer") -> None:
        self._sock = sock
        self._server = server
        self._unread = bytearray()
        self.received = bytearray()
        self.gone = asyncio.Event()

    async def read_request(self) -> bool:
        """Read one request, with its body, and record it. False where the other side left before its end."""
        while (size := request_size(self._unread)) is None:
            if not await self._receive():
                return False
        self._server.requests.append(bytes(self._unread[:size]))
        del self._unread[:size]
        return True

    async def read_head(self) -> bool:
        """Read a head and leave the rest in the socket as far as it came separately. Records nothing."""
        while b"\r\n\r\n" not in self.received:
            if not await self._receive():
                return False
        return True

    async def read_to_end(self) -> None:
        """Take whatever comes until the other side has left."""
        while await self._receive():
            pass

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    def half_close(self) -> None:
        """Say that nothing more will be sent, and stay."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End with RST, what has not been read by the other side included."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    async def play(self, script: Script) -> None:
        try:
            async with asyncio.timeout(LONGEST_S):
                for step in script:
                    await step(self)
        except (ConnectionError, TimeoutError):
            self.gone.set()
        finally:
            self._sock.close()

    async def _receive(self) -> bool:
        try:
            data = await asyncio.get_running_loop().sock_recv(self._sock, 65536)
        except OSError:
            data = b""
        self._unread += data
        self.received += data
        if not data:
            self.gone.set()
        return bool(data)


class FaultServer:
    """Plays `scripts` on a port of `host` while the context is open.

    `requests` are the raw requests that were read, in order; `peers` the connections, in order.
    """

    def __init__(
        self, *scripts: Script, receive_buffer: int | None = None, port: int = 0, host: str = "127.0.0.1"
    ) -> None:
        assert scripts, "a server needs a script"
        self._scripts = scripts
        self._socket = socket.create_server((host, port), family=family_of(host))
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.setblocking(False)
        self._tasks: list[asyncio.Task[None]] = []
        self.requests: list[bytes] = []
        self.peers: list[Peer] = []
        self.port: int = self._socket.getsockname()[1]

    @property
    def connections(self) -> int:
        return len(self.peers)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._tasks.append(asyncio.create_task(self._accept()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self._socket)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            script = self._scripts[min(len(self.peers), len(self._scripts) - 1)]
            peer = Peer(sock, self)
            self.peers.append(peer)
            self._tasks.append(asyncio.create_task(peer.play(script)))


# ---------------------------------------------------------------- steps


async def read(peer: Peer) -> None:
    """Read one whole request; end here if the other side leaves instead."""
    if not await peer.read_request():
        raise ConnectionResetError


async def read_head(peer: Peer) -> None:
    """Wait for the head of a request and read little more."""
    if not await peer.read_head():
        raise ConnectionResetError


async def reset(peer: Peer) -> None:
    peer.reset()


async def half_close(peer: Peer) -> None:
    peer.half_close()


async def hang(peer: Peer) -> None:
    """Send nothing more, until the other side has left."""
    await peer.read_to_end()


async def stall(peer: Peer) -> None:
    """Read nothing more and send nothing more."""
    del peer
    await asyncio.sleep(LONGEST_S)


def send(data: bytes) -> Step:
    return lambda peer: peer.send(data)


def pause(seconds: float) -> Step:
    return lambda _: asyncio.sleep(seconds)


def until(event: asyncio.Event) -> Step:
    """Go on when the test says so."""

    async def step(peer: Peer) -> None:
        del peer
        await event.wait()

    return step


def slices(data: bytes, size: int, delay_s: float = 0.0) -> Step:
    """Send `data` in pieces of `size` bytes, `delay_s` seconds apart."""

    async def step(peer: Peer) -> None:
        for start in range(0, len(data), size):
            await peer.send(data[start : start + size])
            await asyncio.sleep(delay_s)

    return step


def repeat(data: bytes, times: int) -> Step:
    """Send `data` as often as that, without ever holding it all."""

    async def step(peer: Peer) -> None:
        for _ in range(times):
            await peer.send(data)

    return step


def serve(*answers: bytes) -> Step:
    """Answer each request with the next of `answers`, the last one again and again, until the other side leaves."""

    async def step(peer: Peer) -> None:
        for count in range(100_000):
            if not await peer.read_request():
                return
            await peer.send(answers[min(count, len(answers) - 1)])

    return step


def reply(body: bytes = b"", status: str = "200 OK", *fields: str, framing: str | None = "length") -> bytes:
    """A response in wire form. `framing` is length, chunked, or None for a body that ends with the connection."""
    lines = [f"HTTP/1.1 {status}", *fields]
    if framing == "length":
        lines.append(f"Content-Length: {len(body)}")
    if framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def request_size(data: bytes | bytearray) -> int | None:
    """How many bytes of `data` its first request takes up, or None where it is not complete yet."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head, start = bytes(data[:head_end]), head_end + 4
    fields = {
        name.strip().lower(): value.strip().lower()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if fields.get(b"transfer-encoding") == b"chunked":
        return _chunked_end(data, start)
    end = start + int(fields.get(b"content-length", b"0"))
    return end if end <= len(data) else None


def _chunked_end(data: bytes | bytearray, at: int) -> int | None:
    while (line_end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line_end].partition(b";")[0], 16)
        at = line_end + 2 + size + 2
        if at > len(data):
            return None
        if size == 0:
            return at
    return None


# ---------------------------------------------------------------- the client's side


async def talk(port: int, data: bytes, *, limit_s: float = 20.0) -> bytes:
    """Send `data` as it is, and return all that comes until the server closes. Raises what the socket raises."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(limit_s):
            return await reader.read()
    finally:
        writer.transport.abort()


def refused_port(host: str = "127.0.0.1") -> int:
    """A port on which nothing listens, and nobody else begins to: out of the system's own range, and apart from those
    of tests that run at the same time.
    """
    ports = _own_share()
    while True:
        port = random.choice(ports)  # no secret
        with suppress(OSError), socket.create_server((host, port), family=family_of(host)):
            return port


@cache
def _own_share() -> range:
    """The ports of this process: whoever has bound the one before them, for as long as the process lasts.

    Raises RuntimeError where there are more processes at work than shares.
    """
    for first in range(FIRST_PORT, FIRST_PORT + SHARES * PORTS_EACH, PORTS_EACH):
        mark = socket.socket()
        try:
            mark.bind(("127.0.0.1", first))
        except OSError:
            mark.close()
        else:
            mark.detach()  # it is closed by nobody
            return range(first + 1, first + PORTS_EACH)
    raise RuntimeError(f"{SHARES} processes of these tests run already")


@contextmanager
def black_hole(host: str = "127.0.0.1") -> Iterator[int]:
    """A port that neither accepts a connection nor refuses it: its queue is full."""
    with socket.socket(family_of(host)) as full, ExitStack() as waiting:
        full.bind((host, 0))
        full.listen(0)
        for _ in range(4):
            sock = waiting.enter_context(socket.socket(family_of(host)))
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        yield full.getsockname()[1]


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
