"""The file of the client keys: read again whenever it has changed, and never written but as a whole."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from bearerd.core.client_keys import ClientKey, build_document, parse_document
from bearerd.core.configuration import Keys
from bearerd.errors import StoreError
from bearerd.way import find_weakness, make_folders, own_home

_LIMIT: Final = 256 << 10  # bytes, of about a thousand keys
_Signature = tuple[int, ...]


class ClientKeyFile:
    """The keys of one file, which may be a link, as in a volume of Kubernetes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def load(self) -> tuple[ClientKey, ...]:
        """All keys; none where there is no file. Raises StoreError for a file that somebody else can change, or that is
        not what bearerd has written.
        """
        try:
            text = self._read()
        except FileNotFoundError:
            return ()
        except OSError as exc:
            raise self._unusable(os.strerror(exc.errno or 0)) from None
        try:
            return parse_document(text.decode("utf-8"))
        except UnicodeDecodeError:
            raise self._unusable("it is not UTF-8") from None
        except ValueError as problem:
            raise self._unusable(f"it {problem}") from None

    def change(self, edit: Callable[[tuple[ClientKey, ...]], Sequence[ClientKey]]) -> None:
        """Put what `edit` makes of the keys in their place, while nobody else changes them. Raises StoreError, and what
        `edit` raises; the file is as it was then.
        """
        if self._path.is_symlink():
            raise self._unusable("it is a link, and bearerd changes no file through one")
        try:
            with self._held() as folder:
                self._replace(build_document(edit(self.load())).encode(), folder)
        except OSError as exc:
            raise self._unusable(os.strerror(exc.errno or 0)) from None

    def signature(self) -> _Signature | None:
        """Changes whenever the keys may have; None where nothing is to be read."""
        try:
            found = os.stat(self._path)  # noqa: PTH116  # for each call: a third of what pathlib takes
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _read(self) -> bytes:
        descriptor = os.open(
            self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        )  # a pipe is not waited for
        with os.fdopen(descriptor, "rb") as file:
            self._check(os.fstat(descriptor))
            data = file.read(_LIMIT + 1)
        if len(data) > _LIMIT:
            raise self._unusable(f"it is larger than {_LIMIT >> 10} KiB")
        return data

    def _check(self, found: os.stat_result) -> None:
        """Whoever could write here could let himself in."""
        if weakness := find_weakness(self._path, own_home()):
            raise StoreError(f"{self} cannot be used: {weakness.found}; {weakness.cure}")
        if not stat.S_ISREG(found.st_mode):
            raise self._unusable("it is no plain file")
        if found.st_mode & 0o022:
            raise StoreError(f"{self} cannot be used: other users can write to it; chmod go-w {self}")

    @contextmanager
    def _held(self) -> Iterator[int]:
        """The folder, as no other process changes the keys in it."""
        import fcntl  # noqa: PLC0415  # there is none for Windows

        make_folders(self._path.parent)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(folder)

    def _replace(self, data: bytes, folder: int) -> None:
        name = f"{self._path.name}.next"
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)  # what a process that was killed has left
        file = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
        )
        with os.fdopen(file, "wb") as whole:
            os.fchmod(file, 0o600)  # whatever the umask has taken away
            whole.write(data)
            whole.flush()
            os.fsync(file)
        os.rename(name, self._path.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)

    def _unusable(self, why: str) -> StoreError:
        return StoreError(f"{self} cannot be used: {why}; mend that, or name another keys.file")


class KeyRing:
    """The keys as they are now. Each question looks whether the file has changed, so a revoked key opens nothing more."""

    def __init__(self, file: ClientKeyFile, tell: Callable[[str], None]) -> None:
        """`tell` hears, once for each change, why a file cannot be used; no key is known then."""
        self._file = file
        self._tell = tell
        self._seen: _Signature | None = None
        self._keys: tuple[ClientKey, ...] = ()

    def __call__(self) -> tuple[ClientKey, ...]:
        found = self._file.signature()
        if found != self._seen:
            self._seen = found  # before the file is read: a change in between is seen by the next call
            self._keys = self._load()
        return self._keys

    def _load(self) -> tuple[ClientKey, ...]:
        try:
            return self._file.load()
        except StoreError as problem:
            self._tell(str(problem))
            return ()


def load_needed(settings: Keys) -> tuple[ClientKey, ...]:
    """The keys by which clients are let in; none where none is looked for. Raises StoreError for a file that cannot be used,
    and where a key is required and there is none.
    """
    if settings.use == "off":
        return ()
    keys = ClientKeyFile(Path(settings.file)).load()
    if settings.use == "required" and not keys:
        raise StoreError(
            f"there is no key in {settings.file}, and each call needs one; make one with: bearerd key create NAME"
        )
    return keys
