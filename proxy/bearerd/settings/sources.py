"""Where values come from: the file, the environment, flags. Each gives values by path, with their origin."""

import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeGuard, get_origin

from pydantic.fields import FieldInfo

from bearerd.places import CONFIG_VARIABLE
from bearerd.settings.model import JSON_ONLY, NAMED, SINGLE, Table
from bearerd.settings.problems import Problems, setting_name, suggest

SettingPath = tuple[str, ...]

PREFIX: Final = "BEARERD_"
UPSTREAM_VARIABLE: Final = "BEARERD_UPSTREAM"
HOOK_VARIABLES: Final = frozenset({"BEARERD_LOGIN_ACCOUNT", "BEARERD_LOGIN_URL"})
"""What hooks are run with. They set nothing; a hook may run bearerd."""
PRECEDENCE: Final = ("flag", "environment", "file")
TEXT_LIMIT: Final = 64 << 10

_FLAGS: Final = {"port": ("listen", "port"), "log_level": ("log", "level")}
_BOOLEANS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
# Kubernetes and Docker set these in every container for a service that is called bearerd or bearerd-something.
_SERVICE_LINK: Final = re.compile(
    r"BEARERD_(?!\w*__)(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)"
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value stands: kind is flag, environment or file; name the flag, the variable or the path."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was written, which may be a secret, and its origin."""

    value: object = field(repr=False)
    origin: Origin


Values = dict[SettingPath, Given]
"""By path: section and key, or section, name and key. A table has an entry too, for its being there."""


class Unreadable(Exception):  # noqa: N818  # a reason, given on as part of a line
    """A file cannot be read. The text says why, without its name and without anything it holds."""


def read_text(path: Path, limit: int = TEXT_LIMIT) -> str:
    """At most `limit` bytes of UTF-8, with or without a mark of byte order. Raises Unreadable."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as exc:
        raise Unreadable(reason(exc)) from None
    if len(content) > limit:
        raise Unreadable(f"it is larger than {limit >> 10} KiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8") from None


def reason(exc: OSError) -> str:
    """The system's word for an error, without the file's name."""
    return os.strerror(exc.errno or 0).lower()


def read_file(path: Path, problems: Problems) -> Values:
    """The values of a TOML file."""
    try:
        document = tomllib.loads(read_text(path, limit=1 << 20))
    except Unreadable as exc:
        problems.add(str(path), f"cannot be read: {exc}; mend that or name another file with -c")
        return {}
    except RecursionError:
        problems.add(str(path), "is nested too deeply; write plain tables")
        return {}
    except ValueError as exc:
        problems.add(str(path), f"is not TOML: {str(exc)[:1].lower()}{str(exc)[1:]}; mend that line")
        return {}
    origin = Origin("file", str(path))
    return {place: Given(value, origin) for place, value in _leaves(document, problems)}


def _leaves(document: Mapping[str, Any], problems: Problems) -> Iterator[tuple[SettingPath, object]]:
    for section, content in document.items():
        if section in SINGLE:
            yield from _table((section,), content, SINGLE[section], problems)
        elif section not in NAMED:
            problems.add(setting_name([section]), _unknown(section, [*SINGLE, *NAMED]))
        elif _is_table(content, (section,), problems):
            for name, inner in content.items():
                yield from _table((section, name), inner, NAMED[section], problems)


def _table(
    path: SettingPath, content: object, table: type[Table], problems: Problems
) -> Iterator[tuple[SettingPath, object]]:
    if not _is_table(content, path, problems):
        return
    yield path, content
    for key, value in content.items():
        if key in table.model_fields:
            yield (*path, key), value
        else:
            problems.add(setting_name([*path, key]), _unknown(key, table.model_fields))


def _is_table(content: object, path: SettingPath, problems: Problems) -> TypeGuard[dict[str, object]]:
    if isinstance(content, dict):
        return True
    problems.add(setting_name(path), f"is not a table; write [{setting_name(path)}] above its keys")
    return False


def _unknown(key: str, siblings: Iterable[str]) -> str:
    homes = [f"[{name}]" for name, table in SINGLE.items() if key in table.model_fields]
    homes += [f"[{name}.NAME]" for name, table in NAMED.items() if key in table.model_fields]
    otherwise = "take it out, or see docs/configuration.md"
    cure = f"it belongs in {' or '.join(homes)}" if homes else suggest(key, siblings, otherwise)
    return f"unknown setting; {cure}"


def read_environment(environ: Mapping[str, str], known: Values, problems: Problems) -> Values:
    """The values of ``BEARERD_`` variables. `known` are the file's, whose names of routes and accounts are used."""
    values: Values = {}
    for variable, text in environ.items():
        name = variable.upper()
        if not name.startswith(PREFIX) or _sets_nothing(name, text):
            continue
        origin = Origin("environment", variable)
        if name == UPSTREAM_VARIABLE:
            values |= _upstreams(_split_list(text), origin, known, problems)
        elif path := _locate(variable[len(PREFIX) :]):
            field_info = (SINGLE | NAMED)[path[0]].model_fields[path[-1]]
            values |= _placed(path, Given(_decode(text, field_info), origin), known)
        else:
            otherwise = "unset it, or see docs/configuration.md"
            cure = suggest(name, _variables(name, known), otherwise, quote="")
            problems.add(variable, f"unknown variable; {cure}")
    return values


def _sets_nothing(name: str, text: str) -> bool:
    """Whether a variable with our prefix is for another purpose, or another's."""
    if name == CONFIG_VARIABLE or name in HOOK_VARIABLES or _SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and text.startswith(("tcp://", "udp://", "sctp://"))


def _locate(name: str) -> SettingPath | None:
    """The setting a variable sets, from its name without the prefix."""
    parts = name.split("__")
    section, middle, key = parts[0].lower(), "__".join(parts[1:-1]), parts[-1].lower()
    if section in SINGLE and not middle and key in SINGLE[section].model_fields:
        return section, key
    if section in NAMED and middle and key in NAMED[section].model_fields:
        return section, middle.lower() if section == "accounts" else middle, key
    return None


def _variables(name: str, known: Values) -> Iterator[str]:
    """The names there are, with the names of accounts and routes that `name` itself and the file have."""
    yield from (CONFIG_VARIABLE, UPSTREAM_VARIABLE)
    guess = "__".join(name.split("__")[1:-1])
    for section, table in SINGLE.items():
        yield from (variable_name((section, key)) for key in table.model_fields)
    for section, table in NAMED.items():
        names = {path[1] for path in known if path[0] == section} | ({guess} if guess else set())
        yield from (
            variable_name((section, inner, key)) for inner in sorted(names) for key in table.model_fields
        )


def variable_name(path: SettingPath) -> str:
    """The environment's name of a setting. A route's prefix stands as it is, for its case matters."""
    parts = [part if path[0] == "routes" and place == 1 else part.upper() for place, part in enumerate(path)]
    return PREFIX + "__".join(parts)


def _decode(text: str, info: FieldInfo) -> object:
    """A variable's text as the file would have it. What cannot be one stays text, for the model to refuse."""
    if info.annotation is int and text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    if info.annotation is bool:
        return _BOOLEANS.get(text.lower(), text)
    kind = get_origin(info.annotation)
    if kind is dict:
        return _decode_json(text)
    if kind is not list:
        return text
    if text.lstrip().startswith("["):
        return _decode_json(text)
    return text if JSON_ONLY in info.metadata else _split_list(text)


def _decode_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _split_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _placed(path: SettingPath, given: Given, known: Values) -> Values:
    """A value at its path, under the file's spelling of a route where the file has it."""
    if path[0] == "routes":
        path = ("routes", _spelling(path[1], known), *path[2:])
    return {path[:-1]: given, path: given}


def _spelling(prefix: str, known: Values) -> str:
    written = (path[1] for path in known if path[0] == "routes")
    return next((other for other in written if other.rstrip("/") == prefix.rstrip("/")), prefix)


def read_flags(flags: Mapping[str, object], known: Values, problems: Problems) -> Values:
    """The values of flags. `known` are those of file and environment."""
    values: Values = {}
    for flag, value in flags.items():
        origin = Origin("flag", f"--{flag.replace('_', '-')}")
        if isinstance(value, tuple):
            values |= _upstreams(value, origin, known, problems)
        else:
            values |= _placed(_FLAGS[flag], Given(value, origin), known)
    return values


def _upstreams(items: Iterable[str], origin: Origin, known: Values, problems: Problems) -> Values:
    """Routes from ``URL``, which is for the root, or ``/prefix=URL``."""
    values: Values = {}
    for item in items:
        prefix, _, url = item.partition("=") if item.startswith("/") else ("/", "", item)
        placed = _placed(("routes", prefix, "upstream"), Given(url, origin), known | values)
        if placed.keys() & values.keys():
            problems.add(origin.name, f"names the route {prefix} twice; keep one of them")
        values |= placed
    return values


def build_tree(values: Values) -> dict[str, Any]:
    """The values as nested tables."""
    tree: dict[str, Any] = {}
    for path, given in values.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        if is_table(path):
            node.setdefault(path[-1], {})
        else:
            node[path[-1]] = given.value
    return tree


def is_table(path: SettingPath) -> bool:
    """True for the entry of a table, not of a key in one."""
    return len(path) < (3 if path[0] in NAMED else 2)
