"""What a person reads about a login."""

from dataclasses import replace
from typing import Final

from bearerd.core.markup import element
from bearerd.core.pages import (
    ALERT,
    KEY,
    TICK,
    Page,
    build_actions,
    build_button,
    build_login_href,
    build_message,
    paragraph,
    sentence,
)
from bearerd.tokens.logins import UNKNOWN, LoggedIn

HOME: Final = "/-/"
SHOWN_S: Final = 2  # long enough to read who is logged in


def build_choice(accounts: tuple[str, ...], return_to: str) -> Page:
    links = [
        build_button(name, build_login_href(f"/-/login/{name}", return_to.encode())) for name in accounts
    ]
    return build_message(
        "Which account?",
        paragraph("More than one account can be logged in to here. Choose the one you need."),
        build_actions(*links),
        mark=KEY,
        kind="",
    )


def build_done(done: LoggedIn) -> Page:
    """Goes on by itself: a redirect would count as the authorization server's, and be refused by the guard."""
    who = (" as ", element("strong", done.subject)) if done.subject else ()
    home = done.return_to == HOME
    return build_message(
        "You are logged in",
        paragraph("Account ", element("strong", done.account), " is logged in", *who, "."),
        *([paragraph("It ends with its first token: ", done.problem, ".")] if done.problem else []),
        build_actions(build_button("To the status page" if home else "Continue", done.return_to)),
        paragraph("This page goes on by itself in a moment.", class_="soft small"),
        mark=TICK,
        kind="good",
        refresh_to=done.return_to,
        refresh_s=SHOWN_S,
    )


def build_closing(title: str, text: str, *, good: bool) -> Page:
    """The end of a login that was begun in a terminal and has come back to the terminal's own listener."""
    page = build_message(
        title,
        paragraph(sentence(text)),
        paragraph("You can close this page and go on in the terminal.", class_="soft small"),
        mark=TICK if good else ALERT,
        kind="good" if good else "bad",
    )
    return replace(page, alone=True)


def build_failed(account: str | None, reason: str) -> Page:
    """`reason` may be another server's words."""
    more = (
        [paragraph("If you are logged in already, there is nothing left to do.", class_="soft")]
        if reason == UNKNOWN
        else []
    )
    again = [build_button("Try again", f"/-/login/{account}")] if account else []
    return build_message(
        "The login did not work",
        paragraph(sentence(reason)),
        *more,
        build_actions(*again, build_button("Status page", HOME, quiet=bool(again))),
        paragraph("Nothing has changed: an earlier login that was good still is.", class_="soft small"),
    )


def build_not_begun(account: str, reason: str) -> Page:
    return build_message(
        "The login cannot begin",
        paragraph(sentence(reason)),
        build_actions(
            build_button("Try again", f"/-/login/{account}"), build_button("Status page", HOME, quiet=True)
        ),
    )


def build_terminal_s(account: str) -> Page:
    """The login was begun in a terminal, and this browser cannot prove that it is the same person's."""
    return build_message(
        "One more step, in the terminal",
        paragraph(
            "The login to account ",
            element("strong", account),
            " was begun in a terminal and can only end there. Copy this page's whole address, "
            "paste it into the terminal and press Enter.",
        ),
        paragraph("The address is good once, and for ten minutes. Give it to nobody.", class_="soft small"),
        mark=KEY,
        kind="",
    )


def build_logged_out(account: str, problem: str) -> Page:
    """A logout that did not reach everything."""
    return build_message(
        "Logged out, but not everywhere",
        paragraph("This daemon has no token of account ", element("strong", account), " any more."),
        paragraph("What is left: ", problem, "."),
        build_actions(build_button("Status page", HOME)),
    )
