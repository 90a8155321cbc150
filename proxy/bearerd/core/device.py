"""The device authorization grant (RFC 8628): a code typed in on another machine's browser."""

import re
from dataclasses import dataclass
from typing import Any, Final

from bearerd.core.grants import parse_lifetime, parse_object, refusal
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.metadata import check_browser_url
from bearerd.core.redaction import Secret

INTERVAL_S: Final = 5.0
SHORTEST_INTERVAL_S: Final = 1.0
LONGEST_INTERVAL_S: Final = 60.0
LIFETIME_S: Final = 600.0  # where the server does not say, which it has to
LONGEST_LIFETIME_S: Final = 3600.0
_CODE: Final = re.compile(r"[\x21-\x7e]{1,4096}")
_USER_CODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")


@dataclass(frozen=True, slots=True)
class DeviceAuthorization:
    """What the server gave to begin with (section 3.2). Both URLs passed `check_browser_url`."""

    device_code: Secret
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    expires_at: float
    interval_s: float


def parse_device_reply(
    status: int,
    body: bytes,
    now: float,
    *,
    retry_after_s: float | None = None,
    sent: tuple[Secret | None, ...] = (),
) -> DeviceAuthorization | Failure:
    """What a device authorization endpoint's reply means. A person is shown nothing that was not checked.

    `sent` are the secrets of the request, which a peer's error text may quote.
    """
    fields = parse_object(body)
    if fields is not None and fields.get("error"):
        return refusal(status, fields, retry_after_s, sent, endpoint="device authorization endpoint")
    if status != 200 or fields is None:
        return _unusable(f"answered {status} with no device code")
    try:
        return _parse(fields, now)
    except ValueError as problem:
        return _unusable(str(problem))


def _parse(fields: dict[str, Any], now: float) -> DeviceAuthorization:
    code, user_code = fields.get("device_code"), fields.get("user_code")
    if not (isinstance(code, str) and _CODE.fullmatch(code)):
        raise ValueError("gave no usable device_code")
    if not (isinstance(user_code, str) and _USER_CODE.fullmatch(user_code)):
        raise ValueError("gave no usable user_code")
    complete = fields.get("verification_uri_complete") or None
    lifetime_s = parse_lifetime(fields.get("expires_in")) or LIFETIME_S
    interval_s = parse_lifetime(fields.get("interval")) or INTERVAL_S
    return DeviceAuthorization(
        Secret(code),
        user_code,
        _address(fields.get("verification_uri") or fields.get("verification_url")),  # Google's older spelling
        None if complete is None else _address(complete),
        now + min(lifetime_s, LONGEST_LIFETIME_S),
        min(max(interval_s, SHORTEST_INTERVAL_S), LONGEST_INTERVAL_S),
    )


def _address(url: object) -> str:
    if not isinstance(url, str):
        raise ValueError("gave no verification_uri")  # noqa: TRY004  # a peer's mistake, not a caller's
    try:
        return check_browser_url(url)
    except ValueError as problem:
        raise ValueError(f"gave a verification_uri that {problem}") from None


def _unusable(problem: str) -> Failure:
    return Failure(FailureKind.TRANSIENT, f"the device authorization endpoint {problem}")


def decide_poll(failure: Failure, interval_s: float) -> float | None:
    """Seconds until the next question after `failure`, or None where there is nothing to ask any more.

    `slow_down` adds 5 s for good, and a server that cannot be reached or has trouble of its own is asked half as
    often (section 3.5).
    """
    if failure.error == "authorization_pending":
        return interval_s
    if failure.error == "slow_down":
        return interval_s + 5.0
    if failure.kind in {FailureKind.TRANSIENT, FailureKind.OUTCOME_UNKNOWN}:
        return min(max(interval_s * 2, failure.retry_after_s or 0.0), LONGEST_INTERVAL_S)
    return None
