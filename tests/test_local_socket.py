"""The name of a Unix socket: what is there before, who comes first, and what is left."""

import fcntl
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from bearerd.errors import CannotListen
from bearerd.local_socket import PATH_LIMIT, LocalSocket
from users import NOBODY, as_user, needs_root, python_as, shared_folder

pytestmark = pytest.mark.threat(14)

# Binds the name in its argument, listens if it is told to, and stays until its input ends.
HOLDER: Final = """
import os, socket, sys
kind = socket.SOCK_DGRAM if sys.argv[2] == "datagrams" else socket.SOCK_STREAM
s = socket.socket(socket.AF_UNIX, kind)
s.bind(sys.argv[1])
if sys.argv[2] == "listens":
    s.listen()
print("ready", flush=True)
sys.stdin.read()
"""


# Says what mode a socket has when it is about to be given another.
WATCHED: Final = """
import os, pathlib, stat, sys
from bearerd.local_socket import LocalSocket

def watch(event, words):
    if event == "os.chmod":
        print(oct(stat.S_IMODE(os.lstat(words[0]).st_mode)))

os.umask(0)
local = LocalSocket(pathlib.Path(sys.argv[1]), 0o660)
sys.addaudithook(watch)
local.open().close()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Ours alone, with a short name: a socket's has room for little more than a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="s-") as folder:
        yield Path(folder).resolve()


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "bearerd.sock"


def held(path: Path, how: str = "listens") -> "subprocess.Popen[bytes]":
    """Another process has a socket of that name."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", HOLDER, str(path), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def refused(path: Path) -> str:
    """Why, without the path. What was there is there still."""
    before = path.lstat() if os.path.lexists(path) else None
    with pytest.raises(CannotListen) as refusal:
        LocalSocket(path, 0o600).open()
    after = path.lstat() if os.path.lexists(path) else None
    assert (before and before.st_ino) == (after and after.st_ino)
    return str(refusal.value).replace(f"{path}", "SOCKET").replace(f"{path.parent}", "FOLDER")


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


class TestWhatIsThereBefore:
    def test_one_that_answers_is_left_alone(self, path: Path) -> None:
        with held(path) as process:
            assert refused(path) == "SOCKET is in use by another program; stop that, or name another path"
            assert connects(path)
            process.communicate()

    def test_one_that_is_no_stream_is_left_alone(self, path: Path) -> None:
        with held(path, "datagrams") as process:
            assert "is in use by another program" in refused(path)
            process.communicate()

    def test_one_whose_queue_is_full_is_left_alone(self, path: Path) -> None:
        """Its process is stopped, not dead."""
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as waiting:
            listening.bind(str(path))
            listening.listen(0)
            waiting.connect(str(path))
            assert "is in use by another program" in refused(path)

    @pytest.mark.parametrize("how", ["listens", "datagrams", "neither"])
    def test_that_of_a_dead_process_is_taken_away(self, path: Path, how: str) -> None:
        held(path, how).communicate()
        assert path.is_socket()
        with LocalSocket(path, 0o600).open():
            assert connects(path)

    @pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo])
    def test_what_is_no_socket_is_left_alone(self, path: Path, make: Callable[[Path], None]) -> None:
        make(path)
        assert refused(path) == "SOCKET is there already and is no socket; move it away, or name another path"

    @pytest.mark.parametrize("target", ["dead.sock", "nothing", "file"])
    def test_a_link_is_not_followed(self, path: Path, target: str) -> None:
        """Not to a dead process's socket either: it may be another service's."""
        held(path.with_name("dead.sock")).communicate()
        path.with_name("file").write_text("precious")
        path.symlink_to(path.with_name(target))
        assert "is there already and is no socket" in refused(path)
        assert path.with_name("dead.sock").is_socket()
        assert path.with_name("file").read_text() == "precious"

    def test_without_a_folder_there_is_none(self, folder: Path) -> None:
        path = folder / "missing" / "s"
        assert refused(path) == (
            "SOCKET cannot be made: no such file or directory; make the folder FOLDER, or name another path"
        )

    def test_a_file_in_place_of_the_folder(self, folder: Path) -> None:
        (folder / "file").touch()
        assert "cannot be made: not a directory; mend that" in refused(folder / "file" / "s")

    def test_a_path_that_is_too_long_leaves_nothing(self, folder: Path) -> None:
        """Settings say so before: the system's own words are about bytes of an address."""
        with pytest.raises((CannotListen, OSError)):
            LocalSocket(folder / ("x" * PATH_LIMIT), 0o600).open()
        assert list(folder.iterdir()) == []

    def test_the_longest_path_there_may_be(self, folder: Path) -> None:
        path = folder / ("x" * (PATH_LIMIT - len(os.fsencode(folder)) - 1))
        assert len(os.fsencode(path)) == PATH_LIMIT
        with LocalSocket(path, 0o600).open():
            assert connects(path)


class TestModes:
    @pytest.mark.threat(14)
    @pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
    @pytest.mark.parametrize("umask", [0, 0o022, 0o777])
    def test_the_mode_is_what_was_asked_for_whatever_the_umask(
        self, path: Path, umask: int, mode: int
    ) -> None:
        before = os.umask(umask)
        try:
            with LocalSocket(path, mode).open():
                assert stat.S_IMODE(path.stat().st_mode) == mode
                assert os.umask(umask) == umask
        finally:
            os.umask(before)

    @pytest.mark.threat(14)
    def test_it_is_never_more_open_than_it_ends(self, path: Path) -> None:
        """From the moment it has its name to the one where it gets its mode."""
        ended = subprocess.run(
            [sys.executable, "-c", WATCHED, str(path)], capture_output=True, text=True, check=True
        )
        assert ended.stdout == "0o600\n"


class TestTurns:
    def test_whoever_waits_for_its_turn_finds_the_first_one_alive(self, path: Path) -> None:
        """Both would take the other's for a dead one's between its name and its first connection."""
        held(path).communicate()
        opened: list[socket.socket] = []
        refusals: list[str] = []
        both = threading.Barrier(2)

        def begin() -> None:
            both.wait()
            try:
                opened.append(LocalSocket(path, 0o600).open())
            except CannotListen as problem:
                refusals.append(str(problem))

        threads = [threading.Thread(target=begin) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(opened) == len(refusals) == 1
        assert "is in use by another program" in refusals[0]
        assert connects(path)
        opened[0].close()

    def test_a_turn_is_waited_for_and_no_longer(self, path: Path) -> None:
        place = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(place, fcntl.LOCK_EX)
            assert refused(path) == (
                "SOCKET cannot be made: another process has locked FOLDER; end it, or name another path"
            )
        finally:
            os.close(place)


class TestTheEnd:
    def test_the_name_is_taken_away(self, path: Path) -> None:
        local = LocalSocket(path, 0o600)
        with local.open():
            local.close()
            assert not path.exists()
            local.close()

    def test_not_where_it_is_another_s_by_now(self, path: Path) -> None:
        local = LocalSocket(path, 0o600)
        with local.open():
            path.unlink()
            with LocalSocket(path, 0o600).open():
                local.close()
                assert connects(path)

    def test_not_before_it_was_made(self, path: Path) -> None:
        path.touch()
        LocalSocket(path, 0o600).close()
        assert path.exists()


@pytest.fixture
def shared() -> Iterator[Path]:
    needs_root()
    with shared_folder() as path:
        yield path


def as_nobody(script: str, *words: str | Path) -> int:
    return as_user(NOBODY, "/bin/sh", "-ec", script, "sh", *words).returncode


class TestThreat14:
    """Another user of this machine was there first."""

    def test_a_socket_of_theirs_is_not_touched(self, shared: Path) -> None:
        path = shared / "s"
        python_as(NOBODY, "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])", path)
        assert refused(path) == (
            f"SOCKET belongs to another user (uid {NOBODY}); have it removed, or name another path"
        )

    @pytest.mark.parametrize("made", ['touch "$1"', 'mkdir -m 777 "$1"', 'ln -s /nowhere "$1"'])
    def test_nor_what_is_none(self, shared: Path, made: str) -> None:
        assert as_nobody(made, shared / "s") == 0
        assert "is no socket" in refused(shared / "s")

    def test_a_folder_of_theirs_is_not_used(self, shared: Path) -> None:
        assert as_nobody('mkdir -m 777 "$1"', shared / "theirs") == 0
        assert refused(shared / "theirs" / "s") == (
            f"SOCKET could be exchanged for another socket: FOLDER belongs to another user (uid {NOBODY}); "
            "give FOLDER to this user, or name another path"
        )

    def test_nor_one_that_a_link_of_theirs_leads_to(self, shared: Path) -> None:
        (shared / "ours").mkdir(mode=0o700)
        assert as_nobody('ln -s "$1/ours" "$1/link"', shared) == 0
        assert "could be exchanged" in refused(shared / "link" / "s")
        assert list((shared / "ours").iterdir()) == []

    def test_nor_one_that_everybody_may_write_to(self, shared: Path) -> None:
        shared.chmod(0o777)
        assert "other users can write to FOLDER; chmod go-w FOLDER" in refused(shared / "s")

    def test_a_sticky_folder_is_good_enough(self, shared: Path) -> None:
        path = shared / "s"
        with LocalSocket(path, 0o600).open():
            for attempt in ('rm -f "$1"', 'mv "$1" "$1.old"', 'ln -sf /nowhere "$1"', 'chmod 666 "$1"'):
                assert as_nobody(attempt, path) != 0
            assert connects(path)
