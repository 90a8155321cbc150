"""The end of the daemon, for connections: what was begun is brought to its end, what was not is not begun.

Most have had a request and wait for none now: they are closed at once. One that has had none has been opened for one, which
is under way. Nobody is told that a connection goes on.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from bearerd import gate
from bearerd.daemon import Daemon
from callers import PATIENCE_S, Client, connected, running
from faults import FaultServer, Script, hang, read, reply, reset, send, serve, until
from patience import settle, within

HI = reply(b"hi")
LONG_S = 30.0  # to drain; no test waits for so long
MiB = 1 << 20


@asynccontextmanager
async def stopping(daemon: Daemon, drain_s: float = LONG_S) -> AsyncIterator[asyncio.Task[bool]]:
    """The end has begun, and is over afterwards."""
    task = asyncio.create_task(daemon.stop(drain_s))
    await true(lambda: gate_of(daemon).finishing)
    yield task
    async with asyncio.timeout(PATIENCE_S):
        await task


async def true(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # there is nothing that would tell
            await asyncio.sleep(0.01)


def gate_of(daemon: Daemon) -> gate.Gate:
    assert daemon._server is not None
    return daemon._server


async def closed(client: Client) -> None:
    assert await client.rest() == b""


async def last(client: Client) -> bytes:
    """A whole answer, which says that it is the last, and is."""
    answer = await client.answer()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    await closed(client)
    return answer


@asynccontextmanager
async def busy(*script: Script) -> AsyncIterator[tuple[Daemon, Client, asyncio.Event]]:
    """A daemon with a call under way, which is answered once the event is set."""
    go = asyncio.Event()
    async with (
        FaultServer([read, until(go), send(HI), hang], *script) as server,
        running(server.url) as daemon,
        connected(daemon) as client,
    ):
        client.write("GET / HTTP/1.1")
        await true(lambda: server.requests)
        yield daemon, client, go


async def test_an_idle_connection_is_closed_though_calls_go_on() -> None:
    async with busy([serve(HI)]) as (daemon, client, go), connected(daemon) as idle:
        idle.write("GET / HTTP/1.1")
        await idle.answer()
        async with stopping(daemon) as task:
            await closed(idle)
            assert not task.done()
            go.set()
            await last(client)


@pytest.mark.parametrize("begun", ["at once", "by the handler"])
async def test_an_answer_says_that_it_is_the_last(begun: str) -> None:
    """The first call of a daemon is the handler's: there is no connection to the upstream yet."""
    go = asyncio.Event()
    script = [read, send(HI), read, until(go), send(HI), hang]
    async with FaultServer(script) as server, running(server.url) as daemon, connected(daemon) as client:
        client.write("GET / HTTP/1.1")
        assert b"Connection: close" not in await client.answer()
        if begun == "at once":
            client.write("POST / HTTP/1.1", "Content-Length: 1", body=b"x")
        else:
            client.write("POST / HTTP/1.1", "Transfer-Encoding: chunked", body=b"1\r\nx\r\n0\r\n\r\n")
        await true(lambda: len(server.requests) == 2)
        async with stopping(daemon):
            go.set()
            await last(client)


async def test_so_does_one_without_a_length() -> None:
    go = asyncio.Event()
    script = [read, until(go), send(reply(b"hi", framing="chunked")), hang]
    async with FaultServer(script) as server, running(server.url) as daemon, connected(daemon) as client:
        client.write("GET / HTTP/1.1")
        await true(lambda: server.requests)
        async with stopping(daemon):
            go.set()
            heard = await client.rest()
    assert b"\r\nConnection: close\r\n" in heard
    assert heard.endswith(b"2\r\nhi\r\n0\r\n\r\n")


async def test_so_does_an_answer_of_our_own() -> None:
    go = asyncio.Event()
    script = [read, until(go), reset]
    async with FaultServer(script) as server, running(server.url) as daemon, connected(daemon) as client:
        client.write("GET / HTTP/1.1")
        await true(lambda: server.requests)
        async with stopping(daemon):
            go.set()
            heard = await client.rest()
    assert heard.startswith(b"HTTP/1.1 502 ")
    assert b"\r\nConnection: close\r\n" in heard


@pytest.mark.parametrize("body", [b"", b"x" * 9], ids=["without a body", "with one"])
async def test_a_connection_without_a_request_so_far_has_its_first_one_answered(body: bytes) -> None:
    """Its client had no way to know, and would have to tell its user that the call was lost."""
    async with FaultServer([serve(HI)]) as server, running(server.url) as daemon, connected(daemon) as client:
        await true(lambda: gate_of(daemon).served == 1)
        async with stopping(daemon) as task:
            await settle(0.05)
            assert not task.done()
            client.write("POST / HTTP/1.1", f"Content-Length: {len(body)}", body=body[:4])
            await settle(0.05)
            client.writer.write(body[4:])
            await last(client)
        assert server.requests[0].endswith(body)


async def test_it_is_no_more_than_one() -> None:
    async with FaultServer([serve(HI)]) as server, running(server.url) as daemon, connected(daemon) as client:
        await true(lambda: gate_of(daemon).served == 1)
        async with stopping(daemon):
            client.write("GET /1 HTTP/1.1")
            client.write("GET /2 HTTP/1.1")
            await last(client)
        assert len(server.requests) == 1


async def test_a_head_under_way_is_taken_to_its_end() -> None:
    async with FaultServer([serve(HI)]) as server, running(server.url) as daemon, connected(daemon) as client:
        client.write("GET / HTTP/1.1")
        await client.answer()
        client.writer.write(b"GET / HTTP/1.1\r\nHost: " + client.host.encode())
        await settle(0.05)
        async with stopping(daemon):
            client.writer.write(b"\r\n\r\n")
            await last(client)


async def test_one_that_never_has_a_request_is_not_waited_for() -> None:
    """Browsers open connections in advance."""
    async with FaultServer([serve(HI)]) as server, running(server.url) as daemon, connected(daemon) as client:
        await true(lambda: gate_of(daemon).served == 1)
        gate_of(daemon).fresh_s = 0.1
        async with within(2), stopping(daemon):
            await closed(client)


async def test_one_that_is_accepted_late_is_the_same() -> None:
    """Between the system's and ours there is a turn of the loop, at least."""
    async with FaultServer([serve(HI)]) as server, running(server.url) as daemon, connected(daemon):
        await true(lambda: gate_of(daemon).served == 1)
        (first,) = gate_of(daemon).connections
        door = gate_of(daemon).by(cast(gate.Client, first).door)
        late = await asyncio.get_running_loop().create_server(door, "127.0.0.1", 0)
        async with stopping(daemon):
            port = late.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % daemon.port)
            async with asyncio.timeout(PATIENCE_S):
                heard = await reader.read()
            writer.close()
            late.close()
            gate_of(daemon)._send_away()
    assert b"\r\nConnection: close\r\n" in heard


async def test_who_reads_slowly_gets_all_of_it() -> None:
    """The call is over when its answer is written; the client has it some time later."""
    body = bytes(4 * MiB)
    async with FaultServer([read, send(reply(body)), hang]) as server, running(server.url) as daemon:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(slow, ("127.0.0.1", daemon.port))
            await loop.sock_sendall(slow, b"GET / HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % daemon.port)
            await true(lambda: server.requests)
            async with stopping(daemon):
                heard = bytearray()
                async with asyncio.timeout(PATIENCE_S):
                    while piece := await loop.sock_recv(slow, 1 << 16):
                        heard += piece
    assert heard.endswith(body)


async def test_no_token_is_refreshed_ahead_of_time_any_more() -> None:
    """It could take minutes, which would be waited for. What calls under way need is still had."""
    async with busy() as (daemon, client, go):
        (manager,) = daemon._managers
        assert not manager._resting
        async with stopping(daemon):
            await true(lambda: manager._resting)
            go.set()
            await last(client)
