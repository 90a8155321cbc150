"""What readiness follows from, with stores that fail, hang and come back."""

import asyncio

import pytest

from bearerd.control.health import KEPT_S, Health, Store
from bearerd.core.probes import Check
from bearerd.errors import StoreError
from clocks import FakeClock
from patience import within


class Shelf:
    """A store of which is known how often it was looked at."""

    def __init__(self, problem: str = "") -> None:
        self.problem = problem
        self.looks = 0
        self.free = asyncio.Event()
        self.free.set()

    async def look(self) -> None:
        self.looks += 1
        await self.free.wait()
        if self.problem:
            raise StoreError(self.problem)


def failed(checks: tuple[Check, ...]) -> dict[str, str]:
    return {check.name: check.problem for check in checks if check.problem}


def health_of(shelf: Shelf, clock: FakeClock, *, started: bool = True, shut: bool = False) -> Health:
    return Health(Store(shelf.look, clock, patience_s=0.05), lambda: started, lambda: shut)


async def test_a_store_that_cannot_be_read_until_it_can() -> None:
    clock, shelf = FakeClock(), Shelf("it is gone; bring it back")
    health = health_of(shelf, clock)
    assert failed(await health.ready()) == {"store": "it is gone; bring it back"}
    shelf.problem = ""
    clock.advance(KEPT_S)
    assert failed(await health.ready()) == {}


async def test_a_store_is_not_looked_at_for_every_probe() -> None:
    clock, shelf = FakeClock(), Shelf()
    health = health_of(shelf, clock)
    for _ in range(10):
        await health.ready()
    clock.advance(KEPT_S - 0.1)
    await health.ready()
    assert shelf.looks == 1
    clock.advance(0.1)
    await asyncio.gather(*(health.ready() for _ in range(10)))
    assert shelf.looks == 2


async def test_a_store_that_hangs_holds_nobody_up_and_is_asked_once() -> None:
    clock, shelf = FakeClock(), Shelf()
    shelf.free.clear()
    health = health_of(shelf, clock)
    async with within(10):
        for _ in range(3):
            assert "does not answer" in failed(await health.ready())["store"]
    assert shelf.looks == 1
    shelf.free.set()
    await asyncio.sleep(0)
    async with within(10):
        while failed(await health.ready()):  # noqa: ASYNC110  # there is nothing that would tell
            await asyncio.sleep(0.01)
    assert shelf.looks == 1


async def test_a_look_that_hangs_is_given_up_at_the_end() -> None:
    shelf = Shelf()
    shelf.free.clear()
    health = health_of(shelf, FakeClock())
    await health.ready()
    await health.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    ("started", "shut", "draining", "names"),
    [
        (True, False, False, set()),
        (False, False, False, {"configuration"}),
        (True, True, False, {"audit"}),
        (True, False, True, {"drain"}),
        (False, True, True, {"configuration", "audit", "drain"}),
    ],
)
async def test_readiness(names: set[str], *, started: bool, shut: bool, draining: bool) -> None:
    health = health_of(Shelf(), FakeClock(), started=started, shut=shut)
    health.draining = draining
    assert failed(await health.ready()).keys() == names
    assert failed(health.alive()) == {}
