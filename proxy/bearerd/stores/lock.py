"""The refresh lock across processes: a kernel lock on a file beside the vault.

The kernel lets go of it when its holder dies, however it dies. The file itself is never removed: a lock on a file that
another process has replaced would exclude nobody.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from filelock import FileLock, Timeout

from bearerd.errors import RefreshLockTimeout, StoreError
from bearerd.stores.vault import VaultFolder

WAIT_S: Final = 30.0
_FIRST_POLL_S: Final = 0.005
_LONGEST_POLL_S: Final = 0.1


class KernelLock:
    """Excludes every other holder for the same identity, in this process and in others."""

    def __init__(self, folder: VaultFolder, stem: str, *, wait_s: float = WAIT_S) -> None:
        self._folder = folder
        self._stem = stem
        self._wait_s = wait_s

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Raises RefreshLockTimeout after `wait_s`, and StoreError where the file system has no such locks."""
        path = await asyncio.to_thread(self._folder.lock_path, self._stem)
        lock = FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False)
        await self._acquire(lock)
        try:
            yield
        finally:
            lock.release()

    async def _acquire(self, lock: FileLock) -> None:
        """Asks again and again without blocking: a waiting thread could not be cancelled."""
        deadline = asyncio.get_running_loop().time() + self._wait_s
        pause_s = _FIRST_POLL_S
        while True:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                pass
            except (OSError, NotImplementedError):
                reason = "its file system has no locks that hold between processes"
                raise StoreError(
                    f"{lock.lock_file} cannot be locked: {reason}; name another store.path"
                ) from None
            else:
                return
            if asyncio.get_running_loop().time() >= deadline:
                raise RefreshLockTimeout(f"another process has held {lock.lock_file} for {self._wait_s:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_POLL_S, pause_s * 1.5)
