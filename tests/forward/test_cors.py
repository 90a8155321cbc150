"""Pages of other origins on the wire: the allowed ones can read all answers to their calls, the others make none."""

import re
from collections.abc import Iterator
from typing import Final

import pytest

from bearerd.core.accounts import CommandSource
from bearerd.core.rules import build_rules
from callers import Client, connected, kept, pair, running
from faults import FaultServer, read, reply, serve

APP: Final = "http://app.test:3000"
ORIGINS: Final = frozenset({APP})
LEAVE: Final = [
    b"Access-Control-Allow-Origin: http://app.test:3000",
    b"Access-Control-Expose-Headers: *",
    b"Vary: Origin",
]
HI: Final = reply(b"hi")


@pytest.fixture(autouse=True, params=[False, True], ids=["new connection", "kept connection"])
def _connection(request: pytest.FixtureRequest) -> Iterator[None]:
    token = kept.set(request.param)
    yield
    kept.reset(token)


async def ask(client: Client, start_line: str, *fields: str, body: bytes = b"") -> tuple[int, list[bytes]]:
    """The status, and the fields that say what a page may read."""
    client.write(f"{start_line} HTTP/1.1", *fields, body=body)
    raw = await client.answer()
    return int(raw.split()[1]), told(raw)


def told(raw: bytes) -> list[bytes]:
    lines = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
    return [line for line in lines if re.match(rb"(?i)access-control-|vary|timing-allow", line)]


@pytest.mark.threat(3)
async def test_a_page_of_an_allowed_origin_reads_the_answer() -> None:
    """What the upstream says of origins is not what we say: it is replaced. What else it varies by stays."""
    answer = reply(
        b"hi",
        "200 OK",
        "Access-Control-Allow-Origin: *",
        "access-control-allow-credentials: true",
        "Access-Control-Expose-Headers: X-Other",
        "Vary: Accept",
    )
    async with pair([serve(answer)], origins=ORIGINS) as (client, server):
        status, fields = await ask(client, "POST /x", f"Origin: {APP}", "Sec-Fetch-Site: cross-site")
        assert (status, fields) == (200, [b"Vary: Accept", *LEAVE])
        status, fields = await ask(client, "GET /y")
        assert (status, fields) == (200, [b"Vary: Accept", b"Vary: Origin"])
    assert len(server.requests) == 2
    assert b"Authorization: Bearer the-token" in server.requests[0]


async def test_without_allowed_origins_nothing_is_said_of_them() -> None:
    async with pair([serve(HI)]) as (client, server):
        client.write("GET / HTTP/1.1")
        await client.exactly(HI)
        status, fields = await ask(client, "GET /", f"Origin: {APP}")
        assert (status, fields) == (403, [])
        assert len(server.requests) == 1


@pytest.mark.threat(2)
@pytest.mark.threat(3)
@pytest.mark.parametrize(
    "origin", ["http://evil.test", "null", "http://app.test:3000.evil.test", "http://app.test"]
)
@pytest.mark.parametrize(
    ("start_line", "fields"),
    [
        ("GET /", []),
        ("POST /", ["Content-Type: text/plain"]),
        ("OPTIONS /", ["Access-Control-Request-Method: PUT"]),
        ("GET /", ["Connection: Upgrade", "Upgrade: websocket"]),
    ],
)
async def test_a_page_of_any_other_makes_no_call(origin: str, start_line: str, fields: list[str]) -> None:
    async with pair([serve(HI)], origins=ORIGINS) as (client, server):
        status, leave = await ask(client, start_line, f"Origin: {origin}", *fields)
        assert (status, leave) == (403, [b"Vary: Origin"])
        assert server.requests == []


async def test_we_answer_preflights() -> None:
    async with pair([serve(HI)], origins=ORIGINS) as (client, server):
        client.write(
            "OPTIONS /deep/path?x=1 HTTP/1.1",
            f"Origin: {APP}",
            "Access-Control-Request-Method: PUT",
            "Access-Control-Request-Headers: content-type,x-a",
            "Access-Control-Request-Private-Network: true",
        )
        raw = await client.head()
        assert raw.startswith(b"HTTP/1.1 204 ")
        assert told(raw) == [
            *LEAVE,
            b"Access-Control-Allow-Methods: PUT",
            b"Access-Control-Allow-Headers: content-type,x-a",
            b"Access-Control-Allow-Private-Network: true",
            b"Access-Control-Max-Age: 600",
        ]
        assert server.requests == []
        status, fields = await ask(client, "PUT /deep/path?x=1", f"Origin: {APP}", "X-A: 1")
        assert (status, fields) == (200, LEAVE)
        status, fields = await ask(client, "OPTIONS /", f"Origin: {APP}")
        assert (status, fields) == (200, LEAVE)
    assert [request.split()[0] for request in server.requests] == [b"PUT", b"OPTIONS"]


@pytest.mark.parametrize(
    ("start_line", "fields", "status"),
    [
        ("GET /?access_token=x", [], 403),
        ("POST /", ["Content-Length: 1", "Connection: Upgrade", "Upgrade: websocket"], 400),
        ("TRACE /", [], 405),
        ("GET /", ["X: " + "x" * 30_000, "Y: " + "y" * 30_000, "Z: " + "z" * 30_000], 431),
        ("GET /", [], 502),
    ],
)
async def test_problems_of_our_own_can_be_read(start_line: str, fields: list[str], status: int) -> None:
    async with pair([read], origins=ORIGINS) as (client, _):
        assert await ask(client, start_line, f"Origin: {APP}", *fields) == (status, LEAVE)


async def test_a_login_that_is_needed_can_be_read_of() -> None:
    source = CommandSource(("false",), 5)
    async with pair([serve(HI)], origins=ORIGINS, source=source) as (client, _):
        assert await ask(client, "GET /", f"Origin: {APP}") == (503, LEAVE)


@pytest.mark.threat(2)
@pytest.mark.parametrize(
    "start_line", ["GET /-/", "GET /-/status", "HEAD /-/livez", "POST /-/logout/work", "OPTIONS /-/status"]
)
async def test_our_own_pages_let_nobody_in(start_line: str) -> None:
    async with pair([serve(HI)], origins=ORIGINS) as (client, _):
        fields = [f"Origin: {APP}", "Access-Control-Request-Method: GET", "Sec-Fetch-Site: same-site"]
        client.write(f"{start_line} HTTP/1.1", *fields)
        raw = await client.head()
        assert raw.startswith(b"HTTP/1.1 403 ")
        assert told(raw) == []


async def test_an_allowed_origin_does_not_open_another_host() -> None:
    async with pair([serve(HI)], origins=ORIGINS) as (client, server):
        client.writer.write(f"GET / HTTP/1.1\r\nHost: evil.test\r\nOrigin: {APP}\r\n\r\n".encode())
        assert (await client.head()).startswith(b"HTTP/1.1 421 ")
        assert server.requests == []


async def test_a_page_of_an_allowed_origin_may_have_a_tunnel() -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with (
        FaultServer([serve(switch)]) as server,
        running(server.url, origins=ORIGINS) as daemon,
        connected(daemon) as client,
    ):
        client.write("GET / HTTP/1.1", f"Origin: {APP}", "Connection: Upgrade", "Upgrade: websocket")
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        assert f"Origin: {APP}".encode() in server.requests[0]


async def test_a_rule_that_refuses_can_be_read_of() -> None:
    """A preflight is about origins alone; the call itself is judged as any other."""
    async with (
        FaultServer([serve(HI)]) as server,
        running(server.url, origins=ORIGINS, rules=build_rules(deny=["/no"])) as daemon,
        connected(daemon) as client,
    ):
        client.write("OPTIONS /no HTTP/1.1", f"Origin: {APP}", "Access-Control-Request-Method: PUT")
        assert (await client.head()).startswith(b"HTTP/1.1 204 ")
        assert await ask(client, "PUT /no", f"Origin: {APP}") == (403, LEAVE)
        assert server.requests == []
