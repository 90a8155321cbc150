"""What the comparisons are made with does what it says."""

import asyncio
from pathlib import Path

import pytest

from faults import FaultServer, reply, reset, talk
from messages import parse_request, read_response, unchunk
from nginx import Nginx
from recorders import Recorder

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: 1\r\n\r\n"


async def read(data: bytes, method: bytes = b"GET") -> object:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    message = await read_response(reader, method)
    return message.start, message.fields, message.framing, message.body


def test_requests_are_taken_apart() -> None:
    message = parse_request(
        b"POST /x HTTP/1.1\r\nA:  1 \r\na:2\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED
    )
    assert message.start == b"POST /x HTTP/1.1"
    assert message.fields == ((b"A", b"1"), (b"a", b"2"), (b"Transfer-Encoding", b"chunked"))
    assert (message.values(b"a"), message.framing, message.body) == ((b"1", b"2"), "chunked", b"abcde")
    assert parse_request(GET).framing == "none"
    assert unchunk(b"0\r\n\r\n") == b""


async def test_responses_are_read_by_their_framing() -> None:
    start = b"HTTP/1.1 200 OK"
    length, coded = (b"Content-Length", b"2"), (b"Transfer-Encoding", b"chunked")
    assert await read(reply(b"hi") + b"more") == (start, (length,), "length", b"hi")
    assert await read(start + b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n") == (
        start,
        (coded,),
        "chunked",
        b"",
    )
    assert await read(reply(b"abc", framing="chunked")) == (start, (coded,), "chunked", b"abc")
    assert await read(reply(b"hi", framing=None)) == (start, (), "end", b"hi")
    assert await read(reply(b"hi"), b"HEAD") == (start, (length,), "none", b"")
    for status in (b"100 C", b"204 N", b"304 N"):
        assert await read(b"HTTP/1.1 %b\r\n\r\nmore" % status) == (b"HTTP/1.1 " + status, (), "none", b"")


async def test_the_recorder_keeps_every_byte() -> None:
    async with Recorder() as upstream:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        writer.write(GET + GET.replace(b"GET", b"HEAD") + b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab")
        first = reply(b"hi") + reply(b"hi").removesuffix(b"hi")
        assert await reader.readexactly(len(first)) == first
        assert (upstream.connections, upstream.open) == (1, 1)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert upstream.requests == [GET, GET.replace(b"GET", b"HEAD")]
        assert upstream.fragments == [b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab"]
        assert upstream.open == 0
        upstream.clear()
        assert (upstream.requests, upstream.fragments) == ([], [])


async def test_the_recorder_ends_what_has_no_other_end() -> None:
    async with Recorder(lambda _: reply(b"hi", framing=None)) as upstream:
        assert await talk(upstream.port, GET) == reply(b"hi", framing=None)
        upstream.answer = lambda _: reply(b"hi", "200 OK", "Connection: close")
        assert (await talk(upstream.port, GET)).endswith(b"hi")


@pytest.mark.waits
async def test_who_listens_on_the_port_of_an_nginx_is_nginx(tmp_path: Path) -> None:
    async with FaultServer([reset]) as other:
        with pytest.raises(RuntimeError, match="nginx did not start"):
            async with Nginx(tmp_path, 9, other.port):
                pass
