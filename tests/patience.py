"""Time as the event loop under test has had it: what a machine takes away with other work is nobody's delay.

A process that others keep off the processor for a second finds all its timers due at once, and has done nothing in that second.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

TICK_S: Final = 0.01
TURNS: Final = 5


@asynccontextmanager
async def within(limit_s: float) -> AsyncIterator[None]:
    """As `asyncio.timeout`, but the loop must have had its turn in each hundredth of a second that counts.

    What is done within is to be done on this loop: another process is not waited for by it. Raises TimeoutError.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:

        async def count() -> None:
            await settle(limit_s)
            limit.reschedule(loop.time())

        counting = asyncio.create_task(count())
        try:
            yield
        finally:
            counting.cancel()


async def settle(seconds: float) -> None:
    """Time for what has been begun on this loop to come as far as it can: many turns, and no less than so long."""
    for _ in range(max(1, round(seconds / TICK_S))):
        await asyncio.sleep(TICK_S)
        for _ in range(TURNS):
            await asyncio.sleep(0)


async def soon(event: asyncio.Event) -> None:
    """Within a second: what is promised where a client or an upstream leaves."""
    async with within(1):
        await event.wait()
