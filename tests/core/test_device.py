"""Logins on another device: what of the server's reply is shown to a person, and when to ask again."""

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.core.device import (
    INTERVAL_S,
    LONGEST_INTERVAL_S,
    LONGEST_LIFETIME_S,
    DeviceAuthorization,
    decide_poll,
    parse_device_reply,
)
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.redaction import Secret

NOW: Final = 1000.0
GOOD: Final = {
    "device_code": "device",
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://login.test/device",
    "verification_uri_complete": "https://login.test/device?user_code=WDJB-MJHT",
    "expires_in": 1800,
    "interval": 7,
}


def parse(status: int = 200, **changes: Any) -> DeviceAuthorization | Failure:
    fields = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return parse_device_reply(status, json.dumps(fields).encode(), NOW)


def test_the_example_of_rfc_8628() -> None:
    assert parse() == DeviceAuthorization(
        Secret("device"),
        "WDJB-MJHT",
        "https://login.test/device",
        "https://login.test/device?user_code=WDJB-MJHT",
        NOW + 1800,
        7.0,
    )


@pytest.mark.parametrize("interval", [None, "soon", -1, 0, float("nan"), True])
def test_an_interval_that_is_none_is_five_seconds(interval: object) -> None:
    made = parse(interval=interval)
    assert isinstance(made, DeviceAuthorization)
    assert made.interval_s == INTERVAL_S


def test_a_server_does_not_keep_anybody_for_ever() -> None:
    made = parse(interval=1e9, expires_in=1e300)
    assert isinstance(made, DeviceAuthorization)
    assert made.interval_s == LONGEST_INTERVAL_S
    assert made.expires_at == NOW + LONGEST_LIFETIME_S


def test_the_older_spelling_of_the_address() -> None:
    made = parse(verification_uri=None, verification_url="https://www.login.test/device")
    assert isinstance(made, DeviceAuthorization)
    assert made.verification_uri == "https://www.login.test/device"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device_code": None}, "no usable device_code"),
        ({"device_code": "a\nb"}, "no usable device_code"),
        ({"device_code": ["a"]}, "no usable device_code"),
        ({"user_code": None}, "no usable user_code"),
        ({"user_code": "\x1b[2J"}, "no usable user_code"),
        ({"user_code": "A" * 65}, "no usable user_code"),
        ({"user_code": "-rf /"}, "no usable user_code"),
        ({"verification_uri": None}, "no verification_uri"),
        ({"verification_uri": "javascript:alert(1)"}, "verification_uri that is not an http or https URL"),
        ({"verification_uri": "http://login.test/"}, "is plain http to another machine"),
        ({"verification_uri": "https://login.test/$(x)"}, "has a character that does not belong"),
        ({"verification_uri_complete": "file:///etc/passwd"}, "is not an http or https URL"),
        ({"verification_uri_complete": "https://login.test/?a=`x`"}, "character"),
        ({"verification_uri_complete": "--flag"}, "is not an http or https URL"),
    ],
)
def test_threat_6_nobody_is_shown_anything_else(changes: dict[str, Any], said: str) -> None:
    failure = parse(**changes)
    assert isinstance(failure, Failure)
    assert said in failure.reason


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{" * 50_000, b"null"])
@pytest.mark.parametrize("status", [200, 500])
def test_no_reply_of_use(status: int, body: bytes) -> None:
    failure = parse_device_reply(status, body, NOW)
    assert isinstance(failure, Failure)
    assert str(status) in failure.reason


def test_a_refusal_is_the_server_s_own() -> None:
    failure = parse_device_reply(400, b'{"error": "unauthorized_client"}', NOW)
    assert isinstance(failure, Failure)
    assert failure.error == "unauthorized_client"


def failure(error: str | None, kind: FailureKind = FailureKind.PERMANENT) -> Failure:
    return Failure(kind, "why", None, error)


@pytest.mark.parametrize(
    ("what", "next_s"),
    [
        (failure("authorization_pending"), 5.0),
        (failure("slow_down", FailureKind.TRANSIENT), 10.0),
        (failure(None, FailureKind.TRANSIENT), 10.0),
        (failure(None, FailureKind.OUTCOME_UNKNOWN), 10.0),
        (Failure(FailureKind.TRANSIENT, "busy", 30.0), 30.0),
        (failure("access_denied"), None),
        (failure("expired_token"), None),
        (failure("invalid_grant", FailureKind.GRANT_REJECTED), None),
        (failure(None, FailureKind.POSTPONED), None),
    ],
)
def test_when_to_ask_again(what: Failure, next_s: float | None) -> None:
    assert decide_poll(what, 5.0) == next_s


@given(st.sampled_from(FailureKind), st.floats(0.1, 60.0))
def test_nobody_is_asked_faster_for_failing(kind: FailureKind, interval_s: float) -> None:
    next_s = decide_poll(failure(None, kind), interval_s)
    assert next_s is None or interval_s <= next_s <= LONGEST_INTERVAL_S
