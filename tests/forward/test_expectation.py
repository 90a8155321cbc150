"""`Expect: 100-continue` to upstreams, on real sockets: a body that can be sent only once is not lost to a 401."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from bearerd.core.configuration import Limits
from callers import ANOTHER, Client, connected, running, split
from faults import (
    FaultServer,
    Peer,
    Step,
    half_close,
    hang,
    pause,
    read,
    read_head,
    reply,
    reset,
    send,
    serve,
    until,
)
from patience import soon, within

SIZE: Final = 5000
BODY: Final = bytes(range(250)) * 20
LIMITS: Final = Limits(replay_body=SIZE - 1)
HI: Final = reply(b"hi")
NO: Final = reply(b"no", "401 Unauthorized")
LARGE: Final = reply(b"large", "413 Content Too Large")
UNMET: Final = reply(b"unmet", "417 Expectation Failed")
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECT: Final = b"Expect: 100-continue"
ASKING: Final = ("Expect: 100-continue", f"Content-Length: {SIZE}")
CHUNKED: Final = b"%x\r\n%b\r\n0\r\n\r\n" % (SIZE, BODY)


@asynccontextmanager
async def pair(
    *scripts: list[Step], limits: Limits = LIMITS, expect_continue: bool = True, disk_spool: bool = False
) -> AsyncIterator[tuple[Client, FaultServer]]:
    async with (
        FaultServer(*scripts) as server,
        running(
            server.url, source=ANOTHER, limits=limits, expect_continue=expect_continue, disk_spool=disk_spool
        ) as daemon,
        connected(daemon) as client,
    ):
        yield client, server


def post(client: Client, *fields: str, body: bytes = BODY) -> None:
    client.write("POST / HTTP/1.1", *(fields or (f"Content-Length: {SIZE}",)), body=body)


async def asked(server: FaultServer) -> None:
    """Until the upstream has had something of a call."""
    async with asyncio.timeout(10):
        while not server.peers or not server.peers[0].received:  # noqa: ASYNC110  # the script tells nobody
            await asyncio.sleep(0.01)


async def only_a_head(peer: Peer) -> None:
    """Nothing more comes for a while, though it is there to be sent."""
    assert peer.received.endswith(b"\r\n\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(peer._receive(), 0.05)


def asks(request: bytes) -> bool:
    return EXPECT in split(request)[1]


def has_no_body(peer: Peer) -> bool:
    head, _, body = bytes(peer.received).partition(b"\r\n\r\n")
    return EXPECT in head and body == b""


OPEN: Final[list[Step]] = [read_head, only_a_head, send(CONTINUE), read]


# ---------------------------------------------------------------- an upstream that knows of it


async def test_a_large_body_waits_for_the_upstream() -> None:
    async with pair([*OPEN, send(HI), serve(HI)]) as (client, server):
        post(client)
        await client.exactly(HI)
        client.write("GET / HTTP/1.1")
        await client.exactly(HI)
        assert server.connections == 1
    assert asks(server.requests[0])
    assert split(server.requests[0])[2] == BODY
    assert split(server.requests[0])[1][-1].startswith(b"Authorization: ")
    assert not asks(server.requests[1])


async def test_a_large_body_waits_on_a_kept_connection_too() -> None:
    """It is all there when there is a token and a connection, and could be sent without further ado."""

    async def next_head(peer: Peer) -> None:
        seen = len(peer.received)
        while b"\r\n\r\n" not in peer.received[seen:]:
            await peer._receive()

    async with pair([read, send(HI), next_head, *OPEN[1:], send(HI)]) as (client, server):
        client.write("GET / HTTP/1.1")
        await client.exactly(HI)
        post(client)
        await client.exactly(HI)
        assert server.connections == 1
    assert asks(server.requests[1])
    assert split(server.requests[1])[2] == BODY


async def test_a_401_before_the_body_costs_no_body() -> None:
    """And the connection on which one is owed carries nothing else."""
    async with pair([read_head, only_a_head, send(NO), hang], [*OPEN, send(HI), hang]) as (client, server):
        post(client)
        await client.exactly(HI)
        await soon(server.peers[0].gone)
        assert has_no_body(server.peers[0])
    (request,) = server.requests
    assert asks(request)
    assert split(request)[2] == BODY
    assert split(request)[1][-1] not in bytes(server.peers[0].received)


@pytest.mark.parametrize("end", [[], [half_close, hang], [reset]])
async def test_a_401_and_the_end_of_the_connection(end: list[Step]) -> None:
    no = reply(b"no", "401 Unauthorized", "Connection: close")
    ending: list[Step] = [read_head, send(no), pause(0.05), *end]
    async with pair(ending, [*OPEN, send(HI)]) as (client, server):
        post(client)
        await client.exactly(HI)
        assert has_no_body(server.peers[0])


async def test_a_401_right_behind_the_100() -> None:
    async with pair([read_head, send(CONTINUE + NO), hang], [*OPEN, send(HI), hang]) as (client, server):
        post(client)
        await client.exactly(HI)
        assert has_no_body(server.peers[0])


async def test_a_body_that_is_gone_is_not_sent_again() -> None:
    async with pair([*OPEN, send(NO), hang], [serve(HI)]) as (client, server):
        post(client)
        await client.exactly(NO)
        assert server.connections == 1


async def test_a_second_401_is_passed_on_and_no_body_was_sent() -> None:
    async with pair([read_head, send(NO), hang]) as (client, server):
        post(client)
        await client.exactly(NO)
        assert server.connections == 2
        for peer in server.peers:
            await soon(peer.gone)
            assert has_no_body(peer)


@pytest.mark.parametrize("fields", [ASKING, (f"Content-Length: {SIZE}",)])
async def test_another_refusal_is_passed_on_at_once(fields: tuple[str, ...]) -> None:
    async with pair([read_head, send(LARGE), hang]) as (client, server):
        post(client, *fields, body=b"" if fields is ASKING else BODY)
        await client.exactly(LARGE)
        await soon(server.peers[0].gone)
        assert has_no_body(server.peers[0])
        assert server.connections == 1


@pytest.mark.waits
async def test_an_answer_that_takes_its_time_gets_no_body_for_that() -> None:
    """The upstream has decided; that it goes on talking for longer than is waited for it changes nothing."""
    slow: list[Step] = [read_head, send(LARGE[:-3]), pause(1.2), send(LARGE[-3:]), hang]
    async with pair(slow) as (client, server):
        post(client)
        await client.exactly(LARGE)
        assert has_no_body(server.peers[0])


async def test_other_interim_answers_mean_nothing() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    async with pair([read_head, send(hints), *OPEN[1:], send(HI)]) as (client, _):
        post(client)
        await client.exactly(HI)


# ---------------------------------------------------------------- a client that asks first


@pytest.mark.parametrize("framing", [f"Content-Length: {SIZE}", "Transfer-Encoding: chunked"])
async def test_a_client_that_waits_is_told_by_the_upstream(framing: str) -> None:
    go_on = asyncio.Event()
    async with pair([read_head, until(go_on), send(CONTINUE), read, send(HI)]) as (client, server):
        post(client, "Expect: 100-continue", framing, body=b"")
        await asked(server)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 0.1)
        assert has_no_body(server.peers[0])
        go_on.set()
        await client.exactly(CONTINUE)
        client.writer.write(CHUNKED if "chunked" in framing else BODY)
        await client.exactly(HI)
    assert split(server.requests[0])[2] == (CHUNKED if "chunked" in framing else BODY)


async def test_a_client_that_waits_hears_of_no_401() -> None:
    async with pair([read_head, send(NO), hang], [*OPEN, send(HI)]) as (client, server):
        post(client, *ASKING, body=b"")
        await client.exactly(CONTINUE)
        client.writer.write(BODY)
        await client.exactly(HI)
        assert split(server.requests[0])[2] == BODY


async def test_a_body_without_a_length_that_could_be_kept_after_all() -> None:
    """It is there when it is sent again, so there is nothing to ask."""
    async with pair([*OPEN, send(NO), serve(HI)], limits=Limits(replay_body=SIZE)) as (client, server):
        post(client, "Expect: 100-continue", "Transfer-Encoding: chunked", body=b"")
        await client.exactly(CONTINUE)
        client.writer.write(CHUNKED)
        await client.exactly(HI)
    assert [asks(request) for request in server.requests] == [True, False]
    assert [split(request)[2] for request in server.requests] == [CHUNKED] * 2


async def test_a_client_that_waits_hears_of_the_second_at_once() -> None:
    async with pair([read_head, send(NO), hang]) as (client, server):
        post(client, *ASKING, body=b"")
        await client.exactly(NO)
        assert server.connections == 2


async def test_an_upstream_that_dies_meanwhile() -> None:
    async with pair([read_head, reset]) as (client, server):
        post(client, *ASKING, body=b"")
        status, problem = await client.problem()
        assert (status, problem["code"]) == (502, "upstream_broken")
        assert server.connections == 1


async def test_a_client_that_leaves_meanwhile() -> None:
    async with pair([read_head, hang]) as (client, server):
        post(client, *ASKING, body=b"")
        await asked(server)
        client.writer.close()
        async with within(0.9):
            await server.peers[0].gone.wait()


# ---------------------------------------------------------------- bodies that need none of it


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ((f"Content-Length: {SIZE - 1}",), BODY[:-1]),
        (("Transfer-Encoding: chunked",), CHUNKED),
        (("Content-Length: 0",), b""),
        (("Content-Length: 0", "Expect: 100-continue"), b""),
    ],
)
async def test_a_body_that_can_be_kept_or_is_not_known_to_be_large_is_sent_at_once(
    fields: tuple[str, ...], body: bytes
) -> None:
    async with pair([serve(HI)]) as (client, server):
        post(client, *fields, body=body)
        await client.exactly(HI)
    assert not asks(server.requests[0])


async def test_a_client_that_waits_with_a_small_body_is_told_by_us() -> None:
    async with pair([serve(NO, HI)]) as (client, server):
        post(client, "Expect: 100-continue", "Content-Length: 3", body=b"")
        await client.exactly(CONTINUE)
        client.writer.write(b"abc")
        await client.exactly(HI)
    assert [split(request)[2] for request in server.requests] == [b"abc"] * 2
    assert not any(asks(request) for request in server.requests)


async def test_a_body_that_is_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scripts = [serve(NO, HI)], [serve(HI)]  # the second is for an answer that is quicker than the disk
    async with pair(*scripts, disk_spool=True) as (client, server):
        post(client)
        await client.exactly(HI)
    assert [split(request)[2] for request in server.requests] == [BODY] * 2
    assert not any(asks(request) for request in server.requests)


async def test_a_body_for_which_other_calls_have_left_no_room() -> None:
    """It is within its own limit."""
    limits = Limits(replay_body=SIZE, replay_total=SIZE)
    first, second = [read_head, hang], [*OPEN, send(HI)]
    async with (
        FaultServer(first, second) as server,
        running(server.url, source=ANOTHER, limits=limits) as daemon,
        connected(daemon) as other,
        connected(daemon) as client,
    ):
        post(other, body=BODY[:100])
        async with asyncio.timeout(15):
            while not server.peers or not server.peers[0].received.endswith(BODY[:100]):  # noqa: ASYNC110  # likewise
                await asyncio.sleep(0.01)
        post(client)
        await client.exactly(HI)
    assert EXPECT not in bytes(server.peers[0].received)
    assert asks(server.requests[0])


async def test_a_route_that_does_not_let_it() -> None:
    async with pair([serve(HI)], expect_continue=False) as (client, server):
        post(client)
        await client.exactly(HI)
        post(client, *ASKING, body=b"")
        await client.exactly(CONTINUE)
        client.writer.write(BODY)
        await client.exactly(HI)
    assert not any(asks(request) for request in server.requests)


# ---------------------------------------------------------------- an upstream that knows nothing of it


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
@pytest.mark.waits
async def test_an_upstream_that_says_nothing_gets_the_body_after_a_second_and_is_not_asked_again(
    version: bytes,
) -> None:
    answer = version + b" 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    late: list[Step] = [] if version == b"HTTP/1.0" else [send(CONTINUE)]
    async with pair([read, *late, send(answer), serve(answer)], [serve(answer)]) as (client, server):
        began_at = asyncio.get_running_loop().time()
        post(client, *ASKING, body=b"")
        async with within(4):
            await client.exactly(CONTINUE)
        assert asyncio.get_running_loop().time() - began_at > 0.9
        client.writer.write(BODY)
        await client.exactly(HI)
        async with within(0.9):
            post(client)
            await client.exactly(HI)
    assert [asks(request) for request in server.requests] == [True, False]
    assert [split(request)[2] for request in server.requests] == [BODY] * 2


@pytest.mark.parametrize("fields", [ASKING, (f"Content-Length: {SIZE}",)])
async def test_a_417_is_not_passed_on(fields: tuple[str, ...]) -> None:
    async with pair([read_head, send(UNMET), hang], [serve(HI)]) as (client, server):
        post(client, *fields, body=b"" if fields is ASKING else BODY)
        if fields is ASKING:
            await client.exactly(CONTINUE)
            client.writer.write(BODY)
        await client.exactly(HI)
        assert has_no_body(server.peers[0])
        post(client)
        await client.exactly(HI)
    assert not any(asks(request) for request in server.requests)
    assert [split(request)[2] for request in server.requests] == [BODY] * 2


async def test_a_417_to_a_body_that_went_is_passed_on() -> None:
    async with pair([*OPEN, send(UNMET), hang]) as (client, server):
        post(client)
        await client.exactly(UNMET)
        assert server.connections == 1


async def test_a_417_to_a_call_without_it_is_passed_on_and_so_is_the_second() -> None:
    async with pair([read_head, send(UNMET), hang], [serve(UNMET)]) as (client, server):
        post(client)
        await client.exactly(UNMET)
        post(client, "Content-Length: 3", body=b"abc")
        await client.exactly(UNMET)
        assert server.connections == 2
    assert len(server.requests) == 2


@pytest.mark.waits
async def test_a_client_that_waits_is_not_the_one_that_is_slow() -> None:
    """It is told to go on a second later than it may stop in the middle of a body."""
    limits = Limits(replay_body=SIZE - 1, body_idle_s=0.3)
    async with pair([serve(HI)], limits=limits) as (client, _):
        post(client, *ASKING, body=b"")
        await client.exactly(CONTINUE)
        client.writer.write(BODY)
        await client.exactly(HI)
