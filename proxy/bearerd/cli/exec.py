"""`bearerd exec`: a command whose calls go through the running daemon."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from bearerd.cli import config_option
from bearerd.cli.completing import AFTER_DASHES, complete_route
from bearerd.cli.naming import refuse_name
from bearerd.errors import BearerdError, ConfigError, NotConfigured
from bearerd.privacy import allow_cores, without_secrets

if TYPE_CHECKING:
    from bearerd.core.targets import Route

GENERIC: Final = "API_BASE_URL"
DUMMY: Final = "bearerd"
_BASE: Final = re.compile(r"(\w+?)_(?:BASE_URL|API_BASE)")
# The variables that hold a client's key, by the name before _BASE_URL; the first is set if none is there. Not
# ANTHROPIC_API_KEY: it is sent as X-Api-Key, which is not ours to replace.
_KEYS: Final = {"ANTHROPIC": ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY")}
_PROXIES: Final = ("http_proxy", "all_proxy")
# What Python ignores, a program expects to find as the system has it.
_RESTORED: Final = ("SIGPIPE", "SIGXFSZ")


@dataclass(frozen=True, slots=True)
class Reached:
    """A route of the running daemon: its prefix, its address, and the variables that are to have it.

    `passes_keys` says that a client's own key goes to the API by it.
    """

    prefix: str
    url: str
    variables: tuple[tuple[str, str], ...] = ()
    passes_keys: bool = False


class Exec(click.Command):
    """Takes what stands after the first ``--`` as it is, options and all."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        place = args.index("--") if "--" in args else len(args)
        ctx.meta[AFTER_DASHES] = "--" in args
        ctx.meta["bearerd.argv"] = tuple(args[place + 1 :])
        return super().parse_args(ctx, args[:place])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- CMD ..."]


@click.command("exec", cls=Exec)
@click.argument("route", required=False, shell_complete=complete_route)
@config_option
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="NAME[=/PATH]",
    help="A variable to set to the route's address; may be given again.",
)
@click.pass_context
def command(ctx: click.Context, route: str | None, path: Path | None, variables: tuple[str, ...]) -> None:
    """Run CMD with base URLs that lead to the running bearerd.

    Its variables are those that the routes name in exec_env, those of --env, and API_BASE_URL. ROUTE is a route's prefix; it
    may be left out if there is one only, or one for /. A variable such as OPENAI_API_KEY is set to a dummy if it is
    not there, for many clients do not start without it; not beside a route with inject = "if-absent", which would send
    it on. The exit status is that of CMD.

    Example: bearerd exec -- python app.py
    """
    argv: tuple[str, ...] = ctx.meta["bearerd.argv"]
    if not argv or not argv[0]:
        raise click.UsageError("there is no command; write it after two dashes: bearerd exec -- CMD ...")
    routes = list(find_routes(path, os.environ))
    added = build_variables(routes, route, parse_variables(variables))
    allow_cores(ctx.meta["bearerd.cores"])
    replace_process(argv, build_environment(os.environ, added, find_keyless(routes, added)))


def parse_variables(written: Iterable[str]) -> list[tuple[str, str]]:
    from bearerd.settings.values import parse_variable, split_variable

    try:
        return [split_variable(parse_variable(variable)) for variable in written]
    except ValueError as problem:
        raise click.BadParameter(str(problem), param_hint="--env") from None


def find_routes(path: Path | None, environ: Mapping[str, str]) -> Iterator[Reached]:
    """The routes of the daemon that serves this configuration. Raises BearerdError where none does."""
    status = find_daemon(path, environ)
    address = status["addresses"][0]
    configured = load_routes(path, environ)
    for route in status["routes"]:
        prefix = route["prefix"].rstrip("/")
        known = configured.get(prefix)
        variables, passes_keys = (known.exec_env, known.fields.own is not None) if known else ((), False)
        yield Reached(prefix or "/", address + prefix, variables, passes_keys)


def find_daemon(path: Path | None, environ: Mapping[str, str]) -> dict[str, Any]:
    """The status document of the first daemon of this configuration."""
    from bearerd.control.client import Daemons
    from bearerd.control.rendezvous import find_origin

    daemons = Daemons(environ)
    if daemons.warning:
        click.echo(f"bearerd: warning: {daemons.warning}", err=True)
    wanted = find_origin(path, environ).file
    documents = daemons.fetch_status()
    for document in documents:
        if document["config"] == wanted and document["addresses"] and "routes" in document:
            return document
    raise BearerdError(_without_address(wanted, documents) or _none(path, wanted, documents))


def _without_address(wanted: str | None, documents: Sequence[Mapping[str, Any]]) -> str | None:
    """What to say where a daemon serves the configuration, but by a Unix socket alone."""
    for document in documents:
        if document["config"] == wanted and not document["addresses"] and document.get("socket"):
            return (
                f"bearerd listens on unix:{document['socket']} alone, which no base URL can name; "
                "give it an address in listen.hosts, or tell the program of the socket yourself"
            )
    return None


def _none(path: Path | None, wanted: str | None, documents: Sequence[Mapping[str, Any]]) -> str:
    start = f"bearerd run -c {path}" if path else "bearerd run"
    if not documents:
        return f"no bearerd is running; start one with: {start}"
    others = ", ".join(sorted({str(document["config"] or "no file") for document in documents}))
    return f"no running bearerd serves {wanted or 'this environment'}, but {others}; start one with: {start}"


def load_routes(path: Path | None, environ: Mapping[str, str]) -> dict[str, "Route"]:
    """The routes by prefix. The daemon may have been started with flags that make up for what is missing here."""
    from bearerd.settings import load

    try:
        routes = load(path, {}, environ).configuration.routes
    except NotConfigured:
        return {}
    except ConfigError as problem:
        click.echo(f"bearerd: warning: exec_env is not used: {problem}", err=True)
        return {}
    return {route.prefix.decode(): route for route in routes}


def build_variables(
    routes: Sequence[Reached], wanted: str | None, further: Iterable[tuple[str, str]]
) -> dict[str, str]:
    """The variables to set, for the route that is wanted, or for all where none is."""
    chosen = choose_route(routes, wanted)
    found: dict[str, Reached] = {}
    for route in routes if wanted is None or chosen is None else [chosen]:
        for name, _ in route.variables:
            if name in found:
                raise click.UsageError(
                    f"{name} is of the routes {found[name].prefix} and {route.prefix}: name one"
                )
            found[name] = route
    variables = {name: route.url + dict(route.variables)[name] for name, route in found.items()}
    if chosen is not None:
        named = {name: chosen.url + path for name, path in further}
        return {GENERIC: chosen.url} | variables | named
    if not variables or further:
        raise click.UsageError(f"there are several routes; name one of {_list(routes)}")
    return variables


def choose_route(routes: Sequence[Reached], wanted: str | None) -> Reached | None:
    """The route that is wanted, else the only one, else that for ``/``, else none."""
    by_prefix = {route.prefix: route for route in routes}
    if wanted is None:
        return routes[0] if len(routes) == 1 else by_prefix.get("/")
    route = by_prefix.get(wanted.rstrip("/") or "/")
    if route is None:
        refuse_name("route", wanted, by_prefix, "ROUTE")
    return route


def _list(routes: Iterable[Reached]) -> str:
    return ", ".join(route.prefix for route in routes)


def find_keyless(routes: Iterable[Reached], variables: Mapping[str, str]) -> frozenset[str]:
    """Those of the variables beside which no dummy key may be: calls to their addresses would carry it on."""
    longest_first = sorted(routes, key=lambda route: len(route.url), reverse=True)
    return frozenset(
        name
        for name, url in variables.items()
        if next(route for route in longest_first if f"{url}/".startswith(f"{route.url}/")).passes_keys
    )


def build_environment(
    environ: Mapping[str, str], added: Mapping[str, str], keyless: Container[str] = ()
) -> dict[str, str]:
    """`environ` without secrets of ours and with the variables, a dummy key beside each but the `keyless` where there is none, and no proxy before
    this machine.
    """
    environment = without_secrets(environ) | dict(added)
    for name in added:
        if name in keyless:
            continue
        matched = _BASE.fullmatch(name)
        if matched and name != GENERIC:
            keys = _KEYS.get(matched[1], (f"{matched[1]}_API_KEY",))
            if not any(environ.get(key) for key in keys):
                environment[keys[0]] = DUMMY
    if any(name.lower() in _PROXIES and value for name, value in environ.items()):
        environment |= _without_proxy(environ)
    return environment


def _without_proxy(environ: Mapping[str, str]) -> dict[str, str]:
    """Both spellings: clients differ in which they read."""
    given = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if given.strip() == "*":
        return {}
    hosts = ",".join(dict.fromkeys([*filter(None, given.split(",")), "127.0.0.1", "::1", "localhost"]))
    return {"no_proxy": hosts, "NO_PROXY": hosts}


def replace_process(argv: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Become the command, so that signals reach it and its status is ours.

    Exit status 127 where there is no such command and 126 where it cannot be run, as of a shell.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        if os.name == "posix":
            for name in _RESTORED:
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            os.execvpe(argv[0], list(argv), dict(environment))  # noqa: S606  # no shell is what is wanted
        sys.exit(_run(argv, environment))
    except OSError as exc:
        missing = isinstance(exc, FileNotFoundError)
        cure = "write its name as it is, or its full path" if missing else "name a program that may be run"
        why = os.strerror(exc.errno or 0).lower()
        click.echo(f"bearerd: {argv[0]} cannot be run: {why}; {cure}", err=True)
        raise click.exceptions.Exit(127 if missing else 126) from None


def _run(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Where a process cannot become another: a child, and an interrupt is the child's business."""
    program = shutil.which(argv[0], path=environment.get("PATH")) or argv[0]
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.run([program, *argv[1:]], env=dict(environment), check=False).returncode  # noqa: S603  # what the user wrote
    finally:
        signal.signal(signal.SIGINT, previous)
