"""The pages of the demo's authorization server."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from bearerd.core.markup import element
from bearerd.core.pages import Page, build_message, page_headers, render

_CARRIED: Final = (
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
)


def build_form(parameters: Mapping[str, str]) -> Page:
    """Who are you, and may the client act for you? What was asked for travels in hidden fields."""
    hidden = [
        element("input", type="hidden", name=name, value=parameters[name])
        for name in _CARRIED
        if name in parameters
    ]
    return Page(
        "Log in",
        (
            element(
                "div",
                element("h1", "Log in to the demo"),
                element(
                    "p",
                    "This is the authorization server of bearerd's demo. It asks for no password: any name will do.",
                    class_="soft",
                ),
                element(
                    "form",
                    *hidden,
                    element("label", "Name", for_="name"),
                    element(
                        "input",
                        id="name",
                        name="name",
                        value="demo-user",
                        required=True,
                        maxlength="64",
                        autocomplete="username",
                        autofocus=True,
                    ),
                    element(
                        "div",
                        element("button", "Log in", name="decision", value="allow", class_="button"),
                        element(
                            "button",
                            "Deny",
                            name="decision",
                            value="deny",
                            class_="button quiet",
                            formnovalidate=True,
                        ),
                        class_="actions",
                    ),
                    method="post",
                    action="/authorize",
                    class_="login",
                ),
                class_="card message",
            ),
        ),
        form=True,
        alone=True,
    )


def build_refusal(reason: str) -> Page:
    """For a request that must not be answered by a redirect."""
    return replace(build_message("This login cannot begin", element("p", f"{reason}.")), alone=True)


def answer_page(page: Page, status: int = 200, form_action: str | None = None) -> web.Response:
    """`form_action` is where the form's answer is redirected to: Chromium holds form-action against that too."""
    headers = dict(page_headers(page))
    if form_action:
        parts = urlsplit(form_action)
        allowed = f"form-action 'self' {parts.scheme}://{parts.netloc}"
        policy = headers["Content-Security-Policy"]
        headers["Content-Security-Policy"] = policy.replace("form-action 'self'", allowed)
    return web.Response(body=render(page), status=status, headers=headers)
