"""`bearerd status`: what a running daemon says of itself."""

import json
import os
from pathlib import Path
from typing import Any

import click

from bearerd.cli import config_option
from bearerd.errors import BearerdError


@click.command("status")
@config_option
@click.option("--port", type=click.IntRange(1, 65535), help="The port of the daemon to ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the status document.")
def command(path: Path | None, port: int | None, *, as_json: bool) -> None:
    """Show the accounts of a running bearerd: expiry, last refresh, what is wrong."""
    from bearerd.core.configuration import DEFAULT_PORT
    from bearerd.errors import NotConfigured
    from bearerd.settings import load

    if port is None:
        try:
            port = load(path, {}, os.environ).configuration.listen.port
        except NotConfigured:
            port = DEFAULT_PORT  # the demo's
    document = fetch_status(port)
    click.echo(json.dumps(document, indent=2) if as_json else format_status(document))


def fetch_status(port: int) -> dict[str, Any]:
    """The status document of the daemon on `port`. Raises BearerdError if none answers there."""
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/-/status")
        document = json.loads(connection.getresponse().read())
    except (OSError, HTTPException, ValueError):
        document = None
    finally:
        connection.close()
    if not isinstance(document, dict) or "accounts" not in document:
        raise BearerdError(f"no bearerd answers on port {port}; start one with: bearerd run")
    return document


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
    lines += [
        f"{account['name']}: {account['problem']}" for account in document["accounts"] if account["problem"]
    ]
    return "\n".join(lines)
