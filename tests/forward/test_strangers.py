"""Threat 14: another user of this machine who calls by TCP, in every way there is. Nothing of theirs goes upstream."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from bearerd.core.configuration import Listen, Logging
from bearerd.daemon import Daemon
from bearerd.gate import REFUSALS
from callers import connected, running, warm
from faults import FaultServer, reply, serve
from users import NOBODY, python_as

pytestmark = [pytest.mark.threat(14), pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")]

HI: Final = reply(b"hi")
OWN: Final = Listen(hosts=("127.0.0.1", "::1"), port=0)

# Sends its input, reads to the end, and says it; or leaves at once.
CALL: Final = """
import socket, struct, sys
host, port, way = sys.argv[1:]
s = socket.create_connection((host, int(port)))
s.settimeout(20)
s.sendall(b"POST / HTTP/1.1\\r\\nHost: localhost:%s\\r\\nConnection: close\\r\\nContent-Length: 4\\r\\n\\r\\nevil" % port.encode())
if way == "reset":
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
if way == "shutdown":
    s.shutdown(socket.SHUT_WR)
if way in ("stay", "shutdown"):
    data = b""
    while chunk := s.recv(65536):
        data += chunk
    print(data.decode())
"""


@asynccontextmanager
async def serving(listen: Listen = OWN) -> AsyncIterator[tuple[Daemon, FaultServer]]:
    async with FaultServer([serve(HI)]) as server, running(server.url, listen=listen) as daemon:
        yield daemon, server


async def call(daemon: Daemon, host: str = "127.0.0.1", way: str = "stay") -> str:
    return await asyncio.to_thread(python_as, NOBODY, CALL, host, str(daemon.port), way)


@pytest.mark.threat(14)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("way", ["stay", "shutdown"])
async def test_they_are_told_why_and_what_to_do(
    host: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving() as (daemon, server):
        answer = await call(daemon, host, way)
        assert daemon._server is not None
        assert daemon._server.served == 0, "nobody's place is taken"
    head, _, body = answer.partition("\n\n")
    assert head.startswith("HTTP/1.1 403 Forbidden\n")
    assert "\nConnection: close" in head
    problem = json.loads(body)
    assert problem["code"] == "peer_refused"
    assert 'set listen.peer_uid to "any"' in problem["detail"]
    assert str(NOBODY) not in answer, "that is not for them"
    assert server.connections == 0
    said = capsys.readouterr().out
    assert said.count("peer.refused") == 1
    assert f"uid={NOBODY}" in said


@pytest.mark.parametrize("way", ["close", "reset"])
async def test_whoever_has_left_before_it_is_looked_at_is_not_taken_for_root(way: str) -> None:
    """The call is all there, and there is no process any more that it could be of."""
    async with serving() as (daemon, server):
        python_as(NOBODY, CALL, "127.0.0.1", str(daemon.port), way)  # nothing is accepted meanwhile
        async with connected(daemon) as client:
            client.write("GET / HTTP/1.1")
            assert (await client.answer()).endswith(b"hi")
    assert [request[:3] for request in server.requests] == [b"GET"]


async def test_many_of_them_keep_nobody_out(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as (daemon, server):
        await asyncio.gather(*(call(daemon) for _ in range(4)))
        async with connected(daemon) as client:
            client.write("GET / HTTP/1.1")
            assert (await client.answer()).endswith(b"hi")
        assert daemon._server is not None
        assert len(daemon._server.refusals) <= REFUSALS
    assert server.connections == 1
    assert capsys.readouterr().out.count("peer.refused") == 1, "it is said once of each"


@pytest.mark.threat(14)
async def test_the_pages_are_not_for_them_either() -> None:
    async with serving() as (daemon, _):
        program = CALL.replace("POST / ", "GET /-/status ")
        answer = await asyncio.to_thread(python_as, NOBODY, program, "127.0.0.1", str(daemon.port), "stay")
    assert "peer_refused" in answer
    assert "accounts" not in answer


async def test_any_user_where_that_is_wanted() -> None:
    async with serving(replace(OWN, peer_uid="any")) as (daemon, server):
        answer = await call(daemon)
    assert answer.startswith("HTTP/1.1 200 OK\n")
    assert server.requests[0].endswith(b"evil")


async def test_it_is_known_whose_a_connection_is() -> None:
    async with serving() as (daemon, _), connected(daemon) as client:
        client.write("GET / HTTP/1.1")
        await client.answer()
        assert daemon._server is not None
        assert [connection.user for connection in daemon._server.connections] == [os.geteuid()]  # type: ignore[attr-defined]


async def test_the_audit_log_knows_it_too(tmp_path: Path) -> None:
    """Of calls that need a handler, and of those that do not."""
    async with (
        FaultServer([serve(HI)]) as server,
        running(server.url, listen=OWN, log=Logging(audit=str(tmp_path / "audit"))) as daemon,
    ):
        await warm(daemon)
        async with connected(daemon) as client:
            for fields in ((), ("Connection: close",)):
                client.write("GET / HTTP/1.1", *fields)
                assert (await client.answer()).endswith(b"hi")
    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert [(line["uid"], line["client"]) for line in lines] == [(os.geteuid(), None)] * 2
