"""What programs print and files hold: bare tokens, JSON of several dialects, and what is neither."""

import base64
import json

import pytest

from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.outputs import parse_output
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted

NOW = 1_700_000_000.0
NO_TOKEN = "the file holds no token: one line, or JSON with access_token"


def parse(text: object) -> Granted | Failure:
    raw = text if isinstance(text, bytes) else json.dumps(text).encode()
    return parse_output(raw, NOW, origin="the file")


def jwt(payload: object) -> str:
    raw = base64.urlsafe_b64encode(json.dumps(payload).encode()).rstrip(b"=").decode()
    return f"eyJhbGciOiJub25lIn0.{raw}.sig"


@pytest.mark.parametrize(
    "text",
    [b"abc", b"abc\n", b"abc\r\n", b"\n  abc \t\n\n", b"1|abc=="],
    ids=["bare", "newline", "CRLF", "blank lines", "odd characters"],
)
def test_a_bare_token(text: bytes) -> None:
    assert parse(text) == Granted(Secret(text.strip().decode()))


@pytest.mark.parametrize(
    ("document", "lifetime_s"),
    [
        ({"access_token": "abc"}, None),
        ({"access_token": "abc", "token_type": "Bearer", "expires_in": 60}, 60.0),
        ({"access_token": "abc", "expires_in": "60"}, 60.0),
        ({"access_token": "abc", "expires_in": 60, "expires_at": NOW + 5}, 60.0),
        ({"access_token": "abc", "expires_in": -1, "expires_at": NOW + 5}, 5.0),
        ({"accessToken": "abc", "expiresOn": "2023-11-14T22:14:20Z"}, 60.0),
        ({"accessToken": "abc", "expiresOn": "2023-11-15 06:14:20", "expires_on": NOW + 60}, 60.0),
        ({"token": "abc", "expires_at": NOW + 60}, 60.0),
        ({"token": "abc", "expires_at": NOW + 0.5}, 0.5),
        ({"token": "abc", "expires_at": str(int(NOW) + 60)}, 60.0),
        ({"token": "abc", "expiry": "2023-11-15T00:14:20+02:00"}, 60.0),
        ({"token": "abc", "expiration": "2023-11-14T22:14:20.5Z"}, 60.5),
        ({"token": "abc", "expires_at": "2023-11-14T22:14:20"}, None),
        ({"token": "abc", "expires_at": "tomorrow"}, None),
        ({"token": "abc", "expires_at": []}, None),
        ({"token": "abc", "expires_at": True}, None),
        ({"token": "abc", "expiry": "0001-01-01T00:00:00Z"}, None),
        ({"id_token": "abc"}, None),
        ({"access_token": "abc", "id_token": "def"}, None),
        ({"access_token": "", "token": "abc"}, None),
        ({"status": "ok", "token": "abc"}, None),
        (
            {
                "apiVersion": "client.authentication.k8s.io/v1",
                "kind": "ExecCredential",
                "status": {"token": "abc", "expirationTimestamp": "2023-11-14T22:14:20Z"},
            },
            60.0,
        ),
    ],
    ids=[
        "OAuth, no lifetime",
        "OAuth reply",
        "lifetime as text",
        "expires_in before an instant",
        "useless expires_in, an instant",
        "camel case",
        "Azure CLI",
        "epoch",
        "epoch, not yet expired",
        "epoch as text",
        "RFC 3339 with an offset",
        "RFC 3339 with a fraction",
        "naive time ignored",
        "no time ignored",
        "list ignored",
        "boolean ignored",
        "Go's zero time is none",
        "id_token alone",
        "access_token before id_token",
        "empty access_token passed over",
        "status that is no object",
        "ExecCredential",
    ],
)
def test_json(document: object, lifetime_s: float | None) -> None:
    assert parse(document) == Granted(Secret("abc"), lifetime_s)


HINTED = jwt({"exp": NOW + 60})


@pytest.mark.parametrize("text", [HINTED.encode(), {"token": HINTED}], ids=["bare", "JSON"])
def test_the_exp_of_a_jwt_is_the_hint(text: object) -> None:
    assert parse(text) == Granted(Secret(HINTED), 60.0)


def test_a_stated_expiry_is_taken_before_the_hint() -> None:
    assert parse({"token": HINTED, "expires_at": NOW + 5}) == Granted(Secret(HINTED), 5.0)


@pytest.mark.parametrize(
    "text",
    [
        {"token": "abc", "expires_at": NOW},
        {"token": "abc", "expires_at": NOW - 1},
        {"token": "abc", "expires_at": "2023-11-14T22:13:19Z"},
        jwt({"exp": NOW - 1}).encode(),
    ],
    ids=["now", "epoch", "RFC 3339", "JWT"],
)
def test_an_expired_token_is_refused(text: object) -> None:
    assert parse(text) == Failure(FailureKind.TRANSIENT, "the file holds a token that has expired")


@pytest.mark.parametrize("text", [b"", b"\n", b" \t\r\n"])
def test_empty(text: bytes) -> None:
    assert parse(text) == Failure(FailureKind.TRANSIENT, "the file is empty")


@pytest.mark.parametrize("text", [b"\xff\xfea\x00", b"abc\x80"])
def test_binary(text: bytes) -> None:
    assert parse(text) == Failure(FailureKind.TRANSIENT, "the file holds bytes that are not UTF-8")


@pytest.mark.parametrize(
    "text",
    [
        b"<!doctype html><p>Sign in</p>",
        b"<html></html>",
        b"abc\rdef",
        b"abc\ndef",
        b"abc def",
        b"abc\0def",
        "abcé".encode(),
        b"Authorization: Bearer abc",
        b'["abc"]',
        b'"abc"',
        b"{}",
        b"{abc}",
        b'{"access_token": "abc"',
        b'{"access_token": 5, "token": "abc"}',
        b'{"access_token": "a\\r\\nb"}',
        b'{"token": null}',
        b'{"error": "not logged in"}',
        b'{"status": {"clientCertificateData": "x"}, "token": "abc"}',
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"a" * 32_769,
    ],
    ids=lambda text: repr(text[:30]),
)
def test_no_token(text: bytes) -> None:
    assert parse(text) == Failure(FailureKind.TRANSIENT, NO_TOKEN)


@pytest.mark.parametrize("token_type", ["DPoP", "mac", 5])
def test_a_token_of_another_type_is_not_a_bearer_token(token_type: object) -> None:
    failure = parse({"access_token": "abc", "token_type": token_type})
    assert failure == Failure(FailureKind.TRANSIENT, "the file holds a token that is not of type Bearer")


@pytest.mark.parametrize("text", [b"canary canary", {"access_token": "canary\n"}, b'{"token": "canary"'])
def test_a_reason_shows_nothing_of_the_text(text: object) -> None:
    failure = parse(text)
    assert isinstance(failure, Failure)
    assert "canary" not in failure.reason


class TestOddButSeen:
    """What tools really print."""

    def test_a_byte_order_mark_is_no_part_of_the_token(self) -> None:
        assert parse_output(b"\xef\xbb\xbfthe-token\r\n", 0.0, origin="x") == Granted(Secret("the-token"))

    def test_null_is_no_token(self) -> None:
        assert isinstance(parse_output(b"null\n", 0.0, origin="x"), Failure)

    def test_an_instant_in_milliseconds(self) -> None:
        granted = parse_output(b'{"token": "t", "expires_at": 1800000060000}', 1_800_000_000.0, origin="x")
        assert granted == Granted(Secret("t"), 60.0)
