"""`bearerd doctor`: is the set-up sound, and what mends it."""

import json
import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bearerd.cli import config_option

if TYPE_CHECKING:
    from bearerd.doctor import Finding, Network
    from bearerd.settings import Loaded

FORMAT_VERSION: Final = 1


@click.command("doctor")
@config_option
@click.option("--offline", is_flag=True, help="Ask no other machine.")
@click.option(
    "--online", is_flag=True, help="Show client secrets to token endpoints, too, to see if they are taken."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(path: Path | None, *, offline: bool, online: bool, as_json: bool) -> None:
    """Examine the set-up: a line for each part, with a cure.

    That is what bearerd needs here and of servers. Nothing is changed, no refresh token is shown and no login begun.
    Takes 10 seconds at most. The exit code is 1 if a line begins with FAIL.

    Example: bearerd doctor
    """
    from bearerd import loop
    from bearerd.doctor import Level, Network
    from bearerd.settings import load

    if offline and online:
        raise click.UsageError("--offline and --online exclude each other; take one of them")
    network = Network.NONE if offline else Network.FULL if online else Network.OPEN
    now = time.time()
    findings = loop.run(_examine(load(path, {}, os.environ), network, quiet=as_json))
    if as_json:
        click.echo(format_json(findings, now))
    if any(finding.level is Level.FAIL for finding in findings):
        raise click.exceptions.Exit(1)


async def _examine(loaded: "Loaded", network: "Network", *, quiet: bool) -> list["Finding"]:
    from bearerd.doctor import examine

    findings = []
    async for finding in examine(loaded, os.environ, network):
        findings.append(finding)
        if not quiet:
            click.echo(str(finding))
    return findings


def format_json(findings: Iterable["Finding"], now: float) -> str:
    document = {
        "format_version": FORMAT_VERSION,
        "examined": {"epoch": now, "rfc3339": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")},
        "findings": [format_finding(finding) for finding in findings],
    }
    return json.dumps(document, indent=2)


def format_finding(finding: "Finding") -> dict[str, Any]:
    return {
        "level": finding.level.lower(),
        "subject": finding.subject,
        "found": finding.found,
        "cure": finding.cure or None,
    }
