"""The line that a call leaves in the audit log, whichever way it goes and however it ends."""

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from bearerd.core.accounts import CommandSource, FileSource, Source
from bearerd.core.client_keys import ClientKey, build_document, build_key, digest_of
from bearerd.core.configuration import Keys, Logging
from bearerd.core.field_rules import build_field_rules
from bearerd.core.rules import build_rules
from bearerd.daemon import Daemon
from bearerd.errors import ConfigError
from bearerd.forward.handler import Forwarder
from callers import ANOTHER, STATIC, Client, connected, running, warm
from faults import FaultServer, Peer, Step, hang, read, refused_port, reply, reset, send, serve, talk, until

HI: Final = reply(b"hi")
NO: Final = reply(b"no", "401 Unauthorized")
BODY: Final = ("Content-Length: 3",)
OURS: Final = hashlib.sha256(b"the-token").hexdigest()[:16]
WHOLE: Final = {"route": "/", "account": "work", "problem": None, "cut": None, "replayed": False}


class Audited:
    """A daemon with an audit log before `server`, and a client of it."""

    def __init__(self, path: Path, daemon: Daemon, server: FaultServer, client: Client) -> None:
        self.path = path
        self.daemon = daemon
        self.server = server
        self.client = client

    async def lines(self, count: int = 1) -> list[dict[str, Any]]:
        """All that there are, once there are so many."""
        await until_true(lambda: self.path.read_bytes().count(b"\n") >= count)
        found = self.path.read_text("ascii").splitlines()
        assert len(found) == count
        return [json.loads(line) for line in found]

    async def line(self) -> dict[str, Any]:
        (line,) = await self.lines()
        return line


async def until_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # there is nothing that would tell
            await asyncio.sleep(0.01)


async def arrived(server: FaultServer) -> None:
    await until_true(lambda: bool(server.requests))


async def read_abc(peer: Peer) -> None:
    """Read until these bytes have come."""
    while not peer.received.endswith(b"abc"):
        assert await peer._receive()


@pytest.fixture(params=[False, True], ids=["ordinary", "direct"])
def kept(request: pytest.FixtureRequest) -> bool:
    """Whether there is a connection to the upstream already, so that calls are made without a task."""
    return bool(request.param)


@asynccontextmanager
async def audited(
    path: Path,
    *scripts: Sequence[Step],
    kept: bool = False,
    source: Source = STATIC,
    required: bool = False,
    **of: Any,
) -> AsyncIterator[Audited]:
    log = Logging(audit=str(path), audit_required=required)
    async with (
        FaultServer(*scripts) as server,
        running(server.url, source=source, log=log, **of) as daemon,
        connected(daemon) as client,
    ):
        if kept:
            await warm(daemon)
        yield Audited(path, daemon, server, client)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


# ---------------------------------------------------------------- how calls end badly


async def test_a_client_that_leaves_before_the_answer(path: Path, kept: bool) -> None:
    async with audited(path, [read, hang], kept=kept) as world:
        world.client.write("POST /a?q HTTP/1.1", *BODY, body=b"abc")
        await arrived(world.server)
        world.client.writer.transport.abort()
        line = await world.line()
    assert line.items() >= {"path": "/a", "status": None, "cut": "client", "token": OURS}.items()
    assert (line["bytes_in"], line["bytes_out"]) == (3, 0)


async def test_a_client_that_leaves_a_stream(path: Path, kept: bool) -> None:
    """As of events: what was sent until then is what counts."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with audited(path, [read, send(head + b"5\r\nevent\r\n"), hang], kept=kept) as world:
        world.client.write("GET /events HTTP/1.1")
        async with asyncio.timeout(15):
            await world.client.reader.readuntil(b"event")
        assert not path.read_bytes()
        world.client.writer.transport.abort()
        line = await world.line()
    assert line.items() >= {"status": 200, "cut": "client", "bytes_out": 5}.items()


async def test_a_client_that_leaves_in_its_upload(path: Path) -> None:
    async with audited(path, [read_abc, hang]) as world:
        world.client.write("POST / HTTP/1.1", "Content-Length: 10", body=b"abc")
        await until_true(lambda: any(peer.received.endswith(b"abc") for peer in world.server.peers))
        world.client.writer.transport.abort()
        line = await world.line()
    assert line.items() >= {"status": None, "cut": "client", "bytes_in": 3}.items()


async def test_an_upstream_that_breaks_off(path: Path, kept: bool) -> None:
    async with audited(path, [read, send(HI[:-1]), reset], kept=kept) as world:
        world.client.write("GET / HTTP/1.1")
        with pytest.raises(OSError):  # noqa: PT011  # whichever way the loop says that it was reset
            assert await world.client.rest() is None
        line = await world.line()
    assert line.items() >= {"status": 200, "cut": "upstream", "problem": None}.items()


async def test_an_upstream_that_is_not_there(path: Path) -> None:
    log = Logging(audit=str(path))
    async with (
        running(f"http://127.0.0.1:{refused_port()}", log=log) as daemon,
        connected(daemon) as client,
    ):
        client.write("GET / HTTP/1.1")
        status, problem = await client.problem()
    line = json.loads(path.read_text())
    assert (line["status"], line["problem"]) == (status, problem["code"])


async def test_a_token_that_is_not_to_be_had(path: Path, tmp_path: Path) -> None:
    async with audited(path, [hang], source=FileSource(str(tmp_path / "none"))) as world:
        world.client.write("GET / HTTP/1.1")
        status, problem = await world.client.problem()
        line = await world.line()
    assert line.items() >= {"status": status, "problem": problem["code"], "token": None}.items()


async def test_a_defect_of_our_own(path: Path) -> None:
    async with audited(path, [hang]) as world:
        del world.daemon._front._forwarder._pool
        world.client.write("POST / HTTP/1.1", *BODY, body=b"abc")
        status, problem = await world.client.problem()
        line = await world.line()
    assert (line["status"], line["problem"]) == (status, problem["code"]) == (500, "internal_error")


async def test_the_end_of_the_daemon(path: Path) -> None:
    async with FaultServer([read, hang]) as server:
        async with running(server.url, log=Logging(audit=str(path))) as daemon:
            _, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % daemon.port)
            await arrived(server)
        writer.transport.abort()
    line = json.loads(path.read_text())
    assert line.items() >= {"status": None, "cut": "stop"}.items()


@pytest.mark.parametrize(
    ("start_line", "fields", "problem"),
    [
        ("GET /a?b HTTP/1.1", ("Origin: http://evil.test",), "origin_refused"),
        ("TRACE /a?b HTTP/1.1", (), "method_refused"),
        ("GET /a?b HTTP/1.1", ("Sec-Fetch-Site: cross-site",), "origin_refused"),
        ("DELETE /a?b HTTP/1.1", (), "refused_by_read_only"),
        ("GET /a?access_token=x HTTP/1.1", (), "token_in_query"),
    ],
)
async def test_what_is_refused_has_a_line_too(
    path: Path, start_line: str, fields: tuple[str, ...], problem: str
) -> None:
    async with audited(path, [hang], rules=build_rules(read_only=True)) as world:
        world.client.write(start_line, *fields)
        status, _ = await world.client.problem()
        line = await world.line()
        assert not world.server.requests
    assert line.items() >= {"path": "/a", "status": status, "problem": problem, "token": None}.items()


async def test_a_path_without_a_route(path: Path) -> None:
    log = Logging(audit=str(path))
    async with running(log=log) as daemon, connected(daemon) as client:
        client.write("GET /%0A{ HTTP/1.1")
        assert (await client.problem())[0] == 404
    line = json.loads(path.read_text())
    assert line.items() >= {"path": "/%0A{", "status": 404, "problem": "no_route", "route": None}.items()


async def test_a_host_that_is_not_ours(path: Path) -> None:
    async with audited(path, [hang]) as world:
        world.client.writer.write(b"GET /a HTTP/1.1\r\nHost: evil.test\r\n\r\n")
        assert (await world.client.problem())[0] == 421
        assert (await world.line())["problem"] == "wrong_authority"


async def test_no_byte_of_a_path_forges_a_line(path: Path) -> None:
    """What the parser does not take is no call; what it takes, the upstream has got, and the line says it."""
    async with audited(path, [serve(HI)]) as world:
        for byte in range(256):
            head = b"GET /a%bb HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n"
            await talk(world.daemon.port, head % (bytes([byte]), world.client.host.encode()))
        sent = [request.split(b" ")[1].partition(b"?")[0] for request in world.server.requests]
        lines = await world.lines(len(sent))
    assert len(sent) > 80
    assert sorted(line["path"].encode("latin-1") for line in lines) == sorted(sent)


# ---------------------------------------------------------------- a log that cannot be written


async def test_a_log_that_cannot_be_opened_ends_the_start_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"log\.audit: .*make its folder"):
        async with running("http://127.0.0.1:1", log=Logging(audit=str(tmp_path / "none" / "x"))):
            pass


@pytest.mark.parametrize(("kept", "required"), [(False, False), (True, True)])
async def test_while_it_cannot_be_written_calls_go_on_unless_it_is_required(
    tmp_path: Path, kept: bool, required: bool
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    async with audited(folder / "audit.log", [serve(HI)], kept=kept, required=required) as world:
        folder.rename(tmp_path / "away")
        client, log = world.client, world.daemon._regime.audit
        assert log is not None
        client.write("GET /first HTTP/1.1")
        assert (await client.answer()).endswith(b"hi")
        await until_true(lambda: log._failing)
        client.write("GET /second HTTP/1.1")
        if required:
            status, problem = await client.problem()
            assert (status, problem["code"]) == (503, "audit_unavailable")
        else:
            assert (await client.answer()).endswith(b"hi")
        assert len(world.server.requests) == 1 + (not required)
        folder.mkdir()
        await until_true(lambda: not log._failing)
        client.write("GET /third HTTP/1.1")
        assert (await client.answer()).endswith(b"hi")
        lines = await world.lines(3)
    assert [line["path"] for line in lines] == ["/first", "/second", "/third"]
    assert lines[1]["problem"] == ("audit_unavailable" if required else None)


# ---------------------------------------------------------------- calls that end well


async def test_a_call(path: Path, kept: bool) -> None:
    async with audited(path, [serve(HI)], kept=kept) as world:
        before = asyncio.all_tasks()
        world.client.write("PUT /a?b=c HTTP/1.1", *BODY, body=b"abc")
        await world.client.answer()
        assert kept == (asyncio.all_tasks() <= before)
        line = await world.line()
    assert line.items() >= WHOLE.items()
    assert line.items() >= {"method": "PUT", "path": "/a", "status": 200, "token": OURS}.items()
    assert (line["bytes_in"], line["bytes_out"]) == (3, 2)
    assert (line["client"], line["uid"]) == (None, os.geteuid() if sys.platform == "linux" else None)
    assert 0 < line["duration_s"] < 60


@pytest.mark.parametrize("framing", ["chunked", None])
async def test_bytes_are_those_of_the_body_however_it_is_framed(path: Path, framing: str | None) -> None:
    answer = reply(b"a" * 100_000, framing=framing)
    async with audited(path, [read, send(answer)]) as world:
        world.client.write(
            "POST / HTTP/1.1",
            "Transfer-Encoding: chunked",
            "Connection: close",
            body=b"3\r\nabc\r\n0\r\n\r\n",
        )
        await world.client.rest()
        line = await world.line()
    assert (line["bytes_in"], line["bytes_out"], line["cut"]) == (3, 100_000, None)


async def test_a_call_that_was_replayed_names_the_token_that_was_taken(path: Path, kept: bool) -> None:
    async with audited(path, [serve(NO, HI)], kept=kept, source=ANOTHER) as world:
        world.client.write("POST / HTTP/1.1", *BODY, body=b"abc")
        assert (await world.client.answer()).endswith(b"hi")
        line = await world.line()
        sent = world.server.requests[1].partition(b"Bearer ")[2].partition(b"\r\n")[0]
    assert line["replayed"]
    assert line["token"] == hashlib.sha256(sent).hexdigest()[:16]
    assert line["bytes_out"] == 2


async def test_a_call_with_the_clients_own_credential(path: Path) -> None:
    async with audited(path, [serve(HI)], fields=build_field_rules(if_absent=True)) as world:
        world.client.write("GET / HTTP/1.1", "Authorization: Bearer mine")
        await world.client.answer()
        line = await world.line()
    assert (line["account"], line["token"]) == (None, None)


async def test_a_tunnel_has_a_line_when_it_is_over(path: Path) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello"
    over = asyncio.Event()
    async with audited(path, [read, send(switch), read_abc, until(over)]) as world:
        world.client.write("GET /ws HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket")
        assert b" 101 " in await world.client.head()
        async with asyncio.timeout(15):
            assert await world.client.reader.readexactly(5) == b"hello"
        world.client.writer.write(b"abc")
        await until_true(lambda: world.server.peers[0].received.endswith(b"abc"))
        assert not path.read_bytes()
        over.set()
        world.client.writer.write_eof()
        await world.client.rest()
        line = await world.line()
    assert line.items() >= {"path": "/ws", "status": 101, "bytes_in": 3, "bytes_out": 5}.items()


async def test_pages_of_our_own_are_no_calls(path: Path) -> None:
    async with audited(path, [serve(HI)]) as world:
        world.client.write("GET /-/livez HTTP/1.1")
        await world.client.answer()
        world.client.write("GET /a HTTP/1.1")
        await world.client.answer()
        assert (await world.line())["path"] == "/a"


async def test_a_client_with_a_key_is_called_by_its_name(path: Path, kept: bool) -> None:
    """So is one whose key is not for this; whose it is that has no good one, nobody knows. No key is in the file."""
    good, bad = (build_key(bytes([n] * 32)).reveal() for n in (1, 2))
    file = path.with_name("keys.json")
    key = ClientKey("ci", digest_of(good.encode()), 0, methods=frozenset({"GET"}))
    file.write_text(build_document([key]))
    file.chmod(0o600)
    async with audited(path, [serve(HI)], kept=kept, keys=Keys("required", str(file))) as world:
        for start_line, shown in (
            ("GET /a", good),
            ("POST /b", good),
            (f"GET /{good}", good),
            ("GET /d", bad),
        ):
            world.client.write(f"{start_line} HTTP/1.1", f"X-Api-Key: {shown}")
            await world.client.answer()
        lines = await world.lines(4)
    assert [(line["client"], line["problem"]) for line in lines] == [
        ("ci", None),
        ("ci", "key_limited"),
        ("ci", "key_in_target"),
        (None, "key_refused"),
    ]
    assert good not in path.read_text("ascii")


async def test_without_a_log_nothing_of_it_is_in_the_way() -> None:
    log = Logging(access=False)
    async with running("http://127.0.0.1:1", source=CommandSource(("true",), 1), log=log) as daemon:
        assert type(daemon._front._forwarder) is Forwarder
        assert daemon._regime.audit is None
