"""What a route does to the fields of requests: where its credential goes, what is added, and what of the client's stays.

All of it is said of names, and once, when the route is made. Values enter only when a call is sent.
"""

import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

Forwarding = Literal["none", "pass", "forwarded", "x-forwarded"]
"""What an upstream is told of a client's way to us: nothing, what the client says itself, or what we say, in which fields."""

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
# Ours to make, or about the client's way to us.
_OURS: Final = HOP_BY_HOP | {b"host", b"content-length", b"expect", b"forwarded"}
_CREDENTIALS: Final = frozenset({b"authorization", b"proxy-authorization"})
_FAMILIES: Final = (b"x-forwarded-",)  # names that begin like this go as those above do
# What no setting may name, for it would not be bearerd's any more, or no credential.
_RESERVED: Final = _OURS | {b"cookie", b"max-forwards", b"via"}
_NO_CREDENTIALS: Final = (*_FAMILIES, b"access-control-", b"content-", b"sec-")

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.1
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_TEMPLATE: Final = re.compile(
    r"(?P<before>[^{}]*)"
    r"(?:\{token\}|\{base64:(?P<inner>[^{}]*)\{token\}(?P<rest>[^{}]*)\})"
    r"(?P<after>[^{}]*)"
)
_BAD_FIELD: Final = 'is not a field; write it like "Authorization: Bearer {token}"'
_BAD_TEMPLATE: Final = (
    'must have {token} in its value once; write it like "Authorization: Bearer {token}", '
    'or for Basic "Authorization: Basic {base64:user:{token}}"'
)


@dataclass(frozen=True, slots=True)
class Credential:
    """The field that carries the token: its name, and what its value has before and after the token.

    With `encoded` the token stands between these two texts, and base64 is what they make together: a user name and a
    colon before it is Basic (RFC 7617 section 2).
    """

    name: bytes = b"Authorization"
    before: bytes = b"Bearer "
    after: bytes = b""
    encoded: tuple[bytes, bytes] | None = None

    def field(self, token: bytes) -> tuple[bytes, bytes]:
        """The field with `token` in it. It is a secret, whatever its name."""
        return self.name, self.before + self.encode(token) + self.after

    def encode(self, token: bytes) -> bytes:
        """What stands for `token` between `before` and `after`."""
        return token if self.encoded is None else b64encode(self.encoded[0] + token + self.encoded[1])


@dataclass(frozen=True, slots=True)
class FieldRules:
    """`dropped` are canonical names, `families` beginnings of them: fields of a client's that stay here.

    `added` are the route's own. `forwarded` says what is told of a client's way to us. `credential` is set last; with None a call goes with the client's own. `own` are the rules for a call that has
    brought one, where that may be.
    """

    credential: Credential | None
    dropped: frozenset[bytes]
    families: tuple[bytes, ...] = _FAMILIES
    added: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    forwarded: Forwarding = "none"
    own: "FieldRules | None" = None

    @property
    def carrier(self) -> bytes:
        """The name of the field that carries our credential; empty where none does."""
        return b"" if self.credential is None else self.credential.name

    def drops(self, name: bytes) -> bool:
        """Whether a client's field of this name (lower case) stays here, whatever else Connection names.

        Many frameworks read an underscore as a hyphen, so every spelling goes.
        """
        plain = name.replace(b"_", b"-")
        if plain in self.dropped or plain.startswith(self.families):
            return True
        return plain != name and plain.startswith(_FAMILIES)  # nobody vouches for another spelling


def build_field_rules(
    credential: Credential = Credential(),
    *,
    if_absent: bool = False,
    added: Iterable[tuple[bytes, bytes]] = (),
    dropped: Iterable[bytes] = (),
    forwarded: Forwarding = "none",
) -> FieldRules:
    """The rules of a route. `if_absent` lets a client's own credential pass in place of ours.

    `added` replace what the client has of these names, `dropped` are further names of fields that stay here.
    `forwarded` is ``pass`` where the client's word of its way to us is passed on.
    """
    added = tuple(added)
    name = canonical(credential.name)
    families = () if forwarded == "pass" else _FAMILIES
    stays = _OURS | _CREDENTIALS | {canonical(other) for other in (*dropped, *(pair[0] for pair in added))}
    if forwarded == "pass":
        stays -= {b"forwarded"}
    own = FieldRules(None, stays - {name}, families, added, forwarded) if if_absent else None
    return FieldRules(credential, stays | {name}, families, added, forwarded, own)


def canonical(name: bytes) -> bytes:
    """The one name that all spellings of a field's name stand for."""
    return name.lower().replace(b"_", b"-")


def parse_credential(text: str) -> Credential:
    """From ``Name: value`` with one ``{token}`` or ``{base64:text{token}text}`` in the value.

    Raises ValueError with a reason that names the cure and never the text: somebody may have put a token there.
    """
    name, colon, value = text.partition(":")
    value = value.strip(" ")
    if not colon or not _NAME.fullmatch(name):
        raise ValueError(_BAD_FIELD)
    check_credential_name(name)
    if not _VALUE.fullmatch(value):
        raise ValueError("has a value with something other than printable ASCII in it; take that out")
    found = _TEMPLATE.fullmatch(value)
    if found is None:
        raise ValueError(_BAD_TEMPLATE)
    before, inner, rest, after = (
        None if part is None else part.encode("ascii")
        for part in found.group("before", "inner", "rest", "after")
    )
    return Credential(
        name.encode("ascii"),
        before or b"",
        after or b"",
        None if inner is None or rest is None else (inner, rest),
    )


def check_credential_name(name: str) -> None:
    """Raises ValueError for a field that is bearerd's own to make, or that means something else than a credential."""
    plain = canonical(name.encode("ascii"))
    if plain in _RESERVED or plain.startswith(_NO_CREDENTIALS):
        raise ValueError(
            f"{name} cannot carry a token; name another field, such as Authorization or X-Api-Key"
        )


def check_field_name(name: str) -> str:
    """The name of a field that a route may add or drop. Raises ValueError for any other, with the cure."""
    if not _NAME.fullmatch(name):
        raise ValueError('has a name in it that is no field\'s; write it like "X-Api-Version"')
    plain = canonical(name.encode("ascii"))
    if plain in _CREDENTIALS:
        raise ValueError(f"{name} is a field for credentials; take it out, and see credential of the route")
    if plain == b"cookie":
        raise ValueError(f"{name} is not for this; take it out, and see cookies of the route")
    if plain in _RESERVED or plain.startswith(_FAMILIES):
        raise ValueError(f"{name} is bearerd's own to make or to drop; take it out")
    return name


def check_field_value(name: str, value: str) -> None:
    """Raises ValueError for what cannot be the value of a field that a route adds; it does not show the value."""
    if not _VALUE.fullmatch(value):
        raise ValueError(f"{name} is empty or has something other than printable ASCII in it; mend that")
    if "{token}" in value:
        raise ValueError(f"{name} has {{token}} in it, which is for credential alone; write it there")


DEFAULT_RULES: Final = build_field_rules()
