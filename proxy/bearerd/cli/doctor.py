"""`bearerd doctor`: is the set-up sound, and what mends it."""

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bearerd.cli import config_option

if TYPE_CHECKING:
    from bearerd.doctor import Finding

FORMAT_VERSION: Final = 1


@click.command("doctor")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(path: Path | None, *, as_json: bool) -> None:
    """Examine the set-up: a line for each part, with a cure.

    That is settings, key, vault, locks, permissions and clock. Nothing is changed. The exit code is 1 if a line begins with FAIL.

    Example: bearerd doctor
    """
    import time

    from bearerd.doctor import Level, examine
    from bearerd.settings import load

    now = time.time()
    findings = []
    for finding in examine(load(path, {}, os.environ), now):
        findings.append(finding)
        if not as_json:
            click.echo(str(finding))
    if as_json:
        click.echo(format_json(findings, now))
    if any(finding.level is Level.FAIL for finding in findings):
        raise click.exceptions.Exit(1)


def format_json(findings: Iterable["Finding"], now: float) -> str:
    document = {
        "format_version": FORMAT_VERSION,
        "examined": {"epoch": now, "rfc3339": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")},
        "findings": [
            {
                "level": finding.level.lower(),
                "subject": finding.subject,
                "found": finding.found,
                "cure": finding.cure or None,
            }
            for finding in findings
        ],
    }
    return json.dumps(document, indent=2)
