"""`bearerd login`: log in, by a browser here, by one elsewhere, or on another device."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bearerd.cli import config_option
from bearerd.cli.completing import complete_account
from bearerd.cli.naming import refuse_name
from bearerd.errors import BearerdError, LoginFailed
from bearerd.privacy import without_own

if TYPE_CHECKING:
    from bearerd.cli.pasting import Pasted


@click.command("login")
@click.argument("account", required=False, shell_complete=complete_account)
@config_option
@click.option("--device", is_flag=True, help="Type a code in on another device.")
@click.option(
    "--no-browser", is_flag=True, help="Print the address alone, and take the one the login ends on."
)
def command(account: str | None, path: Path | None, *, device: bool, no_browser: bool) -> None:
    """Log in to ACCOUNT, or to the only one there is.

    A running bearerd that serves the account does it; where there is none, this command does. The address to open
    goes to standard output, everything else to standard error.

    Example: bearerd login work --no-browser
    """
    from bearerd.core.opening import find_hindrance

    if device and no_browser:
        raise click.UsageError("--device needs no browser here anyway; leave --no-browser out")
    way = "device" if device else "paste" if no_browser else "browser"
    name = account or find_only(path)
    hindrance = find_hindrance(sys.platform, os.environ) if way == "browser" else None
    if hindrance:
        click.echo(f"bearerd: {hindrance}, so no browser is opened", err=True)
        way = "paste"
    try:
        tell_done(asyncio.run(log_in(name, path, way)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("\nbearerd: the login was given up", err=True)
        raise click.exceptions.Exit(130) from None


def find_only(path: Path | None) -> str:
    """The only account that a person may log in to. Raises UsageError where there is another number of them."""
    from bearerd.core.accounts import OAuthSource
    from bearerd.settings import load

    accounts = load(path, {}, os.environ).configuration.accounts.values()
    names = [
        account.name
        for account in accounts
        if isinstance(account.source, OAuthSource) and account.source.interactive
    ]
    match names:
        case [name]:
            return name
        case []:
            raise click.UsageError(
                "there is no account that a person may log in to; see the grants with: bearerd config show"
            )
        case _:
            raise click.UsageError(f"there are several accounts; name one of {', '.join(sorted(names))}")


def tell_done(done: Mapping[str, Any]) -> None:
    who = f" as {done['subject']}" if done.get("subject") else ""
    expiry = datetime.fromtimestamp(done["expires_at"], UTC).isoformat(timespec="seconds")
    problem = done.get("problem")
    end = (
        f" until {expiry}: {problem}"
        if problem
        else f"; its token expires at {expiry} and is renewed by itself"
    )
    click.echo(f"bearerd: {done['account']} is logged in{who}{end}", err=True)


async def log_in(name: str, path: Path | None, way: str) -> Mapping[str, Any]:
    """By a running daemon that serves the account, else by ourselves. Raises BearerdError."""
    from bearerd.cli.pasting import Pasted
    from bearerd.control.client import Daemons
    from bearerd.control.conversation import Conversation
    from bearerd.control.rendezvous import find_origin

    daemons = Daemons(os.environ)
    if daemons.warning:
        click.echo(f"bearerd: warning: {daemons.warning}", err=True)
    conversation = await Conversation.open(daemons, "login", name, find_origin(path, os.environ), way)
    with Pasted() as pasted:
        if conversation is None:
            return await _log_in_alone(name, path, way, pasted)
        return await _talk(conversation, way, pasted)


async def _talk(conversation: Any, way: str, pasted: "Pasted") -> Mapping[str, Any]:
    """Show what the daemon says, and hand on what is pasted."""

    async def hand_on() -> None:
        while (text := await pasted.next()) is not None:
            await conversation.paste(text)

    handing = asyncio.create_task(hand_on())
    try:
        while True:
            said = await conversation.next()
            if is_over(said):
                return get_done(said)
            show(said, way)
    except EOFError:
        raise LoginFailed("the bearerd that kept this login has ended; log in again") from None
    finally:
        handing.cancel()
        conversation.close()


async def _log_in_alone(name: str, path: Path | None, way: str, pasted: "Pasted") -> Mapping[str, Any]:
    from bearerd import alone, logs
    from bearerd.core.configuration import Logging

    configuration, account = load_account(name, path)
    logs.configure(Logging(level="critical"))

    async def say(said: dict[str, Any]) -> None:
        show(said, way)

    return get_done(await alone.log_in(configuration, account, way, say, pasted.next))


def load_account(name: str, path: Path | None) -> Any:
    """The configuration and the account. Raises ConfigError, BadParameter."""
    from bearerd.settings import load

    configuration = load(path, {}, os.environ).configuration
    account = configuration.accounts.get(name)
    if account is None:
        refuse_name("account", name, sorted(configuration.accounts), "ACCOUNT")
    return configuration, account


def is_over(said: Mapping[str, Any]) -> bool:
    return "done" in said or "error" in said


def get_done(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """How it ended. Raises LoginFailed where it did not end well."""
    match said:
        case {"done": dict(done)}:
            return done
        case {"error": {"text": str(text)}}:
            raise LoginFailed(
                text if ";" in text else f"{text}; try again, or see what is wrong with: bearerd doctor"
            )
        case _:
            raise BearerdError("the running bearerd is of another version; restart it")


def show(said: Mapping[str, Any], way: str) -> None:
    """What is said to the person, on the way to the end."""
    match said:
        case {"login": {"url": str(url)}}:
            _show_address(url, way)
        case {"device": {"verification_uri": str(url), "user_code": str(code), **more}}:
            _show_device(url, code, more.get("verification_uri_complete"))
        case {"refused": str(text)}:
            click.echo(f"bearerd: {text}", err=True)


def _show_address(url: str, way: str) -> None:
    opened = way == "browser" and open_browser(url)
    click.echo(
        "bearerd: a browser was opened on this address:"
        if opened
        else "bearerd: open this address in a browser:",
        err=True,
    )
    click.echo(url)  # alone on its line, however long: it is copied
    if way == "paste":
        click.echo(
            "bearerd: then, if the browser does not say that you are logged in, paste the address "
            "it ends on here and press Enter:",
            err=True,
        )


def _show_device(url: str, code: str, complete: object) -> None:
    click.echo("bearerd: on any device, open", err=True)
    click.echo(url)
    click.echo(f"bearerd: and enter the code {code}", err=True)
    if isinstance(complete, str) and sys.stderr.isatty():
        _show_qr(complete)
    click.echo("bearerd: waiting for you to finish there", err=True)


def _show_qr(url: str) -> None:
    """As half blocks, where the terminal is large enough and the package is there that draws them."""
    try:
        import segno
    except ImportError:
        return
    code = segno.make(url, error="l", micro=False)
    columns, lines = shutil.get_terminal_size()
    width, height = code.symbol_size(border=2)
    if width <= columns and height // 2 + 8 <= lines:
        code.terminal(out=sys.stderr, border=2, compact=True)


def open_browser(url: str) -> bool:
    """Start the program that opens addresses here, if there is one. It is not waited for."""
    from bearerd.core.opening import build_opener

    try:
        argv = build_opener(url, sys.platform, os.environ, shutil.which)
    except ValueError:
        return False
    if argv is None:
        return False
    nothing = subprocess.DEVNULL
    try:
        subprocess.Popen(  # noqa: S603  # one program, one checked argument, no shell
            argv,
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            start_new_session=True,
            env=without_own(os.environ),
        )
    except OSError:
        return False
    return True
