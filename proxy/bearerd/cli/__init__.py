"""The command line. Each command is a module, imported when it is used: `bearerd token` must be quick."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

from bearerd import __version__
from bearerd.errors import BearerdError, ConfigError, LoginRequired
from bearerd.privacy import keep_private

COMMANDS: Final = (
    *("run", "demo", "login", "logout", "token", "refresh", "status"),
    *("exec", "init", "config", "doctor", "key", "store"),
)
"""Modules of this package, each with a click command named `command`."""

config_option: Final[Callable[[Callable[..., Any]], Callable[..., Any]]] = click.option(
    "-c", "--config", "path", type=click.Path(path_type=Path), help="The configuration file."
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

    def invoke(self, ctx: click.Context) -> Any:
        ctx.meta["bearerd.cores"] = keep_private()
        with exit_codes():
            return super().invoke(ctx)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bearerd")
def main() -> None:
    """A localhost HTTP reverse proxy that adds the OAuth token."""
