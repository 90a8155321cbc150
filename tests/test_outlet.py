"""The log's way out of the process: a reader that does not read, or has gone, stops nothing."""

import asyncio
import fcntl
import json
import os
import re
import sys
import termios
import threading
from array import array
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from bearerd.outlet import LIMIT, Outlet
from callers import connected
from faults import FaultServer, reply, serve
from scrapes import read_samples

LINE: Final = "x" * 1023 + "\n"
PATIENCE_S: Final = 60.0


class Pipe:
    """Both ends of a pipe, and what was told of lines that were lost."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self._hung_up = False
        self.told: list[int] = []
        self.outlet = Outlet(self.writing, self.told.append)

    def read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = os.read(self.reading, size - len(found))
            assert piece, found[-100:]
            found += piece
        return found

    def hang_up(self) -> None:
        if not self._hung_up:
            os.close(self.reading)
            self._hung_up = True

    def full(self) -> None:
        """Wait until it takes no more."""
        before = -1
        while (now := self._pending()) != before or now == 0:
            before = now
            threading.Event().wait(0.05)

    def _pending(self) -> int:
        count = array("i", [0])
        fcntl.ioctl(self.reading, termios.FIONREAD, count)
        return count[0]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    subject = Pipe()
    yield subject
    subject.hang_up()
    subject.outlet.close()
    os.close(subject.writing)


@pytest.mark.timeout(60)
def test_a_reader_that_does_not_read_holds_nobody_up_and_what_is_lost_is_told(pipe: Pipe) -> None:
    pipe.outlet.write(LINE * 200)  # more than a pipe holds
    pipe.full()
    written = 2 * LIMIT // len(LINE)
    for _ in range(written):
        pipe.outlet.write(LINE)
    kept = LIMIT // len(LINE) + 1
    assert pipe.read((200 + kept) * len(LINE)) == LINE.encode() * (200 + kept)
    pipe.outlet.write("last\n")
    assert pipe.read(5) == b"last\n"
    pipe.outlet.close()
    assert pipe.told == [written - kept]


@pytest.mark.timeout(60)
def test_the_end_waits_for_a_reader_that_does_not_read_only_so_long(pipe: Pipe) -> None:
    pipe.outlet.write(LINE * 200)
    pipe.full()
    pipe.outlet.close()
    assert pipe.outlet._thread.is_alive()


def test_a_reader_that_has_gone_is_no_error(pipe: Pipe) -> None:
    pipe.hang_up()
    for _ in range(3):
        pipe.outlet.write(LINE)
    pipe.outlet.close()
    assert not pipe.outlet._thread.is_alive()


@pytest.mark.timeout(60)
def test_a_descriptor_that_does_not_block_loses_nothing(pipe: Pipe) -> None:
    """It is shared with whoever made it so."""
    os.set_blocking(pipe.writing, False)
    pipe.outlet.write(LINE * 300)
    pipe.full()
    assert pipe.read(300 * len(LINE)) == LINE.encode() * 300


def test_what_is_written_last_is_there_at_the_end(pipe: Pipe) -> None:
    pipe.outlet.write("a\n")
    pipe.outlet.write("\udc80é\n")
    pipe.outlet.close()
    assert pipe.read(11) == b"a\n\\udc80\xc3\xa9\n"
    assert not pipe.outlet._thread.is_alive()


def test_lines_of_several_threads_are_whole_and_each_threads_in_order(pipe: Pipe) -> None:
    def write(name: int) -> None:
        for number in range(200):
            pipe.outlet.write(f"{name} {number:03}\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    lines = pipe.read(800 * 6).decode().splitlines()
    for thread in threads:
        thread.join()
    for name in "0123":
        assert [line[2:] for line in lines if line[0] == name] == [f"{number:03}" for number in range(200)]


# ---------------------------------------------------------------- a daemon's

TOML: Final = """
[listen]
port = 0
[accounts.work]
token = "the-token"
[routes."/"]
upstream = "{url}"
"""
CALLS: Final = 400
LONG: Final = "a" * 15_000  # so that these are more than waits in a pipe, and than may wait for it


class Mute:
    """A daemon whose standard error goes to a pipe that is read only when the test says so."""

    def __init__(self, folder: Path, url: str, more: str = "") -> None:
        self._file = folder / "bearerd.toml"
        self._file.write_text(TOML.format(url=url) + more)
        self._file.chmod(0o600)
        self.said = b""
        self.port = 0

    async def start(self) -> None:
        self._reading, writing = os.pipe()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bearerd", "run", "-c", str(self._file)), stderr=writing
        )
        os.close(writing)
        await self.read_until(b"daemon.listening")
        found = re.search(rb"http://127\.0\.0\.1:(\d+)", self.said)
        assert found
        self.port = int(found[1])

    async def read_until(self, text: bytes) -> list[dict[str, Any]]:
        """The events that have come by the line that has `text` in it."""
        async with asyncio.timeout(PATIENCE_S):
            while text not in self.said or not self.said.endswith(b"\n"):
                self.said += await asyncio.to_thread(os.read, self._reading, 65536)
        return [json.loads(line) for line in self.said.splitlines() if line.startswith(b"{")]

    async def end(self) -> int:
        self._process.terminate()
        async with asyncio.timeout(PATIENCE_S):
            return await self._process.wait()

    def close(self) -> None:
        os.close(self._reading)
        if self._process.returncode is None:
            self._process.kill()


async def call(daemon: Mute, *paths: str) -> None:
    async with connected(daemon) as client:
        for path in paths:
            client.write(f"GET /{path} HTTP/1.1")
            assert (await client.answer()).endswith(b"hi")


@pytest.mark.timeout(120)
async def test_a_log_that_nobody_reads_stops_no_call_nor_the_end(tmp_path: Path) -> None:
    async with FaultServer([serve(reply(b"hi"))]) as server:
        daemon = Mute(tmp_path, server.url)
        await daemon.start()
        try:
            await call(daemon, *(f"{number}/{LONG}" for number in range(CALLS)))
            await daemon.read_until(b"log.dropped")
            await call(daemon, "last")
            events = await daemon.read_until(b'"/last"')
            samples = await read_samples(daemon)
            await call(daemon, *(f"{number}/{LONG}" for number in range(20)))
            assert await daemon.end() == 0
        finally:
            daemon.close()
    dropped = [event["lines"] for event in events if event["event"] == "log.dropped"]
    calls = [event for event in events if event["event"] == "request.forwarded"]
    assert sum(dropped) + len(calls) == CALLS + 1
    assert sum(dropped) > 0
    assert samples["bearerd_log_lines_lost_total{}"] == sum(dropped)


BARE: Final = """
account = "work"
[accounts.login]
refresh_token = "one-use"
token_endpoint = "http://127.0.0.1:9/token"
client_id = "c"
client_auth = "none"
[store]
kind = "memory"
[log]
format = "json"
level = "debug"
"""


@pytest.mark.timeout(120)
async def test_each_line_is_json_where_that_is_wanted(tmp_path: Path) -> None:
    """From the first to the last, whatever clients and upstreams do, and whatever the configuration has to be warned of."""
    no = reply(b"no", "401 Unauthorized")
    async with FaultServer([serve(no)]) as server:
        daemon = Mute(tmp_path, server.url, BARE)
        await daemon.start()
        try:
            for request in (
                b"GET /a HTTP/1.1\r\nHost: localhost:%d\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: evil\x7f:%d\r\n\r\n",
                b"\x00nonsense %d\r\n\r\n",
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
                writer.write(request % daemon.port)
                assert await reader.read(1)
                writer.transport.abort()
            assert await daemon.end() == 0
            await daemon.read_until(b"daemon.stopped")
        finally:
            daemon.close()
    events = [json.loads(line)["event"] for line in daemon.said.splitlines()]
    assert {
        "config.warning",
        "daemon.listening",
        "request.forwarded",
        "request.unreadable",
        "daemon.stopped",
    } <= set(events)


async def reach(
    path: Path, process: asyncio.subprocess.Process
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the socket at `path`, once `process` listens there."""
    while True:
        assert process.returncode is None
        with suppress(FileNotFoundError, ConnectionRefusedError):
            return await asyncio.open_unix_connection(str(path))
        await asyncio.sleep(0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets in asyncio there")
async def test_a_daemon_whose_standard_streams_are_closed_serves_and_ends(tmp_path: Path) -> None:
    """And no connection gets their numbers, to which anything in the process may write."""
    path = tmp_path / "s"
    file = tmp_path / "bearerd.toml"
    async with FaultServer([serve(reply(b"hi"))]) as server:
        file.write_text(TOML.format(url=server.url).replace("port = 0", f'hosts = []\nsocket = "{path}"'))
        file.chmod(0o600)
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"),
            *(sys.executable, "-m", "bearerd", "run", "-c", str(file)),
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                reader, writer = await reach(path, process)
                writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200 ")
                writer.transport.abort()
                process.terminate()
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
