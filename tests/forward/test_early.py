"""Requests that come while the server's task has yet to see that the one before them has been answered."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
from aiohttp import StreamReader, web
from aiohttp.http_parser import RawRequestMessage

from bearerd.core.configuration import Limits
from bearerd.core.guard import build_guard
from bearerd.forward.direct import DirectCall
from bearerd.gate import Client, Door, Gate


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


class NoCall:
    """A call that has been begun, and is answered in a moment."""

    def abandon(self) -> None: ...

    def hand_over(self) -> None: ...


class World:
    """A gate whose calls to /direct… need no handler. `after` is done with a client in the turn after /last was answered."""

    def __init__(self, after: Callable[[Client], None]) -> None:
        self._after = after
        self.direct: list[str] = []
        self.handled: list[str] = []

    def begin(self, client: Client, message: RawRequestMessage, payload: StreamReader) -> DirectCall | None:
        del payload
        if not message.path.startswith("/direct"):
            return None
        self.direct.append(message.path)
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ndirect"
        asyncio.get_running_loop().call_soon(client.answer, answer)
        return cast(DirectCall, NoCall())

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0)
        self.handled.append(request.path)
        if request.path == "/last":
            asyncio.get_running_loop().call_soon(self._after, cast(Client, request.protocol))
        return web.Response(text=request.path)


@asynccontextmanager
async def asked(world: World) -> AsyncIterator[asyncio.StreamReader]:
    """What a client hears that has asked for /first and, when that was answered, for /last."""
    gate = Gate(world.handle, Limits(), 8, world.begin)
    door = Door(build_guard(1, (), "x"), lambda _: None)
    server = await asyncio.get_running_loop().create_server(gate.by(door), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        for path in ("/first", "/last"):
            writer.write(request(path))
            await reader.readuntil(path.encode())
        yield reader
    finally:
        writer.transport.abort()
        server.close()
        await gate.shutdown(0)


async def test_it_is_forwarded_as_it_would_be_a_turn_later() -> None:
    world = World(lambda client: client.data_received(request("/direct")))
    async with asked(world) as reader, asyncio.timeout(10):
        await reader.readuntil(b"\r\n\r\ndirect")
    assert world.direct == ["/direct"]
    assert world.handled == ["/first", "/last"]


async def test_one_that_needs_the_handler_gets_it() -> None:
    world = World(lambda client: client.data_received(request("/other")))
    async with asked(world) as reader, asyncio.timeout(10):
        await reader.readuntil(b"/other")
    assert world.handled == ["/first", "/last", "/other"]


@pytest.mark.parametrize("behind", ["/direct/2", "/other"])
async def test_one_behind_it_is_answered_behind_it(behind: str) -> None:
    def two(client: Client) -> None:
        client.data_received(request("/direct/1"))
        client.data_received(request(behind))

    world = World(two)
    async with asked(world) as reader, asyncio.timeout(10):
        heard = await reader.readuntil(behind.encode())
    assert heard.index(b"/direct/1") < heard.index(behind.encode())
    assert world.handled == ["/first", "/last", "/direct/1", behind]


async def test_it_is_not_begun_when_the_connection_is_to_end() -> None:
    """It was not taken up, so the client may send it elsewhere (RFC 9112 section 9.6)."""

    def end(client: Client) -> None:
        client.data_received(request("/direct"))
        client.finish()

    world = World(end)
    async with asked(world) as reader, asyncio.timeout(10):
        assert await reader.read() == b""
    assert world.direct == []
    assert world.handled == ["/first", "/last"]


async def test_whoever_has_left_asks_for_nothing() -> None:
    def leave(client: Client) -> None:
        client.data_received(request("/direct"))
        transport = client.transport
        client.connection_lost(None)
        assert transport is not None
        transport.set_protocol(asyncio.Protocol())

    world = World(leave)
    async with asked(world):
        await asyncio.sleep(0.05)
    assert world.direct == []
    assert world.handled == ["/first", "/last"]
