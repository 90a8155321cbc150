"""Pages of allowed origins: who they are, what they are told, and that nothing of it holds for our own pages."""

from dataclasses import replace

import pytest

from bearerd.core.cors import grant, preflight
from bearerd.core.guard import Guard, Head, build_guard, foreign_origin, is_same_origin, refuse

APP = "https://app.example.com"
VIEW = "vscode-webview://1a2b"
GUARD = build_guard(6750, ["named.test"], "x", allowed_origins=[APP, VIEW, "http://localhost:6750"])
CLOSED = build_guard(6750, ["named.test"], "x")
ASK = (b"Access-Control-Request-Method", b"PUT")
ORIGIN = (b"Access-Control-Allow-Origin", APP.encode())
EXPOSE = (b"Access-Control-Expose-Headers", b"*")
VARY = (b"Vary", b"Origin")
AGE = (b"Access-Control-Max-Age", b"600")


def head(
    *fields: tuple[bytes, bytes], method: str = "GET", target: bytes = b"/x", host: bytes = b"localhost:6750"
) -> Head:
    return Head(method, target, (1, 1), ((b"Host", host), *fields))


def page(origin: str = APP, *fields: tuple[bytes, bytes], method: str = "GET", target: bytes = b"/x") -> Head:
    return head((b"Origin", origin.encode()), *fields, method=method, target=target)


def code(request: Head, guard: Guard = GUARD) -> str | None:
    problem = refuse(guard, request)
    return None if problem is None else problem.code


@pytest.mark.parametrize("origin", [APP, VIEW])
@pytest.mark.parametrize("site", [b"cross-site", b"same-site", b"none", b"same-origin"])
def test_an_allowed_origin_may_call_whatever_fetch_metadata_says(origin: str, site: bytes) -> None:
    request = page(origin, (b"Sec-Fetch-Site", site), method="POST")
    assert code(request) is None
    assert code(request, CLOSED) == "origin_refused"
    assert foreign_origin(GUARD, request) == origin.encode()


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "*",
        "",
        "https://app.example.com:443",
        "https://app.example.com/",
        "https://APP.example.com",
        "http://app.example.com",
        "https://app.example.com.evil.test",
        "https://evil.test, https://app.example.com",
        "https://app.example.com https://evil.test",
        "https://a@app.example.com",
        "vscode-webview://1a2bc",
        "vscode-webview://",
    ],
)
def test_any_other_is_refused_as_before(origin: str) -> None:
    request = page(origin, ASK, method="OPTIONS")
    assert code(request) == "origin_refused"
    assert preflight(GUARD, request) is None
    assert grant(GUARD, request) == (VARY,)


@pytest.mark.parametrize("other", [APP.encode(), b"https://evil.test", b"http://localhost:6750", b"null"])
@pytest.mark.parametrize("order", [1, -1])
def test_one_allowed_origin_does_not_excuse_a_second(other: bytes, order: int) -> None:
    origins = ((b"Origin", APP.encode()), (b"origin", other))[::order]
    request = head(*origins, ASK, method="OPTIONS")
    assert code(request) == "origin_refused"
    assert preflight(GUARD, request) is None
    assert grant(GUARD, request) == (VARY,)


@pytest.mark.parametrize(
    "target", [b"/-/", b"/-", b"/-/status", b"/-/logout/work", b"/-/livez?x", b"/registered"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_our_own_pages_never_let_another_origin_in(target: bytes, method: str) -> None:
    guard = replace(GUARD, callbacks=frozenset({b"/registered"}))
    request = page(APP, ASK, (b"Sec-Fetch-Site", b"same-origin"), method=method, target=target)
    assert code(request, guard) == "origin_refused"
    assert grant(guard, request) == ()
    assert not is_same_origin(guard, request)


def test_all_other_rules_hold() -> None:
    origin = (b"Origin", APP.encode())
    assert code(head(origin, host=b"evil.test")) == "wrong_authority"
    assert code(head(origin, method="TRACE")) == "method_refused"
    assert code(head(origin, (b"Transfer-Encoding", b"gzip"))) == "bad_request"
    assert code(head(origin, (b"Via", b"1.1 x"))) == "loop"
    assert code(head((b"Sec-Fetch-Site", b"cross-site"))) == "origin_refused", (
        "no origin is not an allowed one"
    )


@pytest.mark.threat(3)
def test_what_an_answer_grants() -> None:
    assert grant(GUARD, page()) == (ORIGIN, EXPOSE, VARY)
    assert grant(GUARD, page(VIEW))[0] == (b"Access-Control-Allow-Origin", VIEW.encode())
    assert grant(GUARD, head()) == (VARY,), "a cache keeps the answers apart"
    assert grant(GUARD, page("http://localhost:6750")) == (VARY,), "our own pages need no leave"
    assert grant(CLOSED, page()) == ()


@pytest.mark.parametrize(
    ("fields", "granted"),
    [
        ([], []),
        (
            [(b"access-control-request-headers", b"authorization,x-a")],
            [(b"Access-Control-Allow-Headers", b"authorization,x-a")],
        ),
        (
            [(b"Access-Control-Request-Headers", b"a"), (b"Access-Control-Request-Headers", b"b ,\tc")],
            [(b"Access-Control-Allow-Headers", b"a, b ,\tc")],
        ),
        ([(b"Access-Control-Request-Headers", b"")], []),
        ([(b"Access-Control-Request-Headers", b"a b")], []),
        ([(b"Access-Control-Request-Headers", b"a,,b")], []),
        ([(b"Access-Control-Request-Headers", b"a\xe9")], []),
        (
            [(b"Access-Control-Request-Private-Network", b"true")],
            [(b"Access-Control-Allow-Private-Network", b"true")],
        ),
        ([(b"Access-Control-Request-Private-Network", b"1")], []),
    ],
)
def test_a_preflight_is_granted_what_it_asks_for(
    fields: list[tuple[bytes, bytes]], granted: list[tuple[bytes, bytes]]
) -> None:
    request = page(APP, ASK, *fields, method="OPTIONS")
    methods = (b"Access-Control-Allow-Methods", b"PUT")
    assert preflight(GUARD, request) == (ORIGIN, EXPOSE, VARY, methods, *granted, AGE)
    assert preflight(CLOSED, request) is None


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT", b"", b"A B", b"GET, PUT"])
def test_methods_that_no_page_is_granted(method: bytes) -> None:
    request = page(APP, (b"Access-Control-Request-Method", method), method="OPTIONS")
    assert preflight(GUARD, request) == (ORIGIN, EXPOSE, VARY, AGE)


def test_what_is_no_preflight() -> None:
    assert preflight(GUARD, page(APP, method="OPTIONS")) is None
    assert preflight(GUARD, page(APP, ASK, method="GET")) is None
    assert preflight(GUARD, head(ASK, method="OPTIONS")) is None


def test_nothing_grants_a_browsers_credentials() -> None:
    request = page(APP, ASK, (b"Access-Control-Request-Headers", b"cookie"), method="OPTIONS")
    names = {name for name, _ in (*grant(GUARD, request), *(preflight(GUARD, request) or ()))}
    assert b"Access-Control-Allow-Credentials" not in names
