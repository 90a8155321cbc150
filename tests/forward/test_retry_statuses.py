"""Which answers mean that a token is not taken: what holds for a 401 holds for all that a route names, and no other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from bearerd.core.configuration import Limits
from callers import ANOTHER, Client, connected, running, split
from faults import FaultServer, Step, hang, read, reply, send, serve

HI: Final = reply(b"hi")
SWITCH: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
ASK: Final = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")


def refusal(status: int) -> bytes:
    return reply(b"no", f"{status} No")


@asynccontextmanager
async def retrying(
    statuses: set[int], *scripts: list[Step], limits: Limits | None = None
) -> AsyncIterator[tuple[Client, FaultServer]]:
    async with (
        FaultServer(*scripts) as server,
        running(
            server.url,
            source=ANOTHER,
            retry_statuses=frozenset(statuses),
            limits=limits,
            expect_continue=False,
        ) as daemon,
        connected(daemon) as client,
    ):
        yield client, server


def tokens(server: FaultServer) -> set[bytes]:
    return {split(request)[1][-1] for request in server.requests}


@pytest.mark.parametrize("status", [401, 403, 419, 498])
async def test_a_call_is_sent_once_more_with_its_body_and_another_token(status: int) -> None:
    async with retrying({401, 403, 419, 498}, [serve(refusal(status), HI)]) as (client, server):
        client.write("POST / HTTP/1.1", "Content-Length: 5", body=b"abcde")
        await client.exactly(HI)
    assert [split(request)[2] for request in server.requests] == [b"abcde", b"abcde"]
    assert len(tokens(server)) == 2


@pytest.mark.parametrize(
    ("statuses", "status"), [({401}, 403), ({403}, 401), (set[int](), 401), ({403}, 404), ({401}, 500)]
)
async def test_any_other_answer_is_passed_on(statuses: set[int], status: int) -> None:
    async with retrying(statuses, [serve(refusal(status))]) as (client, server):
        client.write("GET / HTTP/1.1")
        await client.exactly(refusal(status))
    assert len(server.requests) == 1


async def test_a_second_refusal_of_either_kind_is_passed_on_and_pauses_the_route() -> None:
    answers = refusal(401), refusal(403), refusal(401), refusal(403)
    async with retrying({401, 403}, [serve(*answers)]) as (client, server):
        for answer in answers[1:]:
            client.write("GET / HTTP/1.1")
            await client.exactly(answer)
    assert len(server.requests) == 4
    assert len(tokens(server)) == 2


async def test_what_is_no_refusal_opens_the_route_again() -> None:
    """A 401 is none, where the route says so."""
    no, other = refusal(403), refusal(401)
    async with retrying({403}, [serve(no, no, other, no, HI)]) as (client, server):
        for answer in (no, other, HI):
            client.write("GET / HTTP/1.1")
            await client.exactly(answer)
    assert len(tokens(server)) == 3


async def test_a_body_that_was_not_kept_is_not_sent_again() -> None:
    limits = Limits(replay_body=4)
    async with retrying({403}, [serve(refusal(403))], limits=limits) as (client, server):
        client.write("POST / HTTP/1.1", "Content-Length: 5", body=b"abcde")
        await client.exactly(refusal(403))
    assert len(server.requests) == 1


async def test_a_handshake_is_recovered_too() -> None:
    switching: list[Step] = [read, send(refusal(498)), read, send(SWITCH), hang]
    async with retrying({498}, switching) as (client, server):
        client.write("GET / HTTP/1.1", *ASK)
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
    assert len(tokens(server)) == 2
