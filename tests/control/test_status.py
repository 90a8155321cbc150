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
