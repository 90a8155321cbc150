"""`bearerd status`: what running daemons say of themselves."""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bearerd.cli import config_option
from bearerd.cli.naming import config_option_for
from bearerd.errors import BearerdError

if TYPE_CHECKING:
    from http.client import HTTPConnection

FORMAT_VERSION: Final = 1


@click.command("status")
@config_option
@click.option("--port", type=click.IntRange(1, 65535), help="Ask the daemon on this port alone.")
@click.option("--json", "as_json", is_flag=True, help="Print the status documents.")
def command(path: Path | None, port: int | None, *, as_json: bool) -> None:
    """Show the accounts of every running bearerd.

    Below each table stands what is wrong, and the command that mends it. With -c, of those that serve that configuration file.

    Example: bearerd status
    """
    if port is not None:
        document = fetch_status(port)
        _show([document], document if as_json else None)
        return
    documents = _ask_all(path) or [_fetch_configured(path)]
    _show(documents, {"format_version": FORMAT_VERSION, "daemons": documents} if as_json else None)


def _show(documents: list[dict[str, Any]], for_programs: object) -> None:
    if for_programs is not None:
        click.echo(json.dumps(for_programs, indent=2))
        return
    from time import time

    from bearerd.cli.table import format_all, screen

    click.echo(format_all(documents, time(), screen(sys.stdout, os.environ)))


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
    from bearerd.core.reaching import DEFAULT_PORT
    from bearerd.errors import NotConfigured
    from bearerd.settings import load

    try:
        loaded = load(path, {}, os.environ)
    except NotConfigured:
        return fetch_status(DEFAULT_PORT)  # the demo's
    listen = loaded.configuration.listen
    option = config_option_for(os.path.realpath(loaded.path) if loaded.path else None)
    if listen.hosts or not listen.socket:
        return fetch_status(listen.port, option)
    return fetch_by_socket(listen.socket, option)


def fetch_status(port: int, option: str = "") -> dict[str, Any]:
    """The status document of the daemon on `port`. Raises BearerdError if none answers there, or not without a key.

    `option` is what `bearerd run` needs to start it.
    """
    from http.client import HTTPConnection

    return _fetch(HTTPConnection("127.0.0.1", port, timeout=5), f"port {port}", option)


def fetch_by_socket(path: str, option: str = "") -> dict[str, Any]:
    """The status document of the daemon on the Unix socket `path`. Raises BearerdError likewise."""
    import socket
    from http.client import HTTPConnection

    connection = HTTPConnection("localhost", timeout=5)
    sock = connection.sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    with suppress(OSError):  # the request fails, too
        sock.connect(path)
    return _fetch(connection, path, option)


def _fetch(connection: "HTTPConnection", place: str, option: str) -> dict[str, Any]:
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
        raise BearerdError(f"no bearerd answers on {place}; start one with: bearerd run{option}")
    return document
