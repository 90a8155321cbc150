"""Authorization codes of the demo's server (RFC 6749 section 4.1, RFC 7636): rules, as in `authorization_server`."""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode, urlsplit

CODE_S: Final = 60.0
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class BadRequest(Exception):  # noqa: N818  # the state's own name says more than a suffix
    """An authorization request that must not be answered by a redirect (section 4.1.2.1)."""


class Refusal(Exception):  # noqa: N818  # likewise
    """One that is answered by a redirect, with this error code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """What a client asks for, by way of a browser."""

    client_id: str
    redirect_uri: str
    state: str | None = field(repr=False)
    scopes: tuple[str, ...]
    challenge: str
    nonce: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Code:
    """What a code stands for. `grant` is the grant it was spent for, if it was."""

    request: AuthorizationRequest
    subject: str
    expires_at: float
    grant: str | None = None


def check_redirect(parameters: Mapping[str, str], client_id: str) -> str:
    """The redirect URI, if the client is ours and it leads to this machine. Raises BadRequest."""
    if parameters.get("client_id") != client_id:
        raise BadRequest("this client is not known")
    uri = parameters.get("redirect_uri", "")
    try:
        parts = urlsplit(uri)
        here = parts.scheme == "http" and parts.hostname in _LOOPBACK and not parts.fragment
    except ValueError:
        here = False
    if not here or "\\" in uri or not uri.isprintable():
        raise BadRequest("the redirect URI does not lead to this machine")
    return uri


def parse_authorization_request(
    parameters: Mapping[str, str], client_id: str, scopes: tuple[str, ...]
) -> AuthorizationRequest:
    """Raises BadRequest, and Refusal for what the client is told by a redirect."""
    redirect_uri = check_redirect(parameters, client_id)
    if parameters.get("response_type") != "code":
        raise Refusal("unsupported_response_type")
    challenge = parameters.get("code_challenge", "")
    if parameters.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise Refusal("invalid_request")
    asked = tuple(parameters.get("scope", "").split())
    if not set(asked) <= set(scopes):
        raise Refusal("invalid_scope")
    return AuthorizationRequest(
        client_id,
        redirect_uri,
        parameters.get("state"),
        asked or scopes,
        challenge,
        parameters.get("nonce"),
    )


def build_redirect(redirect_uri: str, issuer: str, state: str | None, **answer: str) -> str:
    """Where the browser is sent: `answer`, the state as it came, and who it is from (RFC 9207)."""
    query = urlencode({**answer, **({"state": state} if state else {}), "iss": issuer})
    return f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{query}"


def is_answered(code: Code, form: Mapping[str, str], client_id: str, now: float) -> bool:
    """Whether a token request may have what `code` stands for (section 4.1.3, RFC 7636 section 4.6)."""
    verifier = form.get("code_verifier", "").encode()
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).rstrip(b"=").decode()
    return (
        now < code.expires_at
        and code.request.client_id == client_id
        and code.request.redirect_uri == form.get("redirect_uri")
        and code.request.challenge == challenge
    )


def build_id_claims(code: Code, issuer: str, now: float, lifetime_s: int) -> dict[str, object]:
    """Who has logged in (OIDC Core section 2)."""
    claims: dict[str, object] = {
        "iss": issuer,
        "sub": code.subject,
        "preferred_username": code.subject,
        "aud": code.request.client_id,
        "iat": int(now),
        "exp": int(now) + lifetime_s,
    }
    return claims | ({"nonce": code.request.nonce} if code.request.nonce else {})
