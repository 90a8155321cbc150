"""The key from a file or the configuration, and what holds wherever it comes from."""

import asyncio
import base64
import os
import resource
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bearerd.core.configuration import Store
from bearerd.core.redaction import Secret
from bearerd.core.vault import Key, build_key, parse_key
from bearerd.errors import NoKeyYet, StoreError
from bearerd.stores.keys import KeyFile, load_key, make_key
from bearerd.stores.lock import KernelLock
from bearerd.stores.vault import VaultFolder
from users import NOBODY, bound_by_permissions

RAW = bytes(range(224, 256))  # its base64 has both characters in which the alphabets differ
KEY = build_key(RAW)
STANDARD = base64.b64encode(RAW).decode()

# Prints the key's id, which is public. The arguments are the vault folder and the key file.
LOAD = """
import asyncio, sys
from pathlib import Path
from bearerd.core.configuration import Store
from bearerd.stores.keys import load_key
from bearerd.stores.vault import VaultFolder
settings = Store(key_source="file", key_file=sys.argv[2])
print(asyncio.run(load_key(settings, VaultFolder(Path(sys.argv[1])), create=True)).id.hex())
"""


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away; run by CI")


@pytest.fixture
def folder(tmp_path: Path) -> VaultFolder:
    return VaultFolder(tmp_path / "vault")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "key"


async def load(folder: VaultFolder, file: Path, *, create: bool = True) -> Key:
    return await load_key(Store(key_source="file", key_file=str(file)), folder, create=create)


async def refusal(folder: VaultFolder, file: Path, *, create: bool = True) -> str:
    with pytest.raises(StoreError) as caught:
        await load(folder, file, create=create)
    text = str(caught.value)
    assert "\n" not in text
    return text


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


class TestSecret:
    async def test_it_is_the_key_and_nothing_is_made(self, folder: VaultFolder, tmp_path: Path) -> None:
        settings = Store(key_source="secret", key_secret=Secret(STANDARD))
        for create in (True, False):
            assert await load_key(settings, folder, create=create) == KEY
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("secret", [None, Secret(""), Secret("canary"), Secret(STANDARD[:-4])])
    async def test_none_or_a_bad_one_is_refused(
        self, folder: VaultFolder, secret: Secret | None, tmp_path: Path
    ) -> None:
        with pytest.raises(StoreError, match=r"store\.key_secret is .*openssl rand -base64 32") as caught:
            await load_key(Store(key_source="secret", key_secret=secret), folder, create=True)
        assert "canary" not in str(caught.value)
        assert not list(tmp_path.iterdir())


class TestFile:
    @pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777], ids=oct)
    async def test_it_is_made_for_us_alone_whatever_the_umask(
        self, folder: VaultFolder, file: Path, mask: int
    ) -> None:
        with umask(mask):
            key = await load(folder, file)
        assert mode(file) == 0o600
        assert parse_key(file.read_text()) == key
        assert file.read_text().endswith("=\n")
        assert await load(folder, file, create=False) == key

    async def test_its_folder_is_made_too(self, folder: VaultFolder, tmp_path: Path) -> None:
        file = tmp_path / "config" / "bearerd" / "key"
        await load(folder, file)
        assert mode(file.parent) == 0o700

    async def test_one_made_with_openssl_is_taken_and_tightened(
        self, folder: VaultFolder, file: Path
    ) -> None:
        file.write_text(f"{STANDARD}\n")
        file.chmod(0o644)
        assert await load(folder, file, create=False) == KEY
        assert mode(file) == 0o600

    async def test_one_that_cannot_be_written_to_stays_so(self, folder: VaultFolder, file: Path) -> None:
        file.write_text(RAW.hex())
        file.chmod(0o400)
        assert await load(folder, file) == KEY
        assert mode(file) == 0o400

    async def test_none_is_named(self, folder: VaultFolder) -> None:
        with pytest.raises(StoreError, match=r"store\.key_file is not set"):
            await load_key(Store(key_source="file"), folder, create=True)

    @pytest.mark.parametrize(
        "content", ["", "\n", "canary", STANDARD[:20], f"{STANDARD}x", "\u00e9", STANDARD * 50]
    )
    async def test_damage_is_reported_and_never_written_over(
        self, folder: VaultFolder, file: Path, content: str
    ) -> None:
        file.write_text(content)
        shown = await refusal(folder, file)
        assert f"{file} is damaged" in shown
        assert "restore it" in shown
        assert "canary" not in shown
        assert file.read_text() == content

    @pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "folder", "pipe"])
    async def test_what_is_no_file_of_ours_is_refused_at_once(
        self, folder: VaultFolder, file: Path, tmp_path: Path, kind: str
    ) -> None:
        other = tmp_path / "other"
        other.write_text(STANDARD)
        match kind:
            case "symlink":
                file.symlink_to(other)
            case "dangling":
                file.symlink_to(tmp_path / "nowhere")
            case "hard link":
                file.hardlink_to(other)
            case "folder":
                file.mkdir()
            case _:
                os.mkfifo(file)
        async with asyncio.timeout(2):
            assert f"{file} cannot be used: it is " in await refusal(folder, file)
        assert not (tmp_path / "nowhere").exists()

    @root_only
    async def test_another_user_s_file_is_refused(self, folder: VaultFolder, file: Path) -> None:
        file.write_text(STANDARD)
        os.chown(file, 65534, 65534)
        assert "not a plain file of this user" in await refusal(folder, file)

    async def test_one_that_has_come_to_be_is_not_written_over(self, file: Path) -> None:
        """Two vault folders may share a key file, and each has a lock of its own."""
        file.write_text(STANDARD)
        with pytest.raises(StoreError, match="cannot be used: File exists"):
            await KeyFile(file).write(build_key(bytes(32)))
        assert file.read_text() == STANDARD

    async def test_where_none_can_be_made_it_is_said(
        self, folder: VaultFolder, file: Path, tmp_path: Path
    ) -> None:
        file.write_text("")
        assert "Not a directory" in await refusal(folder, file / "key")
        assert "Not a directory" in await refusal(folder, tmp_path / "key" / "deeper" / "key")
        assert "File name too long" in await refusal(folder, tmp_path / ("x" * 300))

    @pytest.mark.parametrize("room", [0, 10])
    async def test_one_that_could_not_be_written_whole_is_taken_away(
        self, folder: VaultFolder, file: Path, room: int
    ) -> None:
        with largest_file(room):
            assert f"{file} cannot be used: " in await refusal(folder, file)
        assert not file.exists()
        assert await load(folder, file) == await load(folder, file)


class Volume:
    """A secret as Kubernetes mounts it: by two links, in a folder that is open and sticky."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "..2030_01_01_00_00_00.1"
        self.file = path / "key"
        self.target = self.data / "key"
        self.data.mkdir(parents=True, mode=0o755)
        path.chmod(0o1777)
        (path / "..data").symlink_to(self.data.name)
        self.file.symlink_to("..data/key")
        self.target.write_text(STANDARD)
        self.target.chmod(0o400)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path.resolve() / "volume")


class TestLink:
    async def test_a_key_that_somebody_else_has_put_there(self, folder: VaultFolder, volume: Volume) -> None:
        assert await load(folder, volume.file) == KEY
        assert mode(volume.target) == 0o400

    async def test_it_is_followed_where_it_leads_then(self, folder: VaultFolder, volume: Volume) -> None:
        """As a new version of a secret comes."""
        other = volume.path / "..2031"
        other.mkdir(mode=0o755)
        (other / "key").write_text(RAW[::-1].hex())
        (other / "key").chmod(0o600)
        (volume.path / "new").symlink_to(other.name)
        (volume.path / "new").rename(volume.path / "..data")
        assert await load(folder, volume.file) == build_key(RAW[::-1])

    async def test_none_is_made_through_it(self, folder: VaultFolder, volume: Volume) -> None:
        volume.target.unlink()
        for create in (True, False):
            text = await refusal(folder, volume.file, create=create)
            assert "it is a link, and leads to nothing; mend it, name another store.key_file" in text
        assert not volume.target.exists()

    @pytest.mark.parametrize("loose", [0o404, 0o644, 0o602, 0o620])
    async def test_one_that_others_can_read_is_refused_and_the_cure_named(
        self, folder: VaultFolder, volume: Volume, loose: int
    ) -> None:
        volume.target.chmod(loose)
        assert await refusal(folder, volume.file) == (
            f"the key file {volume.file} cannot be used: it is a link, and what it leads to has mode {loose:04o}; "
            "chmod 600 that, in Kubernetes by defaultMode: 0440, "
            "name another store.key_file, or give the key as store.key_secret_file"
        )
        assert mode(volume.target) == loose

    @root_only
    async def test_a_group_may_read_root_s_alone(self) -> None:
        """By this user, to whom the group is given, as Kubernetes does; not what is this user's own."""
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)
            volume = Volume(Path(name).resolve() / "volume")
            folder = VaultFolder(Path(name) / "vault")
            volume.target.chmod(0o440)
            assert await load(folder, volume.file) == KEY
            os.chown(volume.target, -1, os.getegid())
            with bound_by_permissions():
                assert await load(folder, volume.file) == KEY
            os.chown(volume.target, NOBODY, -1)
            with bound_by_permissions():
                assert "has mode 0440" in await refusal(folder, volume.file)

    async def test_damage_is_told_as_in_any_file(self, folder: VaultFolder, volume: Volume) -> None:
        volume.target.chmod(0o600)
        volume.target.write_text("no key")
        assert "is damaged" in await refusal(folder, volume.file)

    @pytest.mark.parametrize("kind", ["folder", "pipe"])
    async def test_what_is_no_file_is_refused_at_once(
        self, folder: VaultFolder, volume: Volume, kind: str
    ) -> None:
        volume.target.unlink()
        if kind == "folder":
            volume.target.mkdir(mode=0o700)
        else:
            os.mkfifo(volume.target, 0o600)
        async with asyncio.timeout(2):
            assert "leads to no plain file" in await refusal(folder, volume.file)

    async def test_a_folder_in_which_others_could_replace_it(
        self, folder: VaultFolder, volume: Volume
    ) -> None:
        """The one it stands in, and the one it leads to."""
        for open_folder in (volume.path, volume.data):
            before = mode(open_folder)
            open_folder.chmod(0o777)
            assert f"other users can write to {open_folder}; " in await refusal(folder, volume.file)
            open_folder.chmod(before)

    @root_only
    @pytest.mark.parametrize("name", ["key", "..data", "..2030_01_01_00_00_00.1", "..data/key"])
    async def test_anything_of_another_user_s_on_its_way(
        self, folder: VaultFolder, volume: Volume, name: str
    ) -> None:
        """In a sticky folder its owner could put something else in its place."""
        os.chown(volume.path / name, NOBODY, -1, follow_symlinks=False)
        assert f"{name.rpartition('/')[2]} belongs to another user" in await refusal(folder, volume.file)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """In bytes, for this process; what is longer is cut off, like on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestOnlyOne:
    """A key is made once, and only where nothing can have been sealed with an earlier one."""

    async def test_where_none_shall_be_made_none_is(
        self, folder: VaultFolder, file: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(NoKeyYet, match="holds no vault key yet"):
            await load(folder, file, create=False)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["work-1.vault", "work-1.next"])
    async def test_a_key_that_is_gone_is_not_replaced(
        self, folder: VaultFolder, file: Path, tmp_path: Path, name: str
    ) -> None:
        await load(folder, file)
        (tmp_path / "vault" / name).write_bytes(b"sealed")
        key = parse_key(file.read_text())
        file.rename(tmp_path / "away")
        for create in (True, False):
            with pytest.raises(StoreError) as caught:
                await load(folder, file, create=create)
            assert f"{file} holds no vault key, and {folder}/{name} was sealed with one" in str(caught.value)
            assert not isinstance(caught.value, NoKeyYet)
        assert not file.exists()
        (tmp_path / "away").rename(file)
        assert await load(folder, file) == key

    async def test_files_set_aside_and_locks_are_in_nobody_s_way(
        self, folder: VaultFolder, file: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "vault").mkdir()
        for name in ("work-1.vault.damaged-1", "work-1.lock", "work-1.failure"):
            (tmp_path / "vault" / name).touch()
        await load(folder, file)

    @pytest.mark.parametrize("shut", ["data", "data/vault"])
    async def test_a_folder_that_cannot_be_looked_into_may_hold_sealed_files(self, shut: str) -> None:
        with tempfile.TemporaryDirectory() as name:
            os.chown(name, NOBODY if os.geteuid() == 0 else -1, -1)
            with bound_by_permissions():
                file, folder = Path(name) / "key", VaultFolder(Path(name) / "data" / "vault")
                (Path(name) / "data" / "vault").mkdir(parents=True)
                (Path(name) / shut).chmod(0)
                shown = await refusal(folder, file)
                (Path(name) / shut).chmod(0o700)
                assert shown == (
                    f"{folder} cannot be used: Permission denied; mend that or name another store.path"
                )
                assert not file.exists()

    async def test_first_starts_at_once_end_with_one_key(self, tmp_path: Path) -> None:
        program = (sys.executable, "-c", LOAD)
        for number in range(3):
            file = tmp_path / f"{number}.key"
            running = [
                await asyncio.create_subprocess_exec(
                    *program, str(tmp_path / "vault"), str(file), stdout=asyncio.subprocess.PIPE
                )
                for _ in range(3)
            ]
            printed = {(await process.communicate())[0].strip().decode() for process in running}
            assert printed == {parse_key(file.read_text()).id.hex()}

    async def test_tasks_of_one_process_too(self, folder: VaultFolder, file: Path) -> None:
        keys = await asyncio.gather(*(load(folder, file) for _ in range(8)))
        assert set(keys) == {parse_key(file.read_text())}

    async def test_the_lock_is_held_while_it_is_made_and_the_loop_goes_on(
        self, folder: VaultFolder, file: Path, tmp_path: Path
    ) -> None:
        """What a sibling makes meanwhile is the key."""
        async with KernelLock(folder, "key").hold():
            task = asyncio.create_task(load(folder, file))
            await asyncio.sleep(0.3)
            assert not task.done()
            assert not file.exists()
            file.write_text(STANDARD)
        assert await task == KEY
        assert (tmp_path / "vault" / "key.lock").exists()

    @pytest.mark.parametrize("so_far", ["", STANDARD[:20]])
    async def test_one_that_a_sibling_has_half_made_is_waited_for(
        self, folder: VaultFolder, file: Path, so_far: str
    ) -> None:
        async with KernelLock(folder, "key").hold():
            file.write_text(so_far)
            task = asyncio.create_task(load(folder, file))
            await asyncio.sleep(0.3)
            assert not task.done()
            file.write_text(STANDARD)
        assert await task == KEY

    async def test_a_caller_that_is_cancelled_leaves_no_lock(self, folder: VaultFolder, file: Path) -> None:
        for turns in range(12):
            task = asyncio.create_task(load(folder, file))
            for _ in range(turns):
                await asyncio.sleep(0.0005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(10), KernelLock(folder, "key").hold():
            pass
        assert await load(folder, file) == parse_key(file.read_text())

    async def test_a_vault_folder_that_is_not_ours_to_use(self, file: Path, tmp_path: Path) -> None:
        (tmp_path / "vault").symlink_to(tmp_path)
        assert "cannot be used" in await refusal(VaultFolder(tmp_path / "vault"), file)
        assert not file.exists()


class Forgetful:
    """A place that keeps what it likes."""

    def __init__(self, kept: Key | None) -> None:
        self._kept = kept

    def __str__(self) -> str:
        return "the place"

    async def read(self) -> Key | None:
        return self._kept

    async def write(self, key: Key) -> None:
        assert key != self._kept


@pytest.mark.parametrize("kept", [None, KEY])
async def test_a_key_that_does_not_come_back_is_not_used(kept: Key | None) -> None:
    with pytest.raises(StoreError, match=r"the place did not give back the key it was given; set store\."):
        await make_key(Forgetful(kept))
