"""Which metadata is believed, and which endpoints are fit to be sent credentials."""

import json
import shlex
from typing import Final
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bearerd.core.accounts import Grant, OAuthSource
from bearerd.core.grants import parse_object
from bearerd.core.metadata import (
    Metadata,
    MetadataError,
    NoDocument,
    Offer,
    check_browser_url,
    check_endpoint,
    configured,
    override,
    parse_metadata,
    parse_named_issuer,
    well_known_urls,
)

ISSUER = "https://login.test"


def document(**members: object) -> bytes:
    return json.dumps({"issuer": ISSUER, "token_endpoint": "https://login.test/token"} | members).encode()


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://login.test/token",
        "https://oauth2.elsewhere.test:8443/token",
        "http://localhost:9000/token",
        "http://127.0.0.1/token",
        "http://127.8.9.10/token",
        "http://[::1]:9000/token",
    ],
)
def test_a_fit_endpoint(endpoint: str) -> None:
    """For an issuer the user configured, an endpoint may be anywhere (Google's is); plain http only on loopback."""
    assert check_endpoint(endpoint) == endpoint
    assert parse_metadata(ISSUER, document(token_endpoint=endpoint)) == Metadata(ISSUER, endpoint)


UNFIT = [
    ("http://login.test/token", "is plain http to another machine"),
    ("http://127.evil.test/token", "is plain http to another machine"),
    ("http://127.0.0.1.evil.test/token", "is plain http to another machine"),
    ("http://localhost.evil.test/token", "is plain http to another machine"),
    ("http://0.0.0.0/token", "is plain http to another machine"),
    ("http://[::2]/token", "is plain http to another machine"),
    ("file:///etc/passwd", "is not an http or https URL"),
    ("javascript:alert(1)", "is not an http or https URL"),
    ("javascript://login.test/%0aalert(1)", "is not an http or https URL"),
    ("data:text/html,x", "is not an http or https URL"),
    ("//login.test/token", "is not an http or https URL"),
    ("/token", "is not an http or https URL"),
    ("--flag", "is not an http or https URL"),
    ("-https://login.test/", "is not an http or https URL"),
    ("$(x)", "is not an http or https URL"),
    ("", "is not an http or https URL"),
    ("https://$(x)/token", "has a host that is neither a name nor an address"),
    ("https://--flag/token", "has a host that is neither a name nor an address"),
    ("https://evil.test\\.login.test/", "has a host that is neither a name nor an address"),
    ("https://[login.test]/", "has a host that is neither a name nor an address"),
    ("https://login.test@evil.test/", "has a user name in it"),
    ("https://user:canary@login.test/", "has a user name in it"),
    ("https:///token", "names no host"),
    ("https://login.test/token?x=$(x)", "has a character in its query"),
    ("https://login.test/token#x", "has a query or a fragment"),
    ("https://login.test/to ken", "has a space, a control or a non-ASCII character"),
    ("https://login.test/\r\nX-Evil: 1", "has a space, a control or a non-ASCII character"),
    ("https://login.test/\x1b[2J", "has a space, a control or a non-ASCII character"),
    ("https://löğin.test/", "has a space, a control or a non-ASCII character"),
]


@pytest.mark.threat(6)
@pytest.mark.parametrize(("endpoint", "reason"), UNFIT)
def test_an_unfit_endpoint(endpoint: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}"):
        check_endpoint(endpoint)
    with pytest.raises(MetadataError, match=f"^has a token_endpoint that {reason}") as caught:
        parse_metadata(ISSUER, document(token_endpoint=endpoint))
    assert not endpoint or endpoint not in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "named",
    [
        "https://login.test/",
        "https://LOGIN.test",
        "https://login.test:443",
        "http://login.test",
        "",
        None,
        5,
        [],
    ],
)
def test_the_issuer_is_compared_byte_for_byte(named: object) -> None:
    """RFC 8414 section 3.3: what looks equal may be another server's (mix-up)."""
    with pytest.raises(MetadataError, match=r"^names another issuer"):
        parse_metadata(ISSUER, document(issuer=named))


def test_a_trailing_slash_is_part_of_the_issuer() -> None:
    with pytest.raises(MetadataError, match=r"^names another issuer"):
        parse_metadata(ISSUER + "/", document())
    assert parse_metadata(ISSUER + "/", document(issuer=ISSUER + "/")).issuer == ISSUER + "/"


@pytest.mark.parametrize("endpoint", [None, 5, True, [], {"url": "https://login.test/token"}])
def test_no_endpoint(endpoint: object) -> None:
    with pytest.raises(MetadataError, match=r"^has no token_endpoint; set token_endpoint"):
        parse_metadata(ISSUER, document(token_endpoint=endpoint))


def test_an_endpoint_left_out() -> None:
    with pytest.raises(MetadataError, match=r"^has no token_endpoint; set token_endpoint"):
        parse_metadata(ISSUER, b'{"issuer": "https://login.test"}')


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'"https://login.test"', b"null", b"\xff", b'{"issuer":', b"[" * 200_000],
    ids=["empty", "HTML", "list", "text", "null", "binary", "truncated", "deep"],
)
def test_no_document(body: bytes) -> None:
    with pytest.raises(NoDocument, match=r"^is no JSON object$"):
        parse_metadata(ISSUER, body)


@given(st.binary(max_size=200))
@example(b"{}")
def test_whatever_comes_is_refused(body: bytes) -> None:
    with pytest.raises(MetadataError) as caught:
        parse_metadata(ISSUER, body)
    assert isinstance(caught.value, NoDocument) == (parse_object(body) is None)


@pytest.mark.parametrize("members", [{"issuer": "https://evil.test"}, {"token_endpoint": "file:///x"}])
def test_a_document_that_cannot_be_believed_is_one_all_the_same(members: dict[str, str]) -> None:
    """It ends the search for metadata, which nothing at all does not."""
    with pytest.raises(MetadataError) as caught:
        parse_metadata(ISSUER, document(**members))
    assert not isinstance(caught.value, NoDocument)


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        (
            "https://login.test",
            (
                "https://login.test/.well-known/openid-configuration",
                "https://login.test/.well-known/oauth-authorization-server",
            ),
        ),
        (
            "https://login.test/",
            (
                "https://login.test/.well-known/openid-configuration",
                "https://login.test/.well-known/oauth-authorization-server",
            ),
        ),
        (
            "https://login.test:8443/realms/a/",
            (
                "https://login.test:8443/realms/a/.well-known/openid-configuration",
                "https://login.test:8443/.well-known/oauth-authorization-server/realms/a",
            ),
        ),
        (
            "http://[::1]:9000/a",
            (
                "http://[::1]:9000/a/.well-known/openid-configuration",
                "http://[::1]:9000/.well-known/oauth-authorization-server/a",
            ),
        ),
    ],
    ids=["no path", "slash", "path and port", "loopback"],
)
def test_well_known_urls(issuer: str, urls: tuple[str, str]) -> None:
    """OpenID Connect appends to the issuer's path, RFC 8414 inserts before it."""
    assert well_known_urls(issuer) == urls


class TestQuery:
    """An endpoint may have one (RFC 6749 section 3.2), as Azure AD B2C's have."""

    def test_it_stays(self) -> None:
        url = "https://login.example.com/oauth2/v2.0/token?p=b2c_1_sign_in"
        assert check_endpoint(url) == url

    @pytest.mark.parametrize("query", ["a#b", "a b", "a\r\nb", "é", "a;b", "`a`"])
    def test_it_is_a_query_and_no_more(self, query: str) -> None:
        with pytest.raises(ValueError, match="in its query"):
            check_endpoint(f"https://login.example.com/token?{query}")


class TestLogins:
    FULL = Metadata(
        ISSUER,
        "https://login.test/token",
        "https://login.test/authorize",
        "https://login.test/device",
        "https://login.test/revoke",
        iss_required=True,
    )

    def test_every_endpoint_of_a_login(self) -> None:
        body = document(
            authorization_endpoint="https://login.test/authorize",
            device_authorization_endpoint="https://login.test/device",
            revocation_endpoint="https://login.test/revoke",
            authorization_response_iss_parameter_supported=True,
            code_challenge_methods_supported=["plain", "S256"],
        )
        assert parse_metadata(ISSUER, body) == self.FULL

    @pytest.mark.parametrize(
        ("methods", "pkce"), [(["plain"], False), ([], False), (["S256"], True), (None, True)]
    )
    def test_pkce_is_doubted_only_where_the_server_says_so(self, methods: object, *, pkce: bool) -> None:
        assert parse_metadata(ISSUER, document(code_challenge_methods_supported=methods)).pkce is pkce

    @pytest.mark.parametrize(
        "name", ["authorization_endpoint", "device_authorization_endpoint", "revocation_endpoint"]
    )
    @pytest.mark.parametrize(("url", "problem"), UNFIT)
    def test_threat_6_every_endpoint_is_checked(self, name: str, url: str, problem: str) -> None:
        with pytest.raises(MetadataError, match=f"has an? {name} that {problem}"):
            parse_metadata(ISSUER, document(**{name: url}))

    @pytest.mark.parametrize("iss", ["true", 1, None, []])
    def test_only_true_is_a_promise(self, iss: object) -> None:
        body = document(authorization_response_iss_parameter_supported=iss)
        assert not parse_metadata(ISSUER, body).iss_required

    def test_what_is_configured_goes_first(self) -> None:
        source = OAuthSource(Grant.AUTHORIZATION_CODE, "cli", revocation_endpoint="https://other.test/")
        assert configured(source) is None
        changed = override(self.FULL, source)
        assert changed.revocation_endpoint == "https://other.test/"
        assert changed.authorization_endpoint == "https://login.test/authorize"

    def test_endpoints_without_an_issuer(self) -> None:
        source = OAuthSource(
            Grant.AUTHORIZATION_CODE,
            "cli",
            token_endpoint="https://login.test/token",
            authorization_endpoint="https://login.test/authorize",
        )
        assert configured(source) == Metadata(
            None, "https://login.test/token", "https://login.test/authorize"
        )


@pytest.mark.parametrize("url", ["https://login.test/a?b=c&d=%20", "http://127.0.0.1:9/x", "https://[::1]/"])
def test_a_url_for_a_browser(url: str) -> None:
    assert check_browser_url(url) == url


@pytest.mark.parametrize("character", [*"$`\\\"'<>|;()*!^{} \n\x00\x7f\u00e9"])
def test_threat_6_nothing_a_shell_acts_on_is_opened(character: str) -> None:
    with pytest.raises(ValueError, match=r"^(has|is) "):
        check_browser_url(f"https://login.test/a{character}b")


SHELL: Final = "$`\\\"'<>|;()*!^{} \n\t"


@pytest.mark.parametrize(
    "url",
    [
        *(url for url, _ in UNFIT),
        "https://login.test/`touch x`",
        "https://login.test/?a=$(touch x)",
        "https://login.test/?a=;touch",
        "https://login.test/?a='b'",
        "https://login.test/#a",
        "https://login.test/\tx",
        "HTTPS ://login.test/",
        "https://log\nin.test/",
    ],
)
def test_threat_6_what_no_browser_is_sent_to(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(has|is|names) ") as caught:
        check_browser_url(url)
    assert not url or url not in str(caught.value)


@given(
    st.text(max_size=60)
    | st.text(alphabet=f"htps:/.?#@[]-&=%aA0{SHELL}\x00\x7f", max_size=40)
    | st.text(alphabet=f"abc/?=&%{SHELL}@:#", max_size=30).map(lambda rest: f"https://login.test{rest}")
)
def test_threat_6_whatever_it_is(url: str) -> None:
    try:
        assert check_browser_url(url) == url
    except ValueError:
        return
    parts = urlsplit(url)
    assert parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}
    )
    assert parts.hostname
    assert parts.username is None
    assert url.isascii()
    assert url.isprintable()
    assert not set(url) & set(SHELL)
    assert shlex.split(url) == [url]


def test_what_a_server_lists_of_itself() -> None:
    found = parse_metadata(
        ISSUER,
        document(
            grant_types_supported=["authorization_code"],
            token_endpoint_auth_methods_supported=["client_secret_post"],
            scopes_supported=["openid", 7],
            code_challenge_methods_supported=["S256"],
            require_pushed_authorization_requests=True,
        ),
    )
    listed = Offer(
        ("authorization_code",), ("client_secret_post",), ("openid", "7"), ("S256",), pushed_only=True
    )
    assert found.offer == listed


@pytest.mark.parametrize("odd", [None, "S256", {}, 1])
def test_what_is_no_list_says_nothing(odd: object) -> None:
    found = parse_metadata(ISSUER, document(scopes_supported=odd, code_challenge_methods_supported=odd))
    assert found.offer == Offer()
    assert found.pkce


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"issuer": "https://login.test/"}', "https://login.test/"),
        (b'{"issuer": "http://login.test"}', None),
        (b'{"issuer": "https://login.test/?x=1"}', None),
        (b'{"issuer": "https://login.test/\\u001b[31m"}', None),
        (b'{"issuer": 7}', None),
        (b"{}", None),
        (b"[]", None),
        (b"<html>", None),
    ],
)
def test_the_issuer_that_a_document_names(body: bytes, named: str | None) -> None:
    """Shown only where it could be configured as it stands."""
    assert parse_named_issuer(body) == named
