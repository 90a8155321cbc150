"""The fault server's own tests: what it claims to do to a peer, it does."""

import asyncio
import time
from contextlib import suppress

import pytest

from faults import (
    FaultServer,
    Peer,
    black_hole,
    half_close,
    hang,
    pause,
    read,
    read_head,
    refused_port,
    repeat,
    reply,
    request_size,
    reset,
    send,
    serve,
    slices,
    stall,
    talk,
    until,
)
from patience import settle

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize("request_", [GET, POST, CHUNKED])
async def test_a_request_is_recorded_whole_however_it_is_cut(request_: bytes) -> None:
    assert all(request_size(request_[:size]) is None for size in range(len(request_)))
    assert request_size(request_ + b"GET") == len(request_)
    async with FaultServer([read, send(reply(b"hello"))]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for byte in request_:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert await reader.read() == reply(b"hello")
        writer.close()
        await writer.wait_closed()
    assert server.requests == [request_]
    assert server.connections == 1


async def test_scripts_go_by_connection_and_the_last_one_stays() -> None:
    async with FaultServer([read, send(b"1")], [send(b"2")]) as server:
        assert await talk(server.port, GET) == b"1"
        assert [await talk(server.port, b"") for _ in range(3)] == [b"2"] * 3
        assert server.connections == 4
        assert server.url.endswith(f":{server.port}")


async def test_answers_in_turn_on_one_connection() -> None:
    async with FaultServer([serve(b"a", b"b")]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(GET + POST + CHUNKED)
        assert await reader.readexactly(3) == b"abb"
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(server.peers[0].gone.wait(), 15)
    assert server.requests == [GET, POST, CHUNKED]


async def test_slices_are_apart_in_time() -> None:
    async with FaultServer([slices(b"abcd", 1, 0.02)]) as server:
        started_at = time.monotonic()
        assert await talk(server.port, b"") == b"abcd"
        assert time.monotonic() - started_at >= 0.06


async def test_a_reset_is_a_reset() -> None:
    async with FaultServer([read, send(b"half"), pause(0.05), reset]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(GET)
        assert await reader.readexactly(4) == b"half"
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        with suppress(ConnectionResetError):
            await writer.wait_closed()


async def test_half_closed_it_still_reads() -> None:
    async with FaultServer([half_close, hang]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await reader.read() == b""
        writer.write(GET)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(server.peers[0].gone.wait(), 15)
    assert server.peers[0].received == GET


@pytest.mark.parametrize("step", [read, read_head, serve(b""), hang])
async def test_a_peer_that_leaves_is_noticed(step: object) -> None:
    assert callable(step)
    async with FaultServer([step, send(b"never")]) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(GET[:9])
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(server.peers[0].gone.wait(), 15)
    assert server.requests == []


async def test_steps_wait_and_repeat() -> None:
    event = asyncio.Event()
    async with FaultServer([read_head, until(event), repeat(b"ab", 1000)]) as server:
        task = asyncio.create_task(talk(server.port, GET))
        await settle(0.05)
        assert not task.done()
        event.set()
        assert await task == b"ab" * 1000


async def test_a_script_that_goes_wrong_fails_the_test() -> None:
    async def wrong(peer: Peer) -> None:
        del peer
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        async with FaultServer([wrong]) as server:
            await talk(server.port, b"")


async def test_it_ends_while_scripts_stall_and_leaves_the_port() -> None:
    async with FaultServer([stall]) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await settle(0.02)
    with pytest.raises(ConnectionRefusedError):
        await talk(server.port, b"")
    with pytest.raises(ConnectionRefusedError):
        await talk(refused_port(), b"")
    writer.close()
    await writer.wait_closed()


def test_replies_in_wire_form() -> None:
    assert reply(b"hi", "404 No", "A: b") == b"HTTP/1.1 404 No\r\nA: b\r\nContent-Length: 2\r\n\r\nhi"
    assert reply(b"hi", framing=None) == b"HTTP/1.1 200 OK\r\n\r\nhi"
    assert reply(b"hi", framing="chunked").endswith(b"chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
    assert reply(framing="chunked").endswith(b"chunked\r\n\r\n0\r\n\r\n")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_ports_of_either_family(host: str) -> None:
    async with FaultServer([send(b"1")], host=host) as server:
        reader, writer = await asyncio.open_connection(host, server.port)
        assert await reader.read() == b"1"
        writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, refused_port(host))
    with black_hole(host) as port, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await asyncio.open_connection(host, port)
