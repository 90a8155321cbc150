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
    from bearerd.core.configuration import Store
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

    configuration = load(path, {}, os.environ).configuration
    subject = configuration.accounts.get(account)
    if subject is None:
        known = ", ".join(sorted(configuration.accounts))
        raise click.BadParameter(f"there is no account {account}; there is {known}", param_hint="ACCOUNT")
    _refuse_single_use(subject, configuration.store)
    logs.configure(Logging(level="warning"))
    token = daemon.run(daemon.fetch_token(configuration, subject))
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


def _refuse_single_use(account: "Account", settings: "Store") -> None:
    """A refresh token may be spent once, and without a vault its successor would be lost with this process."""
    from bearerd.assembly import first_refresh_token, needs_vault
    from bearerd.errors import BearerdError

    if first_refresh_token(account) is not None and not needs_vault(account, settings):
        raise BearerdError(
            f"account {account.name} spends a refresh token, and without a vault its successor would be lost; "
            'set store.kind = "vault", or call the API through a running bearerd'
        )
