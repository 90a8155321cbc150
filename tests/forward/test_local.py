"""Calls by a Unix socket, through a whole daemon: everything that holds by TCP, and what is another thing there."""

import asyncio
import json
import os
import socket
import stat
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from bearerd.core.configuration import Limits, Listen
from bearerd.core.field_rules import DEFAULT_RULES, FieldRules, build_field_rules
from bearerd.daemon import Daemon
from bearerd.errors import ConfigError
from bearerd.forward.reply import cut_off
from bearerd.gate import has_left
from callers import Client, running, split, warm
from faults import FaultServer, Step, hang, read, reply, send, serve, stall
from users import NOBODY, python_as

HI: Final = reply(b"hi")
AUTHORIZATION: Final = b"Authorization: Bearer the-token"


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="s-") as folder:
        yield Path(folder).resolve() / "bearerd.sock"


@asynccontextmanager
async def local(
    path: Path,
    *scripts: Sequence[Step],
    limits: Limits | None = None,
    fields: FieldRules = DEFAULT_RULES,
    listen: Listen | None = None,
) -> AsyncIterator[tuple[Daemon, FaultServer]]:
    """A daemon that listens at `path` alone, before an upstream that plays `scripts`."""
    where = replace(listen or Listen(hosts=()), socket=str(path))
    async with (
        FaultServer(*(scripts or ([serve(HI)],))) as server,
        running(server.url, limits=limits, fields=fields, listen=where) as daemon,
    ):
        yield daemon, server


@asynccontextmanager
async def connected(path: Path, sock: socket.socket | None = None) -> AsyncIterator[Client]:
    """`sock` is connected already, if it is given."""
    named = {"sock": sock} if sock else {"path": str(path)}
    reader, writer = await asyncio.open_unix_connection(**named)
    client = Client.__new__(Client)
    client.host, client.reader, client.writer = "localhost", reader, writer
    try:
        yield client
    finally:
        writer.transport.abort()


class TestCalls:
    async def test_one_after_the_other_on_one_connection(self, path: Path) -> None:
        async with local(path) as (_, server), connected(path) as client:
            for _ in range(3):
                client.write("GET /a%20b?c HTTP/1.1")
                assert (await client.answer()).endswith(b"\r\n\r\nhi")
        assert server.connections == 1
        for request in server.requests:
            start_line, fields, _ = split(request)
            assert start_line == b"GET /a%20b?c HTTP/1.1"
            assert fields.count(AUTHORIZATION) == 1

    async def test_a_call_needs_no_task(self, path: Path) -> None:
        async with local(path) as (daemon, server):
            await warm(daemon)
            async with connected(path) as client:
                client.write("GET / HTTP/1.1")
                async with asyncio.timeout(15):
                    while not daemon._front._in_flight:  # noqa: ASYNC110  # there is nothing that would tell
                        await asyncio.sleep(0)
                assert daemon._server is not None
                (connection,) = daemon._server.connections
                assert connection._begun is not None  # type: ignore[attr-defined]
                assert (await client.answer()).endswith(b"hi")
        assert len(server.requests) == 1

    async def test_large_bodies_both_ways(self, path: Path) -> None:
        body = os.urandom(3 << 20)
        async with local(path, [read, send(reply(body))]) as (_, server), connected(path) as client:
            client.write("POST / HTTP/1.1", f"Content-Length: {len(body)}", body=body)
            assert (await client.answer()).endswith(body)
        assert split(server.requests[0])[2] == body

    async def test_a_websocket(self, path: Path) -> None:
        switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

        async def echo(peer: object) -> None:
            loop = asyncio.get_running_loop()
            while data := await loop.sock_recv(peer._sock, 65536):  # type: ignore[attr-defined]
                await peer.send(data)  # type: ignore[attr-defined]

        async with local(path, [read, send(switch), echo]) as (_, server), connected(path) as client:
            client.write("GET /ws HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket")
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
            client.writer.write(b"\x81\x05hello")
            await client.exactly(b"\x81\x05hello")
            client.writer.write_eof()
            assert await client.rest() == b""
        assert AUTHORIZATION in server.requests[0]

    async def test_beside_tcp_and_on_its_own(self, path: Path) -> None:
        async with local(path, listen=Listen(hosts=("127.0.0.1",), port=0)) as (daemon, _):
            status = daemon.status()
            assert (len(status["addresses"]), status["socket"]) == (1, str(path))
            reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
            client = Client(daemon, reader, writer)
            client.write("GET / HTTP/1.1")
            assert (await client.answer()).endswith(b"hi")
            writer.close()
            async with connected(path) as other:
                other.write("GET / HTTP/1.1")
                assert (await other.answer()).endswith(b"hi")
        async with local(path) as (daemon, _):
            assert daemon.addresses == ()


@pytest.mark.threat(1)
class TestThreat1:
    """Over a Unix socket any localhost, and nothing else that is not configured."""

    @pytest.mark.parametrize(
        "host",
        [
            "localhost",
            "LOCALHOST:1",
            "localhost:65535",
            "127.0.0.1",
            "127.0.0.1:80",
            "[::1]:6750",
            "named.test",
        ],
    )
    async def test_ours(self, path: Path, host: str) -> None:
        listen = Listen(hosts=(), allowed_hosts=frozenset({"named.test"}))
        async with local(path, listen=listen), connected(path) as client:
            client.host = host
            client.write("GET / HTTP/1.1")
            assert (await client.answer()).endswith(b"hi")

    @pytest.mark.parametrize(
        "host",
        [
            *("evil.test", "localhost.evil.test", "localhost.", "a@localhost", "localhost:", "localhost:x"),
            *("localhost:123456", "a, localhost", "", "0.0.0.0", "127.0.0.2", "::1", "named.test:1"),
        ],
    )
    async def test_not_ours(self, path: Path, host: str) -> None:
        listen = Listen(hosts=(), allowed_hosts=frozenset({"named.test"}))
        async with local(path, listen=listen) as (_, server), connected(path) as client:
            client.host = host
            client.write("GET / HTTP/1.1")
            assert (await client.problem())[1]["code"] in {"wrong_authority", "bad_request"}
        assert server.connections == 0

    async def test_by_tcp_the_port_is_ours_all_the_same(self, path: Path) -> None:
        async with local(path, listen=Listen(hosts=("127.0.0.1",), port=0)) as (daemon, server):
            reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
            client = Client(daemon, reader, writer)
            client.host = "localhost:1"
            client.write("GET / HTTP/1.1")
            assert (await client.problem())[1]["code"] == "wrong_authority"
            writer.close()
        assert server.connections == 0

    async def test_an_absolute_url_is_its_path(self, path: Path) -> None:
        async with local(path) as (_, server), connected(path) as client:
            client.write("GET http://localhost/x HTTP/1.1")
            await client.answer()
        assert server.requests[0].startswith(b"GET /x HTTP/1.1\r\n")

    @pytest.mark.parametrize("origin", ["http://evil.test", "null", "http://localhost:3000"])
    async def test_threat_2_pages_are_refused_here_too(self, path: Path, origin: str) -> None:
        async with local(path) as (_, server), connected(path) as client:
            client.write("GET / HTTP/1.1", f"Origin: {origin}")
            assert (await client.problem())[1]["code"] == "origin_refused"
        assert server.connections == 0


class TestLimits:
    async def test_a_head_that_is_too_large(self, path: Path) -> None:
        async with local(path) as (_, server), connected(path) as client:
            client.write("GET / HTTP/1.1", *(f"X-{n}: {'x' * 9000}" for n in range(8)))
            assert (await client.problem())[1]["code"] == "head_too_large"
            assert await client.rest() == b""
        assert server.connections == 0

    async def test_a_head_that_never_ends(self, path: Path) -> None:
        async with local(path, limits=Limits(header_read_s=0.2)), connected(path) as client:
            client.writer.write(b"GET / HTTP/1.1\r\n")
            assert (await client.problem())[1]["code"] == "head_timeout"
            assert await client.rest() == b""

    async def test_connections_of_both_kinds_are_counted_together(self, path: Path) -> None:
        listen = Listen(hosts=("127.0.0.1",), port=0)
        async with (
            local(path, limits=Limits(connections=2), listen=listen) as (daemon, _),
            connected(path) as first,
            connected(path) as second,
        ):
            for client in (first, second):
                client.write("GET / HTTP/1.1")
                assert (await client.answer()).endswith(b"hi")
            reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
            assert (await Client(daemon, reader, writer).problem())[1]["code"] == "too_many_connections"
            writer.close()
            async with connected(path) as third:
                assert (await third.problem())[1]["code"] == "too_many_connections"

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a client that is not read from")
    async def test_a_client_that_leaves_while_its_upload_waits_ends_its_call(self, path: Path) -> None:
        async with local(path, [stall]) as (daemon, _), connected(path) as client:
            client.write("POST / HTTP/1.1", "Content-Length: 100000000")
            assert daemon._server is not None
            async with asyncio.timeout(20):
                while not any(connection._reading_paused for connection in daemon._server.connections):
                    client.writer.write(bytes(1 << 16))
                    await asyncio.sleep(0.01)
            assert daemon._front._in_flight == 1, "it has not left yet"
            client.writer.transport.abort()
            async with asyncio.timeout(10):
                while daemon._front._in_flight:  # noqa: ASYNC110  # there is nothing that would tell
                    await asyncio.sleep(0.01)

    async def test_a_client_that_leaves_takes_its_call_with_it(self, path: Path) -> None:
        async with local(path, [read, hang]) as (_, server):
            async with connected(path) as client:
                client.write("GET / HTTP/1.1")
                async with asyncio.timeout(15):
                    while not server.requests:  # noqa: ASYNC110  # likewise
                        await asyncio.sleep(0.01)
            await asyncio.wait_for(server.peers[0].gone.wait(), 15)

    async def test_an_answer_that_is_cut_short_is_no_whole_one(self, path: Path) -> None:
        cut = reply(b"hello", "200 OK")[:-2]
        async with local(path, [read, send(cut)]), connected(path) as client:
            client.write("GET / HTTP/1.1")
            assert b"\r\nContent-Length: 5\r\n" in await client.head()
            with pytest.raises(asyncio.IncompleteReadError):
                await client.exactly(b"hello")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
async def test_whether_a_client_has_left() -> None:
    here, there = socket.socketpair(socket.AF_UNIX)
    transport, _ = await asyncio.get_running_loop().create_unix_connection(asyncio.Protocol, sock=here)
    transport.pause_reading()
    assert not has_left(transport)
    there.send(b"x")
    assert not has_left(transport), "it has said something, and stays"
    there.close()
    assert has_left(transport)
    cut_off(transport)


class TestWhoMayCall:
    async def test_one_user_s_and_nobody_else_s_by_itself(self, path: Path) -> None:
        async with local(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    async def test_threat_14_who_is_not_in_the_list_is_refused_before_a_word(self, path: Path) -> None:
        """Another user who gets to the socket."""
        async with local(path, listen=Listen(hosts=(), socket_mode=0o666)) as (daemon, server):
            assert daemon._server is not None
            assert stat.S_IMODE(path.stat().st_mode) == 0o666
            async with connected(path) as client:
                client.write("GET / HTTP/1.1")
                assert (await client.answer()).endswith(b"hi")
            path.parent.chmod(0o755)
            answer = await as_nobody(path)
            assert '"code": "peer_refused"' in answer
            assert "listen.socket_uids" in answer
            assert daemon._server.served == 0
        assert len(server.requests) == 1

    async def test_who_is_in_the_list_may(self, path: Path) -> None:
        listen = Listen(hosts=(), socket_mode=0o666, socket_uids=frozenset({NOBODY}))
        async with local(path, [serve(reply(b"let in"))], listen=listen):
            path.parent.chmod(0o755)
            assert await as_nobody(path) == "let in\n"


class TestWhatAnUpstreamIsTold:
    @pytest.mark.parametrize("name", ["", "\0abstract", "evil\r\nAuthorization: Bearer theirs"])
    async def test_a_client_has_no_address_whatever_it_calls_itself(self, path: Path, name: str) -> None:
        """The name of its end is its own choice, line ends and all."""
        sock = socket.socket(socket.AF_UNIX)
        if name:
            sock.bind(name if name.startswith("\0") else f"{path.parent}/{name}")
        fields = build_field_rules(forwarded="forwarded")
        async with local(path, fields=fields) as (_, server):
            sock.connect(str(path))
            sock.setblocking(False)
            async with connected(path, sock) as client:
                client.write("GET / HTTP/1.1")
                await client.answer()
        lines = split(server.requests[0])[1]
        assert [line for line in lines if line.startswith(b"Forwarded")] == [
            b'Forwarded: for=unknown;host="localhost";proto=http'
        ]
        assert [line for line in lines if line.startswith(b"Authorization")] == [AUTHORIZATION]


class TestPrograms:
    async def test_curl(self, path: Path) -> None:
        async with local(path, [serve(HI)]) as (_, server):
            words = ("curl", "-sS", "--unix-socket", str(path), "-d", "body", "http://localhost/v1/x")
            process = await asyncio.create_subprocess_exec(*words, stdout=PIPE)
            assert (await process.communicate())[0] == b"hi"
        assert server.requests[0].endswith(b"\r\n\r\nbody")

    async def test_aiohttp(self, path: Path) -> None:
        async with local(path):
            connector = aiohttp.UnixConnector(str(path))
            async with aiohttp.ClientSession(connector=connector) as session:
                async with session.get("http://localhost/x") as answer:
                    assert await answer.text() == "hi"
                async with session.get("http://localhost/-/status") as answer:
                    assert (await answer.json())["socket"] == str(path)

    async def test_the_openai_sdk(self, path: Path) -> None:
        import httpx2  # noqa: PLC0415  # what the SDK calls by
        from openai import AsyncOpenAI  # noqa: PLC0415  # it takes a second

        models = json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode()
        answer = reply(models, "200 OK", "Content-Type: application/json")
        async with local(path, [serve(answer)]) as (_, server):
            by_socket = httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(path)))
            base = "http://localhost/v1"
            async with AsyncOpenAI(base_url=base, api_key="dummy", http_client=by_socket) as client:
                assert [model.id async for model in client.models.list()] == ["m"]
        assert AUTHORIZATION in server.requests[0]
        assert b"dummy" not in server.requests[0]


class TestBeginningAndEnd:
    async def test_it_is_gone_when_the_daemon_is(self, path: Path) -> None:
        async with local(path):
            assert path.is_socket()
        assert not path.exists()

    async def test_a_call_under_way_comes_to_its_end(self, path: Path) -> None:
        go_on = asyncio.Event()

        async def wait(peer: object) -> None:
            del peer
            await go_on.wait()

        async with local(path, [read, wait, send(HI)]) as (daemon, server), connected(path) as client:
            client.write("GET / HTTP/1.1")
            async with asyncio.timeout(15):
                while not server.requests:  # noqa: ASYNC110  # likewise
                    await asyncio.sleep(0.01)
            stopping = asyncio.create_task(daemon.stop(10))
            async with asyncio.timeout(15):
                while path.exists():  # noqa: ASYNC110  # likewise
                    await asyncio.sleep(0.01)
            go_on.set()
            assert (await client.answer()).endswith(b"hi")
            await stopping

    async def test_where_it_cannot_be_nothing_runs(self, path: Path) -> None:
        path.touch()
        listen = Listen(hosts=("127.0.0.1",), port=0, socket=str(path))
        with pytest.raises(ConfigError, match=rf"^listen.socket: {path} is there already and is no socket"):
            async with running("http://127.0.0.1:9", listen=listen):
                raise AssertionError("it runs")
        assert path.exists()


_CALL: Final = """
import http.client, socket, sys
c = http.client.HTTPConnection("localhost")
c.sock = socket.socket(socket.AF_UNIX)
c.sock.connect(sys.argv[1])
c.request("GET", "/")
print(c.getresponse().read().decode())
"""


async def as_nobody(path: Path) -> str:
    """What another user's call is answered."""
    return await asyncio.to_thread(python_as, NOBODY, _CALL, path)
