"""Peers on real sockets: a server that speaks TLS, a proxy that opens tunnels, and one that breaks what passes through it."""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self

_LIMIT: Final = 65536
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class _Server:
    """Runs `_serve` for each connection to a port of 127.0.0.1. Whoever is left at the end is cut off."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[Any]] = set()
        self.connections = 0
        self.open = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        self.open += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self.open -= 1
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class TlsUpstream(_Server):
    """Answers each request head with `answer`. `names` are the ones that were asked for; `subjects` the clients'."""

    def __init__(self, context: ssl.SSLContext, answer: bytes) -> None:
        super().__init__(context)
        self._answer = answer
        self.heads: list[bytes] = []
        self.names: list[str | None] = []
        self.subjects: list[str | None] = []
        context.sni_callback = lambda _, name, __: self.names.append(name)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("ssl_object").getpeercert()
        self.subjects.append(
            dict(pair[0] for pair in certificate["subject"])["commonName"] if certificate else None
        )
        while True:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self._answer)


class TlsServer:
    """Sends `answer` to one connection after another over TLS, and ends without a closure alert, in a thread."""

    def __init__(self, context: ssl.SSLContext, answer: bytes) -> None:
        self._context = context
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self.port: int = self._socket.getsockname()[1]
        self.requests: list[bytes] = []
        self.names: list[str | None] = []

    def __enter__(self) -> Self:
        self._context.sni_callback = lambda _, name, __: self.names.append(name)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _serve(self) -> None:
        for _ in range(10):
            try:
                raw, _ = self._socket.accept()
            except OSError:
                return
            raw.settimeout(5)
            with suppress(OSError):
                self._talk(raw)

    def _talk(self, raw: socket.socket) -> None:
        with self._context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False) as sock:
            try:
                sock.do_handshake()
            except ssl.SSLError:
                with socket.socket(fileno=sock.detach()) as left:
                    while left.recv(65536):  # or what is unread would turn the alert into a reset
                        pass
                return
            self.requests.append(sock.recv(65536))
            sock.sendall(self._answer)


class TunnelProxy(_Server):
    """Opens a tunnel to the port that a CONNECT names, on 127.0.0.1 whatever the host. `heads` are the requests."""

    def __init__(self, credentials: str | None = None) -> None:
        super().__init__()
        self._expected = f"Basic {credentials}".encode() if credentials else None
        self.heads: list[bytes] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self._expected is not None and self._expected not in head:
            writer.write(b"HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno")
            return await _flush(writer)
        port = int(head.split()[1].rpartition(b":")[2])
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        copies = [
            asyncio.create_task(_copy(*pair)) for pair in ((reader, inner_writer), (inner_reader, writer))
        ]
        try:
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        finally:
            inner_writer.transport.abort()
            for copy in copies:
                copy.cancel()
            await asyncio.gather(*copies, return_exceptions=True)


async def _flush(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_LIMIT):
        writer.write(data)
        await writer.drain()


# ---------------------------------------------------------------- a proxy that breaks what passes through it


@dataclass(slots=True)
class Passage:
    """Both ends of a connection through a `FaultProxy`: the near one is the client's, the far one the server's. `done` is
    set when its fault has happened or goes on.
    """

    near_reader: asyncio.StreamReader
    near: asyncio.StreamWriter
    far_reader: asyncio.StreamReader
    far: asyncio.StreamWriter
    done: asyncio.Event = field(default_factory=asyncio.Event)


Act = Callable[[Passage], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """`act` when `at` bytes have passed on one connection: of answers, or with `up` of requests.

    Before that they pass as they are, `pause_s` earlier than `act`, so that they have arrived. Those that come after it
    pass too, unless it has ended the connection. With `in_use` the next byte is waited for, and held back until then: a
    fault is one of a connection in use. So it is with none to pass.
    """

    at: int
    act: Act
    up: bool = False
    in_use: bool = False
    pause_s: float = 0.05


class FaultProxy(_Server):
    """A TCP proxy to a port of 127.0.0.1. The first connections have `faults`, one each or None; all others none."""

    def __init__(self, port: int, *faults: Fault | None) -> None:
        super().__init__()
        self._to = port
        self.faults = list(faults)
        self.passages: list[Passage] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self.faults[self.connections - 1] if self.connections <= len(self.faults) else None
        passage = Passage(reader, writer, *await asyncio.open_connection("127.0.0.1", self._to))
        self.passages.append(passage)
        ways = [
            asyncio.create_task(
                self._pass(passage, fault if fault is not None and fault.up is up else None, up=up)
            )
            for up in (True, False)
        ]
        try:
            await asyncio.wait(ways)
        finally:
            passage.far.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, passage: Passage, fault: Fault | None, *, up: bool) -> None:
        reader = passage.near_reader if up else passage.far_reader
        writer = passage.far if up else passage.near
        try:
            if fault is not None:
                await _pass_until(fault.at, reader, writer)
                held = await reader.readexactly(1) if fault.in_use or not fault.at else b""
                await asyncio.sleep(fault.pause_s)
                try:
                    await fault.act(passage)
                finally:
                    passage.done.set()
                writer.write(held)
            await _copy(reader, writer)
            writer.write_eof()
        except (OSError, RuntimeError, asyncio.IncompleteReadError):
            passage.near.transport.abort()
            passage.far.transport.abort()


async def _pass_until(left: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass so many bytes."""
    while left:
        data = await reader.read(min(left, _LIMIT))
        if not data:
            raise ConnectionResetError
        writer.write(data)
        await writer.drain()
        left -= len(data)


async def rst(passage: Passage) -> None:
    """End with RST on the near side."""
    sock = passage.near.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    passage.near.transport.abort()
    raise ConnectionResetError


async def fin(passage: Passage) -> None:
    """End in order, in both directions."""
    passage.near.close()
    raise ConnectionResetError


async def say_no_more(passage: Passage) -> None:
    """Half-close: whatever the far side still says is dropped."""
    passage.near.write_eof()
    passage.done.set()
    while await passage.far_reader.read(_LIMIT):
        pass


async def fall_silent(passage: Passage) -> None:
    """A black hole: nothing passes any more, in either direction, and nobody is told."""
    passage.near.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's has it
    passage.done.set()
    await asyncio.Event().wait()


def lag(seconds: float) -> Act:
    return lambda _: asyncio.sleep(seconds)


def after(seconds: float, act: Act) -> Act:
    async def late(passage: Passage) -> None:
        await asyncio.sleep(seconds)
        await act(passage)

    return late


def insert(data: bytes) -> Act:
    async def act(passage: Passage) -> None:
        passage.near.write(data)

    return act


def in_pieces(size: int) -> Act:
    """Whatever comes from now on, `size` bytes at a time."""

    async def act(passage: Passage) -> None:
        passage.near.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        passage.done.set()
        while data := await passage.far_reader.read(size):
            passage.near.write(data)
            await passage.near.drain()
            await asyncio.sleep(0)

    return act
