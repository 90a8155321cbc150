"""Where a route's credential goes, and that no setting can put it, or keep it, where it must not be."""

from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.core.field_rules import (
    DEFAULT_RULES,
    Credential,
    build_field_rules,
    check_field_name,
    check_field_value,
    parse_credential,
)
from bearerd.core.headers import request_headers

NO_TEMPLATE = (
    'must have {token} in its value once; write it like "Authorization: Bearer {token}", '
    'or for Basic "Authorization: Basic {base64:user:{token}}"'
)
NO_FIELD = 'is not a field; write it like "Authorization: Bearer {token}"'
NO_VALUE = "has a value with something other than printable ASCII in it; take that out"


@pytest.mark.parametrize(
    ("written", "field"),
    [
        ("Authorization: Bearer {token}", (b"Authorization", b"Bearer tok-1")),
        ("Authorization: token {token}", (b"Authorization", b"token tok-1")),
        ("X-Api-Key: {token}", (b"X-Api-Key", b"tok-1")),
        ("X-Api-Key:{token}", (b"X-Api-Key", b"tok-1")),
        ("PRIVATE-TOKEN:   {token}  ", (b"PRIVATE-TOKEN", b"tok-1")),
        ("Proxy-Authorization: Bearer {token}", (b"Proxy-Authorization", b"Bearer tok-1")),
        ("X: key={token};v=1", (b"X", b"key=tok-1;v=1")),
        ("Authorization: Basic {base64:oauth2:{token}}", (b"Authorization", b"Basic b2F1dGgyOnRvay0x")),
        ("Authorization: Basic {base64:{token}:}", (b"Authorization", b"Basic dG9rLTE6")),
        ("X_Key: a {base64:{token}} b", (b"X_Key", b"a dG9rLTE= b")),
    ],
)
def test_how_a_credential_is_written(written: str, field: tuple[bytes, bytes]) -> None:
    assert parse_credential(written).field(b"tok-1") == field


def test_the_default_is_a_bearer_token() -> None:
    assert parse_credential("Authorization: Bearer {token}") == Credential() == DEFAULT_RULES.credential
    assert build_field_rules() == DEFAULT_RULES
    assert hash(build_field_rules()) == hash(DEFAULT_RULES)


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("{token}", NO_FIELD),
        ("Bearer {token}", NO_FIELD),
        (": {token}", NO_FIELD),
        ("X Y: {token}", NO_FIELD),
        (" X: {token}", NO_FIELD),
        ("X : {token}", NO_FIELD),
        ("X\r\nY: {token}", NO_FIELD),
        ("Sch\u00fcssel: {token}", NO_FIELD),
        ("X:", NO_VALUE),
        ("X: {token}\r\nEvil: 1", NO_VALUE),
        ("X: {token}\n", NO_VALUE),
        ("X: a\tb{token}", NO_VALUE),
        ("X: a\0{token}", NO_VALUE),
        ("X: caf\u00e9 {token}", NO_VALUE),
        ("X: s3cret-canary", NO_TEMPLATE),
        ("X: {Token}", NO_TEMPLATE),
        ("X: {token", NO_TEMPLATE),
        ("X: {token}}", NO_TEMPLATE),
        ("X: {token}{token}", NO_TEMPLATE),
        ("X: {base64:user}", NO_TEMPLATE),
        ("X: {base64:{token}", NO_TEMPLATE),
        ("X: {base64:{base64:{token}}}", NO_TEMPLATE),
        ("X: {basic:user:{token}}", NO_TEMPLATE),
        ("X: {user}:{token}", NO_TEMPLATE),
    ],
)
def test_what_is_no_credential(written: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"; (write it|take that out)") as caught:
        parse_credential(written)
    assert str(caught.value) == problem
    assert "canary" not in str(caught.value)


RESERVED = [
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Upgrade",
    "HTTP2-Settings",
    "Expect",
    "Via",
    "Cookie",
    "Max-Forwards",
    "Forwarded",
    "X-Forwarded-For",
]


@pytest.mark.parametrize(
    "name", [*RESERVED, "Content-Type", "Sec-WebSocket-Protocol", "Access-Control-Request-Method"]
)
@pytest.mark.parametrize("spell", [str, str.lower, str.upper, lambda name: name.replace("-", "_")])
def test_fields_that_never_carry_a_token(name: str, spell: type[str]) -> None:
    with pytest.raises(ValueError, match="cannot carry a token; name another field, such as"):
        parse_credential(f"{spell(name)}: {{token}}")


SPELLINGS = st.sampled_from(
    [bytes, bytes.upper, bytes.lower, bytes.swapcase, lambda name: name.replace(b"-", b"_")]
)
NAMES = st.sampled_from([b"X-Api-Key", b"Authorization", b"Proxy-Authorization", b"X-Kept", b"X-Api-Key-2"])
FIELDS = st.lists(st.tuples(st.builds(lambda spell, name: spell(name), SPELLINGS, NAMES), st.binary()))


@given(
    FIELDS,
    st.sampled_from(
        ["X-Api-Key: {token}", "Proxy_authorization: {token}", "authorization: B {base64:a:{token}}"]
    ),
)
def test_whatever_the_client_sends_one_credential_leaves(
    fields: list[tuple[bytes, bytes]], written: str
) -> None:
    """The client's go in all spellings: the field that carries ours, and Authorization, whichever that is."""
    credential = parse_credential(written)
    sent = request_headers(
        tuple(fields),
        authority=b"a",
        via=b"v",
        framing=None,
        token=b"ours",
        cookies=True,
        rules=build_field_rules(credential),
    )
    assert sent[-1] == credential.field(b"ours")
    canonical = [name.lower().replace(b"_", b"-") for name, _ in sent[:-1]]
    assert not {b"authorization", b"proxy-authorization", sent[-1][0].lower().replace(b"_", b"-")} & set(
        canonical
    )
    kept = [pair for pair in fields if pair[0].lower().replace(b"_", b"-") in {b"x-kept", b"x-api-key-2"}]
    assert all(pair in sent for pair in kept)


@given(st.text(max_size=12), st.text(max_size=20))
def test_a_credential_is_one_line_of_ascii_or_refused(name: str, value: str) -> None:
    try:
        credential = parse_credential(f"{name}: {value}{{token}}")
    except ValueError:
        return
    line = b"%b: %b" % credential.field(b"t")
    assert line.isascii()
    assert line.decode().isprintable()


@given(st.text("abc:{}", max_size=6), st.from_regex(rb"[!-~]{1,20}", fullmatch=True))
def test_what_is_encoded_can_be_read_again(user: str, token: bytes) -> None:
    try:
        credential = parse_credential(f"Authorization: Basic {{base64:{user}{{token}}}}")
    except ValueError:
        assert set("{}") & set(user)
        return
    assert b64decode(credential.field(token)[1].removeprefix(b"Basic ")) == user.encode() + token


@pytest.mark.parametrize("name", [*RESERVED, "Authorization", "Proxy-Authorization"])
@pytest.mark.parametrize("spell", [str, str.lower, str.upper, lambda name: name.replace("-", "_")])
def test_fields_that_a_route_neither_adds_nor_drops(name: str, spell: type[str]) -> None:
    with pytest.raises(ValueError, match="; take it out"):
        check_field_name(spell(name))


@pytest.mark.parametrize("name", ["X-Api-Version", "x", "Accept", "Content-Type", "Origin", "Sec-Fetch-Site"])
def test_others_it_may(name: str) -> None:
    assert check_field_name(name) == name


@pytest.mark.parametrize("name", ["", "X Y", "X:", "X\r\nY", "caf\u00e9", "X\n"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="has a name in it that is no field's; write it like"):
        check_field_name(name)


@pytest.mark.parametrize("value", ["", " ", " a", "a ", "a\r\nEvil: 1", "a\n", "a\0", "a\tb", "caf\u00e9"])
def test_what_is_no_value(value: str) -> None:
    with pytest.raises(ValueError, match=r"^X is empty or has something other than printable ASCII in it"):
        check_field_value("X", value)


def test_the_token_is_in_one_field_only() -> None:
    with pytest.raises(ValueError, match="which is for credential alone"):
        check_field_value("X", "Bearer {token}")
