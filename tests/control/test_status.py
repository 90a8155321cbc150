"""The status document: every state in words, nothing secret."""

import json

import pytest

from bearerd.control.status import build_status
from bearerd.core.lifecycle import (
    Active,
    Backoff,
    Failure,
    FailureKind,
    InFlight,
    LoginPending,
    LoginRequired,
    NoToken,
    State,
)
from bearerd.core.redaction import Secret
from bearerd.core.targets import parse_route
from bearerd.core.tokens import TokenSet

DOWN = Failure(FailureKind.TRANSIENT, "the token endpoint cannot be reached")
TOKEN = TokenSet(3, Secret("canary-access"), 1000.0, 2000.0, Secret("canary-refresh"))
BACKOFF = Backoff(1000.0, 1001.0, 0.0, 1, DOWN)


@pytest.mark.parametrize(
    ("state", "now", "name", "seconds_left", "problem"),
    [
        (Active(TOKEN), 1500.0, "active", 500, None),
        (Active(TOKEN, phase=InFlight(1900.0, 3)), 1900.5, "active", 99, None),
        (Active(TOKEN, phase=BACKOFF), 1500.0, "active", 500, DOWN.reason),
        (Active(TOKEN, phase=BACKOFF), 2000.0, "waiting", 0, DOWN.reason),
        (Active(TOKEN, phase=InFlight(2001.0, 3, 1, last=DOWN)), 2001.0, "waiting", 0, DOWN.reason),
        (Active(TokenSet(0, Secret(""), 0.0, 0.0, Secret("canary-seed"))), 1.0, "waiting", None, None),
        (NoToken(), 1.0, "waiting", None, None),
        (
            LoginPending(None, "nobody has logged in yet"),
            1.0,
            "login_pending",
            None,
            "nobody has logged in yet",
        ),
        (LoginRequired("logged out"), 1.0, "login_required", None, "logged out"),
        (LoginRequired("invalid_grant", TOKEN), 1500.0, "login_required", 500, "invalid_grant"),
    ],
    ids=repr,
)
def test_an_account(
    state: State, now: float, name: str, seconds_left: int | None, problem: str | None
) -> None:
    document = build_status({"work": state}, (), (), now)
    (account,) = document["accounts"]
    assert account["name"] == "work"
    assert (account["state"], account["seconds_left"], account["problem"]) == (name, seconds_left, problem)
    assert "canary" not in json.dumps(document)


URL = "http://127.0.0.1:6750/-/login/work"
NAMED = TokenSet(3, Secret("t"), 1000.0, 2000.0, subject="someone@example.com")


@pytest.mark.parametrize(
    ("state", "url", "subject", "cure", "can_log_out"),
    [
        (Active(NAMED), URL, "someone@example.com", None, True),
        (Active(NAMED), None, "someone@example.com", None, False),
        (Active(TOKEN), URL, None, None, True),
        (NoToken(), URL, None, None, False),
        (LoginPending(None, "x"), URL, None, None, True),
        (LoginPending(None, "x"), None, None, None, False),
        (LoginRequired("logged out"), URL, None, "bearerd login work", False),
        (LoginRequired("invalid_grant", NAMED), URL, "someone@example.com", "bearerd login work", True),
        (LoginRequired("invalid_grant"), None, None, None, False),
    ],
    ids=repr,
)
def test_who_is_logged_in_and_what_can_be_done(
    state: State, url: str | None, subject: str | None, cure: str | None, *, can_log_out: bool
) -> None:
    (account,) = build_status({"work": state}, (), (), 1500.0, {"work": url} if url else {})["accounts"]
    assert account["subject"] == subject
    assert account["login_url"] == url
    assert account["cure"] == cure
    assert account["can_log_out"] is can_log_out


def test_times_are_given_twice() -> None:
    (account,) = build_status({"work": Active(TOKEN)}, (), (), 1500.0)["accounts"]
    assert account["expires"] == {"epoch": 2000.0, "rfc3339": "1970-01-01T00:33:20+00:00"}
    assert account["last_refresh"] == {"epoch": 1000.0, "rfc3339": "1970-01-01T00:16:40+00:00"}


def test_routes_and_addresses() -> None:
    route = parse_route("/v1/", "https://api.example.com/base/", "work")
    document = build_status({}, (route,), ("http://127.0.0.1:6750",), 0.0)
    assert document["format_version"] == 1
    assert document["addresses"] == ["http://127.0.0.1:6750"]
    assert document["routes"] == [
        {"prefix": "/v1", "upstream": "https://api.example.com/base", "account": "work"}
    ]
