"""Authorization server metadata: where to find it and what of it to believe (RFC 8414, OIDC Discovery)."""

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bearerd.core.accounts import OAuthSource
from bearerd.core.targets import parse_origin

_QUERY: Final = re.compile(r"[A-Za-z0-9._~%=&+/:@,-]*")  # no more of RFC 3986 than endpoints are seen to have
_ADDRESS: Final = re.compile(
    r"[A-Za-z0-9._~%=&+/:@,?\[\]-]+"
)  # nothing that means something to a shell but & and ?
ENDPOINTS: Final = (
    "authorization_endpoint",
    "device_authorization_endpoint",
    "revocation_endpoint",
)


@dataclass(frozen=True, slots=True)
class Offer:
    """What the server lists of what it does. None where it lists nothing, which says nothing (RFC 8414 section 2)."""

    grants: tuple[str, ...] | None = None
    client_auth: tuple[str, ...] | None = None
    scopes: tuple[str, ...] | None = None
    challenges: tuple[str, ...] | None = None
    pushed_only: bool = False  # RFC 9126 section 5


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
    offer: Offer = field(default=Offer(), compare=False)


class MetadataError(ValueError):
    """The document cannot be used. The text says why and holds nothing of it."""


class NoDocument(MetadataError):  # noqa: N818  # the state's own name says more than a suffix
    """What stands there is no metadata at all, so that it may yet be in another place."""


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


def check_browser_url(url: str) -> str:
    """`url` itself, fit to be opened in a browser: what `check_endpoint` asks, and nothing a shell would act on.

    No shell is involved; this is for the one that a desktop's opener may be written in. Raises ValueError.
    """
    check_endpoint(url)
    if not _ADDRESS.fullmatch(url):
        raise ValueError("has a character that does not belong into an address; percent-encode it")
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
        raise NoDocument("is no JSON object")
    if document.get("issuer") != issuer:
        raise MetadataError(
            "names another issuer than the configured one; write the issuer exactly as it does"
        )
    token_endpoint = _endpoint(document, "token_endpoint")
    if token_endpoint is None:
        raise MetadataError("has no token_endpoint; set token_endpoint in place of issuer")
    offer = Offer(
        grants=_listed(document, "grant_types_supported"),
        client_auth=_listed(document, "token_endpoint_auth_methods_supported"),
        scopes=_listed(document, "scopes_supported"),
        challenges=_listed(document, "code_challenge_methods_supported"),
        pushed_only=document.get("require_pushed_authorization_requests") is True,
    )
    return Metadata(
        issuer,
        token_endpoint,
        authorization_endpoint=_endpoint(document, "authorization_endpoint"),
        device_authorization_endpoint=_endpoint(document, "device_authorization_endpoint"),
        revocation_endpoint=_endpoint(document, "revocation_endpoint"),
        iss_required=document.get("authorization_response_iss_parameter_supported") is True,
        pkce=offer.challenges is None or "S256" in offer.challenges,
        offer=offer,
    )


def _listed(document: dict[str, Any], name: str) -> tuple[str, ...] | None:
    values = document.get(name)
    return tuple(str(value) for value in values) if isinstance(values, list) else None


def parse_named_issuer(body: bytes) -> str | None:
    """The issuer that a metadata document names, where that could be configured as one; whatever else is in it."""
    try:
        named = json.loads(body)["issuer"]
        return check_browser_url(named) if "?" not in named else None
    except (ValueError, RecursionError, TypeError, KeyError):
        return None


def _endpoint(document: dict[str, Any], name: str) -> str | None:
    url = document.get(name)
    if not isinstance(url, str):
        return None
    try:
        return check_browser_url(url) if name == "authorization_endpoint" else check_endpoint(url)
    except ValueError as problem:
        article = "an" if name.startswith("a") else "a"
        raise MetadataError(f"has {article} {name} that {problem}") from None


def configured(source: OAuthSource) -> Metadata | None:
    """The endpoints that the configuration names itself, where it names the token endpoint."""
    if source.token_endpoint is None:
        return None
    return Metadata(
        source.issuer,
        source.token_endpoint,
        source.authorization_endpoint,
        source.device_authorization_endpoint,
        source.revocation_endpoint,
    )


def override(metadata: Metadata, source: OAuthSource) -> Metadata:
    """`metadata` of the issuer, with what the configuration says otherwise."""
    named = {name: url for name in ENDPOINTS if (url := getattr(source, name))}
    return replace(metadata, **named)
