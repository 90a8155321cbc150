"""What a route's rules on fields come to on the wire: one credential, ours, in its place; what is dropped and added."""

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bearerd.core.field_rules import build_rules, parse_credential
from callers import FRESH, connected, kept, pair, split
from daemons import RunningDaemon
from faults import FaultServer, read, reply, reset, serve

HI: Final = reply(b"hi")
NO: Final = reply(b"no", "401 Unauthorized", "WWW-Authenticate: Bearer")
BASIC: Final = "Authorization: Basic {base64:oauth2:{token}}"


def sent(server: FaultServer) -> list[list[bytes]]:
    """The fields of each request, but for Host and Via."""
    return [
        [line for line in split(request)[1] if not line.startswith((b"Host:", b"Via:"))]
        for request in server.requests
    ]


@pytest.fixture(autouse=True, params=[False, True], ids=["new connection", "kept connection"])
def _connection(request: pytest.FixtureRequest) -> Iterator[None]:
    """Calls over a kept connection take another way through the daemon: all of this holds for both."""
    token = kept.set(request.param)
    yield
    kept.reset(token)


# ---------------------------------------------------------------- where the credential goes


@pytest.mark.parametrize(
    ("credential", "line"),
    [
        ("X-Api-Key: {token}", b"X-Api-Key: the-token"),
        ("Proxy-Authorization: Bearer {token}", b"Proxy-Authorization: Bearer the-token"),
        ("Authorization: token {token}", b"Authorization: token the-token"),
        (BASIC, b"Authorization: Basic " + b64encode(b"oauth2:the-token")),
    ],
)
async def test_exactly_one_credential_leaves_ours_and_last(credential: str, line: bytes) -> None:
    """Whatever its name: the client's Authorization goes too, in all spellings, also where Connection names ours."""
    rules = build_rules(parse_credential(credential))
    async with pair([serve(HI)], fields=rules) as (client, server):
        client.write(
            "POST / HTTP/1.1",
            "Authorization: Bearer client-secret",
            "AUTHORIZATION: Bearer client-secret",
            "Proxy_Authorization: client-secret",
            "proxy-authorization: client-secret",
            f"{line.decode().partition(':')[0].replace('-', '_').upper()}: client-secret",
            f"{line.decode().partition(':')[0].swapcase()}: client-secret",
            "X-Kept: 1",
            f"Connection: close, {line.decode().partition(':')[0].upper()}",
            "Content-Length: 2",
            body=b"ab",
        )
        assert (await client.rest()).endswith(b"hi")
    assert sent(server) == [[b"X-Kept: 1", b"Content-Length: 2", line]]


async def test_a_replay_has_the_newer_token_in_the_same_place() -> None:
    async with pair(
        [serve(NO, HI)], source=FRESH, fields=build_rules(parse_credential("X-Api-Key: {token}"))
    ) as (client, server):
        client.write("GET / HTTP/1.1", "X-Api-Key: dummy")
        await client.exactly(HI)
    first, second = sent(server)
    assert len(first) == len(second) == 1
    assert first[0].startswith(b"X-Api-Key: ")
    assert second[0].startswith(b"X-Api-Key: ")
    assert first != second


async def test_the_token_is_in_no_text_of_ours(tmp_path: Path) -> None:
    """Logs of all levels, problems, the status: of calls that work, that are refused, and that fail half-way."""
    token = "canary-0123456789"
    async with FaultServer([serve(NO, HI, NO)]) as server, FaultServer([read, reset]) as broken:
        toml = f"""
            [log]
            level = "debug"
            [accounts.work]
            command = ["echo", "{token}"]
            [routes."/plain"]
            upstream = "{server.url}"
            credential = "X-Gateway: {{token}}"
            [routes."/basic"]
            upstream = "{server.url}"
            credential = "X-Gateway: v1.{{base64:me:{{token}}}}"
            [routes."/broken"]
            upstream = "{broken.url}"
            credential = "X-Gateway: {{token}}"
        """
        async with RunningDaemon(tmp_path, toml, tmp_path) as daemon, connected(daemon) as client:
            said = b""
            lines = ("GET /plain", "GET /basic", "GET /-/status", "GET /broken", "GET /plain?access_token=x")
            for line in lines:
                client.write(f"{line} HTTP/1.1", "X-Gateway: canary-of-client")
                said += await client.answer()
        text = daemon.log + said.decode("latin-1")
    encoded = b64encode(b"me:" + token.encode())
    assert any(b"X-Gateway: " + token.encode() in request for request in server.requests)
    assert any(b"X-Gateway: v1." + encoded in request for request in server.requests)
    for event in ("request.forwarded", "token.refreshed", "upstream_broken", "token_in_query"):
        assert event in text
    assert "canary" not in text
    assert encoded.decode()[4:20] not in text
