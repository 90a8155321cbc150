"""`bearerd config`: is the configuration good, what is in effect, and what may be in it."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bearerd.cli import config_option

if TYPE_CHECKING:
    from bearerd.doctor import Finding
    from bearerd.settings import Loaded

FORMAT_VERSION: Final = 1


@click.group("config")
def command() -> None:
    """Check, show or describe the configuration."""


@command.command("check")
@config_option
@click.option(
    "--online", is_flag=True, help="Ask the authorization servers, too; clients show their secrets there."
)
@click.option("--json", "as_json", is_flag=True, help="Print what they say as JSON.")
def check(path: Path | None, *, online: bool, as_json: bool) -> None:
    """Say whether the configuration is good.

    Every problem is a line: the setting, what is wrong with it, the cure. So is what works and is not wise. With --online
    also whether discovery, client, redirect URI and scopes of each account are: the exit code is 1 where one is not. No
    refresh token is shown and no login begun.

    Example: bearerd config check -c bearerd.toml
    """
    from bearerd.settings import load

    if as_json and not online:
        raise click.UsageError("--json goes with --online; write both")
    loaded = load(path, {}, os.environ)
    for warning in loaded.warnings:
        click.echo(f"bearerd: warning: {warning}", err=True)
    accounts = _count(len(loaded.configuration.accounts), "account")
    routes = _count(len(loaded.configuration.routes), "route")
    click.echo(f"configuration is good: {loaded.path or 'no file'}, {accounts}, {routes}", err=as_json)
    if online:
        _check_online(loaded, as_json=as_json)


def _check_online(loaded: "Loaded", *, as_json: bool) -> None:
    from bearerd import loop
    from bearerd.doctor import Level, examine_accounts

    asked = loop.run(examine_accounts(loaded))
    click.echo(format_accounts(loaded, asked) if as_json else format_findings(asked))
    if any(finding.level is Level.FAIL for findings in asked.values() for finding in findings):
        raise click.exceptions.Exit(1)


def format_findings(asked: "Mapping[str, Sequence[Finding]]") -> str:
    """A line for each question about each account."""
    rows = [("ACCOUNT", "CHECK", "", "FOUND")]
    for account, findings in asked.items():
        rows += [
            (account, finding.subject, finding.level, "; ".join(filter(None, (finding.found, finding.cure))))
            for finding in findings
        ]
        rows += [] if findings else [(account, "-", "ok", "no authorization server is asked for its tokens")]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    )


def format_accounts(loaded: "Loaded", asked: "Mapping[str, Sequence[Finding]]") -> str:
    """Accounts and questions by their names, and nothing that is another the next time, so that stages can be compared."""
    document = {
        "format_version": FORMAT_VERSION,
        "accounts": {
            name: {
                "settings": _settings_of(loaded, name),
                "checks": {
                    finding.subject: {
                        "level": finding.level.lower(),
                        "found": finding.found,
                        "cure": finding.cure or None,
                    }
                    for finding in findings
                },
            }
            for name, findings in sorted(asked.items())
        },
    }
    return json.dumps(document, indent=2, sort_keys=True)


def _settings_of(loaded: "Loaded", account: str) -> dict[str, object]:
    """As `config show` has them."""
    from bearerd.settings.problems import setting_name

    prefix = setting_name(("accounts", account)) + "."
    return {
        setting.name.removeprefix(prefix): setting.value
        for setting in loaded.settings
        if setting.name.startswith(prefix)
    }


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
