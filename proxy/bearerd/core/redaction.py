"""Values that must not be read in any text."""

import re
from typing import Final

MASK: Final = "**********"

_SCHEME: Final = re.compile(r"(?i)\b(bearer|basic|dpop|token)(\s+|%20)[A-Za-z0-9._~+/=|:-]{6,}")
_PAIR: Final = re.compile(
    r"(?i)\b([\w-]*(?:token|secret|password|passwd|assertion|api[_-]?key|code_verifier))(\"?\s*[=:]\s*\"?)[^\s\"&,;}]+"
)
_JWT: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")

SECRET_KEYS: Final = frozenset(
    {
        "access_token",
        "assertion",
        "authorization",
        "client_secret",
        "code",
        "code_verifier",
        "cookie",
        "id_token",
        "password",
        "proxy_authorization",
        "refresh_token",
        "secret",
        "set_cookie",
        "state",
        "token",
    }
)


class Secret:
    """A text that shows itself only when asked by name.

    ``str``, ``repr`` and formatting give a mask; pickling is refused.
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

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")


def redact_text(text: str) -> str:
    """Mask what looks like a credential: scheme and token, key and value, JWT."""
    text = _JWT.sub(MASK, text)
    text = _PAIR.sub(lambda found: f"{found[1]}{found[2]}{MASK}", text)
    return _SCHEME.sub(lambda found: f"{found[1]}{found[2]}{MASK}", text)


def redact_value(key: str, value: object) -> object:
    """What a log may show for `key`: the value with everything secret in it masked, at any depth."""
    if key.lower().replace("-", "_") in SECRET_KEYS:
        return MASK
    match value:
        case str():
            return redact_text(value)
        case bytes():
            return redact_text(value.decode("latin-1"))
        case dict():
            return {name: redact_value(str(name), inner) for name, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [redact_value(key, inner) for inner in value]
        case _:
            return value
