"""`bearerd token`: a token for tools that run a command to get one."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bearerd.cli import config_option
from bearerd.cli.completing import complete_account
from bearerd.cli.naming import config_option_for, refuse_name
from bearerd.core import token_formats
from bearerd.core.token_formats import FORMS, HandedToken
from bearerd.errors import LoginRequired

if TYPE_CHECKING:
    from bearerd.core.accounts import Account
    from bearerd.core.configuration import Store

HELPERS: Final = ("git-credential", "docker-credential")
INPUT_LIMIT: Final = 64 << 10


@click.command("token")
@click.argument("account", shell_complete=complete_account)
@click.argument("operation", required=False)
@config_option
@click.option(
    "--min-valid",
    "min_valid_s",
    type=click.IntRange(0),
    default=0,
    metavar="S",
    help="Wait for a refresh that is due if the token is good for less than S seconds. Begins none before its time.",
)
@click.option("--force", is_flag=True, help="Refresh first.")
@click.option(
    "--format", "form", type=click.Choice([*FORMS, *HELPERS]), default="raw", help="How it is printed."
)
def command(
    account: str, operation: str | None, path: Path | None, min_valid_s: int, form: str, *, force: bool
) -> None:
    """Print a token of ACCOUNT for a program.

    The token and a newline go to standard output, all else to standard error. Nothing is opened in a browser. The format env is a line ACCESS_TOKEN=value. OPERATION is what git and docker
    add when they run a credential helper; other than get there is nothing to do. A helper gives the token to
    whatever host it is asked for: configure it for yours alone.

    Example: bearerd token work --min-valid 300
    """
    if operation is not None and form not in HELPERS:
        raise click.UsageError(f"{operation}: only {' and '.join(HELPERS)} have operations; take it out")

    def obtain() -> HandedToken:
        return obtain_token(account, path, min_valid_s=min_valid_s, force=force)

    if form in FORMS:
        click.echo(FORMS[form](obtain()))
    else:
        help_with(form, operation or "get", obtain)


def help_with(form: str, operation: str, obtain: Callable[[], HandedToken]) -> None:
    """What a credential helper of git or docker does. There is nothing to store and nothing to erase."""
    asked = sys.stdin.buffer.read(INPUT_LIMIT).decode("utf-8", "replace")
    match form, operation:
        case "git-credential", "get":
            attributes = token_formats.parse_attributes(asked)
            if token_formats.may_have(attributes):  # else git is told nothing, and asks elsewhere
                click.echo(token_formats.format_git(obtain(), attributes))
        case "docker-credential", "get":
            if not asked.strip():
                raise click.UsageError(
                    "docker-credential reads the address of a server from standard input; write it there"
                )
            click.echo(token_formats.format_docker(obtain(), asked.strip()))
        case "docker-credential", "list":
            click.echo("{}")


def obtain_token(
    name: str, path: Path | None, *, min_valid_s: float = 0.0, force: bool = False
) -> HandedToken:
    """From a running daemon that serves the account by the same configuration, else by way of the store."""
    from bearerd.control.client import Daemons
    from bearerd.control.rendezvous import find_origin

    daemons = Daemons(os.environ)
    if daemons.warning:
        click.echo(f"bearerd: warning: {daemons.warning}", err=True)
    origin = find_origin(path, os.environ)
    try:
        token = daemons.fetch_token(name, origin, min_valid_s=min_valid_s, force=force)
        return token or _fetch_alone(name, path, min_valid_s=min_valid_s, force=force)
    except LoginRequired as problem:
        raise LoginRequired(name_file(str(problem), name, origin.file)) from None


def name_file(text: str, account: str, file: str | None) -> str:
    """A text that ends in the command for a login: whoever wrote it does not know by which file it is to find the account."""
    return text + config_option_for(file) if text.endswith(f"bearerd login {account}") else text


def _fetch_alone(name: str, path: Path | None, *, min_valid_s: float, force: bool) -> HandedToken:
    from bearerd import alone, logs, loop
    from bearerd.core.configuration import Logging
    from bearerd.settings import load

    configuration = load(path, {}, os.environ).configuration
    account = configuration.accounts.get(name)
    if account is None:
        refuse_name("account", name, sorted(configuration.accounts), "ACCOUNT")
    _refuse_single_use(account, configuration.store)
    logs.configure(Logging(level="critical"))
    fetching = alone.fetch_token(configuration, account, min_valid_s=min_valid_s, force=force)
    token = loop.run(fetching)
    return HandedToken(name, token.access_token, token.expires_at)


def _refuse_single_use(account: "Account", settings: "Store") -> None:
    """A refresh token may be spent once, and without a vault its successor would be lost with this process."""
    from bearerd.assembly import first_refresh_token, needs_vault
    from bearerd.errors import BearerdError

    if first_refresh_token(account) is not None and not needs_vault(account, settings):
        raise BearerdError(
            f"account {account.name} spends a refresh token, and without a vault its successor would be lost; "
            'set store.kind = "vault", or call the API through a running bearerd'
        )
