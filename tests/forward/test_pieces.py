import asyncio
from pathlib import Path

import pytest
from aiohttp.base_protocol import BaseProtocol

from bearerd.core.targets import Tls, Way
from bearerd.forward.pieces import PIECE, read_in_pieces
from callers import connected, pair, running
from certificates import Authority
from faults import hang, read, reply, send, serve
from relays import TlsUpstream

LARGE = bytes(range(256)) * 8192


class Sizes(BaseProtocol):
    """What it received, and in how large pieces."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        self.data = bytearray()
        self.sizes: list[int] = []
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        read_in_pieces(self, transport)

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.sizes.append(len(data))

    def eof_received(self) -> bool:
        self.ended.set()
        return True


async def test_what_comes_is_read_in_pieces() -> None:
    ours: list[Sizes] = []

    def accept() -> Sizes:
        ours.append(Sizes())
        return ours[0]

    server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for data in (b"x", LARGE):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
    await asyncio.wait_for(ours[0].ended.wait(), 15)
    assert ours[0].data == b"x" + LARGE
    assert max(ours[0].sizes) == PIECE
    for transport in (ours[0].transport, writer.transport):
        assert transport is not None
        transport.abort()
    server.close()


async def test_large_bodies_both_ways_on_kept_connections() -> None:
    async with pair([serve(reply(LARGE))]) as (client, server):
        for _ in range(3):
            client.write("PUT / HTTP/1.1", f"Content-Length: {len(LARGE)}", body=LARGE)
            assert (await client.answer()).endswith(b"\r\n\r\n" + LARGE)
        assert server.connections == 1
    assert [request.partition(b"\r\n\r\n")[2] for request in server.requests] == [LARGE] * 3


async def test_a_large_answer_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    way = Way(Tls(str(authority.ca_file)))
    async with (
        TlsUpstream(authority.server("localhost"), reply(LARGE)) as server,
        running(f"https://localhost:{server.port}", way=way) as daemon,
        connected(daemon) as client,
    ):
        for _ in range(2):
            client.write("GET / HTTP/1.1")
            assert (await client.answer()).endswith(b"\r\n\r\n" + LARGE)
        assert server.connections == 1


async def test_an_upstream_that_dies_while_it_is_read_in_pieces() -> None:
    async with pair([read, send(reply(LARGE)[:-1])], [read, hang]) as (client, _):
        client.write("GET / HTTP/1.1")
        await client.head()
        with pytest.raises(ConnectionResetError):
            await client.rest()
