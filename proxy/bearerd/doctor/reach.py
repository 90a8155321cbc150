"""Getting to upstreams and authorization servers: name, connection, proxy, TLS, and whether HTTP is spoken there.

Nothing is sent but a HEAD without a token.
"""

import asyncio
import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from socket import SOCK_STREAM, gaierror, getaddrinfo, socket
from typing import Final

from aiohappyeyeballs import AddrInfoType

from bearerd.core.targets import Origin
from bearerd.doctor.certificates import MISMATCHES, judge_certificate, judge_expiry, judge_handshake
from bearerd.doctor.destinations import Place
from bearerd.doctor.findings import Finding, Level, finding_of, shown
from bearerd.doctor.pace import aside
from bearerd.errors import UpstreamError
from bearerd.forward.dialing import Dialer
from bearerd.trust import Trust, Untrustworthy, build_context

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")
_ANSWER_LIMIT: Final = 64 << 10


async def try_place(
    place: Place, now: float, limit_s: float, *, talk_s: float | None = None
) -> list[Finding]:
    """One finding, of the first step that fails or of them all. `now` is epoch seconds.

    The name has `limit_s` seconds, and half as many each have the connection and, unless `talk_s` says otherwise, all that
    is said on it.
    """
    try:
        async with asyncio.timeout(limit_s):
            addresses = await _resolve(place)
    except (OSError, UnicodeError) as exc:  # the end of the time, too
        return [_judge_name(place, exc)]

    async def known(host: str, port: int) -> Sequence[AddrInfoType]:
        del host, port
        return addresses

    dialer = Dialer(Trust(), connect_s=limit_s / 2, resolve=known)
    try:
        context = build_context(place.way.tls) if place.origin.scheme == "https" else None
        sock = await dialer.reach(place.origin, place.way)
        async with asyncio.timeout(talk_s or limit_s / 2):
            return [await _talk(place, sock, context, now)]
    except Untrustworthy as problem:
        return [finding_of(Level.FAIL, "reach", f"{place.beside(problem.key)}: {problem.text}")]
    except UpstreamError as problem:
        return [_judge_connection(place, problem)]
    except TimeoutError:
        text = f"{place.origin} accepts a connection, and says nothing on it for now"
        return [
            Finding(
                Level.NOTE, "reach", text, f"if it stays so, see what it waits for, or mend {place.setting}"
            )
        ]
    except _Untrusted as problem:
        names = await _names(place, dialer) if problem.code in MISMATCHES else ()
        return [judge_certificate(place, problem.code, names)]


async def _resolve(place: Place) -> Sequence[AddrInfoType]:
    """As the system sees the name, in a thread that may hang."""
    hop = _hop(place)
    with suppress(ValueError):
        ip_address(hop.host)
        return ()  # which the dialer knows how to connect to
    return await aside(lambda: getaddrinfo(hop.host, hop.port, type=SOCK_STREAM))


def _hop(place: Place) -> Origin:
    return place.way.proxy.origin if place.way.proxy else place.origin


def _judge_name(place: Place, exc: OSError | UnicodeError) -> Finding:
    name = f"the proxy {_hop(place)}" if place.way.proxy else str(place.origin)
    reason = exc.strerror if isinstance(exc, gaierror) else "it is no name"
    if isinstance(exc, TimeoutError):
        reason = "nothing answers for it in time"
    setting = place.beside("proxy") if place.way.proxy else place.setting
    cure = f"mend its name in {setting}, or this machine's DNS"
    return Finding(Level.FAIL, "reach", f"{name}: its name leads to no address ({reason})", cure)


def _judge_connection(place: Place, problem: UpstreamError) -> Finding:
    finding = finding_of(Level.FAIL, "reach", str(problem))
    if place.way.proxy is not None:
        setting = place.beside("proxy")
        cure = f'mend the proxy, or set {setting} to another or to "none" (it may be of the environment)'
        return Finding(Level.FAIL, "reach", finding.found, finding.cure or cure)
    cure = f"start what should listen there, open the way to it, or mend {place.setting}"
    return Finding(Level.FAIL, "reach", finding.found, finding.cure or cure)


# ---------------------------------------------------------------- TLS and HTTP


class _Untrusted(Exception):  # noqa: N818  # a step on the way to a finding
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Listener(asyncio.Protocol):
    """Takes what is answered, until that is enough or the other side leaves. `done` then has why it left, if it says."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if b"\r\n" in self.received or len(self.received) > _ANSWER_LIMIT:
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def _end(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(exc)


async def _talk(place: Place, sock: socket, context: ssl.SSLContext | None, now: float) -> Finding:
    """Raises _Untrusted."""
    try:
        transport, listener = await asyncio.get_running_loop().create_connection(
            _Listener, sock=sock, ssl=context, server_hostname=_server_name(place) if context else None
        )
    except ssl.SSLCertVerificationError as exc:
        raise _Untrusted(exc.verify_code) from None
    except OSError as exc:
        return judge_handshake(place, exc)
    try:
        transport.write(_head_request(place))
        reason = await listener.done
        if not listener.received:
            return _judge_silence(place, reason)
        certificate = transport.get_extra_info("peercert") or {}
        return judge_expiry(place, certificate.get("notAfter"), now) or _judge_answer(
            place, bytes(listener.received)
        )
    finally:
        transport.abort()


def _server_name(place: Place) -> str:
    return place.way.tls.server_name or place.origin.host.rstrip(".")


def _head_request(place: Place) -> bytes:
    """For a proxied origin, too, as the tunnel leads there."""
    head = b"HEAD %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: bearerd\r\nConnection: close\r\n\r\n"
    return head % (place.base or b"/", place.origin.authority.encode())


def _judge_silence(place: Place, reason: Exception | None) -> Finding:
    if isinstance(reason, ssl.SSLError):
        return judge_handshake(place, reason)
    text = f"{place.origin} accepts a connection and closes it without an answer"
    cure = f"see that it speaks {place.origin.scheme}, or mend {place.setting}"
    if place.upstream and place.origin.scheme == "https" and not place.way.tls.client_cert_file:
        cure += f", or set {place.beside('client_cert_file')} if it wants one"
    return Finding(Level.FAIL, "reach", text, cure)


def _judge_answer(place: Place, received: bytes) -> Finding:
    if not _STATUS.match(received):
        text = f"{place.origin} does not speak HTTP/1.1"
        other = "https" if place.origin.scheme == "http" else "http"
        return Finding(Level.FAIL, "reach", text, f"mend {place.setting}: the port, or {other}")
    by = f" by the proxy {place.way.proxy}" if place.way.proxy else ""
    return Finding(Level.OK, "reach", f"{place.origin} answers{by}")


async def _names(place: Place, dialer: Dialer) -> tuple[str, ...]:
    """Those of a certificate that is good, but for another name."""
    context = build_context(place.way.tls)
    context.check_hostname = False
    names: tuple[str, ...] = ()
    with suppress(UpstreamError, OSError):
        sock = await dialer.reach(place.origin, place.way)
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, sock=sock, ssl=context, server_hostname=_server_name(place)
        )
        certificate = transport.get_extra_info("peercert") or {}
        names = tuple(shown(str(name)) for _, name in certificate.get("subjectAltName", ()))
        transport.abort()
    return names
