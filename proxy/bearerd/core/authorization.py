"""One authorization request and its callback (RFC 6749 section 4.1, RFC 7636, RFC 9207, OIDC Core section 3.1)."""

import hmac
from dataclasses import dataclass
from typing import Final

from bearerd.core.pkce import build_verifier, encode
from bearerd.core.redaction import Secret

LIFETIME_S: Final = 600.0
ENTROPY_BYTES: Final = 96


class CallbackRefused(ValueError):  # noqa: N818  # the state's own name says more than a suffix
    """A callback that ends in no token request. The text is a sentence for people."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """A login that a person has begun. `state` is good for one callback, until `expires_at` (epoch seconds).

    `binding` is known to whoever began it and to nobody else: a browser's cookie, a terminal's connection.
    """

    account: str
    state: Secret
    verifier: Secret
    nonce: str | None
    redirect_uri: str
    binding: Secret
    return_to: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Callback:
    """What the server sent by way of the browser: a code, or an error."""

    state: Secret | None = None
    code: Secret | None = None
    iss: str | None = None
    error: str | None = None
    error_description: str | None = None


def build_transaction(
    account: str,
    *,
    redirect_uri: str,
    binding: Secret,
    return_to: str,
    oidc: bool,
    entropy: bytes,
    now: float,
) -> Transaction:
    """A transaction that begins now. `entropy` is 96 random bytes; `oidc` adds a nonce. Raises ValueError."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a transaction is made of {ENTROPY_BYTES} bytes")
    return Transaction(
        account,
        Secret(encode(entropy[:32])),
        build_verifier(entropy[32:64]),
        encode(entropy[64:]) if oidc else None,
        redirect_uri,
        binding,
        return_to,
        now + LIFETIME_S,
    )


def is_bound(transaction: Transaction, binding: Secret | None) -> bool:
    """Whether `binding` is that of whoever began it. Takes as long for a near miss as for any other."""
    given = binding.reveal() if binding else ""
    return hmac.compare_digest(given.encode(), transaction.binding.reveal().encode())
