"""Proof Key for Code Exchange (RFC 7636), with S256 and no other method."""

import base64
import hashlib

from bearerd.core.redaction import Secret


def build_verifier(entropy: bytes) -> Secret:
    """A code verifier of 43 characters from 32 random bytes (section 4.1). Raises ValueError for any other number."""
    if len(entropy) != 32:
        raise ValueError("a verifier is made of 32 bytes")
    return Secret(encode(entropy))


def build_challenge(verifier: Secret) -> str:
    """The S256 challenge (section 4.2)."""
    return encode(hashlib.sha256(verifier.reveal().encode("ascii")).digest())


def encode(data: bytes) -> str:
    """base64url without padding (appendix A)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
