"""The vault: one sealed file per account, in a folder of our own.

Whatever the umask, the folder is 0700 and each file 0600, and both are ours: links and other users' files are refused.
So is a folder that another user could rename: two processes would then lock two folders, and both spend one token.
A save is durable before it is visible: ``NAME.next`` is written and synced, renamed over ``NAME.vault``, and the folder
synced. A loader takes an authentic ``NAME.next`` of higher generation for what it is: a save that was interrupted
after its last byte.
"""

import asyncio
import errno
import os
import secrets
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from bearerd import failpoints
from bearerd.core.failures import FailureNote, encode_note, parse_note
from bearerd.core.tokens import TokenSet, Tombstone
from bearerd.core.vault import NONCE_BYTES, SIZE_LIMIT, Identity, Key, OtherKey, VaultError, seal, unseal
from bearerd.errors import StoreError, StoreUnwritable
from bearerd.way import find_weakness, make_folders, own_home

_OPEN: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_SEALED: Final = (".vault", ".next")
_ENDINGS: Final = (*_SEALED, ".lock", ".failure", ".noting", ".probe")
_PROBE_BYTES: Final = 16 << 10  # more than a sealed pair of tokens takes
_UNWRITABLE: Final = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EIO: "the disk fails",
    errno.EROFS: "mount it for writing",
}


class VaultFolder:
    """The folder's files, by names without a slash. Every call is on an open descriptor of the folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def read(self, name: str) -> bytes | None:
        """A file's bytes, or None where there is none. Raises StoreError."""
        with self._opened() as folder:
            try:
                with _owned_file(name, os.O_RDONLY, folder) as file:
                    return os.read(file, SIZE_LIMIT)
            except FileNotFoundError:
                return None
            except OSError as exc:
                raise self._unusable(name, exc) from None

    def sealed_names(self) -> list[str]:
        """The files that a key has sealed, interrupted saves included. Makes no folder. Raises StoreError."""
        try:
            return sorted(name for name in os.listdir(self._path) if name.endswith(_SEALED))  # noqa: PTH208  # names are all that is wanted
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise self._unusable("", exc) from None

    def signature(self, name: str) -> tuple[int, ...] | None:
        """What changes with a file's content; None where there is no file to be seen."""
        try:
            found = (self._path / name).lstat()
        except OSError:
            return None
        return (found.st_ino, found.st_size, found.st_mtime_ns)

    def lock_path(self, stem: str) -> Path:
        """Where the lock of `stem` is. Raises StoreError where folder or lock are not ours to use."""
        name = f"{stem}.lock"
        with self._opened() as folder:
            try:
                with _owned_file(name, os.O_RDONLY, folder):
                    """Another user's could be held by them for ever."""
            except FileNotFoundError:
                pass
            except OSError as exc:
                raise self._unusable(name, exc) from None
            return self._path / name

    def replace(self, name: str, data: bytes, *, by_way_of: str) -> None:
        """Put `data` in place of a file's content, all or nothing. Raises StoreUnwritable, StoreError."""
        with self._opened() as folder, self._writing(name):
            _write(by_way_of, data, folder, reaching=name)
            failpoints.reach("before_rename", name)
            os.rename(by_way_of, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def probe(self, name: str) -> None:
        """See that a file of ordinary size can be written. Raises StoreUnwritable, StoreError."""
        with self._opened() as folder, self._writing(name):
            try:
                _write(name, bytes(_PROBE_BYTES), folder, reaching=name)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)

    def set_aside(self, name: str) -> str:
        """Rename a file so that it is in nobody's way and nothing of it is lost. Its new name."""
        with self._opened() as folder, self._writing(name):
            taken = set(os.listdir(folder))  # noqa: PTH208  # pathlib cannot list a descriptor
            aside = next(new for n in range(1, 10_000) if (new := f"{name}.damaged-{n}") not in taken)
            os.rename(name, aside, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
            return aside

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The folder itself, made if it is missing. Raises StoreError where it is not ours to use."""
        try:
            self._check_way()
            if make_folders(self._path):
                self._check_way()  # another user may have been faster
            folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as exc:
            raise self._unusable("", exc) from None
        try:
            found = os.fstat(folder)
            if found.st_uid != os.geteuid():
                raise StoreError(f"{self._path} belongs to another user; name another folder with store.path")
            if stat.S_IMODE(found.st_mode) != 0o700:
                self._claim(folder)
            yield folder
        finally:
            os.close(folder)

    def _check_way(self) -> None:
        if weakness := find_weakness(self._path.parent, own_home()):
            raise StoreError(
                f"{self._path} could be exchanged for another folder: {weakness.found}; "
                f"{weakness.cure}, or name another store.path"
            )

    def _claim(self, folder: int) -> None:
        """Close a folder to others, unless it is plainly not a vault's: a home, a shared one."""
        names = os.listdir(folder)  # pathlib cannot list a descriptor
        if not all(name.endswith(_ENDINGS) or ".damaged-" in name for name in names):
            raise StoreError(f"{self._path} holds other files; name a folder of its own with store.path")
        os.fchmod(folder, 0o700)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            if exc.errno in _UNWRITABLE:
                reason = f"{os.strerror(exc.errno)}; {_UNWRITABLE[exc.errno]}"
                raise StoreUnwritable(f"{self._path} cannot be written to: {reason}") from None
            raise self._unusable(name, exc) from None

    def _unusable(self, name: str, exc: OSError) -> StoreError:
        reason = "is a link" if exc.errno == errno.ELOOP else os.strerror(exc.errno or 0)
        return StoreError(
            f"{self._path / name} cannot be used: {reason}; mend that or name another store.path"
        )


@contextmanager
def _owned_file(name: str, flags: int, folder: int) -> Iterator[int]:
    """A regular file of ours, 0600. Anything else of that name is refused."""
    file = os.open(name, flags | _OPEN, 0o600, dir_fd=folder)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
            raise PermissionError(errno.EPERM, "not a file of ours")
        if stat.S_IMODE(found.st_mode) != 0o600:
            os.fchmod(file, 0o600)
        yield file
    finally:
        os.close(file)


def _write(name: str, data: bytes, folder: int, *, reaching: str) -> None:
    """`reaching` is the name that the file will have in the end."""
    with _owned_file(name, os.O_WRONLY | os.O_CREAT, folder) as file:
        os.ftruncate(file, 0)  # after the check that it is ours
        middle = len(data) // 2
        _write_all(file, data[:middle])
        failpoints.reach("mid_write", reaching)
        _write_all(file, data[middle:])
        os.fsync(file)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


class VaultStore:
    """One account's tokens in a vault folder. Saves and what leads to them happen under the refresh lock."""

    def __init__(self, folder: VaultFolder, identity: Identity, key: Callable[[], Awaitable[Key]]) -> None:
        self._folder = folder
        self._identity = identity
        self._key = key
        self._vault = f"{identity.stem}.vault"
        self._next = f"{identity.stem}.next"
        self._note = f"{identity.stem}.failure"
        self._seen: tuple[int, ...] | None = None

    async def load(self) -> TokenSet | Tombstone | None:
        """The record of the highest generation. Raises StoreError; nothing is changed by it."""
        return await asyncio.to_thread(self._load, await self._key())

    async def save(self, record: TokenSet | Tombstone) -> None:
        """Raises StoreUnwritable where there is no room, and StoreError."""
        await asyncio.to_thread(self._save, record, await self._key())

    async def check_writable(self) -> None:
        """Raises as `save` would."""
        await asyncio.to_thread(self._folder.probe, f"{self._identity.stem}.probe")

    def changed(self) -> bool:
        return self._folder.signature(self._vault) != self._seen

    async def load_note(self) -> FailureNote | None:
        with suppress(StoreError):
            return parse_note(await asyncio.to_thread(self._folder.read, self._note))
        return None

    async def save_note(self, note: FailureNote) -> None:
        with suppress(StoreError):
            await asyncio.to_thread(
                self._folder.replace, self._note, encode_note(note), by_way_of=f"{self._identity.stem}.noting"
            )

    def _load(self, key: Key) -> TokenSet | Tombstone | None:
        self._seen = self._folder.signature(
            self._vault
        )  # before the bytes: a change in between is seen later
        waiting = self._waiting(key)
        data = self._folder.read(self._vault)
        if data is None:
            return waiting
        try:
            record = unseal(data, self._identity, key)
        except OtherKey:
            raise StoreError(self._sealed_otherwise()) from None
        except VaultError as problem:
            if waiting is not None:
                return waiting
            raise StoreError(
                f"{self._folder}/{self._vault} {problem}; restore it, or log in again, which sets it aside"
            ) from None
        return waiting if waiting is not None and waiting.generation > record.generation else record

    def _waiting(self, key: Key) -> TokenSet | Tombstone | None:
        """An interrupted save, if all of it had been written."""
        data = self._folder.read(self._next)
        try:
            return unseal(data, self._identity, key) if data else None
        except VaultError:
            return None

    def _save(self, record: TokenSet | Tombstone, key: Key) -> None:
        for name in (self._vault, self._next):
            self._make_way(name, key)
        sealed = seal(record, self._identity, key, secrets.token_bytes(NONCE_BYTES))
        self._folder.replace(self._vault, sealed, by_way_of=self._next)
        self._seen = self._folder.signature(self._vault)

    def _make_way(self, name: str, key: Key) -> None:
        """Never write over what another key can open; set aside a vault that nothing can open."""
        data = self._folder.read(name)
        try:
            if data is not None:
                unseal(data, self._identity, key)
        except OtherKey:
            raise StoreError(self._sealed_otherwise()) from None
        except VaultError:
            if name == self._vault:
                self._folder.set_aside(name)

    def _sealed_otherwise(self) -> str:
        return (
            f"{self._folder}/{self._vault} was sealed with another key; give that key back, "
            "or move the file away and log in again"
        )
