"""Keys by which clients are known: how one is made, written down, found in a request and told from all others.

A key is 256 random bits. Nobody guesses that, so its SHA-256 is what is kept, and no slow hash: that would make each wrong
key dear to us and to nobody else.
"""

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final

from bearerd.core.field_rules import canonical
from bearerd.core.fields import RawFields
from bearerd.core.redaction import Secret
from bearerd.core.rules import parse_method

PREFIX: Final = b"bearerd_"
KEY_BYTES: Final = 32
FORMAT_VERSION: Final = 1

_SHAPE: Final = re.compile(rb"bearerd_[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_LIMITS: Final = ("routes", "methods", "accounts")
_MEMBERS: Final = frozenset({"name", "sha256", "created_at", *_LIMITS})
_LATEST_AT: Final = 253_402_300_799  # 9999-12-31, the last day that RFC 3339 can write
_AUTHORIZATION: Final = b"authorization"


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A key as it is kept: `digest` is the SHA-256 of its text, `created_at` seconds of the wall clock.

    `routes` are names of routes, `methods` as on the wire, `accounts` names. Where one of them is empty, it is no limit.
    """

    name: str
    digest: bytes
    created_at: int
    routes: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    accounts: frozenset[str] = frozenset()

    @property
    def limited(self) -> bool:
        return bool(self.routes or self.methods or self.accounts)


@dataclass(frozen=True, slots=True)
class Presented:
    """What a request has where a key may be. `basic` is what a browser adds by itself, whoever wrote the page."""

    text: bytes = field(repr=False)
    basic: bool


def build_key(entropy: bytes) -> Secret:
    """The text of a new key. `entropy` is `KEY_BYTES` random bytes."""
    return Secret(f"{PREFIX.decode()}{entropy.hex()}")


def digest_of(text: bytes) -> bytes:
    return sha256(text).digest()


def find_key(keys: Iterable[ClientKey], text: bytes) -> ClientKey | None:
    """The key that `text` is. It is compared with every one to the end, so the time says nothing."""
    digest = digest_of(text)
    found = None
    for key in keys:
        if compare_digest(key.digest, digest):
            found = key
    return found


def take_keys(headers: RawFields, carriers: frozenset[bytes]) -> tuple[list[Presented], RawFields]:
    """All that could be one of our keys, in Authorization and in the fields of the canonical names `carriers`; and the fields
    without any that has a key in it, whatever it is called.

    A dummy key that a client sends because it must send one does not begin as ours do, and is none.
    """
    shown, kept = [], []
    for pair in headers:
        name, value = pair
        if PREFIX in value or len(name) == len(_AUTHORIZATION):  # hardly any field is looked at twice
            found = _presented(name, value, carriers)
            if found is not None:
                shown.append(found)
                continue
            if has_key(value):
                continue
        kept.append(pair)
    return shown, tuple(kept)


def _presented(name: bytes, value: bytes, carriers: frozenset[bytes]) -> Presented | None:
    plain = canonical(name)
    if plain == _AUTHORIZATION:
        scheme, _, rest = value.strip().partition(b" ")
        basic = scheme.lower() == b"basic"
        text = _from_basic(rest) if basic else rest.strip() if scheme.lower() == b"bearer" else b""
    elif plain in carriers:
        text, basic = value.strip(), False
    else:
        return None
    return Presented(text, basic) if text.startswith(PREFIX) else None


def _from_basic(credentials: bytes) -> bytes:
    """The password (RFC 7617 section 2), or the user name where it is that which begins as a key: some clients send it there."""
    try:
        user, _, password = b64decode(credentials.strip(), validate=True).partition(b":")
    except binascii.Error:
        return b""
    return user if user.startswith(PREFIX) and not password.startswith(PREFIX) else password


def has_key(text: bytes) -> bool:
    """Whether something that looks like a key is anywhere in `text`."""
    return PREFIX in text and _SHAPE.search(text) is not None


def check_key_name(name: str) -> str:
    """Raises ValueError, with the cure."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            "is not a name for a key; use up to 64 of A-Z, a-z, 0-9, dot, dash and underscore, a letter or digit first"
        )
    return name


def build_document(keys: Iterable[ClientKey]) -> str:
    """The file of the keys, as text. There is no key in it, only what each is held against."""
    return (
        json.dumps({"format_version": FORMAT_VERSION, "keys": [_entry(key) for key in keys]}, indent=2) + "\n"
    )


def _entry(key: ClientKey) -> dict[str, object]:
    limits = {member: sorted(getattr(key, member)) for member in _LIMITS if getattr(key, member)}
    return {"name": key.name, "sha256": key.digest.hex(), "created_at": key.created_at, **limits}


def parse_document(text: str) -> tuple[ClientKey, ...]:
    """The keys of a file. Raises ValueError, with a reason that names the entry, for one that is not quite right:

    a limit that is misspelt would be none.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(document, dict) or document.keys() != {"format_version", "keys"}:
        raise ValueError("has not format_version and keys, and nothing else, in it")
    if document["format_version"] != FORMAT_VERSION or not isinstance(document["keys"], list):
        raise ValueError(f"has another format than version {FORMAT_VERSION}")
    keys = tuple(_parse_entry(entry, place) for place, entry in enumerate(document["keys"]))
    if len({key.name for key in keys}) < len(keys):
        raise ValueError("has two keys of one name")
    return keys


def _parse_entry(entry: object, place: int) -> ClientKey:
    try:
        known = _members_of(entry)
        return ClientKey(
            check_key_name(known["name"]),
            _parse_digest(known["sha256"]),
            _parse_time(known["created_at"]),
            **_parse_limits(known),
        )
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"has something in keys[{place}] that bearerd has not written") from None


def _members_of(entry: object) -> Mapping[str, Any]:
    if not isinstance(entry, dict) or not entry.keys() <= _MEMBERS:
        raise TypeError
    return entry


def _parse_digest(text: str) -> bytes:
    if not _DIGEST.fullmatch(text):
        raise ValueError
    return bytes.fromhex(text)


def _parse_time(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _LATEST_AT:
        raise ValueError
    return value


def _parse_limits(entry: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    limits = {}
    for member in _LIMITS:
        if member in entry:
            limits[member] = _parse_names(entry[member])
    for method in limits.get("methods", ()):
        parse_method(method)
    return limits


def _parse_names(value: object) -> frozenset[str]:
    """An empty list is refused: it could be meant as nothing at all."""
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise TypeError
    return frozenset(value)
