"""`bearerd logout`: give a login up, here and at the server."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bearerd.cli import config_option
from bearerd.cli.completing import complete_account
from bearerd.cli.login import find_only, get_done, load_account
from bearerd.errors import LoginFailed


@click.command("logout")
@click.argument("account", required=False, shell_complete=complete_account)
@config_option
def command(account: str | None, path: Path | None) -> None:
    """Revoke the login of ACCOUNT, and wipe its tokens here.

    What could not be revoked is said; the tokens are wiped all the same. ACCOUNT may be left out where there is only one.

    Example: bearerd logout work
    """
    name = account or find_only(path)
    done = asyncio.run(log_out(name, path))
    if done.get("problem"):
        click.echo(f"bearerd: warning: {done['problem']}", err=True)
    if not done.get("wiped"):
        raise LoginFailed(f"{name} is logged out, and its store still has the login; log out again")
    was = "is logged out" if done.get("revoked") or done.get("problem") else "was not logged in"
    click.echo(f"bearerd: {name} {was}", err=True)


async def log_out(name: str, path: Path | None) -> Mapping[str, Any]:
    """By a running daemon that serves the account, else by way of the store. Raises BearerdError."""
    from bearerd.control.client import Daemons
    from bearerd.control.conversation import Conversation
    from bearerd.control.rendezvous import find_origin

    conversation = await Conversation.open(Daemons(os.environ), "logout", name, find_origin(path, os.environ))
    if conversation is None:
        return await _log_out_alone(name, path)
    try:
        return get_done(await conversation.next())
    except EOFError:
        raise LoginFailed("the bearerd that was to log out has ended; log out again") from None
    finally:
        conversation.close()


async def _log_out_alone(name: str, path: Path | None) -> Mapping[str, Any]:
    from bearerd import alone, logs
    from bearerd.core.configuration import Logging

    configuration, account = load_account(name, path)
    logs.configure(Logging(level="critical"))
    return get_done(await alone.log_out(configuration, account))
