"""The same calls through nginx and through bearerd, before the same upstream: what differs is explained, or it is a defect.

Calls and answers are made up by chance, the same in each run. Both sides are compared: what the upstream saw of a call, and
what the client got. Each kind of difference stands in one table, with the words of docs/http.md that explain it.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from bearerd.core.sandbox import SANDBOX
from daemons import RunningDaemon
from messages import Fields, Message, parse_request, read_response
from nginx import Nginx
from recorders import Recorder

CALLS: Final = 500
SEED: Final = 8259
DOCUMENT: Final = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
TOML: Final = '[accounts.a]\ntoken = "ours"\n[routes."/"]\nupstream = "{url}"\n'
OURS: Final = b"ours"
_AT_ONCE: Final = 8

# ---------------------------------------------------------------- calls and their answers


@dataclass(frozen=True, slots=True)
class Call:
    """One request, without its Host, and the answer that its upstream gives."""

    number: int
    method: bytes
    target: bytes
    version: bytes
    fields: Sequence[bytes]
    body: bytes
    answer: bytes

    def raw(self, port: int) -> bytes:
        start_line = b"%b %b HTTP/%b" % (self.method, self.target, self.version)
        return b"\r\n".join([start_line, b"Host: localhost:%d" % port, *self.fields, b"", self.body])


METHODS: Final = (
    [b"GET"] * 6 + [b"POST"] * 4 + [b"HEAD", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"PROPFIND"]
)
SEGMENTS: Final = [
    *(
        b"a",
        b"%41",
        b"%2F",
        b"%2e%2e",
        b".",
        b"..",
        b"",
        b"b;v=1",
        b"c,d",
        b"%E2%82%AC",
        b"@",
        b"x:y",
        b"-",
        b"~",
    ),
    *(b"'", b"!$&()*+=", b'"<>', b"^`{|}", b"\\", b"%25", b"%20"),
]
QUERIES: Final = [
    b"",
    b"?",
    b"?a=1&b=2",
    b"?q=%zz",
    b"?/../?",
    b"?a[]=1&a[]=2",
    b"?next=http://x.test/",
    b"?%26=+&&",
]
FIELDS: Final = [
    *(b"X-One: 1", b"x-ONE: 2", b"X-One: 3", b"X-Empty:", b"X-Space:  \t a  b \t", b"X-Bytes: \x80\xff"),
    *(b"Accept: */*", b"Accept-Encoding: gzip, br", b"User-Agent: x/1", b"Range: bytes=0-3", b'If-None-Match: "e"'),
    *(b"Content-Type: text/plain", b"Cookie: a=1; b=2", b"Cookie: c=3", b"Cookie: a=1; bearerd_login=x"),
    *(b"traceparent: 00-1-2-03", b"Accept-Language: pt", b"X-Dots.And+Plus: 1", b"X_Under_Score: 1", b"Via: 1.1 other"),
    *(b"Authorization: Bearer theirs", b"authorization: Basic eA==", b"Proxy-Authorization: Basic eA=="),
    *(b"X-Forwarded-For: 1.2.3.4", b"x-forwarded-proto: https", b"Forwarded: for=1.2.3.4", b"Max-Forwards: 3"),
    *(b"TE: trailers", b"Trailer: X-T", b"Keep-Alive: timeout=9", b"Proxy-Connection: keep-alive"),
    *(b"Upgrade: h3", b"HTTP2-Settings: AAM"),
]  # fmt: skip
STATUSES: Final = [b"200 OK"] * 8 + [
    *(b"201 Created", b"204 No Content", b"206 Some of it", b"301 Moved", b"302 Found", b"304 Not Modified"),
    *(b"400 Bad", b"404 Not Found", b"418 I'm a teapot", b"429 ", b"500 Oh", b"503 Later", b"599 Odd one"),
]  # fmt: skip
ANSWERED: Final = [
    *(b"X-One: 1", b"x-ONE: 2", b"X-One: 3", b"X-Bytes: \x80\xff", b"X-Empty:", b"Server: theirs"),
    *(b"Date: Thu, 01 Jan 1970 00:00:00 GMT", b'ETag: "e"', b"Content-Type: text/plain", b"Content-Encoding: gzip"),
    *(b"Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT", b"Cache-Control: no-store", b"Vary: Accept", b"vary: Origin"),
    *(b"Set-Cookie: a=1; Path=/; Secure", b"Set-Cookie: b=2; Domain=api.test; Path=/"),
    *(b"WWW-Authenticate: Bearer", b"Retry-After: 3", b"X_Under_Score: 1", b"Link: <x>; rel=next", b"Via: 1.1 other"),
    *(b"Content-Location: {up}/x", b'Alt-Svc: h3=":443"', b"Access-Control-Allow-Origin: *", b"Accept-Ranges: bytes"),
    *(b"Keep-Alive: timeout=5", b"Proxy-Authenticate: Basic", b"Upgrade: h3", b"Trailer: X-T"),
]  # fmt: skip


PLACES: Final = [b"{up}/x/y?z", b"{up}", b"/x", b"x", b"../x", b"https://other.test/x"]


def make_calls(count: int, seed: int) -> list[list[Call]]:
    """`count` of them, in groups: each on as few connections as its proxy allows."""
    chance = random.Random(seed)
    groups: list[list[Call]] = []
    number = 0
    while number < count:
        size = min(chance.choice([1, 2, 3, 5]), count - number)
        groups.append([make_call(chance, number + n) for n in range(size)])
        number += size
    return groups


def make_call(chance: random.Random, number: int) -> Call:
    method = chance.choice(METHODS)
    version = chance.choice([b"1.1"] * 5 + [b"1.0"])
    path = b"/".join([b"", b"%d" % number, *chance.choices(SEGMENTS, k=chance.randrange(5)), b"end"])
    fields = chance.sample(FIELDS, chance.randrange(9))
    if chance.random() < 0.1:
        fields += [b"X-Private: 1", b"Connection: X-Private"]
    if chance.random() < 0.2:
        fields.append(b"Connection: " + chance.choice([b"close", b"keep-alive"]))
    framing, body = make_body(chance, method, version)
    fields[chance.randrange(len(fields) + 1) : 0] = framing
    target = path + chance.choice(QUERIES)
    return Call(number, method, target, version, fields, body, make_answer(chance))


def make_body(chance: random.Random, method: bytes, version: bytes) -> tuple[list[bytes], bytes]:
    with_body = method in {b"POST", b"PUT", b"PATCH", b"PROPFIND"} or chance.random() < 0.1
    if not with_body:
        return [], b""
    body = chance.randbytes(chance.choice([0, 1, 10, 1000, 70_000]))
    expect = [b"Expect: 100-continue"] if chance.random() < 0.1 else []
    if version == b"1.0" or chance.random() < 0.5:
        return [b"Content-Length: %d" % len(body), *expect], body
    return [b"Transfer-Encoding: chunked", *expect], chunked(chance, body)


def chunked(chance: random.Random, body: bytes) -> bytes:
    parts = []
    while body:
        size = chance.randrange(1, len(body) + 1)
        parts.append(b"%x\r\n%b\r\n" % (size, body[:size]))
        body = body[size:]
    return b"".join([*parts, b"0\r\n\r\n"])


def make_answer(chance: random.Random) -> bytes:
    """With `{up}` for the upstream's own URL."""
    status = chance.choice(STATUSES)
    fields = chance.sample(ANSWERED, chance.randrange(9))
    if chance.random() < 0.1:
        fields += [b"X-Private: 1", b"Connection: x-private"]
    if status[:1] in b"23" and chance.random() < 0.5:
        fields.append(b"Location: " + chance.choice(PLACES))
    if status[:3] in {b"204", b"304"}:
        return b"\r\n".join([b"HTTP/1.1 " + status, *fields, b"", b""])
    body = chance.randbytes(chance.choice([0, 1, 10, 1000, 200_000]))
    how = chance.choice(["length", "length", "chunked", "end"])
    framing = {
        "length": [b"Content-Length: %d" % len(body)],
        "chunked": [b"Transfer-Encoding: chunked"],
        "end": [b"Connection: close"],
    }[how]
    fields[chance.randrange(len(fields) + 1) : 0] = framing
    body = chunked(chance, body) if how == "chunked" else body
    return b"\r\n".join([b"HTTP/1.1 " + status, *fields, b"", body])


# ---------------------------------------------------------------- what became of them


@dataclass(frozen=True, slots=True)
class Result:
    """`seen` is what the upstream saw of a call, `got` what the client got, `kept` whether its connection went on."""

    seen: Sequence[Message]
    got: Message
    kept: bool


class Clients:
    """Sends calls to one proxy."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.results: dict[int, tuple[Message, bool]] = {}

    async def send(self, group: list[Call]) -> None:
        writer: asyncio.StreamWriter | None = None
        for call in group:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(call.raw(self._port))
            got = await read_response(reader, call.method)
            while b" 100 " in got.start:
                got = await read_response(reader, call.method)
            kept = got.framing != "end" and not await ended(reader, got)
            self.results[call.number] = (got, kept)
            if not kept:
                writer.close()
                writer = None
        if writer is not None:
            writer.close()


async def ended(reader: asyncio.StreamReader, got: Message) -> bool:
    """Whether the connection ends with this answer, as its fields say. One that ends without saying so never gets past this."""
    says = b"close" in b",".join(got.values(b"connection")).lower()
    if says:
        assert await reader.read() == b""
    return says


async def results(port: int, upstream: Recorder, groups: list[list[Call]]) -> dict[int, Result]:
    upstream.clear()
    clients = Clients(port)
    async with asyncio.timeout(60):
        for start in range(0, len(groups), _AT_ONCE):
            await asyncio.gather(*(clients.send(group) for group in groups[start : start + _AT_ONCE]))
    seen: dict[int, list[Message]] = {}
    for raw in upstream.requests:
        request = parse_request(raw)
        seen.setdefault(number_of(request.start), []).append(request)
    return {number: Result(seen.get(number, []), *pair) for number, pair in clients.results.items()}


def number_of(start_line: bytes) -> int:
    return int(start_line.split(b"/", 2)[1])


# ---------------------------------------------------------------- how they differ

Side = Literal["request", "response"]


@dataclass(frozen=True, slots=True)
class Difference:
    """In `what` of a message: a part of it, or a field by its lower-case name. Values are nginx's and ours."""

    side: Side
    what: str
    nginx: object
    ours: object
    call: Call

    def __str__(self) -> str:
        return f"{self.call.number} {self.side} {self.what}: nginx {self.nginx!r:.200}, bearerd {self.ours!r:.200}"


_FRAMING_FIELDS: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})


def compare(call: Call, nginx: Result, ours: Result) -> Iterator[Difference]:
    if len(nginx.seen) != len(ours.seen):  # then all else differs, too
        yield Difference("request", "count", len(nginx.seen), len(ours.seen), call)
        return
    for one, other in zip(nginx.seen, ours.seen, strict=False):
        yield from (Difference("request", *parts, call) for parts in compare_messages(one, other))
    yield from (Difference("response", *parts, call) for parts in compare_messages(nginx.got, ours.got))
    if nginx.kept != ours.kept:
        yield Difference("response", "connection kept", nginx.kept, ours.kept, call)


def compare_messages(nginx: Message, ours: Message) -> Iterator[tuple[str, object, object]]:
    for what, one, other in [
        ("start line", nginx.start, ours.start),
        ("framing", nginx.framing, ours.framing),
        ("body", nginx.body, ours.body),
        ("order", *orders(nginx.fields, ours.fields)),
    ]:
        if one != other:
            yield what, one, other
    for name in sorted({name.lower() for name, _ in nginx.fields + ours.fields} - _FRAMING_FIELDS):
        if nginx.values(name) != ours.values(name):
            yield name.decode("latin-1"), nginx.values(name), ours.values(name)
        elif spelled(nginx, name) != spelled(ours, name):
            yield "case", spelled(nginx, name), spelled(ours, name)


def orders(nginx: Fields, ours: Fields) -> tuple[list[bytes], list[bytes]]:
    """In which order either has the fields that both have as often."""

    def names(fields: Fields) -> list[bytes]:
        return [name.lower() for name, _ in fields]

    one, other = names(nginx), names(ours)
    both = {name for name in one if one.count(name) == other.count(name)} - _FRAMING_FIELDS
    return [name for name in one if name in both], [name for name in other if name in both]


def spelled(message: Message, name: bytes) -> list[bytes]:
    return [key for key, _ in message.fields if key.lower() == name]


# ---------------------------------------------------------------- why


@dataclass(frozen=True, slots=True)
class Reason:
    """Explains differences in `what` of a message, if `holds` for them. `row` is in docs/http.md."""

    side: Side
    what: str
    row: str
    holds: Callable[[Difference], bool]

    def explains(self, difference: Difference) -> bool:
        where = (difference.side, difference.what)
        return where == (self.side, self.what) and self.holds(difference)


def leads_back_here(difference: Difference) -> bool:
    """By a path alone. What is relative to a path with a backslash, which is read in two ways, may be absolute."""
    (value,) = difference.ours if isinstance(difference.ours, tuple) else ()
    (theirs,) = difference.nginx if isinstance(difference.nginx, tuple) else ()
    relative = b"\\" in difference.call.target and not theirs.startswith(b"http")
    return bool(value.startswith(b"http://127.0.0.1:" if relative else b"/"))


def ours_lacks_it(difference: Difference) -> bool:
    return difference.ours == () != difference.nginx


def for_a_page(difference: Difference) -> bool:
    """One that tells its language and nothing of Fetch Metadata is taken for a browser."""
    asked = any(line.startswith(b"Accept-Language:") for line in difference.call.fields)
    return asked and (difference.nginx, difference.ours) == ((), (SANDBOX[0][1],))


def nginx_lacks_it(difference: Difference) -> bool:
    return difference.nginx == () != difference.ours


def ours_is_the_upstreams(difference: Difference) -> bool:
    """Of a field of an answer."""
    head = difference.call.answer.partition(b"\r\n\r\n")[0]
    pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return difference.ours == tuple(
        value.strip() for name, _, value in pairs if name.lower() == difference.what.encode()
    )


def one_more_at_the_end(difference: Difference) -> bool:
    assert isinstance(difference.nginx, tuple)
    assert isinstance(difference.ours, tuple)
    return difference.ours[:-1] == difference.nginx and b" bearerd-" in difference.ours[-1]


def in_the_same_order_but_for(*names: bytes) -> Callable[[Difference], bool]:
    def holds(difference: Difference) -> bool:
        assert isinstance(difference.nginx, list)
        assert isinstance(difference.ours, list)
        one, other = ([n for n in order if n not in names] for order in (difference.nginx, difference.ours))
        return one == other

    return holds


def leaves_its_path(difference: Difference) -> bool:
    """So that nginx, which resolves it, finds it above the root."""
    depth = 0
    for segment in difference.call.target.partition(b"?")[0].split(b"/")[1:]:
        if segment in {b"..", b"%2e%2e"}:
            depth -= 1
        elif segment not in {b"", b"."}:
            depth += 1
        if depth < 0:
            return (difference.nginx, difference.ours) == (0, 1)
    return False


def says_it_twice(difference: Difference) -> bool:
    """Authorization, which nginx refuses."""
    names = [field.partition(b":")[0].lower() for field in difference.call.fields]
    return names.count(b"authorization") > 1 and (difference.nginx, difference.ours) == (0, 1)


UNCHANGED: Final = "Everything else passes with its order, its case and its repeats."
NGINX_FIRST: Final = (b"server", b"date", b"content-type", b"location")
UPSTREAMS: Final = "Status, reason, fields and body bytes are the upstream's"
REASONS: Final = [
    Reason("request", "count", "| target |", leaves_its_path),
    Reason("request", "count", "| the credential |", says_it_twice),
    Reason("request", "via", "| added |", one_more_at_the_end),
    Reason("request", "authorization", "| the credential |", lambda d: d.ours == (b"Bearer " + OURS,)),
    Reason("request", "order", "| the credential |", in_the_same_order_but_for(b"authorization")),
    Reason("request", "expect", "| `Expect: 100-continue` |", lambda d: (d.nginx, d.ours) == ((), (b"100-continue",))),
    Reason("request", "framing", "| framing |", lambda d: (d.nginx, d.ours) == ("length", "chunked")),
    Reason("request", "x-private", "| dropped | fields named by `Connection`", ours_lacks_it),
    Reason("request", "proxy-connection", "`Proxy-Connection`, `Proxy-Authorization`", ours_lacks_it),
    Reason("request", "proxy-authorization", "`Proxy-Connection`, `Proxy-Authorization`", ours_lacks_it),
    Reason("request", "trailer", "`Trailer`, `Transfer-Encoding`, `Upgrade`", ours_lacks_it),
    Reason("request", "http2-settings", "`HTTP2-Settings`, `Expect`", ours_lacks_it),
    Reason("request", "forwarded", "`Forwarded`, `X-Forwarded-*`", ours_lacks_it),
    Reason("request", "x-forwarded-for", "`Forwarded`, `X-Forwarded-*`", ours_lacks_it),
    Reason("request", "x-forwarded-proto", "`Forwarded`, `X-Forwarded-*`", ours_lacks_it),
    Reason("request", "max-forwards", "| `Max-Forwards` |", lambda d: d.ours == (b"2",)),
    Reason("request", "cookie", "| `Cookie` |", lambda d: "bearerd_" not in repr(d.ours)),
    Reason("request", "x_under_score", UNCHANGED, nginx_lacks_it),
    Reason("request", "x-dots.and+plus", UNCHANGED, nginx_lacks_it),
    Reason("response", "server", UPSTREAMS, ours_is_the_upstreams),
    Reason("response", "date", UPSTREAMS, ours_is_the_upstreams),
    Reason("response", "order", UPSTREAMS, in_the_same_order_but_for(*NGINX_FIRST)),
    Reason("response", "access-control-allow-origin", "`Access-Control-*`, `Alt-Svc`", ours_lacks_it),
    Reason("response", "alt-svc", "`Access-Control-*`, `Alt-Svc`", ours_lacks_it),
    Reason("response", "proxy-authenticate", "`Proxy-Authenticate`; trailers", ours_lacks_it),
    Reason("response", "trailer", "| dropped | hop-by-hop fields", ours_lacks_it),
    Reason("response", "upgrade", "| dropped | hop-by-hop fields", ours_lacks_it),
    Reason("response", "x-private", "hop-by-hop fields, those named by `Connection`", ours_lacks_it),
    Reason("response", "location", "| `Location`, `Content-Location` |", leads_back_here),
    Reason("response", "content-location", "| `Location`, `Content-Location` |", leads_back_here),
    Reason("response", "content-security-policy", "| an answer that a browser may show as a page or in a frame |", for_a_page),
    Reason("response", "set-cookie", "| `Set-Cookie` |", lambda d: "Domain" not in repr(d.ours)),
]  # fmt: skip


def test_reasons_are_in_the_document() -> None:
    text = " ".join(DOCUMENT.split())
    assert [reason.row for reason in REASONS if reason.row not in text] == []


async def test_calls_through_nginx_and_through_bearerd(tmp_path: Path) -> None:
    groups = make_calls(CALLS, SEED)
    calls = {call.number: call for group in groups for call in group}
    assert len(calls) == CALLS
    async with Recorder() as upstream:

        def answer(request: bytes) -> bytes:
            return calls[number_of(request)].answer.replace(b"{up}", upstream.url.encode())

        upstream.answer = answer
        async with Nginx(tmp_path, upstream.port) as nginx:
            theirs = await results(nginx.port, upstream, groups)
        async with RunningDaemon(tmp_path, TOML.format(url=upstream.url)) as daemon:
            ours = await results(daemon.port, upstream, groups)
    differences = [
        difference
        for call in calls.values()
        for difference in compare(call, theirs[call.number], ours[call.number])
    ]
    unexplained = [d for d in differences if not any(reason.explains(d) for reason in REASONS)]
    assert not unexplained, "\n".join(map(str, unexplained[:20]))
    idle = [reason for reason in REASONS if not any(reason.explains(d) for d in differences)]
    assert not idle
