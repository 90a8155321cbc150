"""What a route's rules on fields come to on the wire: one credential, ours, in its place; what is dropped and added."""

from base64 import b64encode
from collections.abc import Iterator
from typing import Final

import pytest

from bearerd.core.accounts import CommandSource
from bearerd.core.configuration import Limits
from bearerd.core.field_rules import Forwarding, build_field_rules, parse_credential
from callers import FRESH, kept, pair, split
from faults import FaultServer, reply, serve

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


@pytest.mark.threat(8)
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
    rules = build_field_rules(parse_credential(credential))
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
        [serve(NO, HI)], source=FRESH, fields=build_field_rules(parse_credential("X-Api-Key: {token}"))
    ) as (client, server):
        client.write("GET / HTTP/1.1", "X-Api-Key: dummy")
        await client.exactly(HI)
    first, second = sent(server)
    assert len(first) == len(second) == 1
    assert first[0].startswith(b"X-Api-Key: ")
    assert second[0].startswith(b"X-Api-Key: ")
    assert first != second


# ---------------------------------------------------------------- the client's own credential

OWN: Final = build_field_rules(if_absent=True)
OWN_KEY: Final = build_field_rules(parse_credential("X-Api-Key: {token}"), if_absent=True)
BEFORE_LOGIN: Final = CommandSource(("false",), 5)


async def test_a_credential_of_the_clients_own_passes_as_it_is_and_alone() -> None:
    async with pair([serve(HI)], fields=OWN) as (client, server):
        client.write("GET / HTTP/1.1", "A: 1", "aUTHORIZATION: Custom  x=\xe9 ,y", "B: 2")
        await client.exactly(HI)
    assert sent(server) == [[b"A: 1", b"aUTHORIZATION: Custom  x=\xe9 ,y", b"B: 2"]]


async def test_without_one_ours_is_sent() -> None:
    async with pair([serve(HI)], fields=OWN) as (client, server):
        client.write("GET / HTTP/1.1", "X-Authorization: Bearer other", "Proxy-Authorization: Basic x")
        await client.exactly(HI)
    assert sent(server) == [[b"X-Authorization: Bearer other", b"Authorization: Bearer the-token"]]


async def test_only_the_field_that_would_carry_ours_may_be_the_clients_own() -> None:
    """Authorization stays here all the same, beside a key of the client's and beside ours."""
    async with pair([serve(HI)], fields=OWN_KEY) as (client, server):
        client.write("GET / HTTP/1.1", "Authorization: Bearer x", "x-api-key: own")
        await client.exactly(HI)
        client.write("GET / HTTP/1.1", "Authorization: Bearer x")
        await client.exactly(HI)
    assert sent(server) == [[b"x-api-key: own"], [b"X-Api-Key: the-token"]]


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        (["X-Api-Key: a", "X-Api-Key: a"], "there is more than one x-api-key field; send one of them"),
        (["X-Api-Key: a", "x_api_key: b"], "there is more than one x-api-key field; send one of them"),
        (["X-Api-Key: a", "X-API-KEY:"], "there is more than one x-api-key field; send one of them"),
        (["X_Api-Key: a"], "a field is called x_api-key; write x-api-key, or leave it out"),
        (["X-Api-Key:"], "the x-api-key field is empty; give it a value, or leave it out"),
        (["X-Api-Key: \t "], "the x-api-key field is empty; give it a value, or leave it out"),
        (
            ["X-Api-Key: a", "Connection: X-API-key"],
            "Connection names x-api-key, so it could not go upstream; take it out there",
        ),
        (
            ["X-Api-Key: NTLM TlRMTVNTUAAB"],
            "Negotiate and NTLM are for a connection, and calls share those; use another scheme",
        ),
        (
            ["X-Api-Key: negotiate"],
            "Negotiate and NTLM are for a connection, and calls share those; use another scheme",
        ),
    ],
)
async def test_a_credential_that_is_not_clearly_one_is_refused(fields: list[str], detail: str) -> None:
    """It is neither passed on nor replaced: nobody calls as somebody else than they think."""
    async with pair([serve(HI)], fields=OWN_KEY) as (client, server):
        client.write("POST / HTTP/1.1", *fields, "Content-Length: 2", body=b"ab")
        status, problem = await client.problem()
        assert (status, problem["code"], problem["detail"]) == (400, "bad_credential", detail)
        client.write("GET / HTTP/1.1", "X-Api-Key: own")
        await client.exactly(HI)
    assert sent(server) == [[b"X-Api-Key: own"]]


async def test_a_401_to_the_clients_own_is_neither_replayed_nor_costs_a_token() -> None:
    async with pair([serve(NO)], source=FRESH, fields=OWN) as (client, server):
        client.write("POST / HTTP/1.1", "Authorization: Bearer own", "Content-Length: 2", body=b"ab")
        await client.exactly(NO)
        client.write("GET / HTTP/1.1")
        await client.exactly(NO)
    credentials = [lines[-1] for lines in sent(server)]
    assert len(credentials) == 3, "one call, and one with its replay"
    assert len(set(credentials[1:])) == 2, "the call before cost no token"


async def test_an_answer_to_the_clients_own_says_nothing_of_our_token() -> None:
    """It does not end the pause in which no token is forced for this route."""
    async with pair([serve(NO, NO, HI, NO)], source=FRESH, fields=OWN) as (client, server):
        client.write("GET / HTTP/1.1")
        await client.exactly(NO)
        client.write("GET / HTTP/1.1", "Authorization: Bearer own")
        await client.exactly(HI)
        client.write("GET / HTTP/1.1")
        await client.exactly(NO)
    assert len(server.requests) == 4


async def test_the_clients_own_needs_no_token_of_ours() -> None:
    async with pair([serve(HI)], source=BEFORE_LOGIN, fields=OWN) as (client, server):
        client.write(
            "POST / HTTP/1.1", "Authorization: Bearer own", "Content-Length: 2", "Expect: 100-continue"
        )
        await client.exactly(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.writer.write(b"ab")
        await client.exactly(HI)
        client.write("GET / HTTP/1.1")
        status, problem = await client.problem()
        assert (status, problem["code"]) == (503, "token_unavailable")
    assert sent(server) == [[b"Authorization: Bearer own", b"Content-Length: 2"]]


async def test_a_handshake_may_have_the_clients_own() -> None:
    async with pair([serve(HI)], source=BEFORE_LOGIN, fields=OWN) as (client, server):
        client.write(
            "GET / HTTP/1.1", "Authorization: Bearer own", "Connection: Upgrade", "Upgrade: websocket"
        )
        await client.exactly(HI)
    assert sent(server) == [[b"Authorization: Bearer own", b"Connection: Upgrade", b"Upgrade: websocket"]]


async def test_a_large_body_with_the_clients_own_is_not_asked_for_first() -> None:
    """There is no replay that it would have to be kept for."""
    limits = Limits(replay_body=10)
    async with pair([serve(NO)], limits=limits, fields=OWN) as (client, server):
        client.write("POST / HTTP/1.1", "Authorization: own", "Content-Length: 100000", body=bytes(100_000))
        await client.exactly(NO)
    assert sent(server) == [[b"Authorization: own", b"Content-Length: 100000"]]


# ---------------------------------------------------------------- the route's own fields

VERSIONED: Final = build_field_rules(
    added=[(b"X-Api-Version", b"2"), (b"User_Agent", b"ours/1")], dropped=[b"Origin", b"X-Debug"]
)


async def test_a_routes_fields_replace_the_clients_in_all_spellings() -> None:
    async with pair([serve(HI)], fields=VERSIONED) as (client, server):
        client.write(
            "POST / HTTP/1.1",
            "X-API-version: 1",
            "x_api_version: 1",
            "A: 1",
            "User-Agent: theirs",
            "user_agent: theirs",
            "X-Debug: 1",
            "X_DEBUG: 1",
            f"Origin: http://{client.host}",
            "X-Debugger: kept",
            "Connection: X-Api-Version, user_agent",
            "Authorization: Bearer theirs",
            "Content-Length: 2",
            body=b"ab",
        )
        await client.exactly(HI)
    assert sent(server) == [
        [
            b"A: 1",
            b"X-Debugger: kept",
            b"Content-Length: 2",
            b"X-Api-Version: 2",
            b"User_Agent: ours/1",
            b"Authorization: Bearer the-token",
        ]
    ]


async def test_a_routes_fields_go_with_a_clients_own_credential_too() -> None:
    rules = build_field_rules(if_absent=True, added=[(b"X-Api-Version", b"2")], dropped=[b"X-Debug"])
    async with pair([serve(HI)], fields=rules) as (client, server):
        client.write("GET / HTTP/1.1", "X-Debug: 1", "Authorization: own", "X-Api-Version: 1")
        await client.exactly(HI)
    assert sent(server) == [[b"Authorization: own", b"X-Api-Version: 2"]]


async def test_a_routes_fields_are_in_a_handshake_too() -> None:
    """Behind those that ask for another protocol, which nothing of a route's can take away."""
    async with pair([serve(HI)], fields=VERSIONED) as (client, server):
        client.write(
            "GET / HTTP/1.1",
            "Connection: Upgrade, X-Api-Version",
            "Upgrade: websocket",
            "Sec-WebSocket-Key: x",
        )
        await client.exactly(HI)
    assert sent(server) == [
        [
            b"Sec-WebSocket-Key: x",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"X-Api-Version: 2",
            b"User_Agent: ours/1",
            b"Authorization: Bearer the-token",
        ]
    ]


# ---------------------------------------------------------------- what is told of the client

SAID: Final = (
    "X-Forwarded-For: 203.0.113.7, 10.0.0.1",
    "forwarded: for=203.0.113.7;proto=https",
    "X-Forwarded-Proto: https",
    "x-FORWARDED-host: app.test",
    "X_Forwarded_For: 198.51.100.1",
    "Authorization: Bearer dummy",
)
OURS: Final = b"Authorization: Bearer the-token"


@pytest.mark.parametrize(
    ("forwarded", "lines"),
    [
        ("none", []),
        ("pass", [line.encode() for line in SAID[:4]]),
        ("forwarded", [b'Forwarded: for=127.0.0.1;host="%b";proto=http']),
        (
            "x-forwarded",
            [b"X-Forwarded-For: 127.0.0.1", b"X-Forwarded-Host: %b", b"X-Forwarded-Proto: http"],
        ),
    ],
)
async def test_what_an_upstream_hears_of_a_client(forwarded: Forwarding, lines: list[bytes]) -> None:
    async with pair([serve(HI)], fields=build_field_rules(forwarded=forwarded)) as (client, server):
        for _ in range(2):
            client.write("GET / HTTP/1.1", *SAID)
            await client.exactly(HI)
    host = client.host.encode()
    expected = [line % host if b"%b" in line else line for line in lines]
    assert sent(server) == [[*expected, OURS]] * 2


async def test_what_a_connection_names_is_not_passed_on_though_it_is_trusted() -> None:
    async with pair([serve(HI)], fields=build_field_rules(forwarded="pass")) as (client, server):
        client.write("GET / HTTP/1.1", *SAID, "Connection: X-Forwarded-For, forwarded, x-forwarded-proto")
        await client.exactly(HI)
    assert sent(server) == [[b"x-FORWARDED-host: app.test", OURS]]
