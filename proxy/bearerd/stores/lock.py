"""The refresh lock across processes: a kernel lock on a file beside the vault.

The kernel lets go of it when its holder dies, however it dies. The file itself is never removed: a lock on a file that
another process has replaced would exclude nobody.
"""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from filelock import BaseFileLock, FileLock, Timeout

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
        with ExitStack() as held:
            await self._acquire(path, held)
            yield

    async def _acquire(self, path: Path, held: ExitStack) -> None:
        """Asks again and again without blocking: a waiting thread could not be cancelled."""
        lock = FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False)
        deadline = asyncio.get_running_loop().time() + self._wait_s
        pause_s = _FIRST_POLL_S
        while not _attempt(lock, path, held):
            if asyncio.get_running_loop().time() >= deadline:
                raise RefreshLockTimeout(f"another process has held {path} for {self._wait_s:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_POLL_S, pause_s * 1.5)


def _attempt(lock: BaseFileLock, path: Path, held: ExitStack) -> bool:
    """Whether the lock is held now, by `held`. Raises StoreError where there can be none."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    except (OSError, NotImplementedError) as exc:
        if isinstance(exc, OSError) and exc.errno == errno.EROFS:
            return _attempt_reading(path, held)
        raise _no_locks(path) from None
    held.callback(lock.release)
    return True


def _attempt_reading(path: Path, held: ExitStack) -> bool:
    """The same lock on a file system that has become read-only, where `FileLock` cannot open the file as it wants to.

    Tokens that cannot be saved are refreshed all the same at the last moment: it is then that the lock counts.
    """
    import fcntl  # noqa: PLC0415  # there is none for Windows, nor this error

    try:
        with ExitStack() as opened:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            opened.callback(os.close, file)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.push(opened.pop_all())
    except BlockingIOError:
        return False
    except FileNotFoundError:
        raise StoreError(f"{path} cannot be made: its file system is read-only; mend that") from None
    except OSError:
        raise _no_locks(path) from None
    return True


def _no_locks(path: Path) -> StoreError:
    return StoreError(
        f"{path} cannot be locked: its file system has no locks that hold between processes; name another store.path"
    )
