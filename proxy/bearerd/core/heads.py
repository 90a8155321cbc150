"""The head of a response as it stands on the wire (RFC 9112 sections 2.2, 4 and 5): what a lenient parser reads otherwise.

aiohttp's parser, outside of debug mode, takes folded lines, lines that end in a bare LF, white space before a
field and, in some fields, before the colon.
"""

import re
from typing import Final

from bearerd.core.headers import DROPPED, REWRITTEN

HEAD_LIMIT: Final = 64 << 10
_END: Final = b"\r\n\r\n"
_TEXT: Final = rb"[\x01-\x09\x0b\x0c\x0e-\xff]*+"  # not NUL, CR, LF; said in this way it is quicker
# Possessive, for there is one way only to read a line: what does not match is known at once.
_HEAD: Final = re.compile(
    rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: %b)?\r\n(?:[!#$%%&'*+.^_`|~0-9A-Za-z-]++:%b\r\n)*+\r\n"
    % (_TEXT, _TEXT)
)
_SPECIAL: Final = b"|".join(sorted(DROPPED | REWRITTEN | {b"content-length"}))
# Atomic, and not possessive, which is the same: with a look ahead in it, such a group matches nothing in Python 3.11.2.
_LINES: Final = rb"(?>(?:(?!(?i:(?:%b):|access-control-))[!#$%%&'*+.^_`|~0-9A-Za-z-]++:%b\r\n)*)" % (
    _SPECIAL,
    _TEXT,
)
_LASTING: Final = rb"((?i:connection:[ \t]*+keep-alive)[ \t]*+\r\n)?"
_PLAIN: Final = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2}) %b\r\n%b%b%b(?i:content-length):[ \t]*+([0-9]{1,9})[ \t]*+\r\n%b%b%b\r\n"
    % (_TEXT, _LINES, _LASTING, _LINES, _LINES, _LASTING, _LINES)
)
_BODILESS: Final = frozenset({b"204", b"304"})
_PLAIN_LIMIT: Final = 16 << 10  # bytes of a head; there is a parser for larger ones
_PLAIN_LINES: Final = 64
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


def read_plain(data: bytes) -> tuple[int, bytes] | None:
    """The status of a response, and the response as it can be passed on, where that is beyond doubt.

    Most are like that: `data` is all of one response to a request other than HEAD, its length is given, after it the
    connection can be used again, and none of its fields is to be dropped or rewritten, but for ``Connection:
    keep-alive``. None for anything else: a parser is to look at it.
    """
    head = _PLAIN.match(data)
    if head is None or len(data) - head.end() != int(head[3]) or head[1] in _BODILESS:
        return None
    if head.end() > _PLAIN_LIMIT or data.count(b"\n", 0, head.end()) > _PLAIN_LINES:
        return None
    if head[2] is not None and head[4] is not None:
        return None
    start, end = head.span(2 if head[2] is not None else 4)
    return int(head[1]), data if end < 0 else data[:start] + data[end:]


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
