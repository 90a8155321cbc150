"""What an upstream is told of clients, in the words of RFC 7239, and what it is not."""

import pytest

from bearerd.core.field_rules import Forwarding, build_field_rules
from bearerd.core.forwarded import forwarded_fields


@pytest.mark.parametrize(
    ("peer", "node"), [("127.0.0.1", b"127.0.0.1"), ("::1", b'"[::1]"'), (None, b"unknown"), ("", b"unknown")]
)
def test_the_standard_field(peer: str | None, node: bytes) -> None:
    """An address of IPv6, and a host with a port, are quoted (RFC 7239 sections 4 and 6)."""
    value = b'for=%b;host="localhost:6750";proto=http' % node
    assert forwarded_fields("forwarded", peer, b"localhost:6750") == ((b"Forwarded", value),)


@pytest.mark.parametrize(
    ("peer", "shown"), [("127.0.0.1", b"127.0.0.1"), ("::1", b"::1"), (None, b"unknown")]
)
def test_the_usual_fields(peer: str | None, shown: bytes) -> None:
    assert forwarded_fields("x-forwarded", peer, b"[::1]:6750") == (
        (b"X-Forwarded-For", shown),
        (b"X-Forwarded-Host", b"[::1]:6750"),
        (b"X-Forwarded-Proto", b"http"),
    )


@pytest.mark.parametrize("forwarding", ["none", "pass"])
def test_otherwise_we_say_nothing(forwarding: Forwarding) -> None:
    assert forwarded_fields(forwarding, "127.0.0.1", b"localhost") == ()


@pytest.mark.parametrize("forwarding", ["none", "forwarded", "x-forwarded"])
@pytest.mark.parametrize("name", [b"forwarded", b"x-forwarded-for", b"x_forwarded_for", b"x-forwarded-x"])
def test_the_clients_word_stays_here(forwarding: Forwarding, name: bytes) -> None:
    assert build_field_rules(forwarded=forwarding).drops(name)


def test_unless_it_is_trusted_and_then_in_one_spelling() -> None:
    """Whatever sets these fields before us leaves other spellings alone: those are still the client's."""
    rules = build_field_rules(forwarded="pass", if_absent=True)
    assert rules.own is not None
    for each in (rules, rules.own):
        assert not any(each.drops(name) for name in (b"forwarded", b"x-forwarded-for", b"x-forwarded-x"))
        assert all(each.drops(name) for name in (b"x_forwarded_for", b"x-forwarded_for", b"x_forwarded-for"))
