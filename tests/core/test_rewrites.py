"""Where responses lead: back to the route they came by, or to where the upstream says, and never elsewhere."""

import re
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bearerd.core.rewrites import rewrite_cookie, rewrite_field, rewrite_reference
from bearerd.core.targets import Route, build_target, in_control, match_route, parse_route, sort_routes

ROUTES: Final = sort_routes(
    [
        parse_route("/api/", "https://api.test/v1/", "work"),
        parse_route("/api/files/", "https://blobs.test", "work"),
        parse_route("/plain/", "http://plain.test:8080/a/b", "work"),
        parse_route("/six/", "https://[fd00::1]/", "work"),
        parse_route("/", "https://root.test", "work"),
    ]
)
API, FILES, PLAIN, SIX, ROOT = (
    next(route for route in ROUTES if route.name == name)
    for name in ("/api", "/api/files", "/plain", "/six", "/")
)


def refer(value: bytes, target: bytes = b"/api/a/b?q=1", routes: tuple[Route, ...] = ROUTES) -> bytes:
    """A Location as the client gets it that has asked for `target`."""
    route = match_route(routes, target)
    assert route is not None
    location = rewrite_field(routes, route, target, b"location", value)
    assert location == rewrite_field(routes, route, target, b"content-location", value)
    assert location is not None
    return location


# ---------------------------------------------------------------- what must not become ours


@pytest.mark.parametrize(
    "value",
    [
        b"https://evil.test/v1/x",
        b"https://evil.test",
        b"http://api.test/v1/x",
        b"https://api.test:444/v1/x",
        b"https://api.test:80/v1/x",
        b"https://api.test:443x/v1/x",
        b"https://api.test.evil.test/v1/x",
        b"https://api.test./v1/x",
        b"https://evilapi.test/v1/x",
        b"https://user@api.test/v1/x",
        b"https://user:password@api.test/v1/x",
        b"https://@api.test/v1/x",
        b"https://api.test@evil.test/v1/x",
        b"https://api.test\\@evil.test/v1/x",
        b"https://api.test\\.evil.test/v1/x",
        b"https://api.test\t.evil.test/v1/x",
        b"https://api.test%2fv1/x",
        b"https://api.test /v1/x",
        b"https://ap\xef\xbd\x89.test/v1/x",
        b"https:///v1/x",
        b"https:/v1/x",
        b"https:v1/x",
        b"https:",
        b"https://",
        b"https://[/v1/x",
        b"https://[api.test]/v1/x",
        b"wss://api.test/v1/x",
        b"javascript:alert(1)",
        b"data:text/html,x",
        b"mailto:x@api.test",
        b"urn:x:/v1/x",
        b"localhost:6750/api/x",
        b"http://localhost:6750/api/x",
    ],
)
def test_another_place_passes_as_it_is(value: bytes) -> None:
    assert refer(value) == value


@pytest.mark.parametrize(
    "value",
    [
        b"//evil.test/v1/x",
        b"//evil.test",
        b"//api.test@evil.test/v1/x",
        b"//user@api.test/v1/x",
        b"//api.test:444/v1/x",
        b"///api.test/v1/x",
        b"////api.test/v1/x",
        b"//",
        b"//\\evil.test/v1/x",
    ],
)
def test_another_host_passes_with_the_scheme_it_has_there(value: bytes) -> None:
    """A client would add ours, which is http."""
    assert refer(value) == b"https:" + value


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/",
        b"/x",
        b"/v",
        b"/v1x",
        b"/v10/x",
        b"/V1/x",
        b"/v1%2fx",
        b"/%761/x",
        b"/v2?/v1/x",
        b"/?x=/v1/",
        b"/#/v1/x",
        b"/api/x",
        b"//v1/x",
        b"/v1/..",
        b"/v1/../",
        b"/v1/../x",
        b"/v1/../v10",
        b"/v1/../api/x",
        b"/v1/./../x",
        b"/v1/a/../../x",
        b"/v1//../../x",
        b"/v1/%2e%2e/x",
        b"/v1/%2E%2e/x",
        b"/v1/.%2E/x",
        b"/v1/%2e./x",
        b"/v1/%2e/%2e%2e/x",
        b"/v1/..\\x",
        b"/v1\\..\\x",
        b"/v1/\\..",
        b"/v1/.\t./x",
        b"/v1/\x00",
    ],
)
def test_what_is_not_below_the_base_is_absolute(path: bytes) -> None:
    assert refer(b"https://api.test" + path) == b"https://api.test" + path
    if path.startswith(b"/") and not path.startswith(b"//"):
        assert refer(path) == b"https://api.test" + path


@pytest.mark.threat(10)
@pytest.mark.parametrize(
    ("target", "value"),
    [
        (b"/-/", b"/-/logout/work"),
        (b"/x", b"/-"),
        (b"/x", b"/-?x"),
        (b"/x", b"/-/"),
        (b"/x", b"/./-/login"),
        (b"/x", b"/a/../-/login"),
        (b"/x", b"/a/%2e%2e/-/login"),
        (b"/x", b"/%2e/-"),
        (b"/x", b"-/login"),
        (b"/-/x", b"login"),
    ],
)
def test_no_upstream_leads_to_our_own_pages(target: bytes, value: bytes) -> None:
    location = rewrite_reference(ROUTES, ROOT, target, value)
    assert location.startswith(b"https://root.test/")
    assert rewrite_reference(ROUTES, ROOT, target, b"https://root.test/-/x") == b"https://root.test/-/x"


@pytest.mark.threat(10)
@pytest.mark.parametrize(
    ("target", "value"),
    [
        (b"/api/x", b"/v1/files"),
        (b"/api/x", b"/v1/files/x"),
        (b"/api/x", b"/v1/files?x"),
        (b"/api/x", b"/v1/./files/x"),
        (b"/api/x", b"/v1/a/../files/x"),
        (b"/api/x", b"/v1/%2e/files/x"),
        (b"/api/x", b"files/"),
        (b"/", b"/api/x"),
        (b"/", b"/api"),
        (b"/", b"/plain?x"),
    ],
)
def test_what_another_route_has_is_absolute(target: bytes, value: bytes) -> None:
    """Under that prefix another upstream answers, with another account's token."""
    location = refer(value, target)
    assert location.startswith((b"https://api.test/v1/", b"https://root.test/"))
    assert urlsplit(location).path.endswith(urlsplit(value).path)


@pytest.mark.parametrize(
    "value",
    [b"https://root.test//evil.test/x", b"https://root.test///x", b"https://root.test/x/..//evil.test"],
)
def test_two_slashes_are_not_another_host(value: bytes) -> None:
    assert refer(value, b"/x") == value


# ---------------------------------------------------------------- what becomes ours


@pytest.mark.parametrize(
    ("value", "location"),
    [
        (b"https://api.test/v1/x", b"/api/x"),
        (b"https://api.test/v1", b"/api"),
        (b"https://api.test/v1/", b"/api/"),
        (b"https://api.test/v1?x", b"/api?x"),
        (b"https://api.test/v1#x", b"/api#x"),
        (b"https://api.test:443/v1/x", b"/api/x"),
        (b"https://api.test:/v1/x", b"/api/x"),
        (b"HTTPS://API.Test/v1/X", b"/api/X"),
        (b"//api.test/v1/x", b"/api/x"),
        (b"//API.TEST:443/v1/x", b"/api/x"),
        (b"/v1/x", b"/api/x"),
        (b"/v1", b"/api"),
        (b"/v1/%41/%zz//;a=%2F/\xff ~'", b"/api/%41/%zz//;a=%2F/\xff ~'"),
        (b"/v1/x?a=%zz&b=?&/../\\#f?#/..\t", b"/api/x?a=%zz&b=?&/../\\#f?#/..\t"),
        (b"/v1/v1/x", b"/api/v1/x"),
        (b"/v1/...", b"/api/..."),
        (b"/v1/a/./b/../c", b"/api/a/./b/../c"),
        (b"/v1/a/%2e%2E/c", b"/api/a/%2e%2E/c"),
        (b"/v1/a:b@c", b"/api/a:b@c"),
        (b"/x/../v1/y", b"/api/y"),
        (b"/v1/../v1/y", b"/api/y"),
        (b"/v1/a//../../y", b"/api/y"),
        (b"/x/%2e%2e/v1/y?../..", b"/api/y?../.."),
        (b"c", b"/api/a/c"),
        (b"c/d?e#f", b"/api/a/c/d?e#f"),
        (b"./c", b"/api/a/c"),
        (b"../c", b"/api/c"),
        (b"%2e%2e/c", b"/api/c"),
        (b"..", b"/api/"),
        (b"./", b"/api/a/"),
        (b"a/c:d", b"/api/a/a/c:d"),
        (b"1:2", b"/api/a/1:2"),
        (b"?x", b"/api/a/b?x"),
        (b"?", b"/api/a/b?"),
        (b"#f", b"/api/a/b?q=1#f"),
        (b"", b""),
    ],
)
def test_what_is_below_the_base_is_mapped(value: bytes, location: bytes) -> None:
    assert refer(value) == location


@pytest.mark.parametrize(
    ("value", "location"),
    [
        (b"../../c", b"https://api.test/c"),
        (b"../../../c?x", b"https://api.test/c?x"),
        (b"../../v1/c", b"/api/c"),
        (b"%2e%2e/.%2e/c", b"https://api.test/c"),
        (b"../..", b"https://api.test/"),
        (b"x\\..\\..\\y", b"https://api.test/v1/a/x\\..\\..\\y"),
        (b"\0/..", b"https://api.test/v1/a/\0/.."),
        (b"\t//evil.test", b"https://api.test/v1/a/\t//evil.test"),
        (b"\\\\evil.test", b"https://api.test/v1/a/\\\\evil.test"),
    ],
)
def test_a_relative_path_that_leaves_the_base(value: bytes, location: bytes) -> None:
    assert refer(value) == location


@pytest.mark.parametrize(
    ("target", "value", "location"),
    [
        (b"/plain/x", b"http://plain.test:8080/a/b/c", b"/plain/c"),
        (b"/plain/x", b"http://plain.test/a/b/c", b"http://plain.test/a/b/c"),
        (b"/plain/x", b"http://plain.test:080/a/b/c", b"http://plain.test:080/a/b/c"),
        (b"/plain/x", b"http://plain.test:08080/a/b/c", b"/plain/c"),
        (b"/plain/x", b"//plain.test:8080/a/b", b"/plain"),
        (b"/plain/x", b"/a/c", b"http://plain.test:8080/a/c"),
        (b"/plain", b"c", b"http://plain.test:8080/a/c"),
        (b"/plain/", b"c", b"/plain/c"),
        (b"/six/x", b"https://[FD00::1]:443/y", b"/six/y"),
        (b"/six/x", b"/y", b"/six/y"),
        (b"/six/x", b"https://[fd00::1]", b"/six"),
        (b"/six/x", b"https://[fd00::1]?x", b"/six?x"),
        (b"/six/x", b"https://[fd00::1]//x", b"/six//x"),
        (b"/six/x", b"/../y", b"/six/y"),
        (b"/x", b"https://root.test", b"/"),
        (b"/x", b"https://root.test?x", b"/?x"),
        (b"/x", b"https://root.test/x//y", b"/x//y"),
        (b"/x", b"/%2d/x", b"/%2d/x"),
        (b"/x", b"/-x", b"/-x"),
        (b"/x", b"/a/-/x", b"/a/-/x"),
        (b"/x", b"/apis", b"/apis"),
        (b"/api/files", b"x", b"/api/files/x"),
        (b"/x#y/z", b"w", b"https://root.test/x#y/w"),
        (b"/x\\y/z", b"w", b"https://root.test/x\\y/w"),
        (b"/x\\y/z", b"/w", b"/w"),
    ],
)
def test_by_other_routes(target: bytes, value: bytes, location: bytes) -> None:
    assert refer(value, target) == location


def test_a_base_at_the_root_of_ours() -> None:
    """The base itself has a slash more than it had, for a path of ours has one at least."""
    routes = (parse_route("/", "https://api.test/v1", "work"),)
    assert refer(b"/v1/x", b"/y", routes) == b"/x"
    assert refer(b"/v1", b"/y", routes) == b"/"
    assert refer(b"/v1?x", b"/y", routes) == b"/?x"
    assert refer(b"/v1//evil.test/x", b"/y", routes) == b"https://api.test/v1//evil.test/x"
    assert refer(b"/v1/-/login", b"/y", routes) == b"https://api.test/v1/-/login"
    assert refer(b"/x", b"/y", routes) == b"https://api.test/x"


# ---------------------------------------------------------------- whatever comes

PIECES: Final = (
    *(b"https:", b"http:", b"//", b"/", b"\\", b"api.test", b"root.test", b"evil.test", b":443", b"@"),
    *(b"v1", b"..", b".", b"%2e", b"%2E%2e", b"-", b"api", b"files", b"x", b"%41", b"?", b"#", b"\t", b" "),
)
_SOUP: Final = st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)
VALUES: Final = st.one_of(st.binary(max_size=40), _SOUP).map(bytes.strip)  # as a parser does
TARGETS: Final = st.sampled_from(
    [b"/api", b"/api/", b"/api/a/b?q=/..", b"/api/files/a/b", b"/six/", b"/", b"/a/b/c", b"/a//b/..%2f/c"]
)
HERE: Final = b"http://localhost:6750"
_ABSOLUTE: Final = re.compile(rb"(?:([a-z][a-z0-9+.-]*):)?//+([^/]*)(.*)", re.IGNORECASE | re.DOTALL)
_OPAQUE: Final = re.compile(rb"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_DOTS: Final = re.compile(rb"(?<=/)(?:\.|%2e){1,2}(?=/|\Z)", re.IGNORECASE)


def browse(origin: bytes, target: bytes, reference: bytes) -> tuple[bytes, bytes, bytes]:
    """Origin, path, and query with fragment, of where a browser goes (WHATWG URL section 4.4)."""
    reference = reference.strip(bytes(range(33))).translate(None, b"\t\r\n")
    (head, rest), (base, query) = cut(reference), cut(target)
    head = head.replace(b"\\", b"/")
    own = origin.partition(b":")[0] + b":"
    if head.lower().startswith(own) and not head.lower().startswith(own + b"//"):
        head = head[len(own) :]
    if found := _ABSOLUTE.fullmatch(head):
        scheme, host = (found[1] or own[:-1]).lower(), found[2].rpartition(b"@")[2].lower()
        host = host.removesuffix(b":443" if scheme == b"https" else b":80")
        return scheme + b"://" + host, plain(found[3]), rest
    if _OPAQUE.match(head):
        return head, b"", b""
    if not head:
        return origin, plain(base), rest if rest.startswith(b"?") else query + rest
    path = head if head.startswith(b"/") else base.rpartition(b"/")[0] + b"/" + head
    return origin, plain(path), rest


def cut(reference: bytes) -> tuple[bytes, bytes]:
    head = re.split(rb"[?#]", reference, maxsplit=1)[0]
    return head, reference[len(head) :]


def plain(path: bytes) -> bytes:
    """Without dot segments (RFC 3986 section 5.2.4, step by step)."""
    done, path = b"", _DOTS.sub(lambda dots: dots[0].lower().replace(b"%2e", b"."), path)
    while path:
        if path.startswith(b"/./") or path == b"/.":
            path = b"/" + path[3:]
        elif path.startswith(b"/../") or path == b"/..":
            path, done = b"/" + path[4:], done.rpartition(b"/")[0]
        else:
            size = path.find(b"/", 1)
            done, path = (done + path, b"") if size < 0 else (done + path[:size], path[size:])
    return done or b"/"


@given(TARGETS, VALUES)
@settings(max_examples=500, deadline=None)
def test_nothing_but_what_the_route_has_becomes_ours(target: bytes, value: bytes) -> None:
    """Where a browser ends with us, it would have ended at the same place with the upstream."""
    route = match_route(ROUTES, target)
    assert route is not None
    location = refer(value, target)
    if location == value and (not value or _OPAQUE.match(value)):
        return
    origin, path, rest = browse(HERE, target, location)
    if origin != HERE:
        assert location.startswith(route.origin.scheme.encode() + b"://")
        return
    assert location.startswith(b"/")
    assert match_route(ROUTES, path) is route
    assert not in_control(path)
    there = browse(str(route.origin).encode(), build_target(route, target), value)
    assert there == (str(route.origin).encode(), plain(build_target(route, path)), rest)


@given(
    st.sampled_from([API, FILES, PLAIN, SIX]),
    st.from_regex(rb"(/[!-.0->@-\[\]-~\x80-\xff]*)*([?#][\x20-\xff]*)?", fullmatch=True),
)
@settings(max_examples=300, deadline=None)
def test_there_and_back(route: Route, below: bytes) -> None:
    """What has no dot segments keeps every byte, and is the same URL again when a client asks for it."""
    path = cut(below)[0]
    assume(not _DOTS.search(path) and match_route(ROUTES, route.prefix + path) is route)
    written = route.base + below
    for value in (written, str(route.origin).encode() + written):
        if not value.startswith((b"//", b"#", b"?")) and value:
            location = rewrite_reference(ROUTES, route, b"/elsewhere", value)
            assert location == route.prefix + below
            assert build_target(route, location) in {written, b"/" + written}


@given(st.binary(max_size=60), st.binary(max_size=20))
@settings(max_examples=300, deadline=None)
def test_no_bytes_are_too_odd(value: bytes, target: bytes) -> None:
    for route in ROUTES:
        rewrite_reference(ROUTES, route, target, value)
        rewrite_reference(ROUTES, route, b"/" + target, str(route.origin).encode() + value)
        rewrite_cookie(route, value)


# ---------------------------------------------------------------- cookies


@pytest.mark.threat(13)
@pytest.mark.parametrize(
    "value",
    [
        b"bearerd_csrf=x",
        b"bearerd_csrf=x; Path=/v1",
        b"  bearerd_login_00=; Max-Age=0",
        b"\tbearerd_csrf =x",
        b"bearerd_",
        b"bearerd_csrf",
        b"=bearerd_csrf=x",
        b" = bearerd_csrf=x; Path=/",
        b"==bearerd_csrf=x",
    ],
)
def test_a_cookie_of_ours_is_not_the_upstreams_to_set(value: bytes) -> None:
    assert rewrite_cookie(API, value) is None
    assert rewrite_cookie(ROOT, value) is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"a",
        b"a=1",
        b"a=1;",
        b";;",
        b"a=1; path",
        b"a=1; Path=",
        b'a=1; Path=""',
        b"a=1; Path=v1",
        b"a=1; Path=/v1x",
        b"a=1; Path=/v",
        b"a=1; Path=/v10/x",
        b"a=1; Path=/%761",
        b"a=1; Path=/V1",
        b"a=1; Path=//v1",
        b"a=1; Pathx=/v1; Xpath=/v1; Domains=x",
        b'path=/v1; SAMESITE=None;secure ;  HttpOnly; Expires=Wed, 21 Oct 2037 07:28:00 GMT; x="y z"',
        b'domain=x; a="Path=/v1"',
        b"a=bearerd_csrf=x; Bearerd_csrf=x",
        b"Bearerd_csrf=x",
        b"xbearerd_csrf=x",
        b"__Host-a=1; Secure; Path=/",
        b"__host-a=1; secure; path=/v1",
        b"a=\xe9\xff\x80 \x01",
    ],
)
def test_a_cookie_that_stays_as_it_is(value: bytes) -> None:
    assert rewrite_cookie(API, value) == value


@pytest.mark.parametrize(
    ("value", "cookie"),
    [
        (b"a=1; Domain=api.test", b"a=1"),
        (b"a=1;domain=.api.test;Secure", b"a=1;Secure"),
        (b"a=1; Secure;  DOMAIN = api.test ; HttpOnly", b"a=1; Secure; HttpOnly"),
        (b"a=1; Domain; Domain=; Domain=x;", b"a=1;"),
        (b"__Host-a=1; Domain=x; Path=/", b"__Host-a=1; Path=/"),
        (b"a=1; Path=/v1", b"a=1; Path=/api"),
        (b"a=1; Path=/v1/", b"a=1; Path=/api/"),
        (b"a=1; Path=/v1/x/", b"a=1; Path=/api/x/"),
        (b"a=1; Path=/v1/../x", b"a=1; Path=/api/../x"),
        (b"a=1; Path=/", b"a=1; Path=/api"),
        (b"a=1;path=/v1;Secure", b"a=1;path=/api;Secure"),
        (b"a=1; Secure;\tPATH  =  /v1/x\t; HttpOnly", b"a=1; Secure;\tPATH  =  /api/x\t; HttpOnly"),
        (b'a=1; Path="/v1/x"', b'a=1; Path="/api/x"'),
        (b"a=1; Path=/v1/%41\xff=/v1", b"a=1; Path=/api/%41\xff=/v1"),
        (b"a=1; Path=/v1; Path=/x; Path=/v1/y", b"a=1; Path=/api; Path=/x; Path=/api/y"),
        (b"__Secure-a=1; Path=/v1", b"__Secure-a=1; Path=/api"),
    ],
)
def test_a_cookie_comes_to_the_route(value: bytes, cookie: bytes) -> None:
    assert rewrite_cookie(API, value) == cookie
    assert rewrite_field(ROUTES, API, b"/api", b"set-cookie", value) == cookie


@pytest.mark.threat(13)
@pytest.mark.parametrize(
    ("route", "path", "mapped"),
    [
        (ROOT, b"/", b"/"),
        (ROOT, b"/x/", b"/x/"),
        (ROOT, b"/-/", b"/-/"),
        (FILES, b"/", b"/api/files"),
        (FILES, b"/x", b"/api/files/x"),
        (PLAIN, b"/", b"/plain"),
        (PLAIN, b"/a", b"/plain"),
        (PLAIN, b"/a/", b"/plain"),
        (PLAIN, b"/a/b", b"/plain"),
        (PLAIN, b"/a/b/", b"/plain/"),
        (PLAIN, b"/a/bc", b"/a/bc"),
        (parse_route("/", "https://api.test/v1", "work"), b"/v1", b"/"),
        (parse_route("/", "https://api.test/v1", "work"), b"/v1/", b"/"),
        (parse_route("/", "https://api.test/v1", "work"), b"/v1/x", b"/x"),
        (parse_route("/", "https://api.test/v1", "work"), b"/", b"/"),
        (parse_route("/", "https://api.test/v1", "work"), b"/x", b"/x"),
    ],
)
def test_paths_of_cookies(route: Route, path: bytes, mapped: bytes) -> None:
    """One that holds for all of the upstream's base holds for all of the route: other routes are others' business."""
    assert rewrite_cookie(route, b"a=1; Path=" + path) == b"a=1; Path=" + mapped


def test_a_route_without_cookies_sets_none() -> None:
    route = replace(API, cookies=False)
    assert rewrite_cookie(route, b"a=1") is None
    assert rewrite_field(ROUTES, route, b"/api", b"set-cookie", b"a=1; Path=/v1") is None


_OWS: Final = st.sampled_from([b"", b" ", b"\t", b"  "])
_ATTRIBUTES: Final = st.sampled_from(
    [
        b"Domain=api.test",
        b"domain",
        b"DOMAIN =x",
        b"Path=/v1/x",
        b"path=/",
        b"Secure",
        b"SameSite=None",
        b"x",
        b"",
    ]
)


@given(
    st.binary(max_size=12).map(lambda pair: pair.replace(b";", b"")),
    st.lists(st.builds(lambda a, b, c: a + b + c, _OWS, _ATTRIBUTES, _OWS), max_size=6),
)
@settings(max_examples=200, deadline=None)
def test_nothing_of_a_cookie_but_domain_and_path_is_touched(pair: bytes, attributes: list[bytes]) -> None:
    cookie = rewrite_cookie(API, b";".join([pair, *attributes]))
    assume(cookie is not None)
    assert cookie is not None
    first, *rest = cookie.split(b";")
    assert first == pair
    expected = [one for one in attributes if not one.strip().lower().startswith(b"domain")]
    assert [one for one in rest if b"ath=" not in one] == [one for one in expected if b"ath=" not in one]
    assert len(rest) == len(expected)
    assert all(b"=/api" in one for one in rest if b"ath=" in one) or pair.lstrip().lower().startswith(
        b"__host-"
    )
