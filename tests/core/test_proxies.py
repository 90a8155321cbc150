"""Outbound proxies: how they are written, and when the environment's is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.core.proxies import NONE, build_connect, find_proxy, is_excepted, judge_connect, parse_proxy
from bearerd.core.redaction import MASK, Secret
from bearerd.core.targets import Origin, Proxy, parse_origin

API = Origin("https", "api.example.com", 443)
PROXY = Proxy(Origin("http", "proxy.test", 3128))


@pytest.mark.parametrize(
    ("text", "origin", "credentials"),
    [
        ("http://proxy.test:3128", PROXY.origin, None),
        ("http://proxy.test:3128/", PROXY.origin, None),
        ("HTTP://Proxy.TEST:3128", PROXY.origin, None),
        ("proxy.test:3128", PROXY.origin, None),
        ("http://proxy.test", Origin("http", "proxy.test", 80), None),
        ("http://[::1]:3128", Origin("http", "::1", 3128), None),
        ("http://me:p%40ss@proxy.test:3128", PROXY.origin, "me:p@ss"),
        ("me:p:w@proxy.test:3128", PROXY.origin, "me:p:w"),
        ("http://me@proxy.test:3128", PROXY.origin, "me:"),
        ("http://@proxy.test:3128", PROXY.origin, None),
        ("http://m%C3%A9:x@proxy.test:3128", PROXY.origin, "mé:x"),
    ],
)
def test_urls_of_proxies(text: str, origin: Origin, credentials: str | None) -> None:
    assert parse_proxy(text) == Proxy(origin, Secret(credentials) if credentials else None)


def test_no_proxy_at_all() -> None:
    assert parse_proxy("none") == NONE


@pytest.mark.parametrize(
    "text",
    [
        "https://proxy.test:3128",
        "socks5://me:canary@proxy.test:1080",
        "http://",
        "",
        "http://me:canary@",
        "http://proxy.test:0",
        "http://proxy.test:canary",
        "http://proxy.test/path",
        "http://proxy.test?canary",
        "http://a b",
        "http://me:canary\r\n@proxy.test",
        "http://prøxy.test",
        "http://me:cana/ry@proxy.test",
        "http://[::1%lo]:3128",
        3128,
        None,
        ["http://proxy.test"],
    ],
)
def test_what_is_no_url_of_a_proxy(text: object) -> None:
    with pytest.raises(
        ValueError, match=r"^is not the URL of an http proxy; write it like http://proxy"
    ) as caught:
        parse_proxy(text)
    assert "canary" not in str(caught.value)


def test_credentials_that_are_not_utf_8() -> None:
    with pytest.raises(ValueError, match=r"percent-encode it$"):
        parse_proxy("http://me:%ff@proxy.test")


@given(st.text() | st.text("htp:/@[]%0:.a", max_size=20))
def test_any_text_is_a_proxy_or_a_problem(text: str) -> None:
    try:
        proxy = parse_proxy(text)
    except ValueError:
        return
    assert proxy == NONE or isinstance(proxy, Proxy)


def test_credentials_are_not_shown() -> None:
    proxy = parse_proxy("http://me:canary@proxy.test:3128")
    assert str(proxy) == f"http://{MASK}@proxy.test:3128"
    assert str(PROXY) == "http://proxy.test:3128"
    assert "canary" not in repr(proxy)


# ---------------------------------------------------------------- the environment


@pytest.mark.parametrize(
    ("url", "environ", "found"),
    [
        ("https://api.example.com", {"HTTPS_PROXY": "http://a"}, ("HTTPS_PROXY", "http://a")),
        ("https://api.example.com", {"https_proxy": "http://a"}, ("https_proxy", "http://a")),
        ("https://api.example.com", {"HTTPS_PROXY": "a", "https_proxy": "b"}, ("https_proxy", "b")),
        ("https://api.example.com", {"HTTPS_PROXY": "a", "https_proxy": ""}, None),
        ("https://api.example.com", {"HTTP_PROXY": "a", "http_proxy": "b"}, None),
        ("http://api.example.com", {"HTTP_PROXY": "a", "HTTPS_PROXY": "b"}, ("HTTP_PROXY", "a")),
        ("https://api.example.com", {"HTTPS_PROXY": "a", "NO_PROXY": "example.com"}, None),
        ("https://api.example.com", {"HTTPS_PROXY": "a", "no_proxy": "example.com"}, None),
        (
            "https://api.example.com",
            {"HTTPS_PROXY": "a", "NO_PROXY": "*", "no_proxy": ""},
            ("HTTPS_PROXY", "a"),
        ),
        ("https://api.example.com", {}, None),
        ("http://127.0.0.1:8080", {"http_proxy": "a"}, None),
        ("http://127.8.8.8", {"http_proxy": "a"}, None),
        ("https://localhost", {"https_proxy": "a"}, None),
        ("https://[::1]:8443", {"https_proxy": "a"}, None),
        ("https://127.evil.test", {"https_proxy": "a"}, ("https_proxy", "a")),
    ],
)
def test_the_proxy_of_the_environment(
    url: str, environ: dict[str, str], found: tuple[str, str] | None
) -> None:
    assert find_proxy(parse_origin(url)[0], environ) == found


@pytest.mark.parametrize(
    ("url", "no_proxy", "excepted"),
    [
        ("https://api.example.com", "example.com", True),
        ("https://example.com", "example.com", True),
        ("https://example.com", ".example.com", True),
        ("https://api.example.com", ".example.com", True),
        ("https://api.example.com", "*.example.com", True),
        ("https://API.example.com", "API.EXAMPLE.COM", True),
        ("https://api.example.com", "other.test, api.example.com", True),
        ("https://api.example.com", "other.test api.example.com", True),
        ("https://api.example.com", "*", True),
        ("https://api.example.com", "api.example.com:443", True),
        ("https://api.example.com", "api.example.com:8443", False),
        ("https://api.example.com.", "example.com", True),
        ("https://api.example.com", "example.com.", True),
        ("https://badexample.com", "example.com", False),
        ("https://example.com.evil.test", "example.com", False),
        ("https://api.example.com", "", False),
        ("https://api.example.com", " , .,", False),
        ("https://api.example.com", "api", False),
        ("https://10.1.2.3", "10.1.2.3", True),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://11.1.2.3", "10.0.0.0/8", False),
        ("https://10.1.2.3:8443", "10.1.2.3:443", False),
        ("https://[fd00::1]", "fd00::/8", True),
        ("https://[fd00::1]", "[fd00::1]", True),
        ("https://[fd00::1]", "[fd00::1]:443", True),
        ("https://[fd00::1]", "[fd00::1]:80", False),
        ("https://[fd00::1]", "fd00:0:0::1", True),
        ("https://api.example.com", "10.0.0.0/8", False),
        ("https://10.1.2.3", "3", False),
    ],
)
def test_exceptions(url: str, no_proxy: str, excepted: bool) -> None:
    assert is_excepted(parse_origin(url)[0], no_proxy) is excepted


@given(st.text() | st.text("*.:[]/0aé, ", max_size=20))
def test_any_list_of_exceptions_is_read(no_proxy: str) -> None:
    is_excepted(API, no_proxy)


# ---------------------------------------------------------------- the request for a tunnel


def test_what_is_asked_of_a_proxy() -> None:
    asked = build_connect(PROXY, API)
    assert asked == b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n"
    asked = build_connect(Proxy(PROXY.origin, Secret("Aladdin:open sesame")), Origin("http", "fd00::1", 80))
    assert asked == (
        b"CONNECT [fd00::1]:80 HTTP/1.1\r\nHost: [fd00::1]:80\r\n"
        b"Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"  # RFC 7617 section 2
    )


@pytest.mark.parametrize("status", [200, 201, 299])
def test_a_tunnel(status: int) -> None:
    assert judge_connect(status, PROXY, API) is None


@pytest.mark.parametrize("status", [302, 400, 403, 404, 407, 500, 502, 504])
def test_no_tunnel(status: int) -> None:
    for proxy in (PROXY, Proxy(PROXY.origin, Secret("me:canary"))):
        problem = judge_connect(status, proxy, API)
        assert problem is not None
        assert problem.startswith("the proxy http://proxy.test:3128 ")
        assert f"({status})" in problem
        assert "canary" not in problem
