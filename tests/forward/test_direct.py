"""Calls that wait for nobody but the upstream have no task. Whatever comes in between, they are calls as any other.

That answers are the same byte for byte is what `test_handler` shows, of new connections and of kept ones.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import pytest
from structlog.testing import capture_logs

from bearerd.core.accounts import Source
from bearerd.core.configuration import Limits
from bearerd.core.rules import build_rules
from bearerd.daemon import Daemon
from callers import FRESH, STATIC, Client, connected, running, warm
from faults import FaultServer, Step, hang, pause, read, reply, reset, send, serve, until
from patience import settle, soon, within

HI: Final = reply(b"hi")
NO: Final = reply(b"no", "401 Unauthorized")
BODY: Final = ("Content-Length: 3",)


@asynccontextmanager
async def begun(
    *scripts: Sequence[Step], source: Source = STATIC, limits: Limits | None = None
) -> AsyncIterator[tuple[Client, FaultServer, Daemon]]:
    """A client, and a daemon whose first connection to the upstream is open and idle."""
    async with (
        FaultServer(*scripts) as server,
        running(server.url, source=source, limits=limits) as daemon,
        connected(daemon) as client,
    ):
        await warm(daemon)
        yield client, server, daemon


async def until_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110  # there is nothing that would tell
            await asyncio.sleep(0.01)


async def arrived(server: FaultServer) -> None:
    await until_true(lambda: bool(server.requests))


@pytest.mark.parametrize(("fields", "body"), [((), b""), (BODY, b"abc")])
async def test_a_call_takes_no_task(fields: tuple[str, ...], body: bytes) -> None:
    answer = asyncio.Event()
    async with begun([read, until(answer), send(HI), hang]) as (client, server, daemon):
        await settle(0.05)
        before = asyncio.all_tasks()
        client.write("POST / HTTP/1.1", *fields, body=body)
        await arrived(server)
        assert asyncio.all_tasks() == before
        assert daemon._front._in_flight == 1
        answer.set()
        assert (await client.answer()).endswith(b"hi")
        assert daemon._front._in_flight == 0
        assert daemon._front._forwarder._budget.left == Limits().replay_total
        assert [len(kept) for kept in daemon._pool._idle.values()] == [1]


@pytest.mark.parametrize(("fields", "body"), [((), b""), (BODY, b"abc")])
async def test_a_401_is_replayed_with_the_body(fields: tuple[str, ...], body: bytes) -> None:
    async with begun([serve(NO, HI)], source=FRESH) as (client, server, daemon):
        client.write("POST / HTTP/1.1", *fields, body=body)
        assert (await client.answer()).endswith(b"hi")
        assert daemon._front._forwarder._budget.left == Limits().replay_total
        assert daemon._front._in_flight == 0
    first, second = server.requests
    assert first.endswith(b"\r\n\r\n" + body)
    assert second.endswith(b"\r\n\r\n" + body)
    assert first.rpartition(b"Bearer ")[2] != second.rpartition(b"Bearer ")[2]


@pytest.mark.parametrize("cut", [1, 20, len(HI) - 1])
async def test_an_answer_in_pieces(cut: int) -> None:
    async with begun([read, send(HI[:cut]), pause(0.05), send(HI[cut:]), serve(HI)]) as (client, server, _):
        for _ in range(2):
            client.write("GET / HTTP/1.1")
            await client.exactly(HI)
        assert server.connections == 1


@pytest.mark.parametrize("end", [reset, pause(0)])
async def test_a_kept_connection_that_turns_out_to_be_dead(end: Step) -> None:
    async with begun([read, end], [serve(HI)]) as (client, server, _):
        client.write("GET / HTTP/1.1")
        await client.exactly(HI)
        assert len(server.requests) == 2


@pytest.mark.parametrize(("fields", "body"), [((), b""), (BODY, b"abc")])
async def test_what_may_have_been_done_is_not_sent_twice(fields: tuple[str, ...], body: bytes) -> None:
    async with begun([read, reset], [serve(HI)]) as (client, server, daemon):
        client.write("POST / HTTP/1.1", *fields, body=body)
        status, _ = await client.problem()
        assert status == 502
        assert len(server.requests) == 1
        assert daemon._front._forwarder._budget.left == Limits().replay_total


async def test_the_time_a_call_took_is_counted_from_its_request() -> None:
    """Though it was not an ordinary one from the beginning."""
    with capture_logs() as said:
        async with begun([read, pause(0.3), send(HI[:1]), pause(0.05), send(HI[1:]), hang]) as (client, _, _):
            client.write("GET / HTTP/1.1")
            await client.exactly(HI)
    (duration_s,) = [entry["duration_s"] for entry in said if entry["event"] == "request.forwarded"]
    assert duration_s > 0.3


async def test_a_client_that_leaves_ends_the_call() -> None:
    async with begun([read, hang]) as (client, server, daemon):
        client.write("POST / HTTP/1.1", *BODY, body=b"abc")
        await arrived(server)
        client.writer.transport.abort()
        await soon(server.peers[0].gone)
        assert daemon._front._in_flight == 0
        assert daemon._front._forwarder._budget.left == Limits().replay_total


async def test_a_client_that_leaves_when_its_call_has_just_become_an_ordinary_one() -> None:
    async with begun([read, hang]) as (client, server, daemon):
        client.write("GET /1 HTTP/1.1")
        await arrived(server)
        client.write("GET /2 HTTP/1.1")
        client.writer.transport.abort()
        await soon(server.peers[0].gone)
        await until_true(lambda: not daemon._front._in_flight)


@pytest.mark.parametrize("second", ["GET /2 HTTP/1.1\r\nHost: {}\r\n\r\n", "GET /2 HT"])
async def test_a_client_that_does_not_wait_for_its_answer(second: str) -> None:
    answer = asyncio.Event()
    async with begun([read, until(answer), send(reply(b"one")), serve(reply(b"two"))]) as (client, server, _):
        client.write("GET /1 HTTP/1.1")
        await arrived(server)
        text = second.format(client.host)
        client.writer.write(text.encode())
        await settle(0.05)
        answer.set()
        await client.exactly(reply(b"one"))
        if not text.endswith("\r\n\r\n"):
            client.writer.write(f"TP/1.1\r\nHost: {client.host}\r\n\r\n".encode())
        await client.exactly(reply(b"two"))
    assert [request.split()[1] for request in server.requests] == [b"/1", b"/2"]


async def test_an_answer_that_comes_before_the_call_is_taken_up() -> None:
    """The second request makes the first an ordinary call, and its answer is there before anybody asks for it."""
    async with begun([read, send(reply(b"one")), serve(reply(b"two"))]) as (client, server, _):
        client.write("GET /1 HTTP/1.1")
        client.write("GET /2 HTTP/1.1")
        await client.exactly(reply(b"one") + reply(b"two"))
        for number in range(20):
            client.write(f"GET /{number} HTTP/1.1")
            await asyncio.sleep(0)
        for _ in range(20):
            await client.exactly(reply(b"two"))
    assert len(server.requests) == 22


async def test_a_wait_longer_than_keep_alive() -> None:
    answer = asyncio.Event()
    limits = Limits(keep_alive_s=0.1)
    async with begun([read, until(answer), send(HI), hang], limits=limits) as (client, server, _):
        client.write("GET / HTTP/1.1")
        await arrived(server)
        await asyncio.sleep(0.4)
        answer.set()
        await client.exactly(HI)
        assert await client.rest() == b"", "and then it is idle for too long"


@pytest.mark.waits
async def test_a_connection_that_is_kept_is_idle_from_its_last_answer_on() -> None:
    async with begun([serve(HI)], limits=Limits(keep_alive_s=1)) as (client, _, _):
        for _ in range(4):
            client.write("GET / HTTP/1.1")
            await client.exactly(HI)
            await asyncio.sleep(0.3)
        assert await client.rest() == b""


async def test_the_end_of_the_daemon_waits_for_a_call() -> None:
    answer = asyncio.Event()
    async with begun([read, until(answer), send(HI), hang]) as (client, server, daemon):
        client.write("GET / HTTP/1.1")
        await arrived(server)
        stopping = asyncio.create_task(daemon.stop(5))
        await settle(0.1)
        assert not stopping.done()
        answer.set()
        assert await client.rest() == HI.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        async with within(1):
            await stopping


async def test_the_end_of_the_daemon_does_not_wait_for_long() -> None:
    async with begun([read, hang]) as (client, server, daemon):
        client.write("GET / HTTP/1.1")
        await arrived(server)
        await asyncio.wait_for(daemon.stop(0.1), 3)
        assert b" 200 " not in await client.rest()


async def test_an_upstream_that_falls_silent() -> None:
    async with (
        FaultServer([read, hang]) as server,
        running(server.url, response_idle_s=0.1) as daemon,
        connected(daemon) as client,
    ):
        await warm(daemon)
        client.write("GET / HTTP/1.1")
        status, problem = await client.problem()
        assert (status, problem["code"]) == (504, "upstream_timeout")


async def test_more_than_was_asked_for_is_no_answer_to_the_next_call() -> None:
    async with begun([read, send(HI + reply(b"evil")), hang], [serve(HI)]) as (client, server, _):
        for _ in range(2):
            client.write("GET / HTTP/1.1")
            await client.exactly(HI)
        assert server.connections == 2


async def test_the_guard_and_the_routes_hold() -> None:
    async with begun([serve(HI)]) as (client, server, _):
        client.writer.write(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
        assert b" 421 " in await client.head()
        assert not any(peer.received for peer in server.peers)


async def test_a_query_with_a_token_is_refused() -> None:
    async with begun([serve(HI)]) as (client, server, _):
        client.write("GET /?access_token=x HTTP/1.1")
        status, problem = await client.problem()
        assert (status, problem["code"]) == (403, "token_in_query")
        assert not any(peer.received for peer in server.peers)


async def test_a_slow_reader_is_waited_for() -> None:
    """Answers are not piled up for a client that does not read."""
    large = reply(bytes(60_000))
    async with begun([serve(large)]) as (client, server, _):
        for number in range(400):
            client.write(f"GET /{number} HTTP/1.1")
            await asyncio.sleep(0)
        await settle(0.5)
        held_back = len(server.requests)
        assert held_back < 300
        for _ in range(400):
            await client.exactly(large)
    assert len(server.requests) == 400


@pytest.mark.parametrize("target", ["/no", "/%6eo", "/a/../no"])
async def test_the_rules_of_the_route_hold(target: str) -> None:
    async with (
        FaultServer([serve(HI)]) as server,
        running(server.url, rules=build_rules(deny=["/no"])) as daemon,
        connected(daemon) as client,
    ):
        await warm(daemon)
        client.write(f"GET {target} HTTP/1.1")
        status, _ = await client.problem()
        assert status == 403
        assert not any(peer.received for peer in server.peers)


async def test_what_else_means_that_a_token_is_not_taken() -> None:
    """And a 401 does not, by a route that says so."""
    async with (
        FaultServer([serve(reply(b"no", "403 Forbidden"), NO, HI)]) as server,
        running(server.url, source=FRESH, retry_statuses=frozenset({403})) as daemon,
        connected(daemon) as client,
    ):
        await warm(daemon)
        client.write("GET / HTTP/1.1")
        await client.exactly(NO)
    assert len(server.requests) == 2


async def test_an_answer_that_a_page_may_read_says_so() -> None:
    """To the page; to all others, that it does to some. An answer with what looks like an end of a head in its body, too."""
    answer = reply(b"a\r\n\r\nb", "200 OK", "A: 1")
    async with (
        FaultServer([serve(answer)]) as server,
        running(server.url, origins=frozenset({"https://app.test"})) as daemon,
        connected(daemon) as client,
    ):
        await warm(daemon)
        vary = b"Vary: Origin\r\n"
        allow = b"Access-Control-Allow-Origin: https://app.test\r\nAccess-Control-Expose-Headers: *\r\n"
        for fields, leave in ((["Origin: https://app.test"], allow + vary), ([], vary)):
            client.write("GET / HTTP/1.1", *fields)
            await client.exactly(answer.replace(b"\r\n\r\n", b"\r\n" + leave + b"\r\n", 1))


async def test_a_body_too_large_for_memory_is_kept_on_disk() -> None:
    body = bytes(range(256)) * 16
    async with (
        FaultServer([serve(NO, HI)]) as server,
        running(server.url, source=FRESH, limits=Limits(replay_body=100), disk_spool=True) as daemon,
        connected(daemon) as client,
    ):
        await warm(daemon)
        client.write("PUT / HTTP/1.1", f"Content-Length: {len(body)}", body=body)
        await client.exactly(HI)
    assert [request.endswith(b"\r\n\r\n" + body) for request in server.requests] == [True, True]
