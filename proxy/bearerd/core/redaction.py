"""Values that must not be read in any text."""

import re
from collections.abc import Mapping
from math import isfinite
from typing import Final, Self

MASK: Final = "**********"
_OPENING: Final = re.compile(r"\\*[\"']")

# Paths and peers' texts come through here, so none of these may take more than linear time: no pattern begins
# with a repeat, and whatever a repeat has consumed is either masked or never looked at by the next attempt.
_NAMES: Final = r"token|secret|password|passwd|assertion|api[_-]?key|private_key|code_verifier"
_QUOTED: Final = r"\"(?:[^\"\\]|\\.)*|'(?:[^'\\]|\\.)*|\\+[\"'][^\"'\\]*"
_IS: Final = r"(?:\\*[\"'])?\s*(?:[=:]|%3d)\s*"
_PATTERNS: Final = (
    re.compile(r"(?i)((?:cookie|authorization)" + _IS + r")(?:" + _QUOTED + r"|[^\r\n\"'\\]+)"),
    re.compile(r"(?i)((?:" + _NAMES + r")" + _IS + r")(?:" + _QUOTED + r"|[^\s\"'\\&,;}]+)"),
    re.compile(r"(?i)([?&](?:code|state|device_code|user_code)=)[^\s\"'\\&#]+"),
    re.compile(r"(?i)(\b(?:bearer|basic|dpop)(?:\s+|%20))[A-Za-z0-9._~+/=|:-]{6,}"),
    re.compile(r"(?i)(\btoken(?:\s+|%20))(?=[a-z._~+/=|:-]*[0-9])[A-Za-z0-9._~+/=|:-]{6,}"),
    re.compile(r"(://)[^/\s@\"']+(?=@)"),
    re.compile(r"(bearerd_)[0-9a-f]{64}"),
    re.compile(r"((?<![A-Za-z0-9]))eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*"),
)
# No pattern but the last matches anything without one of = : % _ or white space. Most texts have none, and that is quickly seen.
_PLAIN: Final = re.compile(r"[A-Za-z0-9/.-]*")
# What every match of a pattern has in it, lower case. Most texts have none of it, and searching for these is cheap.
_TRACES: Final = (
    "token",
    "secret",
    "passw",
    "assertion",
    "api",
    "private_key",
    "code",
    "state=",
    "cookie",
    "authorization",
    "bearer",  # and bearerd_
    "basic",
    "dpop",
    "://",
    "eyj",
)

SECRET_KEYS: Final = frozenset({"authorization", "code", "proxy_authorization", "state"})
_SECRET_ENDINGS: Final = (
    "api_key",
    "apikey",
    "assertion",
    "code_verifier",
    "cookie",
    "device_code",
    "passwd",
    "password",
    "private_key",
    "secret",
    "token",
)


class Secret:
    """A text that shows itself only when asked by name.

    ``str``, ``repr`` and formatting give a mask; pickling is refused; a copy is the same object.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself. Every caller is a place where a secret leaves: keep them few."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")


def redact_text(text: str) -> str:
    """Mask what looks like a credential: scheme and token, key and value, user name in a URL, JWT."""
    if _PLAIN.fullmatch(text) and "eyJ" not in text:
        return text
    lower = text.lower()
    if not any(trace in lower for trace in _TRACES):
        return text
    for pattern in _PATTERNS:
        text = pattern.sub(_mask, text)
    return text


def _mask(found: re.Match[str]) -> str:
    """Keeps the name, and the opening quote of a quoted value."""
    quote = _OPENING.match(found[0], found.end(1) - found.start())
    return found[1] + (quote[0] if quote else "") + MASK


def redact_value(key: str, value: object) -> object:
    """What a log may show for `key`: the value with everything secret in it masked, at any depth."""
    if is_secret(key):
        return MASK
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if isfinite(value) else repr(value)  # which JSON has not
        case Mapping():
            return {
                redact_text(_text(name)): redact_value(_text(name), inner) for name, inner in value.items()
            }
        case tuple((str() | bytes() as name, inner)):  # a field, as headers come
            return [redact_text(_text(name)), redact_value(_text(name), inner)]
        case list() | tuple() | set() | frozenset():
            return [redact_value(key, inner) for inner in value]
        case BaseException():  # what it says may hold anything
            return type(value).__qualname__
        case _:
            return redact_text(_text(value))


def is_secret(key: str) -> bool:
    """Whether the values that are called so are."""
    name = key.lower().replace("-", "_")
    return name in SECRET_KEYS or name.endswith(_SECRET_ENDINGS)


def _text(value: object) -> str:
    return bytes(value).decode("latin-1") if isinstance(value, bytes | bytearray) else str(value)
