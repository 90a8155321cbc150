"""Origins and routes as they are written, and what becomes of a request target's bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bearerd.core.targets import (
    Origin,
    Route,
    build_target,
    has_token,
    in_control,
    match_route,
    parse_origin,
    parse_route,
    path_of,
    sort_routes,
)

API = Origin("https", "api.test", 443)


def route(prefix: bytes, base: bytes = b"", account: str = "work") -> Route:
    return Route(prefix, API, base, account)


class TestOrigin:
    @pytest.mark.parametrize(
        ("url", "origin", "path", "authority"),
        [
            ("https://api.test", Origin("https", "api.test", 443), "", "api.test"),
            ("http://api.test", Origin("http", "api.test", 80), "", "api.test"),
            ("https://api.test:443/v1", Origin("https", "api.test", 443), "/v1", "api.test"),
            ("http://api.test:443/", Origin("http", "api.test", 443), "/", "api.test:443"),
            ("https://api.test:80", Origin("https", "api.test", 80), "", "api.test:80"),
            ("https://api.test:8443", Origin("https", "api.test", 8443), "", "api.test:8443"),
            ("https://api.test:", Origin("https", "api.test", 443), "", "api.test"),
            ("https://api.test:1/!~", Origin("https", "api.test", 1), "/!~", "api.test:1"),
            ("https://api.test:65535", Origin("https", "api.test", 65535), "", "api.test:65535"),
            ("HTTPS://API.Test/V1", Origin("https", "api.test", 443), "/V1", "api.test"),
            ("https://[::1]", Origin("https", "::1", 443), "", "[::1]"),
            ("http://[2001:DB8::1]:8080/a", Origin("http", "2001:db8::1", 8080), "/a", "[2001:db8::1]:8080"),
            ("http://10.0.0.1", Origin("http", "10.0.0.1", 80), "", "10.0.0.1"),
            ("http://my_api-2.test.", Origin("http", "my_api-2.test.", 80), "", "my_api-2.test."),
            ("http://h/%zz/%2e%2e//x/", Origin("http", "h", 80), "/%zz/%2e%2e//x/", "h"),
        ],
    )
    def test_split(self, url: str, origin: Origin, path: str, authority: str) -> None:
        assert parse_origin(url) == (origin, path)
        assert origin.authority == authority
        assert str(origin) == f"{origin.scheme}://{authority}"

    @pytest.mark.threat(6)
    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("https://user@api.test", "has a user name"),
            ("https://user:canary@api.test", "has a user name"),
            ("https://@api.test", "has a user name"),
            ("https://api.test\\@evil.test", "has a user name"),
            ("https://api.test/ x", "has a space, a control"),
            ("https://api.test/\n", "has a space, a control"),
            ("\thttps://api.test/", "has a space, a control"),
            ("https://api.test\x00.evil.test/", "has a space, a control"),
            ("https://api.test/\x7f", "has a space, a control"),
            ("https://äpi.test/", "has a space, a control"),
            ("https://api.test:\uff14\uff14\uff13/", "has a space, a control"),
            ("file:///etc/passwd", "is not an http"),
            ("javascript:alert(1)", "is not an http"),
            ("ws://api.test", "is not an http"),
            ("ftp://api.test", "is not an http"),
            ("unix:/run/x.sock", "is not an http"),
            ("api.test", "is not an http"),
            ("api.test:443", "is not an http"),
            ("//api.test", "is not an http"),
            ("", "is not an http"),
            ("--upstream", "is not an http"),
            ("https:", "names no host"),
            ("https://", "names no host"),
            ("https:///v1", "names no host"),
            ("https:api.test", "names no host"),
            ("https://:443", "names no host"),
            ("https://api.test:0", "has a port"),
            ("https://api.test:65536", "has a port"),
            ("https://api.test:99999999999", "has a port"),
            ("https://api.test:" + "9" * 5000, "has a port"),
            ("https://api.test:-1", "has a port"),
            ("https://api.test:+80", "has a port"),
            ("https://api.test:1_0", "has a port"),
            ("https://api.test:http", "has a port"),
            ("https://api.test:80:80", "has a port"),
            ("https://[::1]:80:80", "has a port"),
            ("https://api.test?", "has a query or a fragment"),
            ("https://api.test/?a=b", "has a query or a fragment"),
            ("https://api.test/#", "has a query or a fragment"),
            ("https://api.test#@evil.test", "has a query or a fragment"),
            ("https://api.test\\evil.test/", "has a host"),
            ("https://api.test,evil.test/", "has a host"),
            ("https://api.test;evil.test/", "has a host"),
            ("https://api%2etest/", "has a host"),
            ("https://api%0d%0atest/", "has a host"),
            ('https://api"test/', "has a host"),
            ("https://$(x)/", "has a host"),
            ("https://`x`/", "has a host"),
            ("https://-flag/", "has a host"),
            ("https://--flag/", "has a host"),
            ("https://api..test/", "has a host"),
            ("https://.api.test/", "has a host"),
            ("https://./", "has a host"),
            ("https://[::1", "has a host"),
            ("https://::1]/", "has a host"),
            ("https://[::1]evil.test/", "has a host"),
            ("https://[]/", "has a host"),
            ("https://[canary]/", "has a host"),
            ("https://[127.0.0.1]/", "has a host"),
            ("https://[v1.x]/", "has a host"),
            ("https://[fe80::1%25eth0]/", "has a host"),
            ("https://[fe80::1%eth0]/", "has a host"),
            ("https://user:pa[canary]ss@api.test/", "has a "),
        ],
    )
    def test_refused(self, url: str, reason: str) -> None:
        """With a cure, and without the URL: it may hold a password."""
        with pytest.raises(ValueError, match=f"^{reason}") as caught:
            parse_origin(url)
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None

    @pytest.mark.parametrize(
        ("host", "loopback"),
        [
            ("localhost", True),
            ("127.0.0.1", True),
            ("127.255.0.3", True),
            ("::1", True),
            ("0:0:0:0:0:0:0:1", True),
            ("127.evil.test", False),
            ("127.0.0.1.evil.test", False),
            ("127.", False),
            ("localhost.evil.test", False),
            ("evil.localhost.test", False),
            ("0.0.0.0", False),
            ("::", False),
            ("10.0.0.1", False),
            ("128.0.0.1", False),
        ],
    )
    def test_loopback(self, host: str, loopback: bool) -> None:
        assert Origin("http", host, 80).loopback is loopback


class TestRoute:
    @pytest.mark.parametrize(
        ("prefix", "raw", "name"),
        [
            ("/", b"", "/"),
            ("/service", b"/service", "/service"),
            ("/service/", b"/service", "/service"),
            ("/a/b/", b"/a/b", "/a/b"),
            ("/-x", b"/-x", "/-x"),
            ("/!~", b"/!~", "/!~"),
            ("/a/-/b", b"/a/-/b", "/a/-/b"),
            ("/.well-known", b"/.well-known", "/.well-known"),
        ],
    )
    def test_prefix(self, prefix: str, raw: bytes, name: str) -> None:
        found = parse_route(prefix, "https://api.test", "work")
        assert found == Route(raw, API, b"", "work")
        assert found.name == name

    @pytest.mark.parametrize(
        ("upstream", "base"),
        [
            ("https://api.test", b""),
            ("https://api.test/", b""),
            ("https://api.test/v1", b"/v1"),
            ("https://api.test/v1/", b"/v1"),
            ("https://api.test/v1/%2F", b"/v1/%2F"),
        ],
    )
    def test_base(self, upstream: str, base: bytes) -> None:
        assert parse_route("/", upstream, "work").base == base

    @pytest.mark.parametrize(
        ("prefix", "reason"),
        [
            ("", "does not begin with a slash"),
            ("service", "does not begin with a slash"),
            ("/a b", "has a character"),
            ("/a\x00", "has a character"),
            ("/a\x7f", "has a character"),
            ("/ä", "has a character"),
            ("/a?b", "has a character"),
            ("/a#b", "has a character"),
            ("/a\\b", "has a character"),
            ("/%61", "has a character"),
            ("/-", "lies under /-/"),
            ("/-/", "lies under /-/"),
            ("/-/status", "lies under /-/"),
            ("//", "has an empty, . or .. segment"),
            ("/a//b", "has an empty, . or .. segment"),
            ("/a//", "has an empty, . or .. segment"),
            ("/.", "has an empty, . or .. segment"),
            ("/a/../b", "has an empty, . or .. segment"),
            ("/a/..", "has an empty, . or .. segment"),
        ],
    )
    def test_prefix_refused(self, prefix: str, reason: str) -> None:
        with pytest.raises(ValueError, match=f"^{reason}"):
            parse_route(prefix, "https://api.test", "work")

    def test_upstream_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^has a user name"):
            parse_route("/", "https://me@api.test", "work")


class TestMatch:
    ROUTES = sort_routes([route(b""), route(b"/service"), route(b"/service/v2"), route(b"/other")])

    def test_longest_prefix_first(self) -> None:
        prefixes = [found.prefix for found in self.ROUTES]
        assert prefixes[0] == b"/service/v2"
        assert prefixes[-1] == b""

    @pytest.mark.threat(4)
    @pytest.mark.parametrize(
        ("target", "prefix"),
        [
            (b"/", b""),
            (b"/x", b""),
            (b"//", b""),
            (b"//service/x", b""),
            (b"/service", b"/service"),
            (b"/service/", b"/service"),
            (b"/service//x", b"/service"),
            (b"/service?x", b"/service"),
            (b"/service/?/service/v2/", b"/service"),
            (b"/service/v2", b"/service/v2"),
            (b"/service/v2?a", b"/service/v2"),
            (b"/service/v2/x/y", b"/service/v2"),
            (b"/service/v20", b"/service"),
            (b"/services", b""),
            (b"/service%2Fv2", b""),
            (b"/%73ervice/x", b""),
            (b"/Service/x", b""),
            (b"/x/../service/x", b""),
            (b"/service/../other", b"/service"),
            (b"/service#/x", b""),
            (b"/?/service/", b""),
            (b"/other/\xff", b"/other"),
        ],
    )
    def test_on_segment_borders_of_the_raw_path(self, target: bytes, prefix: bytes) -> None:
        found = match_route(self.ROUTES, target)
        assert found is not None
        assert found.prefix == prefix

    @pytest.mark.parametrize(
        "target",
        [b"/", b"/services", b"//service", b"/%73ervice", b"*", b"", b"?/service", b"http://x/service"],
    )
    def test_no_route(self, target: bytes) -> None:
        assert match_route((route(b"/service"),), target) is None

    @pytest.mark.parametrize("target", [b"*", b"x", b"http://evil.test/"])
    def test_the_root_takes_paths_only(self, target: bytes) -> None:
        assert match_route((route(b""),), target) is None

    @pytest.mark.parametrize(
        ("target", "path"), [(b"/a?b?c", b"/a"), (b"/a", b"/a"), (b"?x", b""), (b"/%3Fa", b"/%3Fa")]
    )
    def test_path_of(self, target: bytes, path: bytes) -> None:
        assert path_of(target) == path


TAILS = [
    b"/",
    b"/%41",
    b"/a/%2e%2e/b",
    b"/a/../b",
    b"/a/./b",
    b"//x",
    b"///",
    b"/?a=%zz",
    b"/?",
    b"/??&&=",
    b"/a;b=c,d",
    b"/a%2Fb%5C%00",
    b"/a|b^`{}<>\"'",
    b"/\xc3\xa9\xff",
    b"/a#b",
    b"/http://evil.test/",
    b"/@evil.test",
    b"/" + b"a" * 16_000,
]


class TestBuild:
    @pytest.mark.parametrize("tail", TAILS, ids=lambda tail: repr(tail[:20]))
    @pytest.mark.parametrize("prefix", [b"", b"/service"])
    @pytest.mark.parametrize("base", [b"", b"/v1", b"/a/%2F"])
    def test_byte_for_byte(self, prefix: bytes, base: bytes, tail: bytes) -> None:
        assert build_target(route(prefix, base), prefix + tail) == base + tail

    @pytest.mark.threat(4)
    @pytest.mark.parametrize(
        ("base", "target", "built"),
        [
            (b"", b"/service", b"/"),
            (b"", b"/service?x=1", b"/?x=1"),
            (b"/v1", b"/service", b"/v1"),
            (b"/v1", b"/service?x=1", b"/v1?x=1"),
        ],
    )
    def test_the_prefix_alone(self, base: bytes, target: bytes, built: bytes) -> None:
        assert build_target(route(b"/service", base), target) == built

    @pytest.mark.threat(4)
    @given(
        st.binary(max_size=24),
        st.sampled_from([b"", b"/s", b"/s/t", b"/a"]),
        st.sampled_from([b"", b"/v1", b"/v1/x"]),
    )
    @settings(max_examples=200, deadline=None)
    def test_whatever_the_target(self, rest: bytes, prefix: bytes, base: bytes) -> None:
        """The origin is the route's; the target is the base and the client's own bytes after the prefix."""
        routes = sort_routes([route(b"/s", base), route(b"/s/t", base), route(b"", base)])
        target = prefix + rest
        found = match_route(routes, target)
        if found is None:
            assert not target.startswith(b"/")
            return
        own = target[len(found.prefix) :]
        built = build_target(found, target)
        assert found.origin is API
        assert built.startswith(b"/")
        assert built == base + own or (base == b"" and not own.startswith(b"/") and built == b"/" + own)
        assert target[: len(found.prefix)] == found.prefix
        assert path_of(own) == b"" or own.startswith(b"/")


class TestControl:
    @pytest.mark.parametrize("target", [b"/-", b"/-/", b"/-?x", b"/-/status?x=/a", b"/-/../a", b"/-//"])
    def test_reserved(self, target: bytes) -> None:
        assert in_control(target)

    @pytest.mark.parametrize(
        "target",
        [
            b"/",
            b"/--/",
            b"/-x",
            b"//-/",
            b"/%2d/",
            b"/a/-/",
            b"/a/../-/",
            b"/?/-/",
            b"/-%2Fstatus",
            b"-",
            b"*",
        ],
    )
    def test_not_reserved(self, target: bytes) -> None:
        assert not in_control(target)


class TestTokenInQuery:
    @pytest.mark.parametrize(
        "target",
        [
            b"/?access_token=x",
            b"/a?b=c&access_token=x",
            b"/?access_token",
            b"/?access_token=",
            b"/?b;access_token=x",
            b"/?%61ccess%5Ftoken=x",
            b"/?ACCESS_TOKEN=x",
            b"/?%20access_token=x",
            b"/?\xff=1&access_token=x",
        ],
    )
    def test_one(self, target: bytes) -> None:
        assert has_token(target)

    @pytest.mark.parametrize(
        "target",
        [
            b"/",
            b"/access_token=x",
            b"/?a=access_token",
            b"/?access_tokens=x",
            b"/?x_access_token=x",
            b"/?%zz&%",
            b"*",
        ],
    )
    def test_none(self, target: bytes) -> None:
        assert not has_token(target)
