"""The truth table of the guard where clients have keys: threats 2, 3 and 14 of the threat model."""

from base64 import b64encode
from dataclasses import replace
from itertools import product
from typing import Final

import pytest

from bearerd.core.client_keys import ClientKey, build_key, digest_of, take_keys
from bearerd.core.cors import grant, preflight
from bearerd.core.guard import Head, build_guard
from bearerd.core.keyed_guard import Policy, judge_client
from bearerd.core.problems import Problem, problem_body
from bearerd.core.targets import parse_route, sort_routes

pytestmark = [pytest.mark.threat(2), pytest.mark.threat(3), pytest.mark.threat(14)]
KEY: Final = build_key(bytes(32)).reveal().encode()
REVOKED: Final = build_key(bytes(range(32))).reveal().encode()
LAPTOP: Final = ClientKey("laptop", digest_of(KEY), 0)
GUARD: Final = replace(
    build_guard(6750, ["named.test"], "x", allowed_origins=["https://app.test"]),
    callbacks=frozenset({b"/oauth/back"}),
)
ROUTES: Final = sort_routes(
    (parse_route("/", "http://a.test", "work"), parse_route("/github/", "http://b.test", "hub"))
)
CARRIERS: Final = frozenset({b"x-api-key"})
EVIL: Final = b"http://evil.test"
OK: Final = (200, "")
WRONG_HOST: Final = (421, "wrong_authority")
PAGE: Final = (403, "origin_refused")
MISSING: Final = (401, "key_missing")
REFUSED: Final = (401, "key_refused")
LIMITED: Final = (403, "key_limited")

SHOWN: Final[dict[str, tuple[tuple[bytes, bytes], ...]]] = {
    "none": (),
    "dummy": ((b"Authorization", b"Bearer sk-dummy"), (b"X-Api-Key", b"sk-dummy")),
    "bearer": ((b"Authorization", b"Bearer " + KEY),),
    "x-api-key": ((b"Authorization", b"Bearer sk-dummy"), (b"x-api-key", KEY)),
    "basic": ((b"Authorization", b"Basic " + b64encode(b"me:" + KEY)),),
    "basic and explicit": ((b"Authorization", b"Basic " + b64encode(b"me:" + KEY)), (b"X-Api-Key", KEY)),
    "revoked": ((b"X-Api-Key", REVOKED),),
    "revoked basic": ((b"Authorization", b"Basic " + b64encode(b"me:" + REVOKED)),),
    "malformed": ((b"Authorization", b"Bearer bearerd_"),),
    "two": ((b"Authorization", b"Bearer " + KEY), (b"X-Api-Key", REVOKED)),
}
HOSTS: Final = (b"localhost:6750", b"named.test", b"evil.test", b"localhost")
ORIGINS: Final = (None, b"http://localhost:6750", b"https://app.test", EVIL, b"null")
SITES: Final = (None, b"none", b"same-origin", b"same-site", b"cross-site")


def policy(*, required: bool) -> Policy:
    return Policy(replace(GUARD, keyed=required), ROUTES, CARRIERS)


def head(
    *fields: tuple[bytes, bytes], method: str = "GET", target: bytes = b"/x", host: bytes = HOSTS[0]
) -> Head:
    return Head(method, target, (1, 1), ((b"Host", host), *fields))


def judge(subject: Policy, keys: tuple[ClientKey, ...], request: Head) -> ClientKey | Problem | None:
    shown, _ = take_keys(request.headers, subject.carriers)
    key, problem = judge_client(subject, keys, shown, request)
    return problem or key


def verdict(request: Head, *, required: bool, keys: tuple[ClientKey, ...] = (LAPTOP,)) -> tuple[int, str]:
    found = judge(policy(required=required), keys, request)
    if not isinstance(found, Problem):
        return OK
    assert problem_body(found)
    return found.status, found.code


def expected(
    host: bytes, origin: bytes | None, site: bytes | None, shown: str, *, required: bool
) -> tuple[int, str]:
    """What the threat model says, in its words."""
    if host not in {b"localhost:6750", b"named.test"}:
        return WRONG_HOST
    if shown in {"revoked", "revoked basic", "malformed", "two"}:
        return REFUSED
    if shown in {"bearer", "x-api-key", "basic and explicit"}:
        return OK
    if origin in {EVIL, b"null"} or (origin is None and site in {b"same-site", b"cross-site"}):
        return PAGE
    return MISSING if required and shown != "basic" else OK


@pytest.mark.threat(2)
@pytest.mark.threat(14)
@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("upgrade", [(), ((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))])
@pytest.mark.parametrize("shown", SHOWN)
def test_the_table(
    upgrade: tuple[tuple[bytes, bytes], ...], method: str, shown: str, *, required: bool
) -> None:
    """Host, Origin, Sec-Fetch-Site, key, required: every combination."""
    for host, origin, site in product(HOSTS, ORIGINS, SITES):
        fields = [*SHOWN[shown], *upgrade]
        fields += [(b"Origin", origin)] if origin else []
        fields += [(b"Sec-Fetch-Site", site)] if site else []
        request = head(*fields, method=method, host=host)
        outcome = verdict(request, required=required)
        assert outcome == expected(host, origin, site, shown, required=required), (host, origin, site)


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("shown", ["bearer", "x-api-key", "basic"])
def test_whose_call_it_is(shown: str, *, required: bool) -> None:
    found = judge(policy(required=required), (LAPTOP,), head(*SHOWN[shown]))
    assert found is LAPTOP


@pytest.mark.threat(2)
def test_the_other_rules_hold_whatever_the_key() -> None:
    request = head(*SHOWN["bearer"], (b"Transfer-Encoding", b"gzip, chunked"), method="POST")
    assert verdict(request, required=True) == (400, "bad_request")
    assert verdict(head(*SHOWN["bearer"], (b"Via", b"1.1 x")), required=True) == (508, "loop")
    assert verdict(head(*SHOWN["bearer"], method="TRACE"), required=True) == (405, "method_refused")


def test_no_key_is_known_where_there_is_none() -> None:
    for required in (False, True):
        assert verdict(head(*SHOWN["bearer"]), required=required, keys=()) == REFUSED


class TestPreflight:
    ASK: Final = (b"Access-Control-Request-Method", b"PUT")

    def ask(self, origin: bytes, *fields: tuple[bytes, bytes], target: bytes = b"/x") -> Head:
        return head((b"Origin", origin), self.ASK, *fields, method="OPTIONS", target=target)

    @pytest.mark.parametrize("origin", [EVIL, b"null", b"https://app.test"])
    def test_where_keys_are_required_any_origin_may_ask(self, origin: bytes) -> None:
        request = self.ask(origin, (b"Sec-Fetch-Site", b"cross-site"))
        assert verdict(request, required=True) == OK
        guard = policy(required=True).guard
        answer = dict(preflight(guard, request) or ())
        assert answer[b"Access-Control-Allow-Origin"] == origin
        assert b"Access-Control-Allow-Credentials" not in answer

    def test_what_is_not_answered_here_needs_a_key(self) -> None:
        """Whatever passes without a key as a preflight is one that is never forwarded."""
        for request in (
            self.ask(b"http://localhost:6750"),
            head((b"Origin", EVIL), method="OPTIONS"),
            head(self.ASK, method="OPTIONS"),
            head((b"Origin", EVIL), (b"Origin", b"null"), self.ASK, method="OPTIONS"),
            head((b"Origin", EVIL), self.ASK, method="POST"),
            self.ask(EVIL, target=b"/-/status"),
        ):
            assert verdict(request, required=True)[0] in {401, 403}

    def test_where_they_are_optional_the_list_decides(self) -> None:
        assert verdict(self.ask(EVIL), required=False) == PAGE
        assert verdict(self.ask(b"https://app.test"), required=False) == OK
        guard = policy(required=False).guard
        assert preflight(guard, self.ask(EVIL)) is None

    def test_no_page_reads_our_own_pages(self) -> None:
        guard = policy(required=True).guard
        assert grant(guard, head((b"Origin", EVIL), target=b"/-/status")) == ()
        assert grant(guard, head((b"Origin", EVIL)))[0] == (b"Access-Control-Allow-Origin", EVIL)


class TestPages:
    @pytest.mark.parametrize(
        "target",
        [
            b"/-/livez",
            b"/-/readyz?verbose",
            b"/-/healthz",
            b"/-/callback?code=a&state=b",
            b"/oauth/back?code=a",
        ],
    )
    def test_probes_and_logins_that_come_back_need_no_key(self, target: bytes) -> None:
        assert verdict(head(target=target), required=True) == OK
        assert verdict(head((b"Origin", EVIL), target=target), required=True) == PAGE
        assert verdict(head(target=target, host=b"evil.test"), required=True) == WRONG_HOST

    @pytest.mark.parametrize(
        "target", [b"/-/", b"/-", b"/-/status", b"/-/login/work", b"/-/livez/x", b"/-/nothing"]
    )
    def test_all_others_do_and_a_browser_is_asked_for_it(self, target: bytes) -> None:
        problem = judge(policy(required=True), (LAPTOP,), head(target=target))
        assert isinstance(problem, Problem)
        assert (problem.status, problem.code) == MISSING
        assert problem.headers == (("WWW-Authenticate", 'Basic realm="bearerd", charset="UTF-8"'),)
        assert verdict(head(*SHOWN["basic"], target=target), required=True) == OK

    def test_a_browser_is_never_asked_on_the_way_to_an_upstream(self) -> None:
        for shown, challenge in (
            ("none", 'Bearer realm="bearerd"'),
            ("revoked", 'Bearer realm="bearerd", error="invalid_token"'),
        ):
            problem = judge(policy(required=True), (LAPTOP,), head(*SHOWN[shown]))
            assert isinstance(problem, Problem)
            assert problem.headers == (("WWW-Authenticate", challenge),)


class TestLimits:
    def verdict(self, request: Head, **limits: frozenset[str]) -> tuple[int, str]:
        key = ClientKey(LAPTOP.name, LAPTOP.digest, 0, **limits)
        return verdict(request, required=True, keys=(key,))

    def call(self, target: bytes, method: str = "GET", *fields: tuple[bytes, bytes]) -> Head:
        return head(*SHOWN["bearer"], *fields, method=method, target=target)

    @pytest.mark.threat(14)
    @pytest.mark.parametrize(
        ("target", "outcome"),
        [
            (b"/github/x", OK),
            (b"/github", OK),
            (b"/github?x", OK),
            (b"/githubs", LIMITED),
            (b"/x", LIMITED),
            (b"/", LIMITED),
            (b"/%67ithub/x", LIMITED),
            (b"//github/x", LIMITED),
            (b"/x/../github/x", LIMITED),
        ],
    )
    def test_routes_and_accounts(self, target: bytes, outcome: tuple[int, str]) -> None:
        assert self.verdict(self.call(target), routes=frozenset({"/github"})) == outcome
        assert self.verdict(self.call(target), accounts=frozenset({"hub"})) == outcome
        assert (
            self.verdict(self.call(target), accounts=frozenset({"hub"}), routes=frozenset({"/"})) == LIMITED
        )

    def test_a_route_that_is_gone_is_no_route(self) -> None:
        assert self.verdict(self.call(b"/x"), routes=frozenset({"/gone"})) == LIMITED

    @pytest.mark.threat(14)
    def test_methods(self) -> None:
        limits = frozenset({"GET", "HEAD"})
        for method, outcome in (
            ("GET", OK),
            ("HEAD", OK),
            ("POST", LIMITED),
            ("get", LIMITED),
            ("OPTIONS", LIMITED),
        ):
            assert self.verdict(self.call(b"/x", method), methods=limits) == outcome
        assert self.verdict(
            self.call(b"/x", "GET", (b"X_HTTP_Method_Override", b"DELETE")), methods=limits
        ) == (
            403,
            "method_override",
        )
        assert self.verdict(self.call(b"/x?_method=DELETE"), methods=limits) == (403, "method_override")
        assert self.verdict(self.call(b"/x?_method=DELETE"), routes=frozenset({"/"})) == OK

    @pytest.mark.parametrize("target", [b"/-/", b"/-/status", b"/-/logout/work", b"/-/login"])
    def test_our_own_pages_are_for_keys_without_limits(self, target: bytes) -> None:
        for limits in (
            {"routes": frozenset({"/"})},
            {"methods": frozenset({"GET"})},
            {"accounts": frozenset({"work"})},
        ):
            assert self.verdict(self.call(target), **limits) == LIMITED
            assert self.verdict(self.call(b"/-/livez"), **limits) == OK

    def test_what_no_route_has_is_said_by_who_forwards(self) -> None:
        one = Policy(replace(GUARD, keyed=True), ROUTES[:1], CARRIERS)
        key = replace(LAPTOP, routes=frozenset({"/github"}))
        assert judge(one, (key,), self.call(b"/elsewhere")) is key


@pytest.mark.threat(9)
def test_a_key_in_the_target_is_refused_whoever_sends_it() -> None:
    for required, shown, key in product((False, True), ("none", "bearer", "revoked"), (KEY, REVOKED)):
        request = head(*SHOWN[shown], target=b"/x?key=" + key)
        assert verdict(request, required=required) == (403, "key_in_target")
