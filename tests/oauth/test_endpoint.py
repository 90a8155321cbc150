import asyncio
import base64
import json
import logging
import resource
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qs

import pytest

from bearerd.assembly import SystemClock
from bearerd.core.accounts import ClientAuth, Grant, OAuthSource
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted, TokenSet
from bearerd.oauth.endpoint import OAuthTokenSource
from bearerd.oauth.exchange import open_session
from bearerd.oauth.server import OAuthServer
from faults import (
    FaultServer,
    Step,
    half_close,
    hang,
    pause,
    read,
    refused_port,
    repeat,
    reply,
    request_size,
    reset,
    send,
    serve,
    slices,
)
from patience import settle, soon, within

MiB: Final = 1 << 20
CLIENT_SECRET: Final = "c1ient-secret"
ACCESS: Final = "access-t0ken"
REFRESH: Final = "refresh t0ken&="
GRANT: Final = {"access_token": ACCESS, "token_type": "Bearer", "expires_in": 300, "refresh_token": "next"}
SOURCE: Final = OAuthSource(
    grant=Grant.CLIENT_CREDENTIALS,
    client_id="the client",
    client_secret=Secret(CLIENT_SECRET),
    scopes=("api:read", "offline_access"),
)

CURRENT: Final = TokenSet(3, Secret("old"), 0.0, 1.0, Secret(REFRESH))


def answer(document: Any, status: str = "200 OK", *fields: str) -> bytes:
    return reply(json.dumps(document).encode(), status, "Content-Type: application/json", *fields)


@asynccontextmanager
async def token_source(source: OAuthSource, reply_s: float = 5.0) -> AsyncIterator[OAuthTokenSource]:
    adapter = OAuthTokenSource(OAuthServer(source, SystemClock(), open_session()), reply_s=reply_s)
    try:
        yield adapter
    finally:
        await adapter.aclose()


async def obtain(server: FaultServer, current: TokenSet | None = None, **changes: Any) -> Granted | Failure:
    source = replace(SOURCE, token_endpoint=f"{server.url}/token", **changes)
    async with token_source(source) as adapter:
        return await adapter.obtain(current)


def failed(outcome: Granted | Failure, kind: FailureKind) -> Failure:
    assert isinstance(outcome, Failure)
    assert outcome.kind is kind
    for secret in (CLIENT_SECRET, ACCESS, REFRESH):
        assert secret not in outcome.reason
    return outcome


def form(request: bytes) -> dict[str, list[str]]:
    return parse_qs(request.partition(b"\r\n\r\n")[2].decode(), strict_parsing=True)


def peak() -> int:
    """Bytes this process has ever taken up at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ---------------------------------------------------------------- requests and good replies


async def test_the_request_on_the_wire_byte_for_byte() -> None:
    async with FaultServer([serve(answer(GRANT))]) as server:
        outcome = await obtain(server)
    assert outcome == Granted(Secret(ACCESS), 300.0, Secret("next"))
    basic = base64.b64encode(f"the+client:{CLIENT_SECRET}".encode()).decode()
    body = "grant_type=client_credentials&scope=api%3Aread+offline_access"
    assert server.requests == [
        f"POST /token HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAccept-Encoding: identity\r\n"
        f"User-Agent: bearerd\r\nAccept: application/json\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Authorization: Basic {basic}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
    ]


async def test_a_refresh_spends_the_token_that_is_there() -> None:
    async with FaultServer([serve(answer(GRANT))]) as server:
        outcome = await obtain(
            server,
            CURRENT,
            grant=Grant.REFRESH_TOKEN,
            client_auth=ClientAuth.POST,
            resource="https://api.example/",
        )
    assert isinstance(outcome, Granted)
    assert form(server.requests[0]) == {
        "grant_type": ["refresh_token"],
        "refresh_token": [REFRESH],
        "resource": ["https://api.example/"],
        "client_id": ["the client"],
        "client_secret": [CLIENT_SECRET],
    }
    assert b"uthorization" not in server.requests[0]


async def test_an_endpoint_is_used_exactly_as_written() -> None:
    async with FaultServer([serve(answer(GRANT))]) as server:
        source = replace(SOURCE, token_endpoint=f"{server.url}/%41/a%2fb/..//token")
        async with token_source(source) as adapter:
            await adapter.obtain(None)
            assert not adapter.changed()
    assert server.requests[0].split()[1] == b"/%41/a%2fb/..//token"


@pytest.mark.threat(13)
async def test_each_request_has_a_connection_of_its_own_and_no_cookies() -> None:
    cookie = answer(GRANT, "200 OK", "Set-Cookie: session=1; Path=/", "Connection: keep-alive")
    async with FaultServer([serve(cookie)]) as server:
        source = replace(SOURCE, token_endpoint=f"{server.url}/token")
        async with token_source(source) as adapter:
            for _ in range(3):
                assert isinstance(await adapter.obtain(None), Granted)
        assert server.connections == 3
    assert len(set(server.requests)) == 1
    assert b"ookie" not in server.requests[0]


async def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FaultServer([serve(answer(GRANT))]) as server, FaultServer([serve(HI)]) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert isinstance(await obtain(server), Granted)
        assert proxy.connections == 0


@pytest.mark.parametrize("framing", ["length", "chunked", None])
@pytest.mark.parametrize("size", [1, 1000])
async def test_replies_in_any_framing_and_in_pieces(framing: str | None, size: int) -> None:
    raw = reply(json.dumps(GRANT).encode(), framing=framing)
    async with FaultServer([read, slices(raw, size)]) as server:
        assert isinstance(await obtain(server), Granted)


async def test_a_reply_compressed_although_nobody_asked() -> None:
    raw = zlib.compress(json.dumps(GRANT).encode(), wbits=31)
    async with FaultServer([serve(reply(raw, "200 OK", "Content-Encoding: gzip"))]) as server:
        assert isinstance(await obtain(server), Granted)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (answer({"error": "invalid_grant"}, "400 Bad Request"), FailureKind.GRANT_REJECTED),
        (answer({"error": "invalid_grant"}), FailureKind.GRANT_REJECTED),
        (answer({"error": "invalid_client"}, "401 Unauthorized"), FailureKind.PERMANENT),
        (answer({"error": "temporarily_unavailable"}, "400 Bad Request"), FailureKind.TRANSIENT),
        (answer({"error": "invalid_client"}, "429 Too Many Requests"), FailureKind.TRANSIENT),
        (reply(b"<html>", "502 Bad Gateway"), FailureKind.TRANSIENT),
        (reply(b"<html>hello</html>"), FailureKind.TRANSIENT),
        (reply(b""), FailureKind.TRANSIENT),
        (reply(b"", "204 No Content", framing=None), FailureKind.TRANSIENT),
        (answer({"access_token": "a\r\nb"}), FailureKind.TRANSIENT),
        (answer(GRANT | {"token_type": "DPoP"}), FailureKind.PERMANENT),
        (reply(b"[" * 100_000), FailureKind.TRANSIENT),
        (reply(b"\xff\xfe"), FailureKind.TRANSIENT),
        (reply(b"no gzip", "200 OK", "Content-Encoding: gzip"), FailureKind.OUTCOME_UNKNOWN),
        (b"garbage\r\n\r\n", FailureKind.OUTCOME_UNKNOWN),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", FailureKind.OUTCOME_UNKNOWN),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\n", FailureKind.OUTCOME_UNKNOWN),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", FailureKind.TRANSIENT),
    ],
)
async def test_replies_that_give_no_token(raw: bytes, kind: FailureKind) -> None:
    async with FaultServer([read, send(raw)]) as server:
        failed(await obtain(server, CURRENT, grant=Grant.REFRESH_TOKEN), kind)
        assert server.connections == 1


@pytest.mark.parametrize("steps", [[read, reset], [read, send(b"garbage\r\n\r\n")]], ids=["reset", "garbage"])
async def test_a_grant_that_spends_nothing_has_no_unknown_outcome(steps: list[Step]) -> None:
    async with FaultServer(steps) as server:
        failed(await obtain(server), FailureKind.TRANSIENT)
        assert server.connections == 1


@pytest.mark.parametrize("value", ["7", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_retry_after_is_handed_on(value: str) -> None:
    async with FaultServer([serve(reply(b"", "503 Busy", f"Retry-After: {value}"))]) as server:
        failure = failed(await obtain(server), FailureKind.TRANSIENT)
    assert failure.retry_after_s is not None
    assert failure.retry_after_s >= 7


@pytest.mark.threat(10)
@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
async def test_a_redirect_carries_nothing_anywhere(status: str) -> None:
    async with FaultServer([serve(answer(GRANT))]) as other:
        raw = reply(b"", status, f"Location: {other.url}/token")
        async with FaultServer([serve(raw)]) as server:
            failed(await obtain(server, CURRENT, grant=Grant.REFRESH_TOKEN), FailureKind.TRANSIENT)
            assert server.connections == 1
        assert other.connections == 0


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("host", ["nobody.invalid", "127.0.0.1"])
async def test_nothing_is_spent_where_nobody_can_be_reached(host: str) -> None:
    source = replace(SOURCE, token_endpoint=f"http://{host}:{refused_port()}/token")
    async with token_source(source) as adapter:
        failure = failed(await adapter.obtain(CURRENT), FailureKind.TRANSIENT)
    assert failure.reason == "the token endpoint cannot be reached"


async def test_a_server_that_does_not_speak_tls_gets_no_secret() -> None:
    async with FaultServer([send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), hang]) as server:
        source = replace(SOURCE, token_endpoint=f"https://127.0.0.1:{server.port}/token")
        async with token_source(source) as adapter:
            failed(await adapter.obtain(None), FailureKind.TRANSIENT)
        assert CLIENT_SECRET.encode() not in server.peers[0].received


@pytest.mark.parametrize(
    "steps",
    [
        [read, reset],
        [read],
        [read, half_close, hang],
        [read, send(b"HTTP/1.1 2"), reset],
        [read, send(answer(GRANT)[:60]), reset],
        [read, send(answer(GRANT)[:-1]), pause(0.02), reset],
        [read, send(answer(GRANT)[:-1])],
        [read, send(reply(json.dumps(GRANT).encode(), framing="chunked")[:-5])],
        [read, send(b"HTTP/1.1 100 Continue\r\n\r\n"), reset],
    ],
)
async def test_a_request_that_left_and_a_reply_that_did_not_come(steps: list[Step]) -> None:
    """Once, whatever happens: a second attempt is the protocol's to decide, for it spends the grant again."""
    async with FaultServer(steps) as server:
        failed(await obtain(server, CURRENT, grant=Grant.REFRESH_TOKEN), FailureKind.OUTCOME_UNKNOWN)
        assert server.connections == 1


@pytest.mark.parametrize(
    "steps",
    [
        [read, hang],
        [read, send(answer(GRANT)[:20]), hang],
        [read, send(answer(GRANT)[:-1]), hang],
        [read, slices(answer(GRANT), 1, 0.05), hang],
        [read, serve(b"HTTP/1.1 100 Continue\r\n\r\n")],
    ],
    ids=["silent", "in the head", "in the body", "byte by byte", "interim"],
)
async def test_a_reply_that_takes_too_long(steps: list[Step]) -> None:
    async with FaultServer(steps) as server:
        source = replace(SOURCE, grant=Grant.REFRESH_TOKEN, token_endpoint=f"{server.url}/token")
        async with token_source(source, reply_s=0.2) as adapter, within(2):
            failure = failed(await adapter.obtain(CURRENT), FailureKind.OUTCOME_UNKNOWN)
        assert "in time" in failure.reason
        await soon(server.peers[0].gone)
        assert server.connections == 1


async def test_a_cancelled_request_closes_its_connection() -> None:
    async with FaultServer([read, hang]) as server:
        task = asyncio.create_task(obtain(server))
        await settle(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await soon(server.peers[0].gone)


def bomb(size: int) -> bytes:
    """A gzip stream of `size` zeros, made without holding them."""
    compressor = zlib.compressobj(9, wbits=31)
    return b"".join(compressor.compress(bytes(MiB)) for _ in range(size // MiB)) + compressor.flush()


BOMB: Final = bomb(100 * MiB)
ENDLESS: Final = [send(reply(framing=None)), repeat(b'{"access_token": "' + b"x" * 65536, 1600)]
CHUNKS: Final = [
    send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    repeat(b"10000\r\n" + b" " * 65536 + b"\r\n", 1600),
]
DECLARED: Final = [send(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n"), repeat(b" " * 65536, 1600)]
COMPRESSED: Final = [send(reply(BOMB, "200 OK", "Content-Encoding: gzip", "Content-Type: application/json"))]


@pytest.mark.threat(18)
@pytest.mark.parametrize(
    "steps", [ENDLESS, CHUNKS, DECLARED, COMPRESSED], ids=["endless", "chunked", "declared", "bomb"]
)
async def test_a_huge_reply_is_cut_and_takes_no_memory(steps: Sequence[Step]) -> None:
    async with FaultServer([read, *steps, hang]) as server:
        before = peak()
        failure = failed(await obtain(server), FailureKind.TRANSIENT)
        assert peak() - before < 24 * MiB
        assert "no JSON object" in failure.reason
        await soon(server.peers[0].gone)


async def test_a_reply_just_within_the_limit_is_read() -> None:
    document = json.dumps(GRANT).encode()
    async with FaultServer([serve(reply(document.ljust(MiB)))]) as server:
        assert isinstance(await obtain(server), Granted)
    async with FaultServer([serve(reply(document.ljust(MiB + 1)))]) as server:
        failed(await obtain(server), FailureKind.TRANSIENT)


async def test_no_secret_in_any_log(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = answer(
        {"error": "invalid_request", "error_description": "no"}, "400 Bad Request", f"X-Echo: {CLIENT_SECRET}"
    )
    for raw in (answer(GRANT), echo, b"garbage " + CLIENT_SECRET.encode() + b"\r\n\r\n"):
        async with FaultServer([read, send(raw)]) as server:
            await obtain(server, CURRENT, grant=Grant.REFRESH_TOKEN)
    shown = caplog.text + "".join(capfd.readouterr())
    basic = base64.b64encode(f"the+client:{CLIENT_SECRET}".encode()).decode()
    for secret in (CLIENT_SECRET, ACCESS, "t0ken", basic, "Authorization"):
        assert secret not in shown


# ---------------------------------------------------------------- discovery


def metadata(server: FaultServer, **changes: Any) -> bytes:
    return answer({"issuer": server.url, "token_endpoint": f"{server.url}/token"} | changes)


MISSING: Final = reply(b"", "404 Not Found")
HI: Final = reply(b"hi")


@asynccontextmanager
async def issuer(
    *answers: Callable[[FaultServer], bytes], path: str = ""
) -> AsyncIterator[tuple[OAuthTokenSource, FaultServer]]:
    """A source whose issuer gives one connection after another the next of `answers`."""

    def at(position: int) -> Step:
        async def step(peer: Any) -> None:
            await read(peer)
            await peer.send(answers[position](server))

        return step

    server = FaultServer(*([at(position)] for position in range(len(answers))))
    async with server, token_source(replace(SOURCE, issuer=server.url + path)) as adapter:
        yield adapter, server


def targets(server: FaultServer) -> list[str]:
    return [request.split()[1].decode() for request in server.requests]


def granted(_: FaultServer) -> bytes:
    return answer(GRANT)


async def test_the_endpoint_is_found_once_and_kept() -> None:
    async with issuer(metadata, granted) as (adapter, server):
        for _ in range(3):
            assert isinstance(await adapter.obtain(None), Granted)
        assert targets(server) == ["/.well-known/openid-configuration", *["/token"] * 3]
    first = server.requests[0]
    assert first.startswith(b"GET ")
    assert b"\r\nAccept: application/json\r\n" in first
    assert b"uthorization" not in first
    assert request_size(first) == len(first)


async def test_the_second_place_is_asked_where_the_first_has_none() -> None:
    def document(server: FaultServer) -> bytes:
        return metadata(server, issuer=f"{server.url}/tenant/1")

    async with issuer(lambda _: MISSING, document, granted, path="/tenant/1") as (adapter, server):
        assert isinstance(await adapter.obtain(None), Granted)
        assert targets(server) == [
            "/tenant/1/.well-known/openid-configuration",
            "/.well-known/oauth-authorization-server/tenant/1",
            "/token",
        ]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (lambda _: MISSING, "has no metadata; set token_endpoint"),
        (lambda server: metadata(server, issuer="https://evil.test"), "another issuer"),
        (lambda server: metadata(server, issuer=server.url + "/"), "another issuer"),
        (lambda server: metadata(server, issuer=None), "another issuer"),
        (lambda server: metadata(server, token_endpoint="http://other.example/token"), "plain http"),
        (lambda server: metadata(server, token_endpoint="file:///etc/passwd"), "not an http or https URL"),
        (lambda server: metadata(server, token_endpoint="https://a@evil.test/"), "user name"),
        (lambda server: metadata(server, token_endpoint=None), "has no token_endpoint"),
        (lambda server: metadata(server, token_endpoint=["https://a"]), "has no token_endpoint"),
        (lambda _: answer([]), "no JSON object"),
        (lambda _: reply(b"<html>"), "no JSON object"),
        (lambda server: metadata(server, padding="x" * 5 * MiB), "no JSON object"),
        (lambda _: reply(BOMB, "200 OK", "Content-Encoding: gzip"), "no JSON object"),
        (lambda _: b"garbage\r\n\r\n", "the issuer broke off its answer"),
        (lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "the issuer broke off its answer"),
        (lambda _: reply(b"", "302 Found", "Location: http://127.0.0.1:1/"), "the issuer answered 302 where"),
        (lambda _: reply(b"", "500 Oops"), "the issuer answered 500 where its metadata should be"),
    ],
)
async def test_metadata_that_cannot_be_believed(
    document: Callable[[FaultServer], bytes], reason: str
) -> None:
    async with issuer(document) as (adapter, server):
        before = peak()
        failure = failed(await adapter.obtain(None), FailureKind.TRANSIENT)
        assert reason in failure.reason
        assert peak() - before < 24 * MiB
        assert CLIENT_SECRET.encode() not in b"".join(server.requests)
        assert "/token" not in targets(server)


@pytest.mark.threat(10)
async def test_a_redirected_metadata_request_stays_where_it_is() -> None:
    async with FaultServer([serve(HI)]) as other:
        moved = reply(b"", "307 Moved", f"Location: {other.url}/")
        async with issuer(lambda _: moved) as (adapter, _):
            failed(await adapter.obtain(None), FailureKind.TRANSIENT)
        assert other.connections == 0


async def test_an_issuer_that_comes_up_later() -> None:
    port = refused_port()
    source = replace(SOURCE, issuer=f"http://127.0.0.1:{port}")
    async with token_source(source) as adapter:
        failure = failed(await adapter.obtain(None), FailureKind.TRANSIENT)
        assert failure.reason == "the issuer cannot be reached"
        document = answer({"issuer": source.issuer, "token_endpoint": f"{source.issuer}/token"})
        # Both places, each twice: a GET is harmless, and the library tries it again.
        broken: list[list[Step]] = [[read, reset]] * 4
        async with FaultServer(*broken, [serve(document)], [serve(answer(GRANT))], port=port) as server:
            failed(await adapter.obtain(None), FailureKind.TRANSIENT)
            for _ in range(2):
                assert isinstance(await adapter.obtain(None), Granted)
            first, second = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"
            assert targets(server) == [first, first, second, second, first, "/token", "/token"]
