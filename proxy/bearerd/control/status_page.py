"""The status document as a page. It says everything without its script, which only keeps it up to date."""

import json
from datetime import datetime
from typing import Any, Final

from bearerd.control.live import SCRIPT
from bearerd.control.status import ELSEWHERE, list_places
from bearerd.core.markup import Markup, element
from bearerd.core.pages import Page, sentence
from bearerd.core.redaction import Secret

Document = dict[str, Any]

_STATES: Final = {
    "active": ("Logged in", "Ready"),
    "waiting": ("Waiting for a token", "Waiting for a token"),
    "login_pending": ("Login under way", "Login under way"),
    "login_required": ("Login needed", "Login needed"),
}
_DAY: Final = 86_400
_HOUR: Final = 3_600


def build_status_page(document: Document, token: Secret) -> Page:
    """`token` goes with the forms of the browser that asks."""
    accounts = [_build_account(account, token) for account in document["accounts"]]
    body = (
        element("p", id="said", role="status", class_="hidden-text"),
        element(
            "div",
            element("p", "bearerd does not answer any more. What you see here is how it was."),
            id="lost",
            class_="card trouble bad",
            role="alert",
            hidden=True,
        ),
        element("h1", "Accounts"),
        *(accounts or [element("p", "No account is configured.", class_="card soft")]),
        element("h2", "Routes"),
        element("ul", *(_build_route(route) for route in document["routes"]), class_="plain card"),
        element("h2", "Addresses"),
        element(
            "ul",
            *(element("li", element("code", place)) for place in list_places(document)),
            class_="plain card",
        ),
        element("noscript", element("p", element("a", "Show how it is now", href="/-/"), class_="small")),
        element("p", f"bearerd {document['version']}", class_="soft small"),
    )
    return Page("Status", body, script=SCRIPT, form=True)


def _build_account(account: Document, token: Secret) -> Markup:
    name, state = account["name"], account["state"]
    texts = {key: pair[0 if account["login_url"] else 1] for key, pair in _STATES.items()}
    trouble = account["problem"] is not None and state != "login_required"
    badge = element(
        "span",
        texts[state],
        class_="badge",
        data_state="trouble" if trouble else state,
        data_field="badge",
    )
    return element(
        "article",
        element("div", element("h3", name, id=f"account-{name}"), badge, class_="top"),
        element("p", account["subject"] or "", class_="who", data_field="who", hidden=not account["subject"]),
        _build_facts(account),
        _build_bar(account),
        _build_trouble(account),
        _build_actions(account, token),
        class_="card",
        data_account=name,
        aria_labelledby=f"account-{name}",
        data_texts=json.dumps(texts),
    )


def _build_facts(account: Document) -> Markup:
    left, refreshed = account["seconds_left"], account["last_refresh"]
    expires = account["expires"]
    return element(
        "dl",
        element(
            "div",
            element("dt", "Token expires in"),
            element(
                "dd",
                element("span", format_duration(left) if left else "expired", data_field="left"),
                " ",
                element(
                    "span",
                    "(",
                    element("span", _clock(expires), data_field="until"),
                    ")",
                    class_="soft small",
                ),
            ),
            data_field="expiry",
            hidden=left is None,
        ),
        element(
            "div",
            element("dt", "Last refresh"),
            element(
                "dd",
                element(
                    "time",
                    _clock(refreshed),
                    datetime=refreshed["rfc3339"] if refreshed else "",
                    data_field="refresh",
                ),
            ),
            data_field="refreshed",
            hidden=refreshed is None,
        ),
        data_field="facts",
        hidden=left is None and refreshed is None,
    )


def _build_bar(account: Document) -> Markup:
    """How much of the token's life is left."""
    left, expires, refreshed = account["seconds_left"], account["expires"], account["last_refresh"]
    known = left is not None and refreshed is not None
    lifetime_s = max(1, int(expires["epoch"] - refreshed["epoch"])) if known else 1
    return element(
        "progress",
        max=str(lifetime_s),
        value=str(min(left, lifetime_s) if known else 0),
        aria_label=f"What is left of the token's life, account {account['name']}",
        data_field="progress",
        hidden=not known,
    )


def _build_trouble(account: Document) -> Markup:
    problem, cure, state = account["problem"], account["cure"], account["state"]
    itself = state not in {"login_required", "login_pending"}
    return element(
        "div",
        element(
            "p",
            element("span", sentence(problem) if problem else "", data_field="problem"),
            element("span", " It is tried again by itself.", data_field="itself", hidden=not itself),
            element(
                "span",
                f" {sentence(ELSEWHERE)}",
                data_field="elsewhere",
                hidden=state != "login_required" or cure is not None,
            ),
            element(
                "span",
                " Log in with the button, or in a terminal with ",
                element("code", cure or "", data_field="command"),
                ".",
                data_field="cure",
                hidden=cure is None,
            ),
        ),
        class_="trouble bad" if state == "login_required" else "trouble",
        data_field="trouble",
        hidden=problem is None,
    )


def _build_actions(account: Document, token: Secret) -> Markup:
    name = account["name"]
    if not account["login_url"]:
        return Markup("")
    quiet = account["state"] in {"active", "waiting"}
    login = element(
        "a",
        element("span", "Log in again" if quiet else "Log in", data_field="again"),
        element("span", f" to {name}", class_="hidden-text"),
        href=f"/-/login/{name}",
        class_="button quiet" if quiet else "button",
        data_field="login",
    )
    logout = element(
        "form",
        element("input", type="hidden", name="csrf", value=token.reveal()),
        element(
            "button",
            "Log out",
            element("span", f" of {name}", class_="hidden-text"),
            type="submit",
            class_="button quiet",
        ),
        method="post",
        action=f"/-/logout/{name}",
        data_field="logout",
        hidden=not account["can_log_out"],
    )
    return element("div", login, logout, class_="actions")


def _build_route(route: Document) -> Markup:
    return element(
        "li",
        element("code", route["prefix"]),
        element("span", " → ", aria_hidden="true", class_="soft"),
        element("span", " goes to ", class_="hidden-text"),
        element("code", route["upstream"]),
        element("span", f" with a token of {route['account']}", class_="soft small"),
    )


def format_duration(seconds: float) -> str:
    """As the script has it too."""
    left = max(0, int(seconds))
    if left < 60:
        return f"{left} s"
    if left < _HOUR:
        return f"{left // 60} min {left % 60} s"
    if left < _DAY:
        return f"{left // _HOUR} h {left // 60 % 60} min"
    return f"{left // _DAY} d {left // _HOUR % 24} h"


def _clock(instant: Document | None) -> str:
    """In UTC: the browser's zone is for its script to know."""
    if instant is None:
        return ""
    return datetime.fromisoformat(instant["rfc3339"]).strftime("%Y-%m-%d %H:%M:%S UTC")
