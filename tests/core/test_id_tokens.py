"""ID tokens: whether one answers our login, and what it calls the person."""

import base64
import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.core.id_tokens import SKEW_S, IdTokenError, check_id_token
from bearerd.core.redaction import Secret

NOW: Final = 1_000_000.0
GOOD: Final = {
    "iss": "https://login.test",
    "aud": "cli",
    "exp": NOW + 300,
    "nonce": "ours",
    "sub": "canary-1",
}


def encode(payload: bytes) -> str:
    return base64.urlsafe_b64encode(payload).rstrip(b"=").decode()


def token(claims: object) -> Secret:
    return Secret(f"{encode(b'{}')}.{encode(json.dumps(claims).encode())}.{encode(b'sig')}")


def check(
    id_token: Secret, *, issuer: str | None = "https://login.test", nonce: str | None = "ours"
) -> str | None:
    return check_id_token(id_token, issuer=issuer, client_id="cli", nonce=nonce, now=NOW)


def refused(id_token: Secret, why: str, **known: Any) -> None:
    with pytest.raises(IdTokenError, match=why) as caught:
        check(id_token, **known)
    assert "canary" not in str(caught.value)


class TestCheck:
    def test_a_good_one(self) -> None:
        assert check(token(GOOD)) == "canary-1"
        assert check(token(GOOD | {"aud": ["another", "cli"]})) == "canary-1"
        assert check(token(GOOD | {"exp": NOW - SKEW_S + 1})) == "canary-1"

    @pytest.mark.parametrize("nonce", ["canary", "", "Ours", None, 5, ["ours"]])
    def test_threat_7_of_another_login(self, nonce: object) -> None:
        """OIDC Core section 3.1.3.7, item 11."""
        refused(token(GOOD | {"nonce": nonce}), "answers another login")

    def test_threat_7_without_a_nonce(self) -> None:
        refused(
            token({name: value for name, value in GOOD.items() if name != "nonce"}), "answers another login"
        )

    def test_a_device_sends_no_nonce(self) -> None:
        assert check(token(GOOD | {"nonce": None}), nonce=None) == "canary-1"

    @pytest.mark.parametrize("issuer", ["https://login.test/", "https://canary.test", "", None, 5])
    def test_threat_7_of_another_issuer(self, issuer: object) -> None:
        refused(token(GOOD | {"iss": issuer}), "of another issuer")

    def test_an_issuer_that_is_not_known_is_not_compared(self) -> None:
        assert check(token(GOOD | {"iss": "https://any.test"}), issuer=None) == "canary-1"

    @pytest.mark.parametrize("audience", ["canary", "", None, 5, [], ["canary"], {"cli": 1}, [["cli"]]])
    def test_for_another_client(self, audience: object) -> None:
        refused(token(GOOD | {"aud": audience}), "for another client")

    @pytest.mark.parametrize(
        "expiry", [NOW - SKEW_S, 0, -1, None, "2000000", True, float("nan"), float("-inf")]
    )
    def test_out_of_date(self, expiry: object) -> None:
        refused(token(GOOD | {"exp": expiry}), "has expired, or this machine's clock is wrong")

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "canary",
            "a.b",
            "a.b.c.d",
            "..",
            "e30.e30",
            "e30.bnVsbA.x",
            f"e30.{encode(b'[]')}.x",
            f"e30.{encode(b'{')}.x",
            "e30.\u00e9\u00e9.x",
        ],
    )
    def test_unreadable(self, text: str) -> None:
        refused(Secret(text), "cannot be read")

    def test_deep(self) -> None:
        refused(Secret(f"e30.{encode(b'[' * 100_000)}.x"), "cannot be read")

    @given(st.text(max_size=100) | st.binary(max_size=100).map(lambda raw: f"e30.{encode(raw)}.x"))
    def test_whatever_comes_is_refused_in_words(self, text: str) -> None:
        with pytest.raises(IdTokenError):
            check(Secret(text))


class TestLabel:
    @pytest.mark.parametrize(
        ("claims", "shown"),
        [
            ({"sub": "1", "name": "N", "preferred_username": "u", "email": "u@x.test"}, "u@x.test"),
            ({"sub": "1", "name": "N", "preferred_username": "u"}, "u"),
            ({"sub": "1", "name": "N"}, "N"),
            ({"sub": "1"}, "1"),
            ({"sub": "1", "email": ""}, "1"),
            ({"sub": "1", "email": "\u200b\u202e"}, "1"),
            ({"sub": "1", "email": ["u@x.test"]}, "1"),
            ({"sub": 1}, None),
            ({}, None),
            ({"name": "J\u00fcrgen \u5f20\u4e09 \U0001f600"}, "J\u00fcrgen \u5f20\u4e09 \U0001f600"),
            ({"name": "\x1b[2J\u202eevil\u200e\r\n\x00"}, "[2Jevil"),
            ({"name": "\ud800x"}, "x"),
            ({"name": "x" * 500}, "x" * 100),
        ],
    )
    def test_what_people_know_themselves_by(self, claims: dict[str, Any], shown: str | None) -> None:
        assert check(token({name: value for name, value in GOOD.items() if name != "sub"} | claims)) == shown

    @given(st.text())
    def test_whatever_it_is_it_can_be_shown(self, name: str) -> None:
        text = check(token(GOOD | {"name": name}))
        assert text is not None
        assert text.isprintable()
        assert 0 < len(text) <= 100
