"""`bearerd status`: what running daemons say of themselves."""

import json
import os
from pathlib import Path
from typing import Any, Final

import click

from bearerd.cli import config_option
from bearerd.errors import BearerdError

FORMAT_VERSION: Final = 1


@click.command("status")
@config_option
@click.option("--port", type=click.IntRange(1, 65535), help="Ask the daemon on this port alone.")
@click.option("--json", "as_json", is_flag=True, help="Print the status documents.")
def command(path: Path | None, port: int | None, *, as_json: bool) -> None:
    """Show the accounts of every running bearerd: expiry, last refresh, what is wrong.

    With -c, of those that serve that configuration file.
    """
    if port is not None:
        document = fetch_status(port)
        click.echo(json.dumps(document, indent=2) if as_json else format_status(document))
        return
    documents = _ask_all(path) or [fetch_status(_configured_port(path))]
    if as_json:
        click.echo(json.dumps({"format_version": FORMAT_VERSION, "daemons": documents}, indent=2))
    else:
        click.echo(format_all(documents))


def _ask_all(path: Path | None) -> list[dict[str, Any]]:
    from bearerd.control.client import Daemons
    from bearerd.control.rendezvous import find_origin

    daemons = Daemons(os.environ)
    if daemons.warning:
        click.echo(f"bearerd: warning: {daemons.warning}", err=True)
    documents = daemons.fetch_status()
    if path is None:
        return documents
    wanted = find_origin(path, os.environ).file
    return [document for document in documents if document.get("config") == wanted]


def _configured_port(path: Path | None) -> int:
    from bearerd.core.configuration import DEFAULT_PORT
    from bearerd.errors import NotConfigured
    from bearerd.settings import load

    try:
        return load(path, {}, os.environ).configuration.listen.port
    except NotConfigured:
        return DEFAULT_PORT  # the demo's


def fetch_status(port: int) -> dict[str, Any]:
    """The status document of the daemon on `port`. Raises BearerdError if none answers there, or not without a key."""
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/-/status")
        answer = connection.getresponse()
        document = json.loads(answer.read())
    except (OSError, HTTPException, ValueError):
        document = None
    finally:
        connection.close()
    if isinstance(document, dict) and document.get("code") == "key_missing":
        raise BearerdError(f"the bearerd on port {port} wants a client key; ask as its user, without --port")
    if not isinstance(document, dict) or "accounts" not in document:
        raise BearerdError(f"no bearerd answers on port {port}; start one with: bearerd run")
    return document


def format_all(documents: list[dict[str, Any]]) -> str:
    """A table for each daemon, under a line that tells it from the others where there are several."""
    if len(documents) == 1:
        return format_status(documents[0])
    return "\n\n".join(f"{_title(document)}\n{format_status(document)}" for document in documents)


def _title(document: dict[str, Any]) -> str:
    file = document["config"] or "no configuration file"
    return f"{' and '.join(document['addresses'])}, process {document['pid']}, {file}"


def format_status(document: dict[str, Any]) -> str:
    """A table for people: a line per account, and a line per problem."""
    rows = [("ACCOUNT", "STATE", "EXPIRES IN", "LAST REFRESH")]
    for account in document["accounts"]:
        left = account["seconds_left"]
        refreshed = account["last_refresh"]
        rows.append(
            (
                account["name"],
                account["state"],
                "-" if left is None else f"{left} s",
                refreshed["rfc3339"] if refreshed else "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines += [_trouble(account) for account in document["accounts"] if account["problem"]]
    return "\n".join(lines)


def _trouble(account: dict[str, Any]) -> str:
    cure = account.get("cure")  # a daemon of an earlier version has none
    return f"{account['name']}: {account['problem']}{f'; run: {cure}' if cure else ''}"
