"""What another configuration changes while a daemon runs, and what it cannot change."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from enum import Enum, auto
from typing import Any, Final

from bearerd.core.accounts import Account, OAuthSource
from bearerd.core.configuration import Configuration
from bearerd.core.vault import build_identity

Name = tuple[str, ...]
"""A setting or a table: section and key, section and name, or a section."""

_MOVABLE: Final = frozenset({"allowed_hosts", "public_url", "allowed_origins"})  # of where it listens
_OF_TRACES: Final = frozenset({"traces", "traces_endpoint"})


class Fate(Enum):
    """What becomes of an account: of its token, its timers, a refresh or a login that is under way."""

    ADDED = auto()  # there was none of its name
    KEPT = auto()  # nothing has changed: all of it goes on
    RENEWED = auto()  # it is the same credential, asked for in another way from now on: all of it goes on too
    REPLACED = auto()  # it is another, which begins from its store; the earlier one ends


@dataclass(frozen=True, slots=True)
class Changes:
    """Accounts, routes and other settings, each in the order of its name."""

    added: tuple[Name, ...] = ()
    changed: tuple[Name, ...] = ()
    removed: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a reload, for people: the `problems` for which nothing has changed, a line each, or what did change."""

    problems: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def decide_fate(old: Account | None, new: Account) -> Fate:
    """What becomes of `old`, in force under the name of `new` till now.

    A login belongs to an identity, so whatever else changes, its refresh token stays in one hand. A refresh token in the
    configuration that is not the one it began with is another login. Where nothing is spent, a token that was
    asked for with other words is of no use to who has changed them.
    """
    if old is None:
        return Fate.ADDED
    if old == new:
        return Fate.KEPT
    one, other = old.source, new.source
    if not isinstance(one, OAuthSource) or not isinstance(other, OAuthSource):
        return Fate.REPLACED
    if one.spends != other.spends or build_identity(old.name, one) != build_identity(new.name, other):
        return Fate.REPLACED
    same = other.refresh_token in {None, one.refresh_token} if one.spends else _asks(one) == _asks(other)
    return Fate.RENEWED if same else Fate.REPLACED


def _asks(source: OAuthSource) -> tuple[object, ...]:
    return source.scopes, source.audience


def list_fixed(old: Configuration, new: Configuration) -> tuple[Name, ...]:
    """The settings that have changed and cannot while a daemon runs: where it listens, where its tokens are, who is told of
    traces.
    """
    return tuple(
        name
        for name in _list_settings(old, new, ("listen", "store", "log"))
        if not (name[0] == "listen" and name[1] in _MOVABLE)
        and not (name[0] == "log" and name[1] not in _OF_TRACES)
    )


def compare(old: Configuration, new: Configuration) -> Changes:
    """What is other than it was."""
    accounts = _compare("accounts", old.accounts, new.accounts)
    routes = _compare(
        "routes", {route.name: route for route in old.routes}, {route.name: route for route in new.routes}
    )
    settings = list(_list_settings(old, new, ("listen", "keys", "limits", "log")))
    if old.on_login_needed != new.on_login_needed:
        settings.append(("hooks", "on_login_needed"))
    return Changes(
        (*accounts.added, *routes.added),
        (*accounts.changed, *routes.changed, *settings),
        (*accounts.removed, *routes.removed),
    )


def _compare(section: str, old: Mapping[str, object], new: Mapping[str, object]) -> Changes:
    return Changes(
        _names(section, new.keys() - old.keys()),
        _names(section, (name for name in new.keys() & old.keys() if new[name] != old[name])),
        _names(section, old.keys() - new.keys()),
    )


def _names(section: str, names: Iterable[str]) -> tuple[Name, ...]:
    return tuple((section, name) for name in sorted(names))


def _list_settings(old: Configuration, new: Configuration, sections: Iterable[str]) -> Iterator[Name]:
    for section in sections:
        yield from _differing(section, getattr(old, section), getattr(new, section))


def _differing(section: str, old: Any, new: Any) -> Iterator[tuple[str, str]]:
    """The settings in which two values of one class differ. Durations are written without their unit."""
    for field in fields(old):
        if getattr(old, field.name) != getattr(new, field.name):
            yield section, field.name.removesuffix("_s")
