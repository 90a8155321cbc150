"""Whether this process lives, and whether calls should be sent to it. An account that is logged out is no reason against that."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from bearerd.core.probes import Check
from bearerd.errors import StoreError
from bearerd.ports import Clock

KEPT_S: Final = 5.0  # a look at the store is as good as a new one
PATIENCE_S: Final = 1.0  # for the store: whoever asks does not wait for long either
_ENDING: Final = "bearerd is ending: calls under way finish, and new ones belong elsewhere"
_SHUT: Final = "the audit log cannot be written, and log.audit_required wants it; the log says why"
_STARTING: Final = "the accounts have not all been read from their store yet"

Look = Callable[[], Awaitable[None]]
"""Raises StoreError where the store cannot be used."""


class Store:
    """Looks at the store, one look at a time, and keeps what it saw. A disk that hangs holds nobody up."""

    def __init__(self, look: Look, clock: Clock, *, patience_s: float = PATIENCE_S) -> None:
        """`patience_s` is how long a look may take before it counts as a failure, until it ends."""
        self._look = look
        self._clock = clock
        self._patience_s = patience_s
        self._looking: asyncio.Task[str] | None = None
        self._problem = ""
        self._seen_at = float("-inf")

    async def problem(self) -> str:
        """What is wrong with it, or nothing."""
        if self._looking is None:
            if self._clock.steady() - self._seen_at < KEPT_S:
                return self._problem
            self._looking = asyncio.create_task(self._see())
        done, _ = await asyncio.wait([self._looking], timeout=self._patience_s)
        if not done:
            return "the disk that the vault is on does not answer"
        return self._problem

    async def _see(self) -> str:
        try:
            await self._look()
        except StoreError as problem:
            self._problem = str(problem)
        else:
            self._problem = ""
        self._seen_at = self._clock.steady()
        self._looking = None
        return self._problem

    async def aclose(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)


class Health:
    """What probes ask about. Set `draining` when no new calls are wanted; nothing sets it back.

    `started` says whether all accounts have been read, `shut` whether no call is made because it could not be told of.
    """

    def __init__(self, store: Store, started: Callable[[], bool], shut: Callable[[], bool]) -> None:
        self._store = store
        self._started = started
        self._shut = shut
        self.draining = False

    def alive(self) -> tuple[Check, ...]:
        """That this is asked and answered is all there is to see."""
        return (Check("loop"),)

    async def ready(self) -> tuple[Check, ...]:
        store = await self._store.problem()
        return (
            Check("configuration", "" if self._started() else _STARTING),
            Check("store", store),
            Check("audit", _SHUT if self._shut() else ""),
            Check("drain", _ENDING if self.draining else ""),
        )

    async def aclose(self) -> None:
        await self._store.aclose()
