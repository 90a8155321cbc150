"""`bearerd run`: serve in the foreground."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bearerd.cli import config_option, port_option
from bearerd.cli.demo import serve_demo
from bearerd.errors import NotConfigured

if TYPE_CHECKING:
    from bearerd.daemon import Daemon


@click.command("run")
@config_option
@port_option
@click.option("--upstream", multiple=True, metavar="[/PREFIX=]URL", help="An upstream; may be given again.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="What is logged.")
@click.option("--or-demo", is_flag=True, help="Run the demo where there is no configuration.")
def command(
    path: Path | None, port: int | None, upstream: tuple[str, ...], log_level: str | None, *, or_demo: bool
) -> None:
    """Serve in the foreground until SIGINT or SIGTERM."""
    from bearerd import logs, loop, serving
    from bearerd.control.rendezvous import find_origin
    from bearerd.settings import load

    given = {"port": port, "upstream": upstream, "log_level": log_level}
    flags = {name: value for name, value in given.items() if value not in {None, ()}}
    try:
        loaded = load(path, flags, os.environ)
    except NotConfigured:
        if not or_demo:
            raise
        serve_demo(port)
        return
    for warning in loaded.warnings:
        click.echo(f"bearerd: warning: {warning}", err=True)
    logs.configure(loaded.configuration.log)
    origin = find_origin(path, os.environ)
    main = serving.serve(
        loaded.configuration, lambda running: click.echo(describe(running), err=True), origin
    )
    loop.run(main)


def describe(running: "Daemon") -> str:
    """What a person wants to know when it starts: where it listens, what leads where, who has to log in."""
    from bearerd.control.status import list_places

    status = running.status()
    lines = [f"bearerd listens on {' and '.join(list_places(status))}"]
    lines += [
        f"  {route['prefix']} -> {route['upstream']} with a token of {route['account']}"
        for route in status["routes"]
    ]
    lines += [
        f"Account {account['name']} needs a login: {account['login_url']}"
        for account in status["accounts"]
        if account["login_url"] and account["state"] == "login_required"
    ]
    return "\n".join(lines)
