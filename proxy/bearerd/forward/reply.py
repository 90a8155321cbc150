"""Writing answers to the client: relayed ones byte for byte, our own as problems."""

import asyncio
import socket
import struct
import sys
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Final

from aiohttp import web

from bearerd import __version__
from bearerd.core.fields import RawFields
from bearerd.core.guard import Head
from bearerd.core.headers import (
    LAST_CHUNK,
    Rewrite,
    build_chunk,
    build_head,
    build_lines,
    response_headers,
    response_lines,
    switching_fields,
)
from bearerd.core.navigation import wants_page
from bearerd.core.pages import build_problem_page, problem_page_headers, render
from bearerd.core.problems import Problem, problem_body, problem_headers
from bearerd.forward.pieces import WRITE_BUFFER
from bearerd.forward.upstream import UpstreamResponse
from bearerd.ids import request_id

_BODILESS: Final = frozenset({204, 304})
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_SERVER: Final = f"bearerd/{__version__}"


class Written:
    """An answer that is already on the wire. The server asks of it no more than this (see docs/decisions/0002)."""

    __slots__ = ("body_length", "keep_alive", "status")

    def __init__(self, status: int, *, keep_alive: bool) -> None:
        self.status = status
        self.keep_alive = keep_alive
        self.body_length = 0

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to prepare."""

    async def write_eof(self) -> None:
        """Nothing is left to write."""


def answer_problem(problem: Problem, head: Head) -> web.Response:
    """A problem as a response of the server's own kind: a page for a person's browser, JSON for all others."""
    fields, body = _show(problem, head)
    response = web.Response(status=problem.status, body=body)
    for name, value in fields:
        response.headers[name] = value
    if problem.close:
        response.force_close()
    return _add_fields(response, head.grant)


def _show(problem: Problem, head: Head) -> tuple[list[tuple[str, str]], bytes]:
    name = request_id(head)
    own = [("X-Request-Id", name), ("Server", _SERVER)]
    if not wants_page(head):
        return [*problem_headers(problem), *own], problem_body(problem, name)
    page = build_problem_page(problem, head.target, name)
    return [*problem_page_headers(problem, page), *own], render(page)


def unread() -> Head:
    """What is known of a request that could not be read."""
    return Head("", b"", (1, 1), ())


def answer_preflight(fields: RawFields) -> web.Response:
    """What `cors.preflight` says."""
    response = web.Response(status=204, headers={"Server": _SERVER})
    return _add_fields(response, fields)


def _add_fields(response: web.Response, fields: RawFields) -> web.Response:
    for name, value in fields:
        response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
    return response


def last_answer(problem: Problem, head: Head) -> bytes:
    """A problem in wire form, after which the connection ends. `head` is what could be read of the request."""
    fields, body = _show(problem, head)
    fields += [("Content-Length", str(len(body))), ("Connection", "close")]
    raw = [*((name.encode("latin-1"), value.encode("latin-1")) for name, value in fields), *head.grant]
    start_line = b"HTTP/1.1 %d %b" % (problem.status, HTTPStatus(problem.status).phrase.encode())
    return build_head(start_line, raw) + (b"" if head.method == "HEAD" else body)


def end_with(transport: asyncio.Transport | None, problem: Problem, head: Head) -> Written:
    """Answer and say that this was all, so that the client stops. What it still sends has not to be read as a request.

    The connection is not closed: that would reset it while bytes come in, and the client might lose the answer.
    """
    if transport is not None and not transport.is_closing():
        transport.write(last_answer(problem, head))
        say_no_more(transport)
    return Written(problem.status, keep_alive=False)


def say_no_more(transport: asyncio.Transport) -> None:
    """End our half of a connection, if it is still one. That it has been reset is heard of in a moment."""
    with suppress(OSError):  # asyncio's own loop lets it through
        transport.write_eof()


async def relay(
    request: web.BaseRequest, response: UpstreamResponse, rewrite: Rewrite, grant: RawFields = ()
) -> Written:
    """Stream `response` to the client as it comes: its status, reason, fields (some by `rewrite`) and body bytes.

    `grant` are fields that it has beside its own.

    The body keeps its Content-Length, else it is chunked, else (HTTP/1.0) ended by closing. A body cut short
    upstream is cut short here too, never ended cleanly. Raises UpstreamError in that case.
    """
    lines, has_length = response_lines(response.fields, chunked=response.chunked, rewrite=rewrite)
    delimited = has_length or request.method == "HEAD" or response.status in _BODILESS
    modern = request.version >= (1, 1)
    keep_alive = request.keep_alive and (delimited or modern)
    chunked = modern and not delimited
    if grant:
        lines += build_lines(grant)
    if chunked:
        lines += b"Transfer-Encoding: chunked\r\n"
    if not keep_alive:
        lines += b"Connection: close\r\n"
    elif not modern:
        lines += b"Connection: keep-alive\r\n"
    head = b"HTTP/1.1 %d %b\r\n%b\r\n" % (response.status, response.reason, lines)
    await _stream(request, response, head, chunked=chunked)
    return Written(response.status, keep_alive=keep_alive)


def build_switch(response: UpstreamResponse, rewrite: Rewrite) -> bytes:
    """The head of a 101 for the client. What follows it is not HTTP."""
    assert response.switched_to is not None  # noqa: S101  # that is what makes it a 101
    kept = response_headers(
        response.fields.headers, chunked=True, rewrite=rewrite
    )  # no Content-Length here either
    fields = kept + switching_fields(response.switched_to)
    return build_head(b"HTTP/1.1 %d %b" % (response.status, response.reason), fields)


async def _stream(
    request: web.BaseRequest, response: UpstreamResponse, head: bytes, *, chunked: bool
) -> None:
    """The head leaves together with what of the body is there already, and the rest as it comes."""
    first = response.ready()
    if chunked and first:
        first = build_chunk(first)
    if len(first) > WRITE_BUFFER:  # it is not copied again
        _pass_on(request, head)
    else:
        first = head + first
    ending = LAST_CHUNK if chunked else b""
    if response.complete:
        await _write(request, first + ending)
        return
    await _write(request, first)
    del head, first  # they may be large, and have not to be held for as long as the rest takes
    write = partial(_pass_on_chunk if chunked else _pass_on, request)
    while not await response.pour(write):
        await _drain(request)
    if ending or request.protocol.writing_paused:
        await _write(request, ending)


async def _write(request: web.BaseRequest, data: bytes) -> None:
    if not _pass_on(request, data):
        await _drain(request)


def _pass_on(request: web.BaseRequest, data: bytes) -> bool:
    """Whether more may follow at once."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return False
    if data:
        transport.write(data)
    return not request.protocol.writing_paused


def _pass_on_chunk(request: web.BaseRequest, data: bytes) -> bool:
    return _pass_on(request, build_chunk(data))


async def _drain(request: web.BaseRequest) -> None:
    """Until the client takes more. Raises ConnectionError if it never will."""
    if request.transport is None or request.transport.is_closing():
        raise ConnectionResetError
    await request.protocol._drain_helper()  # noqa: SLF001  # the server's own flow control: decision 0002


def cut_off(transport: asyncio.Transport | None) -> Written:
    """End the client's connection in the middle of an answer, so that it cannot be taken for a whole one."""
    if transport is not None:
        # With RST: an orderly end would complete a body that has no length (HTTP/1.0 clients).
        with suppress(OSError, ValueError):  # it has been closed already
            linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return Written(502, keep_alive=False)
