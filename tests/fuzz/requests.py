"""Bytes of a client, as the server reads them: in two pieces, the first byte says where they are cut.

Whatever comes is answered, refused or waited for. What would be sent on is a request of ours with one credential.
"""

import asyncio
from functools import partial
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from bearerd.control.answers import read_head
from bearerd.core.configuration import Limits
from bearerd.core.guard import Head, build_guard, is_own, refuse
from bearerd.core.headers import RequestHeads
from bearerd.core.problems import Problem
from bearerd.core.targets import build_target, parse_route
from bearerd.forward.reply import answer_problem, end_with
from bearerd.gate import Client, Door, Gate

GUARD: Final = build_guard(6750, (), "bearerd-fuzz", allowed_origins=("http://localhost:3000",))
JUDGE: Final = partial(refuse, GUARD)
ROUTE: Final = parse_route("/", "https://api.example.com/v1", "work")
HEADS: Final = RequestHeads(b"api.example.com", cookies=True)
OURS: Final = b"Authorization: Bearer the-token"
TURNS: Final = 12  # of the event loop, in which everything has happened that is not waited for
_FINE: Final = Problem(403, "seen", "this call has been looked at")


class _Wire(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self._protocol: asyncio.BaseProtocol
        self._closing = False
        self._reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        del name
        return default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def write_eof(self) -> None:
        """Nobody waits for the end."""

    def close(self) -> None:
        self._closing = True

    abort = close

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """All of it is taken at once."""


class _Reader:
    """Judges requests as the daemon does, reads their bodies, and keeps what went wrong."""

    def __init__(self) -> None:
        self.defects: list[BaseException] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except (RequestPayloadError, ConnectionError):
            raise
        except Exception as exc:
            self.defects.append(exc)
            raise

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        head = read_head(request, request.raw_path, GUARD)
        problem = JUDGE(head)
        if problem is None and not is_own(GUARD, head.target):
            check(head)
            await request.read()
        if problem is not None and problem.close:
            return cast(web.StreamResponse, end_with(request.transport, problem, head))
        return answer_problem(problem or _FINE, head)


def check(head: Head) -> None:
    """What goes upstream is one head, with our Host first and our credential last, each of them once."""
    start_line = b"%b %b HTTP/1.1" % (head.method.encode("ascii"), build_target(ROUTE, head.target))
    length = head.get(b"content-length")
    framing = None if length is None else (b"Content-Length", length)
    sent = HEADS.build(start_line, head, via=b"1.1 bearerd-fuzz", framing=framing, token=b"the-token")
    first, host, *lines = sent.removesuffix(b"\r\n\r\n").split(b"\r\n")
    names = [line.partition(b":")[0].lower().replace(b"_", b"-") for line in lines]
    assert sent.count(b"\r\n\r\n") == 1
    assert first.count(b" ") == 2
    assert first.split(b" ")[1].startswith(b"/v1")
    assert host == b"Host: api.example.com"
    assert lines[-1] == OURS
    assert names.count(b"authorization") == 1
    assert {b"host", b"connection", b"transfer-encoding", b"upgrade"}.isdisjoint(names)
    assert names.count(b"content-length") == (length is not None)
    assert not any(byte in sent.replace(b"\r\n", b"") for byte in b"\r\n\0")


async def _serve(data: bytes) -> None:
    reader, wire, failures = _Reader(), _Wire(), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    client = Gate(reader, Limits(), 8).by(Door(GUARD, JUDGE))()
    assert isinstance(client, Client)  # not what the server's library has in its place
    client.connection_made(wire)
    cut = data[0] if data else 0
    for piece in (data[1 : cut + 1], data[cut + 1 :]):
        if piece and not wire.is_closing():
            client.data_received(piece)
            await _turn()
    client.connection_lost(None)
    await _turn()
    assert not reader.defects, reader.defects
    assert not failures, failures
    assert b"internal_error" not in wire.written
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def _turn() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def fuzz(data: bytes) -> None:
    LOOP.run_until_complete(_serve(data))


LOOP: Final = asyncio.new_event_loop()
