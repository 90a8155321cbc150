"""`bearerd status`: what running daemons say of themselves."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bearerd.cli import config_option
from bearerd.errors import BearerdError

if TYPE_CHECKING:
    from http.client import HTTPConnection

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
    documents = _ask_all(path) or [_fetch_configured(path)]
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


def _fetch_configured(path: Path | None) -> dict[str, Any]:
    """Where there is no control socket, as on a system without, or none was to be had."""
    from bearerd.core.configuration import DEFAULT_PORT
    from bearerd.errors import NotConfigured
    from bearerd.settings import load

    try:
        listen = load(path, {}, os.environ).configuration.listen
    except NotConfigured:
        return fetch_status(DEFAULT_PORT)  # the demo's
    return fetch_status(listen.port) if listen.hosts or not listen.socket else fetch_by_socket(listen.socket)


def fetch_status(port: int) -> dict[str, Any]:
    """The status document of the daemon on `port`. Raises BearerdError if none answers there, or not without a key."""
    from http.client import HTTPConnection

    return _fetch(HTTPConnection("127.0.0.1", port, timeout=5), f"port {port}")


def fetch_by_socket(path: str) -> dict[str, Any]:
    """The status document of the daemon on the Unix socket `path`. Raises BearerdError likewise."""
    import socket
    from http.client import HTTPConnection

    connection = HTTPConnection("localhost", timeout=5)
    sock = connection.sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    with suppress(OSError):  # the request fails, too
        sock.connect(path)
    return _fetch(connection, path)


def _fetch(connection: "HTTPConnection", place: str) -> dict[str, Any]:
    from http.client import HTTPException

    try:
        connection.request("GET", "/-/status")
        answer = connection.getresponse()
        document = json.loads(answer.read())
    except (OSError, HTTPException, ValueError):
        document = None
    finally:
        connection.close()
    if isinstance(document, dict) and document.get("code") == "key_missing":
        raise BearerdError(f"the bearerd on {place} wants a client key; ask as its user, without --port")
    if not isinstance(document, dict) or "accounts" not in document:
        raise BearerdError(f"no bearerd answers on {place}; start one with: bearerd run")
    return document


def format_all(documents: list[dict[str, Any]]) -> str:
    """A table for each daemon, under a line that tells it from the others where there are several."""
    if len(documents) == 1:
        return format_status(documents[0])
    return "\n\n".join(f"{_title(document)}\n{format_status(document)}" for document in documents)


def _title(document: dict[str, Any]) -> str:
    from bearerd.control.status import list_places

    file = document["config"] or "no configuration file"
    return f"{' and '.join(list_places(document))}, process {document['pid']}, {file}"


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
