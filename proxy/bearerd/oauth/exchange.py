"""One request to an authorization server. Every way in which a peer can fail becomes a value, never an exception."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
from yarl import URL

from bearerd import failpoints
from bearerd.core.grants import REPLY_LIMIT
from bearerd.core.proxies import build_authorization, judge_connect
from bearerd.core.targets import Origin, Tls, Way, parse_origin, way_to_server
from bearerd.trust import Untrustworthy, known_context

CONNECT_S: Final = 10.0  # name, addresses, proxy and TLS together


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. A body over the limit is empty: no reply of use is that long.

    `retry_after`, `date` and `location` are those fields as they came; the last may have a code in it.
    """

    status: int
    body: bytes = field(repr=False)
    retry_after: str | None
    date: str | None = None
    location: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NoReply:
    """Why there is no reply. `sent` says that the request may have arrived, and done what it asks for."""

    problem: str
    sent: bool


def open_session() -> aiohttp.ClientSession:
    """A session fit for credentials: no cookies, no environment, a new connection for each request.

    A reused connection may die under a request and leave its outcome unknown for nothing.
    """
    sending = aiohttp.TraceConfig()
    sending.on_request_headers_sent.append(_head_leaves)
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


async def exchange(
    session: aiohttp.ClientSession,
    way: Way,
    method: str,
    url: str,
    limit_s: float,
    headers: tuple[tuple[str, str], ...],
    data: bytes | None = None,
) -> Reply | NoReply:
    """One request, never redirected, over within `limit_s` seconds."""
    departure = _Departure()
    try:
        origin, _ = parse_origin(url.partition("?")[0])
        way = way_to_server(origin, way)
        async with session.request(
            method,
            URL(url, encoded=True),
            headers=headers,
            data=data,
            timeout=aiohttp.ClientTimeout(total=limit_s, connect=CONNECT_S),
            allow_redirects=False,
            trace_request_ctx=departure,
            **_lead(way, origin),
        ) as response:
            body = await _read_capped(response)
            fields = (response.headers.get(name) for name in ("Retry-After", "Date", "Location"))
            return Reply(response.status, body, *fields)
    except (aiohttp.ClientError, OSError, ValueError, Untrustworthy) as exc:
        return _judge(exc, way, url) if departure.at_hand else _judge_late(exc)


@dataclass(slots=True)
class _Departure:
    """Whether nothing of a request has been sent."""

    at_hand: bool = True


async def _head_leaves(_session: object, context: SimpleNamespace, _parameters: object) -> None:
    """Called before the first byte is written, and not for what is said to a proxy before."""
    context.trace_request_ctx.at_hand = False


def _lead(way: Way, origin: Origin) -> dict[str, Any]:
    """Raises Untrustworthy. Where settings name no authorities, aiohttp's own context has the system's."""
    options: dict[str, Any] = {}
    if way.tls != Tls():
        options["ssl"] = known_context(way.tls)
    if way.proxy is not None:
        options["proxy"] = URL(str(way.proxy.origin))
        options["server_hostname"] = origin.host.rstrip(".")  # as aiohttp has it without a proxy
        if way.proxy.credentials is not None:
            options["proxy_headers"] = {"Proxy-Authorization": build_authorization(way.proxy.credentials)}
    return options


def _judge(exc: Exception, way: Way, url: str) -> NoReply:
    """Why a request has not been sent."""
    if isinstance(exc, Untrustworthy):
        return NoReply(f"cannot be reached: {exc.text}", sent=False)
    if isinstance(exc, aiohttp.ClientSSLError):
        return NoReply("has no certificate that can be trusted", sent=False)
    if way.proxy is None:
        return NoReply("cannot be reached", sent=False)
    refusal = None
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        refusal = judge_connect(exc.status, way.proxy, parse_origin(url.partition("?")[0])[0])
    return NoReply(
        f"cannot be reached: {refusal or f'the proxy {way.proxy.origin} opens no way there'}", sent=False
    )


def _judge_late(exc: Exception) -> NoReply:
    """Why there is no reply to a request that may have been sent."""
    in_time = not isinstance(exc, TimeoutError)
    return NoReply("broke off its answer" if in_time else "did not answer in time", sent=True)


async def _read_capped(response: aiohttp.ClientResponse) -> bytes:
    """The body, or what of it shows that it is too long: nothing that long can be parsed."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > REPLY_LIMIT:
            response.close()
            return b""
    return bytes(body)
