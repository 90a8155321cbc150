"""Response heads on the wire: what is read in one way only, however it is cut."""

import asyncio

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpResponseParser, RawResponseMessage
from hypothesis import given, settings
from hypothesis import strategies as st

from bearerd.core.fields import Fields
from bearerd.core.headers import DROPPED, REWRITTEN, response_lines
from bearerd.core.heads import HEAD_LIMIT, HeadCheck, find_final, read_plain

OK = b"HTTP/1.1 200 OK\r\n"
GOOD = [
    OK + b"\r\n",
    b"HTTP/1.1 200\r\n\r\n",
    b"HTTP/1.1 200 \r\n\r\n",
    b"HTTP/1.0 404 N\xf6 \t such\r\nA:\r\nb: c\r\n\r\n",
    OK + b"A: b  \t c \r\n!#$%&'*+-.^_`|~09azAZ:\xff\x01\x7f\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 999 \r\n\r\n",
]
BAD = [
    OK + b"A: b\r\n c\r\n\r\n",
    OK + b"A: b\r\n\tc\r\n\r\n",
    OK + b"A: b\r\n \r\n\r\n",
    OK + b" A: b\r\n\r\n",
    OK + b"\tA: b\r\n\r\n",
    OK + b"A: b\n\r\n\r\n",
    OK + b"A: b\nC: d\r\n\r\n",
    OK + b"\nA: b\r\n\r\n",
    OK + b"A: b\r\n\n\r\n\r\n",
    OK + b"A: b\n\nbody\r\n\r\n",
    OK + b"\rA: b\r\n\r\n",
    b"HTTP/1.1 200 O\nK\r\n\r\n",
    b"HTTP/1.1 200 OK\n\r\n\r\n",
    OK + b"A: b\rC: d\r\n\r\n",
    OK + b"A: b\r\r\n\r\n",
    OK + b"A: b\0\r\n\r\n",
    OK + b"A\0: b\r\n\r\n",
    OK + b"A : b\r\n\r\n",
    OK + b"Content-Length\t: 2\r\n\r\n",
    OK + b"A\xe9: b\r\n\r\n",
    OK + b"A(: b\r\n\r\n",
    OK + b": b\r\n\r\n",
    OK + b"A\r\n\r\n",
    b"HTTP/1.1 200 O\0K\r\n\r\n",
    b"HTTP/1.1 200 O\rK\r\n\r\n",
    b"HTTP/1.1 200OK\r\n\r\n",
    b"\r\n" + OK + b"\r\n",
    b" " + OK + b"\r\n",
    b"\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n",
    b"HTTP/1.1\t200 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 099 OK\r\n\r\n",
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"http/1.1 200 OK\r\n\r\n",
    b"SSH-2.0-OpenSSH\r\n\r\n",
]
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"


@pytest.mark.threat(11)
@pytest.mark.parametrize("head", BAD)
@pytest.mark.parametrize("before", [b"", INTERIM])
def test_a_bad_head_is_never_complete(head: bytes, before: bytes) -> None:
    for size in range(1, len(before + head)):
        check = HeadCheck()
        assert not check.feed((before + head)[:size]) or not check.feed((before + head)[size:])
        assert not check.complete
    check = HeadCheck()
    assert not check.feed(before + head + OK + b"\r\n")
    check = HeadCheck()
    assert not all(check.feed(bytes([byte])) for byte in before + head)


@pytest.mark.parametrize("head", GOOD)
@pytest.mark.parametrize("before", [b"", INTERIM])
@pytest.mark.parametrize("after", [b"", b"\n\n body\r\n\r\n x\n"])
def test_a_good_head_may_be_cut_anywhere(head: bytes, before: bytes, after: bytes) -> None:
    whole = before + head
    for size in range(len(whole)):
        check = HeadCheck()
        assert check.feed(whole[:size])
        assert not check.complete
        assert check.feed(whole[size:] + after)
        assert check.complete
    check = HeadCheck()
    assert all(check.feed(bytes([byte])) for byte in whole)
    assert check.complete


@pytest.mark.parametrize("before", [b"", INTERIM])
def test_the_limit_is_one_heads(before: bytes) -> None:
    largest = OK + b"A: " + b"b" * (HEAD_LIMIT - len(OK) - 7) + b"\r\n\r\n"
    assert len(largest) == HEAD_LIMIT
    for size in (1, 1000, HEAD_LIMIT):
        check = HeadCheck()
        assert check.feed(before + largest[:size])
        assert check.feed(largest[size:] + b"body")
        assert check.complete
        check = HeadCheck()
        larger = largest.replace(b"A", b"AA")
        assert not check.feed(before + larger[:size]) or not check.feed(larger[size:])
        assert not check.complete


def test_a_head_that_does_not_end_is_not_waited_for() -> None:
    check = HeadCheck()
    assert check.feed(OK + b"A: ")
    pieces = [b"b" * 1000] * (HEAD_LIMIT // 1000 + 1)
    assert not all(check.feed(piece) for piece in pieces)
    assert not HeadCheck().feed(OK + b"A" * HEAD_LIMIT)


@given(
    st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b" ", b"\t", b"A: b", b"x", OK, INTERIM]), max_size=10)
)
@settings(max_examples=300, deadline=None)
def test_complete_means_lines_of_one_kind(pieces: list[bytes]) -> None:
    data = OK + b"".join(pieces)
    check = HeadCheck()
    if check.feed(data) and check.complete:
        head = data.partition(b"\r\n\r\n")[0]
        lines = head.split(b"\r\n")
        assert not any(b"\n" in line or line[:1] in {b" ", b"\t", b"\r"} for line in lines)


# ---------------------------------------------------------------- the status of a final response


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", (200, b"")),
        (b"HTTP/1.0 407 No\r\nA: b\r\n\r\nrest", (407, b"rest")),
        (b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200\r\n\r\n", (200, b"")),
        (b"HTTP/1.1 100 C\r\n\r\nHTTP", None),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n", None),
        (b"HT", None),
        (b"", None),
    ],
)
def test_the_final_response(data: bytes, found: tuple[int, bytes] | None) -> None:
    assert find_final(data) == found


@pytest.mark.parametrize(
    "data",
    [
        b"SSH",
        b"HTTP/2 200\r\n",
        b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
        b"HTTP/1.1 099 X\r\n\r\n",
        b"HTTP/1.1 100 C\r\n\r\nX",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * HEAD_LIMIT,
    ],
)
def test_what_becomes_no_head(data: bytes) -> None:
    with pytest.raises(ValueError, match="no head"):
        find_final(data)


LINES = st.sampled_from(
    [
        b"Content-Length: 2",
        b"Content-Length:2",
        b"content-LENGTH: 2",
        b"Content-Length: 0",
        b"Content-Length: 3",
        b"Content-Length: +2",
        b"Content-Length: 02",
        b"Content-Length: 2, 2",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked",
        b"Connection: keep-alive",
        b"Connection: Keep-Alive",
        b"Connection: close",
        b"Upgrade: x",
        b"Content-Encoding: gzip",
        b"A: b",
        b"a:\t b\xff%\x01\x7f",
        b"a: b ",
        b"A:",
        b"A:  ",
        b"A: b: c",
        b" A: b",
        b"A : b",
        b"A",
        b": b",
        b"A: b\nC: d",
    ]
)
START_LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200  OK",
        b"HTTP/1.1 200 O K ",
        b"HTTP/1.1 401 \xe9",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.1 101 Switching Protocols",
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 205 Reset Content",
        b"HTTP/1.1 304 Not Modified",
        b"HTTP/1.1 599 x",
        b"HTTP/1.1 600 x",
        b"http/1.1 200 OK",
    ]
)


@given(
    START_LINES,
    st.lists(LINES, max_size=4),
    st.sampled_from([b"", b"h", b"hi", b"hi!", b"2\r\nhi\r\n0\r\n\r\n"]),
)
@settings(max_examples=2000, deadline=None)
def test_what_is_plain_is_what_the_parser_would_make_of_it(
    start: bytes, lines: list[bytes], body: bytes
) -> None:
    data = b"\r\n".join([start, *lines, b"", body])
    plain = read_plain(data)
    if plain is not None:
        ((message, content),), upgraded, tail = parse(data)
        fields, has_length = response_lines(
            Fields(message.raw_headers), chunked=message.chunked, rewrite=lambda _, value: value
        )
        status, answer = plain
        assert status == message.code
        assert tidy(answer) == tidy(start + b"\r\n" + fields + b"\r\n" + body)
        assert has_length
        assert body == (content.read_nowait() if body else b"")
        assert content.is_eof()
        assert (message.should_close, message.chunked, upgraded, tail) == (False, False, False, b"")
        check = HeadCheck()
        assert check.feed(data)
        assert check.complete


def tidy(answer: bytes) -> list[list[bytes]]:
    """Lines, without the white space around values, which is passed on as it is or made anew."""
    return [[part.strip() for part in line.split(b":", 1)] for line in answer.split(b"\r\n")]


def parse(data: bytes) -> tuple[list[tuple[RawResponseMessage, StreamReader]], bool, bytes]:
    loop = asyncio.new_event_loop()
    try:
        protocol = BaseProtocol(loop)
        parser = HttpResponseParser(protocol, loop, 1 << 16, read_until_eof=True, auto_decompress=False)
        messages, upgraded, tail = parser.feed_data(data)
        return list(messages), upgraded, tail
    finally:
        loop.close()


@pytest.mark.parametrize("size", [0, 2, 70_000])
@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (b"", b""),
        (b"Date:  x \r\n", b"Date:  x \r\n"),
        (b"Connection: keep-alive\r\n", b""),
        (b"connection:Keep-Alive \r\nA: b\r\n", b"A: b\r\n"),
    ],
)
@pytest.mark.parametrize("after", [b"", b"ETag: x\r\n"])
def test_most_responses_are_plain(size: int, before: bytes, kept: bytes, after: bytes) -> None:
    rest = b"content-length:%d\r\n" % size + after + b"\r\n" + bytes(size)
    assert read_plain(OK + before + rest) == (200, OK + kept + rest)
    assert read_plain(OK + before + rest + b"\0") is None
    assert read_plain((OK + before + rest)[:-1]) is None


def test_one_word_on_the_connection_at_most() -> None:
    line = b"Connection: keep-alive\r\n"
    length = b"Content-Length: 2\r\n"
    assert read_plain(OK + length + line + b"A: b\r\n\r\nhi") == (200, OK + length + b"A: b\r\n\r\nhi")
    for lines in (line + line + length, length + line + line, line + length + line):
        assert read_plain(OK + lines + b"\r\nhi") is None


@pytest.mark.threat(3)
@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"Content-Length: 2\r\nContent-Length: 2\r\n",
        b"Content-Length: 2\r\nConnection: close\r\n",
        b"Content-Length: 2\r\nConnection: keep-alive, x-a\r\nX-A: 1\r\n",
        b"Content-Length: \xb2\r\n",
        b"Content-Length: 0000000002\r\n",
        b"Content-Length: 2\r\n" + b"A: b\r\n" * 64,
        b"Content-Length: 2\r\nA: " + b"b" * 16_384 + b"\r\n",
        *(
            b"Content-Length: 2\r\n%b: x\r\n" % spell(name)
            for spell in (bytes.lower, bytes.title)
            for name in sorted({*DROPPED, *REWRITTEN, b"access-control-", b"access-control-max-age"})
        ),
    ],
)
def test_what_is_special_is_left_to_the_parser(lines: bytes) -> None:
    assert read_plain(OK + lines + b"\r\nhi") is None
