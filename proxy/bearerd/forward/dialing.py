"""From an origin to a connection: addresses tried as RFC 8305 says, a proxy where there is one, TLS on top."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from typing import Final, TypeVar

from aiohappyeyeballs import AddrInfoType, start_connection

from bearerd.core.heads import HEAD_LIMIT, find_final
from bearerd.core.proxies import build_connect, judge_connect
from bearerd.core.targets import Origin, Proxy, Way
from bearerd.errors import UpstreamTimeout, UpstreamUnreachable
from bearerd.trust import Trust

CONNECT_S: Final = 10.0
ATTEMPT_S: Final = 0.25  # for one address alone, before the next is tried beside it (RFC 8305 section 5)
_UNTRUSTED: Final = {  # OpenSSL's X509_V_ERR_...
    9: "it is not valid yet",
    10: "it has expired",
    18: "it vouches for itself; if that is right, name it as ca_file",
    19: "its authority is not known here; if it is to be trusted, name it as ca_file",
    20: "its authority is not known here; if it is to be trusted, name it as ca_file",
    62: "it is for another name",
    64: "it is for another address",
}

P = TypeVar("P", bound=asyncio.BaseProtocol)
Resolve = Callable[[str, int], Awaitable[Sequence[AddrInfoType]]]
"""The addresses of a name, best first. Raises OSError, UnicodeError."""


async def resolve_by_system(host: str, port: int) -> Sequence[AddrInfoType]:
    """As all programs of this machine see it."""
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Dialer:
    """Connects within `connect_s` seconds, all steps together."""

    def __init__(
        self, trust: Trust, *, connect_s: float = CONNECT_S, resolve: Resolve = resolve_by_system
    ) -> None:
        self._trust = trust
        self.connect_s = connect_s
        self._resolve = resolve
        self._lookups: dict[tuple[str, int], asyncio.Future[Sequence[AddrInfoType]]] = {}

    def close(self) -> None:
        """Wait for no name any more."""
        for lookup in list(self._lookups.values()):
            lookup.cancel()

    async def dial(self, origin: Origin, way: Way, build: Callable[[], P]) -> P:
        """A protocol of `build`'s, connected to `origin`. Raises UpstreamUnreachable, UpstreamTimeout."""
        until = asyncio.get_running_loop().time() + self.connect_s
        sock = await self._reach(origin, way, until)
        return await self._attach(sock, origin, way, build, until)

    async def reach(self, origin: Origin, way: Way) -> socket.socket:
        """Connected to `origin`, with nothing said there: no TLS yet. Raises UpstreamError, UpstreamTimeout."""
        return await self._reach(origin, way, asyncio.get_running_loop().time() + self.connect_s)

    async def _reach(self, origin: Origin, way: Way, until: float) -> socket.socket:
        if way.proxy is None:
            return await self._connect(origin, str(origin), until)
        sock = await self._connect(way.proxy.origin, f"the proxy {way.proxy.origin}", until)
        await _pass_through(sock, way.proxy, origin, until)
        return sock

    async def _connect(self, origin: Origin, name: str, until: float) -> socket.socket:
        async with _within(until, f"{name} did not accept a connection in time"):
            try:
                addresses = _literal(origin) or await self._look_up(origin.host, origin.port)
                return await start_connection(addresses, happy_eyeballs_delay=ATTEMPT_S)
            except TimeoutError:
                raise
            # ValueError for a name that no resolver can be asked for or knows; RuntimeError is uvloop's at times.
            except (OSError, ValueError, RuntimeError):
                raise UpstreamUnreachable(f"{name} cannot be connected to") from None

    async def _look_up(self, host: str, port: int) -> Sequence[AddrInfoType]:
        """Calls at once share a lookup: one that hangs holds one of the few threads there are for them, not all."""
        name = (host, port)
        lookup = self._lookups.get(name)
        if lookup is None:
            lookup = self._lookups[name] = asyncio.ensure_future(self._resolve(*name))
            lookup.add_done_callback(partial(self._forget, name))
        await asyncio.wait((lookup,))
        if lookup.cancelled():
            raise ConnectionAbortedError  # the pool has been closed
        return lookup.result()

    def _forget(self, name: tuple[str, int], lookup: asyncio.Future[Sequence[AddrInfoType]]) -> None:
        del self._lookups[name]
        if not lookup.cancelled():
            lookup.exception()  # which nobody may be left to take

    async def _attach(
        self, sock: socket.socket, origin: Origin, way: Way, build: Callable[[], P], until: float
    ) -> P:
        context = self._trust.context(way.tls) if origin.scheme == "https" else None
        name = (way.tls.server_name or origin.host.rstrip(".")) if context else None
        async with _within(until, f"{origin} did not accept a connection in time"):
            try:
                _, protocol = await asyncio.get_running_loop().create_connection(
                    build, sock=sock, ssl=context, server_hostname=name
                )
            except ssl.SSLCertVerificationError as exc:
                raise UpstreamUnreachable(_describe_certificate(origin, exc.verify_code)) from None
            except OSError:
                raise UpstreamUnreachable(
                    f"{origin} does not speak TLS, or wants another kind of it"
                ) from None
        return protocol


@asynccontextmanager
async def _within(until: float, complaint: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(until):
            yield
    except TimeoutError:
        raise UpstreamTimeout(complaint) from None


def _literal(origin: Origin) -> Sequence[AddrInfoType]:
    """The address that a host is, if it is no name."""
    try:
        version = ip_address(origin.host).version
    except ValueError:
        return ()
    kind = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    if version == 4:
        return ((socket.AF_INET, *kind, (origin.host, origin.port)),)
    return ((socket.AF_INET6, *kind, (origin.host, origin.port, 0, 0)),)


def _describe_certificate(origin: Origin, code: int) -> str:
    why = _UNTRUSTED.get(code)
    return f"{origin} has no certificate that can be trusted" + (f": {why}" if why else "")


async def _pass_through(sock: socket.socket, proxy: Proxy, origin: Origin, until: float) -> None:
    """Have the proxy connect `sock` to `origin`; it is closed where that fails. Raises UpstreamUnreachable, UpstreamTimeout."""
    name = f"the proxy {proxy.origin}"
    try:
        async with _within(until, f"{name} did not answer in time"):
            status, rest = await _ask(sock, name, build_connect(proxy, origin))
        _check(status, rest, proxy, origin)
    except BaseException:
        sock.close()
        raise


async def _ask(sock: socket.socket, name: str, request: bytes) -> tuple[int, bytes]:
    """The status of the answer to a request, and what follows its head. Raises UpstreamUnreachable."""
    loop = asyncio.get_running_loop()
    received = b""
    try:
        await loop.sock_sendall(sock, request)
        while (answer := find_final(received)) is None:
            data = await loop.sock_recv(sock, HEAD_LIMIT)
            if not data:
                break
            received += data
    except OSError:
        answer = None
    except ValueError:
        raise UpstreamUnreachable(f"{name} gave an answer that is not valid HTTP") from None
    if answer is None:
        raise UpstreamUnreachable(f"{name} closed the connection before it answered")
    return answer


def _check(status: int, rest: bytes, proxy: Proxy, origin: Origin) -> None:
    """Raises UpstreamUnreachable, UpstreamTimeout unless there is a tunnel, of which nothing has come yet."""
    problem = judge_connect(status, proxy, origin)
    if problem is not None:
        raise (UpstreamTimeout if status == 504 else UpstreamUnreachable)(problem)
    if rest:  # the upstream has not been asked for anything
        raise UpstreamUnreachable(f"the proxy {proxy.origin} sent more than an answer")
