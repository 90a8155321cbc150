"""Each call is counted once, however it goes and however it ends, over real sockets."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from bearerd.core.configuration import Limits
from bearerd.core.field_rules import build_field_rules
from bearerd.core.rules import build_rules
from bearerd.daemon import Daemon
from bearerd.meters import CallMeter
from callers import FRESH, connected, running, warm
from faults import FaultServer, Step, hang, pause, read, refused_port, reply, reset, send, serve, until
from patience import within

HI: Final = reply(b"hi")
NO: Final = reply(b"no", "401 Unauthorized")
SWITCH: Final = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
ASK: Final = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


def meter_of(daemon: Daemon, account: str = "work") -> CallMeter:
    return daemon.meters.of_calls("/", account)


async def until_true(condition: Callable[[], bool]) -> None:
    async with within(15):
        while not condition():  # noqa: ASYNC110  # what is waited for knows nothing of events
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("kept", [True, False], ids=["at once", "by a task"])
@pytest.mark.parametrize(
    ("answer", "classes"),
    [
        (HI, [0, 0, 1, 0, 0, 0]),
        (reply(b"", "302 Found"), [0, 0, 0, 1, 0, 0]),
        (reply(b"no", "404 Not Found"), [0, 0, 0, 0, 1, 0]),
        (reply(b"no", "503 No"), [0, 0, 0, 0, 0, 1]),
        (reply(b"hi", framing="chunked"), [0, 0, 1, 0, 0, 0]),
    ],
)
async def test_an_answer(answer: bytes, classes: list[int], *, kept: bool) -> None:
    async with FaultServer([serve(answer)]) as server, running(server.url) as daemon:
        if kept:
            await warm(daemon)
        async with connected(daemon) as client:
            client.write("GET / HTTP/1.1")
            await client.head()
            await until_true(lambda: sum(meter_of(daemon).classes) == 1)
        meter = meter_of(daemon)
        assert (meter.classes, sum(meter.counts)) == (classes, 1)
        assert meter.sum_s > 0
        assert (meter.streams, meter.tunnels, dict(meter.upstream_errors)) == (0, 0, {})


@pytest.mark.parametrize("kept", [True, False], ids=["at once", "by a task"])
async def test_how_long_it_took(*, kept: bool) -> None:
    async with FaultServer([read, pause(0.3), send(HI), hang]) as server, running(server.url) as daemon:
        if kept:
            await warm(daemon)
        async with connected(daemon) as client:
            client.write("GET / HTTP/1.1")
            await client.exactly(HI)
            await until_true(lambda: sum(meter_of(daemon).counts) == 1)
        assert meter_of(daemon).sum_s >= 0.3
        assert not any(meter_of(daemon).counts[:8])


@pytest.mark.parametrize("kept", [True, False], ids=["at once", "by a task"])
async def test_a_client_that_leaves(*, kept: bool) -> None:
    async with FaultServer([read, hang]) as server, running(server.url) as daemon:
        if kept:
            await warm(daemon)
        async with connected(daemon) as client:
            client.write("GET / HTTP/1.1")
            await until_true(lambda: bool(server.requests))
        await until_true(lambda: meter_of(daemon).classes == [1, 0, 0, 0, 0, 0])
        assert not any(meter_of(daemon).counts)


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([read, reset], "closed"),
        ([read, send(b"SSH-2.0-x\r\n\r\n"), hang], "invalid"),
        ([read, send(b"HTTP/1.1 200 OK\r\nCont"), pause(0.05)], "invalid"),
        ([read, send(HI[:-1]), pause(0.05)], "cut_short"),
    ],
)
async def test_an_upstream_that_breaks(steps: Sequence[Step], kind: str) -> None:
    async with FaultServer(steps) as server, running(server.url) as daemon, connected(daemon) as client:
        client.write("POST / HTTP/1.1", "Content-Length: 1", body=b"x")
        await until_true(lambda: sum(meter_of(daemon).classes) == 1)
        assert dict(meter_of(daemon).upstream_errors) == {kind: 1}
        assert meter_of(daemon).classes[5] == 1


async def test_an_upstream_that_is_not_there() -> None:
    async with running(f"http://127.0.0.1:{refused_port()}") as daemon, connected(daemon) as client:
        client.write("GET / HTTP/1.1")
        assert (await client.problem())[0] == 502
        assert dict(meter_of(daemon).upstream_errors) == {"unreachable": 1}


async def test_an_upstream_that_is_silent() -> None:
    async with (
        FaultServer([read, hang]) as server,
        running(server.url, response_idle_s=0.05) as daemon,
        connected(daemon) as client,
    ):
        client.write("GET / HTTP/1.1")
        assert (await client.problem())[0] == 504
        assert dict(meter_of(daemon).upstream_errors) == {"timeout": 1}


@pytest.mark.parametrize(("second", "result"), [(HI, "accepted"), (NO, "rejected")])
async def test_a_replay(second: bytes, result: str) -> None:
    async with (
        FaultServer([serve(NO, second)]) as server,
        running(server.url, source=FRESH) as daemon,
        connected(daemon) as client,
    ):
        client.write("GET / HTTP/1.1")
        await client.answer()
        await until_true(lambda: sum(meter_of(daemon).classes) == 1)
        assert dict(meter_of(daemon).replays) == {result: 1}


async def test_streams_and_tunnels_while_they_are_open() -> None:
    end = asyncio.Event()
    stream = [read, send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), until(end)]
    async with (
        FaultServer([*stream, send(b"0\r\n\r\n"), hang], [read, send(SWITCH), until(end)]) as server,
        running(server.url) as daemon,
        connected(daemon) as listener,
        connected(daemon) as other,
    ):
        meter = meter_of(daemon)
        listener.write("GET / HTTP/1.1")
        await until_true(lambda: (meter.streams, meter.tunnels) == (1, 0))
        other.write("GET / HTTP/1.1", *ASK)
        await until_true(lambda: (meter.streams, meter.tunnels) == (1, 1))
        assert not any(meter.classes)
        end.set()
        other.writer.transport.abort()
        await until_true(lambda: (meter.streams, meter.tunnels) == (0, 0))
        await until_true(lambda: meter.classes == [0, 1, 1, 0, 0, 0])
        assert sum(meter.counts) == 1


async def test_a_call_with_the_clients_own_credential_is_no_accounts() -> None:
    async with (
        FaultServer([serve(HI)]) as server,
        running(server.url, fields=build_field_rules(if_absent=True)) as daemon,
        connected(daemon) as client,
    ):
        client.write("GET / HTTP/1.1", "Authorization: Bearer mine")
        await client.exactly(HI)
        await until_true(lambda: meter_of(daemon, "").classes[2] == 1)
        assert not any(meter_of(daemon).classes)


async def test_what_is_refused_is_no_call() -> None:
    rules = build_rules(methods=["GET"])
    async with (
        FaultServer([serve(HI)]) as server,
        running(server.url, rules=rules, limits=Limits()) as daemon,
        connected(daemon) as client,
    ):
        client.write("DELETE / HTTP/1.1")
        assert (await client.problem())[0] == 403
        client.write("GET / HTTP/1.1", "Origin: http://evil.test")
        assert (await client.problem())[0] == 403
        assert not any(meter_of(daemon).classes)
        assert daemon.meters.refusals == {"refused_by_methods": 1, "origin_refused": 1}
