"""A proxy between a daemon and its upstream does what networks do: delay, cut, reset, swallow, put in.

A row for each fault: what the client gets, how often the upstream was asked, and whether the next call, which must succeed,
finds the connection kept. Each has a route and a proxy of its own, so that all are tried at once.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, Literal

import pytest
import pytest_asyncio

from daemons import RunningDaemon
from faults import talk
from messages import read_response
from recorders import Recorder
from relays import Act, Fault, FaultProxy, after, fall_silent, fin, in_pieces, insert, lag, rst, say_no_more

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
LENGTH: Final = HEAD + b"0123456789"
CHUNKS: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"
END: Final = b"HTTP/1.1 200 OK\r\n\r\n0123456789"
BODY: Final = b"0123456789"
Got = Literal["whole", "cut", 502, 504, "short", "nothing"]
"""What a client gets: all of an answer, one that is cut off with a reset, or a problem. No row wants the last two: an answer
that ends in order before its end, and none at all.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One fault. `kept` says whether it is met on a connection that has served a call already.

    `asked` is how often the upstream saw the call whole, `anew` whether the next call needs a new connection.
    """

    act: Act
    at: int
    got: Got
    asked: int = 1
    anew: bool = True
    answer: bytes = LENGTH
    kept: bool = False
    method: bytes = b"GET"
    body: bytes = b""
    up: bool = False


CR_LF: Final = len(CHUNKS) - 2  # of the last chunk
ROWS: Final[dict[str, Row]] = {
    # slow
    "late": Row(lag(0.2), 0, "whole", anew=False),
    "late in the head": Row(lag(0.2), 12, "whole", anew=False),
    "late in the body": Row(lag(0.2), len(HEAD) + 3, "whole", anew=False),
    "late in a chunk": Row(lag(0.2), CHUNKS.index(b"67"), "whole", anew=False, answer=CHUNKS),
    "byte by byte": Row(in_pieces(1), 1, "whole", anew=False),
    "chunks byte by byte": Row(in_pieces(1), 1, "whole", anew=False, answer=CHUNKS),
    "a body to the end byte by byte": Row(in_pieces(1), 1, "whole", answer=END),
    # reset
    "reset before the head": Row(rst, 0, 502),
    "reset before the head, kept": Row(rst, 0, "whole", asked=2, kept=True, anew=False),
    "reset before the head, kept, PUT": Row(rst, 0, "whole", asked=2, kept=True, anew=False, method=b"PUT"),
    "reset before the head, kept, POST": Row(rst, 0, 502, kept=True, method=b"POST"),
    "reset before the head, kept, a body": Row(rst, 0, 502, kept=True, method=b"PUT", body=BODY),
    "reset in the head": Row(rst, 12, 502),
    "reset in the head, kept": Row(rst, 12, 502, kept=True),
    "reset after the head": Row(rst, len(HEAD), "cut"),
    "reset in the body": Row(rst, len(HEAD) + 3, "cut"),
    "reset in the body, kept": Row(rst, len(HEAD) + 3, "cut", kept=True),
    "reset in a chunk": Row(rst, CHUNKS.index(b"67"), "cut", answer=CHUNKS),
    "reset between chunks": Row(rst, CHUNKS.index(b"5\r\n567"), "cut", answer=CHUNKS),
    "reset in the last chunk": Row(rst, CR_LF, "cut", answer=CHUNKS),
    "reset in a body to the end": Row(rst, len(END) - 3, "cut", answer=END),
    "reset after the answer": Row(rst, len(LENGTH), "whole"),
    # closed
    "closed before the head": Row(fin, 0, 502),
    "closed before the head, kept": Row(fin, 0, "whole", asked=2, kept=True, anew=False),
    "closed before the head, kept, POST": Row(fin, 0, 502, kept=True, method=b"POST"),
    "closed in the head": Row(fin, 12, 502),
    "closed after the head": Row(fin, len(HEAD), "cut"),
    "closed in the body": Row(fin, len(HEAD) + 3, "cut"),
    "closed in a chunk": Row(fin, CHUNKS.index(b"67"), "cut", answer=CHUNKS),
    "closed between chunks": Row(fin, CHUNKS.index(b"5\r\n567"), "cut", answer=CHUNKS),
    "closed in the last chunk": Row(fin, CR_LF, "cut", answer=CHUNKS),
    "closed after the answer": Row(fin, len(LENGTH), "whole"),
    "closed late in the body": Row(after(0.2, fin), len(HEAD) + 3, "cut"),
    "closed late after the answer": Row(after(0.2, fin), len(LENGTH), "whole"),
    # half-closed
    "half-closed before the head": Row(say_no_more, 0, 502),
    "half-closed before the head, kept": Row(say_no_more, 0, "whole", asked=2, kept=True, anew=False),
    "half-closed in the body": Row(say_no_more, len(HEAD) + 3, "cut"),
    "half-closed in a chunk": Row(say_no_more, CHUNKS.index(b"67"), "cut", answer=CHUNKS),
    "half-closed after the answer": Row(say_no_more, len(LENGTH), "whole"),
    # a black hole
    "silent before the head": Row(fall_silent, 0, 504),
    "silent before the head, kept": Row(fall_silent, 0, 504, kept=True),
    "silent in the head": Row(fall_silent, 12, 504),
    "silent in the body": Row(fall_silent, len(HEAD) + 3, "cut"),
    "silent in a chunk": Row(fall_silent, CHUNKS.index(b"67"), "cut", answer=CHUNKS),
    "silent in a body to the end": Row(fall_silent, len(END) - 3, "cut", answer=END),
    # garbage
    "garbage before the head": Row(insert(b"garbage\r\n\r\n"), 0, 502),
    "a NUL before the head": Row(insert(b"\0"), 0, 502),
    "garbage in the head": Row(insert(b"\r\n garbage"), 15, 502),
    "garbage in the length": Row(insert(b"x"), len(HEAD) - 4, 502),
    "garbage in a chunk's size": Row(insert(b"x"), CHUNKS.index(b"5\r\n567"), "cut", answer=CHUNKS),
    "garbage after a chunk": Row(insert(b"x"), CHUNKS.index(b"\r\n5\r\n567"), "cut", answer=CHUNKS),
    "garbage after the answer": Row(insert(b"garbage"), len(LENGTH), "whole"),
    "another answer after the answer": Row(insert(LENGTH), len(LENGTH), "whole"),
    # while a body is sent
    "reset in an upload": Row(rst, 400, 502, asked=0, method=b"PUT", body=b"x" * 300_000, up=True),
    "closed in an upload": Row(fin, 400, 502, asked=0, method=b"POST", body=b"x" * 300_000, up=True),
    "silent in an upload": Row(fall_silent, 400, 504, asked=0, method=b"PUT", body=b"x" * 9_000_000, up=True),
    "late in an upload": Row(lag(0.2), 400, "whole", anew=False, method=b"PUT", body=b"x" * 300_000, up=True),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Network:
    """A daemon, and the upstream behind the proxies."""

    daemon: RunningDaemon
    upstream: Recorder

    async def call(self, number: int, method: bytes, body: bytes, answer: bytes) -> Got:
        """Through the route of that number."""
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        start = b"%b /%d/x HTTP/1.1\r\nHost: localhost:%d\r\n" % (method, number, self.daemon.port)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.daemon.port)
        writer.write(start + length + b"\r\n" + body)
        try:
            async with asyncio.timeout(20):
                got = await read_response(reader, method)
        except ConnectionResetError:
            return "cut"
        except asyncio.IncompleteReadError:
            return "short"
        except TimeoutError:
            return "nothing"
        finally:
            writer.transport.abort()
        status = int(got.start.split()[1])
        if status in {502, 504}:
            assert b"application/problem+json" in got.values(b"content-type")
            return 502 if status == 502 else 504
        assert got.start == answer.partition(b"\r\n")[0]
        assert got.body == BODY
        return "whole"

    async def caught_up(self) -> None:
        """The daemon has seen what came before now: it answers what came after."""
        await asyncio.sleep(0.1)
        for _ in range(2):
            said = (
                b"GET /-/livez HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n" % self.daemon.port
            )
            assert (await talk(self.daemon.port, said, limit_s=20)).startswith(b"HTTP/1.1 200 ")


def toml(urls: Sequence[str]) -> str:
    routes = "".join(
        f'[routes."/{n}"]\nupstream = "{url}/{n}"\nresponse_idle = "1500ms"\n' for n, url in enumerate(urls)
    )
    return '[accounts.a]\ntoken = "t"\n' + routes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row."""

    got: Got
    asked: int
    then: Got
    anew: int


async def try_row(network: Network, number: int, row: Row, proxy: FaultProxy) -> Outcome:
    if row.kept:
        assert await network.call(number, b"GET", b"", row.answer) == "whole"
    got = await network.call(number, row.method, row.body, row.answer)
    wanted = b"%b /%d/" % (row.method, number)
    asked = sum(request.startswith(wanted) for request in network.upstream.requests)
    async with asyncio.timeout(20):
        await proxy.passages[0].done.wait()
    await network.caught_up()
    connections = proxy.connections
    then = await network.call(number, b"GET", b"", row.answer)
    before = int(row.kept and row.method == b"GET")
    return Outcome(got, asked - before, then, proxy.connections - connections)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    rows = list(ROWS.values())

    def answer(request: bytes) -> bytes:
        return rows[int(request.split(b"/", 2)[1])].answer

    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Recorder(answer))
        proxies = []
        for row in rows:
            at = (len(row.answer) if row.kept else 0) + row.at
            fault = Fault(at, row.act, up=row.up, in_use=row.kept)
            proxies.append(await stack.enter_async_context(FaultProxy(upstream.port, fault)))
        urls = [f"http://127.0.0.1:{proxy.port}" for proxy in proxies]
        daemon = await stack.enter_async_context(
            RunningDaemon(tmp_path_factory.mktemp("network"), toml(urls))
        )
        network = Network(daemon, upstream)
        found = await asyncio.gather(
            *(try_row(network, number, row, proxies[number]) for number, row in enumerate(rows))
        )
        assert "internal_error" not in daemon.log
    return dict(zip(ROWS, found, strict=True))


@pytest.mark.parametrize("name", ROWS)
async def test_what_becomes_of_a_call(outcomes: dict[str, Outcome], name: str) -> None:
    row = ROWS[name]
    assert outcomes[name] == Outcome(row.got, row.asked, "whole", int(row.anew))
