"""The vault format: what opens, and what does not."""

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.core.accounts import CommandSource, Grant, OAuthSource, Source
from bearerd.core.redaction import Secret
from bearerd.core.tokens import TokenSet, Tombstone
from bearerd.core.vault import (
    KEY_ID_BYTES,
    MAGIC,
    Identity,
    OtherKey,
    VaultError,
    build_identity,
    build_key,
    encode_key,
    parse_key,
    seal,
    unseal,
)

KEY = build_key(bytes(range(32)))
OTHER = build_key(bytes(32))
WORK = Identity("work", "0123456789abcdef")
NONCE = b"n" * 12
RAW = bytes(range(224, 256))  # its base64 has both characters in which the alphabets differ
ODD = build_key(RAW)
STANDARD = base64.b64encode(RAW).decode()
TOKEN = TokenSet(7, Secret("access"), 1000.0, 2000.5, Secret("refresh"), "read write")

# Sealed before a login knew who it was of.
OLDER = base64.b64decode(
    "YmVhcmVyZCB2YXVsdAoBpFdD4WQ26lJubm5ubm5ubm5ubm7ceXAM2znFnh9FBTTLcfe5017MXUE7pIKjgavE2YaMiUPtBAh86pE3"
    "DtBhbPCyxV+DS8HZiiZRjacvSsYUXP0WULq8SyWi4SvbYRWNU7VztYLgQB3XwUhhs+0ztvs4LQSkXkojAGxI4ejMhqY8QyTRKUyD"
    "pitBduGPxkQ3/syAK+nNhA5TiIY2sRUfpNYKc7ha/m8BqnG9Pml9kkGbWLbjlT6UPWuRU03a2YQ="
)

TEXTS = st.text(min_size=1).map(Secret)
RECORDS = st.builds(
    TokenSet,
    st.integers(0, 2**63),
    TEXTS,
    st.floats(0, 1e12),
    st.floats(0, 1e12),
    st.none() | TEXTS,
    st.none() | st.text(),
    subject=st.none() | st.text(),
) | st.builds(Tombstone, st.integers(0, 2**63))


@given(record=RECORDS, nonce=st.binary(min_size=12, max_size=12))
def test_what_was_sealed_opens_as_it_was(record: TokenSet | Tombstone, nonce: bytes) -> None:
    assert unseal(seal(record, WORK, KEY, nonce), WORK, KEY) == record


def test_who_has_logged_in_is_kept_and_may_be_missing() -> None:
    named = replace(TOKEN, subject="demo-user")
    assert unseal(seal(named, WORK, KEY, NONCE), WORK, KEY) == named
    assert unseal(OLDER, WORK, KEY) == TOKEN
    assert TOKEN.subject is None


def test_nothing_of_the_tokens_can_be_read_in_it() -> None:
    sealed = seal(TOKEN, WORK, KEY, NONCE)
    assert sealed.startswith(MAGIC)
    assert KEY.id in sealed
    for text in (b"access", b"refresh", b"read write", KEY.raw):
        assert text not in sealed


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_bit_can_be_changed(position: int, bit: int) -> None:
    sealed = bytearray(seal(TOKEN, WORK, KEY, NONCE))
    sealed[position % len(sealed)] ^= 1 << bit
    with pytest.raises(VaultError):
        unseal(bytes(sealed), WORK, KEY)


@given(length=st.integers(0, 10_000))
def test_no_part_of_it_opens(length: int) -> None:
    sealed = seal(TOKEN, WORK, KEY, NONCE)
    with pytest.raises(VaultError):
        unseal(sealed[: length % len(sealed)], WORK, KEY)


@pytest.mark.parametrize(
    "identity", [Identity("work", "0" * 16), Identity("home", WORK.digest), Identity("work\n0", WORK.digest)]
)
def test_it_opens_for_one_account_and_identity_alone(identity: Identity) -> None:
    with pytest.raises(VaultError, match="made for another account"):
        unseal(seal(TOKEN, WORK, KEY, NONCE), identity, KEY)


def test_another_key_is_told_apart_from_damage() -> None:
    with pytest.raises(OtherKey):
        unseal(seal(TOKEN, WORK, KEY, NONCE), WORK, OTHER)


def test_a_later_format_is_named() -> None:
    sealed = bytearray(seal(TOKEN, WORK, KEY, NONCE))
    sealed[len(MAGIC)] = 2
    with pytest.raises(VaultError, match="has format 2, and this version reads format 1"):
        unseal(bytes(sealed), WORK, KEY)


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 4096, b"not a vault", MAGIC, MAGIC + b"\1" + KEY.id + b"short"], ids=repr
)
def test_other_files(data: bytes) -> None:
    with pytest.raises(VaultError, match="is no vault file"):
        unseal(data, WORK, KEY)


def test_a_key_shows_nothing_of_itself() -> None:
    assert KEY.value.reveal() not in repr(KEY)
    assert len(KEY.id) == KEY_ID_BYTES
    assert KEY.id != OTHER.id
    with pytest.raises(ValueError, match="has 31 bytes; a key has 32"):
        build_key(bytes(31))


class TestKeyText:
    @pytest.mark.parametrize(
        "text",
        [
            STANDARD,
            STANDARD.rstrip("="),
            base64.urlsafe_b64encode(RAW).decode(),
            base64.urlsafe_b64encode(RAW).decode().rstrip("="),
            RAW.hex(),
            RAW.hex().upper(),
            f"  {STANDARD}\r\n",
        ],
    )
    def test_each_way_to_write_a_key(self, text: str) -> None:
        assert parse_key(text) == ODD

    def test_the_two_alphabets_differ_in_it(self) -> None:
        assert set(STANDARD) > {"+", "/"}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "a",
            "a password",
            STANDARD[:-4],
            f"{STANDARD}=",
            STANDARD.replace("/", ":"),
            "A" * 63,
            "g" * 64,
            base64.b64encode(RAW[:-1]).decode(),
            base64.b64encode(RAW + b"x").decode(),
            base64.b64encode(RAW * 2).decode(),
            f"{STANDARD[:20]}\n{STANDARD[20:]}",
            "\u00e9" * 43,
            "\u0661" * 64,
        ],
    )
    def test_what_is_no_key(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"^is not a key of 32 bytes in base64; make one with: \S"):
            parse_key(text)

    def test_it_comes_out_in_one_spelling(self) -> None:
        assert encode_key(ODD) == STANDARD


class TestIdentity:
    @pytest.mark.parametrize(
        "other",
        [
            OAuthSource(Grant.REFRESH_TOKEN, "cli", issuer="https://two.test"),
            OAuthSource(Grant.REFRESH_TOKEN, "cli", token_endpoint="https://one.test"),
            OAuthSource(Grant.REFRESH_TOKEN, "cli2", issuer="https://one.test"),
            OAuthSource(Grant.REFRESH_TOKEN, "cli", issuer="https://one.test", resource="https://api.test"),
            CommandSource(("cli",), 1.0),
        ],
        ids=repr,
    )
    def test_another_credential_is_another_identity(self, other: Source) -> None:
        one = OAuthSource(Grant.REFRESH_TOKEN, "cli", issuer="https://one.test")
        assert build_identity("work", one) != build_identity("work", other)

    def test_scopes_and_secrets_belong_to_the_same_credential(self) -> None:
        one = OAuthSource(Grant.REFRESH_TOKEN, "cli", issuer="https://one.test")
        two = OAuthSource(
            Grant.REFRESH_TOKEN, "cli", issuer="https://one.test", scopes=("read",), client_secret=Secret("s")
        )
        assert build_identity("work", one) == build_identity("work", two)

    def test_the_name_of_the_file(self) -> None:
        assert WORK.stem == "work-0123456789abcdef"
