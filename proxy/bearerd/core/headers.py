"""Which fields are dropped, kept and added in each direction, on raw bytes (RFC 9110 section 7.6.1).

Everything not named here passes with its order, its case and its repeats.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from bearerd.core.field_rules import DEFAULT_RULES, HOP_BY_HOP, FieldRules
from bearerd.core.fields import Fields, RawFields, Templates

RawHeaders = Iterable[tuple[bytes, bytes]]
Rewrite = Callable[[bytes, bytes], bytes | None]  # of a field's lower-case name and its value; None drops it

OWN_COOKIES: Final = b"bearerd_"  # how the names of our pages' cookies begin
DROPPED: Final = HOP_BY_HOP | {b"alt-svc", b"proxy-authenticate"}  # of a response; and `_CORS`
_CORS: Final = b"access-control-"
REWRITTEN: Final = frozenset({b"location", b"content-location", b"set-cookie"})


# Values of Connection that name no field which would pass without them.
_HARMLESS: Final = frozenset({b"keep-alive", b"close", b"upgrade", b"te", b""})


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
    token: bytes,
    cookies: bool,
    upgrade: bytes | None = None,
    forwarded: RawFields = (),
    rules: FieldRules = DEFAULT_RULES,
) -> list[tuple[bytes, bytes]]:
    """What goes upstream: Host first, the client's fields, Via, the route's own, and our credential last.

    `framing` is the Content-Length or Transfer-Encoding of the body as we send it: regenerated, never relayed.
    `cookies` says whether the client's are sent; those of our own pages never are. `upgrade` is what is asked for.
    `forwarded` are fields about the client. `rules` say which of the client's fields stay here, and where `token` goes, if it does.
    """
    dropped = nominated(headers) if cookies else nominated(headers) | {b"cookie"}
    kept = [(b"Host", authority)]
    for name, value in headers:
        lower = name.lower()
        if lower in dropped or rules.drops(lower):
            continue
        passed = strip_own_cookies(value) if lower == b"cookie" and OWN_COOKIES in value else value
        if passed or not value:
            kept.append((name, passed))
    kept.append((b"Via", via))
    if framing is not None:
        kept.append(framing)
    if upgrade is not None:
        kept += switching_fields(upgrade)
    kept += forwarded
    kept += rules.added
    if rules.credential is not None:
        kept.append(rules.credential.field(token))
    return kept


class RequestHeads:
    """Writes heads for one upstream as `request_headers` has them, most of them by a template."""

    def __init__(self, authority: bytes, *, cookies: bool, rules: FieldRules = DEFAULT_RULES) -> None:
        self._authority = authority
        self._cookies = cookies
        self._rules = rules
        dropped = frozenset() if cookies else frozenset({b"cookie"})
        self._templates = Templates(lambda name: name in dropped or rules.drops(name))
        credential = rules.credential
        before = after = b""
        self._encode = None
        if credential is not None:
            before, after = b"%b: %b" % (credential.name, credential.before), credential.after + b"\r\n"
            self._encode = None if credential.encoded is None else credential.encode
        self._text = b"%%b\r\nHost: %b\r\n%%bVia: %%b\r\n%%b%b%%b%b\r\n" % (
            _escape(authority),
            _escape(build_lines(rules.added) + before),
            _escape(after),
        )

    def build(
        self,
        start_line: bytes,
        fields: Fields,
        *,
        via: bytes,
        framing: tuple[bytes, bytes] | None,
        token: bytes,
        upgrade: bytes | None = None,
        forwarded: RawFields = (),
    ) -> bytes:
        """The head in wire form. The arguments are those of `request_headers`; `token` is empty where none goes."""
        if upgrade is None and self._is_plain(fields):
            length = b"" if framing is None else b"%b: %b\r\n" % framing
            if forwarded:
                length += build_lines(forwarded)
            carried = token if self._encode is None else self._encode(token)
            return self._text % (start_line, self._templates.fill(fields), via, length, carried)
        headers = request_headers(
            fields.headers,
            authority=self._authority,
            via=via,
            framing=framing,
            token=token,
            cookies=self._cookies,
            upgrade=upgrade,
            forwarded=forwarded,
            rules=self._rules,
        )
        return build_head(start_line, headers)

    def _is_plain(self, fields: Fields) -> bool:
        """Whether the names alone decide what passes."""
        places = fields.names.places
        if b"connection" in places and _nominates(fields):
            return False
        return b"cookie" not in places or not any(OWN_COOKIES in value for value in fields.every(b"cookie"))


def _escape(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")


def _nominates(fields: Fields) -> bool:
    """Whether Connection may name fields that would pass without that."""
    return not _HARMLESS.issuperset([value.lower() for value in fields.every(b"connection")])


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


def response_headers(
    headers: tuple[tuple[bytes, bytes], ...], *, chunked: bool, rewrite: Rewrite
) -> list[tuple[bytes, bytes]]:
    """What goes to the client: no hop-by-hop field, no CORS grant, no Alt-Svc; `REWRITTEN` by `rewrite`.

    Content-Length stays where it was, but not beside a chunked body, which overrides it (RFC 9112 section 6.3).
    """
    dropped = nominated(headers)
    kept = []
    for name, value in headers:
        lower = name.lower()
        if lower in dropped or _drops_response_field(chunked, lower):
            continue
        passed = rewrite(lower, value) if lower in REWRITTEN else value
        if passed is not None:
            kept.append((name, passed))
    return kept


def response_lines(fields: Fields, *, chunked: bool, rewrite: Rewrite) -> tuple[bytes, bool]:
    """`response_headers` in wire form, most of them by a template; and whether a Content-Length is among them."""
    places = fields.names.places
    if REWRITTEN.isdisjoint(places) and (b"connection" not in places or not _nominates(fields)):
        return _ANSWERS[chunked].fill(fields), not chunked and b"content-length" in places
    kept = response_headers(fields.headers, chunked=chunked, rewrite=rewrite)
    return build_lines(kept), field(kept, b"content-length") is not None


def _drops_response_field(chunked: bool, name: bytes) -> bool:  # first, to be bound
    return name in DROPPED or name.startswith(_CORS) or (chunked and name == b"content-length")


_ANSWERS: Final = [Templates(partial(_drops_response_field, chunked)) for chunked in (False, True)]


def field(headers: RawHeaders, name: bytes) -> bytes | None:
    """The first value of the field called `name` (lower case)."""
    return next((value for key, value in headers if key.lower() == name), None)


def build_head(start_line: bytes, headers: RawHeaders) -> bytes:
    """A message head in wire form (RFC 9112 section 2.1)."""
    return b"%b\r\n%b\r\n" % (start_line, build_lines(headers))


def build_lines(headers: RawHeaders) -> bytes:
    """Fields in wire form (RFC 9112 section 5)."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])


def build_chunk(data: bytes) -> bytes:
    """`data`, which must not be empty, as one chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"
