"""A store that lasts as long as the process. Enough for grants that need no login."""

import asyncio
from contextlib import AbstractAsyncContextManager

from bearerd.core.failures import FailureNote
from bearerd.core.tokens import TokenSet, Tombstone


class MemoryStore:
    """One account's tokens in this process."""

    def __init__(self) -> None:
        self._record: TokenSet | Tombstone | None = None
        self._note: FailureNote | None = None

    async def load(self) -> TokenSet | Tombstone | None:
        return self._record

    async def save(self, record: TokenSet | Tombstone) -> None:
        self._record = record

    async def check_writable(self) -> None:
        """Memory can always be written."""

    def changed(self) -> bool:
        return False

    async def load_note(self) -> FailureNote | None:
        return self._note

    async def save_note(self, note: FailureNote) -> None:
        self._note = note


class MemoryLock:
    """Excludes the refreshes of one process from each other."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    def hold(self) -> AbstractAsyncContextManager[None]:
        return self._lock
