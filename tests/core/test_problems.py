"""Answers of our own, as programs and people read them."""

import json

import pytest

from bearerd.core.problems import (
    TITLES,
    Problem,
    broken_upstream,
    no_token,
    problem_body,
    problem_headers,
)
from bearerd.errors import (
    LoginRequired,
    TokenError,
    TokenUnavailable,
    UpstreamClosed,
    UpstreamError,
    UpstreamTimeout,
)

PLAIN = [
    ("Content-Type", "application/problem+json"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
]


@pytest.mark.parametrize("status", [400, 403, 404, 405, 421, 500, 502, 503, 504, 508])
def test_the_body_is_a_problem_document(status: int) -> None:
    body = problem_body(Problem(status, "some_code", 'a "detail"\nof é and \x1b'))
    assert body.isascii()
    assert body.endswith(b"}\n")
    assert json.loads(body) == {
        "type": "urn:bearerd:problem:some_code",
        "title": TITLES[status],
        "status": status,
        "code": "some_code",
        "detail": 'a "detail"\nof é and \x1b',
    }


def test_the_fields() -> None:
    """A terminal sees escapes, never control characters; caches keep nothing."""
    assert b"\x1b" not in problem_body(Problem(400, "x", "\x1b[2J"))
    assert problem_headers(Problem(404, "x", "y")) == PLAIN


def test_fields_of_its_own_and_proxy_status() -> None:
    problem = Problem(405, "x", "y", "http_request_denied", (("Allow", "GET"), ("A", "b")))
    assert problem_headers(problem) == [
        *PLAIN,
        ("Allow", "GET"),
        ("A", "b"),
        ("Proxy-Status", "bearerd; error=http_request_denied"),
    ]


@pytest.mark.parametrize(
    ("retry_after_s", "seconds"),
    [(-5.0, "1"), (0.0, "1"), (0.2, "1"), (1.0, "1"), (1.001, "2"), (299.5, "300")],
)
def test_a_token_may_come_by_itself(retry_after_s: float, seconds: str) -> None:
    """Retry-After is whole seconds, never 0, never before the next attempt."""
    problem = no_token("work", TokenUnavailable("the token endpoint answered 500", retry_after_s))
    assert problem == Problem(
        503,
        "token_unavailable",
        "account work: the token endpoint answered 500",
        "proxy_internal_error",
        (("Retry-After", seconds),),
    )


@pytest.mark.parametrize("error", [LoginRequired("log in"), TokenError("log in")])
def test_a_login_is_needed(error: TokenError) -> None:
    """No Retry-After: SDKs would try again and again for nothing."""
    problem = no_token("work", error)
    assert problem == Problem(
        503,
        "login_required",
        "account work: log in",
        "proxy_internal_error",
        (("x-should-retry", "false"),),
    )
    assert "Retry-After" not in dict(problem_headers(problem))


def test_a_login_that_can_be_done_here_has_an_address() -> None:
    problem = no_token("work", LoginRequired("log in"), "http://127.0.0.1:6750/-/login/work")
    assert json.loads(problem_body(problem))["login_url"] == "http://127.0.0.1:6750/-/login/work"
    assert "login_url" not in json.loads(problem_body(no_token("work", LoginRequired("log in"))))
    waiting = no_token("work", TokenUnavailable("down", 1.0), "http://127.0.0.1:6750/-/login/work")
    assert "login_url" not in json.loads(problem_body(waiting))


@pytest.mark.parametrize(
    ("error", "status", "code", "proxy_error"),
    [
        (UpstreamTimeout("slow"), 504, "upstream_timeout", "connection_timeout"),
        (UpstreamClosed("gone"), 502, "upstream_broken", "connection_terminated"),
        (UpstreamError("bad"), 502, "upstream_broken", "connection_terminated"),
    ],
)
def test_a_broken_upstream(error: UpstreamError, status: int, code: str, proxy_error: str) -> None:
    assert broken_upstream(error) == Problem(status, code, str(error), proxy_error)


def test_a_foreign_error_behind_ours_is_not_shown() -> None:
    error = UpstreamError("https://api.test cannot be connected to")
    error.__cause__ = OSError("canary at 10.0.0.1")
    token_error = TokenUnavailable("no token", 1.0)
    token_error.__context__ = ValueError("canary")
    shown = problem_body(broken_upstream(error)) + problem_body(no_token("work", token_error))
    assert b"canary" not in shown


def test_problems_keep_the_connection_unless_they_say_so() -> None:
    assert not Problem(404, "x", "y").close
    assert not no_token("work", LoginRequired("x")).close
    assert not broken_upstream(UpstreamError("x")).close
