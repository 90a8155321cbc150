"""Clients that have keys, on the wire: who is let in, what is told to the others, and that no key goes any further.

Threats 2, 3 and 14 of the threat model.
"""

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from bearerd.core.accounts import Source
from bearerd.core.client_keys import ClientKey, build_document, build_key, digest_of
from bearerd.core.configuration import Configuration, Keys, Limits, Listen
from bearerd.core.field_rules import DEFAULT_RULES, FieldRules, build_field_rules
from bearerd.daemon import Daemon
from bearerd.errors import ConfigError
from bearerd.stores.client_keys import ClientKeyFile
from callers import FRESH, STATIC, Client, connected, kept, running, split, warm
from faults import FaultServer, Step, hang, read, reply, send, serve, until

pytestmark = [pytest.mark.threat(2), pytest.mark.threat(3), pytest.mark.threat(14)]
HI: Final = reply(b"hi")
NO: Final = reply(b"no", "401 Unauthorized")
TEXT: Final = build_key(bytes(32)).reveal()
OTHER: Final = build_key(bytes(range(32))).reveal()
LAPTOP: Final = ClientKey("laptop", digest_of(TEXT.encode()), 0)
BEARER: Final = f"Authorization: Bearer {TEXT}"
BASIC: Final = f"Authorization: Basic {b64encode(f'me:{TEXT}'.encode()).decode()}"
EVIL: Final = "Origin: http://evil.test"
WEBSOCKET: Final = (
    *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==",
)
SWITCH: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class World:
    """A daemon whose clients have keys, a client of it, the upstream, and the file of the keys."""

    client: Client
    server: FaultServer
    daemon: Daemon
    file: ClientKeyFile

    async def ask(self, start_line: str, *fields: str, body: bytes = b"") -> int:
        self.client.write(f"{start_line} HTTP/1.1", *fields, body=body)
        return int((await self.client.answer()).split()[1])

    async def refused(self, start_line: str, *fields: str) -> tuple[int, str]:
        """Status and code of a call that does not reach the upstream."""
        before = len(self.server.requests)
        self.client.write(f"{start_line} HTTP/1.1", *fields)
        status, problem = await self.client.problem()
        assert len(self.server.requests) == before
        assert TEXT not in json.dumps(problem)
        return status, problem["code"]

    def set(self, *keys: ClientKey) -> None:
        self.file.change(lambda _: keys)


@pytest.fixture(params=[False, True], ids=["new connection", "kept connection"])
def _either(request: pytest.FixtureRequest) -> Iterator[None]:
    """Calls over a kept connection take another way through the daemon: what is asked for it holds for both."""
    token = kept.set(request.param)
    yield
    kept.reset(token)


@asynccontextmanager
async def world(
    folder: Path,
    *scripts: Sequence[Step],
    use: str = "required",
    keys: Sequence[ClientKey] = (LAPTOP,),
    source: Source = STATIC,
    fields: FieldRules = DEFAULT_RULES,
    key_fields: tuple[str, ...] = ("X-Api-Key",),
) -> AsyncIterator[World]:
    path = folder / "keys.json"
    file = ClientKeyFile(path)
    file.change(lambda _: keys)
    async with (
        FaultServer(*scripts or [[serve(HI)]]) as server,
        running(
            server.url,
            server.url,
            source=source,
            fields=fields,
            keys=Keys(use, str(path), key_fields),
        ) as daemon,
        connected(daemon) as client,
    ):
        if kept.get():
            await warm(daemon)
        yield World(client, server, daemon, file)


def no_trace(server: FaultServer) -> None:
    """No key went upstream, in whatever spelling; one credential did, ours."""
    assert server.requests
    for request in server.requests:
        assert b"bearerd_" not in request.lower()
        assert b64encode(f"me:{TEXT}".encode()) not in request
        lines = split(request)[1]
        assert [line for line in lines if line.lower().startswith(b"authorization:")] == [
            b"Authorization: Bearer the-token"
        ]


# ---------------------------------------------------------------- who is let in


STRANGERS: Final = (
    ((), "key_missing"),
    (("Authorization: Bearer sk-dummy", "X-Api-Key: sk-dummy"), "key_missing"),
    ((f"X-Other: {TEXT}",), "key_missing"),
    ((f"Cookie: key={TEXT}",), "key_missing"),
    ((f"Authorization: Bearer {OTHER}",), "key_refused"),
    ((f"X-Api-Key: {OTHER}",), "key_refused"),
    ((BEARER, f"X-Api-Key: {OTHER}"), "key_refused"),
    ((f"Authorization: Bearer {TEXT[:-1]}",), "key_refused"),
    ((BEARER, f"authorization: Bearer {OTHER}"), "key_refused"),
)


@pytest.mark.threat(14)
@pytest.mark.usefixtures("_either")
async def test_nobody_calls_without_a_key(tmp_path: Path) -> None:
    async with world(tmp_path) as subject:
        for fields, code in STRANGERS:
            for start_line in ("GET /x", "POST /1/x", "DELETE /", "OPTIONS /x"):
                assert await subject.refused(start_line, *fields) == (401, code)
            assert await subject.refused("GET /", *fields, *WEBSOCKET) == (401, code)
        assert await subject.ask("GET /x", BEARER) == 200


async def test_the_answer_says_how(tmp_path: Path) -> None:
    async with world(tmp_path) as subject:
        subject.client.write("GET / HTTP/1.1")
        raw = await subject.client.answer()
        head, _, body = raw.partition(b"\r\n\r\n")
        assert b'\r\nWWW-Authenticate: Bearer realm="bearerd"\r\n' in head + b"\r\n"
        assert b"Proxy-Status: bearerd; error=http_request_denied" in head
        problem = json.loads(body)
        assert problem["title"] == "Client key needed"
        assert "bearerd key create" in problem["detail"]


WAYS: Final = (
    (BEARER,),
    (f"AUTHORIZATION: bearer {TEXT}",),
    (f"X-Api-Key: {TEXT}",),
    (f"x_api_key: {TEXT}",),
    (f"X-Goog-Api-Key: {TEXT}", "Authorization: Bearer sk-dummy"),
    (BASIC,),
    (BEARER, f"X-Api-Key: {TEXT}", f"X-Other: a {TEXT} b", f"Cookie: a=b; k={TEXT}", f"X_Api_Key: {TEXT}"),
    (BEARER, f"Connection: X-Api-Key, {TEXT}", "Proxy-Authorization: Bearer sk"),
)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("use", ["required", "optional"])
async def test_a_key_lets_in_and_goes_no_further(tmp_path: Path, use: str) -> None:
    async with world(tmp_path, use=use, key_fields=("X-Api-Key", "X-Goog-Api-Key")) as subject:
        for fields in WAYS:
            for start_line, body in (("GET /x", b""), ("POST /1/x", b"abc")):
                length = f"Content-Length: {len(body)}"
                assert await subject.ask(start_line, *fields, "X-Kept: 1", length, body=body) == 200
        no_trace(subject.server)
        assert all(b"\r\nX-Kept: 1\r\n" in request for request in subject.server.requests)
        assert len(subject.server.requests) == 2 * len(WAYS)


@pytest.mark.usefixtures("_either")
async def test_where_keys_are_optional_a_dummy_is_none(tmp_path: Path) -> None:
    """It passes as ever where it is not ours to replace. What begins as a key of ours is judged."""
    async with world(tmp_path, use="optional") as subject:
        assert await subject.ask("GET /", "X-Api-Key: sk-dummy", "Authorization: Bearer sk-dummy") == 200
        assert b"\r\nX-Api-Key: sk-dummy\r\n" in subject.server.requests[0]
        assert await subject.ask("GET /", "X-Api-Key: sk-other", BEARER) == 200
        assert b"\r\nX-Api-Key: sk-other\r\n" in subject.server.requests[1]
        assert await subject.refused("GET /", f"X-Api-Key: {OTHER}") == (401, "key_refused")
        no_trace(subject.server)


async def test_where_a_clients_own_credential_may_pass_a_key_is_none(tmp_path: Path) -> None:
    rules = build_field_rules(if_absent=True)
    async with world(tmp_path, fields=rules) as subject:
        assert await subject.ask("GET /", BEARER) == 200
        assert await subject.ask("GET /", BASIC) == 200
        no_trace(subject.server)
        assert await subject.ask("GET /", "Authorization: Bearer mine", f"X-Api-Key: {TEXT}") == 200
        assert b"\r\nAuthorization: Bearer mine\r\n" in subject.server.requests[-1]
        assert TEXT.encode() not in subject.server.requests[-1]


@pytest.mark.usefixtures("_either")
async def test_what_is_sent_again_has_no_key_either(tmp_path: Path) -> None:
    async with world(tmp_path, [serve(NO, HI)], source=FRESH) as subject:
        assert (
            await subject.ask("POST /", BEARER, f"X-Api-Key: {TEXT}", "Content-Length: 3", body=b"abc") == 200
        )
        assert len(subject.server.requests) == 2
        for request in subject.server.requests:
            assert b"bearerd_" not in request
            assert request.endswith(b"\r\n\r\nabc")


@pytest.mark.threat(14)
async def test_a_tunnel_needs_a_key_too_and_does_not_pass_it_on(tmp_path: Path) -> None:
    async with world(tmp_path, [read, send(SWITCH), hang]) as subject:
        assert await subject.refused("GET /", *WEBSOCKET) == (401, "key_missing")
        assert await subject.refused("GET /", *WEBSOCKET, EVIL) == (403, "origin_refused")
        assert await subject.refused("GET /", *WEBSOCKET, EVIL, BASIC) == (403, "origin_refused")
        subject.client.write("GET / HTTP/1.1", *WEBSOCKET, EVIL, BEARER, f"Sec-WebSocket-Protocol: a, {TEXT}")
        assert (await subject.client.head()).startswith(b"HTTP/1.1 101 ")
        no_trace(subject.server)


@pytest.mark.threat(9)
@pytest.mark.usefixtures("_either")
async def test_a_key_in_the_target_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as subject:
        assert await subject.refused(f"GET /x?key={TEXT}", BEARER) == (403, "key_in_target")
        assert await subject.refused(f"GET /{TEXT}/x") == (403, "key_in_target")


# ---------------------------------------------------------------- from one call to the next


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("use", ["required", "optional"])
async def test_a_key_holds_from_the_next_call_on_and_so_does_its_end(tmp_path: Path, use: str) -> None:
    """On one connection, with no restart."""
    async with world(tmp_path, use=use) as subject:
        assert await subject.ask("GET /", BEARER) == 200
        assert await subject.refused("GET /", f"X-Api-Key: {OTHER}") == (401, "key_refused")
        subject.set(ClientKey("other", digest_of(OTHER.encode()), 0))
        assert await subject.ask("GET /", f"X-Api-Key: {OTHER}") == 200
        assert await subject.refused("GET /", BEARER) == (401, "key_refused")
        subject.set()
        assert await subject.refused("GET /", f"X-Api-Key: {OTHER}") == (401, "key_refused")


@pytest.mark.usefixtures("_either")
async def test_a_file_that_cannot_be_used_lets_nobody_in(tmp_path: Path) -> None:
    async with world(tmp_path) as subject:
        assert await subject.ask("GET /", BEARER) == 200
        path = tmp_path / "keys.json"
        path.chmod(0o666)
        assert await subject.refused("GET /", BEARER) == (401, "key_refused")
        path.chmod(0o600)
        assert await subject.ask("GET /", BEARER) == 200
        path.write_text("{")
        assert await subject.refused("GET /", BEARER) == (401, "key_refused")
        path.unlink()
        assert await subject.refused("GET /", BEARER) == (401, "key_refused")
        path.write_text(build_document([LAPTOP]))
        path.chmod(0o600)
        assert await subject.ask("GET /", BEARER) == 200


async def test_a_call_under_way_goes_on_when_its_key_is_revoked(tmp_path: Path) -> None:
    """It was sent on already, and comes to need the handler only then."""
    token = kept.set(True)
    rest = asyncio.Event()
    try:
        async with world(tmp_path, [read, until(rest), send(HI[:-1]), send(HI[-1:]), hang]) as subject:
            subject.client.write("GET / HTTP/1.1", BEARER)
            async with asyncio.timeout(15):
                while not subject.server.requests:  # noqa: ASYNC110  # there is nothing that would tell
                    await asyncio.sleep(0.01)
            assert subject.daemon._front._in_flight == 1
            subject.set()
            subject.client.write("GET /second HTTP/1.1", BEARER)  # the first needs the handler now
            rest.set()
            assert (await subject.client.answer()).endswith(b"hi")
            assert (await subject.client.problem())[1]["code"] == "key_refused"
            assert subject.daemon._front._in_flight == 0
    finally:
        kept.reset(token)


# ---------------------------------------------------------------- what a key is for


@pytest.mark.threat(14)
async def test_a_limited_key_calls_what_it_is_for(tmp_path: Path) -> None:
    limited = ClientKey("ci", LAPTOP.digest, 0, routes=frozenset({"/1"}), methods=frozenset({"GET"}))
    async with world(tmp_path, keys=[limited]) as subject:
        assert await subject.ask("GET /1/x", BEARER) == 200
        assert await subject.refused("GET /x", BEARER) == (403, "key_limited")
        assert await subject.refused("POST /1/x", BEARER) == (403, "key_limited")
        assert await subject.refused("GET /1/x", BEARER, "X-HTTP-Method-Override: PUT") == (
            403,
            "method_override",
        )
        assert await subject.refused("GET /-/status", BEARER) == (403, "key_limited")
        subject.set(ClientKey("ci", LAPTOP.digest, 0, accounts=frozenset({"another"})))
        assert await subject.refused("GET /1/x", BEARER) == (403, "key_limited")
        no_trace(subject.server)


async def test_our_own_pages(tmp_path: Path) -> None:
    async with world(tmp_path) as subject:
        assert await subject.ask("GET /-/livez") == 200
        assert await subject.ask("GET /-/readyz") == 200
        subject.client.write("GET /-/ HTTP/1.1", "Accept: text/html")
        raw = await subject.client.answer()
        assert raw.startswith(b"HTTP/1.1 401 ")
        assert b'WWW-Authenticate: Basic realm="bearerd", charset="UTF-8"' in raw
        assert b"text/html" in raw
        for fields in ([BASIC], [BEARER]):
            assert await subject.ask("GET /-/status", *fields) == 200
        assert await subject.ask("GET /-/callback?code=x&state=y") == 404  # no account logs in here
        assert subject.server.requests == []


# ---------------------------------------------------------------- pages of other origins


@pytest.mark.threat(2)
@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("use", ["required", "optional"])
@pytest.mark.parametrize(
    "page", [(EVIL,), ("Origin: null",), ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors")]
)
async def test_a_page_calls_with_a_key_of_its_own_and_not_with_the_browsers(
    tmp_path: Path, page: tuple[str, ...], use: str
) -> None:
    async with world(tmp_path, use=use) as subject:
        assert await subject.refused("POST /", *page) == (403, "origin_refused")
        assert await subject.refused("POST /", *page, BASIC) == (403, "origin_refused")
        assert await subject.ask("POST /", *page, BEARER) == 200
        subject.client.host = "evil.test"
        assert await subject.refused("POST /", *page, BEARER) == (421, "wrong_authority")
        no_trace(subject.server)


async def test_preflights_of_any_origin_are_answered_where_the_call_needs_a_key(tmp_path: Path) -> None:
    ask = (EVIL, "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: authorization,x-a")
    async with world(tmp_path) as subject:
        subject.client.write("OPTIONS /x HTTP/1.1", *ask, "Sec-Fetch-Site: cross-site")
        raw = await subject.client.head()
        assert raw.startswith(b"HTTP/1.1 204 ")
        fields = dict(re.findall(rb"(?m)^(access-control-[\w-]+): (.*)\r", raw.lower()))
        assert fields == {
            b"access-control-allow-origin": b"http://evil.test",
            b"access-control-expose-headers": b"*",
            b"access-control-allow-methods": b"put",
            b"access-control-allow-headers": b"authorization,x-a",
            b"access-control-max-age": b"600",
        }
        assert subject.server.requests == []
        for shown, status in (([BEARER], 200), ([f"X-Api-Key: {OTHER}"], 401), ([], 403)):
            subject.client.write("PUT /x HTTP/1.1", EVIL, *shown)
            raw = await subject.client.answer()
            assert raw.startswith(b"HTTP/1.1 %d " % status)
            assert b"\r\nAccess-Control-Allow-Origin: http://evil.test\r\n" in raw


async def test_where_keys_are_optional_the_list_of_origins_decides(tmp_path: Path) -> None:
    async with world(tmp_path, use="optional") as subject:
        assert await subject.refused("OPTIONS /x", EVIL, "Access-Control-Request-Method: PUT") == (
            403,
            "origin_refused",
        )
        subject.client.write("PUT /x HTTP/1.1", EVIL, BEARER)
        assert b"Access-Control" not in await subject.client.answer()


# ---------------------------------------------------------------- whole daemons


async def test_without_keys_none_is_looked_for(tmp_path: Path) -> None:
    async with FaultServer([serve(HI)]) as server, running(server.url) as daemon, connected(daemon) as client:
        client.write("GET / HTTP/1.1", f"Authorization: Bearer {OTHER}")
        await client.exactly(HI)
    assert not list(tmp_path.iterdir())


async def test_a_daemon_that_nobody_could_call_does_not_start(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    def build(use: str) -> Daemon:
        listen = Listen(hosts=("127.0.0.1",), port=0)
        return Daemon(
            Configuration(accounts={}, routes=(), listen=listen, keys=Keys(use, str(path)), limits=Limits())
        )

    with pytest.raises(
        ConfigError,
        match=r"^keys: there is no key in .*keys\.json, and each call needs one; .*bearerd key create",
    ):
        await build("required").start()
    path.write_text(build_document([LAPTOP]))
    path.chmod(0o666)
    for use in ("required", "optional"):
        with pytest.raises(ConfigError, match=r"^keys: .*other users can write to it"):
            await build(use).start()
