import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bearerd.core.accounts import Account, CommandSource
from bearerd.core.configuration import Configuration, Limits, Listen
from bearerd.core.redaction import Secret
from bearerd.core.targets import Origin, Proxy, Tls, Way, parse_route
from bearerd.daemon import Daemon
from bearerd.errors import ConfigError
from callers import FRESH, STATIC, connected, kept, pair, running, split
from certificates import Authority
from faults import (
    FaultServer,
    Peer,
    Step,
    hang,
    pause,
    read,
    read_head,
    refused_port,
    repeat,
    reply,
    request_size,
    reset,
    send,
    serve,
    talk,
    until,
)
from patience import settle, soon
from relays import TlsUpstream, TunnelProxy

MiB: Final = 1 << 20
OK: Final = b"HTTP/1.1 200 OK\r\n"
HI: Final = reply(b"hi")
WAITS: Final = """
mkdir {folder}/first 2>/dev/null && echo one && exit
until [ -e {folder}/go ]; do sleep 0.02; done
echo two
"""  # the second token comes when the test says so


@pytest.fixture(autouse=True, params=[False, True], ids=["new connection", "kept connection"])
def _connection(request: pytest.FixtureRequest) -> Iterator[None]:
    """Calls over a kept connection take another way through the daemon: all of this holds for both."""
    token = kept.set(request.param)
    yield
    kept.reset(token)


# ---------------------------------------------------------------- bytes in


async def test_a_request_on_the_wire_byte_for_byte() -> None:
    async with pair([serve(HI)], base="/v1/") as (client, server):
        client.write(
            "GET /%41/a//..%2e/%zz?a=%zz&b=?& HTTP/1.1",
            "X-One: 1",
            "x-ONE:   2  ",
            "X-Bytes: \xe9\xff",
            "Accept-Encoding: gzip, br",
            "Connection: x-private",
            "X-Private: only for this hop",
            "Cookie: a=1",
        )
        await client.answer()
    start_line, fields, body = split(server.requests[0])
    assert start_line == b"GET /v1/%41/a//..%2e/%zz?a=%zz&b=?& HTTP/1.1"
    assert re.fullmatch(rb"Via: 1\.1 bearerd-[0-9a-f]{16}", fields[-2])
    assert fields[:-2] + fields[-1:] == [
        b"Host: 127.0.0.1:%d" % server.port,
        b"X-One: 1",
        b"x-ONE: 2",
        b"X-Bytes: \xe9\xff",
        b"Accept-Encoding: gzip, br",
        b"Cookie: a=1",
        b"Authorization: Bearer the-token",
    ]
    assert body == b""


async def test_nothing_the_client_says_of_itself_leaves() -> None:
    """Authorization in any spelling, also where Connection names it; one is sent, ours."""
    async with pair([serve(HI)]) as (client, server):
        client.write(
            "GET / HTTP/1.1",
            "AuThOrIzAtIoN: Bearer client-secret",
            "Proxy-Authorization: Basic client-secret",
            "authorization_: kept",
            "Proxy_Authorization: client-secret",
            "X-Forwarded-For: client-secret",
            "X-Forwarded-Host: client-secret",
            "Forwarded: for=client-secret",
            "TE: trailers",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "Trailer: client-secret",
            "Upgrade: h2c",
            "HTTP2-Settings: client-secret",
            "Connection: close, AuThOrIzAtIoN, Upgrade, HTTP2-Settings",
        )
        assert (await client.rest()).endswith(b"hi")
    _, fields, _ = split(server.requests[0])
    assert b"client-secret" not in server.requests[0]
    assert [field.partition(b":")[0] for field in fields] == [
        b"Host",
        b"authorization_",
        b"Via",
        b"Authorization",
    ]


@pytest.mark.parametrize(
    ("fields", "body", "framing", "sent"),
    [
        (["Content-Length: 5"], b"abcde", b"Content-Length: 5", b"abcde"),
        (["Content-Length: 0"], b"", b"Content-Length: 0", b""),
        (
            ["Transfer-Encoding: chunked"],
            b"3\r\nabc\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked",
            b"3\r\nabc\r\n0\r\n\r\n",
        ),
        (["Transfer-Encoding: Chunked"], b"0\r\n\r\n", b"Transfer-Encoding: chunked", b"0\r\n\r\n"),
        (
            ["Transfer-Encoding: chunked", "Trailer: X-T"],
            b"3;e=1\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
            b"Transfer-Encoding: chunked",
            b"3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            ["Content-Encoding: gzip", "Content-Length: 3"],
            b"\x1f\x8b!",
            b"Content-Length: 3",
            b"\x1f\x8b!",
        ),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_request_bodies(
    method: str, fields: list[str], body: bytes, framing: bytes, sent: bytes
) -> None:
    async with pair([serve(HI)]) as (client, server):
        for _ in range(2):
            client.write(f"{method} / HTTP/1.1", *fields, body=body)
            assert (await client.answer()).endswith(b"hi")
        assert server.connections == 1
    for request in server.requests:
        _, seen, got = split(request)
        assert framing in seen
        assert (
            sum(re.match(rb"(?i)content-length|transfer-encoding", field) is not None for field in seen) == 1
        )
        assert got == sent


async def test_a_large_body_arrives_whole_and_is_not_held_up() -> None:
    body = bytes(range(256)) * 16_384
    async with pair([serve(HI)]) as (client, server):
        client.write("PUT / HTTP/1.1", f"Content-Length: {len(body)}", body=body)
        assert (await client.answer()).endswith(b"hi")
    assert split(server.requests[0])[2] == body


async def test_a_body_is_passed_on_as_it_comes() -> None:
    event = asyncio.Event()
    async with pair([read_head, until(event), read, send(HI), hang]) as (client, server):
        client.write("POST / HTTP/1.1", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n")
        async with asyncio.timeout(15):
            while not server.peers or not server.peers[0].received.endswith(b"\r\n\r\n3\r\nabc\r\n"):
                event.set()
                await asyncio.sleep(0.01)
        client.writer.write(b"0\r\n\r\n")
        assert (await client.answer()).endswith(b"hi")


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("how", ["close", "abort", "garbage"])
async def test_a_body_cut_short_never_looks_complete(framing: str, how: str) -> None:
    async with pair([read, send(HI), hang]) as (client, server):
        client.write("POST / HTTP/1.1", framing, body=b"3\r\nabc\r\n")
        async with asyncio.timeout(15):
            while not server.peers or not server.peers[0].received:  # noqa: ASYNC110  # there is nothing that would tell
                await asyncio.sleep(0.01)
        if how == "close":
            client.writer.close()
        elif how == "abort":
            client.writer.transport.abort()
        else:
            client.writer.write(b"no chunk\r\n\r\n" if "chunked" in framing else b"")
            client.writer.write_eof()
        await soon(server.peers[0].gone)
    assert server.requests == []
    assert request_size(server.peers[0].received) is None


@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
async def test_a_client_that_asks_first_is_told_to_go_on(value: str) -> None:
    async with pair([serve(HI)]) as (client, server):
        client.write("POST / HTTP/1.1", "Content-Length: 5", f"Expect: {value}")
        await client.exactly(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.writer.write(b"abcde")
        assert (await client.answer()).startswith(OK)
    assert b"xpect" not in server.requests[0]
    assert server.requests[0].endswith(b"abcde")


async def test_a_client_that_asks_first_and_has_no_body_or_an_old_protocol() -> None:
    async with pair([serve(HI)]) as (client, server):
        client.write("GET / HTTP/1.1", "Expect: 100-continue")
        assert (await client.answer()).startswith(OK)
        client.write("POST / HTTP/1.0", "Expect: 100-continue", "Content-Length: 1", body=b"x")
        assert (await client.answer()).startswith(OK)
    assert len(server.requests) == 2


async def test_pipelined_requests_are_answered_in_turn() -> None:
    async with pair([serve(reply(b"one"), reply(b"two"), reply(b"three"))]) as (client, server):
        client.write("GET /1 HTTP/1.1")
        client.write("POST /2 HTTP/1.1", "Content-Length: 3", body=b"abc")
        client.write("GET /3 HTTP/1.1")
        assert [(await client.answer())[-3:] for _ in range(3)] == [b"one", b"two", b"ree"]
    assert [request.split()[1] for request in server.requests] == [b"/1", b"/2", b"/3"]


@pytest.mark.threat(12)
@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
async def test_an_upgrade_is_not_passed_on_and_the_connection_goes_on(protocol: str) -> None:
    """By a route that lets none pass."""
    async with pair([serve(HI)], upgrades=frozenset()) as (client, server):
        client.write(
            "GET /1 HTTP/1.1",
            "Connection: Upgrade, HTTP2-Settings",
            f"Upgrade: {protocol}",
            "HTTP2-Settings: AAMAAABkAAQAAP__",
        )
        assert (await client.answer()).startswith(OK)
        client.write("GET /2 HTTP/1.1")
        assert (await client.answer()).startswith(OK)
    assert not re.search(rb"(?i)upgrade|http2", b"".join(server.requests))


# ---------------------------------------------------------------- bytes out


@pytest.mark.threat(3)
async def test_a_response_on_the_wire_byte_for_byte() -> None:
    raw = (
        b"HTTP/1.1 418 I'm \xe9 teapot\r\nX-One: 1\r\nSet-Cookie: a=1; Secure\r\nx-ONE: 2\r\nset-cookie: b=2\r\n"
        b"X-Bytes: \xe9\xff\r\nContent-Encoding: gzip\r\nWWW-Authenticate: Bearer\r\nContent-Length: 4\r\n"
    )
    hop = (
        b"Keep-Alive: timeout=5\r\nConnection: x-private\r\nX-Private: 1\r\nAlt-Svc: h3\r\nUpgrade: h2\r\n"
        b"Access-Control-Allow-Origin: *\r\naccess-control-allow-credentials: true\r\nProxy-Authenticate: x\r\n"
    )
    async with pair([serve(raw + hop + b"\r\n\x1f\x8b\x00!")]) as (client, _):
        for _ in range(2):
            client.write("GET / HTTP/1.1")
            await client.exactly(raw + b"\r\n\x1f\x8b\x00!")


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
)
async def test_a_redirect_is_relayed_and_not_followed(status: str) -> None:
    async with FaultServer([serve(HI)]) as other:
        raw = reply(b"", status, f"Location: {other.url}/elsewhere")
        async with pair([serve(raw)]) as (client, server):
            client.write("GET / HTTP/1.1")
            await client.exactly(raw)
        assert len(server.requests) == 1
        assert other.connections == 0


ELSEWHERE: Final = b"https://other.test/base/x"


@pytest.mark.parametrize(
    ("given", "relayed"),
    [
        (b"{}/base/x?a=%zz#f", b"/1/x?a=%zz#f"),
        (b"/base/%41//x", b"/1/%41//x"),
        (b"//127.0.0.1:{port}/base", b"/1"),
        (b"../x", b"/1/x"),
        (b"?page=2", b"/1/a/b?page=2"),
        (b"/basement", b"{}/basement"),
        (b"/base/../-/logout/work", b"{}/base/../-/logout/work"),
        (b"/base/%2e%2e/x", b"{}/base/%2e%2e/x"),
        (b"//other.test/base/x", b"http://other.test/base/x"),
        (ELSEWHERE, ELSEWHERE),
        (b"\xff", b"/1/a/\xff"),
    ],
)
@pytest.mark.parametrize("name", [b"Location", b"content-location"])
@pytest.mark.parametrize("status", [b"302 Found", b"201 Created"])
async def test_where_a_response_leads(name: bytes, status: bytes, given: bytes, relayed: bytes) -> None:
    """In its place, with its name as it was, and nothing is asked of where it leads."""
    port = refused_port()
    url = f"http://127.0.0.1:{port}"
    value, expected = (
        text.replace(b"{}", url.encode()).replace(b"{port}", b"%d" % port) for text in (given, relayed)
    )
    raw = b"HTTP/1.1 %b\r\nA: 1\r\n%b: %b\r\nB: 2\r\nContent-Length: 0\r\n\r\n"
    async with (
        FaultServer([hang]) as root,
        FaultServer([serve(raw % (status, name, value))], port=port) as server,
        running(root.url, url + "/base") as daemon,
        connected(daemon) as client,
    ):
        client.write("GET /1/a/b?q HTTP/1.1")
        await client.exactly(raw % (status, name, expected))
        assert [request.split()[1] for request in server.requests] == [b"/base/a/b?q"]
        assert root.connections == 0


@pytest.mark.threat(13)
async def test_cookies_of_an_upstream_belong_to_its_route() -> None:
    fields = (
        "Set-Cookie: a=1; path=/base/x;  Domain=127.0.0.1;Secure",
        "SET-COOKIE: bearerd_csrf=stolen; Path=/",
        'set-cookie: b="2"; Path=/; SameSite=None',
        "Set-Cookie: a=1; path=/base/x;  Domain=127.0.0.1;Secure",
    )
    expected = (
        "Set-Cookie: a=1; path=/1/x;Secure",
        'set-cookie: b="2"; Path=/1; SameSite=None',
        "Set-Cookie: a=1; path=/1/x;Secure",
    )
    async with (
        FaultServer([serve(reply(b"hi", "200 OK", *fields))]) as server,
        running(server.url, server.url + "/base") as daemon,
        connected(daemon) as client,
    ):
        client.write("GET /1 HTTP/1.1", "Cookie: a=1; bearerd_csrf=x", "cookie: bearerd_login_1=x")
        await client.exactly(reply(b"hi", "200 OK", *expected))
    sent = [field for field in split(server.requests[0])[1] if field.lower().startswith(b"cookie")]
    assert sent == [b"Cookie: a=1"]


@pytest.mark.threat(13)
async def test_a_cookie_is_never_sent_for_another_client() -> None:
    """Nor for the same one, unless it sends it: nothing is kept between calls, on one connection to the upstream."""
    async with (
        FaultServer([serve(reply(b"hi", "200 OK", "Set-Cookie: a=secret"))]) as server,
        running(server.url) as daemon,
        connected(daemon) as first,
        connected(daemon) as second,
    ):
        for client in (first, second, first):
            client.write("GET / HTTP/1.1")
            assert b"Set-Cookie: a=secret" in await client.answer()
    assert server.connections == 1
    assert not any(b"cookie" in request.lower() for request in server.requests)


async def test_a_route_without_cookies() -> None:
    async with (
        FaultServer([serve(reply(b"hi", "200 OK", "Set-Cookie: a=1", "A: 1", "set-cookie: b=2"))]) as server,
        running(server.url, cookies=False) as daemon,
        connected(daemon) as client,
    ):
        client.write("GET / HTTP/1.1", "Cookie: a=1", "A: 1", "COOKIE: b=2")
        await client.exactly(reply(b"hi", "200 OK", "A: 1"))
    assert b"cookie" not in server.requests[0].lower()


@pytest.mark.parametrize("end", [b"", b"Connection: close\r\n"])
@pytest.mark.parametrize(
    ("version", "raw", "wire", "closes"),
    [
        ("1.1", b"Content-Length: 2\r\n\r\nhi", b"Content-Length: 2\r\n{}\r\nhi", False),
        ("1.1", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
         b"Transfer-Encoding: chunked\r\n{}\r\n2\r\nhi\r\n0\r\n\r\n", False),
        ("1.1", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         b"Transfer-Encoding: chunked\r\n{}\r\n0\r\n\r\n", False),
        ("1.1", b"Content-Length: 0\r\n\r\n", b"Content-Length: 0\r\n{}\r\n", False),
        ("1.0", b"Content-Length: 2\r\n\r\nhi", b"Content-Length: 2\r\n{}\r\nhi", True),
        ("1.0", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"{}\r\nhi", True),
    ],
)  # fmt: skip
async def test_framing_by_what_the_client_speaks(
    version: str, raw: bytes, wire: bytes, closes: bool, end: bytes
) -> None:
    fields = [end.strip().decode()] if end else []
    closes = closes or bool(end)
    async with pair([serve(OK + raw)]) as (client, _):
        client.write(f"GET / HTTP/{version}", *fields)
        await client.exactly(OK + wire.replace(b"{}", b"Connection: close\r\n" if closes else b""))
        if closes:
            assert await client.rest() == b""
        else:
            client.write("GET / HTTP/1.1")
            await client.exactly(OK)


async def test_a_body_that_the_upstream_ends_by_closing_is_chunked() -> None:
    async with pair([read, send(OK + b"\r\nhello"), pause(0.05), send(b" you")]) as (client, _):
        client.write("GET / HTTP/1.1")
        await client.exactly(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n4\r\n you\r\n0\r\n\r\n")
        client.write("GET / HTTP/1.1")
        await client.exactly(OK)


async def test_an_old_client_that_keeps_its_connection() -> None:
    async with pair([serve(HI)]) as (client, _):
        for _ in range(2):
            client.write("GET / HTTP/1.0", "Connection: keep-alive")
            await client.exactly(OK + b"Content-Length: 2\r\nConnection: keep-alive\r\n\r\nhi")


async def test_an_old_client_behind_a_proxy_does_not_wait_for_the_end() -> None:
    """Its own end-to-end connection is what a blind proxy passes on in Proxy-Connection (RFC 9112 section C.2.2)."""
    async with pair([serve(HI)]) as (client, _):
        client.write("GET / HTTP/1.0", "Proxy-Connection: keep-alive")
        await client.exactly(OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nhi")
        assert await client.rest() == b""


@pytest.mark.parametrize(
    ("method", "raw"),
    [
        ("HEAD", OK + b"Content-Length: 12345\r\n\r\n"),
        ("HEAD", OK + b"X: y\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 99\r\n\r\n"),
        ("OPTIONS", b"HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n"),
    ],
)
async def test_answers_without_a_body(method: str, raw: bytes) -> None:
    async with pair([serve(raw)]) as (client, server):
        client.write(f"{method} / HTTP/1.1")
        client.write("GET /-/livez HTTP/1.1")
        await client.exactly(raw)
        await client.exactly(OK)
    assert len(server.requests) == 1


async def test_head_of_a_chunked_resource() -> None:
    async with pair([serve(OK + b"Transfer-Encoding: chunked\r\nX: y\r\n\r\n")]) as (client, _):
        for _ in range(2):
            client.write("HEAD / HTTP/1.1")
            await client.exactly(OK + b"X: y\r\n\r\n")


async def test_each_event_arrives_before_the_next_is_sent() -> None:
    events = [asyncio.Event() for _ in range(3)]
    steps: list[Step] = [
        read,
        send(OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ]
    for event in events:
        steps += [until(event), send(b"9\r\ndata: x\n\n\r\n")]
    async with pair([*steps, send(b"0\r\n\r\n"), hang]) as (client, _):
        client.write("GET /events HTTP/1.1")
        await client.exactly(OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in events:
            event.set()
            await client.exactly(b"9\r\ndata: x\n\n\r\n")
        await client.exactly(b"0\r\n\r\n")


async def test_interim_answers_are_not_relayed() -> None:
    async with pair([serve(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HI)]) as (client, _):
        client.write("GET / HTTP/1.1")
        await client.exactly(HI)


@pytest.mark.parametrize(
    "raw",
    [
        OK + b"Content-Length: 100\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nno chunk\r\n",
    ],
)
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_answer_cut_short_is_cut_short(raw: bytes, together: bool, version: str) -> None:
    """Never an orderly end: to an HTTP/1.0 client that would be the end of the body."""
    head, mark, body = raw.partition(b"\r\n\r\n")
    answer: list[Step] = (
        [send(raw)] if together else [send(head + mark), pause(0.05), send(body), pause(0.05)]
    )
    async with pair([read, *answer]) as (client, server):
        client.write(f"GET / HTTP/{version}", "Connection: close")
        try:
            head = await client.head()
            rest = await client.rest()
        except ConnectionResetError:
            return
    assert together
    assert b" 502 " in head.partition(b"\r\n")[0]
    assert json.loads(rest)["code"] == "upstream_broken"
    assert server.connections == 1


async def test_an_upstream_reset_in_a_body_without_a_length() -> None:
    async with pair([read, send(OK + b"\r\nhello"), pause(0.05), reset]) as (client, _):
        client.write("GET / HTTP/1.1")
        await client.exactly(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        with pytest.raises(ConnectionResetError):
            await client.rest()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_answer_that_the_end_of_the_daemon_cuts_short(version: str) -> None:
    async with (
        FaultServer([read, send(OK + b"\r\nhello"), hang]) as server,
        running(server.url) as daemon,
        connected(daemon) as client,
    ):
        client.write(f"GET / HTTP/{version}")
        await client.head()
        await settle(0.05)
        stopping = asyncio.create_task(daemon.stop(0.1))
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await stopping
        await soon(server.peers[0].gone)


async def test_a_client_that_leaves_takes_the_upstream_with_it() -> None:
    event = b"9\r\ndata: x\n\n\r\n"
    async with pair([read, send(OK + b"Transfer-Encoding: chunked\r\n\r\n" + event), hang]) as (
        client,
        server,
    ):
        client.write("GET / HTTP/1.1")
        await client.head()
        client.writer.close()
        await soon(server.peers[0].gone)


async def test_a_client_that_leaves_before_the_answer() -> None:
    async with pair([read, hang]) as (client, server):
        client.write("GET / HTTP/1.1")
        await settle(0.05)
        client.writer.close()
        await soon(server.peers[0].gone)


@pytest.mark.threat(18)
async def test_a_client_that_does_not_read_holds_the_upstream_back_and_loses_nothing() -> None:
    total = 32 * MiB
    answer = [send(OK + b"Content-Length: %d\r\n\r\n" % total), repeat(b"x" * 65536, total // 65536)]
    done = asyncio.Event()

    async def mark(_: object) -> None:
        done.set()

    async with pair([read, *answer, mark, hang]) as (client, _):
        client.write("GET / HTTP/1.1")
        await client.head()
        await asyncio.sleep(0.3)
        assert not done.is_set()
        size = 0
        async with asyncio.timeout(20):
            while size < total:
                size += len(await client.reader.read(MiB))
        assert size == total


async def test_an_early_answer_to_a_body_and_the_next_call() -> None:
    """The upstream answered without reading on; its connection must not carry another request."""
    async with pair([read_head, send(reply(b"no", "413 Too Large")), hang], [serve(HI)]) as (client, server):
        client.write("POST /upload HTTP/1.1", "Content-Length: 1000", body=b"x" * 500)
        assert (await client.answer()).startswith(b"HTTP/1.1 413")
        client.writer.write(b"x" * 500)
        client.write("GET /next HTTP/1.1")
        assert (await client.answer()).startswith(OK)
        await soon(server.peers[0].gone)
    assert b"/next" not in server.peers[0].received
    assert server.connections == 2


# ---------------------------------------------------------------- problems


async def test_problems_of_our_own() -> None:
    async with running(f"http://127.0.0.1:{refused_port()}") as daemon, connected(daemon) as client:
        client.write("GET / HTTP/1.1")
        status, problem = await client.problem()
        assert (status, problem["code"], problem["status"]) == (502, "upstream_broken", 502)
        assert set(problem) >= {"type", "title", "status", "code", "detail"}


async def test_no_route_takes_the_path() -> None:
    async with FaultServer([serve(HI)]) as server:
        route = parse_route("/api", server.url, "work")
        configuration = Configuration({"work": Account("work", STATIC)}, (route,), Listen(("127.0.0.1",), 0))
        daemon = Daemon(configuration)
        await daemon.start()
        async with connected(daemon) as client:
            for target in ("/", "/apix", "/ap", "/API", "/%61pi"):
                client.write(f"POST {target} HTTP/1.1", "Content-Length: 3", body=b"abc")
                status, problem = await client.problem()
                assert (status, problem["code"]) == (404, "no_route")
            client.write("GET /api?x HTTP/1.1")
            await client.exactly(OK)
        await daemon.stop()
        assert [request.split()[1] for request in server.requests] == [b"/?x"]


@pytest.mark.threat(1)
@pytest.mark.parametrize(
    "host", ["evil.test", "localhost.evil.test", "", "localhost", "localhost:1", "a@localhost"]
)
async def test_a_host_that_is_not_ours(host: str) -> None:
    async with FaultServer([serve(HI)]) as server, running(server.url) as daemon:
        for path in ("/", "/-/status"):
            raw = await talk(daemon.port, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert re.match(rb"HTTP/1\.1 4\d\d ", raw)
        assert server.connections == 0


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ([reset], 502, "upstream_broken"),
        ([read], 502, "upstream_broken"),
        ([read, send(b"garbage\r\n\r\n"), hang], 502, "upstream_broken"),
        (
            [read, send(b"HTTP/1.1 101 No\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), hang],
            502,
            "upstream_broken",
        ),
        ([read, send(b"HTTP/1.1 999 No\r\n\r\n"), hang], 502, "upstream_broken"),
        ([read, send(OK + b"A: b\r\n c\r\nContent-Length: 2\r\n\r\nhi"), hang], 502, "upstream_broken"),
        (
            [read, send(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), hang],
            502,
            "upstream_broken",
        ),
    ],
)
async def test_an_upstream_that_breaks(script: list[Step], status: int, code: str) -> None:
    async with pair(script) as (client, server):
        client.write("POST / HTTP/1.1", "Content-Length: 3", body=b"abc")
        got, problem = await client.problem()
        assert (got, problem["code"]) == (status, code)
        assert "the-token" not in json.dumps(problem)
        client.write("GET /-/livez HTTP/1.1")
        await client.exactly(OK)
        assert sum(bool(peer.received) for peer in server.peers) <= 1, "it is not sent twice"


async def test_an_upstream_that_cannot_be_reached_in_time() -> None:
    async with (
        FaultServer([hang]) as server,
        running(server.url.replace("http:", "https:"), limits=Limits(upstream_connect_s=0.2)) as daemon,
        connected(daemon) as client,
    ):
        client.write("GET / HTTP/1.1")
        status, problem = await client.problem()
        assert (status, problem["code"]) == (504, "upstream_timeout")


async def test_an_upstream_that_falls_silent_before_its_answer() -> None:
    async with (
        FaultServer([read, hang]) as server,
        running(server.url, response_idle_s=0.1) as daemon,
        connected(daemon) as client,
    ):
        client.write("GET / HTTP/1.1")
        status, problem = await client.problem()
        assert (status, problem["code"]) == (504, "upstream_timeout")
        assert (
            problem["detail"]
            == "the upstream has been silent for 0.1 seconds; set response_idle of the route to more if it may be"
        )


@pytest.mark.parametrize("framing", ["Content-Length: 9", "Transfer-Encoding: chunked"])
async def test_an_upstream_that_falls_silent_within_its_answer(framing: str) -> None:
    said = OK + framing.encode() + b"\r\n\r\n3\r\nabc"
    async with (
        FaultServer([read, send(said), hang]) as server,
        running(server.url, response_idle_s=0.3) as daemon,
        connected(daemon) as client,
    ):
        client.write("GET / HTTP/1.1")
        await client.head()
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_an_upstream_with_an_authority_and_a_name_of_its_own(tmp_path: Path) -> None:
    """And with a certificate of ours. What it reads as `Host` is the address all the same."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("bearerd")
    tls = Tls(str(authority.ca_file), str(certificate), str(key), "api.internal")
    async with (
        TlsUpstream(authority.server("api.internal", clients=True), HI) as server,
        running(f"https://127.0.0.1:{server.port}", way=Way(tls)) as daemon,
        connected(daemon) as client,
    ):
        client.write("GET / HTTP/1.1")
        assert (await client.answer()).endswith(b"hi")
        assert server.subjects == ["bearerd"]
        assert server.names == ["api.internal"]
        assert f"Host: 127.0.0.1:{server.port}\r\n".encode() in server.heads[0]


async def test_an_upstream_that_cannot_be_trusted_gets_no_token(tmp_path: Path) -> None:
    async with (
        TlsUpstream(Authority(tmp_path).server("localhost"), HI) as server,
        running(f"https://localhost:{server.port}") as daemon,
        connected(daemon) as client,
    ):
        client.write("GET / HTTP/1.1")
        status, problem = await client.problem()
        assert (status, problem["code"]) == (502, "upstream_broken")
        assert "no certificate that can be trusted: its authority is not known here" in problem["detail"]
        assert server.heads == []


async def test_a_file_of_tls_that_has_gone_since_the_settings_were_read() -> None:
    with pytest.raises(
        ConfigError, match=r'^routes\."/"\.ca_file: /no/such/file cannot be read: no such file'
    ):
        async with running("https://api.example.com", way=Way(Tls("/no/such/file"))):
            pass


async def test_a_call_by_way_of_a_proxy() -> None:
    async with FaultServer([serve(HI)]) as server, TunnelProxy("bWU6Y2FuYXJ5") as proxy:
        way = Way(proxy=Proxy(Origin("http", "127.0.0.1", proxy.port), Secret("me:canary")))
        async with (
            running(f"http://api.example.com:{server.port}", way=way) as daemon,
            connected(daemon) as client,
        ):
            client.write("GET /a HTTP/1.1")
            assert (await client.answer()).endswith(b"hi")
            _, fields, _ = split(server.requests[0])
            assert f"Host: api.example.com:{server.port}".encode() in fields
            assert b"Authorization: Bearer the-token" in fields
            assert b"canary" not in server.requests[0]
            assert b"the-token" not in proxy.heads[0]


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (b"HTTP/1.1 407 No\r\n\r\n", 502, "upstream_broken"),
        (b"HTTP/1.1 403 No\r\n\r\n", 502, "upstream_broken"),
        (b"HTTP/1.1 502 No\r\n\r\n", 502, "upstream_broken"),
        (b"garbage", 502, "upstream_broken"),
        (b"HTTP/1.1 504 No\r\n\r\n", 504, "upstream_timeout"),
        (b"", 504, "upstream_timeout"),
    ],
)
async def test_a_proxy_that_fails(
    answer: bytes, status: int, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said to be the proxy, and its credentials are not said at all. No token gets that far."""
    async with FaultServer([read, send(answer), hang]) as server:
        way = Way(proxy=Proxy(Origin("http", "127.0.0.1", server.port), Secret("me:canary")))
        limits = Limits(upstream_connect_s=0.3)
        async with (
            running("http://api.example.com", way=way, limits=limits) as daemon,
            connected(daemon) as client,
        ):
            client.write("GET / HTTP/1.1")
            got, problem = await client.problem()
            assert (got, problem["code"]) == (status, code)
            assert problem["detail"].startswith(f"the proxy http://127.0.0.1:{server.port} ")
        assert b"the-token" not in server.requests[0]
    said = capsys.readouterr()
    assert "canary" not in json.dumps(problem) + said.out + said.err


async def test_no_token_to_be_had() -> None:
    async with pair([serve(HI)], source=CommandSource(("false",), 5)) as (client, server):
        client.write("GET / HTTP/1.1")
        status, problem = await client.problem()
        assert (status, problem["code"]) == (503, "token_unavailable")
        assert not any(peer.received for peer in server.peers)


@pytest.mark.threat(9)
async def test_a_defect_shows_nothing_but_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    async with pair([serve(HI)]) as (client, server):
        client.write("GET / HTTP/1.1", "X: y")
        await client.answer()
        assert server.connections == 1
    assert "the-token" not in "".join(capsys.readouterr())


# ---------------------------------------------------------------- 401 and replay


NO: Final = reply(b"no", "401 Unauthorized", "WWW-Authenticate: Bearer")


def tokens(server: FaultServer) -> list[bytes]:
    return [split(request)[1][-1] for request in server.requests]


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ([], b""),
        (["Content-Length: 5"], b"abcde"),
        (["Transfer-Encoding: chunked"], b"3\r\nabc\r\n0\r\n\r\n"),
    ],
)
async def test_a_401_is_replayed_once_with_another_token(fields: list[str], body: bytes) -> None:
    async with pair([serve(NO, HI)], source=FRESH) as (client, server):
        client.write("POST / HTTP/1.1", *fields, body=body)
        await client.exactly(HI)
        assert server.connections == 1
    assert [split(request)[2] for request in server.requests] == [body, body]
    assert len(set(tokens(server))) == 2


async def test_a_second_401_is_relayed_and_no_more_tokens_are_spent_on_the_route() -> None:
    async with pair([serve(NO)], source=FRESH) as (client, server):
        for _ in range(3):
            client.write("GET / HTTP/1.1")
            await client.exactly(NO)
    assert len(server.requests) == 4
    assert len(set(tokens(server))) == 2


async def test_an_answer_that_is_not_401_opens_the_route_again() -> None:
    async with pair([serve(NO, NO, HI, NO, HI)], source=FRESH) as (client, server):
        for raw in (NO, HI, HI):
            client.write("GET / HTTP/1.1")
            await client.exactly(raw)
    assert len(set(tokens(server))) == 3


async def test_a_401_without_another_token_is_relayed() -> None:
    async with pair([serve(NO)]) as (client, server):
        client.write("GET / HTTP/1.1")
        await client.exactly(NO)
    assert len(server.requests) == 1


async def test_calls_refused_together_share_one_refresh() -> None:
    async def one(daemon: Daemon) -> None:
        async with connected(daemon) as client:
            client.write("GET / HTTP/1.1")
            await client.exactly(HI)

    async with (
        FaultServer([read, pause(0.1), send(NO), serve(HI)]) as server,
        running(server.url, source=FRESH) as daemon,
    ):
        await asyncio.gather(*(one(daemon) for _ in range(5)))
    assert len(server.requests) == 10
    assert len(set(tokens(server))) == 2


async def test_a_401_to_a_token_that_is_no_longer_the_current_one_spends_nothing() -> None:
    refuse = asyncio.Event()
    slow = [read, until(refuse), send(NO), serve(HI)]
    async with (
        FaultServer(slow, [serve(NO, HI)]) as server,
        running(server.url, source=FRESH) as daemon,
        connected(daemon) as first,
        connected(daemon) as second,
    ):
        first.write("GET /slow HTTP/1.1")
        await asyncio.sleep(0.4)
        second.write("GET / HTTP/1.1")
        await second.exactly(HI)
        refuse.set()
        await first.exactly(HI)
    assert len(server.requests) == 4
    assert len(set(tokens(server))) == 2


async def test_a_body_too_large_to_keep_is_not_replayed() -> None:
    async with pair([serve(NO)], source=FRESH, limits=Limits(replay_body=4)) as (client, server):
        client.write("POST / HTTP/1.1", "Content-Length: 5", body=b"abcde")
        await client.exactly(NO)
    assert len(server.requests) == 1


async def test_a_body_that_outgrows_the_limit_during_the_refresh_is_not_replayed_without_its_beginning(
    tmp_path: Path,
) -> None:
    """An early 401: while another token is fetched, the first attempt goes on taking the body."""
    refused, outgrown = asyncio.Event(), asyncio.Event()

    async def mark(_: object) -> None:
        refused.set()

    async def read_on(peer: Peer) -> None:
        while len(peer.received) < 5000:
            assert await peer._receive()
        outgrown.set()

    first = [read_head, send(NO), mark, read_on, hang]
    limits = Limits(replay_body=1000)
    source = CommandSource(("sh", "-c", WAITS.format(folder=tmp_path)), 30)
    async with pair(first, [serve(HI)], source=source, limits=limits) as (client, server):
        async with asyncio.timeout(10):
            while not (tmp_path / "first").exists():  # noqa: ASYNC110  # another process makes it
                await asyncio.sleep(0.01)
            await settle(0.3)  # for the daemon to have it
            client.write("POST / HTTP/1.1", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n")
            await refused.wait()
            await settle(0.1)
            client.writer.write(b"%x\r\n%b\r\n" % (5000, b"x" * 5000))
            await outgrown.wait()
        (tmp_path / "go").touch()
        await client.exactly(NO)
        assert server.connections == 1


async def test_an_early_401_is_replayed_with_the_whole_body() -> None:
    async with pair([read_head, send(NO), hang], [serve(HI)], source=FRESH) as (client, server):
        client.write("POST / HTTP/1.1", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n")
        await asyncio.sleep(0.5)
        client.writer.write(b"2\r\nde\r\n")
        await asyncio.sleep(0.3)
        client.writer.write(b"0\r\n\r\n")
        await client.exactly(HI)
        await soon(server.peers[0].gone)
    sent = b"".join(re.findall(rb"[1-9a-f]\r\n([a-e]+)\r\n", split(server.requests[0])[2]))
    assert sent == b"abcde"


async def test_a_client_that_leaves_during_the_refresh() -> None:
    """It takes neither the refresh nor the connection with it: the answer was whole."""
    refused = asyncio.Event()

    async def mark(_: object) -> None:
        refused.set()

    async with (
        FaultServer([read, send(NO), mark, serve(HI)]) as server,
        running(server.url, source=FRESH) as daemon,
    ):
        async with connected(daemon) as client:
            client.write("GET /1 HTTP/1.1")
            await asyncio.wait_for(refused.wait(), 15)
            await settle(0.05)
        async with connected(daemon) as client:
            client.write("GET /2 HTTP/1.1")
            await client.exactly(HI)
        assert server.connections == 1
    assert [request.split()[1] for request in server.requests] == [b"/1", b"/2"]


# ---------------------------------------------------------------- our own pages


@pytest.mark.threat(17)
async def test_control_pages_are_never_forwarded() -> None:
    async with pair([serve(HI)]) as (client, server):
        for start_line, status in [
            ("GET /-/livez", 200),
            ("HEAD /-/readyz", 200),
            ("GET /-/status", 200),
            ("GET /-/nope", 404),
            ("GET /-", 302),
            ("GET /-/", 200),
            ("GET /-/login", 404),
            ("GET /-/login/work", 404),
            ("GET /-/callback?code=c&state=s", 404),
            ("POST /-/logout/work", 404),
            ("POST /-/status", 405),
            ("DELETE /-/livez", 405),
        ]:
            client.write(f"{start_line} HTTP/1.1")
            head = await client.head()
            assert int(head.split()[1]) == status, start_line
            if not start_line.startswith("HEAD"):
                length = re.search(rb"(?i)content-length: (\d+)", head)
                await client.reader.readexactly(int(length[1]) if length else 0)
        assert not any(peer.received for peer in server.peers)


async def test_the_status_holds_no_secret() -> None:
    async with pair([serve(HI)]) as (client, _):
        client.write("GET / HTTP/1.1")
        await client.answer()
        client.write("GET /-/status HTTP/1.1")
        raw = await client.answer()
        assert b"Cache-Control: no-store" in raw
        assert b"the-token" not in raw
        status = json.loads(raw.partition(b"\r\n\r\n")[2])
        assert status["accounts"][0]["state"] == "active"


async def test_routes_by_prefix() -> None:
    async with (
        FaultServer([serve(reply(b"0"))]) as first,
        FaultServer([serve(reply(b"1"))]) as second,
        running(first.url, second.url + "/base") as daemon,
        connected(daemon) as client,
    ):
        for target, body in (("/x", b"0"), ("/1/x?y", b"1"), ("/1", b"1"), ("/10", b"0")):
            client.write(f"GET {target} HTTP/1.1")
            await client.exactly(reply(body))
    assert [request.split()[1] for request in first.requests] == [b"/x", b"/10"]
    assert [request.split()[1] for request in second.requests] == [b"/base/x?y", b"/base"]
