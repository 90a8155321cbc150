"""One login's request and its callback: what is asked for, and what is believed of what comes back."""

import hashlib
from base64 import urlsafe_b64encode
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.core.accounts import Grant, OAuthSource
from bearerd.core.authorization import (
    LIFETIME_S,
    Callback,
    CallbackRefused,
    Transaction,
    build_authorization_url,
    build_transaction,
    check_callback,
    is_bound,
    parse_callback,
    parse_pasted,
    parse_return_to,
)
from bearerd.core.metadata import Metadata
from bearerd.core.pkce import build_challenge, build_verifier
from bearerd.core.redaction import Secret

NOW: Final = 1000.0
SOURCE: Final = OAuthSource(
    Grant.AUTHORIZATION_CODE, "cli", scopes=("openid", "api:read"), resource="https://api.test/"
)
SERVER: Final = Metadata(
    "https://login.test", "https://login.test/token", authorization_endpoint="https://login.test/authorize"
)


def transaction(entropy: bytes = bytes(range(96)), *, oidc: bool = True) -> Transaction:
    return build_transaction(
        "work",
        redirect_uri="http://127.0.0.1:6750/-/callback",
        binding=Secret("binding"),
        return_to="/",
        oidc=oidc,
        entropy=entropy,
        now=NOW,
    )


MADE: Final = transaction()


def asked(url: str) -> dict[str, str]:
    query = parse_qs(urlsplit(url).query, strict_parsing=True)
    assert all(len(values) == 1 for values in query.values())
    return {name: values[0] for name, values in query.items()}


class TestRequest:
    def test_what_it_asks_for(self) -> None:
        verifier = MADE.verifier.reveal().encode()
        challenge = urlsafe_b64encode(hashlib.sha256(verifier).digest()).rstrip(b"=").decode()
        assert asked(build_authorization_url(SOURCE, SERVER, MADE)) == {
            "response_type": "code",
            "client_id": "cli",
            "redirect_uri": "http://127.0.0.1:6750/-/callback",
            "state": MADE.state.reveal(),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "scope": "openid api:read",
            "nonce": MADE.nonce,
            "resource": "https://api.test/",
        }

    def test_an_endpoint_s_own_query_stays(self) -> None:
        server = replace(SERVER, authorization_endpoint="https://login.test/authorize?tenant=a%20b")
        assert asked(build_authorization_url(SOURCE, server, MADE))["tenant"] == "a b"

    @pytest.mark.parametrize(
        "name", ["state", "client_id", "redirect_uri", "code_challenge_method", "request_uri"]
    )
    def test_what_protects_the_login_cannot_be_overridden(self, name: str) -> None:
        source = replace(SOURCE, authorization_params=((name, "hijacked"), ("prompt", "consent")))
        url = build_authorization_url(source, SERVER, MADE)
        assert "hijacked" not in url
        assert asked(url)["prompt"] == "consent"

    def test_no_nonce_without_openid(self) -> None:
        assert "nonce" not in build_authorization_url(SOURCE, SERVER, transaction(oidc=False))

    def test_a_server_without_it(self) -> None:
        with pytest.raises(ValueError, match="--device"):
            build_authorization_url(SOURCE, replace(SERVER, authorization_endpoint=None), MADE)
        with pytest.raises(ValueError, match="PKCE"):
            build_authorization_url(SOURCE, replace(SERVER, pkce=False), MADE)

    @given(st.binary(min_size=96, max_size=96), st.binary(min_size=96, max_size=96))
    def test_nothing_is_ever_the_same(self, one: bytes, other: bytes) -> None:
        first, second = transaction(one), transaction(other)
        secrets = [
            text
            for made in (first, second)
            for text in (made.state.reveal(), made.verifier.reveal(), made.nonce or "")
        ]
        assert all(len(text) == 43 for text in secrets)
        parts = {one[:32], one[32:64], one[64:], other[:32], other[32:64], other[64:]}
        assert len(set(secrets)) == len(parts)

    def test_entropy_of_another_size(self) -> None:
        with pytest.raises(ValueError, match="96"):
            transaction(bytes(95))
        with pytest.raises(ValueError, match="32"):
            build_verifier(bytes(31))

    def test_the_example_of_rfc_7636_appendix_b(self) -> None:
        verifier = Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
        assert build_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

    def test_a_transaction_shows_no_secret(self) -> None:
        shown = repr(MADE)
        assert MADE.state.reveal() not in shown
        assert MADE.verifier.reveal() not in shown
        assert "binding='" not in shown


class TestParseCallback:
    def test_a_code(self) -> None:
        parsed = parse_callback(b"code=a%2Fb&state=s&iss=https%3A%2F%2Flogin.test&session_state=x")
        assert parsed == Callback(Secret("s"), Secret("a/b"), "https://login.test")

    def test_an_error(self) -> None:
        parsed = parse_callback(b"error=access_denied&error_description=no+%C3%A9%0A%3Cb%3E&state=s")
        assert parsed == Callback(Secret("s"), None, None, "access_denied", "no ??<b>")

    @pytest.mark.parametrize(
        "query",
        [
            b"",
            b"state=s",
            b"code=c&error=e&state=s",
            b"code=c&code=c&state=s",
            b"code=c&state=s&state=t",
            b"code=c&state=s&iss=a&iss=b",
            b"error=e&error_description=a&error_description=b",
            b"code=&state=s",
            b"code=c&state=",
            b"code=%0A&state=s",
            b"code=%00&state=s",
            b"code=%ff&state=s",
            b"code=\xff&state=s",
            b"code=caf%C3%A9&state=s",
            b"code=" + b"x" * 4097 + b"&state=s",
            b"code=c&state=s&pad=" + b"x" * 8192,
            b"&".join(b"a%d=b" % number for number in range(60)) + b"&code=c&state=s",
        ],
    )
    def test_bad_input_is_refused_with_a_plain_sentence(self, query: bytes) -> None:
        with pytest.raises(CallbackRefused, match=r"^the callback is not one that"):
            parse_callback(query)

    @given(st.binary(max_size=300))
    def test_whatever_comes_is_parsed_or_refused(self, query: bytes) -> None:
        try:
            parsed = parse_callback(query)
        except CallbackRefused:
            return
        assert (parsed.code is None) != (parsed.error is None)
        assert all(
            text.isascii() and text.isprintable()
            for text in (parsed.error, parsed.error_description, parsed.iss)
            if text is not None
        )


class TestParsePasted:
    @pytest.mark.parametrize(
        "text",
        [
            "http://127.0.0.1:6750/-/callback?code=c&state=s",
            "  https://remote.test/-/callback?code=c&state=s#\n",
            "code=c&state=s",
            "?code=c&state=s",
        ],
    )
    def test_an_address_or_a_part_of_it(self, text: str) -> None:
        assert parse_pasted(text) == Callback(Secret("s"), Secret("c"))

    @pytest.mark.parametrize("code", ["c", "4/0AeaY-x_y", "abc==", "a.b~c"])
    def test_a_code(self, code: str) -> None:
        assert parse_pasted(f" {code}\n") == Secret(code)

    @pytest.mark.parametrize(
        "text",
        ["", "  ", "two words", "http://127.0.0.1:6750/-/callback", "\N{SNOWMAN}", "a\x00b", "x" * 9000],
    )
    def test_what_is_neither(self, text: str) -> None:
        with pytest.raises(CallbackRefused):
            parse_pasted(text)


class TestCheckCallback:
    GOOD: Final = Callback(MADE.state, Secret("c"))

    def test_the_code(self) -> None:
        assert check_callback(self.GOOD, MADE, SERVER, NOW) == Secret("c")
        named = replace(self.GOOD, iss="https://login.test")
        assert check_callback(named, MADE, replace(SERVER, iss_required=True), NOW) == Secret("c")

    def test_a_server_whose_issuer_nobody_configured_may_name_itself(self) -> None:
        named = replace(self.GOOD, iss="https://anything.test")
        assert check_callback(named, MADE, replace(SERVER, issuer=None), NOW) == Secret("c")

    @pytest.mark.parametrize("iss", ["https://login.test/", "https://LOGIN.test", "https://evil.test", ""])
    def test_threat_7_another_issuer(self, iss: str) -> None:
        with pytest.raises(CallbackRefused, match="another server"):
            check_callback(replace(self.GOOD, iss=iss), MADE, SERVER, NOW)

    def test_threat_7_an_issuer_that_was_promised(self) -> None:
        with pytest.raises(CallbackRefused, match="does not say which server"):
            check_callback(self.GOOD, MADE, replace(SERVER, iss_required=True), NOW)

    def test_too_late(self) -> None:
        with pytest.raises(CallbackRefused, match="ten minutes"):
            check_callback(self.GOOD, MADE, SERVER, NOW + LIFETIME_S)

    def test_an_error_is_told(self) -> None:
        with pytest.raises(CallbackRefused, match=r"^the server says access_denied: not you$"):
            check_callback(Callback(MADE.state, None, None, "access_denied", "not you"), MADE, SERVER, NOW)


@pytest.mark.parametrize(
    ("given_one", "bound"),
    [(Secret("binding"), True), (Secret("other"), False), (Secret(""), False), (None, False)],
)
def test_only_whoever_began_it_has_its_binding(given_one: Secret | None, bound: bool) -> None:
    assert is_bound(MADE, given_one) is bound


class TestReturnTo:
    @pytest.mark.parametrize("path", ["/", "/me/hello", "/a?b=c&d=%2F", "/-/", "/a;b,c'd(e)!", "/%5cevil"])
    def test_a_local_path(self, path: str) -> None:
        assert parse_return_to(path) == path

    @pytest.mark.parametrize(
        "text",
        [
            None,
            "",
            "evil.test",
            "//evil.test",
            "///evil.test",
            "/\\evil.test",
            "/\t/evil.test",
            "\t//evil.test",
            "/\r\nLocation: https://evil.test",
            "/a\\b",
            "https://evil.test",
            "javascript:alert(1)",
            " /x",
            '/"><script>',
            "/caf\N{LATIN SMALL LETTER E WITH ACUTE}",
            "/" + "x" * 5000,
        ],
    )
    def test_threat_15_anything_else_leads_to_the_status_page(self, text: str | None) -> None:
        assert parse_return_to(text) == "/-/"

    @given(st.text(alphabet=st.sampled_from("/\\.:%@?#ab \t\r\n"), max_size=12))
    def test_threat_15_a_browser_stays_here_whatever_it_is(self, text: str) -> None:
        there = urlsplit(urljoin("http://127.0.0.1:6750/-/callback", parse_return_to("/" + text)))
        assert (there.scheme, there.netloc) == ("http", "127.0.0.1:6750")
