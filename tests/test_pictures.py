"""The pictures of the first page are there, and show what the status page still says."""

import re
from typing import Final

import pytest

from bearerd.control.status import build_status
from bearerd.control.status_page import build_status_page
from bearerd.core.lifecycle import Active
from bearerd.core.pages import render
from bearerd.core.redaction import Secret
from bearerd.core.targets import parse_route
from bearerd.core.tokens import TokenSet
from pages import PROJECT
from pages.pictures import SCHEMES, TEXTS, picture_of

TOKEN: Final = TokenSet(1, Secret("access"), 1000.0, 1060.0, Secret("refresh"), subject="demo-user")
LIMIT: Final = 150 << 10


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_picture_for_light_and_for_dark(scheme: str) -> None:
    data = picture_of(scheme).read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(data) < LIMIT
    assert f"docs/pictures/status-{scheme}.png" in (PROJECT / "README.md").read_text(encoding="utf-8")


def test_what_stands_on_them_is_still_on_the_page() -> None:
    """But for times and addresses. Else: make pictures."""
    states = {"service": Active(TOKEN), "me": Active(TOKEN)}
    routes = tuple(parse_route(f"/{name}/", "http://127.0.0.1:9", name) for name in states)
    document = build_status(
        states, routes, ("http://127.0.0.1:6750",), 1001.0, {"me": "http://127.0.0.1/-/login/me"}
    )
    page = render(build_status_page(document, Secret("token"))).decode()
    words = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    shown = [line.strip() for line in TEXTS.read_text(encoding="utf-8").splitlines()]
    lasting = {line for line in shown if line and not re.search(r"\d", line)}
    assert {"Accounts", "Ready", "Logged in", "demo-user", "Log in again", "Routes"} <= lasting
    assert [line for line in lasting if line not in words] == []
