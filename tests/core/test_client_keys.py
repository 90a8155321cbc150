"""Keys of clients: how one is made and written down, where it is looked for, and what is held to be none."""

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.core.client_keys import (
    ClientKey,
    Presented,
    build_document,
    build_key,
    digest_of,
    find_key,
    has_key,
    parse_document,
    take_keys,
)
from bearerd.core.fields import RawFields
from bearerd.core.redaction import MASK, redact_text

pytestmark = pytest.mark.threat(14)
TEXT = build_key(bytes(range(32))).reveal()
KEY = TEXT.encode()
OTHER = build_key(bytes(32)).reveal().encode()
CARRIERS = frozenset({b"x-api-key", b"x-goog-api-key"})
LAPTOP = ClientKey("laptop", digest_of(KEY), 1_700_000_000)
LIMITED = ClientKey(
    "ci",
    digest_of(OTHER),
    1_700_000_001,
    frozenset({"/github", "/"}),
    frozenset({"GET"}),
    frozenset({"work"}),
)
ENTRY: Mapping[str, Any] = {"name": "a", "sha256": "0" * 64, "created_at": 0}


def basic(credentials: bytes) -> bytes:
    return b"Basic " + b64encode(credentials)


def find_presented(headers: RawFields, carriers: frozenset[bytes]) -> list[Presented]:
    return take_keys(headers, carriers)[0]


def strip_keys(headers: RawFields, carriers: frozenset[bytes]) -> RawFields:
    return take_keys(headers, carriers)[1]


class TestText:
    def test_it_is_known_by_its_beginning_and_hides_itself(self) -> None:
        key = build_key(bytes(range(32)))
        assert key.reveal() == "bearerd_" + bytes(range(32)).hex()
        assert str(key) == repr(key) == MASK

    def test_logs_do_not_show_it(self) -> None:
        assert redact_text(f"/v1/{TEXT}/x?a={TEXT}") == f"/v1/bearerd_{MASK}/x?a=bearerd_{MASK}"
        assert redact_text("bearerd_csrf, bearerd_listen__port") == "bearerd_csrf, bearerd_listen__port"

    def test_what_is_found_hides_itself_too(self) -> None:
        assert TEXT not in repr(find_presented(((b"X-Api-Key", KEY),), CARRIERS))


class TestFinding:
    def test_each_is_found_and_nothing_else_is(self) -> None:
        assert find_key((LAPTOP, LIMITED), KEY) is LAPTOP
        assert find_key((LAPTOP, LIMITED), OTHER) is LIMITED
        for text in (
            KEY[:-1],
            KEY + b"0",
            KEY.upper(),
            KEY.swapcase(),
            b"",
            b"bearerd_",
            LAPTOP.digest.hex().encode(),
        ):
            assert find_key((LAPTOP, LIMITED), text) is None
        assert find_key((), KEY) is None

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            (b"Authorization", b"Bearer " + KEY, False),
            (b"authorization", b"bearer   " + KEY + b" ", False),
            (b"AUTHORIZATION", b"BEARER " + KEY, False),
            (b"X-Api-Key", KEY, False),
            (b"x_api_key", b" " + KEY + b" ", False),
            (b"X-Goog-Api-Key", KEY, False),
            (b"Authorization", basic(b"anyone:" + KEY), True),
            (b"Authorization", basic(b":" + KEY), True),
            (b"Authorization", b"basic  " + b64encode(b"x:" + KEY), True),
            (b"Authorization", basic(KEY + b":"), True),
            (b"Authorization", basic(KEY), True),
            (b"Authorization", basic(OTHER + b":" + KEY), True),
        ],
    )
    def test_where_it_may_be(self, name: bytes, value: bytes, *, expected: bool) -> None:
        assert find_presented(((b"Host", b"x"), (name, value)), CARRIERS) == [Presented(KEY, basic=expected)]
        assert strip_keys(((b"Host", b"x"), (name, value)), CARRIERS) == ((b"Host", b"x"),)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            (b"Authorization", b"Bearer sk-dummy"),
            (b"Authorization", b"Bearer x" + KEY),
            (b"Authorization", b"Bearer"),
            (b"Authorization", b""),
            (b"Authorization", KEY),
            (b"Authorization", b"Digest " + KEY),
            (b"Authorization", basic(b"x" + KEY)),
            (b"Authorization", b"Basic " + KEY),
            (b"Authorization", b"Basic =" + b64encode(b"x:" + KEY)),
            (b"Proxy-Authorization", b"Bearer " + KEY),
            (b"X-Api-Key", b"sk-dummy"),
            (b"X-Api-Key", b"Bearer " + KEY),
            (b"X-Api-Keys", KEY),
            (b"Cookie", b"a=" + KEY),
        ],
    )
    def test_what_is_none(self, name: bytes, value: bytes) -> None:
        assert find_presented(((name, value),), CARRIERS) == []

    def test_all_are_found(self) -> None:
        """Nobody gets in by one key and leaves another in the request."""
        headers = ((b"Authorization", basic(b":" + OTHER)), (b"X-Api-Key", KEY), (b"x-api-key", b"none"))
        assert find_presented(headers, CARRIERS) == [
            Presented(OTHER, basic=True),
            Presented(KEY, basic=False),
        ]
        assert strip_keys(headers, CARRIERS) == ((b"x-api-key", b"none"),)

    @given(st.binary(max_size=40))
    def test_no_bytes_are_too_odd(self, value: bytes) -> None:
        for name in (b"Authorization", b"X-Api-Key"):
            for shown in (value, b"Basic " + value, basic(value), b"Bearer " + value):
                find_presented(((name, shown),), CARRIERS)
                strip_keys(((name, shown),), CARRIERS)


class TestStripping:
    @pytest.mark.threat(9)
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            (b"X-Other", KEY),
            (b"Cookie", b"a=b; c=" + KEY + b"; d=e"),
            (b"Authorization", b"Digest " + KEY),
            (b"Sec-WebSocket-Protocol", b"realtime, key." + KEY),
            (b"Referer", b"http://localhost/?key=" + KEY),
        ],
    )
    def test_a_key_stays_here_wherever_it_is(self, name: bytes, value: bytes) -> None:
        assert strip_keys(((name, value), (b"A", b"b")), CARRIERS) == ((b"A", b"b"),)

    def test_one_that_is_none_of_ours_any_more_does_too(self) -> None:
        """What begins as a key is refused; and if it were not, it would stay here."""
        assert strip_keys(((b"X-Api-Key", b"bearerd_x"),), CARRIERS) == ()

    @pytest.mark.parametrize(
        "value", [b"bearerd_csrf=abc", b"Bearer sk-1", b"bearerd_" + b"0" * 63, b"\xff", b""]
    )
    def test_everything_else_passes(self, value: bytes) -> None:
        headers = ((b"Cookie", value), (b"Authorization", value), (b"Authorization", b"Basic \xff"))
        assert strip_keys(headers, CARRIERS) == headers

    def test_a_target_is_searched_too(self) -> None:
        assert has_key(b"/x?key=" + KEY)
        assert has_key(KEY)
        assert not has_key(b"/x?key=bearerd_")
        assert not has_key(b"")


class TestDocument:
    def test_it_comes_back_as_it_was(self) -> None:
        text = build_document((LAPTOP, LIMITED))
        assert parse_document(text) == (LAPTOP, LIMITED)
        assert TEXT not in text
        assert parse_document(build_document(())) == ()

    def test_limits_that_are_none_are_not_written(self) -> None:
        assert json.loads(build_document((LAPTOP,)))["keys"] == [
            {"name": "laptop", "sha256": digest_of(KEY).hex(), "created_at": 1_700_000_000}
        ]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            "null",
            "[" * 100_000,
            "{}",
            '{"format_version": 1}',
            '{"format_version": 2, "keys": []}',
            '{"format_version": 1, "keys": {}}',
            '{"format_version": 1, "keys": [], "more": 1}',
        ],
    )
    def test_another_document_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"^(is|has)"):
            parse_document(text)

    @pytest.mark.parametrize(
        "change",
        [
            {"name": ""},
            {"name": "../a"},
            {"name": "a b"},
            {"name": "a\n"},
            {"name": "a" * 65},
            {"name": 1},
            {"sha256": "0" * 63},
            {"sha256": "A" * 64},
            {"sha256": None},
            {"created_at": -1},
            {"created_at": 1.5},
            {"created_at": True},
            {"created_at": 10**30},
            {"route": ["/"]},
            {"routes": []},
            {"routes": "/"},
            {"routes": [1]},
            {"methods": ["get"]},
            {"methods": ["GET "]},
            {"accounts": None},
        ],
    )
    def test_an_entry_that_is_not_quite_right_is_refused(self, change: dict[str, object]) -> None:
        """A limit that could not be read would be none."""
        assert parse_document(json.dumps({"format_version": 1, "keys": [ENTRY]}))
        with pytest.raises(ValueError, match=r"keys\[1\]"):
            parse_document(
                json.dumps({"format_version": 1, "keys": [{**ENTRY, "name": "b"}, {**ENTRY, **change}]})
            )

    @pytest.mark.parametrize("member", ["name", "sha256", "created_at"])
    def test_so_is_one_that_lacks_something(self, member: str) -> None:
        entry = {key: value for key, value in ENTRY.items() if key != member}
        wrongs: list[object] = [entry, None, []]
        for wrong in wrongs:
            with pytest.raises(ValueError, match=r"keys\[0\]"):
                parse_document(json.dumps({"format_version": 1, "keys": [wrong]}))

    def test_a_name_is_one_keys(self) -> None:
        with pytest.raises(ValueError, match="two keys"):
            parse_document(json.dumps({"format_version": 1, "keys": [ENTRY, {**ENTRY, "sha256": "1" * 64}]}))
