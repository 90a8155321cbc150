"""What the tests measure time with."""

import asyncio
import time

import pytest

from patience import TICK_S, settle, soon, within


async def test_what_takes_longer_is_cut_off() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        async with within(0.1):
            await asyncio.Event().wait()
    assert loop.time() - began >= 0.09
    event = asyncio.Event()
    loop.call_later(0.02, event.set)
    await soon(event)


async def test_a_machine_that_stops_for_a_while_takes_no_time() -> None:
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with within(0.1):
        time.sleep(0.2)  # noqa: ASYNC251  # as a process that is kept off the processor
        loop.call_later(0.02, event.set)
        await event.wait()


async def test_what_was_begun_gets_its_turns() -> None:
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    turn()
    began = time.monotonic()
    await settle(5 * TICK_S)
    assert turns >= 5
    assert time.monotonic() - began >= 4 * TICK_S


async def test_nothing_is_left_of_it() -> None:
    async with within(60):
        pass
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
