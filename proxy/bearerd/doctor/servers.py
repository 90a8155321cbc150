"""Asking authorization servers what tells whether an account will work. No refresh token is shown, no login begun.

What is asked is made up: a code that nobody was given, a login that nobody sees. Only client credentials are the real
grant, whose token is thrown away.
"""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import aiohttp

from bearerd.core.accounts import Account, Grant, OAuthSource
from bearerd.core.authorization import ENTROPY_BYTES, Transaction, build_authorization_url, build_transaction
from bearerd.core.grants import (
    TokenRequest,
    build_code_request,
    build_device_token_request,
    build_token_request,
    parse_token_reply,
)
from bearerd.core.lifecycle import Failure
from bearerd.core.metadata import Metadata, configured, override, parse_named_issuer
from bearerd.core.redaction import Secret
from bearerd.core.targets import parse_origin, way_to_server
from bearerd.core.tokens import Granted
from bearerd.doctor.destinations import Place
from bearerd.doctor.findings import Finding, Level
from bearerd.doctor.reach import try_place
from bearerd.doctor.verdicts import (
    UNTRIED,
    Answer,
    Elsewhere,
    Silent,
    is_told,
    judge_client,
    judge_discovery,
    judge_redirect,
    judge_scopes,
    judge_skew,
    read_answer,
    refusal_of_scopes,
)
from bearerd.oauth.exchange import NoReply, Reply, exchange
from bearerd.oauth.server import discover
from bearerd.ports import Clock

NOBODYS: Final = "https://bearerd-doctor.invalid/callback"  # RFC 2606: no client can have registered it
_PAGE: Final = (("Accept", "text/html, application/json;q=0.9"),)


class Network(StrEnum):
    """What may be asked of other machines."""

    NONE = "none"
    OPEN = "open"  # what shows no secret
    FULL = "full"  # what shows the client's secret, too


@dataclass(frozen=True, slots=True)
class Questions:
    """What all questions have in common. Each stage of them takes at most `limit_s` seconds.

    `redirect_uris` are those of the accounts that a person may log in to, where they are known.
    """

    session: aiohttp.ClientSession
    clock: Clock
    network: Network
    limit_s: float
    redirect_uris: Mapping[str, str]

    async def ask(self, account: Account) -> list[Finding]:
        """One finding each of discovery, clock, client, redirect and scopes, as far as the account has them."""
        source = account.source
        if not isinstance(source, OAuthSource):
            return []
        server, discovery = await self._discover(source)
        if isinstance(server, Failure):
            return [discovery]
        way, skew, (client, outcome), (redirect, answer) = await asyncio.gather(
            self._try_further(account.name, source, server),
            self._judge_clock(source, server),
            self._judge_client(source, server, self.redirect_uris.get(account.name, NOBODYS)),
            self._judge_redirect(source, server, self.redirect_uris.get(account.name)),
        )
        granted = outcome.scope if isinstance(outcome, Granted) else None
        refusal = refusal_of_scopes(answer, outcome)
        scopes = judge_scopes(source, server.offer.scopes, granted, refusal)
        return [discovery, *way, skew, client, *redirect, scopes]

    async def _discover(self, source: OAuthSource) -> tuple[Metadata | Failure, Finding]:
        server = configured(source)
        if server is not None:
            return server, judge_discovery(source, server, None)
        issuer = source.issuer or ""
        found, reply = await discover(self.session, source.way, issuer, self.limit_s / 2, self.clock)
        if isinstance(found, Failure):
            named = parse_named_issuer(reply.body) if isinstance(reply, Reply) else None
            return found, judge_discovery(source, found, named if named != issuer else None)
        known = override(found, source)
        return known, judge_discovery(source, known, None)

    async def _try_further(self, name: str, source: OAuthSource, server: Metadata) -> list[Finding]:
        """The way to a token endpoint that is not where its issuer is."""
        issuer = source.issuer
        origin, _ = parse_origin(server.token_endpoint.partition("?")[0])
        if issuer is None or parse_origin(issuer)[0] == origin:
            return []
        place = Place(origin, way_to_server(origin, source.way), ("accounts", name), "issuer")
        return await try_place(place, self.clock.wall(), self.limit_s)

    async def _judge_clock(self, source: OAuthSource, server: Metadata) -> Finding:
        asked_at = self.clock.wall()
        reply = await exchange(self.session, source.way, "GET", server.token_endpoint, self.limit_s, ())
        if isinstance(reply, NoReply):
            return _unanswered("clock", reply)
        return judge_skew(reply.date, asked_at, self.clock.wall())

    # ------------------------------------------------------------ client

    async def _judge_client(
        self, source: OAuthSource, server: Metadata, uri: str
    ) -> tuple[Finding, Granted | Failure | None]:
        if source.client_secret is not None and self.network is not Network.FULL:
            return UNTRIED, None
        request, secret = _made_up(source, server, uri)
        reply = await exchange(
            self.session,
            source.way,
            "POST",
            server.token_endpoint,
            self.limit_s,
            request.headers,
            request.body.reveal().encode("ascii"),
        )
        if isinstance(reply, NoReply):
            return _unanswered("client", reply), None
        sent = (source.client_secret, secret)
        outcome = parse_token_reply(reply.status, reply.body, self.clock.wall(), sent=sent)
        by_device = source.interactive and server.device_authorization_endpoint is not None
        return judge_client(source, reply.status, outcome, by_device=by_device), outcome

    # ------------------------------------------------------------ redirect URI

    async def _judge_redirect(
        self, source: OAuthSource, server: Metadata, uri: str | None
    ) -> tuple[list[Finding], Answer | None]:
        if not source.interactive or server.authorization_endpoint is None:
            return [], None
        if uri is None:
            text = "not known before bearerd runs, for the system chooses the port"
            return [Finding(Level.NOTE, "redirect", text, "set redirect_uri or listen.port")], None
        if not server.pkce:
            return [], None
        try:
            async with asyncio.timeout(self.limit_s):
                answer, other = await self._try_redirect(source, server, uri)
        except TimeoutError:
            answer, other = Silent("the authorization endpoint did not answer in time"), None
        return [judge_redirect(source, uri, answer, other)], answer

    async def _try_redirect(
        self, source: OAuthSource, server: Metadata, uri: str
    ) -> tuple[Answer, Answer | None]:
        """First so that no page is shown (OIDC Core section 3.1.2.1), then as a login would ask, then with another URI."""
        answer = await self._open(_silently(source), server, uri)
        if is_told(answer) or isinstance(answer, Silent):
            return answer, None
        answer = await self._open(source, server, uri)
        if not isinstance(answer, Elsewhere):
            return answer, None
        return answer, await self._open(source, server, NOBODYS)

    async def _open(self, source: OAuthSource, server: Metadata, uri: str) -> Answer:
        url = build_authorization_url(source, server, _transaction(uri, source, self.clock.wall()))
        reply = await exchange(self.session, source.way, "GET", url, self.limit_s, _PAGE)
        if isinstance(reply, NoReply):
            return Silent(f"the authorization endpoint {reply.problem}")
        return read_answer(reply.status, reply.location, reply.body, uri)


def _unanswered(subject: str, reply: NoReply) -> Finding:
    cure = "see what bearerd doctor says of reach, or mend token_endpoint or issuer"
    return Finding(Level.FAIL, subject, f"the token endpoint {reply.problem}", cure)


def _made_up(source: OAuthSource, server: Metadata, uri: str) -> tuple[TokenRequest, Secret | None]:
    """A token request of the account's kind that spends nothing, and what it was made with."""
    if source.grant is Grant.CLIENT_CREDENTIALS:
        return build_token_request(source, None), None
    nobodys = Secret(f"bearerd-doctor-{secrets.token_hex(16)}")
    if source.grant is Grant.REFRESH_TOKEN:
        return build_token_request(source, nobodys), nobodys
    if server.authorization_endpoint is None:
        return build_device_token_request(source, nobodys), nobodys
    return build_code_request(source, nobodys, _transaction(uri, source, 0.0)), nobodys


def _transaction(uri: str, source: OAuthSource, now: float) -> Transaction:
    """One that is forgotten at once."""
    return build_transaction(
        "doctor",
        redirect_uri=uri,
        binding=Secret(""),
        return_to="/-/",
        oidc="openid" in source.scopes,
        entropy=secrets.token_bytes(ENTROPY_BYTES),
        now=now,
    )


def _silently(source: OAuthSource) -> OAuthSource:
    others = (pair for pair in source.authorization_params if pair[0] != "prompt")
    return replace(source, authorization_params=(*others, ("prompt", "none")))
