"""A small OAuth authorization server, for the demo and for tests.

The first half is rules: a `Ledger`, ``now`` and entropy in, a new `Ledger` and a result out.
The second half is HTTP. Instants are epoch seconds.
"""

import base64
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import parse_qsl, unquote_plus

from aiohttp import web

from bearerd.core.accounts import ClientAuth, Grant
from bearerd.core.redaction import Secret
from bearerd.demo.codes import (
    CODE_S,
    AuthorizationRequest,
    BadRequest,
    Code,
    Refusal,
    build_id_claims,
    build_redirect,
    is_answered,
    parse_authorization_request,
)
from bearerd.demo.login_form import answer_page, build_form, build_refusal
from bearerd.demo.signer import Signer

ENTROPY_BYTES: Final = 32
MAX_BODY_BYTES: Final = 16 << 10
MAX_FORM_FIELDS: Final = 64

# ---------------------------------------------------------------- rules


class OAuthError(Exception):
    """A refusal in the words of RFC 6749 section 5.2. The description repeats nothing the client sent."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(f"{code}: {description}")
        self.code = code
        self.description = description


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What is known of an access token. `grant` is None where no refresh token stands behind it."""

    subject: str
    scopes: tuple[str, ...]
    issued_at: float
    expires_at: float
    grant: str | None = None


@dataclass(frozen=True, slots=True)
class RefreshGrant:
    """One login: the only refresh token of it that may still be used, by which client, and until when."""

    subject: str
    scopes: tuple[str, ...]
    refresh_token: Secret
    expires_at: float
    client_id: str = ""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Seconds; whole ones, since `expires_in` is (RFC 6749 appendix A.14). Each refresh token begins anew."""

    access_s: int = 60
    refresh_s: int = 86_400


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything the server remembers: access tokens by their text, grants by their key.

    A refresh token is its grant's key, a dot and a part that changes at each rotation. So a spent one is
    recognised without being remembered, and a grant costs the same memory however often it is rotated.
    """

    access_tokens: Mapping[str, AccessToken] = field(default_factory=dict, repr=False)
    grants: Mapping[str, RefreshGrant] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Issued:
    """What a token request is given."""

    access_token: Secret
    expires_in_s: int
    scopes: tuple[str, ...]
    refresh_token: Secret | None = None


def _derive(entropy: bytes, purpose: str) -> str:
    """Unrelated texts for several purposes from the same entropy. They say what they are, to be known where they are met."""
    return f"demo-{purpose}-{hmac.digest(entropy, purpose.encode(), 'sha256').hex()}"


def _same(left: str, right: str) -> bool:
    """Takes as long for a near miss as for any other. Encoded, since str is compared in ASCII only."""
    return hmac.compare_digest(left.encode(), right.encode())


def _key_of(refresh_token: str) -> str:
    return refresh_token.partition(".")[0]


def drop_expired(ledger: Ledger, now: float) -> Ledger:
    """What is left to remember at `now`."""
    return Ledger(
        {text: token for text, token in ledger.access_tokens.items() if now < token.expires_at},
        {key: grant for key, grant in ledger.grants.items() if now < grant.expires_at},
    )


def begin_grant(
    ledger: Ledger,
    subject: str,
    scopes: tuple[str, ...],
    now: float,
    entropy: bytes,
    lifetimes: Lifetimes,
    client_id: str = "",
) -> tuple[Ledger, Secret]:
    """A new grant and its first refresh token, as a login gives it."""
    key = _derive(entropy, "grant")
    refresh_token = Secret(f"{key}.{_derive(entropy, 'refresh')}")
    grant = RefreshGrant(subject, scopes, refresh_token, now + lifetimes.refresh_s, client_id)
    ledger = drop_expired(ledger, now)
    return replace(ledger, grants={**ledger.grants, key: grant}), refresh_token


def issue(
    ledger: Ledger, subject: str, scopes: tuple[str, ...], now: float, entropy: bytes, lifetimes: Lifetimes
) -> tuple[Ledger, Issued]:
    """An access token for the client itself (RFC 6749 section 4.4)."""
    token = AccessToken(subject, scopes, now, now + lifetimes.access_s)
    return _add_access_token(ledger, token, entropy, lifetimes)


def _add_access_token(
    ledger: Ledger, token: AccessToken, entropy: bytes, lifetimes: Lifetimes
) -> tuple[Ledger, Issued]:
    text = _derive(entropy, "access")
    ledger = drop_expired(ledger, token.issued_at)
    ledger = replace(ledger, access_tokens={**ledger.access_tokens, text: token})
    return ledger, Issued(Secret(text), lifetimes.access_s, token.scopes)


def rotate(
    ledger: Ledger,
    refresh_token: str,
    scopes: tuple[str, ...],
    now: float,
    entropy: bytes,
    lifetimes: Lifetimes,
) -> tuple[Ledger, Issued | OAuthError]:
    """A new pair for `refresh_token`, which is spent by this. A spent one kills its whole grant.

    No `scopes` means all of the grant's; fewer narrow the access token only (RFC 6749 section 6).
    A refusal is returned and not raised, because it may come with a changed ledger.
    """
    key = _key_of(refresh_token)
    grant = ledger.grants.get(key)
    if grant is None or now >= grant.expires_at:
        return ledger, OAuthError("invalid_grant", "the refresh token is unknown, expired or revoked")
    if not _same(refresh_token, grant.refresh_token.reveal()):
        return revoke(ledger, refresh_token), OAuthError(
            "invalid_grant", "the refresh token was spent before; its grant is now revoked"
        )
    if not set(scopes) <= set(grant.scopes):
        return ledger, OAuthError("invalid_scope", "the scope is wider than what was granted")
    token = AccessToken(grant.subject, scopes or grant.scopes, now, now + lifetimes.access_s, key)
    return _renew(ledger, key, token, entropy, lifetimes)


def _renew(
    ledger: Ledger, key: str, token: AccessToken, entropy: bytes, lifetimes: Lifetimes
) -> tuple[Ledger, Issued]:
    successor = Secret(f"{key}.{_derive(entropy, 'refresh')}")
    expires_at = token.issued_at + lifetimes.refresh_s
    grant = replace(ledger.grants[key], refresh_token=successor, expires_at=expires_at)
    ledger, issued = _add_access_token(ledger, token, entropy, lifetimes)
    return replace(ledger, grants={**ledger.grants, key: grant}), replace(issued, refresh_token=successor)


def revoke(ledger: Ledger, token: str) -> Ledger:
    """Without `token`. A refresh token, the live one or a spent one, takes its grant's access tokens along.

    A token nobody knows changes nothing (RFC 7009 section 2.2).
    """
    key = _key_of(token) if _key_of(token) in ledger.grants else None
    return Ledger(
        {
            text: known
            for text, known in ledger.access_tokens.items()
            if text != token and (key is None or known.grant != key)
        },
        {other: grant for other, grant in ledger.grants.items() if other != key},
    )


def introspect(ledger: Ledger, token: str, now: float) -> AccessToken | None:
    """The access token if it is active. A refresh token never is: no API may take one for a bearer token."""
    known = ledger.access_tokens.get(token)
    return known if known is not None and now < known.expires_at else None


# ---------------------------------------------------------------- requests, parsed


def parse_form(content_type: str, body: bytes) -> dict[str, str]:
    """The parameters of a request; those without a value count as left out (RFC 6749 section 3.2).

    Raises OAuthError invalid_request, also where one is repeated.
    """
    if content_type != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "send application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS
        )
    except ValueError:
        raise OAuthError("invalid_request", "the body cannot be read as a form") from None
    if len({name for name, _ in pairs}) < len(pairs):
        raise OAuthError("invalid_request", "a parameter is repeated")
    return {name: value for name, value in pairs if value}


def parse_basic(authorization: str) -> tuple[str, str]:
    """Client id and secret from Basic credentials, each of them form-urlencoded (RFC 6749 section 2.3.1).

    Raises OAuthError invalid_client.
    """
    scheme, _, credentials = authorization.partition(" ")
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True).decode()
        client_id, colon, client_secret = decoded.partition(":")
        if scheme.lower() == "basic" and colon:
            return unquote_plus(client_id, errors="strict"), unquote_plus(client_secret, errors="strict")
    except ValueError:
        pass
    raise OAuthError("invalid_client", "the Authorization header holds no readable Basic credentials")


def parse_client(authorization: str | None, form: Mapping[str, str]) -> tuple[str, str]:
    """Client id and secret, from wherever they are. Raises OAuthError where they are nowhere or twice."""
    if authorization is None:
        return form.get("client_id", ""), form.get("client_secret", "")
    if "client_secret" in form:
        raise OAuthError("invalid_request", "the client authenticates in two ways at once")
    return parse_basic(authorization)


def _required(form: Mapping[str, str], name: str) -> str:
    if name not in form:
        raise OAuthError("invalid_request", f"{name} is missing")
    return form[name]


# ---------------------------------------------------------------- HTTP


class AuthorizationServer:
    """The server's endpoints, and the same answers in-process. `token_requests` counts refused ones too.

    Two clients: one with a secret, for services, and `app_id`, public, for logins of people.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: Secret,
        *,
        lifetimes: Lifetimes | None = None,
        app_id: str = "demo-app",
        scopes: tuple[str, ...] = ("demo:read", "demo:write"),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.issuer = issuer
        self.token_requests = 0
        self._client_id = client_id
        self._client_secret = client_secret
        self._app_id = app_id
        self._codes: dict[str, Code] = {}
        self._signer = Signer()
        self._lifetimes = lifetimes or Lifetimes()
        self._scopes = scopes
        self._clock = clock
        self._ledger = Ledger()

    def build_application(self) -> web.Application:
        """An application to serve at the issuer's address."""
        application = web.Application(middlewares=[_answer_refusals], client_max_size=MAX_BODY_BYTES)
        application.router.add_get("/.well-known/oauth-authorization-server", self._describe)
        application.router.add_get("/.well-known/jwks.json", self._show_keys)
        application.router.add_get("/authorize", self._show_form)
        application.router.add_post("/authorize", self._decide)
        application.router.add_post("/token", self._token)
        application.router.add_post("/introspect", self._introspect)
        application.router.add_post("/revoke", self._revoke)
        return application

    def mint_refresh_token(self, subject: str = "demo-user") -> Secret:
        """The first refresh token of a new grant, for all the server's scopes."""
        self._ledger, refresh_token = begin_grant(
            self._ledger,
            subject,
            self._scopes,
            self._clock(),
            _draw_entropy(),
            self._lifetimes,
            self._client_id,
        )
        return refresh_token

    def introspect(self, token: str) -> AccessToken | None:
        """The access token if it is active now."""
        return introspect(self._ledger, token, self._clock())

    def revoke(self, token: str) -> None:
        self._ledger = revoke(self._ledger, token)

    async def _describe(self, request: web.Request) -> web.Response:
        """RFC 8414 section 2."""
        del request
        methods = [ClientAuth.BASIC, ClientAuth.POST, ClientAuth.NONE]
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "introspection_endpoint": f"{self.issuer}/introspect",
                "revocation_endpoint": f"{self.issuer}/revoke",
                "jwks_uri": f"{self.issuer}/.well-known/jwks.json",
                "scopes_supported": ["openid", *self._scopes],
                "response_types_supported": ["code"],
                "grant_types_supported": list(Grant),
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
                "id_token_signing_alg_values_supported": ["ES256"],
                "token_endpoint_auth_methods_supported": methods,
                "introspection_endpoint_auth_methods_supported": methods[:2],
                "revocation_endpoint_auth_methods_supported": methods,
            }
        )

    async def _show_keys(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"keys": [self._signer.public_key()]})

    async def _show_form(self, request: web.Request) -> web.Response:
        """The login form, or a redirect with an error, or neither where the request is not to be trusted."""
        parameters = dict(request.query)
        try:
            self._parse(parameters)
        except BadRequest as problem:
            return answer_page(build_refusal(str(problem)), 400)
        except Refusal as refusal:
            return self._redirect(parameters, error=refusal.code)
        return answer_page(build_form(parameters), form_action=parameters["redirect_uri"])

    async def _decide(self, request: web.Request) -> web.Response:
        """What the person has decided. What the form carries is checked again: anybody may send one."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        try:
            asked = self._parse(form)
        except BadRequest as problem:
            return answer_page(build_refusal(str(problem)), 400)
        except Refusal as refusal:
            return self._redirect(form, error=refusal.code)
        subject = form.get("name", "").strip()
        if form.get("decision") != "allow" or not subject or len(subject) > 64 or not subject.isprintable():
            return self._redirect(form, error="access_denied")
        code = f"demo-code-{secrets.token_hex(ENTROPY_BYTES)}"
        now = self._clock()
        self._codes = {text: known for text, known in self._codes.items() if now < known.expires_at}
        self._codes[code] = Code(asked, subject, now + CODE_S)
        return self._redirect(form, code=code)

    def _parse(self, parameters: Mapping[str, str]) -> AuthorizationRequest:
        return parse_authorization_request(parameters, self._app_id, ("openid", *self._scopes))

    def _redirect(self, parameters: Mapping[str, str], **answer: str) -> web.Response:
        place = build_redirect(parameters["redirect_uri"], self.issuer, parameters.get("state"), **answer)
        return web.Response(status=303, headers={"Location": place, "Cache-Control": "no-store"})

    async def _token(self, request: web.Request) -> web.Response:
        self.token_requests += 1
        client_id, form = await self._read_form(request)
        scopes = tuple(form.get("scope", "").split())
        match _required(form, "grant_type"):
            case Grant.AUTHORIZATION_CODE:
                return _answer(self._redeem(client_id, form))
            case Grant.CLIENT_CREDENTIALS if client_id == self._client_id:
                issued = self._issue(scopes)
            case Grant.CLIENT_CREDENTIALS:
                raise OAuthError("unauthorized_client", "this client is for people")
            case Grant.REFRESH_TOKEN:
                issued = self._rotate(client_id, _required(form, "refresh_token"), scopes)
            case _:
                raise OAuthError("unsupported_grant_type", "the metadata lists the grants there are")
        return _answer(_token_reply(issued))

    def _redeem(self, client_id: str, form: Mapping[str, str]) -> dict[str, object]:
        """Tokens for a code. One that comes twice ends what it was spent for (RFC 6749 section 4.1.2)."""
        text, now = _required(form, "code"), self._clock()
        code = self._codes.get(text)
        if code is not None and code.grant is not None:
            self.revoke(code.grant)
        if code is None or code.grant is not None or not is_answered(code, form, client_id, now):
            raise OAuthError("invalid_grant", "the code is unknown, spent, expired or not this client's")
        scopes = code.request.scopes
        self._ledger, first = begin_grant(
            self._ledger, code.subject, scopes, now, _draw_entropy(), self._lifetimes, client_id
        )
        self._codes[text] = replace(code, grant=_key_of(first.reveal()))
        reply = _token_reply(self._rotate(client_id, first.reveal(), ()))
        if "openid" in scopes:
            claims = build_id_claims(code, self.issuer, now, self._lifetimes.access_s)
            reply["id_token"] = self._signer.sign(claims)
        return reply

    def _issue(self, scopes: tuple[str, ...]) -> Issued:
        if not set(scopes) <= set(self._scopes):
            raise OAuthError("invalid_scope", "the metadata lists the scopes there are")
        self._ledger, issued = issue(
            self._ledger,
            self._client_id,
            scopes or self._scopes,
            self._clock(),
            _draw_entropy(),
            self._lifetimes,
        )
        return issued

    def _rotate(self, client_id: str, refresh_token: str, scopes: tuple[str, ...]) -> Issued:
        grant = self._ledger.grants.get(_key_of(refresh_token))
        if grant is not None and grant.client_id != client_id:
            raise OAuthError("invalid_grant", "the refresh token is another client's")
        self._ledger, outcome = rotate(
            self._ledger, refresh_token, scopes, self._clock(), _draw_entropy(), self._lifetimes
        )
        if isinstance(outcome, OAuthError):
            raise outcome
        return outcome

    async def _introspect(self, request: web.Request) -> web.Response:
        client_id, form = await self._read_form(request)
        if client_id != self._client_id:
            raise OAuthError("invalid_client", "tokens are introspected by the client with a secret")
        token = self.introspect(_required(form, "token"))
        return _answer({"active": False} if token is None else self._introspection(token))

    def _introspection(self, token: AccessToken) -> dict[str, object]:
        """RFC 7662 section 2.2."""
        return {
            "active": True,
            "client_id": self._client_id,
            "sub": token.subject,
            "scope": " ".join(token.scopes),
            "token_type": "Bearer",
            "iat": int(token.issued_at),
            "exp": int(token.expires_at),
            "iss": self.issuer,
        }

    async def _revoke(self, request: web.Request) -> web.Response:
        _, form = await self._read_form(request)
        self.revoke(_required(form, "token"))
        return _answer({})

    async def _read_form(self, request: web.Request) -> tuple[str, dict[str, str]]:
        """The client and its form. The public client has nothing to prove. Raises OAuthError."""
        form = parse_form(request.content_type, await request.read())
        client_id, client_secret = parse_client(request.headers.get("Authorization"), form)
        if client_id == self._app_id and not client_secret:
            return client_id, form
        right_id = _same(client_id, self._client_id)
        right_secret = _same(client_secret, self._client_secret.reveal())
        if not (right_id and right_secret):
            raise OAuthError("invalid_client", "the client is unknown or its secret is wrong")
        return client_id, form


def _draw_entropy() -> bytes:
    return secrets.token_bytes(ENTROPY_BYTES)


def _token_reply(issued: Issued) -> dict[str, object]:
    """RFC 6749 section 5.1."""
    reply: dict[str, object] = {
        "access_token": issued.access_token.reveal(),
        "token_type": "Bearer",
        "expires_in": issued.expires_in_s,
        "scope": " ".join(issued.scopes),
    }
    if issued.refresh_token is not None:
        reply["refresh_token"] = issued.refresh_token.reveal()
    return reply


def _answer(reply: Mapping[str, object], status: int = 200) -> web.Response:
    return web.json_response(
        reply, status=status, headers={"Cache-Control": "no-store", "Pragma": "no-cache"}
    )


@web.middleware
async def _answer_refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except OAuthError as refusal:
        reply = {"error": refusal.code, "error_description": refusal.description}
        if refusal.code != "invalid_client":
            return _answer(reply, 400)
        response = _answer(reply, 401)
        response.headers["WWW-Authenticate"] = 'Basic realm="bearerd demo", charset="UTF-8"'
        return response
