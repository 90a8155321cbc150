"""One request to an authorization server. Every way in which a peer can fail becomes a value, never an exception."""

from dataclasses import dataclass, field
from typing import Final

import aiohttp
from yarl import URL

from bearerd import failpoints
from bearerd.core.grants import REPLY_LIMIT

CONNECT_S: Final = 10.0


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
    method: str,
    url: str,
    limit_s: float,
    headers: tuple[tuple[str, str], ...],
    data: bytes | None = None,
) -> Reply | NoReply:
    """One request, never redirected, over within `limit_s` seconds."""
    timeout = aiohttp.ClientTimeout(total=limit_s, sock_connect=CONNECT_S)
    try:
        async with session.request(
            method, URL(url, encoded=True), headers=headers, data=data, timeout=timeout, allow_redirects=False
        ) as response:
            body = await _read_capped(response)
            fields = (response.headers.get(name) for name in ("Retry-After", "Date", "Location"))
            return Reply(response.status, body, *fields)
    except aiohttp.ClientSSLError:
        return NoReply("has no certificate that can be trusted", sent=False)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        return NoReply("cannot be reached", sent=False)
    except TimeoutError:
        return NoReply("did not answer in time", sent=True)
    except (aiohttp.ClientError, OSError, ValueError):
        return NoReply("broke off its answer", sent=True)


async def _read_capped(response: aiohttp.ClientResponse) -> bytes:
    """The body, or what of it shows that it is too long: nothing that long can be parsed."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > REPLY_LIMIT:
            response.close()
            return b""
    return bytes(body)
