"""The status documents as a table for people."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TextIO

import click

from bearerd.cli.naming import config_option_for
from bearerd.control.status import ELSEWHERE, list_places

Document = Mapping[str, Any]

_HEAD: Final = ("ACCOUNT", "STATE", "EXPIRES", "LAST REFRESH")
_STATES: Final = {"login_required": "login needed", "login_pending": "login under way"}
_COLOURS: Final = {"active": "green", "login_required": "red"}
_ADVICE: Final = {
    "login_pending": "go on where the login was begun",
    "login_required": ELSEWHERE,
}
_GAP: Final = "  "
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Screen:
    """What is written to: how wide it is, None where that does not matter, and whether it has colours."""

    columns: int | None = None
    colours: bool = False


def screen(stream: TextIO, environ: Mapping[str, str]) -> Screen:
    """A terminal has colours unless NO_COLOR (no-color.org) or TERM=dumb says otherwise; a file has none."""
    if not stream.isatty():
        return Screen()
    plain = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
    return Screen(shutil.get_terminal_size().columns, not plain)


def format_all(documents: Sequence[Document], now: float, to: Screen) -> str:
    """A table for each daemon, under a line that says which one it is."""
    return "\n\n".join(format_status(document, now, to) for document in documents)


def format_status(document: Document, now: float, to: Screen) -> str:
    """Which daemon it is, a line per account, and a line per problem with what mends it. `now` is in epoch seconds."""
    accounts = document["accounts"]
    if not accounts:
        return f"{_title(document)}\nno accounts"
    rows = [_HEAD, *(_row(account, now) for account in accounts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    if to.columns is not None:
        while len(widths) > 2 and sum(widths) + len(_GAP) * (len(widths) - 1) > to.columns:
            widths.pop()
    states = ("", *(_colour(account) for account in accounts))
    lines = [_line(row, widths, state if to.colours else "") for row, state in zip(rows, states, strict=True)]
    option = config_option_for(document.get("config"))
    lines += [_trouble(account, option) for account in accounts if account["problem"]]
    return "\n".join([_title(document), *lines])


def _title(document: Document) -> str:
    """A daemon that was asked by its port says nothing of its process and its file."""
    title = f"bearerd on {' and '.join(list_places(document))}"
    if "pid" not in document:
        return title
    return f"{title}, process {document['pid']}, {document['config'] or 'no configuration file'}"


def _row(account: Document, now: float) -> tuple[str, str, str, str]:
    expires, refreshed = account["expires"], account["last_refresh"]
    state = str(account["state"])
    return (
        str(account["name"]),
        _STATES.get(state, state),
        "-" if expires is None else format_moment(expires["epoch"] - now),
        "-" if refreshed is None else format_moment(refreshed["epoch"] - now),
    )


def _line(row: Sequence[str], widths: Sequence[int], colour: str) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
    if colour:
        cells[1] = click.style(cells[1], fg=colour)
    return _GAP.join(cells).rstrip()


def _colour(account: Document) -> str:
    if account["state"] == "active" and account["problem"]:
        return "yellow"
    return _COLOURS.get(account["state"], "yellow")


def _trouble(account: Document, option: str) -> str:
    cure = account.get("cure")  # a daemon of an earlier version has none
    known = _ADVICE.get(account["state"], "it is tried again by itself")
    advice = f"run: {cure}{option}" if cure else known
    return f"{account['name']}: {account['problem']}; {advice}"


def format_moment(seconds: float) -> str:
    """A moment so many seconds from now, or ago where there are less than none: in the two largest units that it has."""
    if seconds <= -1:
        return f"{_format_span(-seconds)} ago"
    return "now" if seconds < 1 else f"in {_format_span(seconds)}"


def _format_span(seconds: float) -> str:
    whole = int(seconds)
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole // _MINUTE % 60} min"
    return f"{whole // _DAY} d {whole // _HOUR % 24} h"
