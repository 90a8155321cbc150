"""What an upstream is told of a client's way to us (RFC 7239), where a route wants that."""

from typing import Final

from bearerd.core.field_rules import Forwarding
from bearerd.core.fields import RawFields

_UNKNOWN: Final = "unknown"  # RFC 7239 section 6.2


def forwarded_fields(forwarding: Forwarding, peer: str | None, host: bytes) -> RawFields:
    """The fields about a client at the address `peer`, None for one without, who called us by `host`.

    `host` is one that the guard has let pass: nothing in it has to be escaped. Clients speak http to us, whatever is
    before us.
    """
    if forwarding == "forwarded":
        node = f'"[{peer}]"' if peer and ":" in peer else peer or _UNKNOWN
        return ((b"Forwarded", b'for=%b;host="%b";proto=http' % (node.encode("ascii"), host)),)
    if forwarding == "x-forwarded":
        return (
            (b"X-Forwarded-For", (peer or _UNKNOWN).encode("ascii")),
            (b"X-Forwarded-Host", host),
            (b"X-Forwarded-Proto", b"http"),
        )
    return ()
