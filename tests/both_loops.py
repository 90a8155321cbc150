"""For a folder of tests whose subjects live on what event loops promise: each test runs on both, and leaves nothing."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final

import pytest

LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {"asyncio": asyncio.new_event_loop}
try:
    import uvloop
except ImportError:
    """This is `make plain`, or Windows."""
else:
    LOOPS["uvloop"] = uvloop.new_event_loop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both event loops."""
    return LOOPS


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """No test may leave a task behind, nor an exception that nobody took."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    before = asyncio.all_tasks()
    yield
    left: set[asyncio.Task[Any]] = set()
    for _ in range(500):
        left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
        if not left:
            break
        await asyncio.sleep(0.01)
    assert not left
    assert not complaints


@pytest.fixture(autouse=True, scope="module")
def everything_closed() -> Iterator[None]:
    """A transport or socket that was left open says so when it is collected, which is an error in this suite."""
    yield
    gc.collect()
