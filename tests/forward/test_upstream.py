import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from aiohttp.helpers import DEBUG

from bearerd.core.targets import DIRECT, Origin
from bearerd.errors import UpstreamClosed, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from bearerd.forward.pool import UpstreamPool
from bearerd.forward.upstream import INTERIM, BodyError, UpstreamRequest
from bearerd.trust import Trust
from certificates import Authority
from faults import (
    FaultServer,
    Peer,
    Step,
    black_hole,
    half_close,
    hang,
    pause,
    read,
    read_head,
    refused_port,
    repeat,
    reply,
    reset,
    send,
    serve,
    slices,
    stall,
    until,
)
from patience import settle, soon
from pouring import Parts, read_all, read_some
from relays import TlsServer

MiB: Final = 1 << 20
OK: Final = b"HTTP/1.1 200 OK\r\n"
HI: Final = reply(b"hi")
STREAM: Final = OK + b"Content-Length: 1000\r\n\r\n"


@pytest.fixture
async def pool() -> AsyncIterator[UpstreamPool]:
    pool = UpstreamPool(connect_s=5)
    yield pool
    pool.close()


def origin_of(server: FaultServer) -> Origin:
    return Origin("http", "127.0.0.1", server.port)


def ask(method: str = "GET", target: str = "/", idle_s: float | None = None) -> UpstreamRequest:
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    return UpstreamRequest(method, head, idle_s=idle_s)


def ask_with(body: AsyncIterator[bytes], length: int | None = None, method: str = "POST") -> UpstreamRequest:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    head = f"{method} / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode()
    return UpstreamRequest(method, head, Parts(body), chunked=length is None)


async def parts(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def call(pool: UpstreamPool, server: FaultServer, request: UpstreamRequest | None = None) -> bytes:
    """One whole exchange, ended as the forwarder ends it; gives the body."""
    async with asyncio.timeout(10):
        response = await pool.send(origin_of(server), request or ask())
        try:
            return await read_all(response)
        finally:
            await response.aclose()


async def left(peer: Peer) -> None:
    """Wait until the server sees that the pool has closed this connection."""
    await soon(peer.gone)


# ---------------------------------------------------------------- responses as they should be


async def test_a_kept_connection_serves_the_next_call(pool: UpstreamPool) -> None:
    async with FaultServer([serve(HI, reply(b"ho", framing="chunked"), reply(b"hu"))]) as server:
        assert [await call(pool, server, ask(target=f"/{n}")) for n in range(3)] == [b"hi", b"ho", b"hu"]
        assert server.connections == 1
        pool.close()
        await left(server.peers[0])
    assert server.requests == [ask(target=f"/{n}").head for n in range(3)]


async def test_calls_at_once_have_a_connection_each_and_the_newest_is_reused(pool: UpstreamPool) -> None:
    async with FaultServer([serve(HI)]) as server:
        assert await asyncio.gather(*(call(pool, server) for _ in range(5))) == [b"hi"] * 5
        assert server.connections == 5
        assert await call(pool, server) == b"hi"
        assert server.connections == 5


async def test_status_reason_and_fields_arrive_as_raw_bytes(pool: UpstreamPool) -> None:
    raw = b"HTTP/1.1 404 \xe9t\xe9\r\nX-A:  \xff \r\nx-a: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"
    async with FaultServer([read, send(raw), hang]) as server:
        response = await pool.send(origin_of(server), ask())
        assert (response.status, response.reason) == (404, b"\xe9t\xe9")
        assert response.fields.headers == (
            (b"X-A", b"\xff"),
            (b"x-a", b"2"),
            (b"Set-Cookie", b"a"),
            (b"Set-Cookie", b"b"),
            (b"Content-Length", b"0"),
        )
        assert response.complete
        await response.aclose()


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (reply(b"x" * 10, framing=None), b"x" * 10),
        (reply(framing=None), b""),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold", b"old"),
        (OK + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", b"a"),
    ],
)
async def test_a_connection_that_ends_with_its_body_is_not_kept(
    pool: UpstreamPool, raw: bytes, body: bytes
) -> None:
    async with FaultServer([read, send(raw)]) as server:
        assert await call(pool, server) == body
        assert await call(pool, server) == body
        assert server.connections == 2


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_response_may_come_in_any_pieces(pool: UpstreamPool, size: int) -> None:
    raw = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
    async with FaultServer([read, slices(raw, size), read, slices(HI, size), hang]) as server:
        assert await call(pool, server) == b"abcde"
        assert await call(pool, server) == b"hi"
        assert server.connections == 1


@pytest.mark.parametrize(
    ("method", "raw"),
    [
        ("HEAD", OK + b"Content-Length: 5\r\n\r\n"),
        ("HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", OK + b"Content-Length: 0\r\n\r\n"),
    ],
)
async def test_what_has_no_body_is_complete_with_its_head(
    pool: UpstreamPool, method: str, raw: bytes
) -> None:
    async with FaultServer([read, send(raw), read, send(HI), hang]) as server:
        assert await call(pool, server, ask(method)) == b""
        assert await call(pool, server) == b"hi"
        assert server.connections == 1


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 X\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nContent-Length: %d\r\n\r\n" % len(HI),
    ],
)
@pytest.mark.parametrize("apart_s", [None, 0.02])
async def test_interim_responses_are_passed_over(
    pool: UpstreamPool, interim: bytes, apart_s: float | None
) -> None:
    answer: list[Step] = [send(interim + HI)]
    if apart_s is not None:
        answer = [send(interim), pause(apart_s), send(HI)]
    async with FaultServer([read, *answer, serve(HI)]) as server:
        assert await call(pool, server) == b"hi"
        assert await call(pool, server) == b"hi"
        assert server.connections == 1


@pytest.mark.parametrize("size", [10_000, 1, 64])
async def test_interim_responses_without_end(pool: UpstreamPool, size: int) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    most = [read, slices(early * INTERIM + HI, size)]
    async with FaultServer([*most, *most, read, slices(early * (INTERIM + 1), size), hang]) as server:
        assert [await call(pool, server) for _ in range(2)] == [b"hi", b"hi"]
        with pytest.raises(UpstreamError, match="interim responses without end"):
            await call(pool, server)
        await left(server.peers[0])
        assert server.connections == 1


@pytest.mark.parametrize(
    "fields",
    [
        b"Upgrade: h2,h2c\r\nConnection: Upgrade, Keep-Alive\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    ],
)
@pytest.mark.parametrize("status", [b"200 OK", b"426 Upgrade Required"])
async def test_an_upgrade_that_is_only_offered_is_an_ordinary_response(
    pool: UpstreamPool, status: bytes, fields: bytes
) -> None:
    raw = b"HTTP/1.1 " + status + b"\r\n" + fields + b"Content-Length: 2\r\n\r\nhi"
    async with FaultServer([serve(raw)]) as server:
        assert [await call(pool, server) for _ in range(2)] == [b"hi", b"hi"]
        assert server.connections == 1


async def test_a_compressed_body_is_not_inflated(pool: UpstreamPool) -> None:
    async with FaultServer([serve(reply(b"\x1f\x8bno gzip", "200 OK", "Content-Encoding: gzip"))]) as server:
        assert await call(pool, server) == b"\x1f\x8bno gzip"


async def test_a_great_many_small_chunks(pool: UpstreamPool) -> None:
    raw = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 30_000 + b"0\r\n\r\n"
    async with FaultServer([serve(raw)]) as server:
        assert await call(pool, server) == b"x" * 30_000
        assert await call(pool, server) == b"x" * 30_000
        assert server.connections == 1


async def test_a_response_that_nobody_reads_waits_at_the_upstream(pool: UpstreamPool) -> None:
    """Back-pressure: what is in memory stays small, and all of it is there in the end."""
    total = 24 * MiB
    head = OK + b"Content-Length: %d\r\n\r\n" % total
    async with FaultServer([read, send(head), repeat(b"x" * 65536, total // 65536), hang]) as server:
        response = await pool.send(origin_of(server), ask())
        await asyncio.sleep(0.2)
        size = len(response.ready())
        assert size <= MiB // 2
        while chunk := await read_some(response):
            size += len(chunk)
            assert len(chunk) <= MiB // 2
        assert size == total
        await response.aclose()


# ---------------------------------------------------------------- responses that are not


BAD_HEADS: Final = [
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 600 No\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 000 No\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 20 No\r\n\r\n",
    b"HTTP/1.1 2000 No\r\n\r\n",
    b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"ICY 200 OK\r\n\r\n",
    b"\x16\x03\x01\x02\x00garbage\r\n\r\n",
    b"SSH-2.0-OpenSSH\r\n",
    b"<html>busy</html>\r\n\r\n",
    OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"Content-Length: 2, 2\r\n\r\nhi",
    OK + b"Content-Length: -2\r\n\r\nhi",
    OK + b"Content-Length: +2\r\n\r\nhi",
    OK + b"Content-Length: 0x2\r\n\r\nhi",
    OK + b"Content-Length: \r\n\r\nhi",
    OK + b"Content-Length: 18446744073709551615\r\n\r\nhi",
    OK + b"Content-Length: 99999999999999999999999\r\n\r\nhi",
    OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi" + HI,
    OK + b"A : b\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"A b: c\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"Ab\r\nContent-Length: 2\r\n\r\nhi",
    OK + b": b\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"A: b\rC: d\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"A: b\0c\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"A: b\r\n c\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"A: b\r\n\tc\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"A: b\r\n \r\nContent-Length: 2\r\n\r\nhi",
    OK + b" A: b\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 200 OK\nA: b\nContent-Length: 2\n\nhi",
    b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nhi",
    OK + b"A: b\nContent-Length: 2\r\n\r\nhi",
    OK + b"Content-Length: 2\r\n\nhi",
    OK + b"Content-Length: 2\n\r\nhi",
    OK + b"Content-Length: 2\n\nhi\r\n\r\n",
    b"HTTP/1.1 200 O\nK\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"A: b\r\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"\rA: b\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"A\t: b\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"Content-Length : 2\r\n\r\nhi",
    OK + b"A\0: b\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nhi",
    b"\r\n" + HI,
    b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 100 Continue\nA: b\n\n" + HI,
    b"HTTP/1.1 100 Continue\r\nA: b\r\n c\r\n\r\n" + HI,
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"A: b\r\n c\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    OK + b"Content-Length: 2\r\ncontent-length: 2\r\n\r\nhi",
    OK + b"Content-Length: 2, 3\r\n\r\nhi",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked;a=b\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: xchunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: gzip\r\n\r\nhi",
    OK + b"Transfer-Encoding: identity\r\n\r\nhi",
    OK + b"Transfer-Encoding:\r\n\r\nhi",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    OK + b"A: b\r\n" * 200 + b"\r\n",
    OK + b"A: b\r\n" * 129 + b"\r\n",
    OK + (b"A: " + b"b" * 30_000 + b"\r\n") * 3 + b"\r\n",
    OK + b"A: " + b"b" * 40_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 " + b"b" * 40_000 + b"\r\n\r\n",
]


@pytest.mark.threat(11)
@pytest.mark.parametrize("raw", BAD_HEADS, ids=[repr(raw[:60]) for raw in BAD_HEADS])
async def test_a_bad_head_is_an_error_and_ends_the_connection(pool: UpstreamPool, raw: bytes) -> None:
    async with FaultServer([read, send(raw), hang]) as server:
        with pytest.raises(UpstreamError) as caught:
            await call(pool, server, ask("POST"))
        assert type(caught.value) is UpstreamError
        await left(server.peers[0])
        assert server.connections == 1


@pytest.mark.parametrize("raw", BAD_HEADS, ids=[repr(raw[:60]) for raw in BAD_HEADS])
@pytest.mark.parametrize("size", [1, 7, 64])
async def test_a_bad_head_in_pieces(pool: UpstreamPool, raw: bytes, size: int) -> None:
    """A cut hides nothing."""
    async with FaultServer([read, send(raw[:-900]), slices(raw[-900:], size), hang]) as server:
        with pytest.raises(UpstreamError):
            await call(pool, server, ask("POST"))
        await left(server.peers[0])


async def test_a_head_at_the_limits(pool: UpstreamPool) -> None:
    many = OK + b"A: b\r\n" * 127 + b"Content-Length: 2\r\n\r\nhi"
    large = OK + (b"A: " + b"b" * 31_000 + b"\r\n") * 2 + b"Content-Length: 2\r\n\r\nhi"
    async with FaultServer([serve(many, large)]) as server:
        assert [await call(pool, server) for _ in range(2)] == [b"hi", b"hi"]
        assert server.connections == 1


@pytest.mark.parametrize(
    "raw",
    [
        HI,
        b"HTTP/1.1 100 Continue\r\n\r\n" + HI,
        OK + b"Transfer-Encoding: Chunked\r\nA:\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ],
)
async def test_a_good_head_may_be_cut_anywhere(pool: UpstreamPool, raw: bytes) -> None:
    answers = [step for cut in range(1, len(raw)) for step in cut_at(raw, cut)]
    async with FaultServer([*answers, hang]) as server:
        assert {await call(pool, server) for _ in range(1, len(raw))} == {b"hi"}
        assert server.connections == 1


def cut_at(raw: bytes, at: int) -> list[Step]:
    return [read, send(raw[:at]), pause(0.002), send(raw[at:])]


async def test_a_control_character_in_a_value(pool: UpstreamPool) -> None:
    """It means nothing to those between: it passes, or is refused when the parser is being debugged."""
    async with FaultServer([serve(reply(b"hi", "200 OK", "A: b\x01\x7fc"))]) as server:
        if DEBUG:
            with pytest.raises(UpstreamError):
                await call(pool, server)
            return
        response = await pool.send(origin_of(server), ask())
        assert response.fields.headers == ((b"A", b"b\x01\x7fc"), (b"Content-Length", b"2"))
        await response.aclose()


@pytest.mark.parametrize(
    "raw",
    [
        STREAM + b"short",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nno chunk\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("end", [half_close, reset])
async def test_a_body_cut_short_is_never_a_whole_one(pool: UpstreamPool, raw: bytes, end: Step) -> None:
    head, mark, body = raw.partition(b"\r\n\r\n")
    async with FaultServer([read, send(head + mark), pause(0.02), send(body), pause(0.02), end]) as server:
        response = await pool.send(origin_of(server), ask())
        with pytest.raises(UpstreamError):
            await read_all(response)
        assert not response.complete
        await response.aclose()


@pytest.mark.parametrize("end", [half_close, reset])
async def test_a_body_cut_short_together_with_its_head(pool: UpstreamPool, end: Step) -> None:
    """Whether the cut is seen by `send`, by `ready` or by `read`, it is an UpstreamError."""
    async with FaultServer([read, send(STREAM + b"short"), end]) as server:
        with pytest.raises(UpstreamError):
            await call(pool, server)


async def test_what_is_ready_of_a_body_that_has_been_cut_already(pool: UpstreamPool) -> None:
    async with FaultServer([read, send(STREAM + b"short"), pause(0.02), reset]) as server:
        response = await pool.send(origin_of(server), ask())
        await settle(0.1)
        with pytest.raises(UpstreamError):
            response.ready()
        await response.aclose()


async def test_a_body_without_a_length_that_ends_in_a_reset_is_cut_short(pool: UpstreamPool) -> None:
    async with FaultServer([read, send(reply(b"part", framing=None)), pause(0.05), reset]) as server:
        with pytest.raises(UpstreamError):
            await call(pool, server)


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([reset], UpstreamClosed),
        ([], UpstreamClosed),
        ([read, reset], UpstreamClosed),
        ([read], UpstreamClosed),
        ([read, half_close, hang], UpstreamClosed),
        ([read, send(OK[:5]), pause(0.02), reset], UpstreamError),
        ([read, send(OK[:5])], UpstreamError),
        ([read, send(OK + b"A: b\r\n")], UpstreamError),
        ([read, send(b"HTTP/1.1 100 Continue\r\n\r\n")], UpstreamError),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_end_before_the_head(
    pool: UpstreamPool, steps: list[Step], error: type[UpstreamError], method: str
) -> None:
    """On a connection of its own nothing is tried twice."""
    async with FaultServer(steps) as server:
        with pytest.raises(UpstreamError) as caught:
            await call(pool, server, ask(method))
        assert type(caught.value) is error
        assert server.connections == 1


# ---------------------------------------------------------------- connections that must not be reused


@pytest.mark.parametrize(
    "more",
    [HI, HI[:30], HI[:1], b"\r\n" + HI[:9], HI + HI, OK + b"Sec-WebSocket-Key1: x\r\nA"],
    ids=["whole", "half a head", "one byte", "after a line", "two", "a head that is refused"],
)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_second_response_to_one_request_ends_the_connection(
    pool: UpstreamPool, more: bytes, framing: str
) -> None:
    """What follows the answer in the same packet would be read as the start of the next one."""
    first = reply(b"mine", framing=framing)
    async with FaultServer([read, send(first + more), hang], [serve(HI)]) as server:
        assert await call(pool, server) == b"mine"
        await left(server.peers[0])
        assert await call(pool, server) == b"hi"
        assert server.connections == 2


async def test_a_second_response_to_head_ends_the_connection(pool: UpstreamPool) -> None:
    async with FaultServer(
        [read, send(OK + b"Content-Length: 9\r\n\r\n" + HI[:20]), hang], [serve(HI)]
    ) as server:
        assert await call(pool, server, ask("HEAD")) == b""
        assert await call(pool, server) == b"hi"
        assert server.connections == 2


async def test_garbage_after_the_response_ends_the_exchange(pool: UpstreamPool) -> None:
    async with FaultServer([read, send(HI + b"\x00\x01"), hang]) as server:
        with pytest.raises(UpstreamError):
            await call(pool, server)
        await left(server.peers[0])


async def test_bytes_on_an_idle_connection_end_it(pool: UpstreamPool) -> None:
    event = asyncio.Event()
    async with FaultServer([read, send(HI), until(event), send(reply(b"evil")), hang], [serve(HI)]) as server:
        assert await call(pool, server) == b"hi"
        event.set()
        await left(server.peers[0])
        assert await call(pool, server) == b"hi"
        assert server.connections == 2


async def test_bytes_that_race_the_next_request_are_not_its_answer_if_they_were_there_first(
    pool: UpstreamPool,
) -> None:
    """The upstream sends before it is asked; nothing has been read since."""
    async with FaultServer([read, send(HI), send(reply(b"evil")), hang], [serve(HI)]) as server:
        response = await pool.send(origin_of(server), ask())
        await settle(0.05)
        assert await read_all(response) == b"hi"
        await response.aclose()
        assert await call(pool, server) == b"hi"
        assert server.connections == 2


async def test_a_response_given_up_half_read_ends_the_connection(pool: UpstreamPool) -> None:
    async with FaultServer([read, send(STREAM + b"some"), hang], [serve(HI)]) as server:
        response = await pool.send(origin_of(server), ask())
        await read_some(response)
        await response.aclose()
        await left(server.peers[0])
        assert await call(pool, server) == b"hi"


async def test_a_response_whole_but_unread_keeps_the_connection(pool: UpstreamPool) -> None:
    async with FaultServer([serve(HI)]) as server:
        response = await pool.send(origin_of(server), ask())
        await response.aclose()
        assert await call(pool, server) == b"hi"
        assert server.connections == 1


async def test_a_call_that_is_cancelled_ends_its_connection(pool: UpstreamPool) -> None:
    async with FaultServer([read, hang]) as server:
        task = asyncio.create_task(call(pool, server, ask_with(parts(b"x"))))
        await settle(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await left(server.peers[0])


async def test_after_close_nothing_is_kept(pool: UpstreamPool) -> None:
    async with FaultServer([serve(HI)]) as server:
        await call(pool, server)
        response = await pool.send(origin_of(server), ask())
        pool.close()
        assert await read_all(response) == b"hi"
        await response.aclose()
        await left(server.peers[0])


async def test_idle_connections_are_closed_in_time() -> None:
    pool = UpstreamPool(idle_s=0.1)
    async with FaultServer([serve(HI)]) as server:
        await asyncio.gather(call(pool, server), call(pool, server))
        await asyncio.gather(*(left(peer) for peer in server.peers))
        assert await call(pool, server) == b"hi"
        assert server.connections == 3
    pool.close()


@pytest.mark.asyncio(loop_factories=["asyncio"])  # the other's clock is too coarse for this
@pytest.mark.waits
async def test_the_sweep_leaves_what_is_young() -> None:
    pool = UpstreamPool(idle_s=0.9)
    async with FaultServer([serve(HI)]) as server:
        old, young = [await pool.send(origin_of(server), ask()) for _ in range(2)]
        await old.aclose()
        await asyncio.sleep(0.5)
        await young.aclose()
        await left(server.peers[0])
        assert not server.peers[1].gone.is_set()
        await left(server.peers[1])
    pool.close()


async def test_a_connection_idle_for_too_long_is_not_taken_before_it_is_swept() -> None:
    pool = UpstreamPool(idle_s=0)
    async with FaultServer([serve(HI)]) as server:
        first = await pool.send(origin_of(server), ask())
        await read_all(first)
        await first.aclose()
        assert await call(pool, server) == b"hi"
        assert server.connections == 2
    pool.close()


# ---------------------------------------------------------------- kept connections that have died


@pytest.mark.parametrize("end", [[reset], [half_close], [half_close, hang]])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_an_idempotent_call_is_sent_once_more(pool: UpstreamPool, method: str, end: list[Step]) -> None:
    async with FaultServer(
        [read, send(HI), read, *end], [read, send(OK + b"Content-Length: 0\r\n\r\n"), hang]
    ) as server:
        await call(pool, server)
        assert await call(pool, server, ask(method, "/again")) == b""
        assert server.connections == 2
        assert server.peers[1].received == ask(method, "/again").head


async def test_it_is_not_sent_a_third_time(pool: UpstreamPool) -> None:
    async with FaultServer([read, send(HI), read, reset], [read, reset]) as server:
        await call(pool, server)
        with pytest.raises(UpstreamClosed):
            await call(pool, server)
        assert server.connections == 2


@pytest.mark.parametrize(
    "request_",
    [
        lambda: ask("PATCH"),
        lambda: ask("POST"),
        lambda: ask("LOCK"),
        lambda: ask_with(parts(b"abc"), 3),
        lambda: ask_with(parts(b"abc"), 3, "PUT"),
        lambda: ask_with(parts(b"abc"), None, "GET"),
    ],
)
async def test_any_other_call_is_not_sent_again(
    pool: UpstreamPool, request_: Callable[[], UpstreamRequest]
) -> None:
    async with FaultServer([read, send(HI), read, reset], [serve(HI)]) as server:
        await call(pool, server)
        with pytest.raises(UpstreamClosed):
            await call(pool, server, request_())
        assert server.connections == 1


async def test_one_byte_of_an_answer_and_nothing_is_sent_again(pool: UpstreamPool) -> None:
    async with FaultServer([read, send(HI), read, send(b"H"), pause(0.02), reset], [serve(HI)]) as server:
        await call(pool, server)
        with pytest.raises(UpstreamError) as caught:
            await call(pool, server)
        assert type(caught.value) is UpstreamError
        assert server.connections == 1


async def test_a_kept_connection_known_to_be_closed_is_not_tried(pool: UpstreamPool) -> None:
    async with FaultServer([read, send(HI)], [serve(HI)]) as server:
        await call(pool, server)
        await settle(0.05)
        assert await call(pool, server, ask("POST")) == b"hi"
        assert server.connections == 2


# ---------------------------------------------------------------- request bodies


async def test_bodies_on_the_wire(pool: UpstreamPool) -> None:
    async with FaultServer([serve(HI)]) as server:
        await call(pool, server, ask_with(parts(b"abc", b"de"), 5))
        await call(pool, server, ask_with(parts(b"abc", b"x" * 17)))
        await call(pool, server, ask_with(parts()))
        assert server.connections == 1
    wire = b"".join(server.requests)
    assert wire.endswith(
        b"Content-Length: 5\r\n\r\nabcde"
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n11\r\n" + b"x" * 17 + b"\r\n0\r\n\r\n"
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )


async def test_an_upstream_that_does_not_read_holds_the_client_back(pool: UpstreamPool) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while given < 256 * MiB:
            given += 65536
            yield b"x" * 65536

    async with FaultServer([read_head, stall], receive_buffer=65536) as server:
        task = asyncio.create_task(call(pool, server, ask_with(endless())))
        await asyncio.sleep(0.3)
        taken = given
        assert taken < 16 * MiB  # what the kernel's buffers hold, and little more
        await settle(0.1)
        assert given == taken
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_early_answer_while_the_body_is_being_sent(pool: UpstreamPool) -> None:
    """The upstream would take the next request for the rest of this body."""
    never = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await never.wait()

    async with FaultServer([read_head, send(HI), hang], [serve(HI)]) as server:
        assert await call(pool, server, ask_with(slow())) == b"hi"
        await left(server.peers[0])
        assert await call(pool, server) == b"hi"
        assert server.connections == 2
        assert server.peers[0].received.endswith(b"1\r\nx\r\n")


@pytest.mark.parametrize("problem", [ConnectionResetError, ConnectionError, ValueError])
async def test_an_early_answer_and_a_client_that_leaves_before_its_body_is_whole(
    pool: UpstreamPool, problem: type[Exception]
) -> None:
    """The sender has ended, but the message has not: the connection is in the middle of a body."""
    leave = asyncio.Event()

    async def cut() -> AsyncIterator[bytes]:
        yield b"x"
        await leave.wait()
        raise problem

    async with FaultServer([read_head, send(HI), hang], [serve(HI)]) as server:
        response = await pool.send(origin_of(server), ask_with(cut(), 1000))
        leave.set()
        await settle(0.05)
        await response.aclose()
        await left(server.peers[0])
        assert await call(pool, server) == b"hi"
        assert server.connections == 2


@pytest.mark.parametrize("problem", [ConnectionResetError, ValueError, RuntimeError])
async def test_a_body_that_cannot_be_finished_is_an_error_of_the_client(
    pool: UpstreamPool, problem: type[Exception]
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise problem

    async with FaultServer([read, hang]) as server:
        with pytest.raises(BodyError):
            await call(pool, server, ask_with(broken()))
        await left(server.peers[0])
    assert server.requests == []
    assert server.peers[0].received.endswith(b"1\r\nx\r\n")


async def test_a_body_that_breaks_after_the_head_of_the_answer(pool: UpstreamPool) -> None:
    leave = asyncio.Event()

    async def cut() -> AsyncIterator[bytes]:
        yield b"x"
        await leave.wait()
        raise ValueError

    async with FaultServer([read_head, send(STREAM + b"some"), hang]) as server:
        response = await pool.send(origin_of(server), ask_with(cut()))
        assert await read_some(response) == b"some"
        leave.set()
        with pytest.raises(UpstreamError):
            await read_some(response)
        await response.aclose()
        await left(server.peers[0])


@pytest.mark.parametrize("steps", [[read_head, reset], [read_head, pause(0.05), reset]])
async def test_an_upstream_that_leaves_while_it_is_being_sent_to(
    pool: UpstreamPool, steps: list[Step]
) -> None:
    async def long() -> AsyncIterator[bytes]:
        for _ in range(512):
            yield b"x" * 65536
            await asyncio.sleep(0)

    async with FaultServer(steps, receive_buffer=65536) as server:
        with pytest.raises(UpstreamClosed):
            await call(pool, server, ask_with(long()))


async def test_a_body_that_goes_on_after_the_upstream_has_left(pool: UpstreamPool) -> None:
    """Its sender ends by itself, and the client's side is not blamed."""
    go = asyncio.Event()

    async def waiting() -> AsyncIterator[bytes]:
        yield b"x"
        await go.wait()
        yield b"y"

    async with FaultServer([read_head, send(HI)]) as server:
        response = await pool.send(origin_of(server), ask_with(waiting()))
        assert await read_all(response) == b"hi"
        await settle(0.05)
        go.set()
        await settle(0.02)
        await response.aclose()


async def test_giving_up_waits_for_the_sender(pool: UpstreamPool) -> None:
    """After `aclose` nobody reads the client's body any more: a replay may begin."""
    ended = False

    async def slow() -> AsyncIterator[bytes]:
        nonlocal ended
        try:
            yield b"x"
            await asyncio.Event().wait()
        finally:
            ended = True

    async with FaultServer([read_head, send(reply(b"", "401 No")), hang]) as server:
        response = await pool.send(origin_of(server), ask_with(slow()))
        assert not ended
        await response.aclose()
        assert ended


# ---------------------------------------------------------------- upstreams that fall silent


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 2", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_silence_before_the_head(pool: UpstreamPool, said: bytes) -> None:
    async with FaultServer([read, send(said), hang]) as server:
        with pytest.raises(UpstreamTimeout, match=r"^the upstream has been silent for 0\.1 seconds; "):
            await call(pool, server, ask(idle_s=0.1))
        await left(server.peers[0])
        assert server.connections == 1


async def test_silence_on_a_kept_connection_is_no_reason_to_send_again(pool: UpstreamPool) -> None:
    async with FaultServer([read, send(HI), read, hang], [serve(HI)]) as server:
        await call(pool, server, ask(idle_s=0.3))
        with pytest.raises(UpstreamTimeout):
            await call(pool, server, ask(idle_s=0.3))
        assert server.connections == 1


@pytest.mark.parametrize("said", [b"", b"some"])
async def test_silence_within_the_body(pool: UpstreamPool, said: bytes) -> None:
    async with FaultServer([read, send(STREAM + said), hang]) as server:
        response = await pool.send(origin_of(server), ask(idle_s=0.3))
        with pytest.raises(UpstreamError):
            await read_all(response)
        await response.aclose()
        await left(server.peers[0])


@pytest.mark.waits
async def test_an_upstream_that_is_slow_and_never_silent(pool: UpstreamPool) -> None:
    raw = reply(b"abcd")
    async with FaultServer([read, pause(0.3), slices(raw, 4, 0.1), hang]) as server:
        assert await call(pool, server, ask(idle_s=1)) == b"abcd"


@pytest.mark.waits
async def test_a_connection_is_kept_for_longer_than_an_upstream_may_be_silent(pool: UpstreamPool) -> None:
    async with FaultServer([read, send(HI), read, pause(0.6), send(HI), hang]) as server:
        assert await call(pool, server, ask(idle_s=0.3)) == b"hi"
        await asyncio.sleep(0.5)
        assert await call(pool, server) == b"hi"
        assert server.connections == 1


async def test_a_whole_response_that_nobody_has_read_yet(pool: UpstreamPool) -> None:
    async with FaultServer([serve(HI)]) as server:
        response = await pool.send(origin_of(server), ask(idle_s=0.3))
        await asyncio.sleep(0.6)
        assert await read_all(response) == b"hi"
        await response.aclose()
        assert await call(pool, server) == b"hi"
        assert server.connections == 1


async def test_a_client_that_reads_slowly_is_no_silence_of_the_upstreams(pool: UpstreamPool) -> None:
    """The upstream is held back for three times as long as it may be silent; and then it is given its time."""
    total = 4 * MiB
    head = OK + b"Content-Length: %d\r\n\r\n" % total
    async with FaultServer([read, send(head), repeat(b"x" * 65536, total // 65536), hang]) as server:
        response = await pool.send(origin_of(server), ask(idle_s=0.3))
        await asyncio.sleep(0.85)
        assert len(await read_all(response)) == total
        await response.aclose()


@pytest.mark.waits
async def test_a_client_that_sends_slowly_is_no_silence_of_the_upstreams(pool: UpstreamPool) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(1.5)
        yield b"y"

    async with FaultServer([read, pause(0.05), send(HI), hang]) as server:
        assert await call(pool, server, replace(ask_with(slow()), idle_s=1)) == b"hi"


async def test_an_upstream_that_does_not_read_on_is_silent(pool: UpstreamPool) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    async with FaultServer([read_head, stall], receive_buffer=65536) as server:
        with pytest.raises(UpstreamTimeout):
            await call(pool, server, replace(ask_with(endless()), idle_s=0.2))


async def test_nothing_is_left_of_the_watch(pool: UpstreamPool) -> None:
    async with FaultServer([serve(HI)]) as server:
        await call(pool, server, ask(idle_s=60))
        (connection,) = pool._idle[origin_of(server)]
        assert connection._watch is None


# ---------------------------------------------------------------- connecting


async def test_nobody_listens(pool: UpstreamPool) -> None:
    with pytest.raises(UpstreamError, match=r"127\.0\.0\.1:\d+ cannot be connected to") as caught:
        await pool.send(Origin("http", "127.0.0.1", refused_port()), ask())
    assert type(caught.value) is UpstreamUnreachable


@pytest.mark.parametrize("host", ["no.such.name.invalid", "a..b", "x" * 70])
async def test_a_name_that_nobody_knows(pool: UpstreamPool, host: str) -> None:
    with pytest.raises(UpstreamError):
        await pool.send(Origin("http", host, 80), ask())


async def test_an_upstream_that_does_not_accept() -> None:
    pool = UpstreamPool(connect_s=0.2)
    with black_hole() as port, pytest.raises(UpstreamTimeout, match="did not accept a connection in time"):
        await pool.send(Origin("http", "127.0.0.1", port), ask())
    pool.close()


async def test_the_next_address_of_a_name_is_tried(pool: UpstreamPool) -> None:
    """`localhost` may be ::1 first, where nobody listens."""
    async with FaultServer([serve(HI)]) as server:
        response = await pool.send(Origin("http", "localhost", server.port), ask())
        assert await read_all(response) == b"hi"
        await response.aclose()


# ---------------------------------------------------------------- TLS


def make_certificate(folder: Path, *names: str) -> tuple[Path, ssl.SSLContext]:
    """An authority's certificate, and a server's context for `names` by it."""
    authority = Authority(folder)
    return authority.ca_file, authority.server(*names)


@pytest.fixture(scope="module")
def for_localhost(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return make_certificate(tmp_path_factory.mktemp("tls"), "localhost", "127.0.0.1")


async def test_a_certificate_that_is_trusted(for_localhost: tuple[Path, ssl.SSLContext]) -> None:
    certificate, context = for_localhost
    pool = UpstreamPool(Trust({DIRECT.tls: ssl.create_default_context(cafile=certificate)}))
    with TlsServer(context, HI) as server:
        for host in ("localhost", "127.0.0.1"):
            response = await pool.send(Origin("https", host, server.port), ask())
            assert await read_all(response) == b"hi"
            await response.aclose()
    assert server.requests == [ask().head] * 2
    assert server.names == ["localhost", None]
    pool.close()


async def test_a_certificate_that_nobody_vouches_for(
    pool: UpstreamPool, for_localhost: tuple[Path, ssl.SSLContext]
) -> None:
    with TlsServer(for_localhost[1], HI) as server:
        for _ in range(2):
            with pytest.raises(UpstreamError, match="no certificate that can be trusted"):
                await pool.send(Origin("https", "localhost", server.port), ask())
    assert server.requests == []


async def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    certificate, context = make_certificate(tmp_path, "other.example")
    pool = UpstreamPool(Trust({DIRECT.tls: ssl.create_default_context(cafile=certificate)}))
    with (
        TlsServer(context, HI) as server,
        pytest.raises(UpstreamError, match="no certificate that can be trusted"),
    ):
        await pool.send(Origin("https", "localhost", server.port), ask())
    assert server.requests == []
    pool.close()


async def test_tls_asked_of_a_server_that_does_not_speak_it(pool: UpstreamPool) -> None:
    async with FaultServer([send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), hang]) as server:
        with pytest.raises(UpstreamError):
            await pool.send(Origin("https", "127.0.0.1", server.port), ask())
    assert server.requests == []


async def test_tls_with_a_server_that_says_nothing() -> None:
    pool = UpstreamPool(connect_s=0.2)
    async with FaultServer([hang]) as server:
        with pytest.raises(UpstreamTimeout):
            await pool.send(Origin("https", "127.0.0.1", server.port), ask())
        await left(server.peers[0])
    pool.close()


async def test_the_end_without_a_closure_alert_is_not_the_end_of_a_body(
    for_localhost: tuple[Path, ssl.SSLContext],
) -> None:
    """A body that only the connection's end delimits is out of reach: event loops do not tell the two ends apart."""
    certificate, context = for_localhost
    pool = UpstreamPool(Trust({DIRECT.tls: ssl.create_default_context(cafile=certificate)}))
    with TlsServer(context, STREAM + b"short") as server:
        response = await pool.send(Origin("https", "localhost", server.port), ask())
        with pytest.raises(UpstreamError):
            await read_all(response)
        await response.aclose()
    pool.close()
