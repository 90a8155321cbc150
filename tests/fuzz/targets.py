"""Request targets: where they are sent and what rules make of them. And the URLs of settings and of metadata."""

from contextlib import suppress
from typing import Final

from bearerd.core.guard import build_guard, is_own, origin_form
from bearerd.core.rules import READ_ONLY, build_rules, judge, parse_rule, read_path
from bearerd.core.targets import (
    build_target,
    has_token,
    in_control,
    match_route,
    parse_origin,
    parse_route,
    path_of,
    sort_routes,
)

GUARD: Final = build_guard(6750, (), "bearerd-fuzz")
ROUTES: Final = sort_routes(
    [
        parse_route("/", "https://api.example.com/v1", "work"),
        parse_route("/a/", "https://a.example.com/", "work"),
        parse_route("/a/b", "https://b.example.com/x/", "work"),
    ]
)
RULES: Final = build_rules(
    methods=READ_ONLY, allow=["/v1/**", "GET /*/x"], deny=["/v1/admin/**", "/*/secret*"]
)


def fuzz(data: bytes) -> None:
    check_call(data)
    check_url(data.decode("latin-1"))


def check_call(data: bytes) -> None:
    """A call goes under the base of its route and nowhere else, and nothing is decoded on its way."""
    target = origin_form(GUARD, data)
    has_token(target)
    if in_control(target):
        assert is_own(GUARD, target)
    route = match_route(ROUTES, target)
    if route is None or not target.startswith(b"/"):
        return
    sent = build_target(route, target)
    rest = target[len(route.prefix) :]
    assert sent.startswith((route.base + b"/", route.base + b"?")) or sent in {route.base, b"/"}
    assert sent.endswith(rest)
    assert len(sent) <= len(route.base) + len(rest) + 1
    assert RULES is not None
    for method in ("GET", "get", "DELETE"):
        problem = judge(RULES, method, rest, ())
        assert problem is None or problem.status == 403
        assert problem is not None or read_path(path_of(rest) or b"/")


def check_url(text: str) -> None:
    """Only ValueError says no, and what passes has one plain host and port."""
    with suppress(ValueError):
        origin, path = parse_origin(text)
        assert origin.scheme in {"http", "https"}
        assert origin.host
        assert not any(char in origin.host for char in "/@?#\\% \r\n")
        assert 0 < origin.port < 65536
        assert not path or path.startswith("/")
        assert parse_origin(f"{origin}{path}") == (origin, path)
    with suppress(ValueError):
        parse_rule(text)
    with suppress(ValueError):
        parse_rule(text, wide=True)
