"""Which fields are dropped, kept and added in each direction, on raw bytes (RFC 9110 section 7.6.1).

Everything not named here passes with its order, its case and its repeats.
"""

from collections.abc import Callable, Iterable
from typing import Final

RawHeaders = Iterable[tuple[bytes, bytes]]
Rewrite = Callable[[bytes, bytes], bytes | None]  # of a field's lower-case name and its value; None drops it

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
# Ours to set, or about the client's way to us: never passed on from a client. Many frameworks read an underscore
# as a hyphen, so every spelling of these goes.
_REQUEST_DROPPED: Final = HOP_BY_HOP | frozenset(
    {
        b"authorization",
        b"proxy-authorization",
        b"host",
        b"content-length",
        b"expect",
        b"forwarded",
    }
)
OWN_COOKIES: Final = b"bearerd_"  # how the names of our pages' cookies begin
_RESPONSE_OWN: Final = frozenset({b"alt-svc", b"proxy-authenticate"})
REWRITTEN: Final = frozenset({b"location", b"content-location", b"set-cookie"})


def nominated(headers: RawHeaders) -> frozenset[bytes]:
    """The names, lower case, that Connection fields declare to be for this hop alone."""
    return frozenset(
        option.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for option in value.split(b",")
    )


def request_headers(
    headers: tuple[tuple[bytes, bytes], ...],
    *,
    authority: bytes,
    via: bytes,
    framing: tuple[bytes, bytes] | None,
    authorization: bytes,
    cookies: bool,
    upgrade: bytes | None = None,
) -> list[tuple[bytes, bytes]]:
    """What goes upstream: Host first, the client's fields, Via, and one Authorization, ours, last.

    `framing` is the Content-Length or Transfer-Encoding of the body as we send it: regenerated, never relayed.
    `cookies` says whether the client's are sent; those of our own pages never are. `upgrade` is what is asked for.
    """
    dropped = nominated(headers) if cookies else nominated(headers) | {b"cookie"}
    kept = [(b"Host", authority)]
    for name, value in headers:
        lower = name.lower()
        if _drops_request_field(lower, dropped):
            continue
        passed = strip_own_cookies(value) if lower == b"cookie" and OWN_COOKIES in value else value
        if passed or not value:
            kept.append((name, passed))
    kept.append((b"Via", via))
    if framing is not None:
        kept.append(framing)
    if upgrade is not None:
        kept += switching_fields(upgrade)
    kept.append((b"Authorization", authorization))
    return kept


def count_down(headers: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    """The fields of an OPTIONS request with one forward less (RFC 9110 section 7.6.2)."""
    return tuple(
        (name, b"%d" % (int(value) - 1) if _counts(name, value) else value) for name, value in headers
    )


def _counts(name: bytes, value: bytes) -> bool:
    return name.lower() == b"max-forwards" and len(value) < 10 and value.isdigit() and int(value) > 0


def switching_fields(protocols: bytes) -> list[tuple[bytes, bytes]]:
    """Those that ask for another protocol or agree to it: hop-by-hop, and so ours (RFC 9110 section 7.8)."""
    return [(b"Connection", b"Upgrade"), (b"Upgrade", protocols)]


def strip_own_cookies(value: bytes) -> bytes:
    """A Cookie field's value without the cookies of our own pages; what is left of it is as it was."""
    pairs = value.split(b";")
    kept = [pair for pair in pairs if not pair.lstrip().startswith(OWN_COOKIES)]
    return value if len(kept) == len(pairs) else b";".join(kept).strip()


def cookie(headers: RawHeaders, name: str) -> str | None:
    """The value of the first cookie called `name` (RFC 6265 section 4.2.1)."""
    start = name.encode() + b"="
    for key, value in headers:
        if key.lower() == b"cookie":
            for pair in value.split(b";"):
                if pair.strip().startswith(start):
                    return pair.strip()[len(start) :].decode("latin-1")
    return None


def _drops_request_field(name: bytes, dropped: frozenset[bytes]) -> bool:
    alias = name.replace(b"_", b"-")
    return name in dropped or alias in _REQUEST_DROPPED or alias.startswith(b"x-forwarded-")


def response_headers(
    headers: tuple[tuple[bytes, bytes], ...], *, chunked: bool, rewrite: Rewrite
) -> list[tuple[bytes, bytes]]:
    """What goes to the client: no hop-by-hop field, no CORS grant, no Alt-Svc; `REWRITTEN` by `rewrite`.

    Content-Length stays where it was, but not beside a chunked body, which overrides it (RFC 9112 section 6.3).
    """
    dropped = HOP_BY_HOP | _RESPONSE_OWN | nominated(headers)
    if chunked:
        dropped |= {b"content-length"}
    kept = []
    for name, value in headers:
        lower = name.lower()
        if lower in dropped or lower.startswith(b"access-control-"):
            continue
        passed = rewrite(lower, value) if lower in REWRITTEN else value
        if passed is not None:
            kept.append((name, passed))
    return kept


def field(headers: RawHeaders, name: bytes) -> bytes | None:
    """The first value of the field called `name` (lower case)."""
    return next((value for key, value in headers if key.lower() == name), None)


def build_head(start_line: bytes, headers: RawHeaders) -> bytes:
    """A message head in wire form (RFC 9112 section 2.1)."""
    lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
    return b"%b\r\n%b\r\n" % (start_line, lines)


def build_chunk(data: bytes) -> bytes:
    """`data`, which must not be empty, as one chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"
