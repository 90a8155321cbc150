"""The truth table of who is shown a page and who gets JSON."""

import pytest

from bearerd.core.guard import Head
from bearerd.core.navigation import prefers_html, wants_page

CHROME = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
SAFARI = b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
JAVA = b"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"


def head(method: str = "GET", **fields: bytes | None) -> Head:
    pairs = [(name.replace("_", "-").encode(), value) for name, value in fields.items()]
    return Head(method, b"/x", (1, 1), tuple((name, value) for name, value in pairs if value is not None))


@pytest.mark.parametrize(
    ("mode", "dest", "expected"),
    [
        (b"navigate", b"document", True),
        (b"navigate", b"iframe", False),
        (b"navigate", b"empty", False),
        (b"navigate", None, False),
        (None, b"document", False),
        (b"cors", b"empty", False),
        (b"same-origin", b"empty", False),
        (b"no-cors", b"image", False),
        (b"no-cors", b"script", False),
        (b"websocket", b"empty", False),
    ],
)
@pytest.mark.parametrize("accept", [CHROME, b"*/*", b"application/json"])
def test_fetch_metadata_decides_where_there_is_any(
    mode: bytes | None, dest: bytes | None, accept: bytes, *, expected: bool
) -> None:
    assert wants_page(head(accept=accept, Sec_Fetch_Mode=mode, sec_fetch_dest=dest)) is expected


def test_a_script_that_asks_for_html_gets_json() -> None:
    assert not wants_page(head(Sec_Fetch_Site=b"same-origin", accept=CHROME))


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_only_get_is_a_navigation(method: str) -> None:
    assert not wants_page(head(method, Sec_Fetch_Mode=b"navigate", Sec_Fetch_Dest=b"document"))
    assert not wants_page(head(method, accept=CHROME))


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (CHROME, True),
        (SAFARI, True),
        (b"text/html", True),
        (b"TEXT/HTML", True),
        (b"text/html, */*;q=0.01", True),
        (b"text/html;q=0.9, application/json;q=0.5", True),
        (b"text/html; charset=utf-8; q=1, */*; q=0.1", True),
        (b"", False),
        (b"*/*", False),
        (b"text/*", False),
        (b"text/html, */*", False),
        (b"text/html, application/json", False),
        (b"application/json, text/html;q=0.9", False),
        (b"text/html;q=0.5, application/problem+json", False),
        (b"text/html;q=0", False),
        (b"text/html;q=x", False),
        (b"text/html;q=nan", False),
        (b"application/json, text/plain, */*", False),
        (b"application/json, text/event-stream", False),
        (b",,;q=1,", False),
        (JAVA, False),
        (b"\xff/\xfe, text/html", True),
    ],
)
def test_accept(accept: bytes, *, expected: bool) -> None:
    assert prefers_html(accept) is expected
    assert wants_page(head(accept=accept)) is expected


def test_several_accept_fields_are_one_list() -> None:
    fields = ((b"Accept", b"text/html"), (b"accept", b"application/json"))
    assert not wants_page(Head("GET", b"/", (1, 1), fields))
    assert not wants_page(head())
