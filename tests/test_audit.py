"""The file of the audit log: whole lines, in a file that is ours, however it is moved about; and what if it cannot be written."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bearerd.assembly import SystemClock
from bearerd.audit import GATHER_S, LIMIT, AuditFile, AuditLog, open_file
from bearerd.core.calls import Entry, Peer
from bearerd.core.guard import Head
from bearerd.errors import ConfigError
from callers import connected
from daemons import RunningDaemon
from faults import FaultServer, reply, serve

LINES = b"one\ntwo\n"
ENTRY = Entry(Peer(), Head("GET", b"/", (1, 1), ()), 200)
LARGE = Entry(Peer(), Head("GET", b"/" + b"a" * (1 << 20), (1, 1), ()), 200)


async def until_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # there is nothing that would tell
            await asyncio.sleep(0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


# ---------------------------------------------------------------- what is refused


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"log\.audit: .*No such file.*make its folder"):
        open_file(str(tmp_path / "none" / "audit.log"))


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        open_file(str(tmp_path))


def test_a_link_is_not_followed(tmp_path: Path, path: Path) -> None:
    """Or whoever may write in the folder has us write to any file of ours."""
    path.symlink_to(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"log\.audit"):
        open_file(str(path))
    assert not (tmp_path / "other").exists()


def test_no_plain_file(path: Path) -> None:
    """And nobody waits for the other end of a pipe."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(ConfigError, match="not a plain file"):
        open_file(str(path))
    os.close(reader)


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_may_write(path: Path, mode: int) -> None:
    path.touch()
    path.chmod(mode)
    with pytest.raises(ConfigError, match="another user"):
        open_file(str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_a_file_of_another_user(path: Path) -> None:
    path.touch(0o600)
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigError, match="another user"):
        open_file(str(path))


# ---------------------------------------------------------------- the file


def test_it_is_for_this_user_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        AuditFile(path).close()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_there_stays(path: Path) -> None:
    for _ in range(2):
        file = AuditFile(path)
        assert file.append(LINES) == (len(LINES), None)
        file.close()
    assert path.read_bytes() == LINES * 2


@pytest.mark.parametrize("how", ["renamed", "removed", "replaced"])
def test_it_is_opened_anew(path: Path, how: str) -> None:
    file = AuditFile(path)
    file.append(b"before\n")
    if how == "removed":
        path.unlink()
    else:
        path.rename(path.with_suffix(".1"))
    if how == "replaced":
        path.touch(0o600)
    assert file.append(LINES) == (len(LINES), None)
    file.close()
    assert path.read_bytes() == LINES
    assert how == "removed" or path.with_suffix(".1").read_bytes() == b"before\n"


def test_it_is_not_opened_anew_where_it_leads_elsewhere(tmp_path: Path, path: Path) -> None:
    file = AuditFile(path)
    path.unlink()
    path.symlink_to(tmp_path / "other")
    done, reason = file.append(LINES)
    assert (done, (tmp_path / "other").exists()) == (0, False)
    assert reason
    path.unlink()
    assert file.append(LINES) == (len(LINES), None)
    file.close()
    assert path.read_bytes() == LINES


def test_writers_of_one_file_do_not_mix_lines(path: Path) -> None:
    def add(letter: bytes) -> None:
        file = AuditFile(path)
        for _ in range(100):
            file.append(letter * 5000 + b"\n")
        file.close()

    writers = [threading.Thread(target=add, args=(letter,)) for letter in (b"a", b"b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(set(path.read_bytes().splitlines())) == [b"a" * 5000, b"b" * 5000]


NO_ROOM = """
import os, resource, sys
from pathlib import Path
from bearerd.audit import AuditFile
path = Path(sys.argv[1])
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
file = AuditFile(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (6, hard))
done, reason = file.append(b"one\\ntwo\\n")
assert (done, reason) == (4, "File too large"), (done, reason)
assert path.read_bytes() == b"one\\ntw"
assert file.append(b"two\\n") == (0, "File too large")
if sys.argv[2] == "moved":
    path.rename(path.with_suffix(".1"))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert file.append(b"two\\nthree\\n") == (10, None)
"""


@pytest.mark.parametrize(("how", "then"), [("stays", b"one\ntwo\nthree\n"), ("moved", b"two\nthree\n")])
def test_a_line_for_which_there_was_no_room_is_finished(path: Path, how: str, then: bytes) -> None:
    """Where it was begun, or as a whole in another file. The limit is of the process, so it is another one."""
    subprocess.run([sys.executable, "-c", NO_ROOM, str(path), how], check=True)
    assert path.read_bytes() == then


# ---------------------------------------------------------------- the log


class Held:
    """A file on a disk that does not answer until it is let go of."""

    path = Path("held")

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.written = b""
        self.appended = 0

    def append(self, lines: bytes) -> tuple[int, str | None]:
        self.appended += 1
        assert self.let_go.wait(20)
        self.written += lines
        return len(lines), None

    def close(self) -> None:
        """It is none."""


def log(file: AuditFile | Held, *, required: bool = False) -> AuditLog:
    return AuditLog(file, SystemClock(), required=required)  # type: ignore[arg-type]  # a fake has what is asked of it


@pytest.mark.parametrize("required", [False, True])
async def test_a_disk_that_hangs_holds_nobody_up(required: bool) -> None:
    file = Held()
    subject = log(file, required=required)
    taken = LIMIT >> 20  # there is room while there is less than that
    for _ in range(taken + 2):
        subject.write(LARGE)
        await asyncio.sleep(0)
    lost, shut = subject.lost, subject.shut
    file.let_go.set()
    assert (lost, shut) == (2, required)
    await until_true(lambda: file.written.count(b"\n") == taken)
    await until_true(lambda: not subject.shut)
    with capture_logs() as said:
        await subject.aclose()
    assert [(entry["event"], entry["lost"]) for entry in said] == [("audit.incomplete", 2)]


@pytest.mark.parametrize("required", [False, True])
async def test_a_file_that_cannot_be_written_is_said_once_and_tried_again(
    tmp_path: Path, required: bool
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "audit.log"
    with capture_logs() as said:
        subject = log(open_file(str(path)), required=required)
        folder.rename(tmp_path / "away")
        for _ in range(3):
            subject.write(ENTRY)
            await until_true(lambda: bool(said))
        assert subject.shut == required
        folder.mkdir()
        await until_true(lambda: len(said) == 2)
        await subject.aclose()
    assert not subject.shut
    assert [entry["event"] for entry in said] == ["audit.failed", "audit.recovered"]
    assert said[0]["reason"] == "No such file or directory"
    assert [json.loads(line)["status"] for line in path.read_text().splitlines()] == [200] * 3


async def test_what_cannot_be_written_at_the_end_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    subject = log(open_file(str(folder / "audit.log")))
    folder.rename(tmp_path / "away")
    subject.write(ENTRY)
    with capture_logs() as said:
        await subject.aclose()
    assert [entry["event"] for entry in said] == ["audit.failed", "audit.incomplete"]
    assert said[1]["lost"] == 1


async def test_what_came_while_something_was_written_is_there_at_the_end_too() -> None:
    file = Held()
    subject = log(file)
    subject.write(ENTRY)
    await until_true(lambda: subject._writing is not None)
    subject.write(ENTRY)
    closing = asyncio.create_task(subject.aclose())
    await asyncio.sleep(0)
    file.let_go.set()
    await closing
    assert file.written.count(b"\n") == 2
    await asyncio.sleep(GATHER_S * 3)
    assert file.appended == 2


async def test_what_is_written_last_is_there_at_the_end(path: Path) -> None:
    """And nothing after that, when the descriptor may be that of another file."""
    subject = log(open_file(str(path)))
    subject.write(ENTRY)
    await subject.aclose()
    subject.write(ENTRY)
    assert subject.lost == 1
    assert subject._timer is None
    assert json.loads(path.read_text())["path"] == "/"


# ---------------------------------------------------------------- a daemon's

TOML = """
[accounts.work]
token = "the-token"
[routes."/"]
upstream = "{url}"
[log]
audit = "{path}"
"""
CALLS = 120


async def test_each_call_has_one_line_however_often_the_file_is_moved(tmp_path: Path, path: Path) -> None:
    """And none is lost at the end of the process, which comes at once after the last call."""
    async with (
        FaultServer([serve(reply(b"hi"))]) as server,
        RunningDaemon(tmp_path, TOML.format(url=server.url, path=path)) as daemon,
        connected(daemon) as client,
    ):
        for number in range(CALLS):
            client.write(f"GET /{number} HTTP/1.1")
            await client.answer()
            if number % 30 == 29 and path.exists():
                path.rename(path.with_suffix(f".{number}"))
    files = list(tmp_path.glob("audit*"))
    lines = [json.loads(line) for file in files for line in file.read_text("ascii").splitlines()]
    assert len(files) > 1
    assert sorted(int(line["path"][1:]) for line in lines) == list(range(CALLS))
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
