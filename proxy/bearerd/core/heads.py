"""The head of a response as it stands on the wire (RFC 9112 sections 2.2, 4 and 5): what a lenient parser reads otherwise.

aiohttp's parser, outside of debug mode, takes folded lines, lines that end in a bare LF, white space before a
field and, in some fields, before the colon.
"""

import re
from typing import Final

from bearerd.core.fields import Fields

HEAD_LIMIT: Final = 64 << 10
_END: Final = b"\r\n\r\n"
_TEXT: Final = rb"[\x01-\x09\x0b\x0c\x0e-\xff]*+"  # not NUL, CR, LF; said in this way it is quicker
# Possessive, for there is one way only to read a line: what does not match is known at once.
_HEAD: Final = re.compile(
    rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: (%b))?\r\n(?:[!#$%%&'*+.^_`|~0-9A-Za-z-]++:%b\r\n)*+\r\n"
    % (_TEXT, _TEXT)
)
_FIELD: Final = re.compile(rb"\r\n([^:\r]+):[ \t]*([^\r]*)")  # in a head that `_HEAD` has matched
_MODERN: Final = b"HTTP/1.1 "
_LENGTH: Final = b"content-length"
_WHOLE_LIMIT: Final = 16 << 10  # of a head that is read here; there is a parser for larger ones
_WHOLE_FIELDS: Final = 64
_ODD: Final = frozenset({b"transfer-encoding", b"upgrade"})
_LASTING: Final = b"keep-alive"
_BODILESS: Final = frozenset({204, 304})
_SPACES: Final = frozenset({b" ", b"\t"})
_TRAILING: Final = (b" \r\n", b"\t\r\n")
_VERSION: Final = b"HTTP/1."
_SWITCHING: Final = b"101"


class HeadCheck:
    """Follows what comes, in any pieces, to the end of the head of a final response; interim ones may precede it."""

    __slots__ = ("_part", "complete")

    def __init__(self) -> None:
        self._part = bytearray()
        self.complete = False

    def feed(self, data: bytes) -> bool:
        """False where the bytes so far are no beginning of good heads; then nothing of them is to be used.

        Once `complete`, no more is to be fed: what follows is the body.
        """
        if not self._part:
            return self._take(data)
        known = max(0, len(self._part) - len(_END) + 1)
        self._part += data
        if self._part.find(_END, known) < 0:
            return len(self._part) <= HEAD_LIMIT
        data = bytes(self._part)
        self._part.clear()
        return self._take(data)

    def _take(self, data: bytes) -> bool:
        start = 0
        while start < len(data):
            head = _HEAD.match(data, start)
            if head is None:
                self._part += data[start:]
                return _END not in self._part and len(self._part) <= HEAD_LIMIT
            if head.end() - start > HEAD_LIMIT:
                return False
            if not head[1].startswith(b"1") or head[1] == _SWITCHING:
                self.complete = True
                return True
            start = head.end()
        return True


def read_whole(data: bytes) -> tuple[int, bytes, Fields, bytes] | None:
    """Status, reason, fields and body, if `data` is beyond doubt the one response to a request other than HEAD,
    after which its connection can be used again. Most are like that.

    None for anything that is incomplete, special or wrong: a parser is to look at it.
    """
    head = _HEAD.match(data)
    if head is None or (end := head.end()) > _WHOLE_LIMIT or not data.startswith(_MODERN):
        return None
    status, reason = int(head[1]), head[2] or b""
    fields = Fields(tuple(_FIELD.findall(data, 0, end - 2)))
    if _only_length(fields) != len(data) - end or not 200 <= status <= 599 or status in _BODILESS:
        return None
    if reason[:1] in _SPACES or any(data.find(space, 0, end) >= 0 for space in _TRAILING):
        return None
    return status, reason, fields, data[end:]


def _only_length(fields: Fields) -> int | None:
    """What a Content-Length says that is the only word on how the body ends, and that nothing else follows it."""
    places = fields.names.places
    lengths = places.get(_LENGTH)
    if lengths is None or len(lengths) > 1 or len(fields.values) > _WHOLE_FIELDS:
        return None
    if not _ODD.isdisjoint(places) or (b"connection" in places and fields.every(b"connection") != [_LASTING]):
        return None
    length = fields.values[lengths[0]]
    return int(length) if length.isdigit() and len(length) < 10 else None


def find_final(data: bytes) -> tuple[int, bytes] | None:
    """The status of the first final response in `data` and what follows its head; None where that is not complete.

    Raises ValueError where it can become no good head.
    """
    start = 0
    while head := _HEAD.match(data, start):
        start = head.end()
        if not head[1].startswith(b"1"):
            return int(head[1]), data[start:]
    rest = data[start:]
    if _END in rest or len(data) > HEAD_LIMIT or not rest.startswith(_VERSION[: len(rest)]):
        raise ValueError("no head of a response")
    return None
