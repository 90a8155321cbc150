"""What a call is called: in answers of our own, in the logs, and in a trace that the client has begun."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from bearerd import ids
from bearerd.core.accounts import CommandSource, FileSource
from bearerd.core.configuration import Logging
from callers import ANOTHER, Client, connected, running, warm
from faults import FaultServer, hang, read, refused_port, reply, send, serve
from patience import within

HI: Final = reply(b"hi")
NO: Final = reply(b"no", "401 Unauthorized")
TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT: Final = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def said() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        yield entries


def of(said: list[Any], event: str) -> list[dict[str, Any]]:
    return [entry for entry in said if entry["event"] == event]


async def problem(client: Client) -> tuple[str, dict[str, Any]]:
    """The id in the field, and the document."""
    head, _, body = (await client.answer()).partition(b"\r\n\r\n")
    found = re.search(rb"\r\nX-Request-Id: (.*?)\r\n", head)
    assert found
    return found[1].decode(), json.loads(body)


@pytest.mark.parametrize(
    ("start_line", "event"),
    [
        ("GET /?access_token=x HTTP/1.1", "request.refused"),
        ("TRACE / HTTP/1.1", "request.refused"),
        ("GET a HTTP", "request.unreadable"),
    ],
)
async def test_a_refusal_is_found_in_the_log_by_its_id(said: list[Any], start_line: str, event: str) -> None:
    async with (
        running("http://127.0.0.1:1", log=Logging(access=False)) as daemon,
        connected(daemon) as client,
    ):
        client.write(start_line)
        name, document = await problem(client)
    (entry,) = of(said, event)
    assert entry["request_id"] == document["request_id"] == name
    assert re.fullmatch("[0-9a-f]{16}", name)


async def test_a_call_without_an_upstream_is_found_in_both_logs(said: list[Any], tmp_path: Path) -> None:
    log = Logging(audit=str(tmp_path / "audit.log"))
    async with running(f"http://127.0.0.1:{refused_port()}", log=log) as daemon, connected(daemon) as client:
        names = []
        for _ in range(2):
            client.write("GET / HTTP/1.1", f"Traceparent: {PARENT}")
            names.append((await problem(client))[0])
    lines = of(said, "request.forwarded")
    assert [line["request_id"] for line in lines] == names
    assert len(set(names)) == 2
    assert {line["trace_id"] for line in lines} == {TRACE}
    audited = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert [(line["request_id"], line["trace_id"]) for line in audited] == [(name, TRACE) for name in names]


async def test_a_page_for_a_person_has_it_too() -> None:
    async with running("http://127.0.0.1:1") as daemon, connected(daemon) as client:
        client.write(
            "GET /?access_token=x HTTP/1.1",
            "Accept: text/html",
            "Sec-Fetch-Dest: document",
            "Sec-Fetch-Mode: navigate",
        )
        head, _, body = (await client.answer()).partition(b"\r\n\r\n")
    found = re.search(rb"\r\nX-Request-Id: (.*?)\r\n", head)
    assert found
    assert b"text/html" in head
    assert b"<code>" + found[1] in body


async def test_a_defect_is_found_in_the_log(said: list[Any]) -> None:
    async with running("http://127.0.0.1:1") as daemon, connected(daemon) as client:
        del daemon._front._forwarder._pool
        client.write("GET / HTTP/1.1")
        name, _ = await problem(client)
    (entry,) = of(said, "request.defect")
    assert entry["request_id"] == name


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        (),
        (f"traceparent: {PARENT}", "tracestate: a=b,c=d", "TraceState: e=f"),
        (f"TraceParent: {PARENT}", f"traceparent: {PARENT}"),
        ("traceparent: 00-nonsense", "tracestate: ,,="),
        ("X-Request-Id: mine", "x-request-id: another"),
    ],
)
async def test_what_the_client_says_of_a_trace_goes_upstream_as_it_is(
    fields: tuple[str, ...], kept: bool
) -> None:
    async with FaultServer([serve(HI)]) as server, running(server.url) as daemon, connected(daemon) as client:
        if kept:
            await warm(daemon)
        client.write("GET / HTTP/1.1", *fields)
        answer = await client.answer()
    lines = server.requests[0].decode().split("\r\n")
    assert [line for line in lines if re.match("(?i)trace|x-request", line)] == list(fields)
    assert b"X-Request-Id" not in answer


@pytest.mark.parametrize(
    ("given", "shown"),
    [("mine-42", "mine-42"), ("a" * 64, "a" * 64), ("a" * 65, None), ("a b", None), ("é", None)],
)
async def test_a_clients_own_id_is_in_the_line_where_it_is_short_and_plain(
    said: list[Any], given: str, shown: str | None
) -> None:
    async with FaultServer([serve(HI)]) as server, running(server.url) as daemon, connected(daemon) as client:
        client.write("GET / HTTP/1.1", f"X-Request-Id: {given}")
        await client.answer()
    (line,) = of(said, "request.forwarded")
    assert line.get("client_request_id") == shown
    assert "trace_id" not in line


async def test_a_refresh_names_the_call_that_has_waited_longest(said: list[Any], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    held = CommandSource(("sh", "-c", f"until [ -e '{gate}' ]; do sleep 0.05; done; echo $$"), 30)
    async with (
        FaultServer([serve(NO, HI)], [serve(HI)]) as server,
        running(server.url, source=held) as daemon,
    ):
        manager = daemon._regime.managers["work"]
        await manager.token()
        gate.unlink()
        said.clear()
        async with connected(daemon) as first, connected(daemon) as second:
            for waiting, (client, name) in enumerate([(first, "first"), (second, "second")]):
                client.write(f"GET /{name} HTTP/1.1", *(() if waiting else (f"traceparent: {PARENT}",)))
                async with within(10):
                    while len(manager._waiters) == waiting:  # noqa: ASYNC110  # there is nothing that would tell
                        await asyncio.sleep(0)
            gate.touch()
            for client in (first, second):
                assert (await client.answer()).endswith(b"hi")
    (refreshed,) = of(said, "token.refreshed")
    lines = {line["path"]: line for line in of(said, "request.forwarded")}
    assert refreshed["trace_id"] == TRACE
    assert refreshed["request_id"] == lines["/first"]["request_id"] != lines["/second"]["request_id"]
    assert refreshed["waiting"] == 2


async def test_a_refresh_that_comes_to_nothing_names_it_too(said: list[Any], tmp_path: Path) -> None:
    source = FileSource(str(tmp_path / "none"))
    async with running("http://127.0.0.1:1", source=source) as daemon, connected(daemon) as client:
        client.write("GET / HTTP/1.1")
        name, document = await problem(client)
    assert document["code"] == "token_unavailable"
    assert [line["request_id"] for line in of(said, "request.forwarded")] == [name]


async def test_what_is_not_sent_again_and_what_is_broken_off_say_whose_it_was(
    said: list[Any], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("the-token")
    token.chmod(0o600)
    async with (
        FaultServer([read, send(NO)], [read, send(HI[:-1])]) as server,
        running(server.url, source=FileSource(str(token))) as daemon,
        connected(daemon) as client,
    ):
        client.write("GET /refused HTTP/1.1")
        assert b" 401 " in await client.answer()
        client.write("GET /short HTTP/1.1")
        with pytest.raises(OSError):  # noqa: PT011  # whichever way the loop says that it was reset
            assert await client.rest() is None
    lines = {line["path"]: line["request_id"] for line in of(said, "request.forwarded")}
    assert [entry["request_id"] for entry in of(said, "request.not_replayed")] == [lines["/refused"]]
    assert [entry["request_id"] for entry in of(said, "request.cut_short")] == [lines["/short"]]


async def test_nobody_needs_an_id_without_a_log() -> None:
    log = Logging(access=False)
    async with (
        FaultServer([serve(HI), hang]) as server,
        running(server.url, log=log, source=ANOTHER) as daemon,
    ):
        async with connected(daemon) as client:
            client.write("GET / HTTP/1.1")
            await client.answer()
        before = repr(ids._numbers)
        async with connected(daemon) as client:
            client.write("GET / HTTP/1.1")
            await client.answer()
        assert repr(ids._numbers) == before
