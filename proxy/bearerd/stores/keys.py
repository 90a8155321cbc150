"""Where the vault's data key comes from: the user's keychain, a file, or the configuration.

A key is made only where nothing can have been sealed with an earlier one, and only by one process at a time. It counts
once it has been read back.
"""

import asyncio
import errno
import json
import os
import secrets
import signal
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, cast

from bearerd.core.configuration import Store
from bearerd.core.redaction import Secret
from bearerd.core.vault import KEY_BYTES, Key, build_key, encode_key, parse_key
from bearerd.errors import DamagedKey, NoKeyYet, StoreError
from bearerd.privacy import without_own
from bearerd.stores.lock import KernelLock
from bearerd.stores.vault import VaultFolder
from bearerd.way import Weakness, find_weakness, make_folders, own_home

SERVICE: Final = "bearerd"
KEYCHAIN_S: Final = 5.0  # a person at a prompt may need longer, and starts bearerd again
WAYS_OUT: Final = (
    'set store.key_source = "file" with store.key_file, or "secret" with store.key_secret, '
    'or store.kind = "memory"'
)
_PROGRAM: Final = (sys.executable, "-P", "-m", "bearerd.stores.keychain")  # -P: not from the current folder
_REST_S: Final = 0.5  # for the program to end by itself once it has answered
_ANSWER_LIMIT: Final = 64 << 10
_FILE_LIMIT: Final = 1 << 10
_INSTEAD: Final = "name another store.key_file, or give the key as store.key_secret_file"
_OPEN: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


async def load_key(settings: Store, folder: VaultFolder, *, create: bool) -> Key:
    """The key of the vault in `folder`. Where there is none, one is made if `create`. Raises NoKeyYet, StoreError."""
    if settings.key_source == "secret":
        return _configured(settings.key_secret)
    place = find_place(settings, folder)
    try:
        key = await _find(place, folder)
    except DamagedKey:
        if not create:
            raise
        key = None  # it may be whole once who makes it has let go of the lock
    if key is None and create:
        async with KernelLock(folder, "key").hold():
            key = await _find(place, folder) or await make_key(place)
    if key is None:
        raise NoKeyYet(f"{place} holds no vault key yet; one is made when bearerd first saves a token")
    return key


def _configured(secret: Secret | None) -> Key:
    if not secret:
        raise StoreError("store.key_secret is not set; make one with: openssl rand -base64 32")
    try:
        return parse_key(secret.reveal())
    except ValueError as problem:
        raise StoreError(f"store.key_secret {problem}") from None


class KeyPlace(Protocol):
    """Where a key is kept. Its text names it to the user."""

    async def read(self) -> Key | None:
        """None where there is no key. Raises StoreError where that cannot be known, or it is damaged."""

    async def write(self, key: Key) -> None:
        """Raises StoreError. Called with the lock held, and only after `read` has given None."""


def find_place(settings: Store, folder: VaultFolder) -> KeyPlace:
    """Where the key of `folder` is kept, unless it is given as a secret. Raises StoreError."""
    if settings.key_source != "file":
        return Keychain(folder)
    if not settings.key_file:
        raise StoreError("store.key_file is not set; name the file that holds the key")
    return KeyFile(Path(settings.key_file))


async def _find(place: KeyPlace, folder: VaultFolder) -> Key | None:
    """The files are looked for first: a key is there before anything is sealed with it."""
    sealed = await asyncio.to_thread(folder.sealed_names)
    key = await place.read()
    if key is None and sealed:
        raise StoreError(
            f"{place} holds no vault key, and {folder}/{sealed[0]} was sealed with one; give that key back, "
            f"or move the files out of {folder} and log in again"
        )
    return key


async def make_key(place: KeyPlace) -> Key:
    """A new key, which is there to be read again. With the lock of the key held. Raises StoreError."""
    key = build_key(secrets.token_bytes(KEY_BYTES))
    await place.write(key)
    if await place.read() != key:
        raise StoreError(f"{place} did not give back the key it was given; {WAYS_OUT}")
    return key


class KeyFile:
    """A file of ours, 0600, with the key in base64. It is never written over.

    It may be a link, as in a volume of Kubernetes, to what somebody else has put there: nothing is made or mended then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return f"the key file {self._path}"

    async def read(self) -> Key | None:
        return await asyncio.to_thread(self._read)

    async def write(self, key: Key) -> None:
        await asyncio.to_thread(self._write, key)

    def _read(self) -> Key | None:
        try:
            return parse_key(self._content().decode("ascii"))
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise self._unusable(exc) from None
        except ValueError:
            raise DamagedKey(
                f"{self} is damaged: it is no base64 of exactly {KEY_BYTES} bytes; restore it, "
                "or remove it if nothing was sealed with it"
            ) from None

    def _content(self) -> bytes:
        if not self._path.is_symlink():
            return self._own_content()
        if weakness := find_weakness_of_link(self._path):
            raise StoreError(
                f"{self} cannot be used: it is a link, and {weakness.found}; {weakness.cure}, {_INSTEAD}"
            )
        with self._path.open("rb") as file:  # nobody but us and root can have changed where it leads
            return file.read(_FILE_LIMIT)

    def _own_content(self) -> bytes:
        file = os.open(self._path, os.O_RDONLY | _OPEN)
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
                raise PermissionError(errno.EPERM, "not a file of ours")
            if stat.S_IMODE(found.st_mode) & ~0o600:
                os.fchmod(file, 0o600)
            return os.read(file, _FILE_LIMIT)
        finally:
            os.close(file)

    def _write(self, key: Key) -> None:
        try:
            make_folders(self._path.parent)
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600)
        except OSError as exc:
            raise self._unusable(exc) from None
        try:
            _fill(file, f"{encode_key(key)}\n".encode())
            _sync_folder(self._path.parent)
        except OSError as exc:
            self._path.unlink()  # it is ours, and no key yet
            raise self._unusable(exc) from None
        finally:
            os.close(file)

    def _unusable(self, exc: OSError) -> StoreError:
        reasons = {errno.ELOOP: "it is a link", errno.EPERM: "it is not a plain file of this user alone"}
        reason = reasons.get(exc.errno or 0) or os.strerror(exc.errno or 0)
        return StoreError(f"{self} cannot be used: {reason}; mend that, {_INSTEAD}")


def find_weakness_of_link(path: Path) -> Weakness | None:
    """What is wrong with a key file that is a link. Raises OSError.

    Where nothing is, other users can neither change where it leads nor read what is there. A group may, if root says
    so: it is how Kubernetes lets anybody but root read a secret.
    """
    if weakness := find_weakness(path, own_home()):
        return weakness
    try:
        found = path.stat()
    except FileNotFoundError:
        return Weakness("leads to nothing", "mend it")
    if not stat.S_ISREG(found.st_mode):
        return Weakness("leads to no plain file", "mend it")
    if found.st_mode & (0o037 if found.st_uid == 0 else 0o077):
        text = f"what it leads to has mode {stat.S_IMODE(found.st_mode):04o}"
        return Weakness(text, "chmod 600 that, in Kubernetes by defaultMode: 0440")
    return None


def _fill(file: int, data: bytes) -> None:
    os.fchmod(file, 0o600)  # whatever the umask has taken away
    if os.write(file, data) != len(data):
        raise OSError(errno.ENOSPC, "no room")
    os.fsync(file)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Keychain:
    """One item of the user's keychain, asked for by a program that is ended after `limit_s`.

    The item is named for the folder: a keychain is one for the user, and a lock one for the folder, so folders that
    shared an item could each make a key at their first start, and one of the two would be lost.
    """

    def __init__(self, folder: VaultFolder, *, limit_s: float = KEYCHAIN_S) -> None:
        path = os.fsencode(Path(str(folder)).resolve())
        self._user = f"vault-key of {path.decode(errors='backslashreplace')}"
        self._limit_s = limit_s

    def __str__(self) -> str:
        return f'the keychain (service "{SERVICE}", user "{self._user}")'

    async def read(self) -> Key | None:
        value = await self._ask("get")
        try:
            return None if value is None else parse_key(value)
        except ValueError:
            raise StoreError(
                f"{self} holds something that is no key; restore it, or delete it if nothing was sealed with it"
            ) from None

    async def write(self, key: Key) -> None:
        await self._ask("set", value=encode_key(key))

    async def _ask(self, action: str, **value: str) -> str | None:
        request = json.dumps({"service": SERVICE, "user": self._user, **value}).encode() + b"\n"
        transport, run = await asyncio.get_running_loop().subprocess_exec(
            _Run,
            *_PROGRAM,
            action,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            env=without_own(os.environ),
        )
        try:
            async with asyncio.timeout(self._limit_s):
                await run.ask(transport, request)
        except TimeoutError:
            raise StoreError(
                f"the keychain did not answer within {self._limit_s:g} s; unlock it, or answer its prompt, "
                f"and start again, or {WAYS_OUT}"
            ) from None
        finally:
            await _end(transport, run)
        return _value(bytes(run.output))


class _Run(asyncio.SubprocessProtocol):
    """One run. `answered` with the line of the answer, or once there can be none."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.output = bytearray()
        self.answered: asyncio.Future[None] = loop.create_future()
        self.exited: asyncio.Future[None] = loop.create_future()

    async def ask(self, transport: asyncio.SubprocessTransport, request: bytes) -> None:
        """The input stays open: its end would end the program."""
        pipe = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))
        if not pipe.is_closing():  # a program that has ended already; uvloop raises RuntimeError for it
            pipe.write(request)
        await self.answered

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        del fd
        self.output += data
        if data.endswith(b"\n") or len(self.output) > _ANSWER_LIMIT:
            _settle(self.answered)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        del exc
        if fd == 1:
            _settle(self.answered)

    def process_exited(self) -> None:
        _settle(self.exited)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _end(transport: asyncio.SubprocessTransport, run: _Run) -> None:
    """Kill the program and what it has started, unless it has answered and ends by itself; reap it."""
    try:
        if run.answered.done() and not run.answered.cancelled():
            await asyncio.wait([run.exited], timeout=_REST_S)
        if not run.exited.done():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(transport.get_pid(), signal.SIGKILL)
        await run.exited
    finally:
        transport.close()


def _value(output: bytes) -> str | None:
    """What the program's answer says. Raises StoreError where that is a problem."""
    try:
        answer = json.loads(output)
    except ValueError:
        answer = None
    match answer:
        case {"value": None | str() as value}:
            return value
        case {"problem": "none", "found": [*found]}:
            problem = (
                f"no usable keychain here (found: {', '.join(found) or 'nothing'}); start one and try again"
            )
        case {"problem": "locked", "backend": backend}:
            reason = "is locked, or was never set up, and nobody answered its prompt"
            problem = f"the keychain ({backend}) {reason}; unlock it and start again"
        case {"problem": "failed", "backend": backend, "error": error}:
            problem = f"the keychain ({backend}) failed: {error}; mend that"
        case _:
            problem = "the keychain could not be asked: keyring does not work here; install it again"
    raise StoreError(f"{problem}; or {WAYS_OUT}")
