"""`bearerd token`: a token for tools that run a command to get one."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bearerd.cli import config_option

if TYPE_CHECKING:
    from bearerd.core.accounts import Account
    from bearerd.core.tokens import TokenSet

FORMAT_VERSION = 1


@click.command("token")
@click.argument("account")
@config_option
@click.option(
    "--format", "form", type=click.Choice(["raw", "json", "header"]), default="raw", help="How it is printed."
)
def command(account: str, path: Path | None, form: str) -> None:
    """Print a token of ACCOUNT and a newline on standard output; all else goes to standard error.

    Nothing is opened in a browser.
    """
    from bearerd import daemon, logs
    from bearerd.core.configuration import Logging
    from bearerd.settings import load

    accounts = load(path, {}, os.environ).configuration.accounts
    if account not in accounts:
        known = ", ".join(sorted(accounts))
        raise click.BadParameter(f"there is no account {account}; there is {known}", param_hint="ACCOUNT")
    _refuse_single_use(accounts[account])
    logs.configure(Logging(level="warning"))
    token = daemon.run(daemon.fetch_token(accounts[account]))
    click.echo(format_token(account, token, form))


def format_token(account: str, token: "TokenSet", form: str) -> str:
    """The token as `form` wants it, without a newline."""
    value = token.access_token.reveal()
    if form == "raw":
        return value
    if form == "header":
        return f"Authorization: Bearer {value}"
    document = {
        "format_version": FORMAT_VERSION,
        "account": account,
        "access_token": value,
        "token_type": "Bearer",
        "expires_at": token.expires_at,
        "expires": datetime.fromtimestamp(token.expires_at, UTC).isoformat(timespec="seconds"),
    }
    return json.dumps(document, indent=2)


def _refuse_single_use(account: "Account") -> None:
    """A refresh token may be spent once, and its successor would be lost with this process."""
    from bearerd.core.accounts import Grant, OAuthSource
    from bearerd.errors import BearerdError

    if isinstance(account.source, OAuthSource) and account.source.grant is Grant.REFRESH_TOKEN:
        raise BearerdError(
            f"account {account.name} spends a refresh token, and without a store its successor would be lost; "
            "call the API through a running bearerd instead"
        )
