"""Tokens as the rest of the program passes them around."""

import hashlib
from dataclasses import dataclass
from typing import Final

from bearerd.core.redaction import Secret

DEFAULT_LIFETIME_S: Final = 3600.0
MAX_LIFETIME_S: Final = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Granted:
    """What a token endpoint or another source gave, before it is anybody's token.

    `expires_in_s` is None where the source did not say. `refresh_token` is None where it gave none,
    which leaves the old one in force (RFC 6749 section 6).
    """

    access_token: Secret
    expires_in_s: float | None = None
    refresh_token: Secret | None = None
    scope: str | None = None
    subject: str | None = None
    id_token: Secret | None = None


@dataclass(frozen=True, slots=True)
class TokenSet:
    """One generation of an account's tokens. Instants are epoch seconds by this machine's clock.

    `generation` is its identity: it rises by one with every token stored for the account, and
    "newer" means higher, never later. A set whose access token is empty is a login brought in
    as a bare refresh token; it is expired from the start. `origin` tells by a hash which refresh token that was.
    `subject` is who has logged in, for people to read.
    """

    generation: int
    access_token: Secret
    obtained_at: float
    expires_at: float
    refresh_token: Secret | None = None
    scope: str | None = None
    origin: str | None = None
    subject: str | None = None

    @property
    def lifetime_s(self) -> float:
        return self.expires_at - self.obtained_at


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A login that was given up. It has a generation of its own, so that nothing older comes back."""

    generation: int
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Borrowed:
    """A sibling's access token. The refresh token beside it is the sibling's, which cannot save the pair yet.

    It has a type of its own so that nothing can take it for a record and save it.
    """

    token: TokenSet


NOTHING: Final = TokenSet(0, Secret(""), 0.0, 0.0)
"""What an account has of its own that never had a token: no record, below every generation."""


def build_token_set(granted: Granted, previous: TokenSet | None, now: float, *, above: int = 0) -> TokenSet:
    """The successor of `previous`, received at `now`, of a generation beyond `above` too.

    The lifetime is clamped to a year. What the reply leaves out (refresh token, scope) stays as it was
    (RFC 6749 sections 5.1 and 6).
    """
    lifetime_s = DEFAULT_LIFETIME_S if granted.expires_in_s is None else granted.expires_in_s
    return TokenSet(
        generation=max(previous.generation if previous else 0, above) + 1,
        access_token=granted.access_token,
        obtained_at=now,
        expires_at=now + min(lifetime_s, MAX_LIFETIME_S),
        refresh_token=granted.refresh_token or (previous.refresh_token if previous else None),
        scope=granted.scope or (previous.scope if previous else None),
        origin=previous.origin if previous else None,
        subject=granted.subject or (previous.subject if previous else None),
    )


def origin_of(refresh_token: Secret) -> str:
    """What a login that began with this refresh token is known by."""
    return hashlib.sha256(refresh_token.reveal().encode()).hexdigest()[:16]


def import_refresh_token(
    refresh_token: Secret, stored: TokenSet | Tombstone | None = None
) -> TokenSet | None:
    """The set an account begins with whose configuration has a refresh token, beside what is in the store.

    None where the store has the same login already: its refresh token has been spent since.
    """
    origin = origin_of(refresh_token)
    if stored is not None and stored.origin == origin:
        return None
    generation = stored.generation + 1 if stored else 0
    return TokenSet(generation, Secret(""), 0.0, 0.0, refresh_token=refresh_token, origin=origin)
