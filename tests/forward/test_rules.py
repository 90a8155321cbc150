"""Rules of a route through a whole daemon, on real sockets: what is refused never gets to the upstream."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

import pytest

from bearerd.core.rules import Rules, build_rules
from callers import STATIC, Client, connected, running
from faults import FaultServer, hang, reply, send, serve
from faults import read as read_request

HI: Final = reply(b"hi")
RULES: Final = build_rules(allow=["/v1/**", "/ws"], deny=["DELETE /v1/**", "/v1/admin/**"])
ASK: Final = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==",
)
SWITCH: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@asynccontextmanager
async def ruled(rules: Rules | None, base: str = "") -> AsyncIterator[tuple[Client, FaultServer]]:
    """Under /1, for the prefix is not judged."""
    async with (
        FaultServer([serve(HI)]) as server,
        running(server.url, server.url + base, source=STATIC, rules=rules) as daemon,
        connected(daemon) as client,
    ):
        yield client, server


async def codes(client: Client, start_lines: Iterable[str], *fields: str) -> set[str]:
    found = set()
    for line in start_lines:
        client.write(f"{line} HTTP/1.1", *fields)
        status, problem = await client.problem()
        assert (status, problem["status"]) == (403, 403)
        found.add(problem["code"])
    return found


@pytest.mark.threat(5)
async def test_what_is_refused_does_not_get_there_and_the_connection_goes_on() -> None:
    async with ruled(RULES, "/base") as (client, server):
        assert await codes(client, ["GET /1", "GET /1/v2", "POST /1/v10?/v1/x"]) == {"refused_by_allow"}
        assert await codes(client, ["DELETE /1/v1/x", "GET /1/v1/admin", "GET /1/v1/ADMIN/x"]) == {
            "refused_by_deny"
        }
        tricks = ["//admin", "/%2e/admin", "/x/..%2fadmin", "/x/..;/admin", "/x\\..\\admin", "/%2561dmin"]
        assert await codes(client, [f"GET /1/v1{path}" for path in tricks]) == {"ambiguous_path"}
        assert server.connections == 0
        client.write("GET /1/v1/%78?a=// HTTP/1.1")
        await client.exactly(HI)
    assert [request.split()[1] for request in server.requests] == [b"/base/v1/%78?a=//"]


async def test_a_body_that_nobody_wanted() -> None:
    async with ruled(build_rules(read_only=True)) as (client, server):
        client.write("POST /1/x HTTP/1.1", "Content-Length: 5", body=b"abcde")
        status, problem = await client.problem()
        assert (status, problem["code"]) == (403, "refused_by_read_only")
        client.write("GET /1/x HTTP/1.1")
        await client.exactly(HI)
    assert len(server.requests) == 1


async def test_a_client_that_asks_first_is_refused_at_once() -> None:
    async with ruled(build_rules(methods=["GET"])) as (client, server):
        client.write("POST /1/x HTTP/1.1", "Content-Length: 5", "Expect: 100-continue")
        status, problem = await client.problem()
        assert (status, problem["code"]) == (403, "refused_by_methods")
        assert server.connections == 0


@pytest.mark.threat(5)
@pytest.mark.parametrize("field", ["X-HTTP-Method-Override: DELETE", "x_http_method: DELETE"])
async def test_a_method_in_a_field(field: str) -> None:
    async with ruled(RULES) as (client, server):
        assert await codes(client, ["POST /1/v1/x"], field) == {"method_override"}
        assert await codes(client, ["POST /1/v1/x?_method=DELETE"]) == {"method_override"}
        assert server.connections == 0


async def test_a_handshake_is_judged_as_any_call() -> None:
    async with (
        FaultServer([read_request, send(SWITCH), hang]) as server,
        running(server.url, rules=RULES) as daemon,
        connected(daemon) as client,
    ):
        for path in ("/v1/admin/ws", "/v2/ws", "/WS", "/ws/"):
            assert await codes(client, [f"GET {path}"], *ASK) <= {"refused_by_deny", "refused_by_allow"}
        assert server.connections == 0
        client.write("GET /ws HTTP/1.1", *ASK)
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")


async def test_rules_are_those_of_the_route_that_takes_the_call() -> None:
    """And a page of our own is under none of them."""
    async with ruled(build_rules(allow=["/x"])) as (client, server):
        assert await codes(client, ["GET /10", "GET /1/1/x", "GET /1x"]) == {"refused_by_allow"}
        client.write("GET /-/livez HTTP/1.1")
        assert (await client.answer()).startswith(b"HTTP/1.1 200")
        for path in ("/x", "/1/x"):
            client.write(f"GET {path} HTTP/1.1")
            await client.exactly(HI)
        assert len(server.requests) == 2


async def test_the_log_says_what_was_refused(capsys: pytest.CaptureFixture[str]) -> None:
    async with ruled(RULES) as (client, _):
        await codes(client, ["GET /1/v2?secret=canary"])
        await asyncio.sleep(0)
    said = "".join(capsys.readouterr())
    assert "request.refused" in said
    assert "refused_by_allow" in said
    assert "canary" not in said
