import asyncio
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bearerd.assembly import SystemClock
from bearerd.core.accounts import CommandSource, FileSource
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted
from bearerd.sources.command import CommandTokenSource
from bearerd.sources.file import FileTokenSource
from users import bound_by_permissions


def open_source(path: Path | str) -> FileTokenSource:
    return FileTokenSource(FileSource(str(path)), SystemClock())


async def obtain(source: FileTokenSource) -> Granted | Failure:
    async with asyncio.timeout(15):
        return await source.obtain(None)


async def reason(source: FileTokenSource) -> str:
    outcome = await obtain(source)
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.TRANSIENT
    return outcome.reason


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)


def rename(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(path)


def append(path: Path, text: str) -> None:
    """The same inode, written in place with the same length."""
    with path.open("r+") as file:
        file.write(text)


def move_times_back(path: Path, text: str) -> None:
    """A copy with old times, as `cp -p` and `tar` make them."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.utime(fresh, (1, 1))
    fresh.rename(path)


@pytest.mark.parametrize("change", [rewrite, rename, append, move_times_back])
async def test_a_changed_file_is_read_again(tmp_path: Path, change: Callable[[Path, str], None]) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    source = open_source(path)
    assert source.changed()
    for text in ("first", "other", "third"):
        if text != "first":
            time.sleep(0.02)  # noqa: ASYNC251  # the clock of the file system ticks slowly
            change(path, text + "\n")
            assert source.changed()
        assert await obtain(source) == Granted(Secret(text))
        assert not source.changed()
    await source.aclose()


async def test_a_projected_volume_swaps_a_link(tmp_path: Path) -> None:
    """As Kubernetes does it: token -> ..data/token, ..data -> ..1, and ..data is renamed over."""
    for name, text in (("..1", "first"), ("..2", "second")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "token").symlink_to("..data/token")
    source = open_source(tmp_path / "token")
    assert await obtain(source) == Granted(Secret("first"))
    (tmp_path / "..new").symlink_to("..2")
    assert not source.changed()
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert source.changed()
    assert await obtain(source) == Granted(Secret("second"))
    assert not source.changed()


async def test_a_file_that_comes_goes_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "token"
    source = open_source(path)
    assert not source.changed()
    assert await reason(source) == "the token file cannot be read: No such file or directory"
    assert not source.changed()
    path.write_text("first")
    assert source.changed()
    assert await obtain(source) == Granted(Secret("first"))
    path.unlink()
    assert source.changed()
    await reason(source)
    assert not source.changed()
    path.write_text("second")
    assert source.changed()
    assert await obtain(source) == Granted(Secret("second"))


async def test_what_cannot_be_read(tmp_path: Path) -> None:
    assert await reason(open_source(tmp_path)) == "the token file cannot be read: Is a directory"
    (tmp_path / "file").write_text("x")
    inside = open_source(tmp_path / "file" / "token")
    assert await reason(inside) == "the token file cannot be read: Not a directory"
    (tmp_path / "loop").symlink_to("loop")
    assert "Too many levels" in await reason(open_source(tmp_path / "loop"))
    assert not open_source(tmp_path / "loop").changed()


async def test_a_file_without_permission_and_then_with(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("the-token")
    path.chmod(0)
    source = open_source(path)
    with bound_by_permissions():
        assert "Permission denied" in await reason(source)
        assert not source.changed()
    path.chmod(0o600)
    assert source.changed()
    assert await obtain(source) == Granted(Secret("the-token"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"two words", "holds no token"),
        (b"two\nlines", "holds no token"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * 40_000, "holds no token"),
        (b"{}", "holds no token"),
        (b'{"access_token": "a", "expires_at": 1}', "expired"),
    ],
)
async def test_what_is_no_token(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    source = open_source(path)
    assert expected in await reason(source)
    assert not source.changed()


async def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert "holds no token" in await reason(open_source(path))


async def test_a_named_pipe_that_nobody_writes_to_blocks_nobody(tmp_path: Path) -> None:
    """A thread that waits for ever could not be ended, nor could the process."""
    path = tmp_path / "token"
    os.mkfifo(path)
    source = open_source(path)
    assert "is empty" in await reason(source)
    writer = os.open(path, os.O_RDWR)
    assert "is empty" in await reason(source)
    os.write(writer, b"the-token\n")
    assert await obtain(source) == Granted(Secret("the-token"))
    os.close(writer)


async def test_a_socket_is_no_file(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "token"))
        assert "cannot be read" in await reason(open_source(tmp_path / "token"))


async def test_a_descriptor_of_a_file_is_read_from_its_start_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.lseek(descriptor, 3, os.SEEK_SET)
        source = open_source(f"fd:{descriptor}")
        assert source.changed()
        for _ in range(2):
            assert await obtain(source) == Granted(Secret("first"))
            assert not source.changed()
        time.sleep(0.02)  # noqa: ASYNC251  # the clock of the file system ticks slowly
        path.write_text("second")
        assert source.changed()
        assert await obtain(source) == Granted(Secret("second"))
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 3
        await source.aclose()
        os.fstat(descriptor)
    finally:
        os.close(descriptor)


async def test_a_descriptor_of_a_pipe_is_read_once() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"the-")
    os.write(writer, b"token\n")
    os.close(writer)
    source = open_source(f"fd:{reader}")
    assert source.changed()
    for _ in range(3):
        assert await obtain(source) == Granted(Secret("the-token"))
        assert not source.changed()
    os.close(reader)
    assert not source.changed()
    assert await obtain(source) == Granted(Secret("the-token"))


async def test_a_pipe_that_says_too_much_is_not_read_to_its_end() -> None:
    reader, writer = os.pipe()
    source = open_source(f"fd:{reader}")
    task = asyncio.create_task(obtain(source))
    written = await asyncio.to_thread(write_until_read, writer, task)
    assert written < 4 << 20
    assert isinstance(await task, Failure)
    os.close(reader)


def write_until_read(writer: int, task: "asyncio.Task[Granted | Failure]") -> int:
    """Write as fast as the other side reads, until it has enough."""
    os.set_blocking(writer, False)
    written = 0
    deadline = time.monotonic() + 5
    while not task.done() and written < 8 << 20 and time.monotonic() < deadline:
        try:
            written += os.write(writer, b"x" * 65536)
        except BlockingIOError:
            time.sleep(0.001)
    os.close(writer)
    return written


async def test_a_descriptor_is_not_handed_on_to_commands(tmp_path: Path) -> None:
    """Uvloop closes nothing of its own accord in what it starts."""
    path = tmp_path / "token"
    path.write_text("s3cret")
    descriptor = os.open(path, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    source = open_source(f"fd:{descriptor}")
    command = CommandSource(("sh", "-c", f"cat /dev/fd/{descriptor} || echo none"), 5)
    assert await CommandTokenSource(command, SystemClock()).obtain(None) == Granted(Secret("none"))
    assert await obtain(source) == Granted(Secret("s3cret"))
    os.close(descriptor)


async def test_a_closed_descriptor() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    os.close(reader)
    source = open_source(f"fd:{reader}")
    assert await reason(source) == "the token file cannot be read: Bad file descriptor"
    assert not source.changed()
