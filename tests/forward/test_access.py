"""The line that a call leaves in the access log, whichever way it goes and however it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from bearerd.core.configuration import Logging
from callers import ANOTHER, STATIC, Client, connected, running, warm
from faults import FaultServer, Step, hang, read, reply, reset, send, serve
from patience import within

HI: Final = reply(b"hi")
NO: Final = reply(b"no", "401 Unauthorized")


@pytest.fixture
def said() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture(params=[False, True], ids=["ordinary", "direct"])
def kept(request: pytest.FixtureRequest) -> bool:
    """Whether there is a connection to the upstream already, so that calls are made without a task."""
    return bool(request.param)


class Seen:
    """A daemon with an access log before `server`, and a client of it."""

    def __init__(self, server: FaultServer, client: Client, said: list[Any]) -> None:
        self.server = server
        self.client = client
        self._said = said

    def lines(self) -> list[dict[str, Any]]:
        return [entry for entry in self._said if entry["event"] == "request.forwarded"]

    async def line(self) -> dict[str, Any]:
        await until_true(lambda: bool(self.lines()))
        (line,) = self.lines()
        return line


async def until_true(condition: Callable[[], bool]) -> None:
    async with within(10):
        while not condition():  # noqa: ASYNC110  # there is nothing that would tell
            await asyncio.sleep(0.01)


@asynccontextmanager
async def seen(
    said: list[Any], *scripts: Sequence[Step], kept: bool = False, **of: Any
) -> AsyncIterator[Seen]:
    async with (
        FaultServer(*scripts) as server,
        running(server.url, source=of.pop("source", STATIC), **of) as daemon,
        connected(daemon) as client,
    ):
        if kept:
            await warm(daemon)
        yield Seen(server, client, said)


async def test_a_client_that_leaves_before_the_answer(said: list[Any], kept: bool) -> None:
    async with seen(said, [read, hang], kept=kept) as world:
        world.client.write("GET /a?q HTTP/1.1")
        await until_true(lambda: bool(world.server.requests))
        world.client.writer.transport.abort()
        line = await world.line()
    assert line.items() >= {"path": "/a", "status": None, "cut": "client", "route": "/"}.items()


async def test_an_upstream_that_breaks_off(said: list[Any], kept: bool) -> None:
    async with seen(said, [read, send(HI[:-1]), reset], kept=kept) as world:
        world.client.write("GET / HTTP/1.1")
        with pytest.raises(OSError):  # noqa: PT011  # whichever way the loop says that it was reset
            assert await world.client.rest() is None
        line = await world.line()
    assert line.items() >= {"status": 200, "cut": "upstream"}.items()


async def test_what_is_refused_is_not_in_it(said: list[Any]) -> None:
    async with seen(said, [hang]) as world:
        world.client.write("GET /?access_token=x HTTP/1.1")
        assert (await world.client.problem())[0] == 403
        assert [entry["event"] for entry in said if entry["event"].startswith("request.")] == [
            "request.refused"
        ]


async def test_a_call(said: list[Any], kept: bool) -> None:
    async with seen(said, [serve(HI)], kept=kept) as world:
        before = asyncio.all_tasks()
        world.client.write("PUT /a?b=c HTTP/1.1", "Content-Length: 3", body=b"abc")
        await world.client.answer()
        assert kept == (asyncio.all_tasks() <= before)
        line = await world.line()
    expected = {
        "method": "PUT",
        "path": "/a",
        "route": "/",
        "account": "work",
        "status": 200,
        "replayed": False,
    }
    assert line.items() >= expected.items()
    assert not {"cut", "key"} & line.keys()
    assert 0 < line["duration_s"] < 60


async def test_a_call_that_was_replayed(said: list[Any], kept: bool) -> None:
    async with seen(said, [serve(NO, HI)], kept=kept, source=ANOTHER) as world:
        world.client.write("GET / HTTP/1.1")
        assert (await world.client.answer()).endswith(b"hi")
        assert (await world.line())["replayed"]


@pytest.mark.parametrize("log", [Logging(access=False), Logging(level="warning")])
async def test_without_it_nothing_is_said_of_a_call(said: list[Any], kept: bool, log: Logging) -> None:
    async with seen(said, [serve(HI)], kept=kept, log=log) as world:
        world.client.write("GET / HTTP/1.1")
        await world.client.answer()
    assert not world.lines()
