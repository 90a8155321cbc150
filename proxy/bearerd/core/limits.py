"""How large the head of a request may be, and how many clients there may be at once."""

from typing import Final

from bearerd.core.problems import Problem

TARGET_LIMIT: Final = 16 << 10
FIELD_LIMIT: Final = 32 << 10
HEAD_LIMIT: Final = 64 << 10
FIELDS: Final = 128
SPARE_DESCRIPTORS: Final = 48  # for listeners, stores, token endpoints, commands, refusals

TARGET_TOO_LONG: Final = Problem(
    414,
    "target_too_long",
    "the request target has more than 16 KiB; send what is long in the body",
    "http_request_error",
    close=True,
)
HEAD_TOO_LARGE: Final = Problem(
    431,
    "head_too_large",
    "the request has more than 128 header fields, a field over 32 KiB, or over 64 KiB of them together; "
    "in a browser, clear the cookies of localhost",
    "http_request_error",
    close=True,
)
HEAD_TIMEOUT: Final = Problem(
    408,
    "head_timeout",
    "the request did not arrive in time; send its head at once, or set limits.header_read to more",
    "http_request_error",
    close=True,
)
BODY_TIMEOUT: Final = Problem(
    408,
    "body_timeout",
    "the rest of the request body did not come; send it without such a stop, or set limits.body_idle to more",
    "http_request_error",
    close=True,
)
TOO_MANY_CONNECTIONS: Final = Problem(
    503,
    "too_many_connections",
    "there are as many connections as limits.connections and the limit of open files allow; close some of them",
    "http_request_denied",
    (("Retry-After", "1"),),
    close=True,
    title="Too many connections",
)


def allowed_connections(wanted: int, descriptors: float, per_call: int = 2) -> int:
    """How many clients there may be where so many files can be open, of which some are kept spare."""
    return int(max(1, min(wanted, (descriptors - SPARE_DESCRIPTORS) // per_call)))
