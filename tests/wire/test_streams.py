"""Streams through a daemon's process: both ways at once, as they come, however long, and answers without a body."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from daemons import RunningDaemon
from faults import talk
from lines import Line
from relays import _Server

SIZE: Final = 100 << 20
MEMORY: Final = 4 << 20
TOML: Final = '[accounts.a]\ntoken = "t"\n[routes."/"]\nupstream = "http://127.0.0.1:{port}"\n'
_BLOCK: Final = bytes(range(256)) * 256
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class StreamingUpstream(_Server):
    """Sends every byte of a chunked body back as it comes; of one with a length its digest; and `SIZE` bytes to GET."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.startswith(b"GET "):
                await self._send(writer)
            elif b"chunked" in head:
                await self._echo(reader, writer)
            else:
                await self._digest(reader, writer)

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        for _ in range(SIZE // len(_BLOCK)):
            writer.write(_BLOCK)
            await writer.drain()

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data = await reader.read(65536)
            writer.write(data)

    async def _digest(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        digest = hashlib.sha256()
        left = SIZE
        while left:
            data = await reader.read(min(left, 1 << 20))
            assert data
            digest.update(data)
            left -= len(data)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + digest.hexdigest().encode())


@asynccontextmanager
async def streaming(
    folder: Path,
) -> AsyncIterator[tuple[RunningDaemon, asyncio.StreamReader, asyncio.StreamWriter]]:
    async with (
        StreamingUpstream() as upstream,
        RunningDaemon(folder, TOML.format(port=upstream.port)) as daemon,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        try:
            async with asyncio.timeout(90):
                yield daemon, reader, writer
        finally:
            writer.transport.abort()


def ask(daemon: RunningDaemon, writer: asyncio.StreamWriter, start_line: bytes, field: bytes) -> None:
    writer.write(b"%b\r\nHost: localhost:%d\r\n%b\r\n\r\n" % (start_line, daemon.port, field))


def peak(daemon: RunningDaemon) -> int:
    """The most memory that the process has held, in bytes."""
    lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) << 10


async def test_a_question_and_its_answer_by_turns(tmp_path: Path) -> None:
    """Each piece of the upload is answered before the next one is sent."""
    async with streaming(tmp_path) as (daemon, reader, writer):
        for _ in range(2):
            ask(daemon, writer, b"POST / HTTP/1.1", b"Transfer-Encoding: chunked")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            for size in (1, 10, 1000, 30_000):
                chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
                writer.write(chunk)
                got = b""
                while got.count(b"x") < size:
                    got += await reader.read(65536)
            writer.write(b"0\r\n\r\n")
            assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")


async def test_a_great_deal_both_ways_at_once(tmp_path: Path) -> None:
    async with streaming(tmp_path) as (daemon, reader, writer):
        ask(daemon, writer, b"POST / HTTP/1.1", b"Transfer-Encoding: chunked")

        async def send() -> None:
            for _ in range(200):
                writer.write(b"10000\r\n%b\r\n" % (b"x" * 65536))
                await writer.drain()
            writer.write(b"0\r\n\r\n")

        sending = asyncio.create_task(send())
        await reader.readuntil(b"\r\n\r\n")
        count, tail = 0, b""
        while not tail.endswith(b"\r\n0\r\n\r\n"):
            data = await reader.read(65536)
            count += data.count(b"x")
            tail = (tail + data)[-8:]
        assert count == 200 * 65536
        await sending


@linux_only
async def test_a_hundred_mebibytes_down_and_up_in_little_memory(tmp_path: Path) -> None:
    async with streaming(tmp_path) as (daemon, reader, writer):
        ask(daemon, writer, b"POST / HTTP/1.1", b"Transfer-Encoding: chunked")
        writer.write(b"1\r\nx\r\n0\r\n\r\n")
        await reader.readuntil(b"0\r\n\r\n")
        before = peak(daemon)
        ask(daemon, writer, b"GET / HTTP/1.1", b"A: b")
        await reader.readuntil(b"\r\n\r\n")
        digest = hashlib.sha256()
        left = SIZE
        while left:
            data = await reader.read(min(left, 1 << 20))
            digest.update(data)
            left -= len(data)
        ask(daemon, writer, b"PUT / HTTP/1.1", b"Content-Length: %d" % SIZE)
        for _ in range(SIZE // len(_BLOCK)):
            writer.write(_BLOCK)
            await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(64) == digest.hexdigest().encode()
        assert digest.hexdigest() == hashlib.sha256(_BLOCK * (SIZE // len(_BLOCK))).hexdigest()
        assert peak(daemon) - before < MEMORY


EMPTY: Final = [
    (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"),
    (b"HEAD", b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"),
    (b"HEAD", b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"),
    (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    (b"GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    (b"DELETE", b"HTTP/1.1 204 No Content\r\nETag: x\r\n\r\n"),
    (b"GET", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
    (b"GET", b"HTTP/1.1 205 Reset Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (b"GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
    (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
    (b"POST", b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("method", "answer"), EMPTY)
async def test_an_answer_without_a_body_is_exact(line: Line, method: bytes, answer: bytes) -> None:
    """To the byte, on a connection that goes on."""
    line.upstream.answer = lambda request: answer if request.startswith(method) else b""
    request = b"%b / HTTP/1.1\r\nHost: %b\r\n\r\n" % (method, line.host)
    last = b"GET /-/livez HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % line.host
    got = await talk(line.daemon.port, request * 2 + last)
    assert got.startswith(answer * 2 + b"HTTP/1.1 200 OK\r\n")
