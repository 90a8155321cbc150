"""The demo as a new user has it, left alone for three token lifetimes."""

import asyncio
import time
from collections import Counter

import aiohttp
import pytest

from bearerd.daemon import Daemon
from bearerd.demo.world import Demo

pytestmark = pytest.mark.soak

LIFETIMES = 3
CALLS_PER_S = 5


async def test_three_lifetimes_of_a_minute_at_five_calls_a_second() -> None:
    """Every answer is 200, at least three tokens were seen, none of them expired."""
    seen: Counter[int] = Counter()
    fingerprints = set()
    async with Demo.start() as demo, aiohttp.ClientSession() as session:
        daemon = Daemon(demo.configuration(0))
        await daemon.start()
        end = time.monotonic() + LIFETIMES * demo.lifetimes.access_s
        while time.monotonic() < end:
            called = time.monotonic()
            async with session.get(f"{daemon.addresses[0]}/service/hello") as response:
                seen[response.status] += 1
                answer = await response.json()
            assert answer["seconds_left"] > 0
            fingerprints.add(answer["token_fingerprint"])
            await asyncio.sleep(max(0.0, called + 1 / CALLS_PER_S - time.monotonic()))
        await daemon.stop()
    assert set(seen) == {200}
    assert seen[200] >= 0.95 * CALLS_PER_S * LIFETIMES * 60
    assert len(fingerprints) >= 3
