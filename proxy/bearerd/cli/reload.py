"""`bearerd reload`: have running daemons read their configuration again."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from bearerd.cli import config_option
from bearerd.errors import BearerdError, ConfigError


@click.command("reload")
@config_option
def command(path: Path | None) -> None:
    """Have what runs read its configuration again.

    That is every running bearerd that serves the configuration. Calls go on meanwhile. A configuration that is not good changes nothing.

    Example: bearerd reload
    """
    from bearerd.control.client import Daemons
    from bearerd.control.rendezvous import find_origin

    daemons = Daemons(os.environ)
    origin = find_origin(path, os.environ)
    reports = daemons.reload(origin)
    if not reports:
        raise BearerdError(_nobody(origin.file, daemons.warning))
    for report in reports:
        if not report["problems"]:
            for line in describe(report):
                click.echo(f"bearerd: {line}", err=True)
    problems = [line for report in reports for line in _name_problems(report)]
    if problems:
        raise ConfigError("\n".join(problems))


def _nobody(file: str | None, warning: str | None) -> str:
    why = f"; {warning}" if warning else ""
    return (
        f"no running bearerd serves {file or 'this configuration'}{why}; "
        "see those that run with: bearerd status; start one with: bearerd run"
    )


def describe(report: Mapping[str, Any]) -> Iterator[str]:
    """What has changed, for people."""
    steps = [f"{what} {_list(report[what])}" for what in ("added", "changed", "removed") if report.get(what)]
    yield f"the daemon {report['pid']} has reloaded: {'; '.join(steps) or 'nothing has changed'}"
    yield from (f"warning: {warning}" for warning in report.get("warnings", ()))


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)


def _name_problems(report: Mapping[str, Any]) -> Iterator[str]:
    if report["problems"]:
        yield f"the daemon {report['pid']} goes on with the configuration it has:"
    yield from (str(line) for line in report["problems"])
