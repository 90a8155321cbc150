"""Logins at a real server, and at servers that fail in every way."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest

from bearerd.assembly import SystemClock
from bearerd.core.accounts import ClientAuth, Grant, OAuthSource
from bearerd.core.authorization import (
    Callback,
    Transaction,
    build_authorization_url,
    build_transaction,
    parse_callback,
)
from bearerd.core.device import DeviceAuthorization
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.metadata import Metadata
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted
from bearerd.oauth.exchange import open_session
from bearerd.oauth.server import OAuthServer
from faults import FaultServer, Step, hang, read, refused_port, repeat, reply, reset, send
from oidc_peer import APP_CLIENT, OidcPeer
from people import Person

REDIRECT: Final = "http://127.0.0.1:6750/-/callback"
CODE: Final = Secret("c0de-canary")
SOURCE: Final = OAuthSource(
    Grant.AUTHORIZATION_CODE,
    "app-client",
    ClientAuth.NONE,
    scopes=("openid", "offline_access", "api:read"),
    authorization_params=(("prompt", "consent"),),
)
MADE: Final = build_transaction(
    "work",
    redirect_uri=REDIRECT,
    binding=Secret("b"),
    return_to="/-/",
    oidc=False,
    entropy=bytes(96),
    now=0.0,
)
DEVICE: Final = DeviceAuthorization(Secret("dev1ce-canary"), "ABCD", "https://login.test/go", None, 2e9, 5.0)


@asynccontextmanager
async def server_of(source: OAuthSource, limit_s: float = 5.0) -> AsyncIterator[OAuthServer]:
    server = OAuthServer(source, SystemClock(), open_session(), limit_s=limit_s)
    try:
        yield server
    finally:
        await server.aclose()


@asynccontextmanager
async def logged_in(
    peer: OidcPeer, person: Person
) -> AsyncIterator[tuple[OAuthServer, Transaction, Callback]]:
    """A person has logged in, and the server's callback waits to be dealt with."""
    async with server_of(replace(SOURCE, issuer=peer.issuer)) as server:
        described = await server.describe()
        assert isinstance(described, Metadata)
        transaction = build_transaction(
            "work",
            redirect_uri=REDIRECT,
            binding=Secret("b"),
            return_to="/-/",
            oidc=True,
            entropy=bytes(range(96)),
            now=0.0,
        )
        url = build_authorization_url(server.source, described, transaction)
        back = await person.log_in(url, REDIRECT)
        yield server, transaction, parse_callback(urlsplit(back).query.encode())


class TestRealServer:
    async def test_a_code_becomes_tokens_and_a_name(self) -> None:
        async with OidcPeer() as peer, Person("demo-user") as person:
            async with logged_in(peer, person) as (server, transaction, callback):
                assert callback.iss == peer.issuer
                assert callback.state == transaction.state
                assert callback.code is not None
                granted = await server.redeem(callback.code, transaction)
            assert isinstance(granted, Granted)
            assert granted.subject == "demo-user"
            assert granted.refresh_token is not None
            assert await peer.introspect(granted.access_token.reveal())

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"verifier": Secret("x" * 43)}, "invalid_grant"),
            ({"redirect_uri": "http://127.0.0.1:6750/-/other"}, "invalid_grant"),
            ({"nonce": "another"}, "answers another login"),
        ],
    )
    async def test_threat_7_what_does_not_belong_to_the_login(
        self, change: dict[str, Any], said: str
    ) -> None:
        async with OidcPeer() as peer, Person() as person:
            async with logged_in(peer, person) as (server, transaction, callback):
                assert callback.code is not None
                outcome = await server.redeem(callback.code, replace(transaction, **change))
            assert isinstance(outcome, Failure)
            assert said in outcome.reason

    async def test_a_code_is_good_once(self) -> None:
        async with OidcPeer() as peer, Person() as person:
            async with logged_in(peer, person) as (server, transaction, callback):
                assert callback.code is not None
                first = await server.redeem(callback.code, transaction)
                again = await server.redeem(callback.code, transaction)
            assert isinstance(first, Granted)
            assert isinstance(again, Failure)
            assert again.error == "invalid_grant"
            assert not await peer.introspect(first.access_token.reveal())

    async def test_a_person_who_says_no(self) -> None:
        async with OidcPeer() as peer, Person() as person:
            async with server_of(replace(SOURCE, issuer=peer.issuer)) as server:
                described = await server.describe()
                assert isinstance(described, Metadata)
                url = build_authorization_url(server.source, described, MADE)
                back = await person.log_in(url + "&prompt=none", REDIRECT)
                callback = parse_callback(urlsplit(back).query.encode())
            assert callback.error is not None
            assert callback.code is None

    async def test_revocation_is_seen_by_everybody(self) -> None:
        async with OidcPeer() as peer, Person() as person:
            async with logged_in(peer, person) as (server, transaction, callback):
                assert callback.code is not None
                granted = await server.redeem(callback.code, transaction)
                assert isinstance(granted, Granted)
                assert granted.refresh_token is not None
                assert await server.revoke(granted.refresh_token, "refresh_token") is None
            assert not await peer.introspect(granted.access_token.reveal())
            after = await peer.refresh(APP_CLIENT, granted.refresh_token.reveal())
            assert (after.status, after.body["error"]) == (400, "invalid_grant")

    async def test_a_device(self) -> None:
        async with OidcPeer() as peer, Person("demo-user") as person:
            async with server_of(replace(SOURCE, issuer=peer.issuer)) as server:
                device = await server.authorize_device()
                assert isinstance(device, DeviceAuthorization)
                early = await server.redeem_device(device)
                assert isinstance(early, Failure)
                assert early.error == "authorization_pending"
                page = await person.approve_device(device.verification_uri, device.user_code)
                assert "Success" in page
                granted = await server.redeem_device(device)
            assert isinstance(granted, Granted)
            assert granted.subject == "demo-user"

    async def test_a_device_code_that_has_expired(self) -> None:
        async with (
            OidcPeer(device_code_s=1) as peer,
            server_of(replace(SOURCE, issuer=peer.issuer)) as server,
        ):
            device = await server.authorize_device()
            assert isinstance(device, DeviceAuthorization)
            await asyncio.sleep(2.1)
            outcome = await server.redeem_device(device)
            assert isinstance(outcome, Failure)
            assert outcome.error == "expired_token"


def at(server: FaultServer) -> OAuthSource:
    """A source whose every endpoint is at a server that fails."""
    return replace(
        SOURCE,
        token_endpoint=f"{server.url}/token",
        device_authorization_endpoint=f"{server.url}/device",
        revocation_endpoint=f"{server.url}/revoke",
    )


async def redeem(server: OAuthServer) -> Failure:
    outcome = await server.redeem(CODE, MADE)
    assert isinstance(outcome, Failure)
    return outcome


async def redeem_device(server: OAuthServer) -> Failure:
    outcome = await server.redeem_device(DEVICE)
    assert isinstance(outcome, Failure)
    return outcome


async def authorize_device(server: OAuthServer) -> Failure:
    outcome = await server.authorize_device()
    assert isinstance(outcome, Failure)
    return outcome


ASKING: Final = [redeem, redeem_device, authorize_device]
MiB: Final = 1 << 20


def body(text: bytes, status: str = "200 OK") -> bytes:
    return reply(text, status, "Content-Type: application/json")


TROUBLES: Final[list[tuple[Sequence[Step], str]]] = [
    ([read, hang], "did not answer in time"),
    ([read, reset], "broke off its answer"),
    ([read, send(b"garbage\r\n\r\n")], "broke off its answer"),
    ([read, send(body(b"<html>sign in</html>"))], ""),
    ([read, send(body(b""))], ""),
    ([read, send(body(b"[1]"))], ""),
    ([read, send(body(b"{" * 100_000))], ""),
    ([read, send(body(b"", "500 Oops"))], "500"),
    ([read, send(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n"), repeat(b"x" * MiB, 100)], ""),
]


class TestTrouble:
    @pytest.mark.parametrize("ask", ASKING, ids=lambda ask: str(ask.__name__))
    @pytest.mark.parametrize(("steps", "said"), TROUBLES)
    async def test_every_trouble_is_a_sentence(
        self, ask: Callable[[OAuthServer], Any], steps: Sequence[Step], said: str
    ) -> None:
        async with FaultServer(list(steps)) as faulty, server_of(at(faulty), limit_s=0.5) as server:
            failure = await ask(server)
            assert faulty.connections == 1
        assert said in failure.reason
        assert failure.error is None
        assert "canary" not in failure.reason

    @pytest.mark.parametrize("ask", ASKING, ids=lambda ask: str(ask.__name__))
    async def test_threat_10_a_redirect_is_not_followed(self, ask: Callable[[OAuthServer], Any]) -> None:
        async with FaultServer([read, hang]) as elsewhere:
            answer = reply(b"", "307 Away", f"Location: {elsewhere.url}/token")
            async with FaultServer([read, send(answer)]) as faulty, server_of(at(faulty)) as server:
                assert "307" in (await ask(server)).reason
            assert elsewhere.connections == 0

    @pytest.mark.parametrize("ask", ASKING, ids=lambda ask: str(ask.__name__))
    async def test_nobody_is_there(self, ask: Callable[[OAuthServer], Any]) -> None:
        nowhere = f"http://127.0.0.1:{refused_port()}/"
        source = replace(SOURCE, token_endpoint=nowhere, device_authorization_endpoint=nowhere)
        async with server_of(source) as server:
            assert "cannot be reached" in (await ask(server)).reason

    async def test_a_peer_that_quotes_the_code_does_not_have_it_shown(self) -> None:
        said = json.dumps(
            {"error": "invalid_grant", "error_description": f"{CODE.reveal()} is not known"}
        ).encode()
        async with (
            FaultServer([read, send(body(said, "400 Bad"))]) as faulty,
            server_of(at(faulty)) as server,
        ):
            failure = await redeem(server)
        assert failure.error == "invalid_grant"
        assert CODE.reveal() not in failure.reason


def id_token(**claims: object) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{middle}.c2ln"


class TestIdToken:
    @pytest.mark.parametrize(
        ("claims", "said"),
        [
            ({"nonce": None}, "answers another login"),
            ({"nonce": "another"}, "answers another login"),
            ({"aud": "another-client"}, "is for another client"),
            ({"iss": "https://another.test"}, "of another issuer"),
            ({"exp": 1}, "has expired"),
        ],
    )
    async def test_threat_7_one_that_is_not_of_this_login(self, claims: dict[str, Any], said: str) -> None:
        good = {
            "iss": "https://login.test",
            "aud": "app-client",
            "exp": 2e9,
            "nonce": "ours",
            "sub": "demo-user",
        }
        document = {"access_token": "a", "token_type": "Bearer", "id_token": id_token(**(good | claims))}
        answer = body(json.dumps(document).encode())
        async with FaultServer([read, send(answer)]) as faulty:
            source = replace(at(faulty), issuer="https://login.test")
            async with server_of(source) as server:
                outcome = await server.redeem(CODE, replace(MADE, nonce="ours"))
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.PERMANENT
        assert said in outcome.reason

    async def test_none_though_it_was_asked_for(self) -> None:
        answer = body(b'{"access_token": "a", "token_type": "Bearer"}')
        async with FaultServer([read, send(answer)]) as faulty, server_of(at(faulty)) as server:
            outcome = await server.redeem(CODE, replace(MADE, nonce="ours"))
        assert isinstance(outcome, Failure)
        assert "gave no ID token" in outcome.reason


class TestRequests:
    async def test_the_code_exchange_as_it_is_sent(self) -> None:
        """RFC 6749 section 4.1.3, RFC 7636 section 4.5, RFC 8707 section 2.2."""
        async with FaultServer([read, reset]) as faulty:
            source = replace(at(faulty), resource="https://api.test/v1")
            async with server_of(source) as server:
                await redeem(server)
            sent = parse_qs(faulty.requests[0].partition(b"\r\n\r\n")[2].decode(), strict_parsing=True)
        assert sent == {
            "grant_type": ["authorization_code"],
            "code": [CODE.reveal()],
            "redirect_uri": [REDIRECT],
            "code_verifier": [MADE.verifier.reveal()],
            "resource": ["https://api.test/v1"],
            "client_id": ["app-client"],
        }

    async def test_a_client_with_a_secret_proves_it_everywhere(self) -> None:
        async with FaultServer([read, reset]) as faulty:
            source = replace(
                at(faulty), client_auth=ClientAuth.BASIC, client_secret=Secret("s"), client_id="app"
            )
            async with server_of(source) as server:
                await redeem(server)
                await redeem_device(server)
                await authorize_device(server)
                await server.revoke(Secret("t"), "refresh_token")
            expected = b"Authorization: Basic " + base64.b64encode(b"app:s")
            assert len(faulty.requests) == 4
            assert all(expected in request for request in faulty.requests)


class TestRevoke:
    async def test_what_keeps_it_from_being_revoked_is_said(self) -> None:
        token = Secret("t0ken-canary")
        async with server_of(replace(SOURCE, token_endpoint="http://127.0.0.1:9/")) as server:
            assert "has no revocation endpoint" in str(await server.revoke(token, "refresh_token"))
        busy = [read, send(body(b"", "503 Busy"))]
        async with FaultServer(busy) as faulty, server_of(at(faulty)) as server:
            assert "answered 503" in str(await server.revoke(token, "refresh_token"))
        async with FaultServer([read, hang]) as faulty, server_of(at(faulty), limit_s=0.2) as server:
            said = str(await server.revoke(token, "refresh_token"))
            assert "did not answer in time" in said
            assert "canary" not in said

    async def test_no_metadata_no_endpoint(self) -> None:
        async with server_of(replace(SOURCE, issuer=f"http://127.0.0.1:{refused_port()}")) as server:
            assert "cannot be reached" in str(await server.revoke(Secret("t"), "refresh_token"))


class TestDescribe:
    async def test_what_the_configuration_names_goes_before_the_metadata(self) -> None:
        async with OidcPeer() as peer:
            source = replace(SOURCE, issuer=peer.issuer, revocation_endpoint="https://other.test/revoke")
            async with server_of(source) as server:
                described = await server.describe()
                assert isinstance(described, Metadata)
                assert described.revocation_endpoint == "https://other.test/revoke"
                assert described.authorization_endpoint == f"{peer.issuer}/auth"
                assert described.device_authorization_endpoint == f"{peer.issuer}/device/auth"
                assert described.iss_required
                assert described.pkce
                assert await server.describe() is described

    @pytest.mark.parametrize(
        "endpoint",
        [
            "file:///etc/passwd",
            "javascript:alert(1)",
            "https://login.test/$(touch x)",
            "https://login.test/`x`",
            "--flag",
            "http://elsewhere.test/authorize",
            "https://user@login.test/",
        ],
    )
    async def test_threat_6_hostile_metadata_leads_nowhere(self, endpoint: str) -> None:
        port = refused_port()
        issuer = f"http://127.0.0.1:{port}"
        document = {"issuer": issuer, "token_endpoint": f"{issuer}/token", "authorization_endpoint": endpoint}
        answer = body(json.dumps(document).encode())
        async with FaultServer([read, send(answer)], port=port) as faulty:
            async with server_of(replace(SOURCE, issuer=issuer)) as server:
                described = await server.describe()
            assert isinstance(described, Failure)
            assert "authorization_endpoint that" in described.reason
            assert [request.split()[0] for request in faulty.requests] == [b"GET"]
