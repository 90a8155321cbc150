"""An account's authorization server: its metadata, logins, revocation. Failures are values."""

from dataclasses import replace
from typing import Final, Literal

import aiohttp

from bearerd.core.accounts import OAuthSource
from bearerd.core.authorization import Transaction
from bearerd.core.device import DeviceAuthorization, parse_device_reply
from bearerd.core.grants import (
    TokenRequest,
    build_code_request,
    build_device_request,
    build_device_token_request,
    build_revocation_request,
    parse_object,
    parse_retry_after,
    parse_token_reply,
    refusal,
)
from bearerd.core.id_tokens import IdTokenError, check_id_token
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.metadata import (
    Metadata,
    MetadataError,
    NoDocument,
    configured,
    override,
    parse_metadata,
    well_known_urls,
)
from bearerd.core.redaction import Secret
from bearerd.core.targets import Way
from bearerd.core.tokens import Granted
from bearerd.oauth.exchange import NoReply, Reply, exchange
from bearerd.ports import Clock

METADATA_S: Final = 10.0
LOGIN_S: Final = 30.0  # a person is waiting
METADATA_AGE_S: Final = 3600.0  # a login looks again after this; refreshes go on with what they know
_NO_METADATA: Final = "the issuer has no metadata; set token_endpoint in its place"
_STILL_GOOD: Final = "what the server issued stays good until it expires"
_NO_DEVICE: Final = Failure(
    FailureKind.PERMANENT,
    "the server has no device authorization endpoint; set device_authorization_endpoint, or log in by a browser",
)


class OAuthServer:
    """To be closed once. `limit_s` bounds each request of a login."""

    def __init__(
        self, source: OAuthSource, clock: Clock, session: aiohttp.ClientSession, *, limit_s: float = LOGIN_S
    ) -> None:
        self.source = source
        self.clock = clock
        self.session = session
        self._limit_s = limit_s
        self._metadata = configured(source)
        self._read_at: float | None = None

    def renew(self, source: OAuthSource) -> None:
        """Ask as `source` says from the next request on. What was found by the same issuer's metadata is still good; the
        next login reads it again.
        """
        self.source = source
        self._metadata = configured(source) or (self._metadata and override(self._metadata, source))
        self._read_at = float("-inf") if source.issuer is not None else None

    async def aclose(self) -> None:
        """Give up connections."""
        await self.session.close()

    async def known(self) -> Metadata | Failure:
        """The endpoints as they were first found: a refresh does not depend on the metadata being there still."""
        return self._metadata or await self.describe()

    async def describe(self) -> Metadata | Failure:
        """The endpoints, read again where what is known is older than an hour. A failure is not remembered."""
        if self._metadata is not None and not self._is_old():
            return self._metadata
        limit_s = min(METADATA_S, self._limit_s)
        found, _ = await discover(
            self.session, self.source.way, self.source.issuer or "", limit_s, self.clock
        )
        if isinstance(found, Failure):
            return found
        self._metadata = override(found, self.source)
        self._read_at = self.clock.steady()
        return self._metadata

    async def redeem(self, code: Secret, transaction: Transaction) -> Granted | Failure:
        """Sent once: a code is good for one request, and whether it arrived cannot be asked."""
        request = build_code_request(self.source, code, transaction)
        granted = await self._ask_token(request, (self.source.client_secret, code, transaction.verifier))
        if not isinstance(granted, Failure):
            return self._named(granted, transaction.nonce)
        if granted.kind is FailureKind.PERMANENT:
            return granted
        return replace(granted, reason=f"{granted.reason}; begin the login again")

    async def authorize_device(self) -> DeviceAuthorization | Failure:
        server = await self.describe()
        if isinstance(server, Failure):
            return server
        if server.device_authorization_endpoint is None:
            return _NO_DEVICE
        request = build_device_request(self.source)
        reply = await self._post(server.device_authorization_endpoint, request)
        if isinstance(reply, NoReply):
            return _unreached("device authorization endpoint", reply)
        now = self.clock.wall()
        return parse_device_reply(
            reply.status,
            reply.body,
            now,
            retry_after_s=parse_retry_after(reply.retry_after, now),
            sent=(self.source.client_secret,),
        )

    async def redeem_device(self, device: DeviceAuthorization) -> Granted | Failure:
        request = build_device_token_request(self.source, device.device_code)
        granted = await self._ask_token(request, (self.source.client_secret, device.device_code))
        return granted if isinstance(granted, Failure) else self._named(granted, None)

    async def revoke(self, token: Secret, kind: Literal["refresh_token", "access_token"]) -> str | None:
        server = await self.known()
        if isinstance(server, Failure):
            return f"{server.reason}: {_STILL_GOOD}"
        if server.revocation_endpoint is None:
            return f"the server has no revocation endpoint: {_STILL_GOOD}"
        problem = await self._revoke(server.revocation_endpoint, token, kind)
        if problem is not None and problem.error == "unsupported_token_type":
            problem = await self._revoke(server.revocation_endpoint, token, None)
        return f"{problem.reason}: {_STILL_GOOD}" if problem else None

    async def _revoke(self, endpoint: str, token: Secret, kind: str | None) -> Failure | None:
        """RFC 7009 section 2.2: 200 is done, also for a token the server does not know any more."""
        reply = await self._post(endpoint, build_revocation_request(self.source, token, kind))
        if isinstance(reply, NoReply):
            return _unreached("revocation endpoint", reply)
        fields = parse_object(reply.body)
        if fields is not None and fields.get("error"):
            sent = (self.source.client_secret, token)
            return refusal(reply.status, fields, sent=sent, endpoint="revocation endpoint")
        if reply.status in {200, 204}:
            return None
        return Failure(FailureKind.TRANSIENT, f"the revocation endpoint answered {reply.status}")

    def _is_old(self) -> bool:
        return self._read_at is not None and self.clock.steady() - self._read_at > METADATA_AGE_S

    def _named(self, granted: Granted, nonce: str | None) -> Granted | Failure:
        """With the name of who has logged in. Where a nonce was sent, an ID token has to answer it."""
        if granted.id_token is None:
            if nonce is None:
                return granted
            reason = "the token endpoint gave no ID token, though the scope openid asks for one"
            return Failure(FailureKind.PERMANENT, reason)
        try:
            subject = check_id_token(
                granted.id_token,
                issuer=self.source.issuer,
                client_id=self.source.client_id,
                nonce=nonce,
                now=self.clock.wall(),
            )
        except IdTokenError as problem:
            return Failure(FailureKind.PERMANENT, str(problem))
        return replace(granted, subject=subject)

    async def _ask_token(self, request: TokenRequest, sent: tuple[Secret | None, ...]) -> Granted | Failure:
        server = await self.known()
        if isinstance(server, Failure):
            return server
        reply = await self._post(server.token_endpoint, request)
        if isinstance(reply, NoReply):
            return _unreached("token endpoint", reply)
        return parse_token_reply(
            reply.status, reply.body, self.clock.wall(), retry_after=reply.retry_after, sent=sent
        )

    async def _post(self, endpoint: str, request: TokenRequest) -> Reply | NoReply:
        body = request.body.reveal().encode("ascii")
        return await exchange(
            self.session, self.source.way, "POST", endpoint, self._limit_s, request.headers, body
        )


async def discover(
    session: aiohttp.ClientSession, way: Way, issuer: str, limit_s: float, clock: Clock
) -> tuple[Metadata | Failure, Reply | NoReply]:
    """The issuer's metadata, at the first well-known place that has any, and what was answered there.

    Each place has `limit_s`. A document that cannot be believed ends the search: such a server is asked nothing more.
    """
    failures: list[tuple[Failure, Reply | NoReply]] = []
    for url in well_known_urls(issuer):
        reply = await exchange(session, way, "GET", url, limit_s, (("Accept", "application/json"),))
        found, final = _parse(issuer, reply, clock.wall())
        if isinstance(found, Metadata) or final:
            return found, reply
        failures.append((found, reply))
    # The last place is asked because the first had none, so what was wrong with the first says more, if anything.
    return next((failed for failed in failures if failed[0].reason != _NO_METADATA), failures[-1])


def _unreached(endpoint: str, reply: NoReply) -> Failure:
    kind = FailureKind.OUTCOME_UNKNOWN if reply.sent else FailureKind.TRANSIENT
    return Failure(kind, f"the {endpoint} {reply.problem}")


def _parse(issuer: str, reply: Reply | NoReply, now: float) -> tuple[Metadata | Failure, bool]:
    """What one well-known place has, and whether to leave it at that."""
    if isinstance(reply, NoReply):
        return Failure(FailureKind.TRANSIENT, f"the issuer {reply.problem}"), not reply.sent
    if reply.status in {404, 410}:
        return Failure(FailureKind.TRANSIENT, _NO_METADATA), False
    if reply.status != 200:
        reason = f"the issuer answered {reply.status} where its metadata should be"
        return Failure(FailureKind.TRANSIENT, reason, parse_retry_after(reply.retry_after, now)), False
    try:
        return parse_metadata(issuer, reply.body), True
    except MetadataError as problem:
        failure = Failure(FailureKind.TRANSIENT, f"the issuer's metadata {problem}")
        return failure, not isinstance(problem, NoDocument)
