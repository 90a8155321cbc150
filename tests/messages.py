"""HTTP/1 messages taken apart by rules of their own (RFC 9112), so that no parser under test is its own judge."""

import asyncio
from dataclasses import dataclass
from typing import Final, Literal

Framing = Literal["length", "chunked", "end", "none"]
Fields = tuple[tuple[bytes, bytes], ...]
_BODILESS: Final = frozenset({b"204", b"304"})


@dataclass(frozen=True, slots=True)
class Message:
    """`start` is its first line; `framing` how its end was known; `body` what was framed."""

    start: bytes
    fields: Fields
    framing: Framing
    body: bytes

    def values(self, name: bytes) -> tuple[bytes, ...]:
        """Of every field with this name (lower case), in order."""
        return tuple(value for key, value in self.fields if key.lower() == name)


def parse_request(raw: bytes) -> Message:
    """A whole request."""
    start, fields, body = _split(raw)
    framing = _framing(fields) or "none"
    return Message(start, fields, framing, unchunk(body) if framing == "chunked" else body)


async def read_response(reader: asyncio.StreamReader, method: bytes) -> Message:
    """The answer to a request with `method`. Raises IncompleteReadError where it was cut short."""
    start, fields, _ = _split(await reader.readuntil(b"\r\n\r\n"))
    framing = _framing(fields)
    status = start.split()[1]
    if method == b"HEAD" or status.startswith(b"1") or status in _BODILESS:
        return Message(start, fields, "none", b"")
    if framing == "chunked":
        return Message(start, fields, framing, await _read_chunks(reader))
    if framing == "length":
        size = int({name.lower(): value for name, value in fields}[b"content-length"])
        return Message(start, fields, framing, await reader.readexactly(size))
    return Message(start, fields, "end", await reader.read())


def unchunk(body: bytes) -> bytes:
    """The content of a whole chunked body."""
    content = bytearray()
    while body:
        line, _, body = body.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            break
        content += body[:size]
        body = body[size + 2 :]
    return bytes(content)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    content = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        content += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n"
    return bytes(content)


def _split(raw: bytes) -> tuple[bytes, Fields, bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    start, *lines = head.split(b"\r\n")
    pairs = (line.partition(b":") for line in lines)
    return start, tuple((name, value.strip(b" \t")) for name, _, value in pairs), body


def _framing(fields: Fields) -> Framing | None:
    names = {name.lower() for name, _ in fields}
    if b"transfer-encoding" in names:
        return "chunked"
    return "length" if b"content-length" in names else None
