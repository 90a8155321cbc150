"""One authorization request and its callback (RFC 6749 section 4.1, RFC 7636, RFC 9207, OIDC Core section 3.1)."""

import hmac
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlencode

from bearerd.core.accounts import OAuthSource
from bearerd.core.metadata import Metadata
from bearerd.core.pkce import build_challenge, build_verifier, encode
from bearerd.core.redaction import Secret, redact_text

LIFETIME_S: Final = 600.0
ENTROPY_BYTES: Final = 96


class CallbackRefused(ValueError):  # noqa: N818  # the state's own name says more than a suffix
    """A callback that ends in no token request. The text is a sentence for people."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """A login that a person has begun. `state` is good for one callback, until `expires_at` (epoch seconds).

    `binding` is known to whoever began it and to nobody else: a browser's cookie, a terminal's connection.
    """

    account: str
    state: Secret
    verifier: Secret
    nonce: str | None = field(repr=False)
    redirect_uri: str
    binding: Secret
    return_to: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Callback:
    """What the server sent by way of the browser: a code, or an error."""

    state: Secret | None = None
    code: Secret | None = None
    iss: str | None = None
    error: str | None = None
    error_description: str | None = None


def build_transaction(
    account: str,
    *,
    redirect_uri: str,
    binding: Secret,
    return_to: str,
    oidc: bool,
    entropy: bytes,
    now: float,
) -> Transaction:
    """A transaction that begins now. `entropy` is 96 random bytes; `oidc` adds a nonce. Raises ValueError."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a transaction is made of {ENTROPY_BYTES} bytes")
    return Transaction(
        account,
        Secret(encode(entropy[:32])),
        build_verifier(entropy[32:64]),
        encode(entropy[64:]) if oidc else None,
        redirect_uri,
        binding,
        return_to,
        now + LIFETIME_S,
    )


def is_bound(transaction: Transaction, binding: Secret | None) -> bool:
    """Whether `binding` is that of whoever began it. Takes as long for a near miss as for any other."""
    given = binding.reveal() if binding else ""
    return hmac.compare_digest(given.encode(), transaction.binding.reveal().encode())


def has_state(transaction: Transaction, state: Secret | None) -> bool:
    """Whether a callback with `state` belongs to it. Takes as long for a near miss as for any other."""
    given = state.reveal() if state else ""
    return hmac.compare_digest(given.encode(), transaction.state.reveal().encode())


# ---------------------------------------------------------------- the request

_RESERVED: Final = frozenset(
    {
        "client_id",
        "code_challenge",
        "code_challenge_method",
        "nonce",
        "redirect_uri",
        "request",
        "request_uri",
        "response_mode",
        "response_type",
        "scope",
        "state",
    }
)


def build_authorization_url(source: OAuthSource, server: Metadata, transaction: Transaction) -> str:
    """What the person's browser opens (RFC 6749 section 4.1.1, RFC 7636 section 4.3, RFC 8707 section 2).

    The endpoint keeps a query of its own (RFC 6749 section 3.1), and `authorization_params` replace nothing of ours.
    Raises ValueError with a sentence for people where the server has no such login.
    """
    if server.authorization_endpoint is None:
        raise ValueError(
            "the server has no authorization endpoint; set authorization_endpoint, or use bearerd login --device"
        )
    if not server.pkce:
        raise ValueError(
            "the server says that it does not do PKCE with S256, without which a login is not safe here"
        )
    parameters = {
        "response_type": "code",
        "client_id": source.client_id,
        "redirect_uri": transaction.redirect_uri,
        "state": transaction.state.reveal(),
        "code_challenge": build_challenge(transaction.verifier),
        "code_challenge_method": "S256",
        "scope": " ".join(source.scopes),
        "nonce": transaction.nonce,
        "resource": source.resource,
        "audience": source.audience,
    }
    further = {name: value for name, value in source.authorization_params if name not in _RESERVED}
    query = urlencode(further | {name: value for name, value in parameters.items() if value})
    place, mark, before = server.authorization_endpoint.partition("?")
    return f"{place}?{before}&{query}" if mark and before else f"{place}?{query}"


# ---------------------------------------------------------------- the callback

QUERY_LIMIT: Final = 8 << 10
VALUE_LIMIT: Final = 4 << 10
_VALUE: Final = re.compile(r"[\x20-\x7e]+")  # RFC 6749 appendix A: VSCHAR
_NOT_PLAIN: Final = re.compile(r"[^\x20-\x7e]")
_NOT_ENCODED: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_PASSING: Final = frozenset(
    {
        "access_denied",
        "consent_required",
        "interaction_required",
        "login_required",
        "server_error",
        "temporarily_unavailable",
    }
)
"""What another attempt may help against (RFC 6749 section 4.1.2.1, OpenID Connect Core section 3.1.2.6)."""
_ODD: Final = "the callback is not one that an authorization server sends; begin the login again"


def parse_callback(query: bytes) -> Callback:
    """The parameters of a callback's query. Those we do not know are passed over (RFC 6749 section 4.1.2).

    Raises CallbackRefused for what is repeated, oversized or no text, and unless there is either a code or an error.
    """
    if len(query) > QUERY_LIMIT or _NOT_ENCODED.search(query):
        raise CallbackRefused(_ODD)
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError:
        raise CallbackRefused(_ODD) from None
    known = [(name, value) for name, value in pairs if name in Callback.__slots__]
    fields = dict(known)
    if len(fields) < len(known):
        raise CallbackRefused(_ODD)
    description = redact_text(_NOT_PLAIN.sub("?", fields.pop("error_description", "")))[:200]
    if not all(len(value) <= VALUE_LIMIT and _VALUE.fullmatch(value) for value in fields.values()):
        raise CallbackRefused(_ODD)
    if ("code" in fields) == ("error" in fields):
        raise CallbackRefused(_ODD)
    secrets = {name: Secret(fields[name]) for name in ("state", "code") if name in fields}
    return Callback(
        **secrets,
        iss=fields.get("iss"),
        error=fields.get("error"),
        error_description=description or None,
    )


def parse_pasted(text: str) -> Callback | Secret:
    """What a person has copied from a browser: the callback's address, its query alone, or a bare code.

    Raises CallbackRefused.
    """
    text = text.strip()
    if not text or not text.isascii() or not text.isprintable() or len(text) > QUERY_LIMIT:
        raise CallbackRefused(
            "this is neither the address of the page the login ended on nor a code; paste one of them"
        )
    _, mark, query = text.partition("?")
    if mark or "=" in text.rstrip("="):
        return parse_callback((query if mark else text).partition("#")[0].encode("ascii"))
    if "://" in text or " " in text:
        raise CallbackRefused("this address has no code in it; paste that of the page the login ended on")
    if len(text) > VALUE_LIMIT:
        raise CallbackRefused("this is too long for a code; paste the address of the page the login ended on")
    return Secret(text)


def check_callback(callback: Callback, transaction: Transaction, server: Metadata, now: float) -> Secret:
    """The code, where `callback` is the answer to `transaction`. Raises CallbackRefused.

    An `iss` has nothing to be compared with where the endpoints are configured in place of an issuer, and is passed over.
    """
    if not has_state(transaction, callback.state):
        raise CallbackRefused("the callback belongs to another login; begin again")
    if now >= transaction.expires_at:
        raise CallbackRefused("the login was begun more than ten minutes ago; begin again")
    if callback.iss is not None and callback.iss != server.issuer and server.issuer is not None:
        raise CallbackRefused(
            "the callback comes from another server than the login was begun with; begin again, and see issuer of the account"
        )
    if callback.iss is None and server.iss_required:
        raise CallbackRefused(
            "the callback does not say which server it comes from, as this one always does; begin again"
        )
    if callback.error is not None:
        said = f": {callback.error_description}" if callback.error_description else ""
        cure = (
            "begin again"
            if callback.error in _PASSING
            else "see client_id, redirect_uri and scopes of the account"
        )
        raise CallbackRefused(f"the server says {callback.error[:64]}{said}; {cure}")
    if callback.code is None:
        raise CallbackRefused(_ODD)
    return callback.code


_LOCAL_PATH: Final = re.compile(r"/(?!/)[\x21\x23-\x5b\x5d-\x7e]*")
_LOGIN_AGAIN: Final = re.compile(r"/-/(?:login|callback)\b")


def parse_return_to(text: str | None) -> str:
    """`text` where it is a path of this daemon's, else the status page: nobody is sent elsewhere after a login.

    Percent-encoding stays as it is: no browser reads ``/%2f`` as the beginning of a host (WHATWG URL). A path that
    would begin another login is none to return to.
    """
    if text is None or len(text) > VALUE_LIMIT or not _LOCAL_PATH.fullmatch(text):
        return "/-/"
    return "/-/" if _LOGIN_AGAIN.search(text.partition("?")[0]) else text
