"""The way to a path: what of it another user could change."""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bearerd.core.configuration import Store
from bearerd.core.vault import Identity, Key, build_key
from bearerd.errors import StoreError
from bearerd.forward.disk import DiskFile
from bearerd.stores.keys import load_key
from bearerd.stores.lock import KernelLock
from bearerd.stores.vault import VaultFolder, VaultStore
from bearerd.way import find_weakness, make_folders, own_home
from commands import run
from contract import FIRST
from users import NOBODY

KEY = build_key(bytes(range(32)))
WORK = Identity("work", "0123456789abcdef")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away; run by CI")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two folders deep, and not there."""
    tmp_path = tmp_path.resolve()
    (tmp_path / "outer" / "inner").mkdir(parents=True, mode=0o755)
    return tmp_path / "outer" / "inner" / "vault"


def weakness(path: Path, home: Path | None = None) -> str | None:
    found = find_weakness(path, home)
    return None if found is None else f"{found.found}; {found.cure}"


class TestFolders:
    @pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777, 0o3775, 0o750], ids=oct)
    def test_closed_or_sticky(self, path: Path, mode: int) -> None:
        path.parent.chmod(mode)
        path.parent.parent.chmod(mode)
        assert weakness(path) is None

    @pytest.mark.parametrize("mode", [0o777, 0o702, 0o733], ids=oct)
    def test_open_at_any_height(self, path: Path, mode: int) -> None:
        for folder in (path.parent, path.parent.parent):
            folder.chmod(mode)
            cure = f"chmod go-w {folder}, or chmod +t {folder} if it is meant for all"
            assert weakness(path) == f"other users can write to {folder}; {cure}"
        path.parent.parent.chmod(0o755)
        assert weakness(path) is not None

    def test_what_is_there_in_its_own_place_counts_too(self, path: Path) -> None:
        path.mkdir()
        path.chmod(0o777)
        assert weakness(path) is not None

    def test_what_is_missing_is_nobody_s(self, path: Path) -> None:
        assert weakness(path / "deeper" / "still") is None

    @root_only
    def test_another_user_s(self, path: Path) -> None:
        os.chown(path.parent, NOBODY, -1)
        text = f"{path.parent} belongs to another user (uid {NOBODY}); give {path.parent} to this user"
        assert weakness(path) == text

    def test_what_cannot_be_a_folder(self, path: Path) -> None:
        path.touch()
        with pytest.raises(NotADirectoryError):
            find_weakness(path / "vault", None)


class TestGroups:
    """A folder that its group may write to, as umask 002 leaves it."""

    @root_only
    @pytest.mark.parametrize("group", [0, 54_321], ids=["root's", "without a name, as a container's"])
    def test_one_of_nobody_else(self, path: Path, group: int) -> None:
        os.chown(path.parent, -1, group)
        path.parent.chmod(0o2775)
        assert weakness(path) is None

    @root_only
    def test_one_of_other_users(self, path: Path) -> None:
        os.chown(path.parent, -1, pwd.getpwuid(NOBODY).pw_gid)
        assert weakness(path) is None
        path.parent.chmod(0o775)
        assert weakness(path) is not None

    @root_only
    def test_one_that_nobody_is_known_to_be_in(self, path: Path) -> None:
        """Its users may be on another machine, whose list is not to be had."""
        taken = {user.pw_gid for user in pwd.getpwall()}
        empty = next(group for group in grp.getgrall() if not group.gr_mem and group.gr_gid not in taken)
        os.chown(path.parent, -1, empty.gr_gid)
        path.parent.chmod(0o775)
        assert weakness(path) is not None


class TestLinks:
    def test_the_folders_they_lead_through_count(self, path: Path) -> None:
        """In either direction, up and down, and by a full path."""
        for target in (path.parent, Path("..") / path.parent.parent.name / path.parent.name):
            link = path.parent.parent / "link"
            link.symlink_to(target)
            assert weakness(link / "vault") is None
            path.parent.chmod(0o777)
            assert weakness(link / "vault") is not None
            path.parent.chmod(0o755)
            link.unlink()

    def test_the_folder_they_stand_in_counts(self, path: Path) -> None:
        (path.parent / "link").symlink_to("/")
        path.parent.chmod(0o777)
        assert weakness(path.parent / "link" / "etc") is not None

    def test_one_to_nowhere_ends_the_way(self, path: Path) -> None:
        (path.parent / "link").symlink_to("nowhere")
        assert weakness(path.parent / "link" / "vault") is None

    def test_a_circle(self, path: Path) -> None:
        (path.parent / "one").symlink_to("two")
        (path.parent / "two").symlink_to("one")
        with pytest.raises(OSError, match="too many links"):
            find_weakness(path.parent / "one" / "vault", None)

    @root_only
    def test_another_user_s(self, path: Path) -> None:
        (path.parent / "link").symlink_to(path.parent)
        os.chown(path.parent / "link", NOBODY, -1, follow_symlinks=False)
        assert weakness(path.parent / "link" / "vault") is not None


class TestHome:
    def test_what_is_above_it_is_the_machine_s_affair(self, path: Path) -> None:
        path.parent.parent.chmod(0o777)
        assert weakness(path, path.parent) is None
        assert weakness(path, path.parent.parent) is not None
        assert weakness(path, path) is None

    def test_it_excuses_nothing_beside_it(self, path: Path) -> None:
        path.parent.parent.chmod(0o777)
        assert weakness(path, path.parent / "other") is not None
        assert weakness(path.parent.parent / "beside", path.parent) is not None

    def test_it_counts_itself(self, path: Path) -> None:
        path.parent.chmod(0o777)
        assert weakness(path, path.parent) is not None

    def test_a_link_into_it_from_an_open_folder_does_not_excuse_that(self, path: Path) -> None:
        (path.parent.parent / "open").mkdir()
        (path.parent.parent / "open").chmod(0o777)
        (path.parent.parent / "open" / "link").symlink_to(path.parent)
        assert weakness(path.parent.parent / "open" / "link" / "vault", path.parent) is not None

    def test_it_is_that_of_the_list_of_users(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/nowhere")
        assert own_home() == Path(pwd.getpwuid(os.geteuid()).pw_dir).resolve()


@pytest.fixture
def open_umask(path: Path) -> Iterator[None]:
    """Once the folders to `path` are there. Everything that is made after that is open to all, if nothing is done about it."""
    del path
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.threat(14)
@pytest.mark.usefixtures("open_umask")
class TestMadeByUs:
    """All that are made on the way to a file are closed, not only the last."""

    def check(self, path: Path) -> None:
        for folder in (path, path / "a", path / "a" / "b"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def test_by_themselves(self, path: Path) -> None:
        assert make_folders(path / "a" / "b")
        self.check(path)
        assert not make_folders(path / "a" / "b")

    async def test_to_a_key(self, path: Path) -> None:
        settings = Store(key_source="file", key_file=str(path / "a" / "b" / "key"))
        await load_key(settings, VaultFolder(path.with_name("other")), create=True)
        self.check(path)

    async def test_to_bodies(self, path: Path) -> None:
        file = DiskFile(path / "a" / "b")
        assert await file.append(b"x")
        self.check(path)
        file.close()

    async def test_to_a_configuration(self, path: Path) -> None:
        words = ("--provider", "oidc", "--issuer", "http://127.0.0.1:9", "--client-id", "c")
        target = path / "a" / "b" / "bearerd.toml"
        ended = await run("init", *words, "--upstream", "http://127.0.0.1:9", "-o", target)
        assert ended.status == 0, ended.err
        self.check(path)


@pytest.mark.threat(14)
class TestBodies:
    async def test_they_are_not_put_where_others_can_write(
        self, path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path.mkdir()
        path.chmod(0o777)
        file = DiskFile(path)
        assert not await file.append(b"x")
        assert f"other users can write to {path}" in capsys.readouterr().out
        file.close()

    @root_only
    async def test_nor_where_a_link_of_another_user_s_leads(
        self, path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path.parent.chmod(0o1777)
        path.parent.joinpath("ours").mkdir(mode=0o700)
        path.symlink_to(path.parent / "ours")
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        file = DiskFile(path)
        assert not await file.append(b"x")
        assert f"{path} belongs to another user" in capsys.readouterr().out
        file.close()


class TestVault:
    async def test_it_is_not_put_where_it_could_be_exchanged(self, path: Path) -> None:
        path.parent.chmod(0o777)
        store = VaultStore(VaultFolder(path / "vault"), WORK, self.key)
        cure = (
            f"chmod go-w {path.parent}, or chmod \\+t {path.parent} if it is meant for all, or name another"
        )
        text = (
            f"{path}/vault could be exchanged .*: other users can write to {path.parent}; {cure} store.path"
        )
        for attempt in (store.load(), store.save(FIRST), store.check_writable()):
            with pytest.raises(StoreError, match=text):
                await attempt
        with pytest.raises(StoreError, match=text):
            async with KernelLock(VaultFolder(path / "vault"), WORK.stem).hold():
                raise AssertionError("it was used")
        assert not path.exists()

    async def test_one_that_is_there_is_refused_from_then_on(self, path: Path) -> None:
        store = VaultStore(VaultFolder(path), WORK, self.key)
        await store.save(FIRST)
        path.parent.parent.chmod(0o777)
        with pytest.raises(StoreError, match="could be exchanged"):
            await store.load()
        path.parent.parent.chmod(0o1777)
        assert await store.load() == FIRST

    async def test_folders_that_are_made_for_it_are_closed_whatever_the_umask(self, path: Path) -> None:
        before = os.umask(0)
        try:
            await VaultStore(VaultFolder(path / "a" / "b"), WORK, self.key).save(FIRST)
        finally:
            os.umask(before)
        for folder in (path, path / "a", path / "a" / "b"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    async def key(self) -> Key:
        return KEY


@pytest.mark.parametrize("what", ["file", "dangling"])
def test_what_is_no_folder_is_not_taken_for_one(tmp_path: Path, what: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match=what):
        make_folders(tmp_path / what)
