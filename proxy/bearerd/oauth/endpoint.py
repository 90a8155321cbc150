"""Token requests over HTTP. Every way in which a peer can fail becomes a `Failure`, never an exception."""

from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from bearerd import failpoints
from bearerd.core.accounts import Grant, OAuthSource
from bearerd.core.grants import REPLY_LIMIT, build_token_request, parse_retry_after, parse_token_reply
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.metadata import MetadataError, parse_metadata, well_known_urls
from bearerd.core.tokens import Granted, TokenSet
from bearerd.ports import Clock

CONNECT_S: Final = 10.0
REPLY_S: Final = 120.0  # a refresh that was sent is waited for: giving it up is a lost rotation
MINT_S: Final = 30.0  # nothing is spent by a grant without a refresh token, so it is given up sooner
METADATA_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes
    retry_after: str | None


@dataclass(frozen=True, slots=True)
class _NoReply:
    """Why there is no reply. `sent` says that the request may have arrived, and done what it asks for."""

    problem: str
    sent: bool


def open_session() -> aiohttp.ClientSession:
    """A session fit for credentials: no cookies, no environment, a new connection for each request.

    A reused connection may die under a request and leave its outcome unknown for nothing.
    """
    sending = aiohttp.TraceConfig()
    sending.on_request_chunk_sent.append(_body_leaves)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", "User-Agent": "bearerd"},
        trust_env=False,
        trace_configs=[sending],
    )


async def _body_leaves(*_: object) -> None:
    """A hook of aiohttp's, called just before it writes head and body at once, with no turn of the loop in between."""
    failpoints.reach_next("after_send")


class OAuthTokenSource:
    """Tokens by an OAuth grant. The issuer's metadata is read at the first need and kept."""

    def __init__(
        self,
        source: OAuthSource,
        clock: Clock,
        session: aiohttp.ClientSession,
        *,
        reply_s: float | None = None,
    ) -> None:
        self._source = source
        self._clock = clock
        self._session = session
        self._spends = source.grant is Grant.REFRESH_TOKEN
        self._reply_s = reply_s or (REPLY_S if self._spends else MINT_S)
        self._token_endpoint = source.token_endpoint

    async def obtain(self, current: TokenSet | None) -> Granted | Failure:
        endpoint = self._token_endpoint or await self._discover(self._source.issuer or "")
        if isinstance(endpoint, Failure):
            return endpoint
        self._token_endpoint = endpoint
        refresh_token = current.refresh_token if current else None
        request = build_token_request(self._source, refresh_token)
        body = request.body.reveal().encode("ascii")
        reply = await self._exchange("POST", endpoint, self._reply_s, headers=request.headers, data=body)
        if isinstance(reply, _NoReply):
            unknown = reply.sent and self._spends
            kind = FailureKind.OUTCOME_UNKNOWN if unknown else FailureKind.TRANSIENT
            return Failure(kind, f"the token endpoint {reply.problem}")
        return parse_token_reply(
            reply.status,
            reply.body,
            self._clock.wall(),
            retry_after=reply.retry_after,
            sent=(self._source.client_secret, refresh_token),
        )

    def changed(self) -> bool:
        return False

    async def aclose(self) -> None:
        await self._session.close()

    async def _discover(self, issuer: str) -> str | Failure:
        """The token endpoint by the issuer's metadata, at the first well-known place that has a good one."""
        failures = []
        for url in well_known_urls(issuer):
            reply = await self._exchange("GET", url, METADATA_S, headers=(("Accept", "application/json"),))
            endpoint = _token_endpoint(issuer, reply, self._clock.wall())
            if isinstance(endpoint, str) or (isinstance(reply, _NoReply) and not reply.sent):
                return endpoint
            failures.append(endpoint)
        # The last place is asked because the first had none, so what was wrong with the first says more, if anything.
        return next((failure for failure in failures if failure.reason != _NO_METADATA), failures[-1])

    async def _exchange(
        self,
        method: str,
        url: str,
        limit_s: float,
        headers: tuple[tuple[str, str], ...],
        data: bytes | None = None,
    ) -> _Reply | _NoReply:
        """One request, never redirected."""
        timeout = aiohttp.ClientTimeout(total=limit_s, sock_connect=CONNECT_S)
        try:
            async with self._session.request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=data,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                body = await _read_capped(response)
                return _Reply(response.status, body, response.headers.get("Retry-After"))
        except aiohttp.ClientSSLError:
            return _NoReply("has no certificate that can be trusted", sent=False)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return _NoReply("cannot be reached", sent=False)
        except TimeoutError:
            return _NoReply("did not answer in time", sent=True)
        except (aiohttp.ClientError, OSError, ValueError):
            return _NoReply("broke off its answer", sent=True)


async def _read_capped(response: aiohttp.ClientResponse) -> bytes:
    """The body, or what of it shows that it is too long: no token reply is, so that cannot be parsed."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > REPLY_LIMIT:
            response.close()
            return b""
    return bytes(body)


_NO_METADATA: Final = "the issuer has no metadata; set token_endpoint in its place"


def _token_endpoint(issuer: str, reply: _Reply | _NoReply, now: float) -> str | Failure:
    if isinstance(reply, _NoReply):
        return Failure(FailureKind.TRANSIENT, f"the issuer {reply.problem}")
    if reply.status in {404, 410}:
        return Failure(FailureKind.TRANSIENT, _NO_METADATA)
    if reply.status != 200:
        reason = f"the issuer answered {reply.status} where its metadata should be"
        return Failure(FailureKind.TRANSIENT, reason, parse_retry_after(reply.retry_after, now))
    try:
        return parse_metadata(issuer, reply.body).token_endpoint
    except MetadataError as problem:
        return Failure(FailureKind.TRANSIENT, f"the issuer's metadata {problem}")
