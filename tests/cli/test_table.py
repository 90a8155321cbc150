"""What `bearerd status` shows to people."""

import io
import os
from typing import Any

import pytest

from bearerd.cli.table import Screen, format_all, format_moment, format_status, screen
from bearerd.places import default_path

NOW = 2_000_000_000.0
FILE = "/etc/my bearerd.toml"


def account(name: str, state: str = "active", **more: Any) -> dict[str, Any]:
    nothing = {"expires": None, "last_refresh": None, "problem": None, "cure": None, "login_url": None}
    return {"name": name, "state": state} | nothing | more


def document(*accounts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"addresses": ["http://127.0.0.1:6750"], "socket": None, "accounts": accounts} | more


OF_A_PROCESS = {"pid": 7, "config": FILE}
TROUBLED = account(
    "me", "login_required", problem="nobody has logged in yet", cure="bearerd login me", login_url="http://x/"
)
GOOD = account("work", expires={"epoch": NOW + 3300.5}, last_refresh={"epoch": NOW - 300.5})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_each_account_and_what_mends_it() -> None:
    """The command is one that finds the account: it names the file where that is not the default one."""
    assert format_status(document(GOOD, TROUBLED, **OF_A_PROCESS), NOW, Screen()).splitlines() == [
        "bearerd on http://127.0.0.1:6750, process 7, /etc/my bearerd.toml",
        "ACCOUNT  STATE         EXPIRES    LAST REFRESH",
        "work     active        in 55 min  5 min ago",
        "me       login needed  -          -",
        "me: nobody has logged in yet; run: bearerd login me -c '/etc/my bearerd.toml'",
    ]


def test_the_default_file_need_not_be_named() -> None:
    shown = format_status(
        document(TROUBLED, pid=7, config=os.path.realpath(default_path())), NOW, Screen()
    ).splitlines()
    assert shown[-1] == "me: nobody has logged in yet; run: bearerd login me"


def test_several_daemons() -> None:
    """One without a configuration file, and one by a socket that has no account."""
    second = document(addresses=[], socket="/run/b.sock", pid=8, config=None)
    assert format_all([document(GOOD), second], NOW, Screen()).splitlines() == [
        "bearerd on http://127.0.0.1:6750",
        "ACCOUNT  STATE   EXPIRES    LAST REFRESH",
        "work     active  in 55 min  5 min ago",
        "",
        "bearerd on unix:/run/b.sock, process 8, no configuration file",
        "no accounts",
    ]


def test_what_passes_by_itself_has_no_command() -> None:
    down = account("work", problem="the token endpoint said no")
    assert format_status(document(down), NOW, Screen()).endswith(
        "\nwork: the token endpoint said no; it is tried again by itself"
    )


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        ("waiting", "it is tried again by itself"),
        ("login_pending", "go on where the login was begun"),
        ("login_required", "give it a new refresh token, or log in where its vault is filled"),
    ],
)
def test_what_nobody_can_log_in_to_has_advice_all_the_same(state: str, advice: str) -> None:
    shown = format_status(document(account("work", state, problem="no")), NOW, Screen())
    assert shown.endswith(f"\nwork: no; {advice}")


def test_a_narrow_terminal_loses_columns_and_no_account() -> None:
    narrow = format_status(document(GOOD, TROUBLED), NOW, Screen(columns=34)).splitlines()
    assert narrow[1:4] == [
        "ACCOUNT  STATE         EXPIRES",
        "work     active        in 55 min",
        "me       login needed  -",
    ]
    assert "work     active" in format_status(document(GOOD), NOW, Screen(columns=1))


def test_colours_change_no_width() -> None:
    plain = format_status(document(GOOD, TROUBLED), NOW, Screen())
    coloured = format_status(document(GOOD, TROUBLED), NOW, Screen(colours=True))
    assert "\x1b[32mactive      \x1b[0m" in coloured
    assert "\x1b[31mlogin needed\x1b[0m" in coloured
    for code in ("\x1b[32m", "\x1b[31m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == plain


def test_a_token_that_cannot_be_renewed_just_now_is_no_good_news() -> None:
    shown = format_status(document(GOOD | {"problem": "no"}), NOW, Screen(colours=True))
    assert "\x1b[33mactive\x1b[0m" in shown


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colours_gets_none(variables: dict[str, str]) -> None:
    assert screen(Terminal(), {"TERM": "xterm"}).colours
    assert not screen(Terminal(), {"TERM": "xterm"} | variables).colours


def test_a_file_gets_no_colours_and_all_columns() -> None:
    assert screen(io.StringIO(), {"TERM": "xterm"}) == Screen(None, colours=False)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-90_000, "1 d 1 h ago"),
        (-7500, "2 h 5 min ago"),
        (-119, "119 s ago"),
        (-1, "1 s ago"),
        (-0.9, "now"),
        (0.9, "now"),
        (1, "in 1 s"),
        (120, "in 2 min"),
        (3599, "in 59 min"),
        (3600, "in 1 h 0 min"),
        (86_400, "in 1 d 0 h"),
    ],
)
def test_moments(seconds: float, text: str) -> None:
    assert format_moment(seconds) == text
