"""The truth table of what a browser may show as a page, and of what it may install (threat 19)."""

from itertools import product
from typing import Final

import pytest

from bearerd.core.guard import Head
from bearerd.core.sandbox import SANDBOX, WORKER_REFUSED, asks_for_worker, may_become_page
from bearerd.forward.direct import is_ordinary

pytestmark = pytest.mark.threat(19)

METHODS: Final = ["GET", "HEAD", "POST", "PUT", "DELETE"]


def head(*fields: tuple[bytes, bytes | None], method: str = "GET") -> Head:
    return Head(method, b"/x", (1, 1), tuple((name, value) for name, value in fields if value is not None))


def fetch(mode: bytes | None, dest: bytes | None, method: str = "GET") -> Head:
    fields = ((b"Sec-Fetch-Mode", mode), (b"SEC-FETCH-DEST", dest), (b"Sec-Fetch-Site", b"none"))
    return head(*fields, method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("mode", "dest", "expected"),
    [
        (b"navigate", b"document", True),
        (b"navigate", b"iframe", True),
        (b"navigate", b"frame", True),
        (b"navigate", b"embed", True),
        (b"navigate", b"object", True),
        (b"navigate", b"fencedframe", True),
        (b"navigate", b"empty", True),
        (b"navigate", b"what comes in ten years", True),
        (b"navigate", None, True),
        (b"no-cors", b"embed", True),  # a plug-in's, which may turn out to be a page
        (b"no-cors", b"object", True),
        (b"same-origin", b"document", True),
        (b"what comes in ten years", b"empty", True),
        (None, b"document", True),
        (None, b"empty", True),
        (None, None, True),
        (b"cors", b"empty", False),
        (b"cors", None, False),
        (b"no-cors", b"image", False),
        (b"no-cors", b"script", False),
        (b"same-origin", b"worker", False),
        (b"cors", b"font", False),
        (b"websocket", b"empty", False),
    ],
)
def test_fetch_metadata_says_it(
    method: str, mode: bytes | None, dest: bytes | None, *, expected: bool
) -> None:
    assert may_become_page(fetch(mode, dest, method)) is expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([(b"Accept", b"text/html,*/*"), (b"Accept-Language", b"en")], True),
        ([(b"Accept", b"image/avif,*/*"), (b"accept-language", b"en")], True),
        ([(b"Upgrade-Insecure-Requests", b"1")], True),
        ([(b"Sec-Fetch-User", b"?1")], True),
        ([(b"Accept", b"*/*"), (b"User-Agent", b"curl/8")], False),
        ([(b"Accept", b"text/html")], False),
        ([], False),
        ([(b"Accept-Language", b"*"), (b"Sec-Fetch-Mode", b"cors")], False),  # fetch of Node
    ],
)
def test_a_browser_that_does_not_say_may_show_anything(
    fields: list[tuple[bytes, bytes]], *, expected: bool
) -> None:
    """Old ones, and all of them at a name without TLS that is not localhost. Programs send none of this."""
    assert may_become_page(head(*fields)) is expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([(b"Service-Worker", b"script")], True),
        ([(b"service-worker", b"Script")], True),
        ([(b"Service-Worker", b"")], True),
        ([(b"Sec-Fetch-Dest", b"worker")], False),
        ([(b"X-Service-Worker", b"script")], False),
        ([], False),
    ],
)
def test_who_asks_for_a_worker(fields: list[tuple[bytes, bytes]], *, expected: bool) -> None:
    assert asks_for_worker(head(*fields)) is expected


MODES: Final = [None, b"navigate", b"cors", b"no-cors", b"same-origin", b"websocket", b"x"]
DESTS: Final = [None, b"document", b"iframe", b"empty", b"image", b"serviceworker", b"object", b"x"]


def test_what_needs_a_second_look_never_takes_the_short_way() -> None:
    """The short way neither adds to an answer nor refuses anything."""
    for method, mode, dest, worker, language in product(
        ("GET", "POST"), MODES, DESTS, (None, b"script"), (None, b"en")
    ):
        request = head(
            (b"Sec-Fetch-Mode", mode),
            (b"Sec-Fetch-Dest", dest),
            (b"Service-Worker", worker),
            (b"Accept-Language", language),
            method=method,
        )
        assert not is_ordinary(request) or not (may_become_page(request) or asks_for_worker(request))


def test_calls_of_programs_and_of_pages_take_the_short_way() -> None:
    assert is_ordinary(head((b"Accept", b"*/*"), (b"User-Agent", b"x")))
    assert is_ordinary(fetch(b"cors", b"empty", "POST"))


def test_the_sandbox_lets_no_page_have_an_origin() -> None:
    ((name, value),) = SANDBOX
    assert name == b"Content-Security-Policy"
    assert value.split() == [b"sandbox", b"allow-scripts", b"allow-forms"]
    assert (WORKER_REFUSED.status, WORKER_REFUSED.code) == (403, "worker_refused")
