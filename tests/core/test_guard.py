"""The truth table of the guard: threats 1, 2, 11 and 12 of the threat model, row by row."""

from dataclasses import replace
from itertools import product

import pytest

from bearerd.core.guard import Guard, Head, build_guard, is_own, is_same_origin, origin_form, refuse
from bearerd.core.problems import Problem, problem_body, problem_headers

GUARD = build_guard(6750, ["Proxy.Test:6750", "named.test"], "bearerd-0123")
PUBLIC = build_guard(6750, ["named.test"], "x", "https://public.test")
HOST = (b"Host", b"localhost:6750")
OTHER_METHODS = ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]


def head(
    *fields: tuple[bytes, bytes],
    method: str = "GET",
    target: bytes = b"/service/x",
    version: tuple[int, int] = (1, 1),
    host: tuple[tuple[bytes, bytes], ...] = (HOST,),
) -> Head:
    return Head(method, target, version, (*host, *fields))


def refusal(request: Head, guard: Guard = GUARD) -> tuple[int, str] | None:
    """Status and code; whatever is refused can be shown to the client."""
    problem = refuse(guard, request)
    if problem is None:
        return None
    assert problem_body(problem)
    return problem.status, problem.code


def full(request: Head) -> Problem:
    problem = refuse(GUARD, request)
    assert problem is not None
    return problem


BAD = (400, "bad_request")
WRONG = (421, "wrong_authority")
FORBIDDEN = (403, "origin_refused")
LOOP = (508, "loop")


class TestHost:
    @pytest.mark.parametrize(
        "value",
        [
            b"localhost:6750",
            b"LocalHost:6750",
            b"127.0.0.1:6750",
            b"[::1]:6750",
            b"proxy.test:6750",
            b"PROXY.TEST:6750",
            b"named.test",
        ],
    )
    def test_ours(self, value: bytes) -> None:
        assert refusal(head(host=((b"hOST", value),))) is None

    @pytest.mark.threat(1)
    @pytest.mark.parametrize(
        "value",
        [
            b"evil.test",
            b"evil.test:6750",
            b"localhost.evil.test",
            b"localhost.evil.test:6750",
            b"evil-localhost:6750",
            b"localhost.",
            b"localhost.:6750",
            b"a@localhost",
            b"a@localhost:6750",
            b"localhost:6750@evil.test",
            b"a, b",
            b"localhost:6750, localhost:6750",
            b"",
            b" ",
            b"0.0.0.0",
            b"0.0.0.0:6750",
            b"127.0.0.2:6750",
            b"127.1:6750",
            b"[::]:6750",
            b"::1:6750",
            b"[0:0:0:0:0:0:0:1]:6750",
            b"localhost",
            b"127.0.0.1",
            b"[::1]",
            b"localhost:",
            b"localhost:80",
            b"localhost:06750",
            b"localhost:67500",
            b"localhost:6750/",
            b"http://localhost:6750",
            b"localhost\t:6750",
            b"localhost:6750\x00",
            b"named.test:6750",
            b"proxy.test",
            b"local\xffhost:6750",
        ],
    )
    @pytest.mark.parametrize("target", [b"/service/x", b"/-/status"])
    def test_not_ours(self, value: bytes, target: bytes) -> None:
        """DNS rebinding: exact values only, on our own pages too."""
        assert refusal(head(host=((b"Host", value),), target=target)) == WRONG
        assert full(head(host=((b"Host", value),), target=target)).close

    @pytest.mark.threat(1)
    @pytest.mark.parametrize(
        "hosts",
        [(), (HOST, HOST), (HOST, (b"host", b"evil.test")), ((b"Host", b"evil.test"), HOST)],
        ids=["none", "ours twice", "ours first", "ours last"],
    )
    @pytest.mark.parametrize("version", [(1, 0), (1, 1)])
    def test_there_must_be_exactly_one(
        self, hosts: tuple[tuple[bytes, bytes], ...], version: tuple[int, int]
    ) -> None:
        assert refusal(head(host=hosts, version=version)) == BAD
        assert full(head(host=hosts, version=version)).close

    def test_an_allowed_origin_does_not_open_another_host(self) -> None:
        request = head((b"Origin", b"http://localhost:6750"), host=((b"Host", b"evil.test:6750"),))
        assert refusal(request) == WRONG

    @pytest.mark.parametrize("name", [b"localhost", b"127.0.0.1", b"[::1]"])
    def test_port_80_may_be_left_out(self, name: bytes) -> None:
        guard = build_guard(80, [], "x")
        assert refusal(head(host=((b"Host", name),)), guard) is None
        assert refusal(head(host=((b"Host", name + b":80"),)), guard) is None
        assert refusal(head((b"Origin", b"http://" + name), host=((b"Host", name),)), guard) is None
        assert refusal(head(host=((b"Host", name + b":8080"),)), guard) == WRONG


class TestPublicUrl:
    """An address in front of this daemon: its host, and pages of its own scheme, port and all."""

    @pytest.mark.parametrize("value", [b"public.test", b"Public.Test", b"named.test", b"localhost:6750"])
    def test_its_host_is_ours_beside_the_others(self, value: bytes) -> None:
        assert refusal(head(host=((b"Host", value),)), PUBLIC) is None

    @pytest.mark.parametrize(
        "value",
        [b"public.test:6750", b"public.test:443", b"public.test:80", b"a.public.test", b"public.test."],
    )
    def test_its_host_is_exact(self, value: bytes) -> None:
        assert refusal(head(host=((b"Host", value),)), PUBLIC) == WRONG

    @pytest.mark.parametrize(
        ("origin", "expected"),
        [
            (b"https://public.test", None),
            (b"http://localhost:6750", None),
            (b"http://named.test", None),
            (b"http://public.test", FORBIDDEN),
            (b"https://public.test:443", FORBIDDEN),
            (b"https://public.test:6750", FORBIDDEN),
            (b"https://named.test", FORBIDDEN),
            (b"https://localhost:6750", FORBIDDEN),
            (b"https://public.test.evil.test", FORBIDDEN),
        ],
    )
    def test_its_pages_are_of_its_scheme(self, origin: bytes, expected: tuple[int, str] | None) -> None:
        request = head((b"Origin", origin), method="POST", host=((b"Host", b"public.test"),))
        assert refusal(request, PUBLIC) == expected

    def test_a_port_belongs_to_it(self) -> None:
        guard = build_guard(6750, [], "x", "http://localhost:8080")
        for host, expected in ((b"localhost:8080", None), (b"127.0.0.1:8080", WRONG), (b"localhost", WRONG)):
            request = head((b"Origin", b"http://localhost:8080"), host=((b"Host", host),))
            assert refusal(request, guard) == expected

    def test_an_absolute_url_of_it_is_its_path(self) -> None:
        assert origin_form(PUBLIC, b"https://public.test/-/status") == b"/-/status"
        assert origin_form(PUBLIC, b"http://public.test/-/status") == b"http://public.test/-/status"


class TestOrigin:
    @pytest.mark.parametrize(
        "origin",
        [
            b"http://localhost:6750",
            b"http://127.0.0.1:6750",
            b"http://[::1]:6750",
            b"http://proxy.test:6750",
            b"http://named.test",
        ],
    )
    @pytest.mark.parametrize("site", [None, b"same-origin", b"same-site", b"cross-site", b"none"])
    def test_our_own_overrides_fetch_metadata(self, origin: bytes, site: bytes | None) -> None:
        fields = ((b"oRIGIN", origin), *(((b"Sec-Fetch-Site", site),) if site else ()))
        assert refusal(head(*fields, method="POST")) is None

    @pytest.mark.threat(2)
    @pytest.mark.parametrize(
        "origin",
        [
            b"null",
            b"",
            b"http://evil.test",
            b"http://localhost",
            b"http://localhost:3000",
            b"https://localhost:6750",
            b"http://localhost:6750.evil.test",
            b"http://localhost:67500",
            b"http://localhost:6750/",
            b"http://a@localhost:6750",
            b"localhost:6750",
            b"http://0.0.0.0:6750",
            b"http://localhost:6750, http://evil.test",
            b"http://localhost:6750 http://evil.test",
            b"chrome-extension://abc",
            b"vscode-webview://abc",
            b"file://",
        ],
    )
    @pytest.mark.parametrize("target", [b"/service/x", b"/-/status"])
    @pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
    def test_any_other_is_refused(self, origin: bytes, target: bytes, method: str) -> None:
        fields = ((b"Origin", origin), (b"Sec-Fetch-Site", b"same-origin"))
        assert refusal(head(*fields, method=method, target=target)) == FORBIDDEN

    @pytest.mark.threat(2)
    @pytest.mark.parametrize("order", [1, -1])
    def test_one_good_origin_does_not_excuse_another(self, order: int) -> None:
        fields = ((b"Origin", b"http://localhost:6750"), (b"origin", b"http://evil.test"))[::order]
        assert refusal(head(*fields)) == FORBIDDEN

    @pytest.mark.threat(12)
    def test_a_websocket_handshake_is_judged_too(self) -> None:
        fields = ((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"Origin", b"http://evil.test"))
        assert refusal(head(*fields)) == FORBIDDEN


def fetch(site: bytes, mode: bytes | None = None, dest: bytes | None = None) -> list[tuple[bytes, bytes]]:
    pairs = ((b"Sec-Fetch-Site", site), (b"Sec-Fetch-Mode", mode), (b"Sec-Fetch-Dest", dest))
    return [(name, value) for name, value in pairs if value is not None]


class TestFetchMetadata:
    @pytest.mark.parametrize("site", [b"same-origin", b"none"])
    def test_our_own_pages_and_people_may(self, site: bytes) -> None:
        assert refusal(head(*fetch(site, b"cors", b"empty"))) is None

    @pytest.mark.threat(2)
    @pytest.mark.parametrize("site", [b"cross-site", b"same-site"])
    @pytest.mark.parametrize(
        ("method", "target", "mode", "dest", "expected"),
        [
            ("GET", b"/-/", b"navigate", b"document", None),
            ("GET", b"/-/callback?code=x&state=y", b"navigate", b"document", None),
            ("GET", b"/-", b"navigate", b"document", None),
            ("POST", b"/-/", b"navigate", b"document", FORBIDDEN),
            ("HEAD", b"/-/", b"navigate", b"document", FORBIDDEN),
            ("GET", b"/-/", b"navigate", b"iframe", FORBIDDEN),
            ("GET", b"/-/", b"navigate", b"object", FORBIDDEN),
            ("GET", b"/-/", b"navigate", None, FORBIDDEN),
            ("GET", b"/-/", None, b"document", FORBIDDEN),
            ("GET", b"/-/", None, None, FORBIDDEN),
            ("GET", b"/-/", b"no-cors", b"image", FORBIDDEN),
            ("GET", b"/-/", b"cors", b"empty", FORBIDDEN),
            ("GET", b"/-/", b"cors", b"document", FORBIDDEN),
            ("GET", b"/service/", b"navigate", b"document", FORBIDDEN),
            ("GET", b"/", b"navigate", b"document", FORBIDDEN),
            ("GET", b"/-x", b"navigate", b"document", FORBIDDEN),
            ("GET", b"/?/-/", b"navigate", b"document", FORBIDDEN),
            ("GET", b"/service/x", b"no-cors", b"image", FORBIDDEN),
            ("GET", b"/service/x", b"websocket", b"empty", FORBIDDEN),
            ("POST", b"/service/x", b"no-cors", b"empty", FORBIDDEN),
        ],
    )
    def test_another_site(
        self,
        site: bytes,
        method: str,
        target: bytes,
        mode: bytes | None,
        dest: bytes | None,
        expected: tuple[int, str] | None,
    ) -> None:
        """Only a link in the address bar to one of our own pages."""
        assert refusal(head(*fetch(site, mode, dest), method=method, target=target)) == expected

    @pytest.mark.parametrize(
        "site", [b"", b"Cross-Site", b"cross-origin", b"none, cross-site", b"?1", b"\xff"]
    )
    def test_what_is_not_known_is_no_excuse(self, site: bytes) -> None:
        assert refusal(head(*fetch(site, b"cors", b"empty"))) == FORBIDDEN

    @pytest.mark.parametrize("order", [1, -1])
    def test_one_good_word_does_not_excuse_another(self, order: int) -> None:
        fields = [(b"Sec-Fetch-Site", b"none"), (b"sec-fetch-site", b"cross-site")][::order]
        assert refusal(head(*fields)) == FORBIDDEN

    def test_programs_send_neither(self) -> None:
        assert refusal(head(method="POST")) is None

    def test_a_refused_page_keeps_its_connection(self) -> None:
        assert not full(head((b"Origin", b"null"))).close


class TestMethodAndTarget:
    @pytest.mark.parametrize("method", ["GET", *OTHER_METHODS])
    def test_allowed_methods(self, method: str) -> None:
        assert refusal(head(method=method)) is None

    @pytest.mark.parametrize(
        ("method", "target"),
        [
            ("CONNECT", b"evil.test:443"),
            ("CONNECT", b"@evil:443"),
            ("CONNECT", b"/"),
            ("TRACE", b"/"),
            ("TRACE", b"http://evil.test/"),
        ],
    )
    def test_refused_methods(self, method: str, target: bytes) -> None:
        problem = full(head(method=method, target=target))
        assert (problem.status, problem.code, problem.close) == (405, "method_refused", True)
        assert dict(problem.headers)["Allow"].split(", ") == [
            "GET",
            "HEAD",
            "POST",
            "PUT",
            "PATCH",
            "DELETE",
            "OPTIONS",
        ]
        assert method in problem.detail

    @pytest.mark.threat(4)
    @pytest.mark.parametrize(
        "target",
        [
            b"http://evil.test/",
            b"http://localhost:6750@evil.test/",
            b"https://localhost:6750.evil.test/-/status",
            b"evil.test:443",
            b"@evil.test",
            b"ftp://localhost:6750/",
            b"*",
            b"",
            b"?x",
            b"\\evil.test",
            b"x",
        ],
    )
    def test_a_target_that_is_no_path(self, target: bytes) -> None:
        assert refusal(head(target=target)) == WRONG
        assert full(head(target=target)).close

    @pytest.mark.parametrize(
        "name", [b"localhost:6750", b"127.0.0.1:6750", b"[::1]:6750", b"proxy.test:6750"]
    )
    @pytest.mark.parametrize("path", [b"/", b"/%41?x=http://evil.test/", b"//evil.test/", b"/-/status"])
    def test_an_absolute_url_of_our_own_is_its_path(self, name: bytes, path: bytes) -> None:
        """RFC 9112 section 3.2.2: a server must accept it."""
        assert origin_form(GUARD, b"http://" + name + path) == path

    @pytest.mark.threat(4)
    @pytest.mark.parametrize(
        "target",
        [
            b"/service/x",
            b"/http://localhost:6750/x",
            b"//localhost:6750/x",
            b"http://evil.test/",
            b"http://localhost/x",
            b"http://localhost:67500/x",
            b"http://localhost:6750.evil.test/x",
            b"http://localhost:6750@evil.test/x",
            b"http://localhost:6750\\@evil.test/x",
            b"https://localhost:6750/x",
            b"localhost:6750/x",
            b"*",
            b"",
        ],
    )
    def test_any_other_target_stays_as_it_is(self, target: bytes) -> None:
        assert origin_form(GUARD, target) == target

    def test_the_asterisk_is_for_options_alone(self) -> None:
        assert refusal(head(method="OPTIONS", target=b"*")) is None
        assert refusal(head(method="OPTIONS", target=b"**")) == WRONG

    @pytest.mark.parametrize("target", [b"/", b"//evil.test/", b"/%zz", b"/a#b", b"/\xff"])
    def test_any_path_may(self, target: bytes) -> None:
        assert refusal(head(target=target)) is None

    @pytest.mark.parametrize("version", [(0, 9), (2, 0), (1, 2)])
    def test_other_versions(self, version: tuple[int, int]) -> None:
        """The parser lets a request line that says HTTP/0.9 or HTTP/2.0 pass."""
        assert refusal(head(version=version)) == BAD
        assert full(head(version=version, host=())).close

    def test_http_1_0_with_a_host(self) -> None:
        assert refusal(head(version=(1, 0))) is None


class TestFraming:
    @pytest.mark.parametrize(
        ("fields", "version"),
        [
            ([(b"Transfer-Encoding", b"chunked")], (1, 1)),
            ([(b"transfer-encoding", b"CHUNKED")], (1, 1)),
            ([(b"Transfer-Encoding", b" chunked\t")], (1, 1)),
            ([(b"Content-Length", b"5")], (1, 0)),
            ([(b"TE", b"trailers")], (1, 1)),
            ([(b"Upgrade", b"websocket")], (1, 1)),
            ([(b"Upgrade", b"websocket"), (b"Content-Length", b"0")], (1, 1)),
            ([(b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"x"), (b"Content-Length", b"5")], (1, 1)),
            ([(b"Upgrade", b"h2c"), (b"Transfer-Encoding", b"chunked")], (1, 1)),
        ],
    )
    def test_allowed(self, fields: list[tuple[bytes, bytes]], version: tuple[int, int]) -> None:
        assert refusal(head(*fields, method="POST", version=version)) is None

    @pytest.mark.threat(11)
    @pytest.mark.parametrize(
        ("fields", "version"),
        [
            ([(b"Transfer-Encoding", b"chunked")], (1, 0)),
            ([(b"Transfer-Encoding", b"gzip, chunked")], (1, 1)),
            ([(b"Transfer-Encoding", b"chunked, chunked")], (1, 1)),
            ([(b"Transfer-Encoding", b"chunked, identity")], (1, 1)),
            ([(b"Transfer-Encoding", b"gzip")], (1, 1)),
            ([(b"Transfer-Encoding", b"identity")], (1, 1)),
            ([(b"Transfer-Encoding", b"xchunked")], (1, 1)),
            ([(b"Transfer-Encoding", b"chunked;a=b")], (1, 1)),
            ([(b"Transfer-Encoding", b'"chunked"')], (1, 1)),
            ([(b"Transfer-Encoding", b"\x0bchunked")], (1, 1)),
            ([(b"Transfer-Encoding", b"chunked\x0c")], (1, 1)),
            ([(b"Transfer-Encoding", b"chunked\xa0")], (1, 1)),
            ([(b"Transfer-Encoding", b"")], (1, 1)),
            ([(b"Transfer-Encoding", b"chunked"), (b"transfer-encoding", b"chunked")], (1, 1)),
            ([(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"identity")], (1, 1)),
            ([(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"")], (1, 1)),
            ([(b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"5")], (1, 1)),
            ([(b"content-length", b"0"), (b"transfer-encoding", b"chunked")], (1, 1)),
            ([(b"Upgrade", b"websocket"), (b"Content-Length", b"5")], (1, 1)),
            ([(b"upgrade", b"WebSocket"), (b"Transfer-Encoding", b"chunked")], (1, 1)),
            ([(b"Upgrade", b"h2c, websocket"), (b"Content-Length", b"5")], (1, 1)),
            ([(b"Upgrade", b"h2c"), (b"Upgrade", b"websocket"), (b"Content-Length", b"5")], (1, 1)),
        ],
    )
    @pytest.mark.parametrize("target", [b"/service/x", b"/-/status"])
    def test_refused(
        self, fields: list[tuple[bytes, bytes]], version: tuple[int, int], target: bytes
    ) -> None:
        """And the connection is closed: nobody may read the rest of it as a request."""
        request = head(*fields, method="POST", version=version, target=target)
        assert refusal(request) == BAD
        assert full(request).close


class TestSize:
    @pytest.mark.threat(18)
    def test_fields_that_are_too_large_together(self) -> None:
        fields = [(b"Cookie", b"x" * 30_000)] * 3
        assert refusal(head(*fields[:2])) is None
        assert refusal(head(*fields)) == (431, "head_too_large")
        assert full(head(*fields)).close


class TestLoop:
    def test_options_that_may_go_no_further(self) -> None:
        """RFC 9110 section 7.6.2: other methods do not heed it."""
        assert refusal(head((b"max-forwards", b"0"), method="OPTIONS")) == LOOP
        assert refusal(head((b"Max-Forwards", b"1"), method="OPTIONS")) is None
        assert refusal(head((b"Max-Forwards", b"0"))) is None

    @pytest.mark.threat(17)
    @pytest.mark.parametrize(
        "fields",
        [
            [(b"Via", b"1.1 bearerd-0123")],
            [(b"via", b"1.0 fred, 1.1 bearerd-0123 (us), 1.1 p")],
            [(b"Via", b"1.0 fred"), (b"VIA", b"1.1 bearerd-0123")],
        ],
    )
    def test_our_pseudonym(self, fields: list[tuple[bytes, bytes]]) -> None:
        assert refusal(head(*fields)) == LOOP

    @pytest.mark.parametrize(
        "fields",
        [
            [(b"Via", b"1.1 bearerd-4567")],  # another instance: chains work
            [(b"Via", b"1.1 bearerd")],
            [(b"X-Via", b"1.1 bearerd-0123")],
        ],
    )
    def test_others_may(self, fields: list[tuple[bytes, bytes]]) -> None:
        assert refusal(head(*fields)) is None


@pytest.mark.parametrize(
    ("request_head", "proxy_error"),
    [
        (head(method="TRACE"), "http_request_denied"),
        (head(target=b"http://evil.test/"), "http_request_denied"),
        (head(version=(0, 9)), "http_request_error"),
        (head(host=()), "http_request_error"),
        (head(host=((b"Host", b"evil.test"),)), "http_request_denied"),
        (head((b"Transfer-Encoding", b"gzip")), "http_request_error"),
        (head((b"Origin", b"null")), "http_request_denied"),
        (head((b"Via", b"1.1 bearerd-0123")), "proxy_loop_detected"),
    ],
    ids=["method", "target", "version", "no Host", "Host", "framing", "origin", "loop"],
)
def test_proxy_status(request_head: Head, proxy_error: str) -> None:
    """RFC 9209: error types of the registry."""
    assert ("Proxy-Status", f"bearerd; error={proxy_error}") in problem_headers(full(request_head))


def test_the_first_rule_that_speaks_decides() -> None:
    """Method, target, Host, framing, origin, loop: what does not depend on trust comes first."""
    loop = (b"Via", b"1.1 bearerd-0123")
    origin = (b"Origin", b"null")
    framing = (b"Transfer-Encoding", b"gzip")
    evil = ((b"Host", b"evil.test"),)
    assert refusal(head(loop, origin)) == FORBIDDEN
    assert refusal(head(loop, origin, framing)) == BAD
    assert refusal(head(loop, origin, framing, host=evil)) == WRONG
    assert refusal(head(loop, host=evil, target=b"x", version=(0, 9))) == BAD
    assert refusal(head(host=evil, target=b"x", method="TRACE")) == (405, "method_refused")


class TestCallbacks:
    """Paths of redirect URIs on our own port that are not under the control prefix (threats 7 and 17)."""

    GUARD = replace(GUARD, callbacks=frozenset({b"/oauth/back", b"/"}))

    @pytest.mark.parametrize(
        ("target", "expected"),
        [
            (b"/oauth/back", True),
            (b"/oauth/back?code=c&state=s", True),
            (b"/", True),
            (b"/?code=c", True),
            (b"/-/login", True),
            (b"/oauth/back/", False),
            (b"/oauth/%62ack", False),
            (b"/oauth", False),
            (b"/service/?/oauth/back", False),
        ],
    )
    def test_they_are_ours_to_the_letter(self, target: bytes, *, expected: bool) -> None:
        assert is_own(self.GUARD, target) is expected
        navigation = head(*fetch(b"cross-site", b"navigate", b"document"), target=target)
        assert refusal(navigation, self.GUARD) == (None if expected else FORBIDDEN)
        assert refusal(navigation, GUARD) == (None if target.startswith(b"/-/") else FORBIDDEN)

    def test_another_site_may_only_navigate_to_them(self) -> None:
        for mode, dest in ((b"no-cors", b"image"), (b"navigate", b"iframe"), (b"cors", b"empty")):
            request = head(*fetch(b"cross-site", mode, dest), target=b"/oauth/back")
            assert refusal(request, self.GUARD) == FORBIDDEN


@pytest.mark.parametrize(
    ("origin", "site", "expected"),
    [
        (b"http://localhost:6750", b"same-origin", True),
        (b"http://localhost:6750", None, True),
        (None, b"same-origin", True),
        (b"https://public.test", b"same-origin", True),  # its server in front has put our own Host
        (b"https://public.test", None, False),
        (b"http://127.0.0.1:6750", None, False),
        (b"http://127.0.0.1:6750", b"same-site", False),
        (b"http://localhost:6750", b"cross-site", False),
        (b"http://localhost:6750", b"none", False),
        (b"http://evil.test", b"same-origin", False),
        (b"null", b"same-origin", False),
        (None, b"none", False),
        (None, None, False),
    ],
)
def test_threat_17_same_origin_takes_proof(
    origin: bytes | None, site: bytes | None, *, expected: bool
) -> None:
    pairs = ((b"Origin", origin), (b"Sec-Fetch-Site", site))
    fields = [(name, value) for name, value in pairs if value is not None]
    assert is_same_origin(PUBLIC, head(*fields, method="POST")) is expected


HOSTS = {b"localhost:6750": True, b"evil.test": False, b"evil.test:6750": False}
ORIGINS = {
    None: None,
    b"http://localhost:6750": "own",
    b"http://app.test": "allowed",
    b"http://127.0.0.1:3000": "other",
    b"null": "other",
}
SITES = [None, b"same-origin", b"none", b"same-site", b"cross-site", b"what comes in ten years"]
MODES = [None, b"navigate", b"cors", b"no-cors", b"same-origin", b"websocket"]
DESTS = [None, b"document", b"iframe", b"empty", b"image", b"serviceworker"]
TARGETS = {b"/": False, b"/service/x": False, b"/-/": True, b"/-/logout/me": True, b"/back?code=c": True}


def expected(
    host: bytes, origin: bytes | None, site: bytes | None, navigation: tuple[bytes | None, ...], target: bytes
) -> tuple[int, str] | None:
    """What the list of threats says, in its own order. `navigation` are mode and destination."""
    if not HOSTS[host]:
        return WRONG
    match ORIGINS[origin]:
        case "own":
            return None
        case "allowed":
            return FORBIDDEN if TARGETS[target] else None
        case "other":
            return FORBIDDEN
    if site in {None, b"same-origin", b"none"}:
        return None
    return None if TARGETS[target] and navigation == (b"navigate", b"document") else FORBIDDEN


@pytest.mark.threat(2)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_the_whole_table(method: str) -> None:
    """Every combination of what a browser says of a call."""
    guard = replace(GUARD, callbacks=frozenset({b"/back"}), foreign=frozenset({b"http://app.test"}))
    for host, origin, site, mode, dest, target in product(HOSTS, ORIGINS, SITES, MODES, DESTS, TARGETS):
        pairs = (
            (b"Origin", origin),
            (b"Sec-Fetch-Site", site),
            (b"Sec-Fetch-Mode", mode),
            (b"Sec-Fetch-Dest", dest),
        )
        fields = [(name, value) for name, value in pairs if value is not None]
        navigation = (mode, dest) if method == "GET" else ()
        request = head(*fields, method=method, target=target, host=((b"Host", host),))
        assert refusal(request, guard) == expected(host, origin, site, navigation, target), request.headers
