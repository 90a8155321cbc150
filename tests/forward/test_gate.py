"""The gate on the wire: which requests are refused, how large and how slow one may be, how many clients there are."""

import asyncio
import json
import re
import socket
import struct
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, NoReturn, cast

import pytest

from bearerd.core.accounts import Account, CommandSource, Source, StaticSource
from bearerd.core.configuration import Configuration, Limits, Listen
from bearerd.core.guard import Guard
from bearerd.core.redaction import Secret
from bearerd.core.targets import parse_route
from bearerd.daemon import Daemon
from bearerd.forward.reply import say_no_more
from bearerd.gate import REFUSALS, Door, Gate
from faults import (
    FaultServer,
    Step,
    hang,
    pause,
    read,
    read_head,
    reply,
    request_size,
    send,
    serve,
    stall,
    until,
)
from patience import settle, soon, within

HI: Final = reply(b"hi")
STATIC: Final = StaticSource(Secret("the-token"))
CHUNKED: Final = "Transfer-Encoding: chunked"


@asynccontextmanager
async def gate(
    *scripts: Sequence[Step], source: Source = STATIC, query_token: bool = False, limits: Limits | None = None
) -> AsyncIterator[tuple[Daemon, FaultServer]]:
    """A daemon with these limits before an upstream that plays `scripts`."""
    async with FaultServer(*(scripts or ([serve(HI)],))) as server:
        route = replace(parse_route("/", server.url, "work"), query_token=query_token)
        daemon = Daemon(
            Configuration(
                accounts={"work": Account("work", source)},
                routes=(route,),
                listen=Listen(hosts=("127.0.0.1",), port=0),
                limits=limits or Limits(),
            )
        )
        await daemon.start()
        try:
            yield daemon, server
        finally:
            await daemon.stop(0.2)


class Wire:
    """One raw connection."""

    def __init__(self, daemon: Daemon, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host = f"localhost:{daemon.port}"
        self.reader = reader
        self.writer = writer

    def write(self, *lines: str, body: bytes = b"", host: bool = True) -> None:
        """Send a request; a good Host is its second line unless `host` is False."""
        first, *fields = lines
        hosts = [f"Host: {self._host}"] if host else []
        self.writer.write("\r\n".join([first, *hosts, *fields, "", ""]).encode("latin-1") + body)

    async def answer(self) -> bytes:
        async with asyncio.timeout(15):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            return head + await self.reader.readexactly(int(length[1]) if length else 0)

    async def ok(self) -> None:
        assert (await self.answer()).startswith(b"HTTP/1.1 200 OK\r\n")

    async def closed(self, within_s: float = 1.0) -> None:
        """Nothing more comes but the end."""
        async with within(within_s):
            assert await self.reader.read() == b""

    async def refused(self, status: int, code: str, within_s: float = 1.0) -> dict[str, Any]:
        """A problem, and then the end."""
        async with within(within_s):
            raw = await self.answer()
        head, _, body = raw.partition(b"\r\n\r\n")
        problem: dict[str, Any] = json.loads(body)
        assert (int(head.split()[1]), problem["status"], problem["code"]) == (status, status, code)
        assert b"\r\nContent-Type: application/problem+json\r\n" in head + b"\r\n"
        assert b"\r\nProxy-Status: bearerd; error=" in head
        assert b"\r\nConnection: close" in head
        await self.closed()
        return problem


@asynccontextmanager
async def wire(daemon: Daemon) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
    try:
        yield Wire(daemon, reader, writer)
    finally:
        writer.transport.abort()


async def settled(server: FaultServer) -> None:
    """Time for a request to reach the upstream, if it were to."""
    await settle(0.05)
    assert server.connections == 0


# ---------------------------------------------------------------- which requests are refused

BAD: Final = (400, "bad_request")
WRONG: Final = (421, "wrong_authority")


@pytest.mark.parametrize(
    ("lines", "body", "expected"),
    [
        (["POST / HTTP/1.0", CHUNKED], b"0\r\n\r\n", BAD),
        (["POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked"], b"0\r\n\r\n", BAD),
        (["POST / HTTP/1.1", "Transfer-Encoding: chunked, chunked"], b"0\r\n\r\n", BAD),
        (["POST / HTTP/1.1", "Transfer-Encoding: gzip"], b"", BAD),
        (["POST / HTTP/1.1", "Transfer-Encoding: identity"], b"", BAD),
        (["POST / HTTP/1.1", "Transfer-Encoding:"], b"0\r\n\r\n", BAD),
        (["POST / HTTP/1.1", "Transfer-Encoding: xchunked"], b"0\r\n\r\n", BAD),
        (["POST / HTTP/1.1", CHUNKED, CHUNKED], b"0\r\n\r\n", BAD),
        (["POST / HTTP/1.1", CHUNKED, "Content-Length: 5"], b"0\r\n\r\n", BAD),
        (["POST / HTTP/1.1", "Content-Length: 5", CHUNKED], b"0\r\n\r\n", BAD),
        (["POST / HTTP/1.1", "Content-Length: 1", "Content-Length: 1"], b"x", BAD),
        (["POST / HTTP/1.1", "Content-Length: 1, 1"], b"x", BAD),
        (["POST / HTTP/1.1", "Content-Length: +1"], b"x", BAD),
        (["POST / HTTP/1.1", "Content-Length: -1"], b"x", BAD),
        (["POST / HTTP/1.1", "Content-Length: 0x1"], b"x", BAD),
        (["POST / HTTP/1.1", "Content-Length:"], b"x", BAD),
        (["POST / HTTP/1.1", "Content-Length: 99999999999999999999"], b"x", BAD),
        (["POST / HTTP/1.1", "Content-Length : 1"], b"x", BAD),
        (["GET / HTTP/1.1", "Upgrade: websocket", "Content-Length: 1"], b"x", BAD),
        (["GET / HTTP/1.1", "Connection: upgrade", "Upgrade: websocket", CHUNKED], b"0\r\n\r\n", BAD),
        (["GET / HTTP/1.1", "A: b", " c: folded"], b"", BAD),
        (["GET / HTTP/1.1", "A: b\nc: d"], b"", BAD),
        (["GET / HTTP/1.1", "A: b\rc: d"], b"", BAD),
        (["GET / HTTP/1.1", "A: b\0c"], b"", BAD),
        (["GET / HTTP/1.1", "A b: c"], b"", BAD),
        (["GET / HTTP/1.1", ": c"], b"", BAD),
        (["GET / HTTP/0.9"], b"", BAD),
        (["GET / HTTP/1.2"], b"", BAD),
        (["GET / HTTP/2.0"], b"", BAD),
        (["GET /a b HTTP/1.1"], b"", BAD),
        (["G\xe9T / HTTP/1.1"], b"", BAD),
        (["\x16\x03\x01 a TLS hello"], b"", BAD),
        (["CONNECT evil.test:443 HTTP/1.1"], b"", (405, "method_refused")),
        (["CONNECT @evil.test:443 HTTP/1.1"], b"", (405, "method_refused")),
        (["TRACE / HTTP/1.1"], b"", (405, "method_refused")),
        (["GET http://evil.test/ HTTP/1.1"], b"", WRONG),
        (["GET https://localhost/ HTTP/1.1"], b"", WRONG),
        (["GET evil.test HTTP/1.1"], b"", BAD),
        (["GET * HTTP/1.1"], b"", BAD),
    ],
    ids=repr,
)
async def test_a_request_that_is_refused(lines: list[str], body: bytes, expected: tuple[int, str]) -> None:
    """At once, once, and nothing of what follows is read as a request."""
    async with gate() as (daemon, server), wire(daemon) as client:
        client.write(*lines, body=body + b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await client.refused(*expected)
        await settled(server)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", BAD),
        (b"GET / HTTP/1.0\r\n\r\n", BAD),
        (b"GET /\r\n\r\n", BAD),
        (b"GET /\r\nHost: %b\r\n\r\n", BAD),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", WRONG),
        (b"GET / HTTP/1.1\r\nHost: \r\n\r\n", WRONG),
        (b"GET / HTTP/1.0\r\nHost: a@%b\r\n\r\n", WRONG),
        (b"GET / HTTP/1.1\r\nHost: a@%b\r\n\r\n", WRONG),
        (b"GET / HTTP/1.1\r\nHost: %b, evil.test\r\n\r\n", WRONG),
        (b"GET / HTTP/1.1\r\nHost: evil.test, %b\r\n\r\n", WRONG),
        (b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", WRONG),
        (b"GET / HTTP/1.1\r\nHost: %b\r\nHost: %b\r\n\r\n", BAD),
        (b"GET / HTTP/1.1\r\nHost: evil.test\r\nHost: %b\r\n\r\n", BAD),
        (b"GET / HTTP/1.0\r\nHost: %b\r\nHost: %b\r\n\r\n", BAD),
        (b"GET http://a@%b/ HTTP/1.1\r\nHost: %b\r\n\r\n", WRONG),
    ],
)
async def test_a_host_that_is_none(head: bytes, expected: tuple[int, str]) -> None:
    async with gate() as (daemon, server), wire(daemon) as client:
        client.writer.write(head.replace(b"%b", b"localhost:%d" % daemon.port))
        await client.refused(*expected)
        await settled(server)


async def test_an_absolute_url_of_our_own_is_its_path() -> None:
    async with gate() as (daemon, server), wire(daemon) as client:
        client.write(f"GET http://localhost:{daemon.port}/a?b HTTP/1.1")
        await client.ok()
    assert server.requests[0].startswith(b"GET /a?b HTTP/1.1\r\n")


@pytest.mark.threat(8)
async def test_authorization_given_twice_is_dropped_twice() -> None:
    async with gate() as (daemon, server), wire(daemon) as client:
        client.write("GET / HTTP/1.1", "Authorization: Bearer x", "authorization: Basic y")
        await client.ok()
    assert re.findall(rb"(?i)authorization: (.*)\r\n", server.requests[0]) == [b"Bearer the-token"]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_via_names_the_protocol_that_came_in(version: str) -> None:
    """RFC 9110 section 7.6.3."""
    async with gate() as (daemon, server), wire(daemon) as client:
        client.write(f"GET / HTTP/{version}", "Via: 1.1 other")
        await client.ok()
    assert re.search(
        rb"\r\nVia: 1\.1 other\r\nVia: %b bearerd-[0-9a-f]{16}\r\n" % version.encode(), server.requests[0]
    )


@pytest.mark.parametrize(("given", "sent"), [("1", b"0"), ("7", b"6"), ("many", b"many"), ("", b"")])
async def test_max_forwards_of_options_counts_down(given: str, sent: bytes) -> None:
    """RFC 9110 section 7.6.2: for OPTIONS and TRACE, and nothing else."""
    async with gate() as (daemon, server), wire(daemon) as client:
        client.write("OPTIONS / HTTP/1.1", f"max-forwards: {given}")
        await client.ok()
        client.write("GET / HTTP/1.1", "Max-Forwards: 0")
        await client.ok()
    assert b"\r\nmax-forwards: %b\r\n" % sent in server.requests[0]
    assert b"\r\nMax-Forwards: 0\r\n" in server.requests[1]


async def test_max_forwards_that_is_used_up_ends_here() -> None:
    async with gate() as (daemon, server), wire(daemon) as client:
        client.write("OPTIONS /x HTTP/1.1", "Max-Forwards: 0")
        raw = await client.answer()
        assert raw.startswith(b"HTTP/1.1 508 ")
        assert b'"loop"' in raw
        await settled(server)


async def test_a_person_is_refused_with_a_page() -> None:
    async with gate() as (daemon, server):
        for method, bodiless in (("GET", False), ("HEAD", True)):
            async with wire(daemon) as client:
                client.write(f"{method} / HTTP/1.1", "Host: evil.test", "Accept: text/html", host=False)
                async with within(1):
                    head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 421 Misdirected Request\r\n")
                assert (b"Content-Type: text/html" in head) is not bodiless
                assert (body == b"") is bodiless
        await settled(server)


# ---------------------------------------------------------------- a client's token in the query


@pytest.mark.parametrize(
    "query",
    [
        "access_token=x",
        "a=b&access_token=x",
        "access_token",
        "a=b;access_token=x",
        "access%5ftoken=x",
        "?&Access_Token=",
    ],
)
async def test_a_token_in_the_query_is_refused(query: str) -> None:
    async with gate() as (daemon, server), wire(daemon) as client:
        client.write(f"GET /a?{query} HTTP/1.1")
        raw = await client.answer()
        assert raw.startswith(b"HTTP/1.1 403 ")
        assert b'"token_in_query"' in raw
        assert b"query_token" in raw
        await settled(server)
        client.write("GET /a?xaccess_token=1&x=access_token&access_token_type=b HTTP/1.1")
        await client.ok()


async def test_a_token_in_the_query_where_the_route_allows_it() -> None:
    async with gate(query_token=True) as (daemon, server), wire(daemon) as client:
        client.write("GET /a?access_token=x HTTP/1.1")
        await client.ok()
    assert server.requests[0].startswith(b"GET /a?access_token=x HTTP/1.1\r\n")


# ---------------------------------------------------------------- broken bodies


@pytest.mark.parametrize(
    "body",
    [
        b"no chunk\r\n\r\n",
        b"-1\r\nx\r\n0\r\n\r\n",
        b"0x1\r\nx\r\n0\r\n\r\n",
        b"1\r\nxyz\r\n0\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"1\nx\n0\n\n",
        b"3\r\nabc\r\nno chunk\r\n\r\n",
        b"fffffffffffffffff\r\nx",
        b"1 \r\nx\r\n0\r\n\r\n",
        b"1;a\rb\r\nx\r\n0\r\n\r\n",
        b"0\r\n\nGET / HTTP/1.1\r\n\r\n",
    ],
)
@pytest.mark.parametrize("apart", [False, True])
async def test_a_broken_chunked_body_ends_the_call_at_once(body: bytes, *, apart: bool) -> None:
    async with gate([read, send(HI), hang]) as (daemon, server), wire(daemon) as client:
        client.write("POST / HTTP/1.1", CHUNKED, body=b"" if apart else body)
        if apart:
            await settle(0.05)
            client.writer.write(body)
        await client.refused(*BAD)
        if server.peers:
            await soon(server.peers[0].gone)
            assert request_size(server.peers[0].received) is None
    assert server.requests == []


async def test_a_broken_body_behind_another_call() -> None:
    """The answer before it is whole."""
    async with gate([read, pause(0.1), send(HI), hang]) as (daemon, server), wire(daemon) as client:
        client.write("GET / HTTP/1.1")
        await settle(0.02)
        client.write("POST / HTTP/1.1", CHUNKED, body=b"no chunk\r\n\r\n")
        await client.ok()
        await client.refused(*BAD)
    assert len(server.requests) == 1


async def test_what_is_no_request_behind_another_call() -> None:
    async with gate([read, pause(0.1), send(HI), hang]) as (daemon, server), wire(daemon) as client:
        client.write("GET / HTTP/1.1")
        await settle(0.02)
        for _ in range(3):
            client.writer.write(b"no request\r\n\r\n")
            await asyncio.sleep(0)
        await client.ok()
        await client.refused(*BAD)
    assert len(server.requests) == 1


async def test_a_body_that_breaks_while_the_answer_comes_cuts_it_off() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst"
    async with gate([read_head, send(answer), hang]) as (daemon, server), wire(daemon) as client:
        client.write("POST / HTTP/1.1", CHUNKED)
        await client.reader.readuntil(b"first")
        client.writer.write(b"no chunk\r\n\r\n")
        async with within(1):
            with pytest.raises(ConnectionResetError):
                await client.reader.read()
        await soon(server.peers[0].gone)


@pytest.mark.parametrize("how", ["close", "half_close"])
async def test_a_client_that_leaves_in_its_body_takes_the_upstream_with_it(how: str) -> None:
    async with gate([read, send(HI), hang]) as (daemon, server), wire(daemon) as client:
        client.write("POST / HTTP/1.1", "Content-Length: 100", body=b"abc")
        await settle(0.05)
        if how == "close":
            client.writer.close()
        else:
            client.writer.write_eof()
        await soon(server.peers[0].gone)
    assert server.requests == []


# ---------------------------------------------------------------- how large a head may be


async def test_a_head_at_the_limits() -> None:
    async with gate() as (daemon, server), wire(daemon) as client:
        client.write(f"GET /{'x' * (16_384 - 1)} HTTP/1.1")
        await client.ok()
        client.write("GET / HTTP/1.1", f"A: {'x' * 32_768}", f"B: {'x' * 32_000}")
        await client.ok()
        client.write("GET / HTTP/1.1", *["A: b"] * 127)
        await client.ok()
    assert len(server.requests) == 3


@pytest.mark.threat(18)
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([f"GET /{'x' * 16_384} HTTP/1.1"], (414, "target_too_long")),
        (["GET / HTTP/1.1", f"A: {'x' * 32_769}"], (431, "head_too_large")),
        (["GET / HTTP/1.1", f"{'A' * 32_769}: x"], (431, "head_too_large")),
        (["GET / HTTP/1.1", *[f"A: {'x' * 22_000}"] * 3], (431, "head_too_large")),
        (["GET / HTTP/1.1", *["A: b"] * 128], (431, "head_too_large")),
        (["GET / HTTP/1.1", *[f"A: {'x' * 32_000}"] * 100], (431, "head_too_large")),
    ],
    ids=["target", "field", "name", "all", "count", "megabytes"],
)
@pytest.mark.parametrize("size", [1_000_000, 1_000], ids=["at once", "in pieces"])
async def test_a_head_over_the_limits(lines: list[str], expected: tuple[int, str], size: int) -> None:
    """The answer arrives although more of the head is on its way."""
    async with gate() as (daemon, server), wire(daemon) as client:
        data = "\r\n".join([lines[0], f"Host: localhost:{daemon.port}", *lines[1:], "", ""]).encode()
        for start in range(0, len(data), size):
            client.writer.write(data[start : start + size])
            await asyncio.sleep(0)
        await client.refused(*expected)
        await settled(server)


async def test_a_head_that_is_too_large_behind_a_call_leaves_its_answer_whole() -> None:
    async with gate([read, pause(0.3), send(HI), hang]) as (daemon, server), wire(daemon) as client:
        client.write("GET / HTTP/1.1")
        await settle(0.02)
        client.writer.write(b"GET / HTTP/1.1\r\n")
        for _ in range(100):
            client.writer.write(b"X: " + b"x" * 4_000 + b"\r\n")
            await asyncio.sleep(0)
        await client.ok()
        await client.refused(431, "head_too_large")
    assert len(server.requests) == 1


@pytest.mark.threat(18)
async def test_a_head_that_never_ends_is_not_kept() -> None:
    async with gate() as (daemon, server), wire(daemon) as client:
        client.writer.write(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 60)  # so few that their number is no reason
        for number in range(30):
            client.writer.write(b"X%d: " % number + b"x" * 4_000 + b"\r\n")
            await asyncio.sleep(0)
        await client.refused(431, "head_too_large")
        await settled(server)


# ---------------------------------------------------------------- how slow a client may be


async def drip(client: Wire, data: bytes, pause_s: float) -> None:
    """Send a byte after the other for as long as anybody takes them."""
    for byte in data:
        if client.reader.at_eof() or client.writer.transport.is_closing():
            return
        client.writer.write(bytes([byte]))
        await asyncio.sleep(pause_s)


@pytest.mark.threat(18)
@pytest.mark.parametrize("after_a_call", [False, True])
async def test_a_head_that_drips_in_is_cut_off(*, after_a_call: bool) -> None:
    """The time runs from its first byte, however many come."""
    loop = asyncio.get_running_loop()
    async with gate(limits=Limits(header_read_s=0.4)) as (daemon, server), wire(daemon) as client:
        if after_a_call:
            client.write("GET / HTTP/1.1")
            await client.ok()
        began = loop.time()
        dripping = asyncio.create_task(drip(client, b"GET / HTTP/1.1\r\nX: " + b"x" * 1000, 0.05))
        await client.refused(408, "head_timeout", 2)
        assert loop.time() - began > 0.35
        await dripping
    assert len(server.requests) == int(after_a_call)


async def test_a_head_has_no_longer_because_a_body_had() -> None:
    limits = Limits(header_read_s=0.3, body_idle_s=30)
    async with gate(limits=limits) as (daemon, server), wire(daemon) as client:
        client.write("POST / HTTP/1.1", "Content-Length: 3", body=b"ab")
        await settle(0.05)
        client.writer.write(b"c")
        await client.ok()
        client.writer.write(b"GET / HT")
        await client.refused(408, "head_timeout", 1)
    assert len(server.requests) == 1


@pytest.mark.parametrize("protocol", ["h2c", "h2c, TLS/1.0"])
@pytest.mark.parametrize("apart", [False, True])
async def test_an_upgrade_that_is_not_made_and_the_next_request(protocol: str, *, apart: bool) -> None:
    """The connection goes on, as it does with curl and Java's client."""
    fields = ["Connection: upgrade", f"Upgrade: {protocol}"]
    async with gate() as (daemon, server), wire(daemon) as client:
        for _ in range(2):
            client.write("POST /1 HTTP/1.1", *fields, "Content-Length: 6", body=b"" if apart else b"abc")
            await settle(0.05)
            client.writer.write(b"abcdef" if apart else b"def")
            await client.ok()
            client.write("POST /2 HTTP/1.1", *fields, "Content-Length: 3", body=b"abc")
            await client.ok()
            client.write("GET /3 HTTP/1.1", *fields)
            await client.ok()
        client.write("GET /4 HTTP/1.1")
        await client.ok()
    paths = [request.split()[1] for request in server.requests]
    assert paths == [b"/1", b"/2", b"/3", b"/1", b"/2", b"/3", b"/4"]


@pytest.mark.threat(11)
@pytest.mark.parametrize("protocol", ["h2c", "h2c, other", "TLS/1.0"])
@pytest.mark.parametrize(
    ("fields", "first", "second"),
    [
        ([], b"", b""),
        (["Content-Length: 3"], b"abc", b""),
        (["Content-Length: 3"], b"a", b"bc"),
        (["Content-Length: 7"], b"a", b"b\r\n\r\nc"),
        ([CHUNKED], b"3\r\nabc\r\n0\r\n\r\n", b""),
    ],
)
async def test_what_follows_an_upgrade_that_is_not_made_is_not_misread(
    protocol: str, fields: list[str], first: bytes, second: bytes
) -> None:
    """The parser loses what comes in one piece with the request's end; what follows that would be read as a request."""
    async with gate() as (daemon, server), wire(daemon) as client:
        tail = f"POST /2 HTTP/1.1\r\nHost: localhost:{daemon.port}\r\nContent-Length: 100\r\n\r\n".encode()
        upgrade = ["Connection: upgrade", f"Upgrade: {protocol}"]
        client.write("POST /1 HTTP/1.1", *upgrade, *fields, body=first + (b"" if second else tail))
        if second:
            await settle(0.05)
            client.writer.write(second + tail)
        await settle(0.05)
        client.write("GET /smuggled HTTP/1.1")
        await client.ok()
        await client.closed()
    assert [request.split()[1] for request in server.requests] == [b"/1"]


@pytest.mark.waits
async def test_a_head_in_time_and_the_next_have_all_the_time_they_may_have() -> None:
    async with gate(limits=Limits(header_read_s=1.5)) as (daemon, server), wire(daemon) as client:
        for _ in range(3):
            client.writer.write(b"GET / HT")
            await asyncio.sleep(0.6)
            client.writer.write(b"TP/1.1\r\nHost: localhost:%d\r\n\r\n" % daemon.port)
            await client.ok()
    assert len(server.requests) == 3


async def test_line_ends_between_requests_are_no_head() -> None:
    """Some clients end a body with one more (RFC 9112 section 2.2)."""
    async with gate(limits=Limits(header_read_s=0.1)) as (daemon, server), wire(daemon) as client:
        client.write("POST / HTTP/1.1", "Content-Length: 3", body=b"abc\r\n")
        await client.ok()
        client.writer.write(b"\r\n")
        await asyncio.sleep(0.3)
        client.write("GET / HTTP/1.1")
        await client.ok()
    assert len(server.requests) == 2


async def test_a_head_that_stalls_behind_a_call_leaves_its_answer_whole() -> None:
    async with (
        gate([read, pause(0.5), send(HI), hang], limits=Limits(header_read_s=0.1)) as (daemon, server),
        wire(daemon) as client,
    ):
        client.write("GET / HTTP/1.1")
        await settle(0.02)
        client.writer.write(b"GET / HTTP/1.1\r\nX:")
        await client.ok()
        await client.refused(408, "head_timeout")
    assert len(server.requests) == 1


@pytest.mark.threat(18)
@pytest.mark.parametrize("framing", ["Content-Length: 100", CHUNKED])
async def test_a_body_that_stalls_is_cut_off(framing: str) -> None:
    async with (
        gate([read, send(HI), hang], limits=Limits(body_idle_s=0.3)) as (daemon, server),
        wire(daemon) as client,
    ):
        client.write("POST / HTTP/1.1", framing, body=b"3\r\nabc\r\n")
        await client.refused(408, "body_timeout", 2)
        await soon(server.peers[0].gone)
    assert server.requests == []


@pytest.mark.threat(18)
async def test_a_body_that_never_begins_is_cut_off() -> None:
    async with (
        gate([read, send(HI), hang], limits=Limits(body_idle_s=0.3)) as (daemon, _),
        wire(daemon) as client,
    ):
        client.write("POST / HTTP/1.1", "Content-Length: 100")
        await client.refused(408, "body_timeout", 2)


async def test_a_body_that_stalls_while_the_answer_comes_cuts_it_off() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst"
    async with (
        gate([read_head, send(answer), hang], limits=Limits(body_idle_s=0.3)) as (daemon, server),
        wire(daemon) as client,
    ):
        client.write("POST / HTTP/1.1", "Content-Length: 100", body=b"abc")
        await client.reader.readuntil(b"first")
        async with within(2):
            with pytest.raises(ConnectionResetError):
                await client.reader.read()
        await soon(server.peers[0].gone)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.waits
async def test_a_slow_body_that_goes_on_is_not_cut_off(framing: str) -> None:
    async with gate(limits=Limits(body_idle_s=1)) as (daemon, server), wire(daemon) as client:
        pieces = [b"a"] * 4 if framing == "length" else [b"1\r\na\r\n"] * 3 + [b"1\r\na\r\n0\r\n\r\n"]
        client.write("POST / HTTP/1.1", "Content-Length: 4" if framing == "length" else CHUNKED)
        for piece in pieces:
            await asyncio.sleep(0.3)
            client.writer.write(piece)
        await client.ok()
        await asyncio.sleep(1.2)  # and nobody waits for more of it
        client.write("GET / HTTP/1.1")
        await client.ok()
    assert len(server.requests) == 2


@pytest.mark.waits
async def test_a_client_that_is_held_back_by_the_upstream_is_not_cut_off() -> None:
    event = asyncio.Event()
    size = 16 << 20
    async with (
        gate([read_head, until(event), read, send(HI), hang], limits=Limits(body_idle_s=0.3)) as (
            daemon,
            server,
        ),
        wire(daemon) as client,
    ):
        client.write("POST / HTTP/1.1", f"Content-Length: {size}", body=b"x" * size)
        await asyncio.sleep(1)
        event.set()
        await client.ok()
    assert len(server.requests[0]) > size


@pytest.mark.waits
async def test_an_answer_that_takes_long_is_nobodys_fault() -> None:
    limits = Limits(header_read_s=0.1, body_idle_s=0.1, keep_alive_s=0.1)
    async with gate([read, pause(0.6), send(HI), hang], limits=limits) as (daemon, _), wire(daemon) as client:
        client.write("POST / HTTP/1.1", "Content-Length: 3")
        client.writer.write(b"abc")
        await client.ok()


@pytest.mark.parametrize("after_a_call", [False, True])
@pytest.mark.waits
async def test_an_idle_connection_is_closed(*, after_a_call: bool) -> None:
    """Without a word: a client may be sending its next request at this moment."""
    async with gate(limits=Limits(keep_alive_s=1)) as (daemon, _), wire(daemon) as client:
        if after_a_call:
            client.write("GET / HTTP/1.1")
            await client.ok()
        await asyncio.sleep(0.2)
        assert not client.reader.at_eof()
        await client.closed(2)


@pytest.mark.waits
async def test_a_head_that_comes_late_has_its_own_time() -> None:
    """And not what is left of the time that a connection may be idle."""
    async with gate(limits=Limits(keep_alive_s=1, header_read_s=3)) as (daemon, _), wire(daemon) as client:
        await asyncio.sleep(0.5)
        client.writer.write(b"GET / HT")
        await asyncio.sleep(0.8)
        client.writer.write(b"TP/1.1\r\nHost: localhost:%d\r\n\r\n" % daemon.port)
        await client.ok()
        await client.closed(2)


# ---------------------------------------------------------------- how many there are


@pytest.mark.threat(18)
async def test_no_more_connections_than_allowed() -> None:
    async with gate(limits=Limits(connections=2)) as (daemon, server):
        async with wire(daemon) as first, wire(daemon) as second:
            for client in (first, second):
                client.write("GET / HTTP/1.1")
                await client.ok()
            for _ in range(3):
                async with wire(daemon) as third:
                    third.write("GET / HTTP/1.1", body=b"x" * 100_000)
                    problem = await third.refused(503, "too_many_connections")
                    assert "limits.connections" in problem["detail"]
            first.write("GET / HTTP/1.1")
            await first.ok()
        await settle(0.05)
        async with wire(daemon) as client:
            client.write("GET / HTTP/1.1")
            await client.ok()
    assert len(server.requests) == 4


@pytest.mark.threat(18)
@pytest.mark.waits
async def test_a_flood_of_connections_holds_nothing() -> None:
    """Whoever does not even leave is left."""
    async with gate(limits=Limits(connections=2)) as (daemon, server):
        clients = []
        for _ in range(100):
            sock = socket.create_connection(("127.0.0.1", daemon.port))
            sock.setblocking(False)
            clients.append(sock)
            await asyncio.sleep(0)
        await settle(0.2)
        assert daemon._server is not None
        assert len(daemon._server.connections) == 2
        assert len(daemon._server.refusals) <= REFUSALS
        async with within(3):
            while daemon._server.refusals:  # noqa: ASYNC110  # there is nothing that would tell
                await asyncio.sleep(0.01)
        for sock in clients[:2]:
            sock.close()
        await settle(0.05)
        async with wire(daemon) as client:
            client.write("GET / HTTP/1.1")
            await client.ok()
        for sock in clients:
            sock.close()
    assert len(server.requests) == 1


async def test_a_refusal_under_way_at_the_end() -> None:
    async with gate(limits=Limits(connections=1)) as (daemon, _), wire(daemon), wire(daemon) as second:
        await second.answer()
        await daemon.stop(0.1)


@pytest.mark.waits
async def test_clients_that_leave_in_any_way_leave_nothing() -> None:
    async with gate(limits=Limits(connections=30)) as (daemon, _):
        server = daemon._server
        assert server is not None
        host = b"Host: localhost:%d\r\n" % daemon.port
        said = [
            b"",
            b"GET / HT",
            b"POST / HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
            b"GET / HTTP/1.1\r\n" + host + b"\r\n",
            b"no request\r\n\r\n",
        ]
        for number in range(200):
            _, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
            writer.write(said[number % 5])
            await asyncio.sleep(0.01 * (number % 3))
            if number % 2:
                writer.close()
            else:
                writer.transport.abort()
        for _ in range(400):
            if not server.served and not server.connections and not server.refusals:
                break
            await asyncio.sleep(0.05)
        assert (server.served, server.connections, server.refusals) == (0, [], set())


# ---------------------------------------------------------------- the end


async def test_an_upload_under_way_is_taken_to_its_end() -> None:
    async with gate() as (daemon, server), wire(daemon) as client:
        client.write("POST / HTTP/1.1", "Content-Length: 6", body=b"abc")
        await settle(0.05)
        ending = asyncio.create_task(daemon.stop(2))
        await settle(0.05)
        client.writer.write(b"def")
        await client.ok()
        await client.closed()
        async with within(1):
            await ending
    assert server.requests[0].endswith(b"abcdef")


async def test_nothing_new_is_taken_on_a_connection_at_the_end() -> None:
    async with gate([read, pause(0.2), send(HI), hang]) as (daemon, server), wire(daemon) as client:
        client.write("GET / HTTP/1.1")
        await settle(0.05)
        ending = asyncio.create_task(daemon.stop(2))
        await settle(0.05)
        client.write("GET /2 HTTP/1.1")
        await client.ok()
        await client.closed()
        await ending
    assert len(server.requests) == 1


@pytest.mark.waits
async def test_the_drain_takes_as_long_as_it_may() -> None:
    loop = asyncio.get_running_loop()
    async with gate([read, hang], limits=Limits(drain_s=0.4)) as (daemon, _), wire(daemon) as client:
        client.write("GET / HTTP/1.1")
        await settle(0.05)
        began = loop.time()
        async with within(1.2):
            await daemon.stop()
        assert loop.time() - began > 0.35


@pytest.mark.waits
async def test_a_client_that_waits_to_be_told_to_go_on_does_not_stall() -> None:
    """Nobody reads its body yet: there is no token."""
    slow = CommandSource(("sh", "-c", "sleep 2; echo x"), 30)
    async with gate(source=slow, limits=Limits(body_idle_s=1.5)) as (daemon, server), wire(daemon) as client:
        client.write("POST / HTTP/1.1", "Content-Length: 3", "Expect: 100-continue")
        async with asyncio.timeout(15):
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(b"abc")
        await client.ok()
    assert server.requests[0].endswith(b"abc")


@pytest.mark.waits
async def test_a_stalled_body_while_no_token_is_to_be_had() -> None:
    slow = CommandSource(("sh", "-c", "sleep 0.6; echo x"), 30)
    async with gate(source=slow, limits=Limits(body_idle_s=0.2)) as (daemon, server), wire(daemon) as client:
        client.write("POST / HTTP/1.1", "Content-Length: 6", body=b"abc")
        await client.refused(408, "body_timeout", 2)
    assert server.requests == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a client that is not read from")
@pytest.mark.parametrize("how", ["an end behind what is not read", "a reset"])
@pytest.mark.waits
async def test_a_client_that_leaves_while_the_upstream_does_not_read_ends_its_call(how: str) -> None:
    async with gate([stall]) as (daemon, server), wire(daemon) as client:
        client.write("POST / HTTP/1.1", "Content-Length: 100000000")
        held_back = 0
        assert daemon._server is not None
        async with asyncio.timeout(10):
            while held_back < 150:  # for 1.5 s: the upstream is asked first, and has a second to say yes
                if any(connection._reading_paused for connection in daemon._server.connections):
                    held_back += 1
                else:
                    held_back = 0
                    client.writer.write(bytes(1 << 16))
                await asyncio.sleep(0.01)
        assert daemon._front._in_flight == 1, "it has not left yet"
        if how == "a reset":
            linger = struct.pack("ii", 1, 0)
            raw = client.writer.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.writer.transport.abort()
        async with within(1):
            while daemon._front._in_flight:  # noqa: ASYNC110  # there is nothing that would tell
                await asyncio.sleep(0.01)
        assert server.requests == []


async def test_a_connection_that_has_just_been_reset_is_ended_without_complaint() -> None:
    """Before the event loop has heard of it."""
    made: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    class Listening(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.set_result(cast(asyncio.Transport, transport))

    async with await asyncio.get_running_loop().create_server(Listening, "127.0.0.1", 0) as server:
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            transport = await made
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        say_no_more(transport)
        transport.abort()


async def test_one_that_was_accepted_while_the_others_were_closed_is_closed_too() -> None:
    async def never(_: object) -> NoReturn:
        raise AssertionError

    closing = Gate(never, Limits(), 8)
    await closing.shutdown(0)
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        door = Door(Guard(frozenset(), frozenset(), b""), lambda _: None)
        transport, _ = await loop.connect_accepted_socket(closing.by(door), ours)
        assert transport.is_closing()
        async with within(5):
            assert await loop.sock_recv(theirs, 1) == b""
        assert closing.served == 0
