"""Presets: a complete configuration for each provider, with placeholders that a person replaces.

They are files to read and to copy, so they are changed as text: what they say stays beside what is filled in.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bearerd.settings.problems import setting_name
from bearerd.shipped import find_shipped

ACCOUNT: Final = "work"
SECRET: Final = "client_secret_file"  # noqa: S105  # the name of a key
_PLACEHOLDER: Final = re.compile(r"YOUR-[A-Z-]*[A-Z]")
_PART: Final = r"[A-Za-z0-9._~-]+"  # of a host or a path
_EXAMPLE: Final = re.compile(r"\bexample\.com\b")
_TITLE: Final = re.compile(r"# (.*)\n")
_REPLACE: Final = re.compile(r"(?m)^# Replace what begins with .*\n")
_ASKED: Final = ("issuer", "client_id", "audience", "upstream")


@dataclass(frozen=True, slots=True)
class Preset:
    """A file as it is. `title` is its first line."""

    name: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """A value that is not one yet. `placeholder` is what of it is to be replaced, or None for all of it."""

    key: str
    value: str
    placeholder: str | None

    @property
    def whole(self) -> bool:
        return self.placeholder in {None, self.value}


def load_presets(folder: Path | None = None) -> dict[str, Preset]:
    """All presets by name. Raises BearerdError where they were not installed."""
    files = sorted((folder or find_shipped("providers")).glob("*.toml"))
    texts = {file.stem: file.read_text(encoding="utf-8") for file in files}
    return {name: Preset(name, _first_line(text), text) for name, text in texts.items()}


def _first_line(text: str) -> str:
    found = _TITLE.match(text)
    return found[1] if found else ""


def name_account(text: str, account: str) -> str:
    """The text with another account in place of the preset's."""
    header = f"[{setting_name(('accounts', account))}]"
    text = text.replace(f"[accounts.{ACCOUNT}]", header)
    text = text.replace(f'"{ACCOUNT}-client-secret"', json.dumps(f"{account}-client-secret"))
    return _REPLACE.sub("", text)


def list_questions(text: str) -> Iterator[Question]:
    """What is still to be replaced, a question for each key."""
    values = read_values(text)
    for key in _ASKED:
        value = values.get(key)
        if not isinstance(value, str):
            continue
        placeholder = _PLACEHOLDER.search(value)
        if _EXAMPLE.search(value):
            yield Question(key, value, None)
        elif placeholder:
            yield Question(key, value, placeholder[0])


def read_values(text: str) -> dict[str, Any]:
    """The keys of the account and of the route together."""
    document = tomllib.loads(text)
    (account,) = document["accounts"].values()
    (route,) = document["routes"].values()
    return {**account, **route}


def replace_part(text: str, placeholder: str, part: str) -> str:
    """The text with a part of an address in place of a placeholder, wherever that stands. Raises ValueError."""
    if not re.fullmatch(_PART, part):
        raise ValueError(f"write only what takes the place of {placeholder}, or the whole address")
    return text.replace(placeholder, part)


def replace_value(text: str, key: str, value: str | Sequence[str]) -> str:
    """The text with a key's value, and with what that tells of placeholders elsewhere."""
    before = read_values(text).get(key)
    line = f"{key} = {_toml(value)}"
    text, found = re.subn(rf"(?m)^#?{key} = .*$", lambda _: line, text, count=1)
    if not found:
        text = text.replace("\n\n[routes.", f"\n{line}\n\n[routes.", 1)
    for placeholder, part in _learn(before, value):
        text = text.replace(placeholder, part)
    return text


def remove_value(text: str, key: str) -> str:
    """The text with a key's line made a remark."""
    return re.sub(rf"(?m)^(?={key} = )", "#", text)


def _learn(pattern: object, value: str | Sequence[str]) -> Iterator[tuple[str, str]]:
    """Which parts of a value stand where a preset's value has placeholders."""
    if not isinstance(pattern, str) or not isinstance(value, str):
        return
    names = _PLACEHOLDER.findall(pattern)
    expression = f"({_PART})".join(re.escape(part) for part in _PLACEHOLDER.split(pattern))
    if matched := re.fullmatch(expression, value):
        yield from zip(names, matched.groups(), strict=True)


def _toml(value: str | Sequence[str]) -> str:
    """JSON's texts and lists of them are TOML's, but for one character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
