"""Clients that leave in the middle, at every stage of a call, and an upstream that holds each call at its stage."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final

from relays import _Server

_PART: Final = b"x" * 1000
_STREAM: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT: Final = b"9\r\ndata: x\n\n\r\n"
_ANSWERS: Final = {  # by path: what the upstream says before it waits for the end
    b"/silent": b"",
    b"/upload": b"",
    b"/head": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
    b"/body": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + _PART,
    b"/chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n" + _PART,
    b"/events": _STREAM + _EVENT,
    b"/early": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + _PART,
    b"/socket": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x01x",
    b"/whole": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
}
_UPGRADE: Final = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
STAGES: Final = {  # what a client says before it leaves, and the last it waits for
    "connected": (b"", b""),
    "in the head": (b"GET /silent HTTP/1.1\r\nHost: {host}\r\nX: ", b""),
    "before the answer": (b"GET /silent HTTP/1.1\r\nHost: {host}\r\n\r\n", b""),
    "after the answer's head": (b"GET /head HTTP/1.1\r\nHost: {host}\r\n\r\n", b"\r\n\r\n"),
    "in the answer": (b"GET /body HTTP/1.1\r\nHost: {host}\r\n\r\n", b"xxxx"),
    "in a chunk of the answer": (b"GET /chunk HTTP/1.1\r\nHost: {host}\r\n\r\n", b"xxxx"),
    "between events": (b"GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n", b"data: x\n\n"),
    "in an upload": (b"PUT /upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5000\r\n\r\n" + _PART, b""),
    "in a chunk of an upload": (
        b"POST /upload HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n" + _PART,
        b"",
    ),
    "in an upload and in its answer": (
        b"PUT /early HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5000\r\n\r\n" + _PART,
        b"xxxx",
    ),
    "waiting to go on": (
        b"PUT /upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
        b"\r\n\r\n",
    ),
    "in a tunnel": (b"GET /socket HTTP/1.1\r\nHost: {host}\r\n" + _UPGRADE + b"\r\n", b"\x81\x01x"),
    "before a tunnel": (b"GET /silent HTTP/1.1\r\nHost: {host}\r\n" + _UPGRADE + b"\r\n", b""),
    "with another call behind": (b"GET /silent HTTP/1.1\r\nHost: {host}\r\n\r\n" * 2, b""),
    "after the answer": (b"GET /whole HTTP/1.1\r\nHost: {host}\r\n\r\n", b"hi"),
    "refused": (b"GET /silent HTTP/1.1\r\n\r\n", b""),
}


class HoldingUpstream(_Server):
    """Answers each call by its path as far as that goes, and reads to the end. `open` is how many connections there are."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split()[1]
            writer.write(_ANSWERS[path])
            if path != b"/whole":
                break
        while await reader.read(65536):
            pass


async def abort_calls(port: int, count: int, at_once: int = 25) -> None:
    """`count` clients come and go, at each stage by turns, each in one of three ways."""
    stages = list(STAGES.values())
    for start in range(0, count, at_once):
        numbers = range(start, min(start + at_once, count))
        await asyncio.gather(*(_abort(port, *stages[n % len(stages)], way=n // len(stages)) for n in numbers))


async def _abort(port: int, said: bytes, awaited: bytes, *, way: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said.replace(b"{host}", b"localhost:%d" % port))
    async with asyncio.timeout(30):
        if awaited:
            await reader.readuntil(awaited)
        else:
            await asyncio.sleep(0.005 * (way % 5))  # as far as it comes in that time
    await _WAYS[way % len(_WAYS)](writer)


async def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _half_close(writer: asyncio.StreamWriter) -> None:
    """And close a moment later."""
    writer.write_eof()
    await asyncio.sleep(0.01)
    writer.close()


_WAYS: Final[tuple[Callable[[asyncio.StreamWriter], Awaitable[None]], ...]] = (_reset, _close, _half_close)
