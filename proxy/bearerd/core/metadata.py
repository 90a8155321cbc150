"""Authorization server metadata: where to find it and what of it to believe (RFC 8414, OIDC Discovery)."""

import json
import re
from dataclasses import dataclass
from typing import Final

from bearerd.core.targets import parse_origin

_QUERY: Final = re.compile(r"[A-Za-z0-9._~%=&+/:@,-]*")  # no more of RFC 3986 than endpoints are seen to have


@dataclass(frozen=True, slots=True)
class Metadata:
    """The endpoints of an issuer the user configured; each passed `check_endpoint`."""

    issuer: str | None
    token_endpoint: str
    authorization_endpoint: str | None = None
    device_authorization_endpoint: str | None = None
    revocation_endpoint: str | None = None
    iss_required: bool = False  # the server says that its callbacks name it (RFC 9207)
    pkce: bool = True  # False where the server lists its methods and S256 is none of them


class MetadataError(ValueError):
    """The document cannot be used. The text says why and holds nothing of it."""


def check_endpoint(url: str) -> str:
    """`url` itself, fit to be sent credentials: https, or http to this machine; no user name, no fragment.

    It may have a query (RFC 6749 section 3.2). Raises ValueError with the problem and its cure.
    """
    place, _, query = url.partition("?")
    if not _QUERY.fullmatch(query):
        raise ValueError("has a character in its query that does not belong there; percent-encode it")
    origin, _ = parse_origin(place)
    if origin.scheme != "https" and not origin.loopback:
        raise ValueError("is plain http to another machine, which would show the secret; use https")
    return url


def well_known_urls(issuer: str) -> tuple[str, ...]:
    """Where an issuer's metadata may be, in the order to try (OIDC Discovery section 4, RFC 8414 section 3.1)."""
    origin, path = parse_origin(issuer)
    path = path.rstrip("/")
    return (
        f"{origin}{path}/.well-known/openid-configuration",
        f"{origin}/.well-known/oauth-authorization-server{path}",
    )


def parse_metadata(issuer: str, body: bytes) -> Metadata:
    """Check a metadata document. Its `issuer` must be the configured one, byte for byte (RFC 8414 3.3)."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise MetadataError("is no JSON object")
    if document.get("issuer") != issuer:
        raise MetadataError(
            "names another issuer than the configured one; write the issuer exactly as it does"
        )
    endpoint = document.get("token_endpoint")
    if not isinstance(endpoint, str):
        raise MetadataError("has no token_endpoint; set token_endpoint in place of issuer")
    try:
        return Metadata(issuer, check_endpoint(endpoint))
    except ValueError as problem:
        raise MetadataError(f"has a token_endpoint that {problem}") from None
