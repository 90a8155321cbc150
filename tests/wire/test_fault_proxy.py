"""The fault proxy's own tests: what it claims to do to a connection, it does."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from faults import reply
from recorders import Recorder
from relays import Act, Fault, FaultProxy, after, fall_silent, fin, in_pieces, insert, lag, rst, say_no_more

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HI = reply(b"hi")


@asynccontextmanager
async def through(
    *faults: Fault | None,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, FaultProxy, Recorder]]:
    async with Recorder() as upstream, FaultProxy(upstream.port, *faults) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            async with asyncio.timeout(15):
                yield reader, writer, proxy, upstream
        finally:
            writer.transport.abort()


async def test_bytes_pass_both_ways_and_so_do_ends() -> None:
    async with through() as (reader, writer, proxy, upstream):
        for _ in range(2):
            writer.write(GET)
            assert await reader.readexactly(len(HI)) == HI
        writer.write_eof()
        assert await reader.read() == b""
        assert upstream.requests == [GET, GET]
        assert proxy.connections == 1


@pytest.mark.parametrize("at", [0, 1, len(HI) - 1, len(HI)])
async def test_a_reset_after_so_many_bytes(at: int) -> None:
    async with through(Fault(at, rst)) as (reader, writer, proxy, upstream):
        writer.write(GET)
        assert await reader.readexactly(at) == HI[:at]
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert upstream.requests == [GET]
        assert proxy.passages[0].done.is_set()


async def test_a_fault_of_the_second_use() -> None:
    async with through(Fault(len(HI), rst, in_use=True)) as (reader, writer, _, upstream):
        writer.write(GET)
        assert await reader.readexactly(len(HI)) == HI
        await asyncio.sleep(0.1)
        writer.write(GET)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert upstream.requests == [GET, GET]


@pytest.mark.parametrize("act", [fin, say_no_more])
async def test_an_end_after_so_many_bytes(act: Act) -> None:
    async with through(Fault(5, act)) as (reader, writer, _, _):
        writer.write(GET)
        assert await reader.read() == HI[:5]


async def test_half_closed_requests_still_arrive() -> None:
    async with through(Fault(5, say_no_more)) as (reader, writer, _, upstream):
        writer.write(GET)
        assert await reader.read() == HI[:5]
        writer.write(GET + b"the end")
        writer.write_eof()
        await upstream.broken.wait()
        assert upstream.requests == [GET, GET]


async def test_a_fault_of_requests() -> None:
    async with through(Fault(9, rst, up=True)) as (reader, writer, _, upstream):
        writer.write(GET)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert upstream.requests == []
        await upstream.broken.wait()
        assert upstream.fragments == [GET[:9]]


async def test_a_black_hole_tells_nobody() -> None:
    async with through(Fault(5, fall_silent)) as (reader, writer, proxy, upstream):
        writer.write(GET)
        assert await reader.readexactly(5) == HI[:5]
        await proxy.passages[0].done.wait()
        writer.write(GET)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read()
        assert upstream.requests == [GET]


async def test_time_and_bytes_put_in() -> None:
    async with through(Fault(5, lag(0.1)), Fault(5, insert(b"garbage")), Fault(5, after(0.1, fin))) as (
        reader,
        writer,
        proxy,
        _,
    ):
        began = time.monotonic()
        writer.write(GET)
        assert await reader.readexactly(len(HI)) == HI
        assert time.monotonic() - began >= 0.1
        for expected in (HI[:5] + b"garbage" + HI[5:], HI[:5]):
            began = time.monotonic()
            other, to_close = await asyncio.open_connection("127.0.0.1", proxy.port)
            to_close.write(GET)
            assert await other.readexactly(len(expected)) == expected
            to_close.transport.abort()


async def test_pieces() -> None:
    async with through(Fault(1, in_pieces(1))) as (reader, writer, _, _):
        writer.write(GET)
        sizes: list[int] = []
        while sum(sizes) < len(HI):
            sizes.append(len(await reader.read(100)))
        assert len(sizes) > len(HI) // 2
