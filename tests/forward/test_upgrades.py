"""Tunnels through a whole daemon, on real sockets."""

import asyncio
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol

from bearerd.core.configuration import Limits
from bearerd.daemon import Daemon
from bearerd.forward.pieces import Pieces
from bearerd.forward.reply import cut_off
from bearerd.forward.tunnel import CHUNK, Tunnel, _End
from callers import FRESH, Client, connected, pair, running, split
from certificates import Authority
from faults import (
    FaultServer,
    Peer,
    Step,
    half_close,
    hang,
    pause,
    read,
    repeat,
    reply,
    reset,
    send,
    serve,
    slices,
    stall,
    until,
)
from patience import settle, soon, within

MiB: Final = 1 << 20
HI: Final = reply(b"hi")
NO: Final = reply(b"no", "401 Unauthorized", "WWW-Authenticate: Bearer")
KEY: Final = "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw=="
ASK: Final = ("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY)
ACCEPT: Final = b"Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n"
SWITCH: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + ACCEPT + b"\r\n"
)
SWITCHED: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\n" + ACCEPT + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)

OPEN: Final[list[Step]] = [read, send(SWITCH)]
LIMIT: Final = 2 * CHUNK


def ask(client: Client, *fields: str, body: bytes = b"", target: str = "/") -> None:
    client.write(f"GET {target} HTTP/1.1", *ASK, *fields, body=body)


@asynccontextmanager
async def tunnelled(*steps: Step, limit: int = 1 << 16) -> AsyncIterator[tuple[Client, FaultServer, Daemon]]:
    """A client in a tunnel to an upstream that goes on with `steps`."""
    async with (
        FaultServer([*OPEN, *steps]) as server,
        running(server.url) as daemon,
        connected(daemon, limit=limit) as client,
    ):
        ask(client)
        await client.exactly(SWITCHED)
        yield client, server, daemon


async def gone(peer: Peer) -> None:
    await soon(peer.gone)


async def ended(client: Client) -> bytes:
    """What comes until the client's connection has ended, which it must within a second."""
    async with within(1):
        with suppress(ConnectionResetError):
            return await client.reader.read()
        return b""


async def arrived(peer: Peer, data: bytes) -> None:
    """Until the upstream has `data` at the end of what it received."""
    await until_true(lambda: peer.received.endswith(data))


async def until_true(condition: Callable[[], bool], limit_s: float = 15.0) -> None:
    async with within(limit_s):
        while not condition():  # noqa: ASYNC110  # what is waited for knows nothing of events
            await asyncio.sleep(0.005)


async def echo(peer: Peer) -> None:
    """Send back whatever comes, until the other side leaves."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(peer._sock, 65536):
        await peer.send(data)


def end_of(daemon: Daemon) -> _End:
    """The client's end of the daemon's only tunnel."""
    assert daemon._server is not None
    (connection,) = daemon._server.connections
    assert connection.transport is not None
    end = connection.transport.get_protocol()
    assert isinstance(end, _End)
    return end


def connections(daemon: Daemon) -> int:
    assert daemon._server is not None
    return len(daemon._server.connections)


# ---------------------------------------------------------------- the handshake


async def test_the_handshake_on_the_wire_byte_for_byte() -> None:
    async with pair([*OPEN, hang], base="/v1") as (client, server):
        client.write(
            "GET /%41?a=%zz HTTP/1.1",
            "Upgrade: WebSocket, h2c",
            "Connection: keep-alive, upgrade, HTTP2-Settings, x-private",
            "X-Private: only for this hop",
            "HTTP2-Settings: AAMAAABkAAQAAP__",
            KEY,
            "sec-websocket-protocol: chat, superchat",
            "Sec-WebSocket-Extensions: permessage-deflate",
            f"Origin: http://{client.host}",
            "Authorization: Bearer client-secret",
            "Cookie: a=1; bearerd_csrf=x",
        )
        await client.exactly(SWITCHED)
        start_line, fields, rest = split(server.requests[0])
        assert start_line == b"GET /v1/%41?a=%zz HTTP/1.1"
        assert re.fullmatch(rb"Via: 1\.1 bearerd-[0-9a-f]{16}", fields.pop(6))
        assert fields == [
            b"Host: 127.0.0.1:%d" % server.port,
            KEY.encode(),
            b"sec-websocket-protocol: chat, superchat",
            b"Sec-WebSocket-Extensions: permessage-deflate",
            b"Origin: http://" + client.host.encode(),
            b"Cookie: a=1",
            b"Connection: Upgrade",
            b"Upgrade: WebSocket",
            b"Authorization: Bearer the-token",
        ]
        assert rest == b""


async def test_the_answer_on_the_wire_byte_for_byte() -> None:
    raw = (
        b"HTTP/1.1 101 Sw\xeftch\r\nuPGRADE: WebSocket\r\nX-One: 1\r\nKeep-Alive: timeout=5\r\nX-Private: 1\r\n"
        b"connection: upgrade, x-private\r\nx-ONE: \xff\r\nAccess-Control-Allow-Origin: *\r\n"
        b"Set-Cookie: a=1; Domain=x; Path=/\r\nContent-Length: 0\r\n\r\n"
    )
    async with pair([read, send(raw), hang]) as (client, _):
        ask(client)
        await client.exactly(
            b"HTTP/1.1 101 Sw\xeftch\r\nX-One: 1\r\nx-ONE: \xff\r\nSet-Cookie: a=1; Path=/\r\n"
            b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
        )


async def test_bytes_in_the_packet_of_the_answer_and_after_it() -> None:
    async with pair([read, send(SWITCH + b"one"), pause(0.05), send(b"two"), hang]) as (client, _):
        ask(client)
        await client.exactly(SWITCHED + b"onetwo")


async def test_an_answer_in_pieces_after_an_interim_one() -> None:
    raw = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + SWITCH + b"hello"
    async with pair([read, slices(raw, 1), hang]) as (client, _):
        ask(client)
        await client.exactly(SWITCHED + b"hello")


async def test_bytes_that_the_client_sends_early() -> None:
    """In the packet of its request, and while there is no answer yet."""
    switch = asyncio.Event()
    async with pair([read, until(switch), send(SWITCH), hang]) as (client, server):
        ask(client, body=b"GET /one HTTP/1.1\r\n\r\n")
        await settle(0.05)
        client.writer.write(b"\x81\x00two")
        await settle(0.05)
        assert server.peers[0].received.endswith(b"\r\n\r\n")
        switch.set()
        await client.exactly(SWITCHED)
        client.writer.write(b"three")
        await arrived(server.peers[0], b"\r\n\r\nGET /one HTTP/1.1\r\n\r\n\x81\x00twothree")
        assert len(server.requests) == 1


async def test_a_great_deal_that_the_client_sends_early() -> None:
    switch = asyncio.Event()
    data = bytes(range(256)) * 4096
    async with pair([read, until(switch), send(SWITCH), hang]) as (client, server):
        ask(client, body=data)
        await settle(0.1)
        switch.set()
        await client.exactly(SWITCHED)
        client.writer.write(b"end")
        await arrived(server.peers[0], b"end")
        assert server.peers[0].received.partition(b"\r\n\r\n")[2] == data + b"end"


@pytest.mark.parametrize("early", [b"", b"GET /-/livez HTTP/1.1\r\nHost: {}\r\n\r\n"])
@pytest.mark.parametrize("protocol", ["websocket", "irc"])
@pytest.mark.parametrize(
    "status",
    ["200 OK", "302 Found", "403 Forbidden", "404 Not Found", "426 Upgrade Required", "500 No", "503 No"],
)
async def test_a_refusal_is_relayed_at_once_and_the_connection_goes_on(
    status: str, protocol: str, early: bytes
) -> None:
    refusal = reply(b"no tunnel", status, "X: y")
    answer = asyncio.Event()
    async with pair(
        [read, until(answer), send(refusal), serve(HI)], upgrades=frozenset({b"websocket", b"irc"})
    ) as (client, server):
        client.write("GET / HTTP/1.1", "Connection: Upgrade", f"Upgrade: {protocol}")
        await until_true(lambda: bool(server.requests))
        client.writer.write(early.replace(b"{}", client.host.encode()))
        await settle(0.02)
        answer.set()
        await client.exactly(refusal)
        if early:
            assert (await client.answer()).endswith(b"ok\n")
        client.write("GET /next HTTP/1.1")
        await client.exactly(HI)
        assert server.connections == 1
        assert b"Upgrade: " + protocol.encode() in server.requests[0]
        assert b"pgrade" not in server.requests[1]


async def test_another_protocol_that_the_route_lets_pass() -> None:
    raw = b"HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: IRC/6\r\n\r\n"
    switch = asyncio.Event()
    async with pair([read, until(switch), send(raw), echo], upgrades=frozenset({b"irc/6"})) as (
        client,
        server,
    ):
        client.write("GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket, irc/6")
        await until_true(lambda: bool(server.requests))
        client.writer.write(b"NICK one\r\n")
        await settle(0.05)
        switch.set()
        await client.exactly(b"HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: IRC/6\r\n\r\nNICK one\r\n")
    assert b"\r\nUpgrade: irc/6\r\n" in server.requests[0]


async def test_bytes_in_one_packet_with_the_question_for_another_protocol() -> None:
    """The server's parser has lost them: no tunnel begins with a hole."""
    async with pair([serve(HI)], upgrades=frozenset({b"irc"})) as (client, server):
        client.write("GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: irc", body=b"NICK one\r\n")
        assert (await client.rest()).endswith(b"hi")
        assert b"irc" not in server.requests[0]


async def test_a_call_behind_the_question_for_another_protocol() -> None:
    """It has been read as HTTP before there was an answer, so the question is not passed on."""
    async with pair([read, pause(0.1), send(HI), serve(HI)], upgrades=frozenset({b"irc"})) as (
        client,
        server,
    ):
        client.write("GET /1 HTTP/1.1")
        await until_true(lambda: bool(server.requests))
        client.write("GET /2 HTTP/1.1", "Connection: Upgrade", "Upgrade: irc")
        await settle(0.02)
        client.write("GET /3 HTTP/1.1")
        for _ in range(3):
            await client.exactly(HI)
    assert [request.split()[1] for request in server.requests] == [b"/1", b"/2", b"/3"]
    assert b"irc" not in server.requests[1]


@pytest.mark.threat(12)
@pytest.mark.parametrize(
    "fields",
    [
        b"Connection: Upgrade\r\nUpgrade: irc\r\n",
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket, irc\r\n",
        b"Connection: Upgrade\r\n",
        b"Upgrade: websocket\r\n",
        b"",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n folded\r\n",
    ],
)
async def test_an_agreement_that_was_not_asked_for(fields: bytes) -> None:
    async with pair([read, send(b"HTTP/1.1 101 No\r\n" + fields + b"\r\nhello"), hang]) as (client, server):
        ask(client)
        status, problem = await client.problem()
        assert (status, problem["code"]) == (502, "upstream_broken")
        await gone(server.peers[0])
        client.write("GET /-/livez HTTP/1.1")
        assert (await client.answer()).endswith(b"ok\n")


@pytest.mark.parametrize(
    "start_line",
    ["GET / HTTP/1.0", "POST / HTTP/1.1", "HEAD / HTTP/1.1", "OPTIONS / HTTP/1.1", "DELETE / HTTP/1.1"],
)
async def test_what_may_not_ask_gets_no_tunnel(start_line: str) -> None:
    async with pair([read, send(SWITCH), hang]) as (client, server):
        client.write(start_line, *ASK)
        head = await client.head()
        assert head.split()[1] == b"502"
        assert not re.search(rb"(?i)\r\n(connection|upgrade):", server.requests[0])


async def test_an_old_version_in_the_answer() -> None:
    async with pair([read, send(SWITCH.replace(b"1.1", b"1.0", 1)), hang]) as (client, _):
        ask(client)
        assert (await client.problem())[0] == 502


@pytest.mark.parametrize(
    ("framing", "body"),
    [("Content-Length: 5", b"hello"), ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")],
)
async def test_a_handshake_with_a_body_is_refused(framing: str, body: bytes) -> None:
    async with pair(OPEN) as (client, server):
        ask(client, framing, body=body)
        status, problem = await client.problem()
        assert (status, problem["code"]) == (400, "bad_request")
        assert await client.rest() == b""
        assert server.connections == 0


@pytest.mark.threat(12)
@pytest.mark.parametrize(
    "fields",
    [
        ("Origin: http://evil.test",),
        ("Origin: null",),
        ("Origin: http://localhost",),
        ("Origin: https://localhost:{}",),
        ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: websocket", "Sec-Fetch-Dest: empty"),
        ("Sec-Fetch-Site: same-site",),
    ],
)
async def test_a_page_of_another_origin_gets_no_tunnel(fields: tuple[str, ...]) -> None:
    async with pair(OPEN) as (client, server):
        ask(client, *(field.format(client.host.partition(":")[2]) for field in fields))
        status, problem = await client.problem()
        assert (status, problem["code"]) == (403, "origin_refused")
        assert server.connections == 0


@pytest.mark.threat(1)
async def test_a_host_that_is_not_ours_gets_no_tunnel() -> None:
    async with pair(OPEN) as (client, server):
        client.host = "evil.test"
        ask(client)
        assert (await client.problem())[0] == 421
        assert server.connections == 0


async def test_no_tunnel_to_our_own_pages() -> None:
    async with pair(OPEN) as (client, server):
        ask(client, target="/-/livez")
        assert (await client.answer()).startswith(b"HTTP/1.1 200")
        ask(client, target="/-/nope")
        assert (await client.answer()).startswith(b"HTTP/1.1 404")
        assert server.connections == 0


async def test_a_401_is_replayed_with_another_token() -> None:
    async with pair([read, send(NO), read, send(SWITCH), echo], source=FRESH) as (client, server):
        ask(client, body=b"early")
        await client.exactly(SWITCHED + b"early")
        assert server.connections == 1
    first, second = (request.rpartition(b"Authorization: ") for request in server.requests)
    assert first[0] == second[0]
    assert first[2] != second[2]


async def test_a_second_401_is_relayed() -> None:
    async with pair([serve(NO)], source=FRESH) as (client, server):
        ask(client)
        await client.exactly(NO)
    assert len(server.requests) == 2


# ---------------------------------------------------------------- faults during the handshake


@pytest.mark.parametrize(
    "steps",
    [
        [reset],
        [read],
        [read, reset],
        [read, send(b"garbage\r\n\r\n"), hang],
        [read, send(SWITCH[:-3]), reset],
        [read, send(SWITCH[:-2])],
    ],
)
async def test_an_upstream_that_breaks_before_it_agrees(steps: list[Step]) -> None:
    async with pair(steps) as (client, _):
        ask(client)
        status, problem = await client.problem()
        assert (status, problem["code"]) == (502, "upstream_broken")


async def test_a_kept_connection_that_is_dead_is_replaced() -> None:
    async with pair([read, send(HI), read], [*OPEN, echo]) as (client, server):
        client.write("GET / HTTP/1.1")
        await client.exactly(HI)
        ask(client, body=b"early")
        await client.exactly(SWITCHED + b"early")
        assert server.connections == 2


async def test_a_kept_connection_is_used_and_not_kept_again() -> None:
    async with (
        FaultServer([read, send(HI), *OPEN, echo], [serve(HI)]) as server,
        running(server.url) as daemon,
        connected(daemon) as client,
        connected(daemon) as other,
    ):
        client.write("GET / HTTP/1.1")
        await client.exactly(HI)
        ask(client)
        await client.exactly(SWITCHED)
        assert server.connections == 1
        other.write("GET / HTTP/1.1")
        await other.exactly(HI)
        assert server.connections == 2
        client.writer.write(b"still")
        await client.exactly(b"still")


async def test_a_client_that_leaves_during_the_handshake() -> None:
    async with pair([read, hang]) as (client, server):
        ask(client)
        await until_true(lambda: bool(server.requests))
        client.writer.transport.abort()
        await gone(server.peers[0])


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize("how", [reset, pause(0)])
async def test_an_upstream_that_dies(how: Step) -> None:
    leave = asyncio.Event()
    async with tunnelled(send(b"last words"), until(leave), how) as (client, _, daemon):
        await client.exactly(b"last words")
        client.writer.write(b"unread")
        await settle(0.02)
        leave.set()
        assert await ended(client) == b""
        client.writer.transport.abort()
        await until_true(lambda: not connections(daemon), 1)


async def test_an_upstream_that_dies_at_once() -> None:
    """With bytes in the packet of its answer, which nobody read from the socket yet."""
    async with pair([read, send(SWITCH + b"bye")]) as (client, _):
        ask(client)
        assert await client.rest() == SWITCHED + b"bye"


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_client_that_dies(how: str) -> None:
    async with tunnelled(hang) as (client, server, daemon):
        client.writer.write(b"last words")
        await arrived(server.peers[0], b"last words")
        if how == "close":
            client.writer.close()
        else:
            client.writer.transport.abort()
        await gone(server.peers[0])
        await until_true(lambda: not connections(daemon), 1)
        assert not daemon._front._in_flight


async def test_a_client_that_has_said_everything_still_hears() -> None:
    async with tunnelled(hang, pause(0.1), send(b"all of it"), pause(0.1), send(b" and more")) as (
        client,
        server,
        _,
    ):
        client.writer.write(b"everything")
        client.writer.write_eof()
        await gone(server.peers[0])
        assert server.peers[0].received.endswith(b"\r\n\r\neverything")
        assert await client.rest() == b"all of it and more"


async def test_an_upstream_that_has_said_everything_still_hears() -> None:
    async with tunnelled(send(b"everything"), half_close, hang) as (client, server, daemon):
        assert await client.rest() == b"everything"
        for word in (b"all of it", b" and more"):
            client.writer.write(word)
            await arrived(server.peers[0], word)
            await settle(0.05)
        client.writer.write_eof()
        await gone(server.peers[0])
        await until_true(lambda: not connections(daemon), 1)


async def test_everything_that_was_sent_before_an_end_arrives() -> None:
    """The upstream is not read to its end while the client is slow."""
    total = 16 * MiB
    async with tunnelled(repeat(b"x" * 65536, total // 65536)) as (client, _, daemon):
        await asyncio.sleep(0.2)
        size = 0
        async with asyncio.timeout(20):
            while chunk := await client.reader.read(MiB):
                size += len(chunk)
        assert size == total
        client.writer.close()
        await until_true(lambda: not connections(daemon), 1)


async def test_an_end_that_does_nothing_any_more_is_not_waited_for() -> None:
    """A half-closed tunnel in which nothing moves, as a dead client and an upstream that does not care leave it."""
    async with tunnelled(stall) as (client, _, daemon):
        tunnel = end_of(daemon)._tunnel
        tunnel._silent_s = 0.2
        client.writer.write_eof()
        assert await client.rest() == b""
        await until_true(lambda: not connections(daemon), 1)


async def test_limits_on_calls_are_none_on_tunnels() -> None:
    """And its place among the connections is free when it is over, not before."""
    limits = Limits(header_read_s=0.1, body_idle_s=0.1, keep_alive_s=0.1, connections=1)
    async with (
        FaultServer([*OPEN, echo]) as server,
        running(server.url, limits=limits, response_idle_s=0.1) as daemon,
    ):
        assert daemon._server is not None
        async with connected(daemon) as client:
            ask(client, body=b"half a line")
            await client.exactly(SWITCHED + b"half a line")
            for _ in range(3):
                await asyncio.sleep(0.15)
                client.writer.write(b"GET / HT")
                await client.exactly(b"GET / HT")
            assert daemon._server.served == 1
        await until_true(lambda: not connections(daemon), 1)
        assert daemon._server.served == 0


async def test_garbage_is_passed_on_as_it_is() -> None:
    data = bytes(range(256)) + b"HTTP/1.1 200 OK\r\n\r\nGET / HTTP/1.1\r\n\r\n" + b"\x00" * 100
    async with tunnelled(echo) as (client, _, _):
        for part in (data, data[::-1], b"\r\n\r\n"):
            client.writer.write(part)
            await client.exactly(part)


# ---------------------------------------------------------------- load


async def test_a_thousand_small_frames_both_ways() -> None:
    async with tunnelled(echo) as (client, _, _):
        for count in range(1000):
            frame = b"\x82\x04%04d" % count
            client.writer.write(frame)
            await client.exactly(frame)


async def test_a_great_deal_both_ways_at_once() -> None:
    data = hashlib.shake_256(b"seed").digest(8 * MiB)

    async def receive(peer: Peer) -> None:
        """Both at once: to send first and then to read would wait for a client that does the same."""
        sending = asyncio.create_task(peer.send(data[::-1]))
        while len(peer.received) < 8 * MiB:
            assert await peer._receive()
        await sending

    async with tunnelled(receive, hang) as (client, server, _):
        client.writer.write(data)
        async with asyncio.timeout(20):
            assert await client.reader.readexactly(len(data)) == data[::-1]
            await until_true(lambda: server.peers[0].received.endswith(data[-100:]), 20)
    assert server.peers[0].received.partition(b"\r\n\r\n")[2] == data


async def settled(read_figure: Callable[[], int]) -> int:
    """A figure that has not changed for a while."""
    before = -1
    async with asyncio.timeout(20):
        while (figure := read_figure()) != before:
            before = figure
            await asyncio.sleep(0.1)
    return figure


async def test_a_client_that_does_not_read_holds_the_upstream_back() -> None:
    total = 64 * MiB
    async with tunnelled(repeat(b"x" * 65536, total // 65536), hang, limit=1 << 10) as (client, _, daemon):
        end = end_of(daemon)
        assert await settled(lambda: end.other.received) < total
        assert not end.other.transport.is_reading()
        assert CHUNK <= end.transport.get_write_buffer_size() <= LIMIT
        async with asyncio.timeout(20):
            assert len(await client.reader.readexactly(total)) == total
        assert end.other.transport.is_reading()


async def test_an_upstream_that_does_not_read_holds_the_client_back() -> None:
    total = 64 * MiB
    go_on = asyncio.Event()
    async with tunnelled(until(go_on), hang) as (client, server, daemon):
        end = end_of(daemon)
        client.writer.write(b"x" * (total - 3) + b"end")
        assert await settled(lambda: end.received) < total
        assert not end.transport.is_reading()
        assert CHUNK <= end.other.transport.get_write_buffer_size() <= LIMIT
        go_on.set()
        await until_true(lambda: server.peers[0].received.endswith(b"end"), 20)
        assert end.received == total


async def test_many_at_once_leave_nothing() -> None:
    async def one(daemon: Daemon, number: int) -> None:
        async with connected(daemon) as client:
            ask(client)
            await client.exactly(SWITCHED)
            client.writer.write(b"%d" % number)
            await client.exactly(b"%d" % number)
            if number % 2:
                client.writer.close()

    async with FaultServer([*OPEN, echo]) as server, running(server.url) as daemon:
        await asyncio.gather(*(one(daemon, number) for number in range(50)))
        await until_true(lambda: not connections(daemon), 1)
        assert not daemon._front._in_flight
        assert not any(daemon._pool._idle.values())
        assert server.connections == 50


# ---------------------------------------------------------------- the end of the daemon


async def test_a_tunnel_is_a_call_in_flight_until_it_is_over() -> None:
    async with tunnelled(echo) as (client, _, daemon):
        assert daemon._front._in_flight == 1
        stopping = asyncio.create_task(daemon.stop(5))
        await settle(0.05)
        client.writer.write(b"still there")
        await client.exactly(b"still there")
        assert not stopping.done()
        client.writer.close()
        async with within(1):
            await stopping
        assert not daemon._front._in_flight


async def test_a_tunnel_ends_with_the_time_to_drain() -> None:
    async with tunnelled(hang) as (client, server, daemon):
        async with within(1):
            await daemon.stop(0.1)
        assert await ended(client) == b""
        await gone(server.peers[0])


async def test_tunnels_that_are_full_end_with_the_time_to_drain() -> None:
    async with tunnelled(repeat(b"x" * 65536, 1000), limit=1 << 10) as (_, server, daemon):
        end = end_of(daemon)
        await settled(lambda: end.other.received)
        async with within(1):
            await daemon.stop(0.1)
        await until_true(lambda: end.gone and end.other.gone, 1)
        await gone(server.peers[0])


# ---------------------------------------------------------------- alone


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Tls = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """The contexts of a server for 127.0.0.1 and of a client that trusts it."""
    authority = Authority(tmp_path_factory.mktemp("tls"))
    return authority.server("127.0.0.1"), ssl.create_default_context(cafile=authority.ca_file)


@asynccontextmanager
async def joined(
    silent_s: float = 60.0, tls: Tls | None = None
) -> AsyncIterator[tuple[Streams, Streams, Tunnel]]:
    """Two connections, either with a peer of the test's, and a tunnel between them that is not begun.

    The upstream's may be by TLS.
    """
    accepted: asyncio.Queue[Streams] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted.put((reader, writer))

    contexts = (None, None) if tls is None else tls
    async with (
        await asyncio.start_server(accept, "127.0.0.1", 0) as plain,
        await asyncio.start_server(accept, "127.0.0.1", 0, ssl=contexts[0]) as other,
    ):
        sides, peers = [], []
        for server, context in ((plain, None), (other, contexts[1])):
            host, port = server.sockets[0].getsockname()
            sides.append(await asyncio.open_connection(host, port, ssl=context))
            peers.append(await accepted.get())
        client, upstream = (cast(asyncio.Transport, writer.transport) for _, writer in sides)
        for transport in (client, upstream):
            transport.set_protocol(Pieces(BaseProtocol(asyncio.get_running_loop())))
            transport.pause_reading()
        try:
            yield (
                peers[0],
                peers[1],
                Tunnel(client, upstream, memoryview(bytearray(CHUNK)), silent_s=silent_s),
            )
        finally:
            for _, writer in (*sides, *peers):
                writer.transport.abort()
            await settle(0.01)


async def test_cancelled_it_ends_both() -> None:
    async with joined() as ((client, _), (upstream, _), tunnel):
        running_ = asyncio.create_task(tunnel.run(b"to the client", b"to the upstream"))
        assert await client.readexactly(13) == b"to the client"
        assert await upstream.readexactly(15) == b"to the upstream"
        running_.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running_
        async with within(1):
            assert await client.read() == b""
            assert await upstream.read() == b""


@pytest.mark.parametrize("which", [0, 1])
async def test_an_end_that_is_closing_when_it_begins(which: int) -> None:
    async with joined() as (client, upstream, tunnel), within(1):
        tunnel._ends[which].transport.abort()
        await tunnel.run(b"x", b"x")
        reader, _ = (upstream, client)[which]
        assert await reader.read() == b"x"


@pytest.mark.waits
async def test_a_reset_does_not_wait_for_a_reader_that_is_stuck() -> None:
    """The client has much to take yet and takes nothing; what it sends shows that the upstream is gone."""
    async with joined() as ((_, client), (_, upstream), tunnel):
        cast(asyncio.Transport, client.transport).pause_reading()
        running_ = asyncio.create_task(tunnel.run())
        upstream.write(b"x" * (64 * MiB))
        await settled(lambda: tunnel.upstream.received)
        cut_off(cast(asyncio.Transport, upstream.transport))
        await settle(0.1)  # for the reset to arrive
        client.write(b"?")
        await until_true(lambda: tunnel.upstream.gone, 1)
        assert tunnel.client.transport.get_write_buffer_size() >= CHUNK
        async with within(1.5):
            await running_
        assert tunnel.client.gone


@pytest.mark.waits
async def test_the_last_bytes_are_taken_slowly_and_not_lost() -> None:
    """A clean end, and then as long as it takes, if only something moves."""
    async with joined(silent_s=0.5) as ((client, _), (_, upstream), tunnel):
        running_ = asyncio.create_task(tunnel.run())
        upstream.write(b"x" * (16 * MiB))
        upstream.write_eof()
        total = 0
        async with asyncio.timeout(20):
            while chunk := await client.read(256 << 10):
                total += len(chunk)
                await asyncio.sleep(0.02)
        assert total == 16 * MiB
        async with within(2):
            await running_


async def test_over_tls(tls: Tls) -> None:
    data = hashlib.shake_256(b"seed").digest(4 * MiB)
    async with joined(tls=tls) as ((client, to_client), (upstream, to_upstream), tunnel), asyncio.timeout(20):
        running_ = asyncio.create_task(tunnel.run(b"a", b"b"))
        to_client.write(data)
        to_upstream.write(data[::-1])
        size = len(data) + 1
        to_both = await asyncio.gather(client.readexactly(size), upstream.readexactly(size))
        assert list(to_both) == [b"a" + data[::-1], b"b" + data]
        to_upstream.write(b"last words")
        to_upstream.close()
        assert await client.read() == b"last words"
        to_client.close()
        await running_


async def test_a_client_that_has_said_everything_ends_a_tunnel_over_tls(tls: Tls) -> None:
    """TLS has no half-close here; what it said arrives."""
    async with joined(tls=tls) as ((client, to_client), (upstream, _), tunnel), asyncio.timeout(15):
        running_ = asyncio.create_task(tunnel.run())
        to_client.write(b"everything")
        to_client.write_eof()
        assert await upstream.read() == b"everything"
        assert await client.read() == b""
        await running_


async def test_an_upstream_by_tls_that_does_not_read_holds_the_client_back(tls: Tls) -> None:
    async with joined(tls=tls) as ((_, to_client), (upstream, _), tunnel), asyncio.timeout(20):
        running_ = asyncio.create_task(tunnel.run())
        to_client.write(b"x" * (32 * MiB))
        assert await settled(lambda: tunnel.client.received) < 32 * MiB
        assert not tunnel.client.transport.is_reading()
        assert tunnel.upstream.transport.get_write_buffer_size() <= LIMIT
        assert len(await upstream.readexactly(32 * MiB)) == 32 * MiB
        running_.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running_


# ---------------------------------------------------------------- real clients


async def talk_back(request: web.Request) -> web.WebSocketResponse:
    """Echoes, compressed where the client can; leaves at "bye"."""
    socket = web.WebSocketResponse(protocols=("chat",), compress=True)
    await socket.prepare(request)
    async for message in socket:
        if message.type is aiohttp.WSMsgType.TEXT:
            await socket.send_str(message.data.upper())
            if message.data == "bye":
                await socket.close(code=4000, message=b"as you wish")
        elif message.type is aiohttp.WSMsgType.BINARY:
            await socket.send_bytes(message.data[::-1])
    return socket


@asynccontextmanager
async def served(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_get("/socket", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("compress", [0, 15])
async def test_a_real_client_and_a_real_server(compress: int) -> None:
    seen: list[Any] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers["Authorization"])
        return await talk_back(request)

    async with (
        served(answer) as url,
        running(url) as daemon,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{daemon.addresses[0]}/socket", protocols=("chat",), compress=compress) as socket,
    ):
        assert socket.protocol == "chat"
        assert bool(socket.compress) == bool(compress)
        await socket.send_str("hello")
        assert await socket.receive_str() == "HELLO"
        await socket.ping(b"are you there?")
        data = bytes(range(256)) * 4096
        await socket.send_bytes(data)
        assert await socket.receive_bytes() == data[::-1]
        await socket.send_str("bye")
        assert await socket.receive_str() == "BYE"
        last = await socket.receive()
        assert (last.type, last.data, last.extra) == (aiohttp.WSMsgType.CLOSE, 4000, "as you wish")
        assert socket.close_code == 4000
    assert seen == ["Bearer the-token"]


async def test_a_real_client_that_is_refused() -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(status=403, text="not you")

    async with served(refuse) as url, running(url) as daemon, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"{daemon.addresses[0]}/socket")
        assert caught.value.status == 403


@pytest.mark.threat(12)
async def test_a_real_client_of_another_origin() -> None:
    async with served(talk_back) as url, running(url) as daemon, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"{daemon.addresses[0]}/socket", origin="http://evil.test")
        assert caught.value.status == 403


# ---------------------------------------------------------------- what is used below the server's surface


async def test_what_the_server_keeps_of_an_upgrade_is_where_we_look_for_it() -> None:
    """Decision 0002: an aiohttp that keeps it elsewhere must be noticed here, and not by bytes that are missing."""
    switch = asyncio.Event()
    async with (
        FaultServer([read, until(switch), send(SWITCH), hang]) as server,
        running(server.url) as daemon,
        connected(daemon) as client,
    ):
        ask(client, body=b"early")
        await until_true(lambda: bool(server.requests))
        assert daemon._server is not None
        (handler,) = daemon._server.connections
        assert handler._upgraded
        assert handler._message_tail == b"early"
        assert not handler._messages
        assert not handler.writing_paused
        switch.set()
        await client.exactly(SWITCHED)
        assert handler._message_tail == b""
        end = end_of(daemon)
        assert end._former.protocol is handler
        client.writer.close()
        await gone(server.peers[0])
        await until_true(lambda: not connections(daemon), 1)
        assert handler.transport is None
