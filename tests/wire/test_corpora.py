"""Requests on the wire before and behind a daemon: targets, fields and framings, good ones and attacks.

Each is a row of a table. In what a client sends, `{host}` is the daemon's authority; in what the upstream sees, it is the
upstream's. An accepted request makes exactly one request upstream, equal to the expected one to the byte; a refused one none.
"""

import asyncio
from typing import Final

import pytest

from bearerd.core.limits import TARGET_LIMIT
from lines import PSEUDONYM, Line, Outcome

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n"
CL5: Final = b"Content-Length: 5"
CHUNKED: Final = b"Transfer-Encoding: chunked"
ABCDE: Final = b"5\r\nabcde\r\n0\r\n\r\n"


def asked(start_line: bytes, *fields: bytes, body: bytes = b"", host: bytes = b"{host}") -> bytes:
    """A request as a client sends it, the last one on its connection."""
    return b"\r\n".join([start_line, b"Host: " + host, *fields, b"Connection: close", b"", body])


def seen(start_line: bytes, *fields: bytes, framing: bytes = b"", body: bytes = b"") -> bytes:
    """The same as the upstream must see it."""
    version = start_line.rpartition(b"/")[2]
    ours = [b"Via: %b bearerd-0" % version, *filter(None, [framing]), b"Authorization: Bearer the-token"]
    start_line = start_line.rpartition(b"/")[0] + b"/1.1"
    return b"\r\n".join([start_line, b"Host: {host}", *fields, *ours, b"", body])


# ---------------------------------------------------------------- targets

TARGETS: Final = [
    b"/",
    b"/%41",
    b"/%2f%2F%5c",
    b"/%00%0a%0d%0D%0A",
    b"/%zz%%%",
    b"/a/../b/./c",
    b"/..",
    b"/../../etc/passwd",
    b"/a/%2e%2e/b/%2E./c",
    b"//",
    b"//evil.test/x",
    b"///",
    b"/a//b///",
    b"/?",
    b"/??",
    b"/?a=%zz&&=&b=+&b=%20",
    b"/?q=/../?#",
    b"/?next=http://evil.test/",
    b"/a#fragment",
    b"/a;v=1,2;w",
    b"/:@!$&'()*+,;=-._~",
    b'/"<>^`{|}\\',
    b"/http://evil.test/",
    b"/@evil.test",
    b"/-x",
    b"/-.",
    b"/%2d/status",
    b"/%2D%2Flivez",
    b"//-/status",
    b"/./-/status",
    b"/x/../-/status",
    b"/a?/-/status",
    b"/Based",
    b"/basedx",
    b"/%62ased/x",
    b"//based/x",
    b"/" + b"a" * (TARGET_LIMIT - 1),
    b"/?" + b"a%zz&" * 1_000,
]
BASED: Final = [  # after the prefix of a route whose upstream has a base path
    (b"", b""),
    (b"?x=1", b"?x=1"),
    (b"/", b"/"),
    (b"/?", b"/?"),
    (b"//", b"//"),
    (b"/../x", b"/../x"),
    (b"/%2e%2e/%2E%2E/x", b"/%2e%2e/%2E%2E/x"),
    (b"//evil.test/", b"//evil.test/"),
    (b"/based/x", b"/based/x"),
    (b"/-/status", b"/-/status"),
    (b"/@evil.test/", b"/@evil.test/"),
]
NO_TARGETS: Final = [
    (b"/a b", 400),
    (b"/\x01", 400),
    (b"/\x7f", 400),
    (b"/a\tb", 400),
    (b"/a\x00b", 400),
    (b"/\xc3\xa9", 400),
    (b"/\xff", 400),
    (b"", 400),
    (b"*", 400),
    (b"x", 400),
    (b"?x", 400),
    (b"localhost/", 400),
    (b"http://evil.test/", 421),
    (b"http://evil.test:80@{host}/", 421),
    (b"http://{host}@evil.test/", 421),
    (b"http://{host}.evil.test/", 400),  # no port
    (b"http://localhost.evil.test/", 421),
    (b"https://{host}/", 421),
    (b"ftp://{host}/", 421),
    (b"/" + b"a" * TARGET_LIMIT, 414),
    (b"/?a=1&access_token=x", 403),
    (b"/?%61ccess_token=x", 403),
    (b"/?a;ACCESS_TOKEN", 403),
]


def shown(target: object) -> str | None:
    return repr(target[:40]) if isinstance(target, bytes) else None


@pytest.mark.parametrize("target", TARGETS, ids=shown)
async def test_a_target_goes_upstream_byte_for_byte(line: Line, target: bytes) -> None:
    outcome = await line.exchange(asked(b"GET %b HTTP/1.1" % target))
    assert outcome == Outcome([200], [seen(b"GET %b HTTP/1.1" % target)], [])


@pytest.mark.parametrize(("after", "sent"), BASED, ids=shown)
async def test_a_target_goes_after_the_base_path(line: Line, after: bytes, sent: bytes) -> None:
    outcome = await line.exchange(asked(b"GET /based%b HTTP/1.1" % after))
    assert outcome == Outcome([200], [seen(b"GET /v1/%%2F%b HTTP/1.1" % sent)], [])


@pytest.mark.threat(4)
@pytest.mark.parametrize(("target", "status"), NO_TARGETS, ids=shown)
async def test_a_target_that_is_none_goes_nowhere(line: Line, target: bytes, status: int) -> None:
    assert await line.exchange(asked(b"GET %b HTTP/1.1" % target)) == Outcome([status], [], [])


@pytest.mark.parametrize("target", [b"http://{host}/a?b", b"http://{host}//a/../%41?"])
async def test_an_absolute_target_of_ours_is_its_path(line: Line, target: bytes) -> None:
    outcome = await line.exchange(asked(b"GET %b HTTP/1.1" % target))
    path = target.removeprefix(b"http://{host}")
    assert outcome == Outcome([200], [seen(b"GET %b HTTP/1.1" % path)], [])


@pytest.mark.parametrize(
    "method", [b"GET", b"DELETE", b"PATCH", b"OPTIONS", b"PROPFIND", b"QUERY", b"M-SEARCH"]
)
async def test_a_method_goes_upstream(line: Line, method: bytes) -> None:
    outcome = await line.exchange(asked(b"%b /x HTTP/1.1" % method))
    assert outcome == Outcome([200], [seen(b"%b /x HTTP/1.1" % method)], [])


# ---------------------------------------------------------------- fields

KEPT: Final = [  # as sent, and as seen where that is not the same
    ([b"A: 1", b"b: 2", b"A: 1", b"a: 3", b"B: 2"], None),
    ([b"X:no space", b"Y:   many\t ", b"Z: inner  \t two"], [b"X: no space", b"Y: many", b"Z: inner  \t two"]),
    ([b"Empty:", b"Blank:   "], [b"Empty: ", b"Blank: "]),
    ([b"X-Bytes: \x80\xc3\xa9\xff", b'X-Quoted: "a, b\\"" (c)'], None),
    ([b"!#$%&'*+-.^_`|~09aZ: any token is a name"], None),
    ([b"X-Long: " + b"x" * 30_000], None),
    ([b"X-%d: x" % number for number in range(100)], None),
    ([b"Accept: */*", b"Accept-Encoding: gzip, br;q=0.1", b"User-Agent: x", b"Range: bytes=0-1"], None),
    ([b'If-None-Match: "a"', b"Cache-Control: no-cache", b"Pragma: no-cache", b"From: a@b.test"], None),
    ([b"Origin: http://{client}", b"Sec-Fetch-Site: same-origin", b"Referer: http://{client}/"], None),
    ([b"X-Api-Key: k", b"Api_Key: k", b"X-Real-IP: 1.2.3.4", b"X-Original-URL: /x"], None),
    ([b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"tracestate: a=b"], None),
    ([b"Content-Type: application/json; charset=utf-8", b"Content-Encoding: gzip"], None),
    ([b'Cookie: a=1; b="2"', b"cookie: c=3"], None),
    ([b"Cookie: a=1; bearerd_csrf=x;b=2", b"Cookie: bearerd_login=1", b"Cookie: xbearerd_=1"],
     [b"Cookie: a=1;b=2", b"Cookie: xbearerd_=1"]),
    ([b"Via: 1.0 a, 1.1 b (c)", b"via: 1.1 d"], None),
    ([b"Max-Forwards: 5"], None),
    ([b"authorization_: x", b"x-authorization: x", b"Authorizations: x", b"proxy: x"], None),
    ([b"Forward: x", b"X-Forward: x", b"X-Forwarded: x", b"Keep: x", b"Te-X: x"], None),
]  # fmt: skip
DROPPED: Final = [
    [b"Authorization: Bearer x"],
    [b"AUTHORIZATION:Basic x", b"authorization:", b"AuthoriZation: Digest x"],
    [b"Proxy-Authorization: Basic x", b"Proxy_Authorization: x"],
    [b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive"],
    [b"TE: trailers", b"te: gzip;q=0.1, trailers", b"Trailer: X-T"],
    [b"Upgrade: h2c", b"HTTP2-Settings: AAM"],
    [b"Forwarded: for=1.2.3.4", b"X-Forwarded-For: 1.2.3.4", b"x-forwarded-PROTO: https"],
    [b"X_Forwarded_For: 1.2.3.4", b"X-Forwarded_Host: evil.test", b"X-Forwarded-: x"],
    [b"Transfer_Encoding: chunked", b"Content_Length: 5", b"Keep_Alive: x", b"HTTP2_Settings: x"],
    [b"Expect: 100-continue"],
    [b"Connection: x-one", b"X-One: 1", b"x-one: 2"],
    [b"Connection: X-One ,, x-TWO\t,", b"CONNECTION: x-three", b"x-One: 1", b"X-Two: 2", b"X-Three: 3"],
    [b"Connection: Authorization, Host, Via, Content-Length, Transfer-Encoding"],
    [b"Connection: keep-alive, Cookie", b"Cookie: a=1"],
]
NO_FIELDS: Final = [
    ([b" X: folded onto the request line's Host"], 400),
    ([b"X: a", b" b"], 400),
    ([b"X: a", b"\tb"], 400),
    ([b"X : a"], 400),
    ([b"X\t: a"], 400),
    ([b": a"], 400),
    ([b"X"], 400),
    ([b"X Y: a"], 400),
    ([b"X(: a"], 400),
    ([b"X\xe9: a"], 400),
    ([b"X\x00: a"], 400),
    ([b"X: a\x00b"], 400),
    ([b"X: a\nY: b"], 400),
    ([b"X: a\rY: b"], 400),
    ([b"X: a\x7fb"], 400),
    ([b"X: a\x01b"], 400),
    ([b"Host: {host}"], 400),
    ([b"host: evil.test"], 400),
    ([b"X: " + b"x" * 33_000], 431),
    ([b"X: x"] * 127, 431),
    ([b"Origin: http://evil.test"], 403),
    ([b"Origin: null"], 403),
    ([b"Sec-Fetch-Site: cross-site"], 403),
    ([b"Via: 1.1 {pseudonym}"], 508),
]


@pytest.mark.parametrize(("fields", "expected"), KEPT, ids=shown)
async def test_fields_go_upstream_as_they_are(
    line: Line, fields: list[bytes], expected: list[bytes] | None
) -> None:
    """In their order, with their case and their repeats, and behind them nothing but ours."""
    sent = [field.replace(b"{client}", line.host) for field in fields]
    right = [field.replace(b"{client}", line.host) for field in expected or fields]
    outcome = await line.exchange(asked(b"GET / HTTP/1.1", *sent))
    assert outcome == Outcome([200], [seen(b"GET / HTTP/1.1", *right)], [])


@pytest.mark.threat(8)
@pytest.mark.parametrize("fields", DROPPED, ids=repr)
async def test_fields_that_stay_here(line: Line, fields: list[bytes]) -> None:
    outcome = await line.exchange(asked(b"GET / HTTP/1.1", b"A: 1", *fields, b"B: 2"))
    assert outcome == Outcome([200], [seen(b"GET / HTTP/1.1", b"A: 1", b"B: 2")], [])


@pytest.mark.threat(2)
@pytest.mark.parametrize(("fields", "status"), NO_FIELDS, ids=shown)
async def test_fields_that_are_refused(line: Line, fields: list[bytes], status: int) -> None:
    """Before any of it is sent on."""
    await line.exchange(asked(b"GET / HTTP/1.1"))
    pseudonym = PSEUDONYM.search(line.upstream.requests[-1])
    assert pseudonym is not None
    sent = [field.replace(b"{pseudonym}", pseudonym[0]) for field in fields]
    assert await line.exchange(asked(b"GET / HTTP/1.1", *sent)) == Outcome([status], [], [])


# ---------------------------------------------------------------- framings

FRAMED: Final = [  # the client's framing and body, the upstream's
    ([b"Content-Length: 0"], b"", b"Content-Length: 0", b""),
    ([CL5], b"abcde", CL5, b"abcde"),
    ([b"content-LENGTH:5 "], b"abcde", CL5, b"abcde"),
    ([CL5], b"5\r\n\r\n", CL5, b"5\r\n\r\n"),
    ([CL5], b"\0\r\n\n\xff", CL5, b"\0\r\n\n\xff"),
    ([CHUNKED], b"0\r\n\r\n", CHUNKED, b"0\r\n\r\n"),
    ([b"transfer-encoding:CHUNKED"], ABCDE, CHUNKED, ABCDE),
    ([CHUNKED], b"00005\r\nabcde\r\n000\r\n\r\n", CHUNKED, ABCDE),
    ([CHUNKED], b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", CHUNKED, b"14\r\n01234567890123456789\r\n0\r\n\r\n"),
    ([CHUNKED], b"5;name=value\r\nabcde\r\n0;last\r\n\r\n", CHUNKED, ABCDE),
    ([CHUNKED], b'5;a="q; \\" "\r\nabcde\r\n0\r\n\r\n', CHUNKED, ABCDE),
    ([CHUNKED, b"Trailer: X-T"], b"5\r\nabcde\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n", CHUNKED, ABCDE),
    ([CHUNKED, b"Connection: transfer-encoding"], ABCDE, CHUNKED, ABCDE),
    ([CL5, b"Connection: content-length"], b"abcde", CL5, b"abcde"),
    ([CHUNKED, b"Content_Length: 3"], ABCDE, CHUNKED, ABCDE),
    ([CL5, b"Transfer_Encoding: chunked"], b"abcde", CL5, b"abcde"),
    ([CHUNKED, b"TE: trailers, chunked"], ABCDE, CHUNKED, ABCDE),
]  # fmt: skip


def merged(request: bytes) -> bytes:
    """With its chunks as one: how a body comes in pieces is the network's to say."""
    head, mark, body = request.partition(b"\r\n\r\n")
    if CHUNKED not in head:
        return request
    whole = bytearray()
    while body and not body.startswith(b"0\r\n"):
        size, _, rest = body.partition(b"\r\n")
        whole += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return head + mark + (b"%x\r\n%b\r\n" % (len(whole), bytes(whole)) if whole else b"") + body


@pytest.mark.parametrize("method", [b"POST", b"GET"])
@pytest.mark.parametrize(("fields", "body", "framing", "sent"), FRAMED, ids=shown)
async def test_a_body_has_one_framing_and_it_is_ours(
    line: Line, method: bytes, fields: list[bytes], body: bytes, framing: bytes, sent: bytes
) -> None:
    outcome = await line.exchange(asked(b"%b / HTTP/1.1" % method, *fields, body=body))
    assert outcome.statuses == [200]
    right = seen(b"%b / HTTP/1.1" % method, framing=framing, body=sent)
    assert [merged(request) for request in outcome.requests] == [right]


@pytest.mark.parametrize(("fields", "body", "framing", "sent"), FRAMED[1::5], ids=shown)
async def test_a_request_may_come_in_any_pieces(
    line: Line, fields: list[bytes], body: bytes, framing: bytes, sent: bytes
) -> None:
    line.upstream.clear()
    raw = asked(b"POST / HTTP/1.1", *fields, body=body).replace(b"{host}", line.host)
    reader, writer = await asyncio.open_connection("127.0.0.1", line.daemon.port)
    for byte in raw:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    async with asyncio.timeout(15):
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    right = seen(b"POST / HTTP/1.1", framing=framing, body=sent)
    assert [merged(line.even(request)) for request in line.upstream.requests] == [right]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_connection_carries_one_request_after_the_other(line: Line, version: bytes) -> None:
    """With bodies that look like requests."""
    inner = SMUGGLED.replace(b"{host}", line.host)
    keep = [b"Host: {host}", b"Connection: keep-alive", b"Content-Length: %d" % len(inner)]
    first = b"\r\n".join([b"POST /1 HTTP/" + version, *keep, b"", inner])
    outcome = await line.exchange(first * 2 + asked(b"GET /2 HTTP/" + version))
    framing = b"Content-Length: %d" % len(inner)
    post = seen(b"POST /1 HTTP/" + version, framing=framing, body=inner)
    assert outcome == Outcome([200, 200, 200], [post, post, seen(b"GET /2 HTTP/" + version)], [])


# ---------------------------------------------------------------- smuggling

LINES: Final = [  # a start line, fields, a body; where a row has a body, something is smuggled behind it
    (b"POST / HTTP/1.1", [CL5, CHUNKED], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [CHUNKED, CL5], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Content-Length: 0", CHUNKED], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [CHUNKED, CHUNKED], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [CHUNKED, b"Transfer-Encoding: identity"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Transfer-Encoding: identity", CHUNKED], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Transfer-Encoding: identity, chunked"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Transfer-Encoding: chunked, identity"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Transfer-Encoding: chunked;x"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Transfer-Encoding: chunked, "], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Transfer-Encoding: ,chunked"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b'Transfer-Encoding: "chunked"'], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Transfer-Encoding: x"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Transfer-Encoding:"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Transfer-Encoding: \x0bchunked"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Transfer-Encoding: chunked\x00"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Transfer-Encoding: \xa0chunked"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Transfer-Encoding : chunked"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b" Transfer-Encoding: chunked"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"X: x\nTransfer-Encoding: chunked"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"X: x\rTransfer-Encoding: chunked"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Transfer-Encoding:", b" chunked"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Transfer-Encoding\x00: chunked"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.0", [CHUNKED], b"0\r\n\r\n"),
    (b"POST / HTTP/1.0", [CHUNKED, b"Connection: keep-alive"], b"0\r\n\r\n"),
    (b"POST / HTTP/1.1", [b"Content-Length: 5", b"Content-Length: 5"], b"abcde"),
    (b"POST / HTTP/1.1", [b"Content-Length: 5", b"Content-Length: 6"], b"abcde"),
    (b"POST / HTTP/1.1", [b"Content-Length: 5, 5"], b"abcde"),
    (b"POST / HTTP/1.1", [b"Content-Length: 5,"], b"abcde"),
    (b"POST / HTTP/1.1", [b"Content-Length: +5"], b"abcde"),
    (b"POST / HTTP/1.1", [b"Content-Length: -0"], b""),
    (b"POST / HTTP/1.1", [b"Content-Length: 5 5"], b"abcde"),
    (b"POST / HTTP/1.1", [b"Content-Length: 0_5"], b"abcde"),
    (b"POST / HTTP/1.1", [b"Content-Length: 0x5"], b"abcde"),
    (b"POST / HTTP/1.1", [b"Content-Length: 5.0"], b"abcde"),
    (b"POST / HTTP/1.1", [b"Content-Length: \xb2"], b"ab"),
    (b"POST / HTTP/1.1", [b"Content-Length: five"], b"abcde"),
    (b"POST / HTTP/1.1", [b"Content-Length:"], b""),
    (b"POST / HTTP/1.1", [b"Content-Length : 5"], b"abcde"),
    (b"POST / HTTP/1.1", [b"Content-Length: 18446744073709551621"], b"abcde"),
    (b"POST / HTTP/1.1", [b"Content-Length: 5\x00"], b"abcde"),
    (b"GET / HTTP/1.1", [b"Upgrade: websocket", b"Connection: upgrade", CL5], b"abcde"),
    (b"GET / HTTP/1.1", [b"Upgrade: WebSocket", CHUNKED], b"0\r\n\r\n"),
    (b"GET / HTTP/1.1 ", [], b""),
    (b"GET / HTTP/1.1\tx", [], b""),
    (b"GET /\tHTTP/1.1", [], b""),
    (b"GET\t/ HTTP/1.1", [], b""),
    (b" GET / HTTP/1.1", [], b""),
    (b"GET / http/1.1", [], b""),
    (b"GET / HTTP/1.10", [], b""),
    (b"GET / HTTP/01.1", [], b""),
    (b"GET / HTTP/1,1", [], b""),
    (b"GET / HTTP /1.1", [], b""),
    (b"GET / HTTP/1.1\x00", [], b""),
    (b"GET / HTTP/0.9", [], b""),
    (b"GET / HTTP/1.2", [], b""),
    (b"GET / HTTP/3.0", [], b""),
    (b"GET /", [], b""),
    (b"GET / FOO/1.1", [], b""),
    (b"PRI * HTTP/2.0", [], b"SM\r\n\r\n"),
    (b"G\x00T / HTTP/1.1", [], b""),
    (b"G(T / HTTP/1.1", [], b""),
    (b"GET / HTTP/1.1\nX: x", [], b""),
    (b"GET / HTTP/1.1\rX: x", [], b""),
]  # fmt: skip
BODIES: Final = [  # chunked ones
    b"5\r\nabcde0\r\n\r\n",
    b"5\r\nabcdef\r\n0\r\n\r\n",
    b"5\nabcde\r\n0\r\n\r\n",
    b"5\r\nabcde\n0\r\n\r\n",
    b"5 \r\nabcde\r\n0\r\n\r\n",
    b" 5\r\nabcde\r\n0\r\n\r\n",
    b"0x5\r\nabcde\r\n0\r\n\r\n",
    b"+5\r\nabcde\r\n0\r\n\r\n",
    b"-5\r\nabcde\r\n0\r\n\r\n",
    b"5_\r\nabcde\r\n0\r\n\r\n",
    b"\r\nabcde\r\n0\r\n\r\n",
    b"5,\r\nabcde\r\n0\r\n\r\n",
    b"10000000000000005\r\nabcde\r\n0\r\n\r\n",
    b"ffffffffffffffffffff\r\nabcde\r\n0\r\n\r\n",
    b"5;a\nb\r\nabcde\r\n0\r\n\r\n",
    b"5;a\rb\r\nabcde\r\n0\r\n\r\n",
    b"5;a\x00\r\nabcde\r\n0\r\n\r\n",
    b"5\r\r\nabcde\r\n0\r\n\r\n",
    b"5\r\nabcde\r\n0\n\n",
    b"5\r\nabcde\r\n0\r\n\n",
    b"5\r\nabcde\r\n0\r\nX-T : 1\r\n\r\n",
    b"5\r\nabcde\r\n0\r\n X-T: 1\r\n\r\n",
    b"5\r\nabcde\r\n0\r\nX-T: a\nX-U: b\r\n\r\n",
    b"5\r\nabcde\r\n0\r\nno trailer\r\n\r\n",
]


@pytest.mark.threat(11)
@pytest.mark.parametrize(("start_line", "fields", "body"), LINES, ids=shown)
async def test_a_request_that_two_could_read_in_two_ways_goes_nowhere(
    line: Line, start_line: bytes, fields: list[bytes], body: bytes
) -> None:
    """Nor does anything behind it."""
    raw = b"\r\n".join([start_line, b"Host: {host}", *fields, b"", body]) + SMUGGLED
    assert await line.exchange(raw) == Outcome([400], [], [])


@pytest.mark.parametrize("body", BODIES, ids=shown)
async def test_a_body_that_two_could_read_in_two_ways_is_never_whole(line: Line, body: bytes) -> None:
    """What of it went upstream before the bad part came does not look like a request that has ended."""
    raw = b"\r\n".join([b"POST / HTTP/1.1", b"Host: {host}", CHUNKED, b"", body]) + SMUGGLED
    outcome = await line.exchange(raw)
    assert outcome.statuses == [400]
    assert outcome.requests == []


async def test_spaces_within_a_request_line_are_one(line: Line) -> None:
    """RFC 9112 section 3 lets a recipient do so, and what goes upstream is written anew."""
    assert await line.exchange(asked(b"GET   / HTTP/1.1")) == Outcome([200], [seen(b"GET / HTTP/1.1")], [])


@pytest.mark.parametrize("start", [b"\r\n", b"\r\n\r\n"])
async def test_empty_lines_before_a_request_are_passed_over(line: Line, start: bytes) -> None:
    """RFC 9112 section 2.2."""
    assert await line.exchange(start + asked(b"GET / HTTP/1.1")) == Outcome(
        [200], [seen(b"GET / HTTP/1.1")], []
    )
