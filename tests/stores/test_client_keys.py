"""The file of the client keys: who may have written it, what is read of it and when, and that no change is lost."""

import asyncio
import os
import stat
import sys
from pathlib import Path
from typing import Final

import pytest

from bearerd.core.client_keys import ClientKey, build_document
from bearerd.errors import StoreError
from bearerd.stores.client_keys import ClientKeyFile, KeyRing
from users import NOBODY

pytestmark = pytest.mark.threat(14)
ONE: Final = ClientKey("one", bytes(32), 0)
TWO: Final = ClientKey("two", bytes(range(32)), 0)
ADD: Final = """
import sys
from pathlib import Path
from bearerd.core.client_keys import ClientKey
from bearerd.stores.client_keys import ClientKeyFile
file = ClientKeyFile(Path(sys.argv[1]))
for n in range(20):
    file.change(lambda keys: (*keys, ClientKey(f"{sys.argv[2]}-{n}", bytes(32), 0)))
"""


def written(folder: Path, *keys: ClientKey) -> ClientKeyFile:
    path = folder / "keys.json"
    path.write_text(build_document(keys))
    path.chmod(0o600)
    return ClientKeyFile(path)


class TestFaults:
    @pytest.mark.threat(14)
    @pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
    def test_one_that_others_can_write_lets_nobody_in(self, tmp_path: Path, mode: int) -> None:
        file = written(tmp_path, ONE)
        (tmp_path / "keys.json").chmod(mode)
        with pytest.raises(StoreError, match=r"other users can write to it; chmod go-w .*keys\.json"):
            file.load()

    def test_nor_does_one_in_a_folder_that_others_can_write(self, tmp_path: Path) -> None:
        inner = tmp_path / "open"
        inner.mkdir()
        file = written(inner, ONE)
        inner.chmod(0o777)
        with pytest.raises(StoreError, match="other users can write to"):
            file.load()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_nor_does_another_users(self, tmp_path: Path) -> None:
        file = written(tmp_path, ONE)
        os.chown(tmp_path / "keys.json", NOBODY, -1)
        with pytest.raises(StoreError, match=f"another user \\(uid {NOBODY}\\)"):
            file.load()

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"", "is not JSON"),
            (b'{"format_version": 1, "keys": [', "is not JSON"),
            (b"\xff", "is not UTF-8"),
            (b" " * (256 << 10) + b" ", "is larger than 256 KiB"),
            (b"[]", "has not format_version and keys"),
        ],
    )
    def test_a_damaged_one_is_named_with_the_cure(self, tmp_path: Path, content: bytes, why: str) -> None:
        file = written(tmp_path)
        (tmp_path / "keys.json").write_bytes(content)
        with pytest.raises(
            StoreError, match=rf"keys\.json cannot be used: it {why}.*; mend that, or name another"
        ):
            file.load()

    def test_what_is_no_file_is_not_read(self, tmp_path: Path) -> None:
        for name in ("folder", "folder/file/below"):
            (tmp_path / "folder").mkdir(exist_ok=True)
            if name != "folder":
                (tmp_path / "folder" / "file").write_text("")
            with pytest.raises(StoreError, match=r"directory"):
                ClientKeyFile(tmp_path / name).load()

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "keys.json", 0o600)
        with pytest.raises(StoreError, match="no plain file"):
            ClientKeyFile(tmp_path / "keys.json").load()

    def test_nothing_is_changed_through_a_link(self, tmp_path: Path) -> None:
        written(tmp_path, ONE)
        link = tmp_path / "link.json"
        link.symlink_to("keys.json")
        assert ClientKeyFile(link).load() == (ONE,)
        with pytest.raises(StoreError, match="is a link"):
            ClientKeyFile(link).change(lambda keys: (*keys, TWO))
        assert ClientKeyFile(link).load() == (ONE,)

    def test_a_change_that_fails_leaves_all_as_it_was(self, tmp_path: Path) -> None:
        file = written(tmp_path, ONE)

        def refuse(keys: tuple[ClientKey, ...]) -> tuple[ClientKey, ...]:
            raise LookupError(keys)

        with pytest.raises(LookupError):
            file.change(refuse)
        assert file.load() == (ONE,)
        assert list(tmp_path.iterdir()) == [tmp_path / "keys.json"]

    def test_a_damaged_one_is_not_written_over(self, tmp_path: Path) -> None:
        file = written(tmp_path)
        (tmp_path / "keys.json").write_text("{")
        with pytest.raises(StoreError):
            file.change(lambda keys: (*keys, TWO))
        assert (tmp_path / "keys.json").read_text() == "{"

    def test_what_a_killed_process_has_left_is_no_hindrance(self, tmp_path: Path) -> None:
        file = written(tmp_path, ONE)
        (tmp_path / "victim").write_text("mine")
        (tmp_path / "keys.json.next").symlink_to("victim")
        file.change(lambda keys: (*keys, TWO))
        assert file.load() == (ONE, TWO)
        assert (tmp_path / "victim").read_text() == "mine"

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="cannot be used"):
            ClientKeyFile(tmp_path / "file" / "keys.json").change(lambda keys: keys)


class TestFile:
    def test_none_is_no_keys(self, tmp_path: Path) -> None:
        assert ClientKeyFile(tmp_path / "keys.json").load() == ()
        assert ClientKeyFile(tmp_path / "absent" / "keys.json").load() == ()

    def test_a_new_one_is_for_this_user_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b" / "keys.json"
        before = os.umask(0)
        try:
            ClientKeyFile(path).change(lambda keys: (*keys, ONE))
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert ClientKeyFile(path).load() == (ONE,)
        assert list(path.parent.iterdir()) == [path]

    async def test_processes_that_change_it_at_once_lose_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        writers = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", ADD, str(path), str(n))
            for n in range(3)
        ]
        assert [await writer.wait() for writer in writers] == [0, 0, 0]
        names = {key.name for key in ClientKeyFile(path).load()}
        assert names == {f"{writer}-{n}" for writer in range(3) for n in range(20)}


class TestRing:
    def ring(self, folder: Path) -> tuple[KeyRing, list[str]]:
        said: list[str] = []
        return KeyRing(ClientKeyFile(folder / "keys.json"), said.append), said

    def test_it_has_what_is_there_now(self, tmp_path: Path) -> None:
        ring, said = self.ring(tmp_path)
        assert ring() == ()
        file = written(tmp_path, ONE)
        assert ring() == (ONE,)
        file.change(lambda keys: (*keys, TWO))
        assert ring() == (ONE, TWO)
        file.change(lambda keys: keys[1:])
        assert ring() == (TWO,)
        (tmp_path / "keys.json").unlink()
        assert ring() == ()
        assert said == []

    def test_an_edit_by_hand_counts_too(self, tmp_path: Path) -> None:
        ring, _ = self.ring(tmp_path)
        written(tmp_path, ONE)
        assert ring() == (ONE,)
        written(tmp_path, ONE, TWO)
        assert ring() == (ONE, TWO)

    def test_one_that_is_damaged_under_it_lets_nobody_in_and_is_told_of_once(self, tmp_path: Path) -> None:
        ring, said = self.ring(tmp_path)
        written(tmp_path, ONE)
        assert ring() == (ONE,)
        (tmp_path / "keys.json").write_text("{")
        assert [ring(), ring(), ring()] == [(), (), ()]
        assert len(said) == 1
        assert "is not JSON" in said[0]
        written(tmp_path, ONE)
        assert ring() == (ONE,)

    def test_it_reads_only_what_has_changed(self, tmp_path: Path) -> None:
        ring, _ = self.ring(tmp_path)
        written(tmp_path, ONE)
        assert ring() is ring()
