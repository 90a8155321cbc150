"""The vault on a real file system: modes, owners, links, interrupted saves, damage, no room."""

import asyncio
import os
import stat
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bearerd.core.failures import build_note
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.redaction import Secret
from bearerd.core.tokens import TokenSet, Tombstone
from bearerd.core.vault import Identity, Key, build_key, seal
from bearerd.errors import StoreError, StoreUnwritable
from bearerd.stores.vault import VaultFolder, VaultStore
from contract import FIRST, SECOND, StoreContract

KEY = build_key(bytes(range(32)))
OTHER = build_key(bytes(32))
WORK = Identity("work", "0123456789abcdef")
VAULT, NEXT = f"{WORK.stem}.vault", f"{WORK.stem}.next"
NONCE = b"n" * 12


def known(key: Key) -> Callable[[], Awaitable[Key]]:
    """A key that needs no reading."""

    async def give() -> Key:
        return key

    return give


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "vault"


@pytest.fixture
def store(path: Path) -> VaultStore:
    return VaultStore(VaultFolder(path), WORK, known(KEY))


def files(path: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.lstat().st_mode) for file in path.iterdir()}


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


class TestContract(StoreContract):
    """The vault keeps the contract of all stores."""


class TestShared:
    async def test_what_another_process_saves_is_seen_to_have_changed(
        self, path: Path, store: VaultStore
    ) -> None:
        other = VaultStore(VaultFolder(path), WORK, known(KEY))
        await store.load()
        await other.save(FIRST)
        assert store.changed()
        assert await store.load() == FIRST
        assert not store.changed()
        await other.save(SECOND)
        assert store.changed()

    async def test_a_note_that_is_garbage_is_none(self, path: Path, store: VaultStore) -> None:
        await store.save(FIRST)
        for garbage in (b"", b"[]", b"{", b'{"kind": "no such kind"}', b'{"kind": "transient"}', b"\xff"):
            (path / f"{WORK.stem}.failure").write_bytes(garbage)
            assert await store.load_note() is None

    async def test_no_room_for_a_note_is_no_failure(self, path: Path, store: VaultStore) -> None:
        path.mkdir(parents=True)
        (path / f"{WORK.stem}.failure").mkdir()
        note = build_note(None, Failure(FailureKind.TRANSIENT, "down"), "me", 3, 1000.0)
        await store.save_note(note)
        assert await store.load_note() is None


class TestModes:
    @pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777], ids=oct)
    async def test_folder_and_file_are_ours_alone_whatever_the_umask(
        self, path: Path, store: VaultStore, mask: int
    ) -> None:
        path.parent.mkdir(mode=0o700)
        with umask(mask):
            await store.save(FIRST)
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert files(path) == {VAULT: 0o600}
        assert await store.load() == FIRST

    @pytest.mark.threat(14)
    async def test_modes_that_were_loosened_are_tightened(self, path: Path, store: VaultStore) -> None:
        await store.save(FIRST)
        path.chmod(0o777)
        (path / VAULT).chmod(0o666)
        assert await store.load() == FIRST
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert files(path) == {VAULT: 0o600}

    async def test_a_folder_of_other_things_is_left_as_it_is(self, path: Path, store: VaultStore) -> None:
        path.mkdir(parents=True, mode=0o755)
        (path / "letter.txt").write_text("dear")
        with pytest.raises(StoreError, match=r"holds other files; name a folder of its own with store\.path"):
            await store.save(FIRST)
        assert stat.S_IMODE(path.stat().st_mode) == 0o755


class TestNotOurs:
    @pytest.mark.threat(14)
    async def test_a_link_is_not_followed(self, path: Path, store: VaultStore, tmp_path: Path) -> None:
        await store.save(FIRST)
        (path / VAULT).rename(tmp_path / "elsewhere")
        (path / VAULT).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(StoreError, match="is a link"):
            await store.load()
        with pytest.raises(StoreError, match="is a link"):
            await store.save(SECOND)

    @pytest.mark.threat(14)
    async def test_a_link_planted_for_the_next_save_is_not_written_through(
        self, path: Path, store: VaultStore, tmp_path: Path
    ) -> None:
        victim = tmp_path / "victim"
        victim.write_text("precious")
        await store.save(FIRST)
        (path / NEXT).symlink_to(victim)
        with pytest.raises(StoreError, match="is a link"):
            await store.save(SECOND)
        (path / NEXT).unlink()
        (path / NEXT).hardlink_to(victim)
        with pytest.raises(StoreError):
            await store.save(SECOND)
        assert victim.read_text() == "precious"
        (path / NEXT).unlink()
        assert await store.load() == FIRST

    @pytest.mark.threat(14)
    async def test_a_folder_that_is_a_link_is_refused(
        self, path: Path, store: VaultStore, tmp_path: Path
    ) -> None:
        path.parent.mkdir()
        path.symlink_to(tmp_path)
        with pytest.raises(StoreError, match="cannot be used"):
            await store.save(FIRST)

    @pytest.mark.parametrize("kind", ["folder", "pipe"])
    async def test_something_else_of_that_name_is_refused_at_once(
        self, path: Path, store: VaultStore, kind: str
    ) -> None:
        path.mkdir(parents=True)
        if kind == "folder":
            (path / VAULT).mkdir()
        else:
            os.mkfifo(path / VAULT)
        async with asyncio.timeout(2):
            with pytest.raises(StoreError):
                await store.load()

    @pytest.mark.threat(14)
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away; run by CI")
    async def test_another_user_s_folder_and_file_are_refused(self, path: Path, store: VaultStore) -> None:
        await store.save(FIRST)
        os.chown(path / VAULT, 65534, 65534)
        with pytest.raises(StoreError):
            await store.load()
        with pytest.raises(StoreError):
            await store.save(SECOND)
        os.chown(path, 65534, 65534)
        with pytest.raises(StoreError, match="belongs to another user"):
            await store.load()


class TestInterrupted:
    """What a process that was killed in a save left behind."""

    def left(self, path: Path, name: str, record: TokenSet | Tombstone) -> None:
        (path / name).write_bytes(seal(record, WORK, KEY, NONCE))

    async def test_before_the_rename_the_new_record_counts(self, path: Path, store: VaultStore) -> None:
        await store.save(FIRST)
        self.left(path, NEXT, SECOND)
        assert await store.load() == SECOND

    async def test_in_the_middle_of_writing_the_old_one_counts(self, path: Path, store: VaultStore) -> None:
        await store.save(FIRST)
        sealed = seal(SECOND, WORK, KEY, NONCE)
        for length in (0, 1, 14, 30, len(sealed) - 1):
            (path / NEXT).write_bytes(sealed[:length])
            assert await store.load() == FIRST
        await store.save(SECOND)
        assert await store.load() == SECOND
        assert files(path) == {VAULT: 0o600}

    async def test_at_the_first_save_of_all(self, path: Path, store: VaultStore) -> None:
        path.mkdir(parents=True)
        self.left(path, NEXT, FIRST)
        assert await store.load() == FIRST

    async def test_what_is_older_than_the_vault_does_not_come_back(
        self, path: Path, store: VaultStore
    ) -> None:
        await store.save(Tombstone(2))
        self.left(path, NEXT, FIRST)
        assert await store.load() == Tombstone(2)

    async def test_it_stands_in_for_a_damaged_vault(self, path: Path, store: VaultStore) -> None:
        await store.save(FIRST)
        (path / VAULT).write_bytes(b"torn")
        self.left(path, NEXT, SECOND)
        assert await store.load() == SECOND


class TestDamage:
    async def test_it_is_an_error_with_its_cure_and_reading_changes_nothing(
        self, path: Path, store: VaultStore
    ) -> None:
        await store.save(FIRST)
        (path / VAULT).write_bytes(b"garbage")
        for _ in range(2):
            with pytest.raises(StoreError) as refusal:
                await store.load()
            assert str(refusal.value) == (
                f"{path}/{VAULT} is no vault file; restore it, or log in again, which sets it aside"
            )
        assert (path / VAULT).read_bytes() == b"garbage"

    async def test_the_next_save_sets_it_aside_and_loses_nothing(self, path: Path, store: VaultStore) -> None:
        for number in range(1, 4):
            await store.save(FIRST)
            (path / VAULT).write_bytes(b"garbage %d" % number)
            await store.save(SECOND)
            assert await store.load() == SECOND
            assert (path / f"{VAULT}.damaged-{number}").read_bytes() == b"garbage %d" % number

    async def test_what_another_key_opens_is_never_written_over(self, path: Path, store: VaultStore) -> None:
        await VaultStore(VaultFolder(path), WORK, known(OTHER)).save(FIRST)
        with pytest.raises(StoreError, match="was sealed with another key"):
            await store.load()
        with pytest.raises(StoreError, match="give that key back"):
            await store.save(SECOND)
        assert await VaultStore(VaultFolder(path), WORK, known(OTHER)).load() == FIRST
        (path / VAULT).rename(path / NEXT)
        with pytest.raises(StoreError, match="was sealed with another key"):
            await store.save(SECOND)
        assert await VaultStore(VaultFolder(path), WORK, known(OTHER)).load() == FIRST

    async def test_two_identities_of_one_name_do_not_touch_each_other(
        self, path: Path, store: VaultStore
    ) -> None:
        other = VaultStore(VaultFolder(path), Identity("work", "f" * 16), known(OTHER))
        await store.save(FIRST)
        await other.save(SECOND)
        assert (await store.load(), await other.load()) == (FIRST, SECOND)


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    point = tmp_path / "small"
    point.mkdir()
    mount("-t", "tmpfs", "-o", "size=128k", "tmpfs", str(point))
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount; run by CI")
class TestNoRoom:
    async def test_a_full_disk_loses_nothing_and_is_told_apart(self, small_disk: Path) -> None:
        store = VaultStore(VaultFolder(small_disk / "vault"), WORK, known(KEY))
        await store.save(FIRST)
        (small_disk / "filler").write_bytes(bytes(116 << 10))
        with pytest.raises(StoreUnwritable, match="No space left on device; make room there"):
            await store.check_writable()
        big = TokenSet(2, Secret("x" * 20_000), 0.0, 1.0)
        with pytest.raises(StoreUnwritable):
            await store.save(big)
        assert await store.load() == FIRST
        (small_disk / "filler").unlink()
        await store.check_writable()
        await store.save(big)
        assert await store.load() == big
        assert files(small_disk / "vault") == {VAULT: 0o600}

    async def test_a_read_only_file_system(self, small_disk: Path) -> None:
        store = VaultStore(VaultFolder(small_disk / "vault"), WORK, known(KEY))
        await store.save(FIRST)
        mount("-o", "remount,ro", str(small_disk))
        for attempt in (store.check_writable(), store.save(SECOND)):
            with pytest.raises(StoreUnwritable, match="Read-only file system"):
                await attempt
        assert await store.load() == FIRST
