"""Threat 17: a form's token is good with its cookie and its process only."""

import pytest

from bearerd.core.csrf import build_token, is_token

KEY = b"k" * 32
TOKEN = build_token(KEY, "cookie").reveal()


def test_a_token_goes_with_its_cookie() -> None:
    assert is_token(KEY, "cookie", TOKEN)
    assert TOKEN not in repr(build_token(KEY, "cookie"))


@pytest.mark.threat(17)
@pytest.mark.parametrize(
    ("key", "cookie", "given"),
    [
        (KEY, "another", TOKEN),
        (b"x" * 32, "cookie", TOKEN),
        (KEY, "cookie", TOKEN[:-1]),
        (KEY, "cookie", TOKEN.upper()),
        (KEY, "cookie", "cookie"),
        (KEY, "cookie", "\N{SNOWMAN}"),
        (KEY, "cookie", ""),
        (KEY, "cookie", None),
        (KEY, "", build_token(KEY, "").reveal()),
        (KEY, None, TOKEN),
    ],
)
def test_and_with_nothing_else(key: bytes, cookie: str | None, given: str | None) -> None:
    assert not is_token(key, cookie, given)
