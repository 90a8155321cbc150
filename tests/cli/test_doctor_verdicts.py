"""What the doctor makes of servers' answers, also of those that cannot be started here: by what they and their users say."""

from dataclasses import replace
from typing import Final

import pytest

from bearerd.core.accounts import ClientAuth, Grant, OAuthSource
from bearerd.core.authorization import Callback
from bearerd.core.configuration import Limits
from bearerd.core.grants import parse_token_reply
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.metadata import Metadata, Offer
from bearerd.core.redaction import Secret
from bearerd.core.targets import DIRECT, Origin
from bearerd.doctor.certificates import judge_certificate
from bearerd.doctor.destinations import Place
from bearerd.doctor.findings import Finding, Level
from bearerd.doctor.surroundings import judge_limits
from bearerd.doctor.verdicts import (
    Answer,
    Clue,
    Elsewhere,
    Landed,
    Refused,
    Silent,
    is_told,
    judge_client,
    judge_discovery,
    judge_redirect,
    judge_scopes,
    judge_skew,
    read_answer,
)

ISSUER: Final = "https://login.example.com"
URI: Final = "http://127.0.0.1:6750/-/callback"
PERSON: Final = OAuthSource(
    Grant.AUTHORIZATION_CODE, "cli", ClientAuth.NONE, issuer=ISSUER, scopes=("openid", "api:read")
)
SERVICE: Final = OAuthSource(
    Grant.CLIENT_CREDENTIALS, "job", ClientAuth.BASIC, Secret("s"), ISSUER, scopes=("api:read",)
)
SERVER: Final = Metadata(ISSUER, f"{ISSUER}/token", f"{ISSUER}/authorize")


def brief(finding: Finding) -> tuple[str, str]:
    return str(finding.level), finding.found


# ---------------------------------------------------------------- discovery


class TestDiscovery:
    @pytest.mark.parametrize(
        "offer",
        [
            Offer(),
            # Entra lists no grants, no PKCE, no public clients, and of the scopes only those of OpenID Connect.
            Offer(client_auth=("client_secret_post", "private_key_jwt"), scopes=("openid", "offline_access")),
            # Google
            Offer(
                ("authorization_code", "refresh_token"),
                ("client_secret_post",),
                ("openid",),
                ("plain", "S256"),
            ),
        ],
        ids=["nothing is listed", "Entra", "Google"],
    )
    def test_a_server_that_does_not_list_all_is_sound(self, offer: Offer) -> None:
        assert judge_discovery(PERSON, replace(SERVER, offer=offer), None).level is Level.OK

    def test_endpoints_by_hand_need_none(self) -> None:
        by_hand = replace(PERSON, issuer=None, token_endpoint=SERVER.token_endpoint)
        finding = judge_discovery(by_hand, SERVER, None)
        assert brief(finding) == ("ok", "none is needed, for the configuration names the endpoints")

    @pytest.mark.parametrize(
        ("source", "server", "level", "found"),
        [
            (PERSON, replace(SERVER, pkce=False), "FAIL", "does not do PKCE with S256"),
            (PERSON, replace(SERVER, authorization_endpoint=None), "FAIL", "no endpoint to log in at"),
            (PERSON, replace(SERVER, offer=Offer(pushed_only=True)), "FAIL", "pushed authorization requests"),
            (
                SERVICE,
                replace(SERVER, offer=Offer(grants=("implicit",))),
                "warn",
                "client_credentials is not",
            ),
            (
                SERVICE,
                replace(SERVER, offer=Offer(client_auth=("none",))),
                "warn",
                "client_secret_basic is not",
            ),
        ],
    )
    def test_what_is_lacking(self, source: OAuthSource, server: Metadata, level: str, found: str) -> None:
        finding = judge_discovery(source, server, None)
        assert str(finding.level) == level
        assert found in finding.found
        assert finding.cure

    def test_one_that_cannot_be_reached(self) -> None:
        finding = judge_discovery(
            PERSON, Failure(FailureKind.TRANSIENT, "the issuer cannot be reached"), None
        )
        assert brief(finding) == ("FAIL", "the issuer cannot be reached")
        assert finding.cure.startswith("see what bearerd doctor says of reach")


# ---------------------------------------------------------------- client


def told(source: OAuthSource, status: int, body: str, *, by_device: bool = False) -> Finding:
    outcome = parse_token_reply(status, body.encode(), 0.0)
    return judge_client(source, status, outcome, by_device=by_device)


def error(word: str, description: str = "") -> str:
    return f'{{"error": "{word}", "error_description": "{description}"}}'


class TestClient:
    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (401, error("invalid_client", "Invalid client or Invalid client credentials")),
            (401, error("unauthorized_client", "Invalid client or Invalid client credentials")),
            (401, error("access_denied", "Unauthorized")),
            (401, error("invalid_client", "AADSTS7000215: Invalid client secret provided.")),
            (400, error("invalid_client")),
            (200, error("incorrect_client_credentials")),
        ],
        ids=["oidc", "Keycloak", "Auth0", "Entra", "older", "GitHub"],
    )
    @pytest.mark.parametrize("source", [PERSON, SERVICE], ids=["person", "service"])
    def test_not_taken(self, source: OAuthSource, status: int, body: str) -> None:
        finding = told(source, status, body)
        assert finding.level is Level.FAIL
        assert "is not taken" in finding.found
        assert finding.cure.startswith("mend client_id")

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (400, error("invalid_grant", "Code not valid")),
            (403, error("invalid_grant", "Invalid authorization code")),
            (200, error("bad_verification_code", "The code passed is incorrect or expired.")),
            (400, error("invalid_grant", "Malformed auth code.")),
        ],
        ids=["Keycloak", "Auth0", "GitHub", "Google"],
    )
    def test_taken_for_it_is_the_code_that_is_refused(self, status: int, body: str) -> None:
        assert brief(told(PERSON, status, body)) == (
            "ok",
            "the token endpoint takes client 'cli' without a secret",
        )

    def test_a_token_is_given(self) -> None:
        finding = told(SERVICE, 200, '{"access_token": "t", "token_type": "Bearer"}')
        assert brief(finding) == ("ok", "the token endpoint takes client 'job' by client_secret_basic")

    @pytest.mark.parametrize(
        "body",
        [
            error("invalid_request", "AADSTS9002313: Invalid request."),
            error("invalid_request", "client_secret is missing."),
        ],
        ids=["Entra", "Google"],
    )
    def test_what_tells_nothing_is_no_fault(self, body: str) -> None:
        finding = told(PERSON, 400, body)
        assert finding.level is Level.NOTE
        assert "cannot be told from outside" in finding.found

    def test_a_real_request_that_is_refused_is_one(self) -> None:
        finding = told(SERVICE, 400, error("invalid_request", "audience is missing"))
        assert (finding.level, finding.cure) == (Level.FAIL, "mend what it names")

    def test_scopes_are_another_matter(self) -> None:
        assert told(SERVICE, 400, error("invalid_scope")).level is Level.OK

    @pytest.mark.parametrize("word", ["unauthorized_client", "unsupported_grant_type"])
    def test_a_grant_that_the_client_may_not_use(self, word: str) -> None:
        finding = told(PERSON, 400, error(word))
        assert finding.level is Level.FAIL
        assert "may not use the grant authorization_code" in finding.found
        other = told(PERSON, 400, error(word), by_device=True)
        assert other.level is Level.WARN
        assert other.cure.endswith("or use: bearerd login --device")
        assert told(replace(PERSON, grant=Grant.REFRESH_TOKEN), 400, error(word)).level is Level.NOTE

    def test_a_server_in_trouble(self) -> None:
        assert brief(told(PERSON, 503, "")) == (
            "warn",
            "it cannot be told now: the token endpoint answered 503",
        )


# ---------------------------------------------------------------- redirect URI


REDIRECTED: Final = [
    # Keycloak, Auth0, Okta, Google, oidc-provider with prompt=none
    (f"{URI}?error=login_required&state=x", True),
    (f"{URI}?error=interaction_required&state=x&iss=y", True),
    (f"{URI}?error=invalid_request&error_description=prompt", False),
    (f"{URI}?code=x&state=y", True),
    (f"{URI}?error=login_required&error=login_required", False),
]


class TestRedirect:
    @pytest.mark.parametrize(("location", "is_settled"), REDIRECTED)
    def test_who_is_sent_back_is_known(self, location: str, *, is_settled: bool) -> None:
        answer = read_answer(302, location, b"", URI)
        assert isinstance(answer, Landed)
        assert is_told(answer) is is_settled

    @pytest.mark.parametrize(
        "location", ["https://login.example.com/login?redirect_uri=" + URI, URI + "/more", "/login", None]
    )
    def test_who_is_sent_elsewhere_is_not(self, location: str | None) -> None:
        assert read_answer(302, location, b"", URI) == Elsewhere()

    @pytest.mark.parametrize(
        ("status", "page", "clue"),
        [
            (400, "<p>Invalid parameter: redirect_uri</p>", Clue.REDIRECT),
            (403, "Callback URL mismatch. The provided redirect_uri is not in the list", Clue.REDIRECT),
            (
                400,
                "The 'redirect_uri' parameter must be a Login redirect URI in the client app settings",
                Clue.REDIRECT,
            ),
            (401, "The redirect URI included is not valid.", Clue.REDIRECT),
            (400, "<pre>error: invalid_redirect_uri</pre> redirect_uri did not match any", Clue.REDIRECT),
            (400, "<p>Client not found.</p>", Clue.CLIENT),
            (403, "Unknown client: abc", Clue.CLIENT),
            (400, "invalid_client", Clue.CLIENT),
            (403, f"Forbidden. You asked for /authorize?client_id=cli&redirect_uri={URI}", None),
            (403, "Forbidden: redirect_uri%3Dhttp, redirect_uri\\u003dhttp, redirect_uri&#x3d;http", None),
        ],
        ids=[
            "Keycloak",
            "Auth0",
            "Okta",
            "GitLab",
            "oidc-provider",
            "Keycloak's",
            "Auth0's",
            "bare",
            "a guard",
            "its",
        ],
    )
    def test_a_page_that_refuses(self, status: int, page: str, clue: Clue | None) -> None:
        assert read_answer(status, None, page.encode(), URI) == Refused(status, clue)

    @pytest.mark.parametrize(
        ("answer", "other", "level", "found"),
        [
            (Landed(Callback(error="login_required")), None, "ok", f"the server takes {URI}"),
            (Landed(Callback(error="invalid_scope")), None, "ok", f"the server takes {URI}"),
            (Landed(None), None, "ok", f"the server takes {URI}"),
            (Refused(400, Clue.REDIRECT), None, "FAIL", f"{URI} is not registered: the server refuses it"),
            (
                Refused(400, Clue.CLIENT),
                None,
                "FAIL",
                "the server does not know client 'cli', or lets nobody log in with it",
            ),
            (Elsewhere(), Refused(400, None), "ok", f"the server takes {URI}, and refuses another"),
            (
                Elsewhere(),
                Elsewhere(),
                "note",
                f"whether {URI} is registered cannot be told from outside: a login tells",
            ),
            (
                Refused(403, None),
                None,
                "note",
                f"whether {URI} is registered cannot be told from outside: a login tells",
            ),
            (Silent("it is away"), None, "warn", "it cannot be told now: it is away"),
            (
                Landed(Callback(error="unauthorized_client", error_description="No")),
                None,
                "FAIL",
                "the server lets nobody log in with this client: the server says unauthorized_client: No",
            ),
            (
                Landed(Callback(error="invalid_target")),
                None,
                "FAIL",
                f"the server takes {URI}, but not the rest: the server says invalid_target",
            ),
            (
                Landed(Callback(error="temporarily_unavailable")),
                None,
                "warn",
                "it cannot be told now: the server says temporarily_unavailable",
            ),
        ],
    )
    def test_what_follows(self, answer: Answer, other: Answer | None, level: str, found: str) -> None:
        finding = judge_redirect(PERSON, URI, answer, other)
        assert brief(finding) == (level, found)
        assert bool(finding.cure) is (level in {"FAIL", "warn"})

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_a_server_in_trouble(self, status: int) -> None:
        assert isinstance(read_answer(status, None, b"redirect_uri", URI), Silent)


# ---------------------------------------------------------------- scopes, clock and the rest


class TestScopes:
    @pytest.mark.parametrize(
        ("scopes", "granted", "level"),
        [
            (("api:read",), None, "ok"),
            (("api:read",), "api:read api:write", "ok"),
            (("repo", "gist"), "repo,gist", "ok"),
            (("openid", "https://graph.microsoft.com/User.Read"), "User.Read", "ok"),
            (("api://x/.default",), "a b", "ok"),
            (("api:read", "api:write"), "api:read", "warn"),
        ],
        ids=["as asked", "more", "GitHub", "Entra", "Entra's default", "less"],
    )
    def test_granted(self, scopes: tuple[str, ...], granted: str | None, level: str) -> None:
        assert str(judge_scopes(replace(SERVICE, scopes=scopes), None, granted, None).level) == level

    def test_not_listed_is_no_fault(self) -> None:
        finding = judge_scopes(SERVICE, ("openid",), None, None)
        assert (finding.level, finding.cure) == (Level.NOTE, "")

    def test_refused(self) -> None:
        finding = judge_scopes(SERVICE, ("openid",), None, "the server says invalid_scope")
        assert brief(finding) == ("FAIL", "the scopes are refused: the server says invalid_scope")
        assert finding.cure.endswith("api:read")

    def test_none(self) -> None:
        assert brief(judge_scopes(replace(SERVICE, scopes=()), (), None, None)) == (
            "ok",
            "none are asked for",
        )


@pytest.mark.parametrize(
    ("off_s", "level"),
    [
        (0, "ok"),
        (59, "ok"),
        (-59, "ok"),
        (63, "warn"),
        (-63, "warn"),
        (302, "FAIL"),
        (-302, "FAIL"),
        (7200, "FAIL"),
    ],
)
def test_skew(off_s: float, level: str) -> None:
    """By a date that is a second or less behind, of an answer that took its time."""
    date = "Thu, 01 Jan 2026 00:00:00 GMT"
    now = 1_767_225_600.9 + off_s
    assert str(judge_skew(date, now - 0.4, now).level) == level
    assert judge_skew(date, now - 5_000, now + 5_000).level is (Level.FAIL if off_s == 7200 else Level.OK)


@pytest.mark.parametrize("date", [None, "", "soon", "Thu, 99 Jan 2026 00:00:00 GMT"])
def test_a_server_without_a_date_is_no_fault(date: str | None) -> None:
    assert judge_skew(date, 0, 0).level is Level.NOTE


def test_open_files() -> None:
    assert judge_limits(Limits(connections=1024), float("inf"), 3).level is Level.OK
    assert judge_limits(Limits(connections=1024), 1024 * 2 + 48, 2).level is Level.OK
    finding = judge_limits(Limits(connections=1024), 1024, 2)
    assert finding.found == "1024 open files are enough for 488 connections, and limits.connections is 1024"
    assert finding.cure == "ulimit -Hn 2096 (LimitNOFILE=2096 in a unit), or set limits.connections to 488"


def test_an_issuer_s_certificate_has_other_cures_than_an_upstream_s() -> None:
    place = Place(Origin("https", "login.example.com", 443), DIRECT, ("accounts", "work"), "issuer")
    assert "set accounts.work.ca_file to" in judge_certificate(place, 20, ()).cure
    assert "mend accounts.work.issuer" in judge_certificate(place, 62, ["other.example.com"]).cure
    assert "X509 error 23" in judge_certificate(place, 23, ()).found
