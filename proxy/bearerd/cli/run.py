"""`bearerd run`: serve in the foreground."""

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bearerd.cli import config_option, port_option
from bearerd.cli.demo import serve_demo
from bearerd.cli.naming import config_option_for
from bearerd.errors import ConfigError, NotConfigured

if TYPE_CHECKING:
    from bearerd.core.configuration import Configuration
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
    """Serve in the foreground until SIGINT (Ctrl-C) or SIGTERM.

    SIGHUP has it read its configuration again.

    Example: bearerd run
    """
    from bearerd import logs, loop, serving
    from bearerd.control.rendezvous import find_origin
    from bearerd.settings import load

    given = {"port": port, "upstream": upstream, "log_level": log_level}
    flags = {name: value for name, value in given.items() if value not in {None, ()}}
    # What it was started with stays in force, whatever the file says later.
    reread = partial(load, path, flags, dict(os.environ))
    try:
        loaded = reread()
    except NotConfigured:
        if not or_demo:
            raise
        serve_demo(port)
        return
    log = loaded.configuration.log
    logs.write_aside()
    logs.configure(log)
    for warning in loaded.warnings:
        warn(warning, lines_only=log.format == "json")
    origin = find_origin(path, os.environ)

    def tell(running: "Daemon") -> None:
        if log.format != "json":  # a program reads what is written, and has daemon.listening
            click.echo(describe(running.status(), loaded.configuration, origin.file), err=True)

    try:
        loop.run(serving.serve(loaded.configuration, tell, origin, reread))
    except ConfigError as problem:
        raise ConfigError(find_twin(str(problem), loaded.configuration.listen.port) or str(problem)) from None
    finally:
        logs.flush()  # an error is the last that is said


def warn(text: str, *, lines_only: bool) -> None:
    """`lines_only` says that there is to be nothing but lines of the log."""
    import structlog

    if lines_only:
        structlog.get_logger("bearerd.settings").warning("config.warning", text=text)
    else:
        click.echo(f"bearerd: warning: {text}", err=True)


def find_twin(problem: str, port: int) -> str | None:
    """What to say where it is another bearerd of this user that has the port."""
    from bearerd.control.client import Daemons

    if not problem.startswith("listen.port: ") or " is in use" not in problem:
        return None
    for document in Daemons(os.environ).fetch_status():
        if any(address.endswith(f":{port}") for address in document["addresses"]):
            served = document["config"] or "no configuration file"
            return (
                f"listen.port: a bearerd listens on {port} already, process {document['pid']}, with {served}; "
                "see bearerd status, stop it, or choose another port with --port or listen.port"
            )
    return None


def describe(status: Mapping[str, Any], configuration: "Configuration", file: str | None) -> str:
    """What a person wants to know when it starts: where it listens, what leads where, who has to log in, and what then.

    `file` is the configuration's.
    """
    from bearerd.control.status import list_places

    return "\n".join(
        [
            f"bearerd listens on {' and '.join(list_places(status))}",
            *(
                f"  {route['prefix']} -> {route['upstream']} with a token of {route['account']}"
                for route in status["routes"]
            ),
            *_list_logins(status, configuration, config_option_for(file)),
            *_list_steps(status, configuration),
        ]
    )


def _list_logins(status: Mapping[str, Any], configuration: "Configuration", option: str) -> Iterator[str]:
    """The accounts that only a person can bring to work, and how."""
    from bearerd.core.accounts import OAuthSource

    for account in status["accounts"]:
        if account["state"] != "login_required":
            continue
        name = account["name"]
        source = configuration.accounts[name].source
        command = f"bearerd login {name}{option}"
        if account["login_url"]:
            yield f"Account {name} needs a login: {account['login_url']}"
            yield f"  or in a terminal: {command}"
        elif isinstance(source, OAuthSource) and source.interactive:
            yield f"Account {name} needs a login: {command}"
        else:
            yield f"Account {name} has no token, and nobody may log in to it here: {account['problem']}"


def _list_steps(status: Mapping[str, Any], configuration: "Configuration") -> Iterator[str]:
    """What to do next: the exact base URL of each route, and where to see how it goes."""
    base = next(iter(status["addresses"]), None)
    where = base or "http://localhost"
    for route in status["routes"]:
        prefix = "" if route["prefix"] == "/" else route["prefix"]
        yield f"Give clients {where}{prefix} as base URL, in place of {route['upstream']}"
    if base is None:
        yield f"  by the socket alone: curl --unix-socket {status['socket']} {where}/"
    else:
        yield f"Status page: {base}/-/"
    if configuration.keys.use == "required":
        yield "Each client needs a key, once: bearerd key create NAME"
