"""What programs print and files hold when they hand over a token."""

import json
from datetime import datetime

from bearerd.core.grants import hint_lifetime, is_bearer, parse_lifetime, parse_token
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted

_TOKEN_KEYS = ("access_token", "accessToken", "token", "id_token")
_EXPIRY_KEYS = ("expires_at", "expires_on", "expiry", "expiration", "expirationTimestamp", "expiresOn")

_LAST_SECOND = 1e11  # of the year 5138: a larger instant is in milliseconds


def parse_output(text: bytes, now: float, *, origin: str) -> Granted | Failure:
    """A token, alone or as JSON with its expiry. `origin` names where it came from in reasons.

    JSON may be an OAuth reply, an ExecCredential (`status.token`), or an object with one of the usual names.
    The expiry is `expires_in` seconds, or an instant as epoch seconds or RFC 3339; with none of them a JWT's
    `exp` is the hint. A `token_type` other than Bearer is refused, and so is what is some other document.
    """
    try:
        shown = text.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return Failure(FailureKind.TRANSIENT, f"{origin} holds bytes that are not UTF-8")
    if not shown:
        return Failure(FailureKind.TRANSIENT, f"{origin} is empty")
    fields = _parse_fields(shown)
    token = parse_token(_first(fields, _TOKEN_KEYS) if fields is not None else shown)
    if token is None:
        return Failure(FailureKind.TRANSIENT, f"{origin} holds no token: one line, or JSON with access_token")
    fields = fields or {}
    if not is_bearer(fields.get("token_type")):
        return Failure(FailureKind.TRANSIENT, f"{origin} holds a token that is not of type Bearer")
    lifetime_s = _lifetime(fields, token, now)
    if lifetime_s is not None and lifetime_s <= 0:
        return Failure(FailureKind.TRANSIENT, f"{origin} holds a token that has expired")
    return Granted(token, lifetime_s)


def _parse_fields(text: str) -> dict[str, object] | None:
    """The members of a JSON object, none for any other document, or None where the text is a bare token."""
    if not text.startswith(("{", "[", '"', "<")) and text != "null":
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    status = value.get("status")
    return status if isinstance(status, dict) else value


def _first(fields: dict[str, object], keys: tuple[str, ...]) -> object:
    return next((fields[key] for key in keys if fields.get(key)), None)


def _lifetime(fields: dict[str, object], token: Secret, now: float) -> float | None:
    lifetime_s = parse_lifetime(fields.get("expires_in"))
    if lifetime_s is not None:
        return lifetime_s
    expires_at = _instant(_first(fields, _EXPIRY_KEYS))
    return hint_lifetime(token, now) if expires_at is None else expires_at - now


def _instant(value: object) -> float | None:
    seconds = parse_lifetime(value)
    if seconds is not None:
        return seconds / 1000 if seconds > _LAST_SECOND else seconds
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parse_lifetime(moment.timestamp()) if moment.tzinfo else None
