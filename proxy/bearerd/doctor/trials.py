"""What can only be known by trying: reading the key, taking locks, writing. Whatever is put there goes again."""

import asyncio
import errno
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from bearerd.core.configuration import Keys, Store
from bearerd.core.vault import Key, parse_key
from bearerd.doctor.findings import Finding, KeyRead, Level, finding_of
from bearerd.doctor.sight import Kind, Seen, Sight, look_at
from bearerd.errors import NoKeyYet, StoreError
from bearerd.privacy import without_own
from bearerd.stores.client_keys import load_needed
from bearerd.stores.keys import find_weakness_of_link, load_key
from bearerd.stores.vault import VaultFolder

LOCK_S: Final = 1.0
_CHILD_S: Final = 3.0  # a program of ours that only starts; without it the name of a keychain is not told
_OPEN: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

HOLD: Final = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_NOFOLLOW), fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""
_BACKEND: Final = "from bearerd.stores.keychain import select_backend; print(select_backend()[0])"


# ---------------------------------------------------------------- clients


def judge_clients(settings: Keys) -> Finding:
    """Whether clients are let in by their keys."""
    try:
        keys = load_needed(settings)
    except StoreError as problem:
        return finding_of(Level.FAIL, "clients", str(problem))
    return Finding(
        Level.OK, "clients", f"a key is {settings.use}, and there are {len(keys)} in {settings.file}"
    )


# ---------------------------------------------------------------- key


def read_key(settings: Store, sight: Sight) -> KeyRead:
    """The key, which is not made where there is none. A file's mode is left as it is, as `load_key` would not."""
    began_at = time.monotonic()
    place = _place(settings)
    try:
        loose = _loose_key(settings)
        key = loose or asyncio.run(load_key(settings, VaultFolder(sight.path), create=False))
    except StoreError as exc:
        return KeyRead(place, time.monotonic() - began_at, None, str(exc), absent=isinstance(exc, NoKeyYet))
    took_s = time.monotonic() - began_at
    return KeyRead(place or f"the keychain ({_backend()})", took_s, key)


def _place(settings: Store) -> str:
    """Empty for the keychain, whose backend is asked for only once it works."""
    return {"secret": "store.key_secret", "file": f"the key file {settings.key_file}"}.get(
        settings.key_source, ""
    )


def look_at_key_file(settings: Store, *, read: bool = False) -> Seen | None:
    """What is wrong with a link, and its cure, is its problem."""
    if settings.key_source != "file":
        return None
    path = Path(settings.key_file)
    seen = look_at(path, read=read)
    if seen is None or seen.kind is not Kind.LINK:
        return seen
    try:
        weakness = find_weakness_of_link(path)
    except OSError as exc:
        return replace(seen, problem=f"cannot be followed: {os.strerror(exc.errno or 0)}; mend it")
    return replace(seen, problem=f"{weakness.found}; {weakness.cure}" if weakness else "")


def _loose_key(settings: Store) -> Key | None:
    """The key of a file whose mode `load_key` would change. None for all others, and where it holds no key."""
    seen = look_at_key_file(settings, read=True)
    if seen is None or seen.kind is not Kind.FILE or not seen.mode & ~0o600:
        return None
    try:
        return parse_key((seen.data or b"").decode("ascii"))
    except ValueError:
        raise StoreError(
            f"the key file {settings.key_file} holds no key, or cannot be read; restore it"
        ) from None


def _backend() -> str:
    with suppress(subprocess.SubprocessError, OSError):
        command = (sys.executable, "-P", "-c", _BACKEND)
        ended = subprocess.run(  # noqa: S603  # our own program
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CHILD_S,
            env=without_own(os.environ),
            check=True,
        )
        return ended.stdout.decode(errors="replace").strip()
    return "its backend is not known"


# ---------------------------------------------------------------- lock


def find_held(paths: Sequence[Path], wait_s: float = LOCK_S) -> list[str]:
    """The names of those locks that another process holds for all of `wait_s`. None is made."""
    deadline = time.monotonic() + wait_s
    while (held := [path for path in paths if not _free(path)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [path.name for path in held]


def _free(path: Path) -> bool:
    """True too for what cannot be opened: that is a matter of permissions."""
    with suppress(OSError):
        file = os.open(path, _OPEN)
        try:
            return _take(file)
        finally:
            os.close(file)
    return True


def _take(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def try_locks(folder: Path, holder: str = HOLD) -> Finding:
    """Whether a lock that another process holds is seen in this one, and goes with that process."""
    cure = "name another store.path, on a file system of this machine"
    try:
        with _scratch(folder) as (path, file):
            with _holding(path, holder):
                excluded = not _take(file)
            freed = excluded and _take(file)
    except OSError as exc:
        reason = os.strerror(exc.errno or 0)
        return Finding(Level.FAIL, "lock", f"locks cannot be tried in {folder}: {reason}", cure)
    if not excluded:
        return Finding(Level.FAIL, "lock", f"two processes can hold one lock in {folder}", cure)
    if not freed:
        return Finding(Level.FAIL, "lock", f"a lock in {folder} outlives the process that held it", cure)
    return Finding(Level.OK, "lock", f"a lock in {folder} excludes other processes")


@contextmanager
def _scratch(folder: Path) -> Iterator[tuple[Path, int]]:
    path = folder / f"doctor-{os.getpid()}.probe"
    file = os.open(path, _OPEN | os.O_CREAT, 0o600)
    try:
        yield path, file
    finally:
        os.close(file)
        path.unlink(missing_ok=True)


@contextmanager
def _holding(path: Path, holder: str) -> Iterator[None]:
    """A process that holds the lock until this ends. Raises OSError where it cannot."""
    command = (sys.executable, "-I", "-S", "-c", holder, str(path))
    with subprocess.Popen(  # noqa: S603  # our own program
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None  # noqa: S101  # it was asked for
        try:
            if process.stdout.readline() != b"held\n":
                raise OSError(errno.ENOLCK, "no lock")
            yield
        finally:
            process.kill()


# ---------------------------------------------------------------- writable


def try_writing(folder: Path) -> Finding:
    """By the probe that precedes a refresh. Only for a folder that is as it should be: others would be mended."""
    try:
        VaultFolder(folder).probe(f"doctor-{os.getpid()}.probe")
    except StoreError as exc:
        return finding_of(Level.FAIL, "writable", str(exc))
    return Finding(Level.OK, "writable", f"{folder} takes files")


def judge_making(folder: Path) -> Finding:
    """Whether a folder that is missing could be made."""
    parent = next(path for path in folder.absolute().parents if os.path.lexists(path))
    effective = os.access in os.supports_effective_ids
    if os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK, effective_ids=effective):  # noqa: PTH112  # raises nothing
        return Finding(Level.OK, "writable", f"{folder} is made when bearerd first needs it")
    cure = f"mend {parent}, or name another folder with store.path"
    return Finding(Level.FAIL, "writable", f"{folder} cannot be made", cure)
