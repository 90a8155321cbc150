"""Who is asking: a person with a browser, who is shown a page, or a program, which is not."""

from typing import Final

from bearerd.core.guard import Head

_FETCH: Final = b"sec-fetch-"
_JAVA: Final = (
    b"text/html, image/gif, image/jpeg,"  # what HttpURLConnection says by itself, and means nothing by
)


def wants_page(head: Head) -> bool:
    """True for a browser that goes to an address; every other client gets answers for programs.

    Browsers tell by Fetch Metadata what they are about; without any of it, Accept does.
    """
    if head.method != "GET":
        return False
    if any(name.startswith(_FETCH) for name in head.names.places):
        mode, dest = head.get(b"sec-fetch-mode"), head.get(b"sec-fetch-dest")
        return (mode, dest) == (b"navigate", b"document")
    accept = b",".join(head.every(b"accept"))
    return prefers_html(accept)


def prefers_html(accept: bytes) -> bool:
    """Whether HTML is named, and liked better than JSON is, named or not (RFC 9110 section 12.5.1)."""
    if accept.startswith(_JAVA):
        return False
    ranges = dict(_range(part) for part in accept.split(b",") if part.strip())
    json = max((quality for kind, quality in ranges.items() if _means_json(kind)), default=0.0)
    return ranges.get(b"text/html", 0.0) > json


def _means_json(kind: bytes) -> bool:
    return kind in {b"*/*", b"*", b"application/*", b"application/json"} or kind.endswith(b"+json")


def _range(part: bytes) -> tuple[bytes, float]:
    kind, *parameters = (piece.strip().lower() for piece in part.split(b";"))
    quality = next((text[2:] for text in parameters if text.startswith(b"q=")), b"1")
    try:
        return kind, min(1.0, max(0.0, float(quality)))
    except ValueError:
        return kind, 0.0
