"""An event as one line of JSON, with everything secret in it masked."""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _encode
from math import isfinite
from typing import Final

from bearerd.core.redaction import MASK, is_secret, redact_text, redact_value

_FIRST: Final = ("timestamp", "level", "event")  # what people look for


def build_line(event: Mapping[str, object]) -> str:
    """In ASCII, without a line end, and JSON as RFC 8259 has it: a number that it has not is a text there.

    Most events have nothing but texts and numbers, which are written without a look at their depth.
    """
    names = [key for key in _FIRST if key in event]
    names += [key for key in event if key not in _FIRST]
    line = ", ".join([_write(key, event[key]) for key in names])
    return f"{{{line}}}".replace("\x7f", "\\u007f")


def _write(key: str, value: object) -> str:
    name, secret = _name(key)
    if secret:
        return name + _MASKED
    write = _WRITERS.get(type(value))
    return name + (json.dumps(redact_value(key, value)) if write is None else write(value))


@lru_cache(maxsize=512)
def _name(key: str) -> tuple[str, bool]:
    """A name as it is written, and whether its value is secret. Names are the code's own, so there are few."""
    return f"{_encode(key)}: ", is_secret(key)


def _text(value: object) -> str:
    return _encode(redact_text(str(value)))


def _float(value: object) -> str:
    text = repr(value)
    return text if isfinite(float(text)) else _encode(text)


_MASKED: Final = _encode(MASK)
_WRITERS: Final[dict[type, Callable[[object], str]]] = {
    str: _text,
    int: repr,
    float: _float,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "null",
}
