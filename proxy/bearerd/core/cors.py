"""What a page of an allowed origin gets beside the answers: leave to read them (CORS, https://fetch.spec.whatwg.org).

Who may call is the guard's to say (`guard.refuse`). Without these fields a browser keeps an answer from the page.
"""

import re
from typing import Final

from bearerd.core.fields import RawFields
from bearerd.core.guard import Guard, Head, foreign_origin, is_own

_VARY: Final = (b"Vary", b"Origin")
_MAX_AGE: Final = (
    b"Access-Control-Max-Age",
    b"600",
)  # seconds; a call that is not allowed any more is refused anyway
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_METHOD: Final = re.compile(_TOKEN)
_NAMES: Final = re.compile(rb"%b(?:[ \t]*,[ \t]*%b)*" % (_TOKEN, _TOKEN))
_NEVER: Final = frozenset({b"CONNECT", b"TRACE"})


def grant(guard: Guard, head: Head) -> RawFields:
    """The fields of whatever answers this request. No page of another origin reads what is under ``/-/``.

    Credentials of the browser's are not granted: a page cannot spend cookies that others have left here, nor a key that
    a person has typed into the browser.
    """
    if not (guard.foreign or guard.keyed) or is_own(guard, head.target):
        return ()
    origin = _reader(guard, head)
    if origin is None:
        return (_VARY,)
    return (b"Access-Control-Allow-Origin", origin), (b"Access-Control-Expose-Headers", b"*"), _VARY


def preflight(guard: Guard, head: Head) -> RawFields | None:
    """The fields of the answer, which is 204, to the question whether a call may be made; None for any other request.

    Method and fields are those that it asks for: which of them make sense is for the upstream to say.
    """
    asked = head.get(b"access-control-request-method")
    if head.method != "OPTIONS" or asked is None or _reader(guard, head) is None:
        return None
    names = b", ".join(head.every(b"access-control-request-headers"))
    fields = list(grant(guard, head))
    if _METHOD.fullmatch(asked) and asked not in _NEVER:
        fields.append((b"Access-Control-Allow-Methods", asked))
    if _NAMES.fullmatch(names):
        fields.append((b"Access-Control-Allow-Headers", names))
    if head.get(b"access-control-request-private-network") == b"true":
        fields.append((b"Access-Control-Allow-Private-Network", b"true"))
    return (*fields, _MAX_AGE)


def _reader(guard: Guard, head: Head) -> bytes | None:
    """The origin of another page that may read the answer: any, where calls are made with keys of their own."""
    origin = foreign_origin(guard, head)
    if origin is not None or not guard.keyed:
        return origin
    origins = head.every(b"origin")
    return origins[0] if len(origins) == 1 and origins[0] not in guard.origins else None
