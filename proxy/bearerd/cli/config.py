"""`bearerd config`: is the configuration good, what is in effect, and what may be in it."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bearerd.cli import config_option

if TYPE_CHECKING:
    from bearerd.settings import Loaded

FORMAT_VERSION: Final = 1


@click.group("config")
def command() -> None:
    """Check, show or describe the configuration."""


@command.command("check")
@config_option
def check(path: Path | None) -> None:
    """Say whether the configuration is good.

    Every problem is a line: the setting, what is wrong with it, the cure. So is what works and is not wise.

    Example: bearerd config check -c bearerd.toml
    """
    from bearerd.settings import load

    loaded = load(path, {}, os.environ)
    for warning in loaded.warnings:
        click.echo(f"bearerd: warning: {warning}", err=True)
    accounts = _count(len(loaded.configuration.accounts), "account")
    routes = _count(len(loaded.configuration.routes), "route")
    click.echo(f"configuration is good: {loaded.path or 'no file'}, {accounts}, {routes}")


@command.command("show")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(path: Path | None, *, as_json: bool) -> None:
    """Print the values in effect and where each is from.

    Secrets are masked.

    Example: bearerd config show
    """
    from bearerd.settings import load

    loaded = load(path, {}, os.environ)
    click.echo(format_json(loaded) if as_json else format_table(loaded))


@command.command("schema")
def schema() -> None:
    """Print a JSON Schema of the configuration file, for editors.

    Write it beside the file and name it in the file's first line: "#:schema ./bearerd.schema.json". Then an editor with
    Taplo (Even Better TOML and others) completes, explains and checks what is typed.

    Example: bearerd config schema > bearerd.schema.json
    """
    from bearerd.settings.documentation import load_document, parse_document
    from bearerd.settings.schema import build_schema

    click.echo(json.dumps(build_schema(parse_document(load_document())), indent=2))


def format_json(loaded: "Loaded") -> str:
    document = {
        "format_version": FORMAT_VERSION,
        "file": str(loaded.path) if loaded.path else None,
        "settings": [
            {"name": setting.name, "value": setting.value, "source": setting.source}
            for setting in loaded.settings
        ],
    }
    return json.dumps(document, indent=2)


def format_table(loaded: "Loaded") -> str:
    """A line per setting; values as in JSON, which is how the file has them too."""
    rows = [("SETTING", "VALUE", "SOURCE")]
    rows += [(setting.name, json.dumps(setting.value), setting.source) for setting in loaded.settings]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}" for name, value, source in rows)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
