"""Token requests and what their replies mean (RFC 6749)."""

import base64
import json
import math
import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote_plus, urlencode

from bearerd.core.accounts import ClientAuth, Grant, OAuthSource
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.redaction import MASK, Secret, redact_text
from bearerd.core.tokens import Granted

REPLY_LIMIT: Final = 1 << 20  # bytes of a reply that are read at all
_TOKEN_LIMIT: Final = 32 << 10  # bytes of a token that still fits one header
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_REFRESH_TOKEN: Final = re.compile(r"[\x20-\x7e]+")  # RFC 6749 appendix A.17
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")  # section 3.3
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_ERROR_TEXT: Final = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")  # what section 5.2 does not allow

_GRANT_ENDED: Final = frozenset({"invalid_grant"})
_PASSING: Final = frozenset({"temporarily_unavailable", "server_error", "slow_down"})


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A POST to a token endpoint: headers, and a body that is a secret as a whole."""

    headers: tuple[tuple[str, str], ...]
    body: Secret


def build_token_request(source: OAuthSource, refresh_token: Secret | None) -> TokenRequest:
    """The request for `source`'s grant (sections 4.4.2 and 6), with the client's authentication (2.3.1)."""
    fields = {"grant_type": str(source.grant)}
    if source.grant is Grant.REFRESH_TOKEN and refresh_token is not None:
        fields["refresh_token"] = refresh_token.reveal()
    if source.grant is Grant.CLIENT_CREDENTIALS and source.scopes:
        fields["scope"] = " ".join(source.scopes)
    if source.audience:
        fields["audience"] = source.audience
    if source.resource:
        fields["resource"] = source.resource
    headers = [("Accept", "application/json"), ("Content-Type", "application/x-www-form-urlencoded")]
    secret = source.client_secret.reveal() if source.client_secret else ""
    match source.client_auth:
        case ClientAuth.BASIC:
            headers.append(("Authorization", _basic(source.client_id, secret)))
        case ClientAuth.POST:
            fields |= {"client_id": source.client_id, "client_secret": secret}
        case ClientAuth.NONE:
            fields["client_id"] = source.client_id
    return TokenRequest(tuple(headers), Secret(urlencode(fields)))


def _basic(client_id: str, secret: str) -> str:
    """Both parts are form-encoded before they are joined: section 2.3.1."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")


def parse_token_reply(
    status: int,
    body: bytes,
    now: float,
    *,
    retry_after: str | None = None,
    sent: tuple[Secret | None, ...] = (),
) -> Granted | Failure:
    """What a token endpoint's reply means. `retry_after` is that header's value, unparsed.

    `sent` are the secrets of the request, which a peer's error text may quote.

    One rule for each oddity: an `error` member is an error whatever the status; a lifetime that is no positive
    finite number is as good as none; a `token_type` left out is Bearer, any other than Bearer is refused; a
    token must be visible ASCII. A reply that cannot be read is transient: the old token stays in force.
    """
    asked = parse_retry_after(retry_after, now)
    fields = _parse_object(body)
    if fields is not None and fields.get("error"):
        return _refusal(status, fields, asked, sent)
    if status != 200:
        return Failure(FailureKind.TRANSIENT, f"the token endpoint answered {status}", asked)
    if fields is None:
        return Failure(FailureKind.TRANSIENT, "the token endpoint's reply is no JSON object", asked)
    return _grant(fields, now)


def _parse_object(body: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refusal(
    status: int, fields: dict[str, object], asked: float | None, sent: tuple[Secret | None, ...]
) -> Failure:
    error, description = fields["error"], fields.get("error_description")
    if not isinstance(error, str):
        return Failure(
            FailureKind.TRANSIENT, "the token endpoint's reply has an error that is no text", asked
        )
    reason = f"the token endpoint says {_shown(error, 64, sent)}"
    if isinstance(description, str) and description:
        reason += f": {_shown(description, 200, sent)}"
    if error in _GRANT_ENDED:
        return Failure(FailureKind.GRANT_REJECTED, reason, asked)
    passing = error in _PASSING or status in {408, 429} or status >= 500
    return Failure(FailureKind.TRANSIENT if passing else FailureKind.PERMANENT, reason, asked)


def _shown(text: str, limit: int, sent: tuple[Secret | None, ...]) -> str:
    """A peer's words, safe to print: what we sent or looks like a credential is masked, what is no plain text is `?`."""
    for secret in filter(None, sent):
        text = text.replace(secret.reveal(), MASK)
    return _ERROR_TEXT.sub("?", redact_text(text[:4096]))[:limit]


def _grant(fields: dict[str, object], now: float) -> Granted | Failure:
    if not is_bearer(fields.get("token_type")):
        return Failure(FailureKind.PERMANENT, "the token endpoint issued a token that is not of type Bearer")
    access_token = parse_token(fields.get("access_token"))
    if access_token is None:
        return Failure(FailureKind.TRANSIENT, "the token endpoint's reply has no usable access_token")
    refresh_token = fields.get("refresh_token") or None
    if refresh_token is not None and not _is_refresh_token(refresh_token):
        return Failure(FailureKind.TRANSIENT, "the token endpoint's reply has an unusable refresh_token")
    scope = fields.get("scope")
    lifetime_s = parse_lifetime(fields.get("expires_in"))
    return Granted(
        access_token,
        parse_lifetime(hint_lifetime(access_token, now)) if lifetime_s is None else lifetime_s,
        Secret(str(refresh_token)) if refresh_token else None,
        scope if isinstance(scope, str) and _SCOPE.fullmatch(scope) else None,
    )


def is_bearer(token_type: object) -> bool:
    """True for a token that may be sent as Bearer; a type left out is that one (RFC 6749 section 7.1)."""
    return token_type is None or (isinstance(token_type, str) and token_type.lower() == "bearer")


def _is_refresh_token(value: object) -> bool:
    return isinstance(value, str) and _REFRESH_TOKEN.fullmatch(value) is not None


def parse_token(value: object) -> Secret | None:
    """An access token that can stand in a header, or None."""
    if isinstance(value, str) and len(value) <= _TOKEN_LIMIT and _TOKEN.fullmatch(value):
        return Secret(value)
    return None


def parse_lifetime(value: object) -> float | None:
    """Seconds from a number or a numeric text; None for anything but a positive finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return None
    try:
        lifetime_s = float(value)
    except (ValueError, OverflowError):
        return None
    return lifetime_s if math.isfinite(lifetime_s) and lifetime_s > 0 else None


def hint_lifetime(access_token: Secret, now: float) -> float | None:
    """Seconds until the `exp` of a token that happens to be a JWT (RFC 9068), or None.

    A hint for scheduling only: nothing is verified and nothing else is read.
    """
    parts = access_token.reveal().split(".")
    if len(parts) != 3:
        return None
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
    except ValueError:
        return None
    exp = parse_lifetime((_parse_object(payload) or {}).get("exp"))
    return None if exp is None else exp - now


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait, from delay-seconds or an HTTP date (RFC 9110 section 10.2.3), which is always in GMT."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
        return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, OverflowError, TypeError):
        return None
