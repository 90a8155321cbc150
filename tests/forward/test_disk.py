"""Bodies that are kept on disk: sent again as they came, left nowhere, and no call fails for the disk's sake."""

import asyncio
import os
import random
import stat
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from bearerd.core.configuration import Limits
from bearerd.forward.disk import DiskFile
from bearerd.forward.spool import Disk, Spool, SpoolBudget
from callers import ANOTHER, Client, connected, running, split
from daemons import RunningDaemon, kill, killed
from faults import FaultServer, Step, hang, read, read_head, reply, send, serve
from pouring import Sender, Source, send_all
from users import looks_into_daemon

KiB: Final = 1 << 10
HI: Final = reply(b"hi")
NO: Final = reply(b"no", "401 Unauthorized")
LIMITS: Final = Limits(replay_body=64 * KiB, spool_body=512 * KiB, spool_total=KiB * KiB)
CANARY: Final = b"canary-in-a-body"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bearerd" / "bodies"


def files_of(pid: int | str, folder: Path) -> dict[str, str]:
    """Which descriptors of a process lead into `folder`, and what the system says of their names."""
    found = {}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if name.startswith(str(folder)):
            found[str(descriptor)] = name
    return found


async def no_files(folder: Path) -> None:
    """They are closed in a thread."""
    async with asyncio.timeout(15):
        while files_of("self", folder):  # noqa: ASYNC110  # there is nothing to be told by
            await asyncio.sleep(0.01)
    assert list(folder.iterdir()) == []


async def one_file(folder: Path, size: int) -> Path:
    """The only file there is, when it has got so far."""
    async with asyncio.timeout(15):
        while True:
            found = list(files_of("self", folder))
            if found and Path(found[0]).stat().st_size >= size:
                assert len(found) == 1
                return Path(found[0])
            await asyncio.sleep(0.01)


@asynccontextmanager
async def spooling(
    *scripts: list[Step], limits: Limits = LIMITS, disk_spool: bool = True
) -> AsyncIterator[tuple[Client, FaultServer]]:
    async with (
        FaultServer(*scripts) as server,
        running(
            server.url, source=ANOTHER, limits=limits, disk_spool=disk_spool, expect_continue=False
        ) as daemon,
        connected(daemon) as client,
    ):
        yield client, server


def body_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # made up, and no secret


# ---------------------------------------------------------------- what is left behind


async def test_what_is_on_disk_has_no_name_and_is_closed_to_others(folder: Path) -> None:
    async with spooling([read_head, hang]) as (client, _):
        client.write("POST / HTTP/1.1", "Content-Length: 500000", body=CANARY + bytes(200_000))
        file = await one_file(folder, 100_000)
        found = file.stat()
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert found.st_nlink == 0
        assert found.st_uid == os.geteuid()
        assert file.read_bytes().startswith(CANARY)
        assert list(folder.iterdir()) == []
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("how", ["answered", "replayed", "given up", "cut off"])
async def test_nothing_is_left_after_the_call(folder: Path, how: str) -> None:
    scripts: dict[str, list[Step]] = {
        "answered": [serve(HI)],
        "replayed": [serve(NO, HI)],
        "given up": [read_head, hang],
        "cut off": [read_head],
    }
    body = body_of(300_000)
    sent = body if how in {"answered", "replayed"} else body[:200_000]
    async with spooling(scripts[how]) as (client, _):
        client.write("POST / HTTP/1.1", f"Content-Length: {len(body)}", body=sent)
        if how == "given up":
            await one_file(folder, 100_000)
            client.writer.transport.abort()
        elif how == "cut off":
            assert b" 502 " in await client.answer()
        else:
            await client.exactly(HI)
        folder.mkdir(parents=True, exist_ok=True)  # it may have been too short for a file
        await no_files(folder)


@looks_into_daemon
async def test_nothing_is_left_of_a_daemon_that_is_killed(tmp_path: Path, folder: Path) -> None:
    toml = '[accounts.work]\ntoken = "t"\n[limits]\nreplay_body = 1000\n[routes."/"]\nspool = "disk"\nupstream = "{}"\n'
    async with FaultServer([read_head, hang]) as server:
        daemon = RunningDaemon(tmp_path, toml.format(server.url), runtime=tmp_path)
        async with killed(daemon):
            reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
            head = f"POST / HTTP/1.1\r\nHost: localhost:{daemon.port}\r\nContent-Length: 900000\r\n\r\n"
            writer.write(head.encode() + CANARY * 20_000)
            async with asyncio.timeout(10):
                while not files_of(daemon.pid, folder):  # noqa: ASYNC110  # it happens in another process
                    await asyncio.sleep(0.01)
            assert all(name.endswith("(deleted)") for name in files_of(daemon.pid, folder).values())
            await kill(daemon)
            writer.transport.abort()
        del reader
    assert list(folder.iterdir()) == []
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert CANARY not in file.read_bytes()


# ---------------------------------------------------------------- what is sent again


@pytest.mark.parametrize("size", [64 * KiB, 64 * KiB + 1, 300_001, 512 * KiB])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_is_sent_again_as_it_came(folder: Path, size: int, chunked: bool) -> None:
    body = body_of(size)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    async with spooling([serve(NO, HI)], [serve(HI)]) as (client, server):  # which a slow disk needs
        wire = b"".join(
            b"%x\r\n%b\r\n" % (len(body[at : at + 9999]), body[at : at + 9999]) for at in range(0, size, 9999)
        )
        client.write("POST / HTTP/1.1", framing, body=wire + b"0\r\n\r\n" if chunked else body)
        await client.exactly(HI)
    for request in server.requests:
        got = split(request)[2]
        assert (dechunked(got) if chunked else got) == body
    assert len(server.requests) == 2
    assert folder.exists() == (size > 64 * KiB)


def dechunked(raw: bytes) -> bytes:
    body = bytearray()
    while (size := int(raw.partition(b"\r\n")[0], 16)) > 0:
        start = raw.index(b"\r\n") + 2
        body += raw[start : start + size]
        raw = raw[start + size + 2 :]
    return bytes(body)


async def test_an_early_401_while_the_body_goes_to_disk(folder: Path) -> None:
    """The first attempt is given up in the middle of whatever it is doing, and the second has it all."""
    body = body_of(500_000)
    async with spooling([read_head, send(NO), hang], [serve(HI)]) as (client, server):
        client.write("POST / HTTP/1.1", f"Content-Length: {len(body)}", body=body[:150_000])
        await one_file(folder, 100_000)
        for at in range(150_000, len(body), 25_000):
            client.writer.write(body[at : at + 25_000])
            await asyncio.sleep(0.02)
        await client.exactly(HI)
        assert split(server.requests[0])[2] == body


async def test_a_body_that_is_all_there_on_a_kept_connection(folder: Path) -> None:
    """It is sent without further ado, and is still in memory when it is sent again."""
    body = body_of(5000)
    limits = Limits(replay_body=1000, spool_body=5000, spool_total=5000)
    async with spooling([serve(HI, NO, HI, NO, HI)], limits=limits) as (client, server):
        client.write("GET / HTTP/1.1")
        await client.exactly(HI)
        for _ in range(2):  # the second time there is room because the first has given it back
            client.write("POST / HTTP/1.1", f"Content-Length: {len(body)}", body=body)
            await client.exactly(HI)
        assert server.connections == 1
    assert [split(request)[2] for request in server.requests] == [b"", *[body] * 4]
    assert not folder.exists() or list(folder.iterdir()) == []


async def test_nothing_goes_to_disk_on_a_route_that_does_not_want_it(folder: Path) -> None:
    async with spooling([serve(NO)], disk_spool=False) as (client, server):
        client.write("POST / HTTP/1.1", "Content-Length: 100000", body=bytes(100_000))
        await client.exactly(NO)
    assert len(server.requests) == 1
    assert not folder.exists()


async def test_a_body_over_the_limit_passes_and_is_not_sent_again(folder: Path) -> None:
    """Nor does it go to disk in vain where its length is known."""
    body = body_of(512 * KiB + 1)
    async with spooling([serve(NO)]) as (client, server):
        client.write("POST / HTTP/1.1", f"Content-Length: {len(body)}", body=body)
        await client.exactly(NO)
        assert split(server.requests[0])[2] == body
        assert not folder.exists()
        wire = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        client.write("POST / HTTP/1.1", "Transfer-Encoding: chunked", body=wire)
        await client.exactly(NO)
        assert dechunked(split(server.requests[1])[2]) == body
        await no_files(folder)
    assert len(server.requests) == 2


# ---------------------------------------------------------------- disks that fail


@pytest.fixture
def full(tmp_path: Path, folder: Path) -> Iterator[Path]:
    """A file system of its own with room for a part of a body."""
    disk = tmp_path / "cache"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)], check=True)
    yield folder
    subprocess.run(["umount", str(disk)], check=True)


def in_the_way(folder: Path) -> None:
    folder.parents[1].write_text("a file where a folder should be")


async def costs_nothing_but_the_replay(capsys: pytest.CaptureFixture[str]) -> None:
    """The body gets there whole, and the 401 is passed on."""
    body = body_of(400_000)
    async with spooling([serve(HI, NO)]) as (client, server):
        for answer in (HI, NO):
            client.write("POST / HTTP/1.1", f"Content-Length: {len(body)}", body=body)
            await client.exactly(answer)
    assert [split(request)[2] for request in server.requests] == [body] * 2
    assert "body.not_kept" in "".join(capsys.readouterr())


async def test_a_full_disk(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await costs_nothing_but_the_replay(capsys)
    await no_files(full)


async def test_a_folder_that_cannot_be_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_the_way(folder)
    await costs_nothing_but_the_replay(capsys)


async def test_a_disk_that_does_not_give_back_what_was_written(folder: Path) -> None:
    """Then there is nothing to send: the call is told so, and that it is not its fault."""
    emptied = asyncio.Event()

    async def wait(_: object) -> None:
        await emptied.wait()

    async with spooling([read, wait, send(NO), read, hang]) as (client, server):
        client.write("POST / HTTP/1.1", "Content-Length: 300000", body=bytes(300_000))
        file = await one_file(folder, 300_000)
        with file.open("r+b") as opened:
            opened.truncate(100_000)
        emptied.set()
        status, problem = await client.problem()
        assert (status, problem["code"]) == (500, "internal_error")
        assert len(server.requests) == 1


# ---------------------------------------------------------------- budgets


async def test_all_calls_together_keep_no_more_than_the_budget(tmp_path: Path) -> None:
    memory, disk = SpoolBudget(10, 4), Disk(tmp_path, SpoolBudget(20, 12))
    spools = []
    for _ in range(3):
        source = Source()
        spools.append(Spool(source.content, memory, disk))
        for _ in range(3):
            source.feed(b"abcd")
            sender = Sender(1)
            task = asyncio.create_task(spools[-1].pour(sender.write, sender.drain))
            await sender.full.wait()
            task.cancel()
            await asyncio.wait([task])
        source.feed(end=True)
        assert await send_all(spools[-1]) == b"abcd" * 3 or not spools[-1].replayable
    assert [spool.replayable for spool in spools] == [True, False, False]
    assert (memory.left, disk.budget.left) == (10, 8)
    for spool in spools:
        spool.release()
        spool.release()
    assert (memory.left, disk.budget.left) == (10, 20)
    await no_files(tmp_path)


async def test_given_up_again_and_again(tmp_path: Path) -> None:
    """At any moment, in the middle of a write as well: all that came is read again, in order."""
    source, chance = Source(), random.Random(7)
    memory, disk = SpoolBudget(100, 10), Disk(tmp_path, SpoolBudget(1 << 20, 1 << 20))
    spool = Spool(source.content, memory, disk)
    body = b""
    for number in range(60):
        task = asyncio.create_task(send_all(spool))
        source.feed(b"%d," % number)
        body += b"%d," % number
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0.0003 * chance.randrange(2))
        task.cancel()
        await asyncio.wait([task])
    source.feed(b"60", end=True)
    body += b"60"
    assert [await send_all(spool) for _ in range(2)] == [body] * 2
    assert (memory.left, disk.budget.left) == (100, (1 << 20) - len(body))
    spool.release()
    await no_files(tmp_path)


async def test_what_the_writing_of_was_given_up_is_not_there(tmp_path: Path) -> None:
    """Though it is in the file."""
    file = DiskFile(tmp_path)
    assert await file.append(b"abc")
    task = asyncio.create_task(file.append(b"def"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert await file.append(b"de")
    assert file.size == 5
    assert [await file.read(at) for at in (0, 3)] == [b"abcde", b"de"]
    file.close()
    await no_files(tmp_path)


async def test_a_slow_disk_holds_nothing_else_up(tmp_path: Path) -> None:
    file = DiskFile(tmp_path)
    began = threading.Event()
    go_on = threading.Event()

    def work() -> bool:
        began.set()
        return go_on.wait(5)

    task = asyncio.create_task(file._do(work))
    async with asyncio.timeout(15):
        while not began.is_set():  # noqa: ASYNC110  # in a thread
            await asyncio.sleep(0.01)
    assert not task.done()
    go_on.set()
    assert await task


async def test_a_file_that_is_closed_while_it_is_written(tmp_path: Path) -> None:
    """It is closed when that has ended: until then its number is not another file's."""
    file = DiskFile(tmp_path)
    task = asyncio.create_task(file.append(bytes(8 << 20)))
    await asyncio.sleep(0)
    task.cancel()
    file.close()
    await asyncio.wait([task])
    assert file._work is not None
    await asyncio.wait([file._work])
    await no_files(tmp_path)
    assert file.size == 0
