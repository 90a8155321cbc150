import asyncio
from contextlib import suppress

import pytest

from bearerd.forward.spool import Spool, SpoolBudget
from pouring import Sender, Source, send_all


@pytest.fixture
async def source() -> Source:
    return Source()


async def test_a_body_within_the_limits_can_be_read_again(source: Source) -> None:
    budget = SpoolBudget(left=10, per_call=5)
    spool = Spool(source.content, budget)
    source.feed(b"abc", b"de", end=True)
    assert [await send_all(spool) for _ in range(3)] == [b"abcde"] * 3
    seen = [(spool.replayable, budget.left)]
    for _ in range(2):
        spool.release()
        seen.append((spool.replayable, budget.left))
    assert seen == [(True, 5), (False, 10), (False, 10)]


async def test_an_empty_body(source: Source) -> None:
    spool = Spool(source.content, SpoolBudget(left=0, per_call=0))
    source.feed(end=True)
    assert [await send_all(spool) for _ in range(2)] == [b"", b""]
    assert spool.replayable


@pytest.mark.parametrize(("per_call", "left"), [(4, 100), (100, 4), (0, 100), (100, 0)])
async def test_a_body_over_a_limit_passes_and_is_not_kept(source: Source, per_call: int, left: int) -> None:
    budget = SpoolBudget(left=left, per_call=per_call)
    spool = Spool(source.content, budget)
    sent = asyncio.create_task(send_all(spool))
    for part in (b"abc", b"de", b"fgh"):
        await asyncio.sleep(0)
        source.feed(part)
    source.feed(end=True)
    assert await sent == b"abcdefgh"
    assert not spool.replayable
    assert budget.left == left


async def test_all_calls_together_keep_no_more_than_the_budget() -> None:
    budget = SpoolBudget(left=10, per_call=6)
    spools = []
    for _ in range(3):
        source = Source()
        source.feed(b"abcd", end=True)
        spools.append(Spool(source.content, budget))
        assert await send_all(spools[-1]) == b"abcd"
    assert [spool.replayable for spool in spools] == [True, True, False]
    assert budget.left == 2
    for spool in spools:
        spool.release()
    assert budget.left == 10


async def test_a_body_released_while_it_is_read_goes_on(source: Source) -> None:
    budget = SpoolBudget(left=10, per_call=10)
    spool = Spool(source.content, budget)
    sent = asyncio.create_task(send_all(spool))
    source.feed(b"abc")
    await asyncio.sleep(0)
    assert budget.left == 7
    spool.release()
    source.feed(b"de", end=True)
    assert await sent == b"abcde"
    assert budget.left == 10


@pytest.mark.parametrize("read_before", [0, 1, 2, 3])
@pytest.mark.parametrize("where", ["waiting", "held"])
async def test_after_an_iteration_is_cancelled_every_byte_comes_exactly_once(
    source: Source, read_before: int, where: str
) -> None:
    """As the sender does it: cancelled while it waits for the client, or while the upstream holds it back."""
    budget = SpoolBudget(left=100, per_call=100)
    spool = Spool(source.content, budget)
    sender = Sender(read_before if where == "held" else None)
    task = asyncio.create_task(spool.pour(sender.write, sender.drain))
    for number in range(read_before):
        source.feed(b"%d" % number)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert len(sender.parts) == read_before
    assert sender.full.is_set() == (where == "held" and read_before > 0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    source.feed(b"more", end=True)
    body = b"".join(b"%d" % number for number in range(read_before)) + b"more"
    assert [await send_all(spool) for _ in range(2)] == [body] * 2
    assert budget.left == 100 - len(body)


async def test_cancelled_again_and_again(source: Source) -> None:
    spool = Spool(source.content, SpoolBudget(left=1 << 20, per_call=1 << 20))
    body = b""
    for number in range(50):
        task = asyncio.create_task(send_all(spool))
        await asyncio.sleep(0)
        source.feed(b"%d," % number)
        body += b"%d," % number
        for _ in range(number % 4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    source.feed(end=True)
    assert await send_all(spool) == body


async def test_a_client_that_leaves_is_an_exception_in_the_middle(source: Source) -> None:
    budget = SpoolBudget(left=10, per_call=10)
    spool = Spool(source.content, budget)
    sent = asyncio.create_task(send_all(spool))
    source.feed(b"abc")
    await asyncio.sleep(0)
    assert budget.left == 7
    source.fail(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await sent
    spool.release()
    assert budget.left == 10
