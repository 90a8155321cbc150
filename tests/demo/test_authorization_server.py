import base64
from collections.abc import AsyncIterator
from itertools import count
from urllib.parse import quote_plus, urlencode

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bearerd.core.redaction import Secret
from bearerd.demo.authorization_server import (
    AuthorizationServer,
    Issued,
    Ledger,
    Lifetimes,
    OAuthError,
    begin_grant,
    drop_expired,
    introspect,
    issue,
    parse_basic,
    parse_form,
    revoke,
    rotate,
)

FORM = "application/x-www-form-urlencoded"
CLIENT_ID = "cli:ent +%é"  # every character that form-urlencoding exists for
CLIENT_SECRET = "pass:word &=%2B ü"
LIFETIMES = Lifetimes(access_s=60, refresh_s=1000)
SCOPES = ("read", "write")
NOW = 1_000_000.0


def entropy(number: int) -> bytes:
    return number.to_bytes(32, "big")


def granted(outcome: Issued | OAuthError) -> Issued:
    assert isinstance(outcome, Issued), outcome
    return outcome


def refused(outcome: Issued | OAuthError) -> str:
    assert isinstance(outcome, OAuthError), outcome
    return outcome.code


def spend(
    ledger: Ledger, token: str, number: int, *, now: float = NOW, scopes: tuple[str, ...] = ()
) -> tuple[Ledger, Issued | OAuthError]:
    return rotate(ledger, token, scopes, now, entropy(number), LIFETIMES)


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b"", {}),
        (b"a=1&b=2", {"a": "1", "b": "2"}),
        (b"a=%2B+%26&b=", {"a": "+ &"}),
        (b"a=\xc3\xa9&c=%C3%A9", {"a": "é", "c": "é"}),
        (b"a", {}),
    ],
)
def test_a_form_is_read_and_empty_parameters_count_as_left_out(body: bytes, form: dict[str, str]) -> None:
    assert parse_form(FORM, body) == form


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"a": 1}'),
        ("application/octet-stream", b"a=1"),
        (FORM, b"\xff\xfe"),
        (FORM, b"a=%FF"),
        (FORM, b"a=1&a=1"),
        (FORM, b"a=1&a=2"),
        (FORM, b"a=1&a="),
        (FORM, b"&".join(b"p%d=1" % number for number in range(100))),
    ],
)
def test_what_is_no_form_or_repeats_a_parameter_is_an_invalid_request(content_type: str, body: bytes) -> None:
    with pytest.raises(OAuthError) as raised:
        parse_form(content_type, body)
    assert raised.value.code == "invalid_request"


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic !!!!",
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        "Basic " + base64.b64encode(b"%FF:x").decode(),
        "Basic é",
        "Bearer " + base64.b64encode(b"a:b").decode(),
    ],
)
def test_unreadable_basic_credentials_are_an_invalid_client(authorization: str) -> None:
    with pytest.raises(OAuthError) as raised:
        parse_basic(authorization)
    assert raised.value.code == "invalid_client"


@pytest.mark.parametrize(
    ("user_and_password", "expected"),
    [
        ("a:b", ("a", "b")),
        ("a:", ("a", "")),
        ("a:b:c", ("a", "b:c")),
        ("a%3Ab+c:%2B%C3%BC", ("a:b c", "+ü")),
    ],
)
@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_basic_credentials_are_form_urlencoded(
    scheme: str, user_and_password: str, expected: tuple[str, str]
) -> None:
    assert parse_basic(f"{scheme} {base64.b64encode(user_and_password.encode()).decode()}") == expected


@pytest.mark.parametrize(("later_s", "active"), [(0, True), (59.9, True), (60, False), (1e9, False)])
def test_an_access_token_is_active_until_the_instant_it_expires(later_s: float, active: bool) -> None:
    ledger, issued = issue(Ledger(), "me", SCOPES, NOW, entropy(1), LIFETIMES)
    known = introspect(ledger, issued.access_token.reveal(), NOW + later_s)
    assert (known is not None) is active


def test_a_spent_refresh_token_kills_its_grant_and_no_other() -> None:
    ledger, first = begin_grant(Ledger(), "me", SCOPES, NOW, entropy(1), LIFETIMES)
    ledger, other = begin_grant(ledger, "me", SCOPES, NOW, entropy(2), LIFETIMES)
    ledger, outcome = spend(ledger, first.reveal(), 3)
    mine = granted(outcome)
    ledger, outcome = spend(ledger, other.reveal(), 4)
    theirs = granted(outcome)
    assert mine.refresh_token is not None
    ledger, outcome = spend(ledger, first.reveal(), 5)
    assert refused(outcome) == "invalid_grant"
    assert introspect(ledger, mine.access_token.reveal(), NOW) is None
    assert refused(spend(ledger, mine.refresh_token.reveal(), 6)[1]) == "invalid_grant"
    assert introspect(ledger, theirs.access_token.reveal(), NOW) is not None


def test_an_expired_refresh_token_is_refused_and_a_rotation_begins_a_new_life() -> None:
    ledger, first = begin_grant(Ledger(), "me", SCOPES, NOW, entropy(1), LIFETIMES)
    assert refused(spend(ledger, first.reveal(), 2, now=NOW + 1000)[1]) == "invalid_grant"
    ledger, outcome = spend(ledger, first.reveal(), 2, now=NOW + 999)
    second = granted(outcome).refresh_token
    assert second is not None
    granted(spend(ledger, second.reveal(), 3, now=NOW + 1998)[1])


def test_a_wider_scope_is_refused_and_spends_nothing() -> None:
    ledger, first = begin_grant(Ledger(), "me", ("read",), NOW, entropy(1), LIFETIMES)
    ledger, outcome = spend(ledger, first.reveal(), 2, scopes=("read", "admin"))
    assert refused(outcome) == "invalid_scope"
    granted(spend(ledger, first.reveal(), 3)[1])


def test_a_narrower_scope_holds_for_one_access_token_only() -> None:
    ledger, first = begin_grant(Ledger(), "me", SCOPES, NOW, entropy(1), LIFETIMES)
    ledger, outcome = spend(ledger, first.reveal(), 2, scopes=("read",))
    narrow = granted(outcome)
    assert narrow.scopes == ("read",)
    assert narrow.refresh_token is not None
    assert granted(spend(ledger, narrow.refresh_token.reveal(), 3)[1]).scopes == SCOPES


@pytest.mark.parametrize("unknown", ["", ".", "x", "x.y", "é"])
def test_revoking_what_nobody_knows_changes_nothing(unknown: str) -> None:
    ledger, _ = begin_grant(Ledger(), "me", SCOPES, NOW, entropy(1), LIFETIMES)
    ledger, _ = issue(ledger, "me", SCOPES, NOW, entropy(2), LIFETIMES)
    assert revoke(ledger, unknown) == ledger


def test_expired_tokens_are_dropped_and_rotation_takes_no_memory() -> None:
    ledger, token = begin_grant(Ledger(), "me", SCOPES, NOW, entropy(0), LIFETIMES)
    for number in range(1, 500):
        ledger, outcome = spend(ledger, token.reveal(), number, now=NOW + number)
        ledger, _ = issue(ledger, "me", SCOPES, NOW + number, entropy(-number % 2**200), LIFETIMES)
        successor = granted(outcome).refresh_token
        assert successor is not None
        token = successor
    assert len(ledger.access_tokens) == 2 * LIFETIMES.access_s
    assert len(ledger.grants) == 1
    assert drop_expired(ledger, NOW + 1e6) == Ledger()


def test_no_token_shows_in_a_representation() -> None:
    ledger, token = begin_grant(Ledger(), "me", SCOPES, NOW, entropy(1), LIFETIMES)
    ledger, outcome = spend(ledger, token.reveal(), 2)
    issued = granted(outcome)
    assert issued.refresh_token is not None
    for text in (token, issued.access_token, issued.refresh_token):
        assert text.reveal() not in repr((ledger, issued))


class Rotation(RuleBasedStateMachine):
    """Every token ever issued, beside the ledger that should know which of them still count."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.ledger = Ledger()
        self.numbers = count()
        self.generations: list[list[str]] = []  # of each grant, its refresh tokens in order
        self.refresh_until: list[float] = []
        self.dead: set[int | None] = set()
        self.access_of: dict[str, int | None] = {}
        self.access_until: dict[str, float] = {}
        self.revoked: set[str] = set()

    def draw_entropy(self) -> bytes:
        return entropy(next(self.numbers))

    def draw_refresh_token(self, data: st.DataObject) -> tuple[int, str]:
        grant = data.draw(st.integers(0, len(self.generations) - 1))
        newest_first = self.generations[grant][::-1]
        return grant, data.draw(st.sampled_from(newest_first))

    def alive(self, grant: int) -> bool:
        return grant not in self.dead and self.now < self.refresh_until[grant]

    def note_access(self, issued: Issued, grant: int | None) -> None:
        text = issued.access_token.reveal()
        self.access_of[text] = grant
        self.access_until[text] = self.now + LIFETIMES.access_s

    def note_rotation(self, issued: Issued, grant: int) -> None:
        assert issued.refresh_token is not None
        self.generations[grant].append(issued.refresh_token.reveal())
        self.refresh_until[grant] = self.now + LIFETIMES.refresh_s
        self.note_access(issued, grant)

    @rule()
    def log_in(self) -> None:
        self.ledger, token = begin_grant(self.ledger, "me", SCOPES, self.now, self.draw_entropy(), LIFETIMES)
        self.generations.append([token.reveal()])
        self.refresh_until.append(self.now + LIFETIMES.refresh_s)

    @rule()
    def issue_to_client(self) -> None:
        self.ledger, issued = issue(self.ledger, "client", SCOPES, self.now, self.draw_entropy(), LIFETIMES)
        self.note_access(issued, None)

    @precondition(lambda self: self.generations)
    @rule(data=st.data())
    def present(self, data: st.DataObject) -> None:
        grant, token = self.draw_refresh_token(data)
        newest, was_alive = token == self.generations[grant][-1], self.alive(grant)
        self.ledger, outcome = rotate(self.ledger, token, (), self.now, self.draw_entropy(), LIFETIMES)
        if was_alive and newest:
            self.note_rotation(granted(outcome), grant)
            return
        assert refused(outcome) == "invalid_grant"
        if was_alive:
            self.dead.add(grant)

    @precondition(lambda self: self.generations)
    @rule(data=st.data())
    def revoke_refresh(self, data: st.DataObject) -> None:
        grant, token = self.draw_refresh_token(data)
        if self.alive(grant):
            self.dead.add(grant)
        self.ledger = revoke(self.ledger, token)

    @precondition(lambda self: self.access_of)
    @rule(data=st.data())
    def revoke_access(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(list(self.access_of)))
        self.ledger = revoke(self.ledger, token)
        self.revoked.add(token)

    @rule(seconds=st.sampled_from([1, 20, 59, 60, 500, 1000]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def an_access_token_is_active_iff_it_should_be(self) -> None:
        for text, grant in self.access_of.items():
            expected = (
                self.now < self.access_until[text] and text not in self.revoked and grant not in self.dead
            )
            assert (introspect(self.ledger, text, self.now) is not None) is expected

    @invariant()
    def only_the_newest_refresh_token_of_a_living_grant_works(self) -> None:
        for grant, tokens in enumerate(self.generations):
            working = [
                token
                for token in tokens
                if isinstance(rotate(self.ledger, token, (), self.now, entropy(2**100), LIFETIMES)[1], Issued)
            ]
            assert working == (tokens[-1:] if self.alive(grant) else [])

    @invariant()
    def no_refresh_token_is_an_access_token(self) -> None:
        for tokens in self.generations:
            assert all(introspect(self.ledger, token, self.now) is None for token in tokens)


Rotation.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRotation = Rotation.TestCase


# ---------------------------------------------------------------- HTTP


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Peer:
    """The server on a real socket, and a client that knows its secret."""

    def __init__(
        self, server: AuthorizationServer, url: str, http: aiohttp.ClientSession, clock: Clock
    ) -> None:
        self.server = server
        self.url = url
        self.http = http
        self.clock = clock
        self.response: aiohttp.ClientResponse

    async def post(
        self,
        path: str,
        body: bytes | dict[str, str],
        *,
        authorization: str | None = None,
        content_type: str = FORM,
    ) -> dict[str, object]:
        data = urlencode(body).encode() if isinstance(body, dict) else body
        headers = {"Content-Type": content_type}
        if authorization is not None:
            headers["Authorization"] = authorization
        async with self.http.post(self.url + path, data=data, headers=headers) as self.response:
            reply = await self.response.json()
        assert isinstance(reply, dict)
        assert self.response.headers["Cache-Control"] == "no-store"
        return reply

    async def send(self, path: str, **form: str) -> dict[str, object]:
        return await self.post(path, form, authorization=BASIC)

    async def active(self, token: object) -> bool:
        return bool((await self.send("/introspect", token=str(token)))["active"])


def basic(client_id: str = CLIENT_ID, client_secret: str = CLIENT_SECRET) -> str:
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


BASIC = basic()
GRANT = {"grant_type": "client_credentials"}


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    clock = Clock()
    server = AuthorizationServer(
        "http://issuer.test", CLIENT_ID, Secret(CLIENT_SECRET), lifetimes=LIFETIMES, clock=clock
    )
    async with TestServer(server.build_application()) as site, aiohttp.ClientSession() as http:
        yield Peer(server, str(site.make_url("")).rstrip("/"), http, clock)


@pytest.mark.parametrize("path", ["/token", "/introspect", "/revoke"])
@pytest.mark.parametrize(
    ("authorization", "in_body"),
    [
        (None, {}),
        (None, {"client_id": CLIENT_ID}),
        (None, {"client_id": CLIENT_ID, "client_secret": "wrong"}),
        (None, {"client_id": "wrong", "client_secret": CLIENT_SECRET}),
        (basic(client_secret="wrong"), {}),
        (basic(client_secret=""), {}),
        (basic(client_id="wrong"), {}),
        (basic(client_secret="wröng"), {}),
        ("Bearer x", {}),
        ("Basic garbage", {}),
    ],
)
async def test_a_client_that_does_not_prove_itself_gets_401(
    peer: Peer, path: str, authorization: str | None, in_body: dict[str, str]
) -> None:
    form = {**GRANT, "token": "x", **in_body}
    reply = await peer.post(path, form, authorization=authorization)
    assert reply["error"] == "invalid_client"
    assert peer.response.status == 401
    assert peer.response.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (b"", FORM, "invalid_request"),
        (b"\xff\x00garbage", FORM, "invalid_request"),
        (b"scope=demo:read", FORM, "invalid_request"),
        (b"grant_type=", FORM, "invalid_request"),
        (b"grant_type=refresh_token", FORM, "invalid_request"),
        (b"grant_type=client_credentials&grant_type=client_credentials", FORM, "invalid_request"),
        (b"grant_type=client_credentials&client_id=a&client_secret=b", FORM, "invalid_request"),
        (b"grant_type=client_credentials", "text/plain", "invalid_request"),
        (b'{"grant_type": "client_credentials"}', "application/json", "invalid_request"),
        (b"grant_type=password", FORM, "unsupported_grant_type"),
        (b"grant_type=client_credentials&scope=admin", FORM, "invalid_scope"),
        (b"grant_type=refresh_token&refresh_token=x", FORM, "invalid_grant"),
        (b"grant_type=refresh_token&refresh_token=%C3%A9.%C3%A9", FORM, "invalid_grant"),
    ],
)
async def test_a_bad_token_request_gets_400(peer: Peer, body: bytes, content_type: str, error: str) -> None:
    reply = await peer.post("/token", body, authorization=BASIC, content_type=content_type)
    assert reply["error"] == error
    assert peer.response.status == 400
    assert "access_token" not in reply
    assert peer.server.token_requests == 1


@pytest.mark.parametrize("path", ["/introspect", "/revoke"])
async def test_a_request_about_no_token_gets_400(peer: Peer, path: str) -> None:
    assert (await peer.send(path))["error"] == "invalid_request"
    assert peer.response.status == 400


async def test_a_huge_body_and_another_method_are_refused(peer: Peer) -> None:
    async with peer.http.post(peer.url + "/token", data=b"x" * (1 << 20)) as response:
        assert response.status == 413
    async with peer.http.get(peer.url + "/token") as response:
        assert response.status == 405


@pytest.mark.parametrize(
    ("authorization", "in_body"),
    [
        (BASIC, {}),
        (BASIC, {"client_id": CLIENT_ID}),
        (None, {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}),
    ],
)
async def test_client_credentials_by_both_ways_of_proving_it(
    peer: Peer, authorization: str | None, in_body: dict[str, str]
) -> None:
    reply = await peer.post("/token", {**GRANT, **in_body}, authorization=authorization)
    token = reply.pop("access_token")
    assert reply == {"token_type": "Bearer", "expires_in": 60, "scope": "demo:read demo:write"}
    assert await peer.active(token)


async def test_introspection_tells_what_the_token_is_until_it_expires(peer: Peer) -> None:
    token = str((await peer.send("/token", **GRANT, scope="demo:read"))["access_token"])
    assert await peer.send("/introspect", token=token) == {
        "active": True,
        "client_id": CLIENT_ID,
        "sub": CLIENT_ID,
        "scope": "demo:read",
        "token_type": "Bearer",
        "iat": 1_000_000,
        "exp": 1_000_060,
        "iss": "http://issuer.test",
    }
    peer.clock.now += 60
    assert await peer.send("/introspect", token=token) == {"active": False}


async def test_rotation_and_a_replay_that_kills_the_grant(peer: Peer) -> None:
    first = peer.server.mint_refresh_token("alice").reveal()
    second = await peer.send("/token", grant_type="refresh_token", refresh_token=first)
    assert (await peer.send("/introspect", token=str(second["access_token"])))["sub"] == "alice"
    third = await peer.send("/token", grant_type="refresh_token", refresh_token=str(second["refresh_token"]))
    assert len({first, second["refresh_token"], third["refresh_token"]}) == 3
    assert await peer.active(second["access_token"])
    replayed = await peer.send("/token", grant_type="refresh_token", refresh_token=first)
    assert replayed["error"] == "invalid_grant"
    assert not await peer.active(second["access_token"])
    assert not await peer.active(third["access_token"])
    newest = await peer.send("/token", grant_type="refresh_token", refresh_token=str(third["refresh_token"]))
    assert newest["error"] == "invalid_grant"
    assert peer.server.token_requests == 4


@pytest.mark.parametrize("name", ["access_token", "refresh_token"])
async def test_revocation_ends_the_access_token_and_answers_alike_the_second_time(
    peer: Peer, name: str
) -> None:
    first = peer.server.mint_refresh_token().reveal()
    pair = await peer.send("/token", grant_type="refresh_token", refresh_token=first)
    for _ in range(2):
        assert await peer.send("/revoke", token=str(pair[name]), token_type_hint="nonsense") == {}
        assert peer.response.status == 200
        assert not await peer.active(pair["access_token"])
    again = await peer.send("/token", grant_type="refresh_token", refresh_token=str(pair["refresh_token"]))
    assert ("error" in again) is (name == "refresh_token")


async def test_revoking_a_spent_refresh_token_ends_the_grant_too(peer: Peer) -> None:
    first = peer.server.mint_refresh_token().reveal()
    pair = await peer.send("/token", grant_type="refresh_token", refresh_token=first)
    await peer.send("/revoke", token=first)
    assert not await peer.active(pair["access_token"])


async def test_metadata_names_the_endpoints_under_the_issuer(peer: Peer) -> None:
    async with peer.http.get(peer.url + "/.well-known/oauth-authorization-server") as response:
        metadata = await response.json()
    methods = ["client_secret_basic", "client_secret_post"]
    assert metadata == {
        "issuer": "http://issuer.test",
        "authorization_endpoint": "http://issuer.test/authorize",
        "token_endpoint": "http://issuer.test/token",
        "introspection_endpoint": "http://issuer.test/introspect",
        "revocation_endpoint": "http://issuer.test/revoke",
        "jwks_uri": "http://issuer.test/.well-known/jwks.json",
        "scopes_supported": ["openid", "demo:read", "demo:write"],
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "id_token_signing_alg_values_supported": ["ES256"],
        "token_endpoint_auth_methods_supported": [*methods, "none"],
        "introspection_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": [*methods, "none"],
    }
