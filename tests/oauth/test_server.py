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
    CallbackRefused,
    Transaction,
    build_authorization_url,
    build_transaction,
    check_callback,
    parse_callback,
)
from bearerd.core.device import DeviceAuthorization, decide_poll
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.metadata import Metadata
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted, build_token_set
from bearerd.oauth.endpoint import OAuthTokenSource
from bearerd.oauth.exchange import open_session
from bearerd.oauth.server import OAuthServer
from bearerd.ports import Clock
from clocks import FakeClock
from faults import (
    FaultServer,
    Peer,
    Step,
    hang,
    read,
    refused_port,
    repeat,
    reply,
    reset,
    send,
    slices,
)
from oidc_peer import APP_CLIENT, OidcPeer, Pause
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
async def server_of(
    source: OAuthSource, limit_s: float = 5.0, clock: Clock | None = None
) -> AsyncIterator[OAuthServer]:
    server = OAuthServer(source, clock or SystemClock(), open_session(), limit_s=limit_s)
    try:
        yield server
    finally:
        await server.aclose()


@asynccontextmanager
async def logged_in(
    peer: OidcPeer, person: Person, **changes: Any
) -> AsyncIterator[tuple[OAuthServer, Transaction, Callback]]:
    """A person has logged in, and the server's callback waits to be dealt with."""
    async with server_of(replace(SOURCE, issuer=peer.issuer, **changes)) as server:
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
                back = await person.cancel(url, REDIRECT)
                callback = parse_callback(urlsplit(back).query.encode())
            with pytest.raises(
                CallbackRefused,
                match=r"^the server says access_denied: End-User aborted interaction; begin again$",
            ):
                check_callback(callback, MADE, described, 0.0)
            assert (await peer.log()).requests == ()

    async def test_a_lost_reply_is_not_asked_for_again(self) -> None:
        async with OidcPeer() as peer, Person() as person:
            async with logged_in(peer, person) as (server, transaction, callback):
                assert callback.code is not None
                await peer.pause(Pause.LOST)
                outcome = await server.redeem(callback.code, transaction)
            assert isinstance(outcome, Failure)
            assert outcome.kind is FailureKind.OUTCOME_UNKNOWN
            assert outcome.reason == "the token endpoint broke off its answer; begin the login again"
            assert len((await peer.log()).requests) == 1

    async def test_what_a_login_gave_is_refreshed_with_rotation(self) -> None:
        async with OidcPeer() as peer, Person() as person:
            async with logged_in(peer, person) as (server, transaction, callback):
                assert callback.code is not None
                granted = await server.redeem(callback.code, transaction)
                assert isinstance(granted, Granted)
                source, token = OAuthTokenSource(server), build_token_set(granted, None, 0.0)
                spent = set()
                for _ in range(5):
                    assert token.refresh_token is not None
                    spent.add(token.refresh_token.reveal())
                    granted = await source.obtain(token)
                    assert isinstance(granted, Granted)
                    token = build_token_set(granted, token, 0.0)
            log = await peer.log()
            assert await peer.introspect(token.access_token.reveal())
            assert token.subject == "demo-user"
            assert len(spent) == 5
            assert (log.presented_twice, log.grants_revoked) == ((), 0)

    async def test_a_resource_is_named_throughout(self) -> None:
        """RFC 8707: in the authorization request, the code exchange and the refresh, or the audience is another."""
        api = "https://api.test/v1"
        async with OidcPeer() as peer, Person() as person:
            async with logged_in(peer, person, resource=api) as (server, transaction, callback):
                assert callback.code is not None
                granted = await server.redeem(callback.code, transaction)
                assert isinstance(granted, Granted)
                again = await OAuthTokenSource(server).obtain(build_token_set(granted, None, 0.0))
                assert isinstance(again, Granted)
            for each in (granted, again):
                described = await peer.describe(each.access_token.reveal())
                assert (described["active"], described["aud"], described["scope"]) == (True, api, "api:read")

    async def test_an_access_token_alone_can_be_revoked(self) -> None:
        async with OidcPeer() as peer, Person() as person:
            async with logged_in(peer, person) as (server, transaction, callback):
                assert callback.code is not None
                granted = await server.redeem(callback.code, transaction)
                assert isinstance(granted, Granted)
                for _ in range(2):  # what is not known any more is revoked already (RFC 7009 section 2.2)
                    assert await server.revoke(granted.access_token, "access_token") is None
            assert not await peer.introspect(granted.access_token.reveal())

    async def test_metadata_is_read_once_for_all_that_is_asked(self) -> None:
        async with (
            OidcPeer() as peer,
            Person() as person,
            logged_in(peer, person) as (server, transaction, callback),
        ):
            assert callback.code is not None
            described = await server.describe()
            assert isinstance(await server.redeem(callback.code, transaction), Granted)
            assert isinstance(await server.authorize_device(), DeviceAuthorization)
            assert await server.known() is described

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

    async def test_a_device_that_is_refused(self) -> None:
        async with OidcPeer() as peer, Person() as person:
            async with server_of(replace(SOURCE, issuer=peer.issuer)) as server:
                device = await server.authorize_device()
                assert isinstance(device, DeviceAuthorization)
                page = await person.approve_device(device.verification_uri, device.user_code, abort="yes")
                assert "interrupted" in page
                outcome = await server.redeem_device(device)
            assert isinstance(outcome, Failure)
            assert outcome.error == "access_denied"
            assert decide_poll(outcome, device.interval_s) is None

    async def test_a_device_that_is_asked_for_by_its_own_address(self) -> None:
        async with OidcPeer() as peer, Person("demo-user") as person:
            async with server_of(replace(SOURCE, issuer=peer.issuer)) as server:
                device = await server.authorize_device()
                assert isinstance(device, DeviceAuthorization)
                assert device.verification_uri_complete is not None
                await person.approve_device(device.verification_uri_complete)
                first = await server.redeem_device(device)
                assert isinstance(first, Granted)
                again = await server.redeem_device(device)
            assert isinstance(again, Failure)
            assert again.error == "invalid_grant"

    @pytest.mark.waits
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

    async def test_a_reply_that_trickles_in(self) -> None:
        slow = [read, slices(body(b'{"access_token": "a"}'), 1, 0.05)]
        async with FaultServer(slow) as faulty, server_of(at(faulty), limit_s=0.3) as server:
            assert "did not answer in time" in (await redeem(server)).reason

    async def test_an_error_with_status_200(self) -> None:
        """GitHub's way."""
        answer = body(
            b'{"error": "bad_verification_code", "error_description": "It is incorrect or expired."}'
        )
        async with FaultServer([read, send(answer)]) as faulty, server_of(at(faulty)) as server:
            failure = await redeem(server)
        assert (failure.kind, failure.error) == (FailureKind.PERMANENT, "bad_verification_code")
        assert failure.reason == "the token endpoint says bad_verification_code: It is incorrect or expired."

    async def test_a_device_s_polls_as_servers_answer_them(self) -> None:
        answers = [
            body(b'{"error": "authorization_pending"}', "400 Not yet"),
            body(b'{"error": "slow_down", "interval": 10}'),
            body(b"", "503 Busy"),
            body(b'{"error": "access_denied"}', "403 No"),
        ]
        async with FaultServer(*([read, send(answer)] for answer in answers)) as faulty:
            async with server_of(at(faulty)) as server:
                polls = [decide_poll(await redeem_device(server), 5.0) for _ in answers]
            assert faulty.connections == 4
        assert polls == [5.0, 10.0, 10.0, None]

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


REVOKE_TROUBLES: Final[list[tuple[Sequence[Step], str]]] = [
    ([read, hang], "did not answer in time"),
    ([read, reset], "broke off its answer"),
    ([read, send(b"garbage\r\n\r\n")], "broke off its answer"),
    ([read, slices(body(b"{}"), 1, 0.1)], "did not answer in time"),
    ([read, send(body(b"", "503 Busy"))], "answered 503"),
    ([read, send(body(b"<html>", "404 Not Found"))], "answered 404"),
    ([read, send(body(b"", "307 Away"))], "answered 307"),
    ([read, send(body(b'{"error": "invalid_client"}', "401 No"))], "says invalid_client"),
    ([read, send(body(b'{"error": "unsupported_token_type"}', "400 No"))], "says unsupported_token_type"),
    (
        [read, send(body(b'{"error": "server_error", "error_description": "t0ken-canary"}'))],
        "says server_error",
    ),
]


class TestRevoke:
    @pytest.mark.parametrize(("steps", "said"), REVOKE_TROUBLES)
    async def test_every_trouble_is_a_sentence(self, steps: Sequence[Step], said: str) -> None:
        async with FaultServer(list(steps)) as faulty, server_of(at(faulty), limit_s=0.5) as server:
            problem = await server.revoke(Secret("t0ken-canary"), "refresh_token")
        assert problem is not None
        assert problem.startswith("the revocation endpoint ")
        assert problem.endswith(": what the server issued stays good until it expires")
        assert said in problem
        assert "canary" not in problem
        assert problem.isprintable()

    @pytest.mark.parametrize(
        "answer",
        [body(b""), body(b"{}"), body(b"<html>"), body(b"null"), reply(b"", "204 Done", framing=None)],
    )
    async def test_done(self, answer: bytes) -> None:
        """RFC 7009 section 2.2: the status says it."""
        async with FaultServer([read, send(answer)]) as faulty, server_of(at(faulty)) as server:
            assert await server.revoke(Secret("t"), "refresh_token") is None
            assert faulty.connections == 1

    async def test_threat_10_a_redirect_is_not_followed(self) -> None:
        async with FaultServer([read, hang]) as elsewhere:
            answer = reply(b"", "308 Away", f"Location: {elsewhere.url}/revoke")
            async with FaultServer([read, send(answer)]) as faulty, server_of(at(faulty)) as server:
                assert "308" in str(await server.revoke(Secret("t"), "refresh_token"))
            assert elsewhere.connections == 0

    async def test_a_hint_the_server_does_not_know_is_left_out(self) -> None:
        no = body(b'{"error": "unsupported_token_type"}', "400 No")
        async with (
            FaultServer([read, send(no)], [read, send(body(b""))]) as faulty,
            server_of(at(faulty)) as server,
        ):
            assert await server.revoke(Secret("t"), "refresh_token") is None
            forms = [parse_qs(request.partition(b"\r\n\r\n")[2].decode()) for request in faulty.requests]
        assert forms == [
            {"token": ["t"], "token_type_hint": ["refresh_token"], "client_id": ["app-client"]},
            {"token": ["t"], "client_id": ["app-client"]},
        ]

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


def metadata(**changes: str) -> Step:
    """Answer with metadata of the server that was asked, but for `changes`."""

    async def step(peer: Peer) -> None:
        await read(peer)
        host = peer.received.partition(b"Host: ")[2].partition(b"\r\n")[0].decode()
        document = {
            "issuer": f"http://{host}",
            "token_endpoint": f"http://{host}/token",
            "authorization_endpoint": f"http://{host}/authorize",
            "device_authorization_endpoint": f"http://{host}/device",
            "revocation_endpoint": f"http://{host}/revoke",
        }
        await peer.send(body(json.dumps(document | changes).encode()))

    return step


async def revoke(server: OAuthServer) -> str | None:
    return await server.revoke(Secret("t0ken-canary"), "refresh_token")


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

    @pytest.mark.parametrize(
        "name",
        [
            "token_endpoint",
            "authorization_endpoint",
            "device_authorization_endpoint",
            "revocation_endpoint",
            "issuer",
        ],
    )
    @pytest.mark.parametrize("ask", [*ASKING, revoke], ids=lambda ask: str(ask.__name__))
    async def test_threat_6_no_request_leaves_for_hostile_metadata(
        self, ask: Callable[[OAuthServer], Any], name: str
    ) -> None:
        async with FaultServer([read, hang]) as evil:
            hostile = metadata(**{name: f"http://evil@127.0.0.1:{evil.port}/"})
            async with FaultServer([hostile]) as faulty:
                async with server_of(replace(SOURCE, issuer=faulty.url), limit_s=1.0) as server:
                    await ask(server)
                assert len(faulty.requests) == 1
            assert evil.connections == 0

    async def test_it_is_read_again_an_hour_later_when_a_login_begins(self) -> None:
        clock = FakeClock()
        async with (
            FaultServer([metadata()]) as issuer,
            server_of(replace(SOURCE, issuer=issuer.url), clock=clock) as server,
        ):
            first = await server.describe()
            assert isinstance(first, Metadata)
            clock.advance(3600)
            assert await server.describe() is first
            assert len(issuer.requests) == 1
            clock.advance(1)
            assert await server.known() is first
            assert await server.describe() == first
            assert len(issuer.requests) == 2
            assert await server.describe() == first
            assert len(issuer.requests) == 2

    async def test_that_it_failed_is_not_remembered_and_what_was_known_is(self) -> None:
        clock = FakeClock()
        busy = [read, send(body(b"", "503 Busy"))]
        async with (
            FaultServer(busy, busy, [metadata()], busy) as issuer,
            server_of(replace(SOURCE, issuer=issuer.url), clock=clock) as server,
        ):
            assert isinstance(await server.describe(), Failure)
            found = await server.describe()
            assert isinstance(found, Metadata)
            clock.advance(3601)
            assert isinstance(await server.describe(), Failure)
            assert await server.known() is found

    @pytest.mark.parametrize(
        ("steps", "said"),
        [
            ([read, hang], "did not answer in time"),
            ([read, reset], "broke off its answer"),
            ([read, send(b"garbage\r\n\r\n")], "broke off its answer"),
            ([read, send(body(b"<html>sign in</html>"))], "no JSON object"),
            (
                [
                    read,
                    send(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n"),
                    repeat(b"x" * MiB, 100),
                ],
                "no JSON",
            ),
            ([read, send(reply(b"", "302 Away", "Location: http://127.0.0.1:9/"))], "answered 302"),
        ],
        ids=["hang", "reset", "garbage", "HTML", "100 MB", "redirect"],
    )
    @pytest.mark.waits
    async def test_no_trouble_with_metadata_leads_to_a_login(self, steps: Sequence[Step], said: str) -> None:
        async with FaultServer(list(steps)) as faulty:
            async with server_of(replace(SOURCE, issuer=faulty.url), limit_s=0.3) as server:
                described = await server.describe()
                asked = [await ask(server) for ask in ASKING]
            assert isinstance(described, Failure)
            assert said in described.reason
            assert all(said in failure.reason for failure in asked)
            assert {request.split()[0] for request in faulty.requests} == {b"GET"}


class TestRenewed:
    """The same account, by other words of its configuration."""

    async def test_what_was_found_is_still_good_for_a_refresh_and_read_again_by_a_login(self) -> None:
        async with FaultServer([hang]) as server:
            source = replace(SOURCE, issuer=server.url)
            async with server_of(source) as asked:
                found = Metadata(server.url, f"{server.url}/token", revocation_endpoint=f"{server.url}/old")
                asked._metadata = found
                asked.renew(replace(source, revocation_endpoint=f"{server.url}/new"))
                known = await asked.known()
                assert known == replace(found, revocation_endpoint=f"{server.url}/new")
                assert server.connections == 0
                looking = asyncio.create_task(asked.describe())
                await asyncio.sleep(0.2)
                assert server.connections == 1
                looking.cancel()

    async def test_endpoints_of_the_configuration_alone(self) -> None:
        source = replace(SOURCE, token_endpoint="http://127.0.0.1:9/a")
        async with server_of(source) as asked:
            asked.renew(replace(source, revocation_endpoint="http://127.0.0.1:9/r"))
            known = await asked.describe()
            assert isinstance(known, Metadata)
            assert known.revocation_endpoint == "http://127.0.0.1:9/r"
