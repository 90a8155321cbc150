"""How one generation of tokens follows from the last."""

from dataclasses import replace

import pytest

from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted, TokenSet, build_token_set, import_refresh_token

NOW = 1_000.0
OLD = TokenSet(7, Secret("old"), 100.0, 900.0, Secret("old-refresh"), "a b")


def test_the_first_one() -> None:
    granted = Granted(Secret("new"), 60.0, Secret("refresh"), "a")
    assert build_token_set(granted, None, NOW) == TokenSet(
        1, Secret("new"), 1_000.0, 1_060.0, Secret("refresh"), "a"
    )


def test_a_successor() -> None:
    granted = Granted(Secret("new"), 60.0, Secret("refresh"), "a")
    assert build_token_set(granted, OLD, NOW) == TokenSet(
        8, Secret("new"), 1_000.0, 1_060.0, Secret("refresh"), "a"
    )


@pytest.mark.parametrize("nothing", [None, Secret("")], ids=["left out", "empty"])
def test_a_refresh_token_left_out_stays_the_old_one(nothing: Secret | None) -> None:
    """RFC 6749 section 6."""
    token = build_token_set(Granted(Secret("new"), 60.0, nothing), OLD, NOW)
    assert token.refresh_token == Secret("old-refresh")
    assert build_token_set(Granted(Secret("new"), 60.0), None, NOW).refresh_token is None


@pytest.mark.parametrize(("scope", "kept"), [(None, "a b"), ("", "a b"), ("a", "a"), ("a b c", "a b c")])
def test_a_scope_left_out_stays_and_a_narrower_one_is_recorded(scope: str | None, kept: str) -> None:
    """RFC 6749 section 5.1."""
    assert build_token_set(Granted(Secret("new"), 60.0, None, scope), OLD, NOW).scope == kept


@pytest.mark.parametrize(("subject", "kept"), [(None, "old-user"), ("", "old-user"), ("user", "user")])
def test_who_has_logged_in_stays_over_refreshes(subject: str | None, kept: str) -> None:
    old = replace(OLD, subject="old-user")
    assert build_token_set(Granted(Secret("new"), subject=subject), old, NOW).subject == kept


def test_nothing_else_is_kept_of_the_old_one() -> None:
    token = build_token_set(Granted(Secret("new")), OLD, NOW)
    assert (token.access_token, token.obtained_at, token.generation) == (Secret("new"), NOW, 8)


@pytest.mark.parametrize(
    ("expires_in_s", "lifetime_s"),
    [
        (None, 3_600.0),
        (0.5, 0.5),
        (3_600.0, 3_600.0),
        (366 * 86_400.0, 366 * 86_400.0),
        (366 * 86_400.0 + 1, 366 * 86_400.0),
        (1e300, 366 * 86_400.0),
    ],
    ids=["not said", "half a second", "an hour", "a year", "over a year", "for ever"],
)
def test_lifetimes(expires_in_s: float | None, lifetime_s: float) -> None:
    token = build_token_set(Granted(Secret("new"), expires_in_s), None, NOW)
    assert token.lifetime_s == lifetime_s
    assert token.expires_at == NOW + lifetime_s


def test_an_imported_login_has_expired_and_comes_before_any_token() -> None:
    token = import_refresh_token(Secret("refresh"))
    assert token is not None
    assert token.refresh_token == Secret("refresh")
    assert not token.access_token
    assert token.lifetime_s == token.expires_at == 0.0
    assert build_token_set(Granted(Secret("new")), token, NOW).generation == 1


def test_a_generation_is_beyond_what_was_borrowed_too() -> None:
    assert (
        build_token_set(Granted(Secret("new")), OLD, NOW, above=OLD.generation + 4).generation
        == OLD.generation + 5
    )
    assert build_token_set(Granted(Secret("new")), OLD, NOW, above=1).generation == OLD.generation + 1
