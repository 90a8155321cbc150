"""Which fields cross in each direction, byte for byte."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bearerd.core.field_rules import DEFAULT_RULES, Credential, FieldRules, build_field_rules
from bearerd.core.fields import Fields as Indexed
from bearerd.core.headers import (
    LAST_CHUNK,
    RequestHeads,
    build_chunk,
    build_head,
    build_lines,
    cookie,
    count_down,
    field,
    nominated,
    request_headers,
    response_headers,
    response_lines,
)

Fields = tuple[tuple[bytes, bytes], ...]

OURS = (b"Authorization", b"Bearer ours")
HOP_BY_HOP = [
    b"Connection",
    b"Keep-Alive",
    b"Proxy-Connection",
    b"TE",
    b"Trailer",
    b"Transfer-Encoding",
    b"Upgrade",
    b"HTTP2-Settings",
]
OTHERS: Fields = (
    (b"User-Agent", b"curl/8"),
    (b"x-B", b"2"),
    (b"X-a", b""),
    (b"cookie", b"a=1"),
    (b"X-B", b"caf\xe9 \xff\x80"),
    (b"Cookie", b"b=2"),
    (b"Accept", b"*/*"),
    (b"accept", b"text/html, a;q=0.5"),
    (b"X_Under", b"_"),
    (b"Via", b"1.0 fred"),
    (b"X-Api-Key", b"k"),
    (b"X-Forwarded", b"not one of the family"),
)


def send(
    *headers: tuple[bytes, bytes],
    framing: tuple[bytes, bytes] | None = None,
    cookies: bool = True,
    upgrade: bytes | None = None,
    forwarded: Fields = (),
    rules: FieldRules = DEFAULT_RULES,
) -> list[tuple[bytes, bytes]]:
    return request_headers(
        headers,
        authority=b"api.test",
        via=b"1.1 us",
        framing=framing,
        token=b"ours",
        cookies=cookies,
        upgrade=upgrade,
        forwarded=forwarded,
        rules=rules,
    )


def receive(*headers: tuple[bytes, bytes], chunked: bool = False) -> list[tuple[bytes, bytes]]:
    """What goes to the client, by a route that rewrites nothing."""
    return response_headers(headers, chunked=chunked, rewrite=lambda _, value: value)


def passed(*headers: tuple[bytes, bytes], cookies: bool = True) -> list[tuple[bytes, bytes]]:
    """What of the client's own fields goes upstream."""
    sent = send(*headers, cookies=cookies)
    assert sent[0] == (b"Host", b"api.test")
    assert sent[-2:] == [(b"Via", b"1.1 us"), OURS]
    return sent[1:-2]


def test_order_case_repeats_and_bytes_of_the_rest_are_kept() -> None:
    assert passed(*OTHERS) == list(OTHERS)


def test_the_framing_is_ours() -> None:
    sent = send((b"Content-Length", b"5"), (b"X", b"1"), framing=(b"Transfer-Encoding", b"chunked"))
    assert sent == [
        (b"Host", b"api.test"),
        (b"X", b"1"),
        (b"Via", b"1.1 us"),
        (b"Transfer-Encoding", b"chunked"),
        OURS,
    ]


@pytest.mark.parametrize(
    "name",
    [
        *HOP_BY_HOP,
        b"Authorization",
        b"Proxy-Authorization",
        b"Proxy_Authorization",
        b"PROXY_AUTHORIZATION",
        b"Host",
        b"Content-Length",
        b"Content_Length",
        b"Transfer_Encoding",
        b"Expect",
        b"Forwarded",
        b"X-Forwarded-For",
        b"X-Forwarded-Host",
        b"X-Forwarded-Proto",
        b"X-Forwarded-User",
        b"X_Forwarded_User",
        b"X-Forwarded_For",
    ],
)
@pytest.mark.parametrize("spell", [bytes, bytes.lower, bytes.upper, bytes.swapcase])
def test_dropped_from_a_request(name: bytes, spell: type[bytes]) -> None:
    """In every case, and with underscores, which CGI-like frameworks read as hyphens (CVE-2025-64484)."""
    assert passed((b"A", b"1"), (spell(name), b"x"), (spell(name), b"y"), (b"B", b"2")) == [
        (b"A", b"1"),
        (b"B", b"2"),
    ]


@pytest.mark.threat(8)
@pytest.mark.parametrize(
    "connection",
    [
        ((b"Connection", b"close, X-Hop"),),
        ((b"connection", b"x-hop"),),
        ((b"CONNECTION", b"X-HOP"),),
        ((b"Connection", b" ,close ,\tx-HoP\t, "),),
        ((b"Connection", b"close"), (b"Connection", b"x-hop")),
    ],
    ids=["listed", "lower", "upper", "white space", "two fields"],
)
def test_what_connection_names_is_dropped(connection: Fields) -> None:
    fields = ((b"X-Hop", b"1"), *connection, (b"x-hop", b"2"), (b"X-Hope", b"3"))
    assert passed(*fields) == [(b"X-Hope", b"3")]
    assert receive(*fields) == [(b"X-Hope", b"3")]


@pytest.mark.parametrize(
    "option", [b"close, AuThOrIzAtIoN", b"Host, Via, Authorization", b"authorization, proxy-authorization"]
)
def test_connection_cannot_take_ours_away(option: bytes) -> None:
    """CVE-2024-45410: what is nominated goes before ours is set."""
    assert passed((b"Connection", option), (b"Authorization", b"Bearer dummy"), (b"A", b"1")) == [
        (b"A", b"1")
    ]


@pytest.mark.threat(8)
@pytest.mark.parametrize(
    "fields",
    [
        ((b"Authorization", b"Bearer dummy"),),
        ((b"Authorization", b"Bearer dummy"), (b"authorization", b"Basic eDp5")),
        ((b"AUTHORIZATION", b""), (b"aUTHORIZATION", b"x")),
    ],
    ids=["one", "two", "empty"],
)
def test_the_clients_authorization_is_replaced(fields: Fields) -> None:
    assert passed(*fields) == []


def test_nominated() -> None:
    fields = ((b"CONNECTION", b"Close, , X-A"), (b"X-Connection", b"X-B"), (b"connection", b"TE"))
    assert nominated(fields) - {b""} == {b"close", b"x-a", b"te"}


NAMES = st.one_of(
    st.sampled_from(
        [
            *HOP_BY_HOP,
            b"Authorization",
            b"Proxy-Authorization",
            b"Host",
            b"Content-Length",
            b"X-Forwarded-For",
            b"X-Hop",
            b"Cookie",
        ]
    ),
    st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True),
)
SPELLINGS = st.sampled_from(
    [bytes, bytes.upper, bytes.lower, bytes.swapcase, bytes.title, lambda name: name.replace(b"-", b"_")]
)
VALUES = st.one_of(
    st.lists(NAMES, max_size=3).map(b", ".join),
    st.binary(max_size=12).map(lambda value: value.translate(None, b"\r\n\0")),
)
HEADERS = st.lists(
    st.tuples(st.builds(lambda spell, name: spell(name), SPELLINGS, NAMES), VALUES), max_size=12
)


def canonical(name: bytes) -> bytes:
    return name.lower().replace(b"_", b"-")


@pytest.mark.threat(8)
@given(HEADERS)
@settings(max_examples=200, deadline=None)
def test_whatever_the_client_sends(headers: list[tuple[bytes, bytes]]) -> None:
    """One authorization leaves, ours and last; one Host; nothing of this hop; the rest is the client's, in order."""
    sent = send(*headers, framing=(b"Content-Length", b"3"))
    names = [canonical(name) for name, _ in sent]
    assert sent[-1] == OURS
    assert names.count(b"authorization") == 1
    assert b"proxy-authorization" not in names
    assert names.count(b"host") == names.count(b"content-length") == 1
    assert not {canonical(name) for name in HOP_BY_HOP} & set(names)
    rest = iter(headers)
    assert all(pair in rest for pair in sent[1:-3]), "a field was changed, added or moved"


@given(HEADERS)
@settings(max_examples=100, deadline=None)
def test_a_field_nobody_named_always_passes(headers: list[tuple[bytes, bytes]]) -> None:
    pair = (b"X-Kept-1", b"\xe9")
    assert pair in send(*headers, pair)
    assert pair in receive(*headers, pair, chunked=True)


class TestResponse:
    def test_order_case_and_repeats_are_kept(self) -> None:
        fields = (
            (b"set-cookie", b"a=1; Path=/"),
            (b"Date", b"x"),
            (b"Set-Cookie", b"b=2"),
            (b"Content-Length", b"5"),
            (b"Server", b"n\xe9ginx"),
            (b"WWW-Authenticate", b"Bearer"),
            (b"set-cookie", b"a=1; Path=/"),
        )
        assert receive(*fields) == list(fields)

    @pytest.mark.threat(3)
    @pytest.mark.parametrize(
        "name",
        [
            *HOP_BY_HOP,
            b"Alt-Svc",
            b"Proxy-Authenticate",
            b"Access-Control-Allow-Origin",
            b"Access-Control-Allow-Credentials",
            b"Access-Control-Allow-Private-Network",
            b"Access-Control-Expose-Headers",
        ],
    )
    @pytest.mark.parametrize("spell", [bytes, bytes.lower, bytes.upper])
    def test_dropped(self, name: bytes, spell: type[bytes]) -> None:
        fields = ((b"A", b"1"), (spell(name), b"x"), (b"B", b"2"), (spell(name), b"y"))
        assert receive(*fields) == [(b"A", b"1"), (b"B", b"2")]

    def test_no_length_beside_chunks(self) -> None:
        fields = ((b"Content-Length", b"5"), (b"A", b"1"), (b"content-LENGTH", b"5"))
        assert receive(*fields, chunked=True) == [(b"A", b"1")]
        assert receive(*fields) == list(fields)

    def test_some_are_rewritten_where_they_stand(self) -> None:
        def rewrite(name: bytes, value: bytes) -> bytes | None:
            return None if value == b"gone" else name + b" was " + value

        fields = (
            (b"Location", b"1"),
            (b"A", b"gone"),
            (b"SET-Cookie", b"2"),
            (b"set-cookie", b"gone"),
            (b"content-Location", b"3"),
            (b"Locations", b"4"),
        )
        assert response_headers(fields, chunked=False, rewrite=rewrite) == [
            (b"Location", b"location was 1"),
            (b"A", b"gone"),
            (b"SET-Cookie", b"set-cookie was 2"),
            (b"content-Location", b"content-location was 3"),
            (b"Locations", b"4"),
        ]

    def test_what_connection_names_is_not_rewritten_either(self) -> None:
        fields = ((b"Connection", b"location"), (b"Location", b"/"), (b"B", b"2"))
        assert receive(*fields) == [(b"B", b"2")]


class TestField:
    def test_the_first_of_several_in_any_case(self) -> None:
        fields = ((b"B", b"0"), (b"aCCept", b"1"), (b"Accept", b"2"))
        assert field(fields, b"accept") == b"1"

    def test_an_empty_value_is_a_value(self) -> None:
        assert field(((b"A", b""),), b"a") == b""

    def test_none(self) -> None:
        assert field(((b"Accept-X", b"1"),), b"accept") is None


class TestWire:
    def test_head(self) -> None:
        head = build_head(b"GET /%41 HTTP/1.1", [(b"a", b"\xe9"), (b"A", b"")])
        assert head == b"GET /%41 HTTP/1.1\r\na: \xe9\r\nA: \r\n\r\n"

    def test_head_without_fields(self) -> None:
        assert build_head(b"GET / HTTP/1.1", []) == b"GET / HTTP/1.1\r\n\r\n"

    @pytest.mark.parametrize(
        ("size", "line"), [(1, b"1"), (9, b"9"), (10, b"a"), (255, b"ff"), (65536, b"10000")]
    )
    def test_chunk(self, size: int, line: bytes) -> None:
        assert build_chunk(b"\r" * size) == line + b"\r\n" + b"\r" * size + b"\r\n"

    def test_last_chunk(self) -> None:
        assert LAST_CHUNK == b"0\r\n\r\n"


@pytest.mark.threat(13)
@pytest.mark.parametrize(
    ("value", "left"),
    [
        (b"a=1; b=2", b"a=1; b=2"),
        (b"bearerd_csrf=x", None),
        (b"bearerd_csrf=x; a=1", b"a=1"),
        (b"a=1; bearerd_csrf=x", b"a=1"),
        (b"a=1;bearerd_login_00=x;b=2", b"a=1;b=2"),
        (b"a=1 ;  b=2;\tbearerd_x=y; c", b"a=1 ;  b=2; c"),
        (b"bearerd_a=1;  bearerd_b=2;", None),
        (b'a="bearerd_x=1"; Bearerd_x=1', b'a="bearerd_x=1"; Bearerd_x=1'),
        (b"a=caf\xe9; bearerd_x=\xff", b"a=caf\xe9"),
        (b"", b""),
    ],
)
def test_our_own_cookies_stay_here(value: bytes, left: bytes | None) -> None:
    """What is left of the field is as it was, and nothing is left of one that had no others."""
    for name in (b"Cookie", b"cookie", b"COOKIE"):
        assert passed((name, value)) == ([] if left is None else [(name, left)])


def test_other_fields_may_say_bearerd() -> None:
    fields = ((b"X-Note", b"bearerd_csrf=x"), (b"Cookie2", b"bearerd_csrf=x"))
    assert passed(*fields) == list(fields)
    assert passed((b"Connection", b"cookie"), (b"Cookie", b"a=1; bearerd_x=1")) == []


def test_a_route_without_cookies() -> None:
    fields = ((b"Cookie", b"a=1"), (b"A", b"1"), (b"COOKIE", b"bearerd_x=1; b=2"), (b"Cookie2", b"c"))
    assert passed(*fields, cookies=False) == [(b"A", b"1"), (b"Cookie2", b"c")]


def test_reading_a_cookie() -> None:
    fields = ((b"X", b"a=0"), (b"cookie", b"xa=1; a=2 ;b"), (b"Cookie", b"a=3; c=\xff"))
    assert cookie(fields, "a") == "2"
    assert cookie(fields, "c") == "\xff"
    assert cookie(fields, "b") is None
    assert cookie(fields, "d") is None


@pytest.mark.parametrize(
    ("given_", "sent"),
    [
        (b"1", b"0"),
        (b"10", b"9"),
        (b"0", b"0"),
        (b"", b""),
        (b"-1", b"-1"),
        (b"1 ", b"1 "),
        (b"9" * 30, b"9" * 30),
    ],
)
def test_max_forwards_counts_down(given_: bytes, sent: bytes) -> None:
    fields = ((b"X", b"5"), (b"MAX-forwards", given_))
    assert count_down(fields) == ((b"X", b"5"), (b"MAX-forwards", sent))


def test_what_asks_for_another_protocol_is_ours() -> None:
    """What the client said of it has been judged, and is for this hop only."""
    fields = ((b"UPGRADE", b"h2c, websocket"), (b"connection", b"upgrade, a"), (b"A", b"1"), (b"B", b"2"))
    sent = send(*fields, framing=(b"Content-Length", b"0"), upgrade=b"websocket")
    assert sent[1:] == [
        (b"B", b"2"),
        (b"Via", b"1.1 us"),
        (b"Content-Length", b"0"),
        (b"Connection", b"Upgrade"),
        (b"Upgrade", b"websocket"),
        OURS,
    ]


RULES = st.sampled_from(
    [
        DEFAULT_RULES,
        build_field_rules(Credential(b"X-Hop", b"100%b ", b" %s")),
        build_field_rules(Credential(b"Authorization", b"Basic ", encoded=(b"me:", b""))),
        build_field_rules(if_absent=True).own,
        build_field_rules(forwarded="pass"),
        build_field_rules(added=[(b"x-a", b"50%"), (b"X-B%b", b"")], dropped=[b"X-Hop"]),
    ]
)


@pytest.mark.threat(8)
@given(
    HEADERS,
    st.booleans(),
    st.sampled_from([None, (b"Content-Length", b"3")]),
    st.sampled_from([None, b"websocket"]),
    st.sampled_from([(), ((b"X-Forwarded-For", b"::1"), (b"X-Forwarded-Proto", b"%b"))]),
    RULES,
)
@example([(b"Connection", b"x-hop"), (b"X-Hop", b"1")], True, None, None, (), DEFAULT_RULES)
@example([(b"Cookie", b"bearerd_csrf=x")], True, None, None, (), DEFAULT_RULES)
@settings(max_examples=300, deadline=None)
def test_what_is_written_by_template_is_the_same(
    headers: list[tuple[bytes, bytes]],
    cookies: bool,
    framing: tuple[bytes, bytes] | None,
    upgrade: bytes | None,
    forwarded: Fields,
    rules: FieldRules,
) -> None:
    heads = RequestHeads(b"api.test", cookies=cookies, rules=rules)
    for _ in range(2):  # one that is new, and one that is known
        head = heads.build(
            b"GET / HTTP/1.1",
            Indexed(tuple(headers)),
            via=b"1.1 us",
            framing=framing,
            token=b"ours" if rules.credential else b"",
            upgrade=upgrade,
            forwarded=forwarded,
        )
        fields = send(
            *headers, framing=framing, cookies=cookies, upgrade=upgrade, forwarded=forwarded, rules=rules
        )
        assert head == build_head(b"GET / HTTP/1.1", fields)


RESPONSE_NAMES = st.sampled_from(
    [b"Location", b"Set-Cookie", b"Access-Control-Max-Age", b"Alt-Svc", b"Content-Length", b"Date", b"X%b"]
)


@given(st.lists(st.tuples(st.one_of(RESPONSE_NAMES, NAMES), VALUES), max_size=8), st.booleans())
@settings(max_examples=300, deadline=None)
def test_so_it_is_with_responses(headers: list[tuple[bytes, bytes]], chunked: bool) -> None:
    def rewrite(name: bytes, value: bytes) -> bytes | None:
        return None if value == b"" else name + value

    kept = response_headers(tuple(headers), chunked=chunked, rewrite=rewrite)
    lines, has_length = response_lines(Indexed(tuple(headers)), chunked=chunked, rewrite=rewrite)
    assert lines == build_lines(kept)
    assert has_length == (field(kept, b"content-length") is not None)
