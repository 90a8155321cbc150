"""Threats 4, 8 and 11, at scale: whatever calls say, they go to one place, each of them once, with one credential: ours.

Over real sockets, many calls on a connection, on the direct way and on the ordinary one. What the daemon dials is heard of
from the interpreter, for every connection that this process makes.

The soak test's 100,000 calls (5,000 examples of 20) on either way, as recorded once: with the direct way open 25,732 went upstream,
20,060 of them by it, over 56 connections; without it 25,269 over 55. All others were refused. None went elsewhere, none was made
twice, none carried another credential.
"""

import asyncio
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest
from aiohttp import StreamReader
from aiohttp.http_parser import RawRequestMessage
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bearerd.daemon import Daemon
from bearerd.forward.direct import DirectCall
from bearerd.gate import Client as ServerSide
from bearerd.gate import begin_nothing
from callers import running
from faults import FaultServer, Peer, hang, reply

CALLS: Final = 20  # of an example
SMALL: Final = 15
LARGE: Final = 5_000
MARK: Final = b"X-Upstream: yes"
OURS: Final = b"Authorization: Bearer the-token"
HI: Final = reply(b"hi", "200 OK", MARK.decode())
LIMIT_S: Final = 20.0

dialled: Final[list[Any]] = []
"""The addresses of all connections that this process has tried to make, while anybody wants to know."""
_listening: Final[list[bool]] = []


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _listening:
        dialled.append(args[1])


# ---------------------------------------------------------------- calls


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose end is where its framing says. `{decoy}` and `{own}` are authorities."""

    method: bytes
    target: bytes
    version: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes


PIECES: Final = st.sampled_from(
    rb"/ // . .. %2e%2e %2f %2F %5c \ @ : ? # ; %00 %0d%0a {decoy} {own} evil.test http:// https:// http://{own} "
    rb"http://{own}@{decoy} //{decoy} /- /-/ /-/login v1 access_token=x & = a b%20c * [::1] ~ localhost".split()
)
PRINTABLE: Final = st.binary(max_size=12).map(lambda data: bytes(0x21 + byte % 0xDF for byte in data))
TARGETS: Final = st.builds(
    lambda start, pieces: start + b"".join(pieces),
    st.sampled_from([*[b"/"] * 9, b"", b"//", b"http://{own}/", b"http://{decoy}/"]),
    st.lists(PIECES | PRINTABLE, max_size=6),
)
NAMES: Final = st.sampled_from(
    b"Authorization authorization AUTHORIZATION Authoriza_tion Proxy-Authorization proxy_authorization Connection "
    b"Connection Proxy-Connection Keep-Alive TE Trailer Upgrade HTTP2-Settings Host Forwarded X-Forwarded-Host "
    b"X-Forwarded-For X_Forwarded_Proto Via Cookie Expect Origin Sec-Fetch-Site Max-Forwards X-Original-URL "
    b"X-HTTP-Method-Override Content_Length Transfer_Encoding Accept X-Api-Key".split()
) | st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}", fullmatch=True).filter(
    lambda name: name.lower() not in {b"content-length", b"transfer-encoding"}
)
VALUES: Final = (
    st.sampled_from(
        [
            *(b"close", b"keep-alive", b"close, AuThOrIzAtIoN", b"authorization, host, via", b"Upgrade"),
            *(b"Bearer mine", b"Basic bWluZQ==", b"{decoy}", b"{own}", b"http://{own}", b"http://{decoy}"),
            *(b"websocket", b"h2c", b"trailers", b"100-continue", b"chunked", b"3", b"0", b"null"),
            *(b"cross-site", b"bearerd_x=1; a=b", b"1.1 fred", b"for=1;host={decoy}", b""),
        ]
    )
    | st.binary(max_size=12).map(lambda data: bytes(0x20 + byte % 0xE0 for byte in data).strip())
).map(lambda value: value.replace(b"\x7f", b""))
FRAMINGS: Final = st.sampled_from(
    [
        *[((), b"")] * 12,
        (((b"Content-Length", b"3"),), b"abc"),
        (((b"Content-Length", b"0"),), b""),
        (((b"Transfer-Encoding", b"chunked"),), b"3;x=1\r\nabc\r\n0\r\nAuthorization: x\r\n\r\n"),
        (((b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"3")), b"0\r\n\r\n"),
        (((b"Content-Length", b"3"), (b"Content-Length", b"30")), b"abc"),
        (((b"Transfer-Encoding", b"gzip, chunked"),), b"0\r\n\r\n"),
        (((b"Content-Length", b"+3"),), b"abc"),
        (((b"Content-Length", b"50"),), b"GET /second HTTP/1.1\r\nHost: {own}\r\nContent-Length: 0"),
    ]
)
METHODS: Final = st.sampled_from(
    [
        *[b"GET", b"POST", b"PUT", b"DELETE", b"PATCH"] * 4,
        b"OPTIONS",
        b"HEAD",
        b"TRACE",
        b"CONNECT",
        b"PROPFIND",
        b"get",
    ]
)
VERSIONS: Final = st.sampled_from([*[b"HTTP/1.1"] * 18, b"HTTP/1.0", b"HTTP/2.0"])
CASES: Final = st.builds(
    lambda method, target, version, fields, framing: Call(
        method, target, version, (*fields, *framing[0]), framing[1]
    ),
    METHODS,
    TARGETS,
    VERSIONS,
    st.lists(st.tuples(NAMES, VALUES), max_size=4).map(tuple),
    FRAMINGS,
)
BATCHES: Final = st.lists(CASES, min_size=CALLS, max_size=CALLS)


# ---------------------------------------------------------------- the world they are made in


class World:
    """A daemon before `upstream`, and `decoy`, where nothing must come. `counts` has what became of calls."""

    def __init__(self, daemon: Daemon, upstream: FaultServer, decoy: FaultServer) -> None:
        self.daemon = daemon
        self.upstream = upstream
        self.decoy = decoy
        self.counts: Counter[str] = Counter()
        self.own = b"localhost:%d" % daemon.port
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def make(self, calls: list[Call]) -> None:
        for call in calls:
            self.upstream.requests.clear()
            head = await self._exchange(call)
            self.counts["made"] += 1
            if MARK in head:
                self.counts["forwarded"] += 1
                (sent,) = self.upstream.requests
                self.check(self._fill(call.target), sent)
            else:
                assert not self.upstream.requests
        assert not self.decoy.connections
        places = {("127.0.0.1", port) for port in (self.daemon.port, self.upstream.port)}
        assert set(map(tuple, dialled)) <= places
        self.counts["dialled"] += sum(port == self.upstream.port for _, port in dialled)
        dialled.clear()

    def check(self, target: bytes, sent: bytes) -> None:
        """The target is the client's, under the route's base; the fields that say where to and who are ours."""
        head = sent.partition(b"\r\n\r\n")[0]
        start_line, host, *lines = head.split(b"\r\n")
        went = start_line.split(b" ")[1]
        path = target.removeprefix(b"http://" + self.own)
        assert went in {b"/v1" + path, b"/v1/" + path}
        assert host == b"Host: 127.0.0.1:%d" % self.upstream.port
        names = [line.partition(b":")[0].lower().replace(b"_", b"-") for line in lines]
        assert lines[-1] == OURS
        assert names.count(b"authorization") == 1
        assert not {b"host", b"proxy-authorization", b"connection", b"upgrade"} & set(names)
        assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1

    async def aclose(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            await asyncio.sleep(0)

    def _fill(self, data: bytes) -> bytes:
        return data.replace(b"{own}", self.own).replace(b"{decoy}", b"127.0.0.1:%d" % self.decoy.port)

    async def _exchange(self, call: Call) -> bytes:
        """The head of the answer; nothing where there is none. The connection is kept for the next call if it can be."""
        fields = b"".join(b"%b: %b\r\n" % pair for pair in ((b"Host", self.own), *call.fields))
        lines = b"%b %b %b\r\n%b\r\n" % (call.method, call.target, call.version, fields)
        async with asyncio.timeout(LIMIT_S):
            if self._writer is None:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.daemon.port)
            self._writer.write(self._fill(lines) + call.body)
            try:
                head = await self._read_answer(call.method)
            except (asyncio.IncompleteReadError, ConnectionError):
                head = b""
            if not head or re.search(rb"(?i)\r\nconnection: close", head) or call.version != b"HTTP/1.1":
                await self.aclose()
                self._writer = None
        return head

    async def _read_answer(self, method: bytes) -> bytes:
        head = b"HTTP/1.1 100"
        while head.startswith(b"HTTP/1.1 100"):
            head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if length and method != b"HEAD":
            await self._reader.readexactly(int(length[1]))
        return head


async def answer(peer: Peer) -> None:
    """Each request, and a HEAD without a body: what came behind it would be taken for the next answer."""
    while await peer.read_request():
        head, _, body = HI.partition(b"\r\n\r\n")
        is_head = peer._server.requests[-1].startswith(b"HEAD ")
        await peer.send(head + b"\r\n\r\n" + (b"" if is_head else body))


@asynccontextmanager
async def world(*, direct: bool) -> AsyncIterator[World]:
    async with (
        FaultServer([answer]) as upstream,
        FaultServer([hang]) as decoy,
        running(upstream.url + "/v1") as daemon,
    ):
        found = World(daemon, upstream, decoy)
        gate = daemon._server
        assert gate is not None
        begin = gate.begin if direct else begin_nothing

        def counting(
            client: ServerSide, message: RawRequestMessage, payload: StreamReader
        ) -> DirectCall | None:
            call = begin(client, message, payload)
            found.counts["direct"] += call is not None
            return call

        gate.begin = counting
        yield found
        await found.aclose()


@pytest.fixture
def heard() -> Iterator[None]:
    """What is dialled is heard of. A hook cannot be taken back, so there is one at most, and it is told when to listen."""
    if not hasattr(_hear, "added"):
        sys.addaudithook(_hear)
        _hear.added = True  # type: ignore[attr-defined]  # a mark on a function
    dialled.clear()
    _listening.append(True)
    yield
    _listening.clear()


def run(examples: int, *, direct: bool) -> Counter[str]:
    """On asyncio's own event loop: what uvloop dials the interpreter does not hear of."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        stack = AsyncExitStack()
        found = runner.run(stack.enter_async_context(world(direct=direct)))
        try:

            @given(BATCHES)
            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                phases=[
                    Phase.generate
                ],  # a failing example is small enough, and what is shrunk is tried on many sockets
                suppress_health_check=[
                    HealthCheck.too_slow,
                    HealthCheck.data_too_large,
                    HealthCheck.large_base_example,
                ],
            )
            def each(calls: list[Call]) -> None:
                runner.run(found.make(calls))

            each()
        finally:
            runner.run(stack.aclose())
    return found.counts


@pytest.mark.threat(4)
@pytest.mark.threat(8)
@pytest.mark.threat(11)
@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(
    "examples", [SMALL, pytest.param(LARGE, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)
def test_whatever_calls_say(examples: int, direct: bool) -> None:
    counts = run(examples, direct=direct)
    assert counts["made"] >= examples * CALLS
    assert counts["forwarded"] > counts["made"] / 10
    assert bool(counts["direct"]) == direct
    assert counts["dialled"]
