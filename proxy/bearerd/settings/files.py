"""Files that settings name, and what is wrong with them."""

from collections.abc import Callable
from pathlib import Path

from bearerd.core.redaction import Secret
from bearerd.settings.sources import Unreadable, read_text
from bearerd.settings.values import parse_secret

PathOf = Callable[[str, str], Path]
"""The path a key's text means: relative ones start at the folder of the file they stand in."""

Problem = tuple[str, str]
"""A key of the table, and the problem with its value and the cure."""


class Invalid(Exception):  # noqa: N818  # a problem found while reading, given on as a line
    """A key's value cannot be used."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(key, text)
        self.problem: Problem = (key, text)


def load_secret(
    key: str, text: str | None, path_of: PathOf, parse: Callable[[object], Secret] = parse_secret
) -> Secret | None:
    """The secret in the file that a key names, if it names one. Raises Invalid."""
    if text is None:
        return None
    path = path_of(key, text)
    try:
        return parse(read_text(path).rstrip("\r\n"))
    except Unreadable as exc:
        raise Invalid(key, cannot_read(path, str(exc))) from None
    except ValueError as exc:
        raise Invalid(key, f"{path} {exc}") from None


def cannot_read(path: Path, why: str) -> str:
    return f"{path} cannot be read: {why}; mend that or name another file"
