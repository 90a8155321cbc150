"""Rules on methods and paths. What an upstream may read in another way gets round no deny, and into no allow."""

import posixpath
import re
import time
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bearerd.core.queries import has_parameter
from bearerd.core.rules import Rules, build_rules, judge, parse_rule, read_path

Fields = tuple[tuple[bytes, bytes], ...]


def code(rules: Rules | None, target: bytes, method: str = "GET", headers: Fields = ()) -> str | None:
    assert rules is not None
    problem = judge(rules, method, target, headers)
    assert problem is None or problem.status == 403
    return None if problem is None else problem.code


def denies(pattern: str, path: bytes, method: str = "GET") -> bool:
    """Whether the pattern itself denies it: the path is one that is judged."""
    found = code(build_rules(deny=[pattern]), path, method)
    assert found in {None, "refused_by_deny"}
    return found is not None


def allows(pattern: str, path: bytes, method: str = "GET") -> bool:
    found = code(build_rules(allow=[pattern]), path, method)
    assert found in {None, "refused_by_allow"}
    return found is None


# ---------------------------------------------------------------- what upstreams may make of a path

DENIED = "/admin/**"
SPELLINGS = [
    b"/admin",
    b"/admin/",
    b"/admin/x",
    b"/ADMIN/x",
    b"/aDm%49n/x",
    b"/%61dmin/x",
    b"/%61%64%6D%69%6e",
    b"/%2561dmin/x",
    b"/%u0061dmin",
    b"//admin/x",
    b"/admin//x",
    b"/./admin/x",
    b"/%2e/admin/x",
    b"/%2E/admin",
    b"/x/../admin/x",
    b"/x/%2e%2e/admin/x",
    b"/x/.%2e/admin/x",
    b"/x/..%2fadmin/x",
    b"/x%2f..%2fadmin",
    b"/x%2F%2e%2e%2Fadmin",
    b"/x/..%5cadmin",
    b"/x/..;/admin/x",
    b"/x/..;a=b/admin/x",
    b"/;/admin",
    b"/admin;",
    b"/admin;a=b/x",
    b"/admin%3Ba/x",
    b"/admin%2Fx",
    b"/admin%2fx",
    b"/%2Fadmin/x",
    b"/%2fadmin",
    b"/\\admin/x",
    b"/%5Cadmin/x",
    b"/admin\\x",
    b"/admin%5cx",
    b"/admin%00/x",
    b"/admin%0a",
    b"/admin%09",
    b"/admin%20",
    b"/%20admin",
    b"/admin.",
    b"/admin./x",
    b"/admin%2e",
    b"/admin%3f/x",
    b"/admin%23",
    b"/admin#",
    b"/admin\xc0\xafx",
    b"/admin%c0%afx",
    b"/%c1%a1dmin",
    b"/admin%ef%bc%8fx",
    b"/%ef%bd%81dmin",
    b"/adm%c4%b1n",
    b"/adm%c4%b0n",
    b"/admin%e2%80%8b",
    b"/%ef%bb%bfadmin",
    b"/...%2f/admin",
    b"/%zz/../admin",
    b"/admin%",
]


@pytest.mark.threat(5)
@pytest.mark.parametrize("path", SPELLINGS)
@pytest.mark.parametrize("query", [b"", b"?", b"?/public"])
def test_no_spelling_gets_round_a_deny(path: bytes, query: bytes) -> None:
    assert code(build_rules(deny=[DENIED]), path + query) in {"refused_by_deny", "ambiguous_path"}


@pytest.mark.parametrize(
    "path",
    [
        b"/public/../admin",
        b"/public/%2e%2e/admin",
        b"/public%2F..%2Fadmin",
        b"/public/..;/admin",
        b"/public/..%5cadmin",
        b"/public/x%00",
        b"/public//admin",
        b"/public%5c..%5cadmin",
        b"/public/%252e%252e/admin",
        b"/public/.",
        b"/public/..",
        b"/PUBLIC/x",
        b"/pubLic/x",
        b"//public/x",
        b"/%2Fpublic/x",
        b"/publicx",
    ],
)
def test_no_spelling_gets_into_an_allow(path: bytes) -> None:
    assert code(build_rules(allow=["/public/**"]), path) in {"refused_by_allow", "ambiguous_path"}


def lenient(path: bytes, decodings: int) -> str:
    """The most that an upstream may do to a path: another program than ours, written to meet it half-way nowhere."""
    for _ in range(decodings):
        path = unquote_to_bytes(path)
    text = path.decode("utf-8", "replace").replace("\\", "/").replace("\0", "")
    text = re.sub(r";[^/]*", "", text)
    text = posixpath.normpath("/" + re.sub(r"/+", "/", text))
    return "/" + text.lstrip("/").lower()


TRICKS = [
    *("/", "//", "/./", "/../", "/x/../", "/%2e/", "/%2e%2e/", "%2F", "%2f", "\\", "%5c", "/..;/", ";x"),
    *("%3b", "%00", "%2561", "%", "%2", "..", ".", "%2e", "%252e", "%20", "%ff", "%c0%af", "x", "y", "?"),
]


@st.composite
def spellings(draw: st.DrawFn) -> bytes:
    """A path that was put together from what is denied and from tricks, each letter of it encoded or not."""
    words = draw(st.lists(st.sampled_from([*TRICKS, "/admin", "admin", "/admin/x", "/users"]), max_size=6))
    written = []
    for char in "/" + "".join(words):
        how = draw(st.sampled_from([0, 0, 0, 0, 1, 2, 3])) if char.isascii() and char.isalpha() else 0
        written.append([char, char.upper(), f"%{ord(char):02x}", f"%25{ord(char):02X}"][how])
    return "".join(written).encode("latin-1")


READERS: list[Callable[[bytes], str]] = [
    lambda path: lenient(path, 0),
    lambda path: lenient(path, 1),
    lambda path: lenient(path, 2),
]


@given(spellings(), st.sampled_from(READERS))
@example(b"/x/..%2Fadmin", READERS[1])
@example(b"/%2561dmin", READERS[2])
def test_what_passes_a_deny_is_denied_by_no_reader(target: bytes, reader: Callable[[bytes], str]) -> None:
    if code(build_rules(deny=["/admin/**", "/users"]), target) is None:
        read = reader(target.partition(b"?")[0])
        assert not read.startswith("/admin/")
        assert read not in {"/admin", "/users"}


@given(spellings(), st.sampled_from(READERS[1:]))
@example(b"/users/..%2Fadmin", READERS[1])
@example(b"/%78", READERS[1])
def test_what_passes_an_allow_is_allowed_by_every_reader(
    target: bytes, reader: Callable[[bytes], str]
) -> None:
    """A letter and its encoding are the same (RFC 3986 section 6.2.2.2), so none of them is one that decodes nothing."""
    if code(build_rules(allow=["/users/**", "/x*"]), target) is None:
        read = reader(target.partition(b"?")[0])
        assert read == "/users" or read.startswith("/users/") or re.fullmatch("/x[^/]*", read)


@given(st.binary(max_size=40), st.sampled_from(READERS))
def test_any_bytes(tail: bytes, reader: Callable[[bytes], str]) -> None:
    path = b"/" + tail.replace(b"?", b"")
    if code(build_rules(deny=["/a*/**", "/b/**"]), path) is None:
        assert not reader(path).startswith(("/a", "/b/"))


@given(st.text(max_size=20))
def test_a_path_has_one_reading_or_two_or_none(text: str) -> None:
    """And a reading is what decoding it once gives."""
    path = b"/" + text.encode("utf-8", "replace")
    readings = read_path(path)
    assert len(readings) <= 2
    if readings:
        assert readings[-1].encode() == unquote_to_bytes(path)


# ---------------------------------------------------------------- what passes all the same


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"",
        b"/v1/files",
        b"/v1/files/",
        b"/v1/files/my%20file.txt",
        b"/v1/projects/group%2Fproject",
        b"/v1/models/a:generate",
        b"/v1/users/@me,you'(x)!$&+=~-_*",
        b"/v1/%7Ejoe",
        b"/v1/%40me",
        b"/v1/caf%c3%a9",
        b"/v1/caf\xc3\xa9",
        b"/v1/.well-known/x..y",
        b"/v1/a...b/.hidden",
        b"/v1/%5Bx%5D",
        b"/v1/%22%3C%3E%7C",
    ],
)
def test_paths_that_every_reader_reads_the_same(path: bytes) -> None:
    assert code(build_rules(deny=[DENIED]), path) is None
    assert code(build_rules(allow=["/**"]), path) is None


def test_a_query_is_not_judged() -> None:
    rules = build_rules(deny=[DENIED])
    assert code(rules, b"/x?a=/admin/../%00;b\\?") is None
    assert code(rules, b"?/admin") is None


def test_paths_are_not_judged_where_there_are_no_rules_on_them() -> None:
    assert code(build_rules(methods=["GET"]), b"/a//..%2f/;x") is None


def test_no_rules_at_all() -> None:
    assert build_rules() is None


# ---------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("/a", [b"/a", b"/%61"], [b"/a/", b"/ab", b"/a/b", b"/", b"/A"]),
        ("/a/", [b"/a/"], [b"/a", b"/a/b"]),
        ("/", [b"/", b""], [b"/a"]),
        ("/a/**", [b"/a", b"/a/", b"/a/b", b"/a/b/c/", b"/a/b%2Fc"], [b"/ab", b"/", b"/b/a", b"/a%2Fb"]),
        ("/**", [b"/", b"/a", b"/a/b"], []),
        ("/a/*", [b"/a/b", b"/a/b.c"], [b"/a", b"/a/", b"/a/b/", b"/a/b/c", b"/a/b%2Fc"]),
        ("/a*", [b"/a", b"/ab"], [b"/b", b"/a/", b"/a/b"]),
        ("/*/b", [b"/a/b", b"/xx/b"], [b"/b", b"/a/c", b"/a/a/b", b"/a%2Fa/b"]),
        ("/a/*/**", [b"/a/b", b"/a/b/c"], [b"/a", b"/a/"]),
        ("/a*b*c/d*e", [b"/abc/de", b"/axbxbxc/dxde"], [b"/abc/d", b"/ab/c/de", b"/acb/de"]),
        ("/*.json", [b"/a.json", b"/.json.json"], [b"/a.jsonx", b"/a_json"]),
        ("/f/my%20file", [b"/f/my%20file"], [b"/f/my+file"]),
        ("/%7Ejoe", [b"/~joe", b"/%7ejoe"], []),
        ("/caf\u00e9", [b"/caf%C3%A9", b"/caf\xc3\xa9"], [b"/cafe", b"/CAF%C3%89"]),
        ("/a%2Ab", [b"/a*b"], [b"/axb"]),
        ("/a.b", [b"/a.b"], [b"/axb"]),
        ("/a(b)[c]+", [b"/a(b)[c]+"], [b"/abc"]),
    ],
)
def test_what_a_pattern_allows(pattern: str, inside: list[bytes], outside: list[bytes]) -> None:
    assert all(allows(pattern, path) for path in inside)
    assert not any(allows(pattern, path) for path in outside)


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("/a", [b"/a", b"/a/", b"/A", b"/%41/"], [b"/ab", b"/a/b"]),
        ("/a/", [b"/a", b"/a/"], [b"/a/b"]),
        ("/", [b"/", b""], [b"/a"]),
        ("/a/*", [b"/a/b", b"/A/B/", b"/a/", b"/a%2Fb", b"/a/b%2Fc"], [b"/a", b"/a/b/c"]),
        ("/a/b", [b"/a%2Fb", b"/a%2fb/", b"/a/b%2F"], [b"/a%2Fbc"]),
        ("/stra\u00dfe", [b"/STRASSE", b"/stra%c3%9fe"], []),
        ("/**", [b"/", b"/a"], []),
    ],
)
def test_what_a_pattern_denies(pattern: str, inside: list[bytes], outside: list[bytes]) -> None:
    assert all(denies(pattern, path) for path in inside)
    assert not any(denies(pattern, path) for path in outside)


def test_a_pattern_may_be_for_methods() -> None:
    rules = build_rules(deny=["DELETE PUT /v1/**", "/admin"], allow=["GET POST /v1/**", "DELETE /**"])
    assert code(rules, b"/v1/x") is None
    assert code(rules, b"/v1/x", "POST") is None
    assert code(rules, b"/v1/x", "DELETE") == "refused_by_deny"
    assert code(rules, b"/v1/x", "delete") == "refused_by_deny"
    assert code(rules, b"/v2/x", "DELETE") is None
    assert code(rules, b"/admin", "DELETE") == "refused_by_deny"
    assert code(rules, b"/v1/x", "HEAD") == "refused_by_allow"
    assert code(rules, b"/v1/x", "get") == "refused_by_allow"
    assert code(rules, b"/v2/x") == "refused_by_allow"


def test_who_must_not_get_it_must_not_see_its_head() -> None:
    rules = build_rules(deny=["GET /secret"])
    assert code(rules, b"/secret", "HEAD") == "refused_by_deny"
    assert code(rules, b"/secret", "PUT") is None


@pytest.mark.threat(5)
def test_an_encoded_slash_must_be_allowed_both_ways() -> None:
    both = build_rules(allow=["/p/*/issues", "/p/*/*/issues"])
    assert code(both, b"/p/group%2Fproject/issues") is None
    assert code(build_rules(allow=["/p/*/issues"]), b"/p/group%2Fproject/issues") == "refused_by_allow"
    assert code(build_rules(allow=["/p/*/*/issues"]), b"/p/group%2Fproject/issues") == "refused_by_allow"


def test_deny_beats_allow_and_names_its_rule() -> None:
    rules = build_rules(allow=["/v1/**"], deny=["DELETE /v1/**"])
    assert rules is not None
    problem = judge(rules, "DELETE", b"/v1/x", ())
    assert problem is not None
    assert problem.code == "refused_by_deny"
    assert "DELETE /v1/**" in problem.detail


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "names no path that begins with a slash"),
        ("admin", "names no path that begins with a slash"),
        ("*", "names no path that begins with a slash"),
        ("DELETE", "names no path that begins with a slash"),
        ("DELETE ", "names no path that begins with a slash"),
        ("https://api.example.com/x", "names no path that begins with a slash"),
        ("delete /x", "'delete' is not a method; write methods in capitals"),
        ("PUT,DELETE /x", "'PUT,DELETE' is not a method; write methods in capitals"),
        ("PUT  DELETE /x", "'' is not a method; write methods in capitals, with one space"),
        ("* /x", "'*' is not a method"),
        ("/a/**/b", "has ** elsewhere than at the end"),
        ("/a**", "has ** elsewhere than at the end"),
        ("/a/***", "has ** elsewhere than at the end"),
        ("/**/**", "has ** elsewhere than at the end"),
        ("/a%2fb", "has %2F in it"),
        ("//a", "nothing between slashes"),
        ("/a//**", "nothing between slashes"),
        ("//**", "nothing between slashes"),
        ("/a/../b", "has . or .. or"),
        ("/a/./b", "has . or .. or"),
        ("/a/%2e%2e/b", "has . or .. or"),
        ("/a/*.", "has . or .. or"),
        ("/a;b", "a ?, #, ;, backslash"),
        ("/a\\b", "a ?, #, ;, backslash"),
        ("/a?b=1", "a ?, #, ;, backslash"),
        ("/a#b", "a ?, #, ;, backslash"),
        ("/100%25", "%25 or bad encoding"),
        ("/100%", "%25 or bad encoding"),
        ("/a%4*", "%25 or bad encoding"),
        ("/%ff", "%25 or bad encoding"),
        ("/a%00", "%25 or bad encoding"),
        ("/e\u0301", "%25 or bad encoding"),
    ],
)
@pytest.mark.parametrize("wide", [True, False])
def test_patterns_that_are_none(text: str, problem: str, wide: bool) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse_rule(text, wide=wide)


def test_no_path_takes_long() -> None:
    """A pattern that a matcher with backtracking is at for years."""
    rules = build_rules(deny=["/" + "*a" * 30 + "b"], allow=["/" + "a*" * 30 + "b"])
    began_at = time.process_time()
    assert code(rules, b"/" + b"a" * 16_000) == "refused_by_allow"
    assert time.process_time() - began_at < 1


# ---------------------------------------------------------------- methods


def test_only_the_methods_that_are_named() -> None:
    rules = build_rules(methods=["GET", "POST"])
    assert [code(rules, b"/", method) for method in ("GET", "POST")] == [None, None]
    for method in ("HEAD", "DELETE", "get", "GETX", "PROPFIND"):
        assert code(rules, b"/", method) == "refused_by_methods"


def test_read_only() -> None:
    rules = build_rules(read_only=True)
    assert [code(rules, b"/", method) for method in ("GET", "HEAD", "OPTIONS")] == [None] * 3
    for method in ("POST", "PUT", "PATCH", "DELETE", "PROPFIND", "LOCK", "get"):
        assert code(rules, b"/", method) == "refused_by_read_only"


OVERRIDES = [
    b"X-HTTP-Method-Override",
    b"x-http-method-override",
    b"X-Method-Override",
    b"X-HTTP-Method",
    b"X_HTTP_METHOD_OVERRIDE",
    b"x-Http_Method",
]


@pytest.mark.threat(5)
@pytest.mark.parametrize("name", OVERRIDES)
@pytest.mark.parametrize("value", [b"DELETE", b"GET", b""])
@pytest.mark.parametrize(
    "rules",
    [
        build_rules(methods=["GET"]),
        build_rules(read_only=True),
        build_rules(deny=["DELETE /**"]),
        build_rules(allow=["GET /**"]),
    ],
)
def test_a_method_is_not_overridden(rules: Rules | None, name: bytes, value: bytes) -> None:
    """Nor where the field is said to be for this hop: an upstream that gets it may be one of many."""
    headers = ((b"Accept", b"*/*"), (b"Connection", name), (name, value))
    assert code(rules, b"/x", "GET", headers) == "method_override"


@pytest.mark.threat(5)
@pytest.mark.parametrize("query", [b"?_method=DELETE", b"?a=b&_METHOD=put", b"?%5fmethod=x", b"?a;_method"])
def test_a_method_is_not_overridden_by_a_query(query: bytes) -> None:
    assert code(build_rules(read_only=True), b"/x" + query) == "method_override"
    assert has_parameter(b"/x" + query, b"_method")


@pytest.mark.parametrize("target", [b"/x?method=put", b"/_method=x", b"/x?a=_method"])
def test_what_is_no_override(target: bytes) -> None:
    headers = ((b"X-Method", b"DELETE"), (b"X-HTTP-Methods", b"DELETE"))
    assert code(build_rules(read_only=True), target, "GET", headers) is None


def test_overrides_pass_where_no_rule_is_on_methods() -> None:
    headers = ((b"X-HTTP-Method-Override", b"DELETE"),)
    assert code(build_rules(deny=["/admin"]), b"/x?_method=DELETE", "POST", headers) is None
