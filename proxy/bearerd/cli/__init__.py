"""The command line. Each command is a module, imported when it is used: `bearerd token` must be quick."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from traceback import walk_tb
from typing import Any, Final

import click

from bearerd import __version__
from bearerd.errors import BearerdError, ConfigError, LoginRequired
from bearerd.privacy import keep_private, keep_standard_streams

COMMANDS: Final = (
    *("run", "demo", "login", "logout", "token", "refresh", "status", "reload"),
    *("exec", "init", "config", "doctor", "key", "store", "service", "completion", "healthcheck"),
)
"""Modules of this package, each with a click command named `command`."""

EXIT_STATUS: Final = (
    "Exit status: 0 done, 1 an error, 2 wrong usage, 4 a login is needed, 78 the configuration is bad. "
    "An error is a line on standard error that ends in what to do."
)
config_option: Final[Callable[[Callable[..., Any]], Callable[..., Any]]] = click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    help="The configuration file, in place of $BEARERD_CONFIG and the default one.",
)
port_option: Final[Callable[[Callable[..., Any]], Callable[..., Any]]] = click.option(
    "--port", type=click.IntRange(0, 65535), help="Where to listen; 0 lets the system choose."
)

_EXIT_CODES: Final = ((LoginRequired, 4), (ConfigError, 78))


@contextmanager
def exit_codes() -> Iterator[None]:
    """Errors of ours become lines on stderr and an exit code: 4 a login is needed, 78 bad configuration, else 1."""
    try:
        yield
    except BearerdError as error:
        for line in str(error).splitlines():
            click.echo(f"bearerd: {line}", err=True)
        code = next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)
        raise click.exceptions.Exit(code) from None


def _end(number: int, frame: object) -> None:
    """SIGTERM's default, which the first process of a container does not have: what it does not handle it never hears of."""
    del frame
    raise SystemExit(128 + number)


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"{__name__}.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """With a question where the name is nearly one: click knows none of ours before they are imported."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, n=1)
            question = f"Did you mean {near[0]!r}?" if near else f"There is {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {name!r}. {question}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        if os.getpid() == 1:
            signal.signal(signal.SIGTERM, _end)
        keep_standard_streams()
        ctx.meta["bearerd.cores"] = keep_private()
        with exit_codes():
            try:
                return super().invoke(ctx)
            except OSError as exc:
                refuse_output(exc)
                raise


def refuse_output(exc: OSError) -> None:
    """Raises BearerdError if it is what a command prints that cannot be written, as to a full disk.

    Where nobody reads on (EPIPE), click ends without a word.
    """
    *_, (frame, _) = walk_tb(exc.__traceback__)
    if frame.f_code is click.echo.__code__ and exc.errno != errno.EPIPE:
        reason = os.strerror(exc.errno or 0).lower()
        raise BearerdError(f"the output cannot be written: {reason}; write it elsewhere") from None


@click.group(cls=LazyGroup, epilog=EXIT_STATUS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bearerd")
def main() -> None:
    """A localhost HTTP reverse proxy that adds the OAuth token.

    Point any client's base URL at it, and the client needs no OAuth. To begin: bearerd demo, or bearerd init.
    """
