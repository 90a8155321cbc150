"""Problems as lines for a person: setting, what is wrong with its value, cure. No line holds a value that may be secret."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from pydantic_core import ErrorDetails

from bearerd.errors import ConfigError

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED: Final = re.compile(r"'([^']*)'")

_TEXTS: Final = {
    "missing": 'is missing; write it like "https://api.example.com/v1"',  # of all settings, only upstream
    "string_type": "is not text; put it in quotes",
    "string_too_short": "is empty; give it a value or take it out",
    "string_unicode": "is not UTF-8; write it in UTF-8",
    "too_short": "is empty; give it an element or take it out",
    "list_type": 'is not a list; write it like ["first", "second"]',
    "bool_type": "is neither true nor false; write one of them, without quotes",
    "int_type": "is not a whole number; write it in digits, without quotes",
    "greater_than_equal": "is too small; write a number from {ge} on",
    "less_than_equal": "is too large; write a number up to {le}",
}


class Problems:
    """Collects every problem before the first is raised, so that one run shows them all."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, name: str, text: str) -> None:
        self._lines.append(f"{name}: {text}")

    def check(self) -> None:
        """Raises ConfigError if there is any problem."""
        if self._lines:
            raise ConfigError("\n".join(self._lines))


def setting_name(path: Sequence[str | int]) -> str:
    """How a setting is written in the file: dotted, with quotes where TOML wants them."""
    name = ""
    for part in path:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            name += "." * bool(name) + (part if _BARE_KEY.fullmatch(part) else json.dumps(part))
    return name


def suggest(word: str, words: Iterable[str], otherwise: str, quote: str = "'") -> str:
    """A question naming the nearest of `words`, or `otherwise` where none is near."""
    near = get_close_matches(word, list(words), n=1)
    return f"did you mean {quote}{near[0]}{quote}?" if near else otherwise


def describe(error: ErrorDetails) -> str:
    """The problem and cure of what the model found. Its input is looked at for a near choice, never shown."""
    context: Mapping[str, object] = error.get("ctx", {})
    if error["type"] == "value_error":
        return str(context["error"])
    if error["type"] == "literal_error":
        choices = _QUOTED.findall(str(context["expected"]))
        cure = suggest(str(error["input"]), choices, "choose one of them")
        return f"is not one of {', '.join(choices)}; {cure}"
    return _TEXTS[error["type"]].format_map(context)
