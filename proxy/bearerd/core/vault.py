r"""The vault file's format: one account's tokens, sealed with AES-256-GCM (NIST SP 800-38D).

::

    "bearerd vault\n" | format (1 byte) | key id (8 bytes) | nonce (12 bytes) | ciphertext and tag

The associated data is everything before the nonce, the account's name and its identity: a file that is renamed, or
copied to another account, does not open.
"""

import base64
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bearerd.core.accounts import OAuthSource, Source
from bearerd.core.redaction import Secret
from bearerd.core.tokens import TokenSet, Tombstone

MAGIC: Final = b"bearerd vault\n"
FORMAT: Final = 1
KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 8
NONCE_BYTES: Final = 12
_HEADER_BYTES: Final = len(MAGIC) + 1 + KEY_ID_BYTES
SIZE_LIMIT: Final = 1 << 20  # bytes of a file that are read at all
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{43}=?")
_URL_SAFE: Final = str.maketrans("+/", "-_")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{64}")


class VaultError(ValueError):
    """The file cannot be used as it is. The text says why, without a name of the file."""


class OtherKey(VaultError):  # noqa: N818  # the state's own name says more than a suffix
    """It is whole as far as can be seen, and sealed with another key."""


@dataclass(frozen=True, slots=True)
class Key:
    """A data key. Its id is a hash of it, and stands in every file it seals."""

    id: bytes
    value: Secret  # hexadecimal

    @property
    def raw(self) -> bytes:
        return bytes.fromhex(self.value.reveal())


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose tokens a file holds: the account's name, and a hash of what the credential belongs to.

    Two configurations that use one name for different clients or servers never touch each other's file.
    """

    account: str
    digest: str

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return f"{self.account}-{self.digest}"


def build_key(value: bytes) -> Key:
    """A key of exactly 32 bytes. Raises ValueError."""
    if len(value) != KEY_BYTES:
        raise ValueError(f"has {len(value)} bytes; a key has {KEY_BYTES}")
    return Key(hashlib.sha256(b"bearerd key id\n" + value).digest()[:KEY_ID_BYTES], Secret(value.hex()))


def parse_key(text: str) -> Key:
    """A key as it is written wherever one is: base64 of either alphabet, padded or not, or 64 hexadecimal digits.

    White space around it counts for nothing. Raises ValueError with the problem and its cure, and nothing of the text.
    """
    text = text.strip()
    if _HEX.fullmatch(text):
        return build_key(bytes.fromhex(text))
    if _BASE64.fullmatch(text):
        return build_key(base64.urlsafe_b64decode(text[:43].translate(_URL_SAFE) + "="))
    raise ValueError("is not a key of 32 bytes in base64; make one with: openssl rand -base64 32")


def encode_key(key: Key) -> str:
    """In standard base64, padded."""
    return base64.b64encode(key.raw).decode()


def build_identity(account: str, source: Source) -> Identity:
    """Issuer, token endpoint, client and resource make an identity; scopes and secrets do not."""
    parts: list[str | None] = [type(source).__name__]
    if isinstance(source, OAuthSource):
        parts += [source.issuer, source.token_endpoint, source.client_id, source.resource]
    return Identity(account, hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16])


def seal(record: TokenSet | Tombstone, identity: Identity, key: Key, nonce: bytes) -> bytes:
    """The file's bytes. `nonce` is 12 bytes that were never used with this key."""
    header = MAGIC + bytes([FORMAT]) + key.id
    text = json.dumps(_to_fields(record)).encode()
    return header + nonce + AESGCM(key.raw).encrypt(nonce, text, _associated(header, identity))


def unseal(data: bytes, identity: Identity, key: Key) -> TokenSet | Tombstone:
    """What `seal` was given. Raises OtherKey, and VaultError for what is damaged or no vault file."""
    header, rest = data[:_HEADER_BYTES], data[_HEADER_BYTES:]
    if not data.startswith(MAGIC) or len(rest) < NONCE_BYTES:
        raise VaultError("is no vault file")
    if header[len(MAGIC)] != FORMAT:
        raise VaultError(f"has format {header[len(MAGIC)]}, and this version reads format {FORMAT}")
    if header[-KEY_ID_BYTES:] != key.id:
        raise OtherKey("was sealed with another key")
    try:
        text = AESGCM(key.raw).decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], _associated(header, identity))
        return _from_fields(json.loads(text))
    except (InvalidTag, ValueError, KeyError, TypeError):
        raise VaultError("is damaged, or was made for another account") from None


def _associated(header: bytes, identity: Identity) -> bytes:
    return b"\n".join((header, identity.account.encode(), identity.digest.encode()))


def _to_fields(record: TokenSet | Tombstone) -> dict[str, Any]:
    if isinstance(record, Tombstone):
        return {"tombstone": asdict(record)}
    fields = {name: getattr(record, name) for name in TokenSet.__slots__}
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in fields.items()}


def _from_fields(fields: dict[str, Any]) -> TokenSet | Tombstone:
    if "tombstone" in fields:
        return Tombstone(**fields["tombstone"])
    secrets = {
        name: Secret(fields[name]) for name in ("access_token", "refresh_token") if fields[name] is not None
    }
    return TokenSet(**(fields | secrets))
