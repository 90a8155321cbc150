"""Pages: nothing that a page says can become part of it, and nothing comes from elsewhere."""

import base64
import hashlib
import re
from dataclasses import replace

import pytest

from bearerd.core.markup import element
from bearerd.core.pages import (
    Page,
    build_message,
    build_problem_page,
    page_headers,
    paragraph,
    problem_page_headers,
    render,
    sentence,
)
from bearerd.core.problems import TITLES, Problem, no_token
from bearerd.errors import LoginRequired, TokenUnavailable

HOSTILE = "<script>alert(1)</script> & \"'"


def needed(target: bytes) -> str:
    problem = no_token("work", LoginRequired("logged out"), "http://127.0.0.1:6750/-/login/work")
    return render(build_problem_page(problem, target)).decode()


@pytest.mark.parametrize("status", sorted(TITLES))
def test_every_problem_has_a_page(status: int) -> None:
    problem = Problem(status, "some_code", HOSTILE, "proxy_internal_error", (("Allow", "GET"),))
    page = build_problem_page(problem, b"/x")
    text = render(page).decode()
    assert TITLES[status] in text
    assert "<script" not in text
    assert "&lt;script&gt;" in text.lower()
    fields = problem_page_headers(problem, page)
    assert ("Allow", "GET") in fields
    assert ("Proxy-Status", "bearerd; error=proxy_internal_error") in fields
    assert len({name for name, _ in fields}) == len(fields)


def test_a_login_that_is_needed_has_a_button_that_comes_back() -> None:
    text = needed(b"/me/x?a=1&b=%20\"'<")
    assert 'href="/-/login/work?return_to=%2Fme%2Fx%3Fa%3D1%26b%3D%2520%22%27%3C"' in text
    assert "Why: logged out." in text
    assert "<code>bearerd login work</code>" in text


def test_without_a_login_page_there_is_no_button() -> None:
    for error in (LoginRequired("logged out"), TokenUnavailable("down", 1.0)):
        text = render(build_problem_page(no_token("work", error), b"/x")).decode()
        assert "/-/login" not in text


def test_the_policy_allows_what_is_on_the_page_and_nothing_else() -> None:
    script = "let a = 1;"
    page = Page("t", (element("p", "x"),), script=script, form=True)
    text, fields = render(page).decode(), dict(page_headers(page))
    policy = dict(rule.split(" ", 1) for rule in fields["Content-Security-Policy"].split("; "))
    for name in ("style", "script"):
        (inline,) = re.findall(rf"(?s)<{name}>(.*?)</{name}>", text)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy[f"{name}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["form-action"] == policy["connect-src"] == "'self'"
    assert fields["Referrer-Policy"] == "same-origin"


def test_a_page_without_script_or_form_may_do_neither() -> None:
    page = build_message("t", paragraph("x"))
    fields = dict(page_headers(page))
    assert "script-src" not in fields["Content-Security-Policy"]
    assert "connect-src" not in fields["Content-Security-Policy"]
    assert "form-action 'none'" in fields["Content-Security-Policy"]
    assert fields["Referrer-Policy"] == "no-referrer"
    assert " style=" not in render(page).decode()


def test_a_page_that_goes_on_by_itself() -> None:
    text = render(build_message("t", refresh_to="/a?b=\"'<", refresh_s=2)).decode()
    assert '<meta http-equiv="refresh" content="2; url=/a?b=&quot;&#x27;&lt;">' in text


def test_sentences() -> None:
    assert sentence("the server says no") == "The server says no."
    assert sentence("") == "."


def test_a_page_alone_leads_nowhere() -> None:
    page = build_message("t", paragraph("x"))
    assert 'href="/-/"' in render(page).decode()
    assert 'href="/' not in render(replace(page, alone=True)).decode()
