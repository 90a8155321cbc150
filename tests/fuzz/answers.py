"""Heads of an upstream's answers: the short way and the one through the parser come to the same."""

from typing import Final

from bearerd.core.fields import Fields
from bearerd.core.heads import HeadCheck, find_final, read_plain

SMALL: Final = 7  # bytes of a piece


def fuzz(data: bytes) -> None:
    good, complete = in_pieces(data, len(data) or 1)
    if len(data) < 4096:
        assert (good, complete) == in_pieces(data, SMALL)
    check_final(data, good=good, complete=complete)
    plain = read_plain(data)
    if plain is not None:
        status, passed = plain
        assert good
        assert complete
        check_plain(status, passed, data)


def in_pieces(data: bytes, size: int) -> tuple[bool, bool]:
    """Whether the head is good so far, and whether it is all there."""
    check = HeadCheck()
    for start in range(0, len(data), size):
        if not check.feed(data[start : start + size]):
            return False, False
        if check.complete:
            break
    return True, check.complete


def check_final(data: bytes, *, good: bool, complete: bool) -> None:
    try:
        final = find_final(data)
    except ValueError:
        return
    assert final is None or (good and complete)


def check_plain(status: int, passed: bytes, data: bytes) -> None:
    """It is what came but for one line, and has nothing that is about the connection."""
    assert 200 <= status <= 599
    assert len(passed) <= len(data)
    head, _, body = passed.partition(b"\r\n\r\n")
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    fields = Fields(tuple((name, value.strip()) for name, _, value in lines))
    assert fields.every(b"content-length") == [b"%d" % len(body)] or int(
        fields.every(b"content-length")[0]
    ) == len(body)
    dropped = {b"connection", b"transfer-encoding", b"location", b"set-cookie", b"alt-svc", b"upgrade"}
    assert dropped.isdisjoint(fields.names.places)
    assert not any(name.startswith(b"access-control-") for name in fields.names.places)
