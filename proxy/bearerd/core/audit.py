"""The line that a call leaves in an audit log: who called, where it went, with which token, what came of it."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from bearerd.core.calls import Entry
from bearerd.core.redaction import Secret, redact_text
from bearerd.core.targets import path_of


def build_line(entry: Entry, now: float) -> bytes:
    """One JSON object in ASCII and a line end. Nothing in a path is a line end or a control character there.

    `now` is the instant at which the call was over, in epoch seconds; it is written as RFC 3339 has it.
    """
    path = redact_text(path_of(entry.head.target).decode("latin-1"))
    return _LINE % (
        datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")[:-6].encode(),
        _text(entry.peer.key),
        _number(entry.peer.uid),
        _text(entry.route),
        _text(entry.account),
        _text(entry.head.method),
        _text(path),
        _number(entry.status),
        _text(entry.problem),
        _text(entry.cut),
        entry.received,
        entry.sent,
        entry.duration_s,
        b"true" if entry.replayed else b"false",
        _text(entry.fingerprint),
        _text(entry.head.request_id),
        _text(entry.head.trace_id),
    )


_LINE: Final = (
    b'{"time": "%bZ", "client": %b, "uid": %b, "route": %b, "account": %b, "method": %b, "path": %b, "status": %b, '
    b'"problem": %b, "cut": %b, "bytes_in": %d, "bytes_out": %d, "duration_s": %.6f, "replayed": %b, "token": %b, '
    b'"request_id": %b, "trace_id": %b}\n'
)


def _text(text: str | None) -> bytes:
    if text is None:
        return b"null"
    if text.isascii() and text.isalnum():
        return b'"%b"' % text.encode()
    return json.dumps(text).replace("\x7f", "\\u007f").encode()


def _number(number: int | None) -> bytes:
    return b"null" if number is None else b"%d" % number


def fingerprint(token: Secret) -> str:
    """Tells tokens apart: 64 bits of SHA-256, so that who has a token finds its calls, and not the other way round."""
    return sha256(token.reveal().encode()).hexdigest()[:16]
