"""Errors of our own, as `application/problem+json` (RFC 9457) with a stable `code`, and Proxy-Status (RFC 9209)."""

import json
import math
from dataclasses import dataclass
from typing import Final

from bearerd.errors import TokenError, TokenUnavailable, UpstreamError, UpstreamTimeout


@dataclass(frozen=True, slots=True)
class Problem:
    """One answer of our own. `code` is what programs test; `detail` is for people and names the cure.

    `proxy_error` is a Proxy-Status error type. `close` says that the connection cannot go on. `login_url` is where
    a person can mend it. `title` is for those whose status says less than that.
    """

    status: int
    code: str
    detail: str
    proxy_error: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False
    login_url: str | None = None
    title: str | None = None


DEFECT: Final = Problem(
    500,
    "internal_error",
    "bearerd met an error of its own; see its log, which says where, and report it",
    "proxy_internal_error",
)

TITLES: Final = {
    400: "Bad request",
    401: "Client key needed",
    403: "Refused",
    404: "No such page",
    405: "Method not allowed",
    408: "Request took too long",
    414: "Request target too long",
    421: "Wrong authority",
    431: "Request head too large",
    500: "Internal error",
    502: "Upstream broken",
    503: "No token to be had",
    504: "Upstream did not answer in time",
    508: "Loop detected",
}


def problem_title(problem: Problem) -> str:
    return problem.title or TITLES[problem.status]


def problem_body(problem: Problem, request_id: str | None = None) -> bytes:
    """The JSON document, ending in a newline for people who read it in a terminal. `request_id` is what the log calls it."""
    document = {
        "type": f"urn:bearerd:problem:{problem.code}",
        "title": problem_title(problem),
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
    }
    if problem.login_url:
        document["login_url"] = problem.login_url
    if request_id is not None:
        document["request_id"] = request_id
    return json.dumps(document, indent=2).encode("ascii") + b"\n"


def problem_headers(problem: Problem) -> list[tuple[str, str]]:
    """All fields of the answer but those of framing. No site may show it in a frame, nor a browser take it for HTML."""
    return [
        ("Content-Type", "application/problem+json"),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        *problem_fields(problem),
    ]


def problem_fields(problem: Problem) -> list[tuple[str, str]]:
    """The fields that the answer has whatever its body is."""
    fields = list(problem.headers)
    if problem.proxy_error:
        fields.append(("Proxy-Status", f"bearerd; error={problem.proxy_error}"))
    return fields


def no_token(account: str, error: TokenError, login_url: str | None = None) -> Problem:
    """503 for a call without a token: with Retry-After if one may come by itself, else asking for a login.

    `login_url` is the account's, if a person may log in to it here.
    """
    detail = f"account {account}: {error}"
    if isinstance(error, TokenUnavailable):
        seconds = max(1, math.ceil(error.retry_after_s))
        return Problem(
            503, "token_unavailable", detail, "proxy_internal_error", (("Retry-After", str(seconds)),)
        )
    return Problem(
        503,
        "login_required",
        f"{detail}; log in at login_url, or with: bearerd login {account}" if login_url else detail,
        "proxy_internal_error",
        (("x-should-retry", "false"),),
        login_url=login_url,
    )


def broken_upstream(error: UpstreamError) -> Problem:
    """502 or 504 for an exchange that ended before a response head. Its text names the origin at most."""
    if isinstance(error, UpstreamTimeout):
        return Problem(504, "upstream_timeout", str(error), "connection_timeout")
    return Problem(502, "upstream_broken", str(error), "connection_terminated")
