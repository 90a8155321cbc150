"""Switching a connection to another protocol (RFC 9110 section 7.8): who may ask for it, and which answer is believed."""

from collections.abc import Iterator
from typing import Final

from bearerd.core.fields import Fields
from bearerd.core.guard import Head
from bearerd.core.headers import nominated

WEBSOCKET: Final = frozenset({b"websocket"})
_NO_LENGTH: Final = frozenset({None, b"0"})


def wanted(head: Head, allowed: frozenset[bytes]) -> bytes | None:
    """The value of `Upgrade` for the upstream, or None for a request that goes on as an ordinary call.

    `allowed` protocols are in lower case. What else the client offers, such as `h2c`, is not passed on. Neither is
    anything from a request that could not be answered by 101 or that has a body, which would run into the tunnel.
    """
    if head.method != "GET" or head.version != (1, 1) or head.get(b"upgrade") is None:
        return None
    if b"upgrade" not in nominated(head.headers) or _has_body(head):
        return None
    offered = [protocol for protocol in _protocols(head) if protocol.lower() in allowed]
    return b", ".join(offered) or None


def agreed(fields: Fields, asked: bytes | None) -> bytes | None:
    """The one protocol that a 101 with these fields switches to, if it was `asked` for, else None."""
    said = list(_protocols(fields))
    if asked is None or len(said) != 1 or b"upgrade" not in nominated(fields.headers) or _has_body(fields):
        return None
    return said[0] if said[0].lower() in asked.lower().split(b", ") else None


def _protocols(fields: Fields) -> Iterator[bytes]:
    """Every protocol that Upgrade fields name, as it is written."""
    for value in fields.every(b"upgrade"):
        yield from filter(None, (protocol.strip(b" \t") for protocol in value.split(b",")))


def _has_body(fields: Fields) -> bool:
    return fields.get(b"transfer-encoding") is not None or fields.get(b"content-length") not in _NO_LENGTH
