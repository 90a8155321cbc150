"""Requests as the core judges them, and answers of our own pages."""

from collections.abc import Iterable
from typing import Final

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from yarl import URL

from bearerd import __version__
from bearerd.core.cors import grant
from bearerd.core.guard import Guard, Head, origin_form
from bearerd.core.pages import Page, page_headers, render

Fields = Iterable[tuple[str, str]]

SERVER: Final = f"bearerd/{__version__}"
_KEPT: Final = 128  # as many as `functools.lru_cache` does by itself
_PLAIN: Final = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)


def read_head(message: RawRequestMessage | web.BaseRequest, path: str, guard: Guard) -> Head:
    """`path` is the target as the parser gives it."""
    head = Head(
        message.method,
        origin_form(guard, path.encode("utf-8", "surrogateescape")),
        message.version,
        message.raw_headers,
    )
    if guard.foreign:
        head.grant = grant(guard, head)
    return head


def forget_addresses() -> None:
    """What parses requests keeps the last addresses that it has parsed. A callback's has a code in it, and a state."""
    for number in range(_KEPT):
        URL.build(path=f"/{number}", encoded=True)


def answer_page(status: int, page: Page, fields: Fields = ()) -> web.Response:
    return _answer(status, render(page), (*page_headers(page), *fields))


def answer_plainly(text: str, content_type: str, status: int = 200) -> web.Response:
    """An answer for programs."""
    return _answer(status, text.encode(), (("Content-Type", content_type), *_PLAIN))


def send_on(location: str, fields: Fields = (), *, status: int = 302) -> web.Response:
    return _answer(status, b"", (("Location", location), *_PLAIN, *fields))


def _answer(status: int, body: bytes, fields: Fields) -> web.Response:
    response = web.Response(status=status, body=body)
    for name, value in fields:
        response.headers.add(name, value)
    response.headers["Server"] = SERVER
    return response
