"""Token requests and what their replies mean (RFC 6749)."""

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote, quote_plus, urlencode

from bearerd.core.accounts import ClientAuth, OAuthSource
from bearerd.core.authorization import Transaction
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

    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: Secret


def build_token_request(source: OAuthSource, refresh_token: Secret | None) -> TokenRequest:
    """The request for a token without a person (sections 4.4.2 and 6)."""
    fields: dict[str, str | None] = {"grant_type": "refresh_token" if source.spends else "client_credentials"}
    if source.spends:
        fields["refresh_token"] = refresh_token.reveal() if refresh_token else None
    else:
        fields["scope"] = " ".join(source.scopes)
    return _request(source, fields | {"audience": source.audience, "resource": source.resource})


def build_code_request(source: OAuthSource, code: Secret, transaction: Transaction) -> TokenRequest:
    """The exchange of a callback's code (section 4.1.3, RFC 7636 section 4.5)."""
    return _request(
        source,
        {
            "grant_type": "authorization_code",
            "code": code.reveal(),
            "redirect_uri": transaction.redirect_uri,
            "code_verifier": transaction.verifier.reveal(),
            "resource": source.resource,
        },
    )


def build_device_request(source: OAuthSource) -> TokenRequest:
    """The beginning of a login on another device (RFC 8628 section 3.1)."""
    fields = {"scope": " ".join(source.scopes), "audience": source.audience, "resource": source.resource}
    return _request(source, {"client_id": source.client_id} | fields)


def build_device_token_request(source: OAuthSource, device_code: Secret) -> TokenRequest:
    """The question whether that login is done (RFC 8628 section 3.4)."""
    return _request(
        source,
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "device_code": device_code.reveal(),
            "client_id": source.client_id,
            "resource": source.resource,
        },
    )


def build_revocation_request(source: OAuthSource, token: Secret, kind: str | None) -> TokenRequest:
    """RFC 7009 section 2.1. `kind` is a hint, for servers that know it."""
    return _request(source, {"token": token.reveal(), "token_type_hint": kind})


def _request(source: OAuthSource, fields: Mapping[str, str | None]) -> TokenRequest:
    """A form without its empty fields, with the client's authentication (section 2.3.1)."""
    form = {name: value for name, value in fields.items() if value}
    headers = [("Accept", "application/json"), ("Content-Type", "application/x-www-form-urlencoded")]
    secret = source.client_secret.reveal() if source.client_secret else ""
    match source.client_auth:
        case ClientAuth.BASIC:
            headers.append(("Authorization", _basic(source.client_id, secret)))
        case ClientAuth.POST:
            form |= {"client_id": source.client_id, "client_secret": secret}
        case ClientAuth.NONE:
            form["client_id"] = source.client_id
    return TokenRequest(tuple(headers), Secret(urlencode(form)))


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
    ended: tuple[str, ...] = (),
) -> Granted | Failure:
    """What a token endpoint's reply means. `retry_after` is that header's value, unparsed.

    `sent` are the secrets of the request, which a peer's error text may quote. `ended` are this server's own
    words for invalid_grant.

    One rule for each oddity: an `error` member is an error whatever the status; a lifetime that is no positive
    finite number is as good as none; a `token_type` left out is Bearer, any other than Bearer is refused; a
    token must be visible ASCII. A reply that cannot be read is transient: the old token stays in force.
    """
    asked = parse_retry_after(retry_after, now)
    fields = parse_object(body)
    if fields is not None and fields.get("error"):
        return refusal(status, fields, asked, sent, ended)
    if status != 200:
        return Failure(FailureKind.TRANSIENT, f"the token endpoint answered {status}", asked)
    if fields is None:
        return Failure(FailureKind.TRANSIENT, "the token endpoint's reply is no JSON object", asked)
    return _grant(fields, now)


def parse_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that `body` is, or None."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def refusal(
    status: int,
    fields: dict[str, Any],
    asked: float | None = None,
    sent: tuple[Secret | None, ...] = (),
    ended: tuple[str, ...] = (),
    endpoint: str = "token endpoint",
) -> Failure:
    """What a reply with an `error` means (section 5.2). The arguments are those of `parse_token_reply`."""
    error, description = fields["error"], fields.get("error_description")
    if not isinstance(error, str):
        return Failure(FailureKind.TRANSIENT, f"the {endpoint}'s reply has an error that is no text", asked)
    reason = f"the {endpoint} says {_shown(error, 64, sent)}"
    if isinstance(description, str) and description:
        reason += f": {_shown(description, 200, sent)}"
    return Failure(_kind(status, error, ended), reason, asked, error[:64])


def _kind(status: int, error: str, ended: tuple[str, ...]) -> FailureKind:
    if error in _GRANT_ENDED or error in ended:
        return FailureKind.GRANT_REJECTED
    passing = error in _PASSING or status in {408, 429} or status >= 500
    return FailureKind.TRANSIENT if passing else FailureKind.PERMANENT


def _shown(text: str, limit: int, sent: tuple[Secret | None, ...]) -> str:
    """A peer's words, safe to print: what we sent or looks like a credential is masked, what is no plain text is `?`."""
    for secret in filter(None, sent):
        for form in {secret.reveal(), quote_plus(secret.reveal()), quote(secret.reveal(), safe="")}:
            text = text.replace(form, MASK)
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
    scope, id_token = fields.get("scope"), fields.get("id_token")
    lifetime_s = parse_lifetime(fields.get("expires_in"))
    return Granted(
        access_token,
        parse_lifetime(hint_lifetime(access_token, now)) if lifetime_s is None else lifetime_s,
        Secret(str(refresh_token)) if refresh_token else None,
        scope if isinstance(scope, str) and _SCOPE.fullmatch(scope) else None,
        id_token=Secret(id_token) if isinstance(id_token, str) else None,
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
    exp = parse_lifetime((parse_object(payload) or {}).get("exp"))
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
