"""`bearerd store`: what is done to the vault by hand."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bearerd.cli import config_option
from bearerd.errors import StoreError

if TYPE_CHECKING:
    from bearerd.core.configuration import Store
    from bearerd.settings import Loaded
    from bearerd.stores.rekey import Rekeyed

_PATH = click.Path(path_type=Path)


@click.group("store")
def command() -> None:
    """Look after the vault."""


@command.command("rekey")
@config_option
@click.option(
    "--key-source",
    "source",
    type=click.Choice(["keychain", "file", "secret"]),
    required=True,
    help="Where the new key is to be.",
)
@click.option("--key-file", type=_PATH, help="The file of the new key; it is made if it is not there.")
@click.option("--key-secret-file", type=_PATH, help="A file that holds the new key in base64.")
def rekey(path: Path | None, source: str, key_file: Path | None, key_secret_file: Path | None) -> None:
    """Seal the vault with another key.

    Stop every bearerd that uses it first. The configuration is not edited: the lines it needs go to standard output. What an interrupted run has left
    undone is done by the same command.

    Example: bearerd store rekey --key-source file
    """
    import asyncio

    from bearerd.settings import load
    from bearerd.stores.rekey import rekey as rekey_vault
    from bearerd.stores.vault import VaultFolder

    _check_options(source, key_file, key_secret_file)
    loaded = load(path, {}, os.environ)
    old = loaded.configuration.store
    if old.kind == "memory":
        raise StoreError(
            'store.kind is "memory", so there is no vault and no key to change; set it to "vault" for one'
        )
    new = _build_new(old, source, key_file, key_secret_file)
    done = asyncio.run(rekey_vault(VaultFolder(Path(old.path)), old, new))
    click.echo(format_advice(done, loaded), err=True)
    click.echo(format_toml(new, key_secret_file))


def _check_options(source: str, key_file: Path | None, key_secret_file: Path | None) -> None:
    if key_file and source != "file":
        raise click.UsageError("--key-file goes with --key-source file; take one of them, or write both")
    if bool(key_secret_file) != (source == "secret"):
        raise click.UsageError("--key-secret-file and --key-source secret go together; write both, or none")


def _build_new(old: "Store", source: str, key_file: Path | None, key_secret_file: Path | None) -> "Store":
    from dataclasses import replace

    from bearerd.settings.files import Invalid, load_secret
    from bearerd.settings.model import StoreTable
    from bearerd.settings.store import settle_store
    from bearerd.settings.values import parse_key

    text = str(key_secret_file) if key_secret_file else None
    try:
        secret = load_secret("key_secret_file", text, lambda _, name: Path(name), parse_key)
    except Invalid as exc:
        raise click.BadParameter(exc.problem[1], param_hint="--key-secret-file") from None
    file = key_file or settle_store(StoreTable()).key_file
    return replace(
        old,
        key_source=source,
        key_file=str(Path(str(file)).absolute()) if source == "file" else "",
        key_secret=secret,
    )


def format_toml(new: "Store", key_secret_file: Path | None) -> str:
    """The lines that the configuration needs; a JSON text is a TOML text too."""
    lines = ["[store]", f"key_source = {_quote(new.key_source)}"]
    if new.key_file:
        lines.append(f"key_file = {_quote(new.key_file)}")
    if key_secret_file:
        lines.append(f"key_secret_file = {_quote(str(key_secret_file.absolute()))}")
    return "\n".join(lines)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def format_advice(done: "Rekeyed", loaded: "Loaded") -> str:
    """What was done, and what is left to do by hand."""
    folder = loaded.configuration.store.path
    if done.place is None:
        lines = [f"nothing is sealed in {folder} yet, and no key was made"]
    else:
        already = f"; already so: {len(done.already)}" if done.already else ""
        lines = [f"sealed in {folder} with the key in {done.place}: {len(done.sealed)}{already}"]
    given = [
        f"{setting.name} ({setting.source})"
        for setting in loaded.settings
        if setting.name.startswith("store.key_") and setting.source != "default"
    ]
    lines.append(f"put the lines below into {loaded.path or 'the configuration file'}, beside store.path")
    if given:
        lines.append(f"in place of {', '.join(given)}")
    if done.place is not None:
        lines.append(
            "then start every bearerd of this vault again: "
            "one that still runs has the old key and can save nothing more"
        )
        lines.append("keep the old key until they have started")
    return "\n".join(lines)
