"""`bearerd refresh`: a new token now."""

from datetime import UTC, datetime
from pathlib import Path

import click

from bearerd.cli import config_option
from bearerd.cli.completing import complete_account
from bearerd.cli.token import obtain_token


@click.command("refresh")
@click.argument("account", shell_complete=complete_account)
@config_option
def command(account: str, path: Path | None) -> None:
    """Refresh the token of ACCOUNT now.

    Whether it is time for that or not.

    Example: bearerd refresh work
    """
    token = obtain_token(account, path, force=True)
    expiry = datetime.fromtimestamp(token.expires_at, UTC).isoformat(timespec="seconds")
    click.echo(f"bearerd: {account} has a new token; it expires at {expiry}", err=True)
