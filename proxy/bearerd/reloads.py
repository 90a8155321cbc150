"""Reloads, one after the other."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from bearerd.core.reloading import Report


class Reloads:
    """At most one runs at a time, and none is lost: who asks while one runs gets the next one, which sees whatever has
    changed till it begins. `once` does it.
    """

    def __init__(self, once: Callable[[], Coroutine[Any, Any, Report]]) -> None:
        self._once = once
        self._running: asyncio.Task[Report] | None = None
        self._next: asyncio.Task[Report] | None = None

    def ask(self) -> "asyncio.Task[Report]":
        """One that has not begun yet."""
        if self._next is None:
            self._next = asyncio.create_task(self._run(self._running))
        return self._next

    async def aclose(self) -> None:
        """Give up what has not been put in force."""
        tasks = [task for task in (self._running, self._next) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, earlier: "asyncio.Task[Report] | None") -> Report:
        if earlier is not None:
            await asyncio.wait([earlier])
        self._running, self._next = self._next, None
        return await self._once()
