"""ID tokens, read for two things: that they answer our request, and what to call the person (OIDC Core section 2).

The signature is not verified. The token came straight from the token endpoint over TLS, which stands for it
(section 3.1.3.7, item 6), and nothing is decided by its claims but whether the login was ours.
"""

import base64
import json
from typing import Any, Final

from bearerd.core.redaction import Secret

SKEW_S: Final = 300.0
_LABELS: Final = ("email", "preferred_username", "name", "sub")


class IdTokenError(ValueError):
    """The ID token does not belong to this login. The text says why and holds nothing of it."""


def check_id_token(
    id_token: Secret, *, issuer: str | None, client_id: str, nonce: str | None, now: float
) -> str | None:
    """What to call who has logged in. Raises IdTokenError.

    `issuer` is None where it is not known, `nonce` where none was sent (a device's login).
    """
    claims = _claims(id_token)
    if issuer is not None and claims.get("iss") != issuer:
        raise IdTokenError("the ID token is of another issuer than the configured one")
    audience = claims.get("aud")
    if client_id not in (audience if isinstance(audience, list) else [audience]):
        raise IdTokenError("the ID token is for another client")
    expires_at = claims.get("exp")
    if not isinstance(expires_at, int | float) or not now - SKEW_S < expires_at:
        raise IdTokenError("the ID token has expired, or this machine's clock is wrong")
    if nonce is not None and claims.get("nonce") != nonce:
        raise IdTokenError("the ID token answers another login than this one")
    return _label(claims)


def _label(claims: dict[str, Any]) -> str | None:
    """The first claim that people know themselves by, without what is invisible or changes the direction of text."""
    for name in _LABELS:
        value = claims.get(name)
        if isinstance(value, str) and (text := "".join(filter(str.isprintable, value)).strip()):
            return text[:100]
    return None


def _claims(id_token: Secret) -> dict[str, Any]:
    parts = id_token.reveal().split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, IndexError, RecursionError):
        claims = None
    if len(parts) != 3 or not isinstance(claims, dict):
        raise IdTokenError("the ID token cannot be read")
    return claims
