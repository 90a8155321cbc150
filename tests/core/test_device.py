"""The device authorization grant (RFC 8628): what a person is shown, and how often the server is asked."""

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.core.device import LONGEST_INTERVAL_S, DeviceAuthorization, decide_poll, parse_device_reply
from bearerd.core.grants import parse_token_reply
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.redaction import Secret

NOW: Final = 1_000.0
GOOD: Final = {
    "device_code": "dev1ce-canary",
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://login.test/device",
    "verification_uri_complete": "https://login.test/device?user_code=WDJB-MJHT",
    "expires_in": 1800,
    "interval": 7,
}


def parse(fields: object, status: int = 200) -> DeviceAuthorization | Failure:
    raw = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return parse_device_reply(status, raw, NOW)


def granted(**changes: Any) -> DeviceAuthorization:
    fields = {name: value for name, value in (GOOD | changes).items() if value is not ...}
    device = parse(fields)
    assert isinstance(device, DeviceAuthorization)
    return device


def failed(fields: object, status: int = 200) -> Failure:
    failure = parse(fields, status)
    assert isinstance(failure, Failure)
    assert "canary" not in failure.reason
    assert failure.reason.isprintable()
    return failure


class TestReply:
    def test_a_good_one(self) -> None:
        assert granted() == DeviceAuthorization(
            Secret("dev1ce-canary"),
            "WDJB-MJHT",
            "https://login.test/device",
            "https://login.test/device?user_code=WDJB-MJHT",
            NOW + 1800,
            7.0,
        )

    def test_the_device_code_is_not_shown(self) -> None:
        assert "canary" not in repr(granted())

    @pytest.mark.parametrize(
        ("said", "interval_s"),
        [
            (..., 5),
            (None, 5),
            (0, 5),
            (-1, 5),
            ("7", 7),
            (0.001, 1),
            (1, 1),
            (3600, 60),
            (1e300, 60),
            ([], 5),
            ("soon", 5),
            (float("nan"), 5),
            (True, 5),
        ],
    )
    def test_intervals(self, said: object, interval_s: float) -> None:
        """Section 3.2: 5 s where it is left out. We neither flood a server nor sleep for ever."""
        assert granted(interval=said).interval_s == interval_s

    @pytest.mark.parametrize(
        ("said", "lifetime_s"),
        [("900", 900), (900.5, 900.5), (..., 600), (None, 600), (-1, 600), (86_400, 3600), (1e300, 3600)],
    )
    def test_lifetimes(self, said: object, lifetime_s: float) -> None:
        assert granted(expires_in=said).expires_at == NOW + lifetime_s

    @pytest.mark.parametrize("nothing", [..., None, ""])
    def test_the_address_with_the_code_in_it_may_be_left_out(self, nothing: object) -> None:
        assert granted(verification_uri_complete=nothing).verification_uri_complete is None

    def test_an_older_spelling(self) -> None:
        device = granted(verification_uri=..., verification_url="https://login.test/go")
        assert device.verification_uri == "https://login.test/go"

    @pytest.mark.parametrize(
        "url",
        [
            "file:///etc/passwd",
            "javascript:alert(1)",
            "https://login.test/$(touch x)",
            "https://login.test/`x`",
            "https://login.test/'x'",
            "https://login.test/;x",
            "https://login.test/|x",
            "--flag",
            "http://elsewhere.test/device",
            "https://user@login.test/",
            "https://login.test/a b",
            "https://login.test/\n",
            "https://login.test/\x1b[2J",
            5,
            ["https://login.test/"],
        ],
    )
    @pytest.mark.parametrize("name", ["verification_uri", "verification_uri_complete"])
    def test_threat_6_an_address_that_is_not_fit_for_a_browser(self, name: str, url: object) -> None:
        failure = failed(GOOD | {name: url})
        assert failure.reason.startswith("the device authorization endpoint gave ")
        assert not isinstance(url, str) or url not in failure.reason

    @pytest.mark.parametrize("url", [..., None, "", 5])
    def test_no_address(self, url: object) -> None:
        fields = {
            name: value for name, value in (GOOD | {"verification_uri": url}).items() if value is not ...
        }
        assert "gave no verification_uri" in failed(fields).reason

    @pytest.mark.parametrize(
        "code", [None, "", 5, "a\nb", "\x1b[2J", "x" * 65, "-x", "\u202eABC", "<b>", "-rf /"]
    )
    def test_a_user_code_nobody_could_type(self, code: object) -> None:
        assert "no usable user_code" in failed(GOOD | {"user_code": code}).reason

    @pytest.mark.parametrize("code", [None, "", 5, "a b", "a\nb", "\u00e9", "x" * 4097])
    def test_an_unusable_device_code(self, code: object) -> None:
        assert "no usable device_code" in failed(GOOD | {"device_code": code}).reason

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"\xff", b"[" * 100_000])
    def test_no_document(self, body: bytes) -> None:
        failure = failed(body)
        assert failure.reason == "the device authorization endpoint answered 200 with no device code"
        assert failure.kind is FailureKind.TRANSIENT

    @pytest.mark.parametrize("status", [201, 302, 404, 500])
    def test_another_status(self, status: int) -> None:
        assert f"answered {status}" in failed(GOOD, status).reason

    @pytest.mark.parametrize("status", [200, 400])
    def test_an_error_is_one_whatever_the_status(self, status: int) -> None:
        failure = failed({"error": "unauthorized_client", "error_description": "not\nhere"}, status)
        assert (failure.kind, failure.error) == (FailureKind.PERMANENT, "unauthorized_client")
        assert failure.reason == "the device authorization endpoint says unauthorized_client: not?here"

    def test_a_peer_that_quotes_our_secret_is_not_quoted(self) -> None:
        body = json.dumps({"error": "invalid_client", "error_description": "hush-hush is wrong"}).encode()
        failure = parse_device_reply(401, body, NOW, retry_after_s=9.0, sent=(Secret("hush-hush"), None))
        assert isinstance(failure, Failure)
        assert "hush" not in failure.reason
        assert failure.retry_after_s == 9.0

    @given(st.binary(max_size=200))
    def test_whatever_comes_is_a_value(self, body: bytes) -> None:
        failed(body)

    @given(
        st.fixed_dictionaries(
            {},
            optional={
                name: st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
                for name in (*GOOD, "error", "error_description")
            },
        )
    )
    def test_whatever_is_said_is_a_value(self, fields: dict[str, object]) -> None:
        outcome = parse(GOOD | fields)
        if isinstance(outcome, DeviceAuthorization):
            assert outcome.user_code.isprintable()
            assert NOW <= outcome.expires_at <= NOW + 3600
            assert 1 <= outcome.interval_s <= 60


def asked_again(body: object, status: int = 400, interval_s: float = 5.0) -> float | None:
    failure = parse_token_reply(status, json.dumps(body).encode(), NOW)
    assert isinstance(failure, Failure)
    return decide_poll(failure, interval_s)


class TestPoll:
    """Section 3.5."""

    @pytest.mark.parametrize("status", [200, 400, 428])
    def test_not_yet(self, status: int) -> None:
        """GitHub says it with status 200, Google with 428."""
        assert asked_again({"error": "authorization_pending"}, status) == 5

    @pytest.mark.parametrize("status", [200, 400, 403, 429])
    def test_too_often(self, status: int) -> None:
        assert asked_again({"error": "slow_down"}, status, 7.0) == 12

    def test_too_often_adds_up(self) -> None:
        interval_s: float | None = 5.0
        for expected_s in (10, 15, 20):
            assert interval_s is not None
            interval_s = asked_again({"error": "slow_down"}, interval_s=interval_s)
            assert interval_s == expected_s

    @pytest.mark.parametrize(
        "error",
        [
            "access_denied",
            "expired_token",
            "invalid_grant",
            "invalid_client",
            "incorrect_device_code",
            "what",
        ],
    )
    def test_the_end(self, error: str) -> None:
        assert asked_again({"error": error}) is None
        assert asked_again({"error": error}, 200) is None

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ("<html>", 200),
            ("", 502),
            ({"error": "temporarily_unavailable"}, 503),
            ({"error": "server_error"}, 500),
        ],
    )
    def test_trouble_of_the_server_is_waited_out(self, body: object, status: int) -> None:
        assert asked_again(body, status) == 10
        assert asked_again(body, status, 50.0) == 60

    @pytest.mark.parametrize("kind", [FailureKind.TRANSIENT, FailureKind.OUTCOME_UNKNOWN])
    def test_a_server_that_is_not_there(self, kind: FailureKind) -> None:
        assert decide_poll(Failure(kind, "x"), 5.0) == 10
        assert decide_poll(Failure(kind, "x", 30.0), 5.0) == 30
        assert decide_poll(Failure(kind, "x", 1e6), 5.0) == 60

    @pytest.mark.parametrize(
        "kind", [FailureKind.PERMANENT, FailureKind.GRANT_REJECTED, FailureKind.POSTPONED]
    )
    def test_what_no_waiting_mends(self, kind: FailureKind) -> None:
        assert decide_poll(Failure(kind, "x"), 5.0) is None

    @given(st.sampled_from(FailureKind), st.floats(1.0, 60.0))
    def test_nobody_is_asked_faster_for_failing(self, kind: FailureKind, interval_s: float) -> None:
        next_s = decide_poll(Failure(kind, "x"), interval_s)
        assert next_s is None or interval_s <= next_s <= LONGEST_INTERVAL_S
