"""The load of `make bench` itself: it must notice what a bad proxy does to calls, or its figures are worth nothing."""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bench.contestants import build_program, prepare_own_upstream
from bench.figures import BenchError, Load
from bench.loads import Loader
from bench.servers import Server, serve
from bench.workloads import COLD, Workload

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="make bench needs Linux"),
]

BODY_MIB = 1
EVENTS = Workload("", "streams", "events", 3, "/events")
ONE_STREAM = replace(EVENTS, connections=1)
GREETINGS = Workload("", "sockets", "sockets", 3, "/socket")
SEND = Workload("", "bodies", "upload", path="/upload", body_mib=BODY_MIB)
FETCH = Workload("", "bodies", "download", body_mib=BODY_MIB)


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Loader:
    folder = tmp_path_factory.mktemp("load")
    (folder / FETCH.file).write_bytes(os.urandom(BODY_MIB << 20))
    return Loader(build_program(folder, "load.go"), folder, folder, os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("upstream") / "server"
    with serve(prepare_own_upstream, folder, os.sched_getaffinity(0)) as server:
        yield server


def run(loader: Loader, server: Server, workload: Workload, seconds: float = 0.1) -> Load:
    with loader.hold(server, workload, seconds) as load:
        return load


@pytest.mark.parametrize("workload", [COLD, SEND, GREETINGS])
def test_calls_with_the_token_succeed(loader: Loader, upstream: Server, workload: Workload) -> None:
    load = run(loader, upstream, workload)
    assert load.calls >= workload.connections
    assert 0 < load.p50_us <= load.p99_us


def test_events_are_timed_on_every_stream(loader: Loader, upstream: Server) -> None:
    load = run(loader, upstream, EVENTS, 2)
    assert 3 <= load.calls <= 9
    assert load.p99_us < 1e6


@pytest.mark.parametrize("workload", [COLD, SEND, EVENTS, GREETINGS])
def test_a_call_without_the_token_is_an_error(loader: Loader, upstream: Server, workload: Workload) -> None:
    with pytest.raises(BenchError, match="401"):
        run(loader, Server(upstream.pid, upstream.port, direct=False), workload)


def test_what_is_sent_is_compared_with_what_came(loader: Loader, upstream: Server) -> None:
    loader.check(upstream, SEND)


@contextmanager
def saying(answer: bytes) -> Iterator[Server]:
    """A server that reads a request's first piece, gives each connection this answer, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_all() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(ConnectionResetError):  # it ends where it finds the fault
                    while b"\r\n\r\n" not in connection.recv(1 << 16):
                        pass
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 16):
                        pass

        thread = threading.Thread(target=serve_all)
        thread.start()
        try:
            yield Server(0, listener.getsockname()[1], direct=True)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def answer_of(body: bytes, *fields: str, length: int | None = None) -> bytes:
    given = len(body) if length is None else length
    head = "\r\n".join(["HTTP/1.1 200 OK", f"Content-Length: {given}", *fields, "", ""])
    return head.encode() + body


def event(number: int) -> bytes:
    text = b"data: %d 1 x\n\n" % number
    return b"%x\r\n%s\r\n" % (len(text), text)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
ACCEPTED = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"


@pytest.mark.parametrize(
    ("workload", "answer", "reason"),
    [
        (COLD, answer_of(b"{}", length=3), "EOF"),
        (COLD, answer_of(b""), "empty body"),
        (COLD, b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "502"),
        (FETCH, answer_of(bytes((BODY_MIB << 20) - 1), length=BODY_MIB << 20), "EOF"),
        (FETCH, answer_of(bytes((BODY_MIB << 20) - 1)), "1048575 bytes came of 1048576"),
        (FETCH, CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", "3 bytes came of 1048576"),
        (SEND, answer_of(b"1048575"), "the upstream got"),
        (ONE_STREAM, CHUNKED + event(0) + event(2), "event 1 is"),
        (ONE_STREAM, CHUNKED + event(0), "EOF"),
        (GREETINGS, answer_of(b""), "200 OK"),
        (GREETINGS, SWITCHED + b"Sec-WebSocket-Accept: another\r\n\r\n", "not this one's"),
        (GREETINGS, SWITCHED + ACCEPTED + b"\x81\x02ho", "came back as"),
    ],
)
def test_what_is_missing_or_wrong_is_an_error(
    loader: Loader, workload: Workload, answer: bytes, reason: str
) -> None:
    with saying(answer) as server, pytest.raises(BenchError, match=reason):
        run(loader, server, workload)


def test_a_body_of_the_right_length_with_other_bytes_is_an_error(loader: Loader) -> None:
    body = bytes(BODY_MIB << 20)
    with saying(answer_of(body)) as server:
        run(loader, server, FETCH, 0)
        with pytest.raises(BenchError, match="another body came"):
            loader.check(server, FETCH)


def test_a_sent_body_that_changed_on_its_way_is_an_error(loader: Loader) -> None:
    with (
        saying(answer_of(b"1048576 " + b"0" * 64)) as server,
        pytest.raises(BenchError, match="upstream got"),
    ):
        loader.check(server, SEND)


def test_connections_are_open_until_the_block_ends(loader: Loader, upstream: Server) -> None:
    with loader.hold(upstream, GREETINGS, 0):
        before = count_connections(upstream.port)
    assert before >= GREETINGS.connections


def count_connections(port: int) -> int:
    """Those of this machine that are established with the port, by proc(5)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "01" for line in lines)
