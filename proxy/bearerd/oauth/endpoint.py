"""Token requests over HTTP. Every way in which a peer can fail becomes a `Failure`, never an exception."""

from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from bearerd.core.accounts import OAuthSource
from bearerd.core.grants import REPLY_LIMIT, build_token_request, parse_token_reply
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.metadata import MetadataError, parse_metadata, well_known_urls
from bearerd.core.tokens import Granted, TokenSet
from bearerd.ports import Clock

CONNECT_S: Final = 10.0
REPLY_S: Final = 120.0  # a refresh that was sent is waited for: giving it up is a lost rotation
METADATA_S: Final = 10.0

_UNREACHABLE: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes
    retry_after: str | None


def open_session() -> aiohttp.ClientSession:
    """A session fit for credentials: no cookies, no environment, a new connection for each request.

    A reused connection may die under a request and leave its outcome unknown for nothing.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", "User-Agent": "bearerd"},
        trust_env=False,
    )


class OAuthTokenSource:
    """Tokens by an OAuth grant. The issuer's metadata is read at the first need and kept."""

    def __init__(
        self, source: OAuthSource, clock: Clock, session: aiohttp.ClientSession, *, reply_s: float = REPLY_S
    ) -> None:
        self._source = source
        self._clock = clock
        self._session = session
        self._reply_s = reply_s
        self._token_endpoint = source.token_endpoint

    async def obtain(self, current: TokenSet | None) -> Granted | Failure:
        endpoint = self._token_endpoint or await self._discover(self._source.issuer or "")
        if isinstance(endpoint, Failure):
            return endpoint
        self._token_endpoint = endpoint
        request = build_token_request(self._source, current.refresh_token if current else None)
        reply = await self._exchange(
            "POST",
            endpoint,
            self._reply_s,
            headers=request.headers,
            data=request.body.reveal().encode("ascii"),
        )
        if isinstance(reply, Failure):
            return reply
        return parse_token_reply(reply.status, reply.body, self._clock.wall(), retry_after=reply.retry_after)

    def changed(self) -> bool:
        return False

    async def aclose(self) -> None:
        await self._session.close()

    async def _discover(self, issuer: str) -> str | Failure:
        """The token endpoint by the issuer's metadata, at the first well-known place that has some."""
        failure = Failure(
            FailureKind.TRANSIENT, "the issuer has no metadata; set token_endpoint in its place"
        )
        for url in well_known_urls(issuer):
            reply = await self._exchange("GET", url, METADATA_S, headers=(("Accept", "application/json"),))
            if isinstance(reply, Failure):
                return Failure(FailureKind.TRANSIENT, f"the issuer's metadata cannot be read: {reply.reason}")
            if reply.status == 200:
                return _token_endpoint(issuer, reply.body)
        return failure

    async def _exchange(
        self,
        method: str,
        url: str,
        limit_s: float,
        headers: tuple[tuple[str, str], ...],
        data: bytes | None = None,
    ) -> _Reply | Failure:
        """One request, never redirected. What fails before a byte has left is transient, else unknown."""
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
        except _UNREACHABLE:
            return Failure(FailureKind.TRANSIENT, "the token endpoint cannot be reached")
        except TimeoutError:
            return Failure(FailureKind.OUTCOME_UNKNOWN, "the token endpoint did not answer in time")
        except (aiohttp.ClientError, OSError, ValueError):
            return Failure(FailureKind.OUTCOME_UNKNOWN, "the token endpoint broke off its answer")


async def _read_capped(response: aiohttp.ClientResponse) -> bytes:
    """The body, or what of it shows that it is too long: no token reply is, so that cannot be parsed."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > REPLY_LIMIT:
            response.close()
            return b""
    return bytes(body)


def _token_endpoint(issuer: str, document: bytes) -> str | Failure:
    try:
        return parse_metadata(issuer, document).token_endpoint
    except MetadataError as problem:
        return Failure(FailureKind.TRANSIENT, f"the issuer's metadata {problem}")
