"""Tokens by an OAuth grant that needs no person. Every way in which a peer can fail becomes a `Failure`."""

from typing import Final

from bearerd.core.grants import build_token_request, parse_token_reply
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.tokens import Granted, TokenSet
from bearerd.oauth.exchange import NoReply, exchange
from bearerd.oauth.server import OAuthServer

REPLY_S: Final = 120.0  # a refresh that was sent is waited for: giving it up is a lost rotation
MINT_S: Final = 30.0  # nothing is spent by a grant without a refresh token, so it is given up sooner


class OAuthTokenSource:
    """A token source that asks `server`, and closes it."""

    def __init__(self, server: OAuthServer, *, reply_s: float | None = None) -> None:
        self._server = server
        self._reply_s = reply_s or (REPLY_S if server.source.spends else MINT_S)

    async def obtain(self, current: TokenSet | None) -> Granted | Failure:
        server = await self._server.known()
        if isinstance(server, Failure):
            return server
        source = self._server.source  # as it is now: it may be another by the time of the reply
        refresh_token = current.refresh_token if current else None
        request = build_token_request(source, refresh_token)
        reply = await exchange(
            self._server.session,
            source.way,
            "POST",
            server.token_endpoint,
            self._reply_s,
            headers=request.headers,
            data=request.body.reveal().encode("ascii"),
        )
        if isinstance(reply, NoReply):
            unknown = reply.sent and source.spends
            kind = FailureKind.OUTCOME_UNKNOWN if unknown else FailureKind.TRANSIENT
            return Failure(kind, f"the token endpoint {reply.problem}")
        return parse_token_reply(
            reply.status,
            reply.body,
            self._server.clock.wall(),
            retry_after=reply.retry_after,
            sent=(source.client_secret, refresh_token),
            ended=source.ended_errors,
        )

    def changed(self) -> bool:
        return False

    async def aclose(self) -> None:
        await self._server.aclose()
