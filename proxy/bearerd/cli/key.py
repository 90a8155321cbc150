"""`bearerd key`: the keys by which a daemon knows its clients."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bearerd.cli import config_option
from bearerd.cli.completing import complete_account, complete_route
from bearerd.cli.naming import refuse_name

if TYPE_CHECKING:
    from bearerd.core.client_keys import ClientKey
    from bearerd.core.configuration import Configuration
    from bearerd.stores.client_keys import ClientKeyFile

FORMAT_VERSION: Final = 1


@click.group("key")
def command() -> None:
    """Make and revoke the keys of clients."""


@command.command("create")
@click.argument("name")
@config_option
@click.option(
    "--route",
    "routes",
    multiple=True,
    metavar="PREFIX",
    shell_complete=complete_route,
    help="A route it is for; may be given again.",
)
@click.option("--method", "methods", multiple=True, help="A method it is for; may be given again.")
@click.option(
    "--account",
    "accounts",
    multiple=True,
    shell_complete=complete_account,
    help="An account it is for; may be given again.",
)
def create(
    name: str, path: Path | None, routes: Sequence[str], methods: Sequence[str], accounts: Sequence[str]
) -> None:
    """Make a key and print it.

    It is shown this once: what is kept cannot be turned back into it.

    It is for all routes, methods and accounts unless some are named. A running bearerd knows it at its next call.

    Example: bearerd key create ci --route /github --method GET
    """
    import secrets
    import time

    from bearerd.core.client_keys import KEY_BYTES, ClientKey, build_key, digest_of

    configuration, file = _load(path)
    key = build_key(secrets.token_bytes(KEY_BYTES)).reveal()
    added = ClientKey(
        _check_name(name),
        digest_of(key.encode("ascii")),
        int(time.time()),
        frozenset(_find_route(configuration, prefix) for prefix in routes),
        frozenset(_check_method(method) for method in methods),
        frozenset(_find_account(configuration, account) for account in accounts),
    )

    def add(keys: tuple["ClientKey", ...]) -> Sequence["ClientKey"]:
        if any(key.name == name for key in keys):
            raise click.UsageError(f"there is a key called {name} already; revoke it, or choose another name")
        return *keys, added

    file.change(add)
    click.echo(key)
    click.echo(format_advice(configuration, name, file), err=True)


@command.command("list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print a document for programs.")
def list_(path: Path | None, *, as_json: bool) -> None:
    """List the keys, their age and their limits.

    Example: bearerd key list
    """
    keys = _load(path)[1].load()
    if as_json:
        document = {"format_version": FORMAT_VERSION, "keys": [_document(key) for key in keys]}
        click.echo(json.dumps(document, indent=2))
    else:
        for key in keys:
            click.echo(format_key(key))
        if not keys:
            click.echo("no keys; make one with: bearerd key create NAME", err=True)


@command.command("revoke")
@click.argument("name")
@config_option
def revoke(name: str, path: Path | None) -> None:
    """Take a key back.

    A running bearerd lets no further call of it in; those under way go on.

    Example: bearerd key revoke ci
    """
    _, file = _load(path)

    def remove(keys: tuple["ClientKey", ...]) -> Sequence["ClientKey"]:
        kept = [key for key in keys if key.name != name]
        if len(kept) == len(keys):
            refuse_name("key", name, [key.name for key in keys], "NAME")
        return kept

    file.change(remove)
    click.echo(f"revoked {name} in {file}", err=True)


def _load(path: Path | None) -> tuple["Configuration", "ClientKeyFile"]:
    from bearerd.settings import load
    from bearerd.stores.client_keys import ClientKeyFile

    configuration = load(path, {}, os.environ).configuration
    return configuration, ClientKeyFile(Path(configuration.keys.file))


def _check_name(name: str) -> str:
    from bearerd.core.client_keys import check_key_name

    try:
        return check_key_name(name)
    except ValueError as problem:
        raise click.BadParameter(str(problem), param_hint="NAME") from None


def _check_method(method: str) -> str:
    from bearerd.core.rules import parse_method

    try:
        return parse_method(method)
    except ValueError as problem:
        raise click.BadParameter(str(problem), param_hint="--method") from None


def _find_route(configuration: "Configuration", prefix: str) -> str:
    """The name of a configured route: one that is misspelt would be a key for nothing."""
    names = [route.name for route in configuration.routes]
    name = prefix.rstrip("/") or "/"
    return _find(name, names, "--route", "route")


def _find_account(configuration: "Configuration", account: str) -> str:
    return _find(account, configuration.accounts, "--account", "account")


def _find(name: str, names: Iterable[str], option: str, what: str) -> str:
    if name not in names:
        refuse_name(what, name, names, option)
    return name


def format_advice(configuration: "Configuration", name: str, file: "ClientKeyFile") -> str:
    """What else there is to do."""
    lines = [f"key {name} is in {file}, as a hash; the key itself is shown this once"]
    if configuration.keys.use == "off":
        lines.append('no key is asked for yet: write use = "required" under [keys] and start bearerd again')
    lines.append(
        "give it to the client as its API key: Authorization: Bearer, X-Api-Key or the password of Basic"
    )
    return "\n".join(lines)


def format_key(key: "ClientKey") -> str:
    """A line for people."""
    limits = (("routes", key.routes), ("methods", key.methods), ("accounts", key.accounts))
    shown = [f"{what} {', '.join(sorted(names))}" for what, names in limits if names]
    return f"{key.name}  since {_instant(key.created_at)}  {'; '.join(shown) or 'no limits'}"


def _document(key: "ClientKey") -> dict[str, object]:
    limits = {"routes": key.routes, "methods": key.methods, "accounts": key.accounts}
    return {
        "name": key.name,
        "created": {"epoch": key.created_at, "rfc3339": _instant(key.created_at)},
        **{what: sorted(names) or None for what, names in limits.items()},
    }


def _instant(at: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
