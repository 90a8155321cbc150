"""Signed ID tokens (RFC 7515, ES256), by a key that lasts as long as the process."""

import json
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from bearerd.core.pkce import encode


class Signer:
    """Signs with a new key."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def sign(self, claims: Mapping[str, object]) -> str:
        """A JWS of `claims` in compact form."""
        parts = (encode(json.dumps(part).encode()) for part in ({"alg": "ES256"}, dict(claims)))
        signed = ".".join(parts)
        numbers = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(SHA256())))
        return f"{signed}.{encode(b''.join(number.to_bytes(32, 'big') for number in numbers))}"

    def public_key(self) -> dict[str, str]:
        """The key to verify with, as a JWK (RFC 7518 section 6.2)."""
        point = self._key.public_key().public_numbers()
        x, y = (encode(number.to_bytes(32, "big")) for number in (point.x, point.y))
        return {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": x, "y": y}
