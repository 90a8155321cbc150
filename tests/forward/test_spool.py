import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from bearerd.forward.spool import Spool, SpoolBudget


class Protocol(BaseProtocol):
    """As much of a connection as a stream reader asks for."""

    @property
    def connected(self) -> bool:
        return True


@pytest.fixture
async def content() -> StreamReader:
    loop = asyncio.get_running_loop()
    return StreamReader(Protocol(loop), 1 << 20, loop=loop)


async def read_all(spool: Spool) -> bytes:
    return b"".join([chunk async for chunk in spool.chunks()])


def feed(content: StreamReader, *chunks: bytes) -> None:
    for chunk in chunks:
        content.feed_data(chunk)
    content.feed_eof()


async def test_a_body_within_the_limits_can_be_read_again(content: StreamReader) -> None:
    budget = SpoolBudget(left=10, per_call=5)
    spool = Spool(content, budget)
    feed(content, b"abc", b"de")
    assert [await read_all(spool) for _ in range(3)] == [b"abcde"] * 3
    seen = [(spool.replayable, budget.left)]
    for _ in range(2):
        spool.release()
        seen.append((spool.replayable, budget.left))
    assert seen == [(True, 5), (False, 10), (False, 10)]


async def test_an_empty_body(content: StreamReader) -> None:
    spool = Spool(content, SpoolBudget(left=0, per_call=0))
    feed(content)
    assert [await read_all(spool) for _ in range(2)] == [b"", b""]
    assert spool.replayable


@pytest.mark.parametrize(("per_call", "left"), [(4, 100), (100, 4), (0, 100), (100, 0)])
async def test_a_body_over_a_limit_passes_and_is_not_kept(
    content: StreamReader, per_call: int, left: int
) -> None:
    budget = SpoolBudget(left=left, per_call=per_call)
    spool = Spool(content, budget)
    got = b""
    async with aclosing(spool.chunks()) as chunks:  # type: ignore[type-var]  # an async generator, declared as less
        for chunk in (b"abc", b"de", b"fgh"):
            content.feed_data(chunk)
            got += await anext(chunks)
    assert got == b"abcdefgh"
    assert not spool.replayable
    assert budget.left == left


async def test_all_calls_together_keep_no_more_than_the_budget() -> None:
    loop = asyncio.get_running_loop()
    budget = SpoolBudget(left=10, per_call=6)
    spools = []
    for _ in range(3):
        content = StreamReader(Protocol(loop), 1 << 20, loop=loop)
        feed(content, b"abcd")
        spools.append(Spool(content, budget))
        assert await read_all(spools[-1]) == b"abcd"
    assert [spool.replayable for spool in spools] == [True, True, False]
    assert budget.left == 2
    for spool in spools:
        spool.release()
    assert budget.left == 10


async def test_a_body_released_while_it_is_read_goes_on(content: StreamReader) -> None:
    budget = SpoolBudget(left=10, per_call=10)
    spool = Spool(content, budget)
    chunks = spool.chunks()
    content.feed_data(b"abc")
    assert await anext(chunks) == b"abc"
    spool.release()
    feed(content, b"de")
    assert [chunk async for chunk in chunks] == [b"de"]
    assert budget.left == 10


@pytest.mark.parametrize("read_before", [0, 1, 2, 3])
@pytest.mark.parametrize("where", ["waiting", "held"])
async def test_after_an_iteration_is_cancelled_every_byte_comes_exactly_once(
    content: StreamReader, read_before: int, where: str
) -> None:
    """As the sender does it: cancelled while it waits for the client, or while the upstream holds it back."""
    budget = SpoolBudget(left=100, per_call=100)
    spool = Spool(content, budget)
    seen: list[bytes] = []
    held = asyncio.Event()

    async def send(chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            seen.append(chunk)
            if where == "held" and len(seen) == read_before:
                held.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(send(spool.chunks()))
    for number in range(read_before):
        content.feed_data(b"%d" % number)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    content.feed_data(b"more")
    content.feed_eof()
    body = b"".join(b"%d" % number for number in range(read_before)) + b"more"
    assert [await read_all(spool) for _ in range(2)] == [body] * 2
    assert budget.left == 100 - len(body)


async def test_cancelled_again_and_again(content: StreamReader) -> None:
    spool = Spool(content, SpoolBudget(left=1 << 20, per_call=1 << 20))
    body = b""
    for number in range(50):
        task = asyncio.create_task(read_all(spool))
        await asyncio.sleep(0)
        content.feed_data(b"%d," % number)
        body += b"%d," % number
        for _ in range(number % 4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    content.feed_eof()
    assert await read_all(spool) == body


async def test_a_client_that_leaves_is_an_exception_in_the_middle(content: StreamReader) -> None:
    budget = SpoolBudget(left=10, per_call=10)
    spool = Spool(content, budget)
    content.feed_data(b"abc")
    chunks = spool.chunks()
    assert await anext(chunks) == b"abc"
    content.set_exception(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await anext(chunks)
    spool.release()
    assert budget.left == 10
