"""Proof Key for Code Exchange (RFC 7636)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.core.pkce import build_challenge, build_verifier
from bearerd.core.redaction import Secret


def test_the_example_of_the_standard() -> None:
    """Appendix B."""
    octets = "7418dfb49799e0254ffa607dd8adbbba16d4254d69d6bff05b58055853848d79"
    verifier = build_verifier(bytes.fromhex(octets))
    assert verifier == Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    assert build_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@given(entropy=st.binary(min_size=32, max_size=32))
def test_a_verifier_and_its_challenge_have_the_form_they_must(entropy: bytes) -> None:
    """Sections 4.1 and 4.2."""
    verifier = build_verifier(entropy)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", verifier.reveal())
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", build_challenge(verifier))
    assert build_challenge(verifier) != verifier.reveal()


@pytest.mark.parametrize("size", [0, 16, 31, 33, 96])
def test_too_little_or_too_much_entropy(size: int) -> None:
    with pytest.raises(ValueError, match="a verifier is made of 32 bytes"):
        build_verifier(bytes(size))
