"""Another key for a vault: what is sealed anew, what stops it, and runs that are killed."""

import asyncio
import base64
import os
import signal
import subprocess
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from bearerd.core.configuration import Store
from bearerd.core.redaction import Secret
from bearerd.core.tokens import TokenSet, Tombstone
from bearerd.core.vault import Identity, Key, OtherKey, build_key, parse_key, seal, unseal
from bearerd.errors import RefreshLockTimeout, StoreError, StoreUnwritable
from bearerd.stores.rekey import Plan, Rekeyed, identity_of, plan_files, rekey
from bearerd.stores.vault import VaultFolder, VaultStore
from contract import FIRST, SECOND
from test_keychain import Desktop
from users import NOBODY, bound_by_permissions

OLD = build_key(bytes(range(32)))
NEW = build_key(bytes(range(1, 33)))
THIRD = build_key(bytes(32))
WORK = Identity("work", "0123456789abcdef")
HOME = Identity("at-home", "fedcba9876543210")
NONCE = b"n" * 12

# Holds a lock until it is ended. The arguments are the folder and the stem.
HOLDER = """
import asyncio, pathlib, sys
from bearerd.stores.lock import KernelLock
from bearerd.stores.vault import VaultFolder
async def main():
    async with KernelLock(VaultFolder(pathlib.Path(sys.argv[1])), sys.argv[2]).hold():
        print("held", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""

# Changes the key and is killed at the given write, before or after it. The arguments: folder, old file, new file, which.
DYING = """
import asyncio, os, pathlib, signal, sys
from bearerd.core.configuration import Store
from bearerd.stores.rekey import rekey
from bearerd.stores.vault import VaultFolder

class Dying(VaultFolder):
    written = 0

    def replace(self, name, data, *, by_way_of):
        when, at = sys.argv[4].split()
        last = self.written == int(at)
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if last and when == "amid":
            (pathlib.Path(sys.argv[1]) / by_way_of).write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        super().replace(name, data, by_way_of=by_way_of)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.written += 1

old, new = (Store(key_source="file", key_file=path) for path in sys.argv[2:4])
asyncio.run(rekey(Dying(pathlib.Path(sys.argv[1])), old, new))
"""


# Changes the key. The arguments: folder, old source, old file, new source, new file.
CHANGING = """
import asyncio, pathlib, sys
from bearerd.core.configuration import Store
from bearerd.stores.rekey import rekey
from bearerd.stores.vault import VaultFolder
old, new = (Store(key_source=sys.argv[at], key_file=sys.argv[at + 1]) for at in (2, 4))
asyncio.run(rekey(VaultFolder(pathlib.Path(sys.argv[1])), old, new))
"""


class Vault:
    """A folder and the places of its keys."""

    def __init__(self, home: Path) -> None:
        self.path = home / "vault"
        self.folder = VaultFolder(self.path)
        self.old_file = home / "old.key"
        self.new_file = home / "new.key"
        self.old = Store(key_source="file", key_file=str(self.old_file))
        self.new = Store(key_source="file", key_file=str(self.new_file))
        write_key(self.old_file, OLD)

    def put(self, name: str, record: TokenSet | Tombstone, key: Key = OLD, cut: int | None = None) -> bytes:
        """A sealed file, or the first `cut` bytes of it."""
        data = seal(record, identity_of(name), key, NONCE)[:cut]
        self.folder.replace(name, data, by_way_of="made.probe")
        return data

    def contents(self) -> dict[str, bytes]:
        """All but locks, which are empty and stay."""
        return {file.name: file.read_bytes() for file in self.path.iterdir() if file.suffix != ".lock"}

    async def rekey(self, new: Store | None = None) -> Rekeyed:
        return await rekey(self.folder, self.old, new or self.new, wait_s=0.3)

    async def loaded(self, identity: Identity, key: Key) -> TokenSet | Tombstone | None:
        async def give() -> Key:
            return key

        return await VaultStore(self.folder, identity, give).load()

    def new_key(self) -> Key:
        return parse_key(self.new_file.read_text())


def write_key(path: Path, key: Key) -> None:
    path.write_bytes(base64.b64encode(key.raw))
    path.chmod(0o600)


@contextmanager
def keychain() -> Iterator[dict[str, str]]:
    """GNOME's, open; as the variables by which it is found."""
    with tempfile.TemporaryDirectory(prefix="kc") as home:  # short enough for sockets
        desktop = Desktop(Path(home))
        try:
            desktop.open_keychain()
            yield {"HOME": home, "DBUS_SESSION_BUS_ADDRESS": desktop.address}
        finally:
            desktop.stop()


def without_keychain() -> dict[str, str]:
    """Variables of this process, none of which leads to a keychain."""
    return {
        name: value for name, value in os.environ.items() if name.startswith(("PATH", "PYTHONPATH", "COV"))
    }


async def change(vault: Vault, old: Store, new: Store, environ: dict[str, str]) -> str:
    """In a process with these variables, for they decide which keychain there is. What it has to say."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHANGING, str(vault.path)),
        *(old.key_source, old.key_file, new.key_source, new.key_file),
        env=without_keychain() | environ,
        stderr=PIPE,
    )
    _, err = await process.communicate()
    return err.decode()


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


def unmount(point: Path) -> None:
    subprocess.run(["umount", point], check=True)


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path)


@asynccontextmanager
async def held(folder: Path, stem: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(folder), stem, stdout=PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class TestRefusals:
    """Whatever is in the way: nothing was changed, no key was made."""

    async def refusal(self, vault: Vault, new: Store | None = None) -> str:
        before = vault.contents()
        with pytest.raises(StoreError) as caught:
            await vault.rekey(new)
        assert vault.contents() == before
        assert not vault.new_file.exists()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    async def test_a_file_of_a_third_key(self, vault: Vault) -> None:
        vault.put(f"{HOME.stem}.vault", FIRST)
        vault.put(f"{WORK.stem}.vault", FIRST, THIRD)
        text = await self.refusal(vault)
        assert text.startswith(f"{WORK.stem}.vault was sealed with a third key; ")

    async def test_an_interrupted_save_of_a_third_key(self, vault: Vault) -> None:
        vault.put(f"{HOME.stem}.vault", FIRST)
        vault.put(f"{HOME.stem}.next", SECOND, THIRD)
        assert "a third key" in await self.refusal(vault)

    async def test_a_damaged_file(self, vault: Vault) -> None:
        vault.put(f"{HOME.stem}.vault", FIRST)
        vault.put(f"{WORK.stem}.vault", FIRST, cut=60)
        assert f"{WORK.stem}.vault is damaged" in await self.refusal(vault)

    async def test_a_file_under_another_account_s_name(self, vault: Vault) -> None:
        data = vault.put(f"{HOME.stem}.vault", FIRST)
        vault.folder.replace(f"{WORK.stem}.vault", data, by_way_of="made.probe")
        assert "made for another account" in await self.refusal(vault)

    async def test_a_link(self, vault: Vault) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        (vault.path / f"{HOME.stem}.vault").symlink_to(vault.path / f"{WORK.stem}.vault")
        assert "is a link" in await self.refusal(vault)

    async def test_a_folder_that_cannot_be_looked_into(self) -> None:
        """It is not one in which nothing is sealed."""
        with tempfile.TemporaryDirectory() as name:
            os.chown(name, NOBODY if os.geteuid() == 0 else -1, -1)
            with bound_by_permissions():
                vault = Vault(Path(name))
                vault.put(f"{WORK.stem}.vault", FIRST)
                vault.path.chmod(0)
                with pytest.raises(StoreError, match="vault cannot be used: Permission denied"):
                    await vault.rekey()
                vault.path.chmod(0o700)
                assert not vault.new_file.exists()

    async def test_the_old_key_is_gone(self, vault: Vault) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        vault.old_file.unlink()
        assert "holds no vault key, and" in await self.refusal(vault)

    async def test_the_new_key_is_no_key(self, vault: Vault) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        assert "key_secret" in await self.refusal(
            vault, Store(key_source="secret", key_secret=Secret("short"))
        )

    @pytest.mark.parametrize("stem", ["key", WORK.stem])
    async def test_a_lock_that_stays_held(self, vault: Vault, stem: str) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        async with held(vault.path, stem):
            text = await self.refusal(vault)
        assert f"another process has held {vault.path}/{stem}.lock for 0.3 s; it may be refreshing" in text

    async def test_a_lock_is_waited_for(self, vault: Vault) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        async with held(vault.path, WORK.stem) as holder:
            waiting = asyncio.create_task(rekey(vault.folder, vault.old, vault.new, wait_s=20))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            holder.kill()
            assert (await waiting).sealed == (f"{WORK.stem}.vault",)

    async def test_the_lock_s_error_is_of_its_own_kind(self, vault: Vault) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        async with held(vault.path, WORK.stem):
            with pytest.raises(RefreshLockTimeout):
                await vault.rekey()

    async def test_a_file_without_a_name(self, vault: Vault) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        assert "store.key_file is not set" in await self.refusal(vault, Store(key_source="file"))

    async def test_a_place_that_does_not_take_a_key(self, vault: Vault, tmp_path: Path) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        (tmp_path / "file").touch()
        new = Store(key_source="file", key_file=str(tmp_path / "file" / "key"))
        assert "cannot be used" in await self.refusal(vault, new)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount; run by CI")
    async def test_a_read_only_file_system(self, vault: Vault) -> None:
        vault.path.mkdir()
        mount("-t", "tmpfs", "tmpfs", vault.path)
        try:
            vault.put(f"{WORK.stem}.vault", FIRST)
            await vault.rekey(vault.old)  # the locks are there
            mount("-o", "remount,ro", vault.path)
            assert "Read-only" in await self.refusal(vault)
        finally:
            unmount(vault.path)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount; run by CI")
    async def test_a_full_file_system(self, vault: Vault) -> None:
        vault.path.mkdir()
        mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", vault.path)
        try:
            vault.put(f"{WORK.stem}.vault", FIRST)
            (vault.path / "filler.probe").write_bytes(bytes(52 << 10))
            with pytest.raises(StoreUnwritable, match="make room there"):
                await vault.rekey()
            assert await vault.loaded(WORK, OLD) == FIRST
            assert not vault.new_file.exists()
        finally:
            unmount(vault.path)


class TestSealing:
    async def test_from_file_to_file(self, vault: Vault) -> None:
        """Accounts of any configuration, tombstones too; generations stay."""
        vault.put(f"{WORK.stem}.vault", SECOND)
        vault.put(f"{HOME.stem}.vault", Tombstone(7))
        done = await vault.rekey()
        key = vault.new_key()
        assert key != OLD
        assert done == Rekeyed(f"the key file {vault.new_file}", (f"{HOME.stem}.vault", f"{WORK.stem}.vault"))
        assert await vault.loaded(WORK, key) == SECOND
        assert await vault.loaded(HOME, key) == Tombstone(7)
        assert set(vault.contents()) == set(done.sealed)
        assert vault.old_file.exists()
        with pytest.raises(StoreError, match="another key"):
            await vault.loaded(WORK, OLD)

    async def test_from_file_to_secret(self, vault: Vault) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        secret = Secret(base64.b64encode(NEW.raw).decode())
        done = await vault.rekey(Store(key_source="secret", key_secret=secret))
        assert done.place == "the secret file"
        assert await vault.loaded(WORK, NEW) == FIRST

    async def test_no_keychain(self, vault: Vault) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        before = vault.contents()
        err = await change(vault, vault.old, Store(key_source="keychain"), {"HOME": str(vault.path.parent)})
        assert "StoreError: no usable keychain here" in err
        assert vault.contents() == before

    async def test_to_the_keychain_and_back(self, vault: Vault) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        chain = Store(key_source="keychain")
        with keychain() as environ:
            assert await change(vault, vault.old, chain, environ) == ""
            with pytest.raises(StoreError, match="another key"):
                await vault.loaded(WORK, OLD)
            assert await change(vault, chain, vault.new, environ) == ""
        assert await vault.loaded(WORK, vault.new_key()) == FIRST

    async def test_the_second_run_has_nothing_to_do(self, vault: Vault) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        await vault.rekey()
        before = vault.contents()
        done = await vault.rekey()
        assert (done.sealed, done.already) == ((), (f"{WORK.stem}.vault",))
        assert vault.contents() == before

    async def test_to_the_same_place_nothing_is_done(self, vault: Vault) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        assert (await vault.rekey(vault.old)).sealed == ()
        assert await vault.loaded(WORK, OLD) == FIRST

    async def test_without_a_vault_nothing_is_made(self, vault: Vault) -> None:
        assert await vault.rekey() == Rekeyed()
        assert not vault.path.exists()
        assert not vault.new_file.exists()

    async def test_a_whole_save_that_was_interrupted_still_counts(self, vault: Vault) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        vault.put(f"{WORK.stem}.next", SECOND)
        vault.put(f"{HOME.stem}.next", FIRST)
        assert len((await vault.rekey()).sealed) == 3
        assert await vault.loaded(WORK, vault.new_key()) == SECOND
        assert await vault.loaded(HOME, vault.new_key()) == FIRST

    @pytest.mark.parametrize("cut", [10, 40, 100])
    async def test_a_torn_save_does_not_stop_the_next_one(self, vault: Vault, cut: int) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        vault.put(f"{WORK.stem}.next", SECOND, cut=cut)
        await vault.rekey()

        async def give() -> Key:
            return vault.new_key()

        store = VaultStore(vault.folder, WORK, give)
        assert await store.load() == FIRST
        await store.save(SECOND)
        assert await store.load() == SECOND

    async def test_what_is_no_sealed_file_is_left_alone(self, vault: Vault) -> None:
        vault.put(f"{WORK.stem}.vault", FIRST)
        for name in (f"{WORK.stem}.noting", f"{WORK.stem}.vault.damaged-1"):
            (vault.path / name).write_bytes(b"{}")
        await vault.rekey()
        assert (vault.path / f"{WORK.stem}.noting").read_bytes() == b"{}"
        assert (vault.path / f"{WORK.stem}.vault.damaged-1").read_bytes() == b"{}"
        assert not (vault.path / f"{WORK.stem}.failure.lock").exists()


class TestPlan:
    def test_a_torn_save_under_the_new_key_stays(self) -> None:
        data = seal(FIRST, WORK, NEW, NONCE)
        name = f"{WORK.stem}.next"
        assert plan_files({name: data[:-1]}, OLD, NEW) == Plan(already=(name,))
        assert plan_files({name: b""}, OLD, None) == Plan(already=(name,))

    def test_a_name_without_a_hyphen_is_nobody_s(self) -> None:
        with pytest.raises(StoreError, match="made for another account"):
            plan_files({"work.vault": seal(FIRST, WORK, OLD, NONCE)}, OLD, NEW)


class TestKilled:
    @pytest.mark.parametrize("when", ["before", "amid", "after"])
    @pytest.mark.parametrize("at", [0, 1, 2])
    async def test_a_second_run_finishes_what_a_killed_one_began(
        self, vault: Vault, when: str, at: int
    ) -> None:
        """At any moment every file is whole, under one key or the other."""
        records = {f"{HOME.stem}.vault": FIRST, f"{WORK.stem}.next": SECOND, f"{WORK.stem}.vault": FIRST}
        for name, record in records.items():
            vault.put(name, record)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", DYING),
            *map(str, (vault.path, vault.old_file, vault.new_file, f"{when} {at}")),
        )
        assert await process.wait() == -signal.SIGKILL
        sealed_anew = 0
        for name, record in records.items():
            data = vault.contents()[name]
            try:
                assert unseal(data, identity_of(name), OLD) == record
            except OtherKey:
                assert unseal(data, identity_of(name), vault.new_key()) == record
                sealed_anew += 1
        assert sealed_anew == at + (when == "after")
        done = await vault.rekey()
        assert (len(done.sealed), len(done.already)) == (3 - sealed_anew, sealed_anew)
        assert await vault.loaded(HOME, vault.new_key()) == FIRST
        assert await vault.loaded(WORK, vault.new_key()) == SECOND
