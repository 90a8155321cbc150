"""Authorization requests and their callbacks: what is sent, and what of an answer is believed."""

from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, quote, urlencode, urljoin, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bearerd.core.accounts import Grant, OAuthSource
from bearerd.core.authorization import (
    LIFETIME_S,
    QUERY_LIMIT,
    VALUE_LIMIT,
    Callback,
    CallbackRefused,
    Transaction,
    build_authorization_url,
    build_transaction,
    check_callback,
    has_state,
    is_bound,
    parse_callback,
    parse_pasted,
    parse_return_to,
)
from bearerd.core.metadata import Metadata, check_browser_url
from bearerd.core.pkce import build_challenge
from bearerd.core.redaction import Secret

NOW: Final = 1_000.0
ISSUER: Final = "https://login.test"
REDIRECT: Final = "http://127.0.0.1:6750/-/callback"
SERVER: Final = Metadata(ISSUER, f"{ISSUER}/token", authorization_endpoint=f"{ISSUER}/authorize")
SOURCE: Final = OAuthSource(
    Grant.AUTHORIZATION_CODE, "the client", issuer=ISSUER, scopes=("openid", "api:read")
)


def transaction(*, oidc: bool = True, entropy: bytes = bytes(range(96))) -> Transaction:
    return build_transaction(
        "work",
        redirect_uri=REDIRECT,
        binding=Secret("b1nding"),
        return_to="/me/",
        oidc=oidc,
        entropy=entropy,
        now=NOW,
    )


MADE: Final = transaction()
GOOD: Final = Callback(state=MADE.state, code=Secret("c0de-canary"), iss=ISSUER)


class TestTransaction:
    def test_its_three_values_have_nothing_in_common(self) -> None:
        assert MADE.nonce is not None
        texts = {MADE.state.reveal(), MADE.verifier.reveal(), MADE.nonce}
        assert len(texts) == 3
        assert {len(text) for text in texts} == {43}
        assert MADE.expires_at == NOW + LIFETIME_S == NOW + 600

    @given(st.binary(min_size=96, max_size=96), st.binary(min_size=96, max_size=96))
    def test_nothing_is_ever_the_same(self, one: bytes, other: bytes) -> None:
        made = [transaction(entropy=entropy) for entropy in (one, other)]
        texts = [text for each in made for text in (each.state.reveal(), each.verifier.reveal(), each.nonce)]
        parts = {entropy[start : start + 32] for entropy in (one, other) for start in (0, 32, 64)}
        assert len(set(texts)) == len(parts)

    def test_a_nonce_only_where_an_id_token_will_answer_it(self) -> None:
        assert transaction(oidc=False).nonce is None

    @pytest.mark.parametrize("size", [0, 32, 95, 97])
    def test_too_little_or_too_much_entropy(self, size: int) -> None:
        with pytest.raises(ValueError, match="96 bytes"):
            transaction(entropy=bytes(size))

    def test_nothing_of_it_is_shown(self) -> None:
        for secret in (MADE.state, MADE.verifier, MADE.binding):
            assert secret.reveal() not in repr(MADE)

    @pytest.mark.parametrize(
        ("binding", "bound"),
        [
            (Secret("b1nding"), True),
            (Secret("b1ndin"), False),
            (Secret("b1ndings"), False),
            (Secret("b\u00efnding"), False),
            (Secret(""), False),
            (None, False),
        ],
    )
    def test_threat_7_it_belongs_to_whoever_began_it(self, binding: Secret | None, bound: bool) -> None:
        assert is_bound(MADE, binding) is bound

    def test_its_state(self) -> None:
        assert has_state(MADE, MADE.state)
        assert not has_state(MADE, Secret(MADE.state.reveal()[:-1]))
        assert not has_state(MADE, None)


def asked(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)


class TestRequest:
    def test_what_is_asked(self) -> None:
        """RFC 6749 section 4.1.1, RFC 7636 section 4.3, OIDC Core section 3.1.2.1."""
        url = build_authorization_url(SOURCE, SERVER, MADE)
        assert url.startswith(f"{ISSUER}/authorize?")
        assert asked(url) == {
            "response_type": ["code"],
            "client_id": ["the client"],
            "redirect_uri": [REDIRECT],
            "scope": ["openid api:read"],
            "state": [MADE.state.reveal()],
            "nonce": [MADE.nonce],
            "code_challenge": [build_challenge(MADE.verifier)],
            "code_challenge_method": ["S256"],
        }
        assert MADE.verifier.reveal() not in url
        assert MADE.binding.reveal() not in url

    def test_what_is_not_set_is_left_out(self) -> None:
        url = build_authorization_url(replace(SOURCE, scopes=()), SERVER, transaction(oidc=False))
        assert {"scope", "nonce", "resource", "audience"}.isdisjoint(asked(url))

    def test_resource_and_audience(self) -> None:
        """RFC 8707 section 2.1."""
        source = replace(SOURCE, resource="https://api.test/v1?a=1&b", audience="urn:x")
        assert asked(build_authorization_url(source, SERVER, MADE))["resource"] == [
            "https://api.test/v1?a=1&b"
        ]
        assert asked(build_authorization_url(source, SERVER, MADE))["audience"] == ["urn:x"]

    @pytest.mark.parametrize(
        ("endpoint", "before"),
        [
            (f"{ISSUER}/authorize", {}),
            (f"{ISSUER}/authorize?", {}),
            (f"{ISSUER}/authorize?p=b2c_1_sign_in", {"p": ["b2c_1_sign_in"]}),
            (f"{ISSUER}/authorize?a=1&b=2", {"a": ["1"], "b": ["2"]}),
        ],
    )
    def test_an_endpoint_keeps_its_query(self, endpoint: str, before: dict[str, list[str]]) -> None:
        """RFC 6749 section 3.1."""
        url = build_authorization_url(SOURCE, replace(SERVER, authorization_endpoint=endpoint), MADE)
        assert asked(url).items() >= before.items()
        assert url.count("?") == 1
        assert "?&" not in url

    def test_further_parameters(self) -> None:
        source = replace(SOURCE, authorization_params=(("access_type", "offline"), ("prompt", "a b&c")))
        further = asked(build_authorization_url(source, SERVER, MADE))
        assert (further["access_type"], further["prompt"]) == (["offline"], ["a b&c"])

    def test_further_parameters_replace_nothing_of_ours(self) -> None:
        source = replace(SOURCE, resource="https://api.test", audience="ours")
        plain = asked(build_authorization_url(source, SERVER, MADE))
        hostile = tuple((name, "evil") for name in (*plain, "request", "request_uri", "response_mode"))
        url = build_authorization_url(replace(source, authorization_params=hostile), SERVER, MADE)
        assert asked(url) == plain

    @given(
        client_id=st.text(min_size=1, max_size=50),
        scope=st.text(min_size=1, max_size=50),
        value=st.text(min_size=1, max_size=50),
    )
    def test_whatever_is_configured_the_address_is_fit_for_a_browser(
        self, client_id: str, scope: str, value: str
    ) -> None:
        source = replace(
            SOURCE, client_id=client_id, scopes=(scope,), resource=value, authorization_params=(("x", value),)
        )
        url = build_authorization_url(source, SERVER, MADE)
        assert check_browser_url(url) == url
        assert dict(parse_qsl(urlsplit(url).query))["client_id"] == client_id

    def test_no_endpoint(self) -> None:
        with pytest.raises(
            ValueError, match=r"has no authorization endpoint; set .* or use bearerd login --device"
        ):
            build_authorization_url(SOURCE, replace(SERVER, authorization_endpoint=None), MADE)

    @pytest.mark.threat(7)
    def test_a_server_with_plain_pkce_alone_is_refused(self) -> None:
        with pytest.raises(ValueError, match="does not do PKCE with S256"):
            build_authorization_url(SOURCE, replace(SERVER, pkce=False), MADE)


def refused(query: bytes) -> None:
    with pytest.raises(CallbackRefused, match=r"^the callback is not one that") as caught:
        parse_callback(query)
    assert "canary" not in str(caught.value)


class TestCallback:
    def test_a_good_one(self) -> None:
        query = b"code=c%2F0de+1&state=st%3Date&iss=https%3A%2F%2Flogin.test&session_state=x&scope=a+b"
        assert parse_callback(query) == Callback(
            state=Secret("st=ate"), code=Secret("c/0de 1"), iss="https://login.test"
        )

    def test_an_error(self) -> None:
        callback = parse_callback(b"error=access_denied&error_description=No+thanks&error_uri=x&state=s")
        assert callback == Callback(state=Secret("s"), error="access_denied", error_description="No thanks")

    @pytest.mark.parametrize("name", ["code", "state", "iss"])
    def test_a_parameter_twice(self, name: str) -> None:
        """RFC 6749 section 3.1."""
        refused(f"code=canary&state=s&iss=i&{name}=s".encode())

    @pytest.mark.parametrize(
        "query",
        [
            b"",
            b"state=s",
            b"code",
            b"code=&state=s",
            b"code=canary&state=",
            b"code=canary&iss=",
            b"code=canary&error=access_denied",
            b"error=&state=s",
            b"error=e&error=e",
            b"error=e&error_description=a&error_description=b",
            b"code=can%0Aary",
            b"code=can%00ary",
            b"code=can%7fary",
            b"code=can\nary",
            b"code=can\tary",
            b"code=canary\r\nX-Evil: 1",
            b"code=can%C3%A9ary",
            b"code=can\xc3\xa9ary",
            b"code=can%ffary",
            b"code=canary%",
            b"code=canary%4",
            b"code=canary%zz",
            b"error=e&error_description=%ff",
            b"code=canary&state=%E2%80%AE",
            b"code=" + b"c" * (VALUE_LIMIT + 1),
            b"code=canary&state=" + b"s" * (VALUE_LIMIT + 1),
            b"code=canary&x=" + b"x" * QUERY_LIMIT,
            b"code=canary" + b"&" * 60,
            b"code=canary" + b"&x=y" * 60,
        ],
        ids=lambda query: repr(query[:40]),
    )
    def test_an_odd_one(self, query: bytes) -> None:
        refused(query)

    def test_the_largest_one(self) -> None:
        code = b"c" * VALUE_LIMIT
        assert parse_callback(b"code=" + code).code == Secret(code.decode())
        filler = b"&x=" + b"x" * (QUERY_LIMIT - 4 - len(b"code=c&x=") + 4)
        assert len(b"code=c" + filler) == QUERY_LIMIT
        assert parse_callback(b"code=c" + filler).code == Secret("c")

    @pytest.mark.parametrize(
        ("said", "shown"),
        [
            ("Plain words.", "Plain words."),
            ("two\r\nlines\tand a bell\x07", "two??lines?and a bell?"),
            ("\x1b[2Jgone \u202eback", "?[2Jgone ?back"),
            ("x" * 5000, "x" * 200),
            ("state=canary-of-a-secret", "state=canary-of-a-secret"),
            ("access_token=canary123 is wrong", "access_token=********** is wrong"),
            ("", None),
        ],
    )
    def test_a_description_is_made_fit_to_show(self, said: str, shown: str | None) -> None:
        query = urlencode({"error": "e", "error_description": said}).encode()
        assert parse_callback(query).error_description == shown

    @given(
        query=st.binary(max_size=300)
        | st.text(alphabet="code=state&%0123456789abcdef+iserr_", max_size=200).map(str.encode)
    )
    @example(b"code=a;state=b")
    def test_whatever_comes_it_is_plain_or_refused(self, query: bytes) -> None:
        try:
            callback = parse_callback(query)
        except CallbackRefused:
            return
        assert (callback.code is None) != (callback.error is None)
        texts = [callback.iss, callback.error, callback.error_description]
        texts += [secret.reveal() for secret in (callback.code, callback.state) if secret]
        for text in filter(None, texts):
            assert text.isascii()
            assert text.isprintable()

    @given(
        code=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=200),
        state=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=200),
    )
    def test_every_code_and_state_that_may_be_comes_through(self, code: str, state: str) -> None:
        """RFC 6749 appendices A.5 and A.11."""
        for query in (urlencode({"code": code, "state": state}), f"state={quote(state)}&code={quote(code)}"):
            assert parse_callback(query.encode()) == Callback(state=Secret(state), code=Secret(code))


class TestPasted:
    @pytest.mark.parametrize(
        "text",
        [
            "http://127.0.0.1:6750/-/callback?code=c%2F1&state=s",
            "  https://elsewhere.test/any/path?code=c%2F1&state=s#fragment \n",
            "?code=c%2F1&state=s",
            "code=c%2F1&state=s",
            "state=s&code=c%2F1#",
        ],
    )
    def test_an_address_or_its_query(self, text: str) -> None:
        assert parse_pasted(text) == Callback(state=Secret("s"), code=Secret("c/1"))

    @pytest.mark.parametrize("code", ["4/0AX4XfWj", "0.AXkA-b_c~d", "abc==", "a%2Fb"])
    def test_a_bare_code(self, code: str) -> None:
        assert parse_pasted(f" {code}\r\n") == Secret(code)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "   ",
            "\n",
            "http://127.0.0.1:6750/-/login",
            "http://127.0.0.1:6750/-/callback?",
            "https://login.test/form?flow=1",
            "no such code",
            "code\x1b[2J",
            "c\u00f6de",
            "two\nlines",
            "c" * (VALUE_LIMIT + 1),
            "?code=a&x=" + "x" * QUERY_LIMIT,
            "?code=a&code=b",
        ],
        ids=lambda text: repr(text[:40]),
    )
    def test_anything_else(self, text: str) -> None:
        with pytest.raises(CallbackRefused):
            parse_pasted(text)

    @given(st.text(max_size=200))
    def test_whatever_is_pasted(self, text: str) -> None:
        try:
            pasted = parse_pasted(text)
        except CallbackRefused:
            return
        assert isinstance(pasted, Secret | Callback)


class TestCheck:
    def test_a_good_one(self) -> None:
        assert check_callback(GOOD, MADE, SERVER, NOW) == GOOD.code
        assert check_callback(GOOD, MADE, replace(SERVER, iss_required=True), NOW) == GOOD.code

    def test_a_server_that_does_not_name_itself(self) -> None:
        assert check_callback(replace(GOOD, iss=None), MADE, SERVER, NOW) == GOOD.code

    @pytest.mark.parametrize(
        "iss",
        [
            "https://login.test/",
            "https://LOGIN.test",
            "http://login.test",
            "https://evil.test",
            "login.test",
            " ",
            "",
        ],
    )
    def test_threat_7_another_server(self, iss: str) -> None:
        """RFC 9207 section 2.4: compared as it is, also with an error."""
        for callback in (replace(GOOD, iss=iss), Callback(state=MADE.state, iss=iss, error="access_denied")):
            with pytest.raises(CallbackRefused, match="comes from another server"):
                check_callback(callback, MADE, SERVER, NOW)

    def test_threat_7_a_server_that_always_names_itself(self) -> None:
        with pytest.raises(CallbackRefused, match="does not say which server"):
            check_callback(replace(GOOD, iss=None), MADE, replace(SERVER, iss_required=True), NOW)

    def test_without_a_configured_issuer_there_is_nothing_to_compare(self) -> None:
        assert check_callback(GOOD, MADE, replace(SERVER, issuer=None), NOW) == GOOD.code

    @pytest.mark.parametrize("state", [None, Secret(""), Secret("x" * 43), Secret("\u00e9")])
    def test_threat_7_another_login(self, state: Secret | None) -> None:
        with pytest.raises(CallbackRefused, match="belongs to another login"):
            check_callback(replace(GOOD, state=state), MADE, SERVER, NOW)

    @pytest.mark.parametrize(("later_s", "good"), [(0.0, True), (599.9, True), (600.0, False), (1e6, False)])
    def test_ten_minutes(self, later_s: float, good: bool) -> None:
        if good:
            assert check_callback(GOOD, MADE, SERVER, NOW + later_s)
            return
        with pytest.raises(CallbackRefused, match="more than ten minutes ago; begin again"):
            check_callback(GOOD, MADE, SERVER, NOW + later_s)

    @pytest.mark.parametrize(
        ("error", "description", "sentence"),
        [
            ("access_denied", "You said no", "the server says access_denied: You said no; begin again"),
            ("login_required", None, "the server says login_required; begin again"),
            (
                "e" * 500,
                None,
                "the server says " + "e" * 64 + "; see client_id, redirect_uri and scopes of the account",
            ),
        ],
    )
    def test_what_the_server_says(self, error: str, description: str | None, sentence: str) -> None:
        callback = Callback(state=MADE.state, error=error, error_description=description)
        with pytest.raises(CallbackRefused) as caught:
            check_callback(callback, MADE, SERVER, NOW)
        assert str(caught.value) == sentence

    def test_neither_code_nor_error(self) -> None:
        with pytest.raises(CallbackRefused):
            check_callback(Callback(state=MADE.state), MADE, SERVER, NOW)

    @pytest.mark.parametrize(
        "change", [{"iss": "https://evil.test"}, {"state": Secret("x")}, {"code": None, "error": "e"}]
    )
    def test_no_refusal_shows_a_secret(self, change: dict[str, Any]) -> None:
        with pytest.raises(CallbackRefused) as caught:
            check_callback(replace(GOOD, **change), MADE, SERVER, NOW)
        for secret in ("canary", MADE.state.reveal()):
            assert secret not in str(caught.value)


ELSEWHERE: Final = [
    "//evil.test",
    "//evil.test/%2f..",
    "///evil.test",
    "/\\evil.test",
    "/\\/evil.test",
    "\\/evil.test",
    "\\\\evil.test",
    "https://evil.test",
    "https:evil.test",
    "https:/evil.test",
    "http://127.0.0.1:6750/-/",
    "javascript:alert(1)",
    "data:text/html,x",
    "evil.test",
    "-/",
    "./",
    "?x",
    "#x",
    "",
    " /-/",
    " //evil.test",
    "\t//evil.test",
    "/\t/evil.test",
    "/\t\\evil.test",
    "/\r/evil.test",
    "/\n/evil.test",
    "/\r\n/evil.test",
    "/me/\r\nSet-Cookie: x=1",
    "/me/ x",
    "/me/\x00",
    "/me/\x7f",
    "/me/\x85",
    "/m\u00e9/",
    "/\u2028/evil.test",
    "/\u3002evil.test",
    "/\uff0fevil.test",
    "/me/\\..",
    '/me/"x',
    "/" + "x" * VALUE_LIMIT,
    None,
]


class TestReturnTo:
    @pytest.mark.parametrize("text", ELSEWHERE, ids=lambda text: repr(text)[:40])
    def test_threat_15_nobody_is_sent_elsewhere(self, text: str | None) -> None:
        assert parse_return_to(text) == "/-/"

    @pytest.mark.parametrize(
        "text", ["/-/login", "/-/login/work", "/-/login/work?return_to=/", "/-/callback?code=a", "/x/-/login"]
    )
    def test_nobody_is_sent_round_in_circles(self, text: str) -> None:
        assert parse_return_to(text) == "/-/"

    @pytest.mark.parametrize(
        "text",
        [
            "/",
            "/-/",
            "/-/status",
            "/me/hello",
            "/me/?a=1&b=/-/login#top",
            "/a//b",
            "/%2f%2fevil.test",
            "/%5cevil.test",
            "/%09/evil.test",
            "/.//evil.test",
            "/@evil.test",
            "/http://evil.test",
            "/-/logins",
            "/a;b,c'd(e)!",
        ],
    )
    def test_a_local_path_stays_as_it_is(self, text: str) -> None:
        """``%2f`` and ``%5c`` stay encoded, and no browser reads them as the beginning of a host."""
        assert parse_return_to(text) == text
        assert_local(text)

    @given(
        st.text(max_size=50)
        | st.text(alphabet="/\\.:@?#%2f5c\t\r\n evil-", max_size=20)
        | st.sampled_from([text for text in ELSEWHERE if text]).flatmap(
            lambda text: st.text(alphabet="/\\\t \r.", max_size=3).map(lambda before: before + text)
        )
    )
    def test_whatever_is_asked_for_it_is_here(self, text: str) -> None:
        assert_local(parse_return_to(text))


def assert_local(path: str) -> None:
    """As a browser resolves it (WHATWG URL): backslashes are slashes; tabs and line ends are not there."""
    seen = path.strip().translate({ord("\\"): "/", 9: None, 10: None, 13: None})
    found = urlsplit(urljoin("http://127.0.0.1:6750/-/login/work", seen))
    assert (found.scheme, found.netloc) == ("http", "127.0.0.1:6750")
    assert path.isascii()
    assert path.isprintable()
