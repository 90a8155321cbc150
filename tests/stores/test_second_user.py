"""Another user of the same machine, who may try anything, in a folder that everybody may write to.

Only root can become somebody else. Where the tests run as an ordinary user, the modes are checked, which are all that
keeps others out; the attempts themselves are made by root, as in CI.
"""

import asyncio
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bearerd.core.configuration import Store
from bearerd.core.failures import build_note
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.vault import Identity, Key, seal
from bearerd.errors import RefreshLockTimeout, StoreError
from bearerd.stores.keys import load_key
from bearerd.stores.lock import KernelLock
from bearerd.stores.vault import VaultFolder, VaultStore
from contract import FIRST, SECOND
from users import NOBODY, shared_folder

WORK = Identity("work", "0123456789abcdef")
ENDINGS = (".vault", ".next", ".lock", ".failure", ".noting", ".probe")
ATTEMPTS = {
    "read": 'cat "$1"',
    "write": 'echo mine >> "$1"',
    "empty": ': > "$1"',
    "delete": 'rm -f "$1"',
    "move away": 'mv -f "$1" "$2/taken"',
    "replace": 'echo mine > "$2/mine"; mv -f "$2/mine" "$1"',
    "link": 'ln "$1" "$2/linked"',
    "open to all": 'chmod 666 "$1"',
    "lock": 'exec 9<"$1" && flock -n 9',
}
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; run by CI")


@pytest.fixture
def shared() -> Iterator[Path]:
    with shared_folder() as path:
        yield path


class Vault:
    """A vault, its key file beside it."""

    def __init__(self, parent: Path) -> None:
        self.path = parent / "vault"
        self.key_file = parent / "vault.key"
        self._settings = Store(key_source="file", key_file=str(self.key_file))
        self.folder = VaultFolder(self.path)
        self.store = VaultStore(self.folder, WORK, self.key)
        self.lock = KernelLock(self.folder, WORK.stem, wait_s=0.2)

    async def key(self) -> Key:
        return await load_key(self._settings, self.folder, create=True)

    async def fill(self) -> None:
        """Every file there ever is."""
        async with self.lock.hold():
            await self.store.save(FIRST)
            failure = Failure(FailureKind.TRANSIENT, "down")
            await self.store.save_note(build_note(None, failure, "me", 1, 0.0))
        key = await self.key()
        for name, data in (
            (f"{WORK.stem}.next", seal(FIRST, WORK, key, b"n" * 12)),
            (f"{WORK.stem}.noting", b"{}"),
            (f"{WORK.stem}.probe", b""),
        ):
            (self.path / name).write_bytes(data)
            (self.path / name).chmod(0o600)

    async def folder_of_lock(self) -> None:
        async with self.lock.hold():
            """Made if it is missing."""

    def contents(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (*self.path.iterdir(), self.key_file)}


@pytest.fixture
def vault(shared: Path) -> Vault:
    return Vault(shared)


def as_nobody(script: str, *words: str | Path) -> int:
    """The status of a shell script that another user runs. Nothing of ours is needed to run it."""
    return subprocess.run(
        ["/bin/sh", "-c", script, "sh", *words],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    ).returncode


async def test_nothing_is_open_to_others(vault: Vault) -> None:
    await vault.fill()
    for path in (vault.path, *vault.contents()):
        found = path.stat()
        assert found.st_uid == os.geteuid()
        assert stat.S_IMODE(found.st_mode) & 0o077 == 0, path


@root_only
class TestKeptOut:
    async def test_the_attempts_are_real(self, shared: Path) -> None:
        """On a file of their own each of them works."""
        for name, attempt in ATTEMPTS.items():
            assert as_nobody(f'echo old > "$1"; {attempt}', shared / "theirs", shared) == 0, name
            as_nobody('rm -f "$1"/*', shared)

    async def test_no_file_can_be_read_replaced_or_deleted(self, vault: Vault, shared: Path) -> None:
        await vault.fill()
        before = vault.contents()
        assert {path.name for path in before} >= {f"{WORK.stem}{ending}" for ending in ENDINGS}
        for path in before:
            for name, attempt in ATTEMPTS.items():
                assert as_nobody(attempt, path, shared) != 0, (name, path)
        assert vault.contents() == before
        assert await vault.store.load() == FIRST

    async def test_no_file_can_be_made_before_us(self, vault: Vault) -> None:
        async with vault.lock.hold():
            """The folder is there, and no account's files are."""
        for ending in ENDINGS:
            for attempt in ('touch "$1"', 'ln -s /etc/passwd "$1"', 'mkdir "$1"'):
                assert as_nobody(attempt, vault.path / f"{WORK.stem}{ending}") != 0
        await vault.fill()

    async def test_the_folder_cannot_be_moved_or_opened(self, vault: Vault, shared: Path) -> None:
        await vault.fill()
        for attempt in ('mv "$1" "$2/taken"', 'rm -rf "$1"', 'chmod 777 "$1"', 'ls "$1"'):
            assert as_nobody(attempt, vault.path, shared) != 0
        assert await vault.store.load() == FIRST


@root_only
class TestThereFirst:
    """What another user has put where ours was to be."""

    @pytest.mark.parametrize(
        "made", ['mkdir -m 777 "$1"', 'mkdir -m 700 "$1"', 'mkdir "$1"; touch "$1/work.lock"']
    )
    async def test_a_folder_is_refused(self, vault: Vault, made: str) -> None:
        assert as_nobody(made, vault.path) == 0
        for attempt in (vault.store.load(), vault.store.save(FIRST), vault.store.check_writable()):
            with pytest.raises(StoreError, match="belongs to another user; name another folder"):
                await attempt
        with pytest.raises(StoreError, match="belongs to another user"):
            async with vault.lock.hold():
                raise AssertionError("it was used")
        assert not vault.key_file.exists()

    async def test_a_link_to_a_folder_is_refused(self, vault: Vault, shared: Path) -> None:
        assert as_nobody('mkdir -m 777 "$2/theirs"; ln -s "$2/theirs" "$1"', vault.path, shared) == 0
        with pytest.raises(StoreError, match="cannot be used"):
            await vault.store.save(FIRST)
        assert list((shared / "theirs").iterdir()) == []

    async def test_a_link_on_the_way_is_refused(self, shared: Path) -> None:
        """To a folder that is ours: they can turn it to another one between two uses."""
        (shared / "ours").mkdir(mode=0o700)
        assert as_nobody('ln -s "$1/ours" "$1/link"', shared) == 0
        vault = Vault(shared / "link")
        with pytest.raises(StoreError, match=r"could be exchanged .*: \S+/link belongs to another user"):
            await vault.folder_of_lock()
        assert list((shared / "ours").iterdir()) == []

    @pytest.mark.parametrize("made", ['touch "$1"', 'mkdir "$1"', 'ln -s /nowhere "$1"'])
    async def test_locks_beside_the_folder_mean_nothing(self, vault: Vault, shared: Path, made: str) -> None:
        for name in (f"{WORK.stem}.lock", "key.lock", "vault.lock"):
            assert as_nobody(made, shared / name) == 0
        await vault.store.save(FIRST)
        async with asyncio.timeout(10), vault.lock.hold():
            assert await vault.store.load() == FIRST

    @pytest.mark.parametrize("ending", [".vault", ".next", ".lock"])
    async def test_a_file_put_into_a_folder_that_was_open_once_is_refused(
        self, vault: Vault, ending: str
    ) -> None:
        await vault.key()
        vault.path.chmod(0o777)
        name = vault.path / f"{WORK.stem}{ending}"
        assert as_nobody('echo mine > "$1"; chmod 666 "$1"', name) == 0
        with pytest.raises(StoreError, match="cannot be used") as refusal:
            async with vault.lock.hold():
                await vault.store.save(SECOND)
        assert not isinstance(refusal.value, RefreshLockTimeout)
        assert stat.S_IMODE(vault.path.stat().st_mode) == 0o700
        assert name.read_bytes() == b"mine\n"

    async def test_a_key_is_refused(self, vault: Vault) -> None:
        assert as_nobody('head -c 32 /dev/zero | base64 > "$1"; chmod 666 "$1"', vault.key_file) == 0
        with pytest.raises(StoreError, match="it is not a plain file of this user alone"):
            await vault.store.save(FIRST)
        assert list(vault.path.glob("*.vault")) == []

    async def test_a_folder_put_in_place_of_ours_is_refused_and_ours_stays_closed(
        self, vault: Vault, shared: Path
    ) -> None:
        """Where everybody may move anybody's files that can be done, and so such a place is not used at all."""
        await vault.fill()
        shared.chmod(0o777)
        with pytest.raises(
            StoreError, match="could be exchanged for another folder: other users can write to"
        ):
            await vault.store.load()
        assert as_nobody('mv "$1" "$2/moved" && mkdir -m 777 "$1"', vault.path, shared) == 0
        shared.chmod(0o1777)
        with pytest.raises(StoreError, match="belongs to another user"):
            await vault.store.load()
        assert as_nobody('cat "$1"/moved/*.vault', shared) != 0
