"""A store that lasts as long as the process. Enough for grants that need no login."""

import asyncio
from contextlib import AbstractAsyncContextManager

from bearerd.core.tokens import TokenSet


class MemoryStore:
    """One account's tokens in this process."""

    def __init__(self) -> None:
        self._token: TokenSet | None = None

    async def load(self) -> TokenSet | None:
        return self._token

    async def save(self, token: TokenSet) -> None:
        self._token = token


class MemoryLock:
    """Excludes the refreshes of one process from each other."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    def hold(self) -> AbstractAsyncContextManager[None]:
        return self._lock
