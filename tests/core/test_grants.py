"""Token requests as RFC 6749 has them, and one stated rule for each odd reply."""

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import parse_qsl, unquote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bearerd.core.accounts import ClientAuth, Grant, OAuthSource
from bearerd.core.authorization import build_transaction
from bearerd.core.grants import (
    TokenRequest,
    build_code_request,
    build_device_request,
    build_device_token_request,
    build_revocation_request,
    build_token_request,
    hint_lifetime,
    is_bearer,
    parse_lifetime,
    parse_retry_after,
    parse_token,
    parse_token_reply,
)
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted

NOW = 1_000.0
TRANSIENT, PERMANENT, GRANT_REJECTED = (
    FailureKind.TRANSIENT,
    FailureKind.PERMANENT,
    FailureKind.GRANT_REJECTED,
)
SERVICE = OAuthSource(Grant.CLIENT_CREDENTIALS, "cli", client_secret=Secret("hush"), scopes=("api:read", "b"))
PERSON = replace(SERVICE, grant=Grant.REFRESH_TOKEN)


def fields_of(request: TokenRequest) -> dict[str, str]:
    pairs = parse_qsl(request.body.reveal(), keep_blank_values=True, strict_parsing=True)
    assert len(pairs) == len(dict(pairs)), "a parameter is repeated (RFC 6749 section 3.2)"
    return dict(pairs)


def authorization_of(request: TokenRequest) -> str | None:
    return dict(request.headers).get("Authorization")


def reply(body: object, status: int = 200, retry_after: str | None = None) -> Granted | Failure:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_token_reply(status, raw, NOW, retry_after=retry_after)


def granted(body: object) -> Granted:
    result = reply(body)
    assert isinstance(result, Granted)
    return result


def failed(body: object, status: int = 200, retry_after: str | None = None) -> Failure:
    result = reply(body, status, retry_after)
    assert isinstance(result, Failure)
    return result


def jwt(payload: bytes) -> str:
    parts = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b'{"alg":"none"}', payload))
    return ".".join((*parts, "sig"))


class TestRequest:
    def test_client_credentials(self) -> None:
        request = build_token_request(SERVICE, None)
        assert fields_of(request) == {"grant_type": "client_credentials", "scope": "api:read b"}
        assert dict(request.headers) == {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
            "Authorization": "Basic " + base64.b64encode(b"cli:hush").decode(),
        }

    def test_refresh_sends_the_token_and_no_scope(self) -> None:
        """A scope could only narrow what was granted, or be refused (section 6)."""
        fields = fields_of(build_token_request(PERSON, Secret("r/1+2 3")))
        assert fields == {"grant_type": "refresh_token", "refresh_token": "r/1+2 3"}

    def test_a_refresh_token_is_never_sent_with_client_credentials(self) -> None:
        assert "refresh_token" not in fields_of(build_token_request(SERVICE, Secret("r")))

    def test_no_refresh_token_is_made_up(self) -> None:
        assert fields_of(build_token_request(PERSON, None)) == {"grant_type": "refresh_token"}

    def test_no_scope_where_none_is_configured(self) -> None:
        assert "scope" not in fields_of(build_token_request(replace(SERVICE, scopes=()), None))

    @pytest.mark.parametrize("source", [SERVICE, PERSON], ids=["client credentials", "refresh"])
    def test_audience_and_resource_go_with_every_grant(self, source: OAuthSource) -> None:
        """RFC 8707 section 2.2: the resource is named in refreshes too."""
        source = replace(source, audience="https://a.test/?x=1&y", resource="https://r.test/ü")
        fields = fields_of(build_token_request(source, Secret("r")))
        assert fields["audience"] == "https://a.test/?x=1&y"
        assert fields["resource"] == "https://r.test/ü"

    def test_client_secret_post(self) -> None:
        request = build_token_request(replace(SERVICE, client_auth=ClientAuth.POST), None)
        assert authorization_of(request) is None
        assert fields_of(request) == {
            "grant_type": "client_credentials",
            "scope": "api:read b",
            "client_id": "cli",
            "client_secret": "hush",
        }

    def test_a_public_client_names_itself_and_sends_no_secret(self) -> None:
        source = replace(PERSON, client_auth=ClientAuth.NONE)
        request = build_token_request(source, Secret("r"))
        assert authorization_of(request) is None
        assert fields_of(request) == {
            "grant_type": "refresh_token",
            "refresh_token": "r",
            "client_id": "cli",
        }

    @pytest.mark.parametrize(
        ("client_id", "secret", "userinfo"),
        [
            ("a:b", "c:d", b"a%3Ab:c%3Ad"),
            ("a+b", "c d", b"a%2Bb:c+d"),
            ("100%", "%41", b"100%25:%2541"),
            ("é", "ü€", b"%C3%A9:%C3%BC%E2%82%AC"),
            ("cli", "", b"cli:"),
        ],
        ids=["colon", "plus and space", "percent", "non-ASCII", "no secret"],
    )
    def test_basic_is_form_encoded_first(self, client_id: str, secret: str, userinfo: bytes) -> None:
        """Section 2.3.1, which a plain RFC 7617 client gets wrong."""
        source = replace(SERVICE, client_id=client_id, client_secret=Secret(secret) if secret else None)
        header = authorization_of(build_token_request(source, None))
        assert header == "Basic " + base64.b64encode(userinfo).decode()

    @given(st.text(max_size=20), st.text(max_size=20))
    @settings(max_examples=60, deadline=None)
    def test_basic_is_what_a_server_decodes(self, client_id: str, secret: str) -> None:
        source = replace(SERVICE, client_id=client_id, client_secret=Secret(secret))
        scheme, _, encoded = (authorization_of(build_token_request(source, None)) or "").partition(" ")
        name, _, password = base64.b64decode(encoded, validate=True).decode("ascii").partition(":")
        assert (scheme, unquote_plus(name), unquote_plus(password)) == ("Basic", client_id, secret)

    def test_the_body_does_not_show_itself(self) -> None:
        request = build_token_request(replace(PERSON, client_auth=ClientAuth.POST), Secret("canary-r"))
        for shown in (repr(request), str(request), f"{request}", f"{request.body}"):
            assert "canary-r" not in shown
            assert "hush" not in shown


LOGIN = OAuthSource(
    Grant.AUTHORIZATION_CODE,
    "app",
    ClientAuth.NONE,
    scopes=("openid", "api:read"),
    audience="urn:a",
    resource="https://r.test/",
)
MADE = build_transaction(
    "work",
    redirect_uri="http://127.0.0.1:6750/-/callback",
    binding=Secret("b"),
    return_to="/-/",
    oidc=True,
    entropy=bytes(range(96)),
    now=NOW,
)


def login_requests(source: OAuthSource) -> dict[str, TokenRequest]:
    """Every request that a login, its refreshes and its end are made of."""
    return {
        "code": build_code_request(source, Secret("c/1"), MADE),
        "device": build_device_request(source),
        "device token": build_device_token_request(source, Secret("d/1")),
        "refresh": build_token_request(source, Secret("r/1")),
        "revocation": build_revocation_request(source, Secret("t/1"), "refresh_token"),
    }


class TestLoginRequests:
    def test_what_each_asks(self) -> None:
        asked = {name: fields_of(request) for name, request in login_requests(LOGIN).items()}
        assert asked == {
            "code": {
                "grant_type": "authorization_code",
                "code": "c/1",
                "redirect_uri": "http://127.0.0.1:6750/-/callback",
                "code_verifier": MADE.verifier.reveal(),
                "resource": "https://r.test/",
                "client_id": "app",
            },
            "device": {
                "client_id": "app",
                "scope": "openid api:read",
                "audience": "urn:a",
                "resource": "https://r.test/",
            },
            "device token": {
                "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
                "device_code": "d/1",
                "client_id": "app",
                "resource": "https://r.test/",
            },
            "refresh": {
                "grant_type": "refresh_token",
                "refresh_token": "r/1",
                "audience": "urn:a",
                "resource": "https://r.test/",
                "client_id": "app",
            },
            "revocation": {"token": "t/1", "token_type_hint": "refresh_token", "client_id": "app"},
        }

    def test_a_hint_is_only_a_hint(self) -> None:
        """RFC 7009 section 2.1: the server may be without it."""
        fields = fields_of(build_revocation_request(LOGIN, Secret("t"), None))
        assert fields == {"token": "t", "client_id": "app"}

    @pytest.mark.parametrize("name", login_requests(LOGIN))
    def test_one_rule_of_authentication_for_all(self, name: str) -> None:
        """RFC 6749 section 2.3.1, RFC 8628 section 3.1, RFC 7009 section 2.1."""
        secret = replace(LOGIN, client_secret=Secret("hush"))
        basic = login_requests(replace(secret, client_auth=ClientAuth.BASIC))[name]
        assert authorization_of(basic) == "Basic " + base64.b64encode(b"app:hush").decode()
        assert "client_secret" not in fields_of(basic)
        post = login_requests(replace(secret, client_auth=ClientAuth.POST))[name]
        assert authorization_of(post) is None
        assert (fields_of(post)["client_id"], fields_of(post)["client_secret"]) == ("app", "hush")
        public = login_requests(LOGIN)[name]
        assert authorization_of(public) is None
        assert fields_of(public)["client_id"] == "app"
        assert "client_secret" not in fields_of(public)

    @pytest.mark.parametrize("name", login_requests(LOGIN))
    def test_what_is_common_to_all(self, name: str) -> None:
        request = login_requests(LOGIN)[name]
        assert dict(request.headers) == {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        assert "hush" not in repr(request)
        for secret in ("c/1", "d/1", "r/1", "t/1", "c%2F1", MADE.verifier.reveal()):
            assert secret not in repr(request)


class TestGranted:
    def test_everything_is_read(self) -> None:
        result = granted(
            {
                "access_token": "abc",
                "token_type": "Bearer",
                "expires_in": 60,
                "refresh_token": "def",
                "scope": "a b",
            }
        )
        assert result == Granted(Secret("abc"), 60.0, Secret("def"), "a b")

    @pytest.mark.parametrize(
        ("expires_in", "lifetime_s"),
        [
            ("3600", 3600.0),
            ("0.5", 0.5),
            ('"3600"', 3600.0),
            ("null", None),
            ("0", None),
            ("-1", None),
            ("1e300", 1e300),  # `build_token_set` clamps it
            ("1e400", None),
            ("NaN", None),
            ("-Infinity", None),
            ('"inf"', None),
            ('"nan"', None),
            ("true", None),
            ("[]", None),
            ("{}", None),
            ('"abc"', None),
            ('""', None),
            (f'"{"9" * 5000}"', None),
            ("9" * 400, None),
        ],
    )
    def test_a_lifetime_that_is_no_positive_finite_number_is_none(
        self, expires_in: str, lifetime_s: float | None
    ) -> None:
        body = '{"access_token": "abc", "expires_in": %s}' % expires_in  # noqa: UP031  # the text is full of braces
        assert granted(body.encode()).expires_in_s == lifetime_s

    @pytest.mark.parametrize(
        ("payload", "expires_in", "lifetime_s"),
        [
            (b'{"exp": 1060}', None, 60.0),
            (b'{"exp": 1060}', 30, 30.0),
            (b'{"exp": 1060}', -1, 60.0),
            (b'{"exp": 1060 }', None, 60.0),
            (b'{"exp": 1060  }', None, 60.0),
            (b'{"exp": 1060, "iss": "\xc3\xbf\xc3\xbe?>"}', None, 60.0),
            (b'{"exp": 900}', None, None),
            (b'{"exp": "soon"}', None, None),
            (b"{}", None, None),
            (b"[1060]", None, None),
            (b"\xff\xfe", None, None),
        ],
    )
    def test_the_exp_of_a_jwt_stands_in_for_a_missing_lifetime(
        self, payload: bytes, expires_in: int | None, lifetime_s: float | None
    ) -> None:
        assert granted({"access_token": jwt(payload), "expires_in": expires_in}).expires_in_s == lifetime_s

    @pytest.mark.parametrize("token_type", ["Bearer", "bearer", "BEARER", None])
    def test_bearer_in_any_case_or_left_out(self, token_type: str | None) -> None:
        body = {"access_token": "abc"} | ({"token_type": token_type} if token_type else {})
        assert granted(body).access_token == Secret("abc")

    @pytest.mark.parametrize("value", [None, "", False])
    def test_a_refresh_token_that_is_none_leaves_the_old_one(self, value: object) -> None:
        assert granted({"access_token": "abc", "refresh_token": value}).refresh_token is None

    def test_a_refresh_token_may_have_spaces_and_any_length(self) -> None:
        """Appendix A.17: it never stands in a header."""
        text = "r " * 40_000 + "r"
        assert granted({"access_token": "abc", "refresh_token": text}).refresh_token == Secret(text)

    @pytest.mark.parametrize("scope", [5, "", ["a"], "a\x1b[2Jb", "a\nb", 'a"b', "a\\b", "é", " a", "a  b"])
    def test_a_scope_outside_the_grammar_is_as_good_as_none(self, scope: object) -> None:
        """It is shown to people: no control sequence of a peer's may reach a terminal."""
        assert granted({"access_token": "abc", "scope": scope}).scope is None

    @pytest.mark.parametrize("error", [None, "", False])
    def test_an_error_that_is_none_is_no_error(self, error: object) -> None:
        assert granted({"access_token": "abc", "error": error}).access_token == Secret("abc")

    def test_the_longest_token_that_is_taken(self) -> None:
        assert granted({"access_token": "a" * 32_768}).access_token == Secret("a" * 32_768)


NO_OBJECT = "the token endpoint's reply is no JSON object"
NO_TOKEN = "the token endpoint's reply has no usable access_token"
NO_REFRESH = "the token endpoint's reply has an unusable refresh_token"
NOT_BEARER = "the token endpoint issued a token that is not of type Bearer"


class TestMalformed:
    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (b"<!doctype html><title>Sign in</title>", NO_OBJECT),
            (b"", NO_OBJECT),
            (b'{"access_token": "ab', NO_OBJECT),
            (b'["access_token"]', NO_OBJECT),
            (b'"access_token"', NO_OBJECT),
            (b"null", NO_OBJECT),
            (b"\xff\xfe\x00", NO_OBJECT),
            (b"access_token=abc&token_type=bearer", NO_OBJECT),
            (b"[" * 200_000, NO_OBJECT),
            (b'{"access_token": "abc", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", NO_OBJECT),
            (b'{"access_token": "abc", "expires_in": ' + b"9" * 5000 + b"}", NO_OBJECT),
            (b"{}", NO_TOKEN),
            (b'{"access_token": null}', NO_TOKEN),
            (b'{"access_token": 5}', NO_TOKEN),
            (b'{"access_token": ["abc"]}', NO_TOKEN),
            (b'{"access_token": ""}', NO_TOKEN),
            (b'{"access_token": "a b"}', NO_TOKEN),
            (b'{"access_token": "abc\\r\\nX-Evil: 1"}', NO_TOKEN),
            (b'{"access_token": "abc\\n"}', NO_TOKEN),
            (b'{"access_token": "abc\\u0000"}', NO_TOKEN),
            (b'{"access_token": "abc\\u007f"}', NO_TOKEN),
            (b'{"access_token": "\xc3\xa9"}', NO_TOKEN),
            (b'{"access_token": "a\\ud800"}', NO_TOKEN),
            (b'{"access_token": "' + b"a" * 32_769 + b'"}', NO_TOKEN),
            (b'{"access_token": "' + b"a" * 40_960 + b'"}', NO_TOKEN),
            (b'{"access_token": "abc", "refresh_token": "r\\r\\n"}', NO_REFRESH),
            (b'{"access_token": "abc", "refresh_token": "r\\n"}', NO_REFRESH),
            (b'{"access_token": "abc", "refresh_token": "\xc3\xa9"}', NO_REFRESH),
            (b'{"access_token": "abc", "refresh_token": 7}', NO_REFRESH),
            (b'{"access_token": "abc", "refresh_token": ["r"]}', NO_REFRESH),
        ],
        ids=lambda value: repr(value[:48]) if isinstance(value, bytes) else "",
    )
    def test_what_cannot_be_used_is_transient(self, body: bytes, reason: str) -> None:
        """The old token stays, and another attempt follows."""
        assert failed(body) == Failure(TRANSIENT, reason)

    @pytest.mark.parametrize("token_type", ["DPoP", "mac", "N_A", "", "Bearer ", 5, True, ["Bearer"], {}])
    def test_a_token_of_another_type_is_never_sent_as_bearer(self, token_type: object) -> None:
        assert not is_bearer(token_type)
        assert failed({"access_token": "abc", "token_type": token_type}) == Failure(PERMANENT, NOT_BEARER)


class TestRefused:
    @pytest.mark.parametrize(
        ("status", "error", "kind"),
        [
            (400, "invalid_grant", GRANT_REJECTED),
            (200, "invalid_grant", GRANT_REJECTED),
            (401, "invalid_client", PERMANENT),
            (400, "unauthorized_client", PERMANENT),
            (400, "invalid_scope", PERMANENT),
            (400, "invalid_request", PERMANENT),
            (400, "unsupported_grant_type", PERMANENT),
            (200, "incorrect_client_credentials", PERMANENT),  # how GitHub says it
            (
                400,
                "INVALID_GRANT",
                PERMANENT,
            ),  # codes are compared exactly: a login is not ended by guesswork
            (400, "temporarily_unavailable", TRANSIENT),
            (400, "server_error", TRANSIENT),
            (400, "slow_down", TRANSIENT),
            (408, "invalid_client", TRANSIENT),
            (429, "rate_limited", TRANSIENT),
            (500, "invalid_client", TRANSIENT),
            (503, "anything", TRANSIENT),
        ],
    )
    def test_error_codes(self, status: int, error: str, kind: FailureKind) -> None:
        """An `error` is an error whatever the status, also beside a token."""
        result = failed({"error": error, "access_token": "abc"}, status)
        assert result == Failure(kind, f"the token endpoint says {error}", None, error)

    @pytest.mark.parametrize(
        "status", [201, 204, 301, 302, 307, 400, 401, 403, 404, 408, 413, 429, 500, 502, 503, 504]
    )
    @pytest.mark.parametrize(
        "body",
        [b"<html>nginx</html>", b"", b"{}", b'{"access_token": "abc"}'],
        ids=["HTML", "empty", "object", "a token"],
    )
    def test_any_status_but_200_without_a_code_is_transient(self, status: int, body: bytes) -> None:
        assert failed(body, status) == Failure(TRANSIENT, f"the token endpoint answered {status}")

    @pytest.mark.parametrize("error", [5, True, {"code": 401}, ["invalid_grant"]])
    @pytest.mark.parametrize("status", [200, 400])
    def test_an_error_that_is_no_text_is_an_error_still(self, status: int, error: object) -> None:
        result = failed({"error": error, "access_token": "abc"}, status)
        assert result == Failure(TRANSIENT, "the token endpoint's reply has an error that is no text")

    @pytest.mark.parametrize("status", [408, 429, 500, 503])
    @pytest.mark.parametrize(
        ("retry_after", "asked"), [("7", 7.0), ("Thu, 01 Jan 1970 00:17:00 GMT", 20.0), ("later", None)]
    )
    def test_retry_after_comes_along(self, status: int, retry_after: str, asked: float | None) -> None:
        assert failed(b"", status, retry_after).retry_after_s == asked
        assert failed({"error": "slow_down"}, status, retry_after).retry_after_s == asked

    @pytest.mark.parametrize("status", [200, 400])
    def test_a_provider_s_own_word_for_a_login_that_is_over(self, status: int) -> None:
        """GitHub says bad_refresh_token, and says it with status 200."""
        body = b'{"error": "bad_refresh_token", "error_description": "Gone."}'
        ours = parse_token_reply(status, body, NOW, ended=("expired_login", "bad_refresh_token"))
        assert ours == Failure(
            GRANT_REJECTED, "the token endpoint says bad_refresh_token: Gone.", None, "bad_refresh_token"
        )
        assert failed(body, status).kind is PERMANENT
        still = parse_token_reply(status, b'{"error": "invalid_grant"}', NOW, ended=("bad_refresh_token",))
        assert isinstance(still, Failure)
        assert still.kind is GRANT_REJECTED

    def test_the_error_comes_along_as_it_was_sent(self) -> None:
        assert failed({"error": "authorization_pending"}, 400).error == "authorization_pending"
        assert failed({"error": "x" * 500}, 400).error == "x" * 64
        assert failed(b"", 400).error is None

    def test_a_description_is_quoted(self) -> None:
        result = failed({"error": "invalid_scope", "error_description": "No such scope: b"}, 400)
        assert result.reason == "the token endpoint says invalid_scope: No such scope: b"

    @pytest.mark.parametrize("description", ["", None, 5, ["x"]])
    def test_a_description_that_is_no_text_is_left_out(self, description: object) -> None:
        result = failed({"error": "invalid_scope", "error_description": description}, 400)
        assert result.reason == "the token endpoint says invalid_scope"

    def test_hostile_texts_are_cleaned_and_cut(self) -> None:
        dirty = 'a\x1b[31m"\\\r\n\x00é\u202e'
        result = failed({"error": dirty + "x" * 10_000, "error_description": dirty + "y" * 900_000}, 400)
        code, _, description = result.reason.removeprefix("the token endpoint says ").partition(": ")
        assert code == "a?[31m???????" + "x" * 51
        assert description == "a?[31m???????" + "y" * 187

    def test_credentials_in_a_peers_text_are_masked(self) -> None:
        """Servers have been seen to quote what they were sent."""
        body = {
            "error": "refresh_token=canary-1",
            "error_description": "bad Bearer canary-2 \"secret\": 'canary-3'",
        }
        assert "canary" not in failed(body, 400).reason


class TestLifetime:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            (1, 1.0),
            (0.5, 0.5),
            ("60", 60.0),
            (0, None),
            (-1, None),
            (True, None),
            (None, None),
            (b"60", None),
        ],
    )
    def test_numbers_and_numeric_texts(self, value: object, seconds: float | None) -> None:
        assert parse_lifetime(value) == seconds

    @pytest.mark.parametrize("token", ["opaque", "a.b", "a.b.c.d", "a.!.c", "a..c", "a.x.c", "a.é.c"])
    def test_no_jwt_no_hint(self, token: str) -> None:
        assert hint_lifetime(Secret(token), NOW) is None

    def test_a_jwt_that_has_expired_says_so(self) -> None:
        assert hint_lifetime(Secret(jwt(b'{"exp": 900}')), NOW) == -100.0


class TestToken:
    @pytest.mark.parametrize("text", ["a", "~+/=|:,;\"'", "a" * 32_768])
    def test_visible_ascii(self, text: str) -> None:
        assert parse_token(text) == Secret(text)

    @given(st.text(max_size=8))
    @settings(max_examples=100, deadline=None)
    def test_a_token_never_breaks_a_header(self, text: str) -> None:
        token = parse_token(text)
        assert (token is not None) == (text != "" and all(0x21 <= ord(char) <= 0x7E for char in text))


class TestRetryAfter:
    @pytest.fixture(autouse=True)
    def far_from_greenwich(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("TZ", "XXX+5")
        if hasattr(time, "tzset"):
            time.tzset()
        yield
        monkeypatch.undo()
        if hasattr(time, "tzset"):
            time.tzset()

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            (None, None),
            ("0", 0.0),
            ("120", 120.0),
            (" 120 ", 120.0),
            ("9" * 5000, 999_999_999.0),
            ("Thu, 01 Jan 1970 00:20:00 GMT", 200.0),
            ("Thursday, 01-Jan-70 00:20:00 GMT", 200.0),
            ("Thu Jan  1 00:20:00 1970", 200.0),  # asctime, which names no zone and means GMT
            ("Thu, 01 Jan 1970 01:20:00 +0100", 200.0),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),  # past
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("²", None),
            ("١٢", None),
            ("Thu, 01 Jan 1970 00:20:00 +99999999", None),
            ("Thu, 99 Jan 1970 00:20:00 GMT", None),
        ],
    )
    def test_seconds_or_a_date(self, value: str | None, seconds: float | None) -> None:
        assert parse_retry_after(value, NOW) == seconds


def test_a_peer_that_quotes_our_secrets_is_not_quoted() -> None:
    """Even where the quotation crosses the limit of what is shown."""
    sent = (Secret("our client pass"), Secret("our r3fresh thing"), None)
    for lead in ("", "x" * 190):
        text = f"{lead} no such our r3fresh thing for our client pass"
        body = json.dumps({"error": "invalid_grant", "error_description": text}).encode()
        failure = parse_token_reply(400, body, 0.0, sent=sent)
        assert isinstance(failure, Failure)
        for part in ("r3fresh", "pass", "our r"):
            assert part not in failure.reason


@pytest.mark.parametrize("value", ["1_0", " 7", "+7", "7e3", "\N{ARABIC-INDIC DIGIT SEVEN}"])
def test_a_lifetime_in_words_of_its_own_is_as_good_as_none(value: str) -> None:
    assert parse_lifetime(value) is None
