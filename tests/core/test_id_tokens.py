"""ID tokens: whether one answers our login, and what to call the person."""

import json
from base64 import urlsafe_b64encode
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.core.id_tokens import SKEW_S, IdTokenError, check_id_token
from bearerd.core.redaction import Secret

NOW: Final = 1000.0
CLAIMS: Final = {
    "iss": "https://login.test",
    "aud": "cli",
    "exp": NOW + 60,
    "nonce": "n",
    "sub": "user-1",
}


def token(**changes: Any) -> Secret:
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not None}
    return Secret(f"e30.{urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()}.c2ln")


def check(id_token: Secret, issuer: str | None = "https://login.test", nonce: str | None = "n") -> str | None:
    return check_id_token(id_token, issuer=issuer, client_id="cli", nonce=nonce, now=NOW)


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({}, "user-1"),
        ({"name": "Demo User"}, "Demo User"),
        ({"name": "Demo User", "preferred_username": "demo"}, "demo"),
        ({"email": "demo@login.test", "preferred_username": "demo"}, "demo@login.test"),
        ({"email": ""}, "user-1"),
        ({"email": 7}, "user-1"),
        ({"email": "\x1b[31m\r\n"}, "[31m"),
        ({"email": "a\N{RIGHT-TO-LEFT OVERRIDE}b"}, "ab"),
        ({"name": "Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}"}, "Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}"),
        ({"email": "x" * 500}, "x" * 100),
        ({"sub": None}, None),
    ],
)
def test_who_it_is(claims: dict[str, Any], name: str | None) -> None:
    assert check(token(**claims)) == name


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"iss": "https://login.test/"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"aud": "other"}, "another client"),
        ({"aud": ["other"]}, "another client"),
        ({"aud": None}, "another client"),
        ({"exp": NOW - SKEW_S}, "has expired"),
        ({"exp": "later"}, "has expired"),
        ({"exp": None}, "has expired"),
        ({"exp": float("nan")}, "has expired"),
        ({"nonce": "m"}, "another login"),
        ({"nonce": None}, "another login"),
    ],
)
def test_what_is_not_of_this_login(claims: dict[str, Any], said: str) -> None:
    with pytest.raises(IdTokenError, match=said):
        check(token(**claims))


def test_what_is_not_known_is_not_compared() -> None:
    assert check(token(iss="https://any.test", nonce="any", aud=["other", "cli"]), None, None) == "user-1"


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "e30.e30", "..", "e30.bnVsbA.x", f"e30.{'e' * 50_000}.x"])
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(IdTokenError, match="cannot be read"):
        check(Secret(text))


@given(st.text(max_size=200))
def test_whatever_comes_is_checked_or_refused(text: str) -> None:
    with pytest.raises(IdTokenError):
        check(Secret(text))
