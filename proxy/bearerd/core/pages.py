"""Pages for people, as bytes and fields: nothing from elsewhere, no script but our own, in no frame."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from bearerd.core.markup import Markup, element
from bearerd.core.problems import Problem, problem_fields, problem_title
from bearerd.core.style import STYLE

KEY: Final = Markup(
    '<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" '
    'stroke-linejoin="round" aria-hidden="true"><circle cx="8" cy="15" r="4"/>'
    '<path d="M11 12 20 3M16 7l3 3M18.5 4.5 21 7"/></svg>'
)
TICK: Final = Markup(
    '<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2.4" stroke-linecap="round" '
    'stroke-linejoin="round" aria-hidden="true"><path d="m5 12.5 4.5 4.5L19 7.5"/></svg>'
)
ALERT: Final = Markup(
    '<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2.4" stroke-linecap="round" '
    'aria-hidden="true"><path d="M12 6.5v7M12 17.5v.01"/></svg>'
)
# Without one the browser asks for /favicon.ico, which would go to an upstream.
_ICON: Final = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' "
    "stroke='%230b8080' stroke-width='2.4' stroke-linecap='round'%3E%3Ccircle cx='8' cy='15' r='4'/%3E"
    "%3Cpath d='M11 12 20 3M16 7l3 3'/%3E%3C/svg%3E"
)


@dataclass(frozen=True, slots=True)
class Page:
    """What is on a page. `refresh_to` is where it goes on to by itself, after `refresh_s` seconds.

    `form` says that it has a form, which goes to us; `alone` that there is no status page where it is.
    """

    title: str
    body: tuple[Markup, ...]
    refresh_to: str | None = None
    refresh_s: int = 0
    script: str | None = None
    form: bool = False
    alone: bool = False


def render(page: Page) -> bytes:
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{page.title} · bearerd"),
        element("link", rel="icon", href=_ICON),
        element("style", Markup(STYLE)),
    ]
    if page.refresh_to:
        head.append(element("meta", http_equiv="refresh", content=f"{page.refresh_s}; url={page.refresh_to}"))
    body = [
        element("header", _brand(page)),
        element("main", *page.body),
    ]
    if page.script:
        body.append(element("script", Markup(page.script)))
    document = element("html", element("head", *head), element("body", *body), lang="en")
    return f"<!doctype html>\n{document}\n".encode()


def _brand(page: Page) -> Markup:
    if page.alone:
        return element("span", KEY, "bearerd", class_="brand")
    return element("a", KEY, "bearerd", class_="brand", href="/-/")


def page_headers(page: Page) -> list[tuple[str, str]]:
    """All fields but those of framing. Inline style and script are allowed by their hashes, nothing else is."""
    # With no-referrer the form's POST would have the origin "null" (Fetch, "append a request Origin header").
    referrer = "same-origin" if page.form else "no-referrer"
    return [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", _policy(page)),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Referrer-Policy", referrer),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
    ]


def _policy(page: Page) -> str:
    rules = ["default-src 'none'", f"style-src {_digest(STYLE)}", "img-src data:"]
    if page.script:
        rules += [
            f"script-src {_digest(page.script)}",
            "connect-src 'self'",
            "require-trusted-types-for 'script'",
        ]
    target = "'self'" if page.form else "'none'"
    return "; ".join([*rules, "base-uri 'none'", f"form-action {target}", "frame-ancestors 'none'"])


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def build_message(
    title: str,
    *children: Markup,
    mark: Markup = ALERT,
    kind: str = "bad",
    refresh_to: str | None = None,
    refresh_s: int = 0,
) -> Page:
    """One thing to say, in the middle of the page."""
    sign = element("div", mark, class_=f"mark {kind}".strip())
    card = element("div", sign, element("h1", title), *children, class_="card message")
    return Page(title, (card,), refresh_to, refresh_s)


def paragraph(*children: Markup | str, class_: str | None = None) -> Markup:
    return element("p", *children, class_=class_)


def build_button(text: str, href: str, *, quiet: bool = False) -> Markup:
    return element("a", text, class_="button quiet" if quiet else "button", href=href)


def build_actions(*children: Markup) -> Markup:
    return element("div", *children, class_="actions")


def build_login_href(path: str, target: bytes | None = None) -> str:
    """The link to a login page that comes back to `target`, which was asked for."""
    return f"{path}?return_to={quote(target, safe='')}" if target else path


def build_problem_page(problem: Problem, target: bytes, request_id: str | None = None) -> Page:
    """An error of our own, as the person is to see it who has gone to `target`. The log calls it by `request_id`."""
    if problem.login_url:
        return _build_login_needed(problem, problem.login_url, target)
    asked = () if request_id is None else (", request ", element("code", request_id))
    return build_message(
        problem_title(problem),
        paragraph(f"{sentence(problem.detail)}"),
        paragraph(
            "Status ",
            element("code", str(problem.status)),
            ", code ",
            element("code", problem.code),
            *asked,
            ".",
            class_="soft small",
        ),
        build_actions(build_button("Status page", "/-/", quiet=True)),
    )


def _build_login_needed(problem: Problem, login_url: str, target: bytes) -> Page:
    path = urlsplit(login_url).path
    name = path.rpartition("/")[2]
    reason = problem.detail.removeprefix(f"account {name}: ").partition("; log in ")[
        0
    ]  # there are buttons for it
    return build_message(
        "Please log in",
        paragraph(
            "What you asked for needs a login to the account ",
            element("strong", name),
            ". You come back to it afterwards.",
        ),
        build_actions(
            build_button("Log in", build_login_href(path, target)),
            build_button("Status page", "/-/", quiet=True),
        ),
        paragraph(f"Why: {reason}.", class_="soft small"),
        paragraph("In a terminal: ", element("code", f"bearerd login {name}"), class_="soft small"),
        mark=KEY,
        kind="",
    )


def sentence(text: str) -> str:
    """A reason, which begins small and has no full stop, as it stands alone."""
    return f"{text[:1].upper()}{text[1:]}."


def problem_page_headers(problem: Problem, page: Page) -> list[tuple[str, str]]:
    """The page's fields, and those that the problem has in any form."""
    return page_headers(page) + problem_fields(problem)
