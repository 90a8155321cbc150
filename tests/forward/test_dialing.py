"""Connecting: which address, through which proxy, and whom to trust."""

import asyncio
import logging
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import pytest
from aiohappyeyeballs import AddrInfoType

from bearerd.core.proxies import parse_proxy
from bearerd.core.targets import DIRECT, Origin, Proxy, Tls, Way
from bearerd.errors import UpstreamError, UpstreamTimeout, UpstreamUnreachable
from bearerd.forward.pool import UpstreamPool
from bearerd.forward.upstream import UpstreamRequest
from bearerd.trust import Trust, Untrustworthy, build_context
from certificates import Authority, write_key
from faults import (
    FaultServer,
    Step,
    black_hole,
    family_of,
    half_close,
    hang,
    pause,
    read,
    read_head,
    refused_port,
    reply,
    reset,
    send,
    serve,
    slices,
)
from patience import settle, soon, within
from pouring import read_some
from relays import TlsServer, TlsUpstream, TunnelProxy

HI: Final = reply(b"hi")
GET: Final = UpstreamRequest("GET", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
OPEN: Final = b"HTTP/1.1 200 OK\r\n\r\n"
NAME: Final = Origin("http", "api.example.com", 80)


class Names:
    """A resolver that knows one answer. `asked` is what it was asked for."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self._addresses = addresses
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[AddrInfoType]:
        self.asked.append((host, port))
        return [
            (family_of(address), socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address, port in self._addresses
        ]


async def ask(pool: UpstreamPool, origin: Origin, way: Way = DIRECT, limit_s: float = 15) -> bytes:
    async with within(limit_s):
        response = await pool.send(origin, GET, way)
        try:
            return await read_some(response)
        finally:
            await response.aclose()


def through(port: int, credentials: str = "") -> Way:
    proxy = parse_proxy(f"http://{credentials}127.0.0.1:{port}")
    assert isinstance(proxy, Proxy)
    return Way(proxy=proxy)


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize("hosts", [["127.0.0.1"], ["::1"], ["::1", "127.0.0.1"], ["127.0.0.1", "::1"]])
async def test_the_first_address_that_answers_is_taken(hosts: list[str]) -> None:
    async with FaultServer([serve(HI)], host=hosts[0]) as first, FaultServer([serve(HI)]) as second:
        names = Names((hosts[0], first.port), *((host, second.port) for host in hosts[1:]))
        pool = UpstreamPool(resolve=names)
        assert [await ask(pool, NAME) for _ in range(2)] == [b"hi", b"hi"]
        assert (first.connections, second.connections) == (1, 0)
        assert names.asked == [("api.example.com", 80)]
        pool.close()


@pytest.mark.parametrize(("bad", "good"), [("::1", "127.0.0.1"), ("127.0.0.1", "::1")])
async def test_addresses_that_are_refused_cost_nothing(bad: str, good: str) -> None:
    """A quarter of a second after each of them would be over the limit."""
    async with FaultServer([serve(HI)], host=good) as server:
        refusals = [(host, refused_port(host)) for host in (bad, good) * 3]
        pool = UpstreamPool(connect_s=1.3, resolve=Names(*refusals, (good, server.port)))
        assert await ask(pool, NAME) == b"hi"
        pool.close()


@pytest.mark.parametrize(("bad", "good"), [("::1", "127.0.0.1"), ("127.0.0.1", "::1")])
async def test_a_family_that_is_a_black_hole_costs_a_quarter_of_a_second(bad: str, good: str) -> None:
    """Further addresses of the dead family stand behind the first of the living one."""
    async with FaultServer([serve(HI)], host=good) as server:
        with black_hole(bad) as port:
            pool = UpstreamPool(resolve=Names((bad, port), (bad, port), (bad, port), (good, server.port)))
            began_at = asyncio.get_running_loop().time()
            assert await ask(pool, NAME, limit_s=0.7) == b"hi"
            assert asyncio.get_running_loop().time() - began_at > 0.2
            assert server.connections == 1
            pool.close()


async def test_every_address_refused() -> None:
    pool = UpstreamPool(resolve=Names(("::1", refused_port("::1")), ("127.0.0.1", refused_port())))
    with pytest.raises(UpstreamError, match=r"^http://api\.example\.com cannot be connected to$"):
        await ask(pool, NAME)


async def test_every_address_a_black_hole() -> None:
    with black_hole("::1") as one, black_hole() as other:
        pool = UpstreamPool(connect_s=0.5, resolve=Names(("::1", one), ("127.0.0.1", other)))
        with pytest.raises(UpstreamTimeout, match="did not accept a connection in time"):
            await ask(pool, NAME)


async def test_a_name_without_an_address() -> None:
    with pytest.raises(UpstreamError, match="cannot be connected to"):
        await ask(UpstreamPool(resolve=Names()), NAME)


class SlowNames(Names):
    """A resolver that answers when it is told to, or with an error."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        super().__init__(*addresses)
        self.go = asyncio.Event()
        self.problem: OSError | None = None

    async def __call__(self, host: str, port: int) -> Sequence[AddrInfoType]:
        found = await super().__call__(host, port)
        await self.go.wait()
        if self.problem is not None:
            raise self.problem
        return found


async def test_a_resolver_that_hangs_is_within_the_limit_and_is_not_asked_by_each_call() -> None:
    """Or a few calls would use up the threads in which all names are resolved, those of token endpoints too."""
    names = SlowNames()
    pool = UpstreamPool(connect_s=0.1, resolve=names)
    for _ in range(3):
        for outcome in await asyncio.gather(*(ask(pool, NAME) for _ in range(5)), return_exceptions=True):
            assert isinstance(outcome, UpstreamTimeout)
    assert names.asked == [("api.example.com", 80)]
    pool.close()


async def test_calls_at_once_share_a_lookup_and_the_next_one_asks_again() -> None:
    async with FaultServer([serve(HI)]) as server:
        names = SlowNames(("127.0.0.1", server.port))
        pool = UpstreamPool(resolve=names)
        first = asyncio.create_task(ask(pool, NAME))
        calls = [asyncio.create_task(ask(pool, NAME)) for _ in range(5)]
        await settle(0.01)
        first.cancel()
        await settle(0.01)
        names.go.set()
        assert await asyncio.gather(*calls) == [b"hi"] * 5
        assert len(names.asked) == 1
        response = [await pool.send(NAME, GET) for _ in range(6)]  # one more than there are
        assert len(names.asked) == 2
        for each in response:
            await each.aclose()
        pool.close()


async def test_a_lookup_that_fails_is_not_remembered() -> None:
    names = SlowNames()
    names.problem = socket.gaierror(socket.EAI_AGAIN, "canary")
    pool = UpstreamPool(resolve=names)
    call = asyncio.create_task(ask(pool, NAME))
    await settle(0.01)
    call.cancel()
    names.go.set()  # nobody is there to take the error
    await settle(0.01)
    for _ in range(2):
        with pytest.raises(UpstreamError, match=r"^http://api\.example\.com cannot be connected to$"):
            await ask(pool, NAME)
    assert len(names.asked) == 3


async def test_a_pool_that_is_closed_waits_for_no_name() -> None:
    pool = UpstreamPool(resolve=SlowNames())
    call = asyncio.create_task(ask(pool, NAME))
    await settle(0.01)
    pool.close()
    with pytest.raises(UpstreamError, match="cannot be connected to"):
        await call


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_address_is_not_resolved(host: str) -> None:
    names = Names()
    async with FaultServer([serve(HI)], host=host) as server:
        pool = UpstreamPool(resolve=names)
        assert await ask(pool, Origin("http", host, server.port)) == b"hi"
        assert names.asked == []
        pool.close()


@pytest.mark.parametrize("after_s", [0, 0.001, 0.26, 0.3])
async def test_calls_cancelled_while_connecting_leave_nothing(after_s: float) -> None:
    with black_hole("::1") as one, black_hole() as other:
        pool = UpstreamPool(resolve=Names(("::1", one), ("127.0.0.1", other)))
        before = descriptors()
        calls = [asyncio.create_task(pool.send(NAME, GET)) for _ in range(20)]
        await asyncio.sleep(after_s)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await settled(before)


async def test_calls_cancelled_at_any_turn_of_the_loop_leave_nothing() -> None:
    """While resolving, connecting, asking the proxy, in the handshake, and once connected."""
    async with FaultServer([read_head, send(OPEN), pause(0.01), serve(HI)]) as server:
        pool = UpstreamPool()
        await ask(pool, NAME, through(server.port))  # what an event loop opens once
        pool.close()
        await soon(server.peers[0].gone)
        pool = UpstreamPool()
        before = descriptors()
        for turns in range(40):
            call = asyncio.create_task(pool.send(NAME, GET, through(server.port)))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        await settled(before, server)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def settled(before: int, server: FaultServer | None = None) -> None:
    """Descriptors are back to what they were, but for those of a server of ours."""
    for _ in range(500):
        theirs = sum(not peer.gone.is_set() for peer in server.peers) if server else 0
        if descriptors() - theirs <= before and not theirs:
            return
        await asyncio.sleep(0.02)
    assert descriptors() == before


# ---------------------------------------------------------------- trust


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture
async def pool() -> AsyncIterator[UpstreamPool]:
    pool = UpstreamPool(Trust(), connect_s=5)
    yield pool
    pool.close()


def secure(port: int, host: str = "localhost") -> Origin:
    return Origin("https", host, port)


def trusting(authority: Authority, **options: str) -> Way:
    return Way(Tls(str(authority.ca_file), **options))


async def test_an_authority_of_ones_own(pool: UpstreamPool, authority: Authority) -> None:
    async with TlsUpstream(authority.server("localhost", "127.0.0.1"), HI) as server:
        for host in ("localhost", "127.0.0.1"):
            assert await ask(pool, secure(server.port, host), trusting(authority)) == b"hi"
        assert server.names == ["localhost", None]


async def test_it_is_in_place_of_the_systems_and_not_the_default(
    pool: UpstreamPool, authority: Authority, stranger: Authority
) -> None:
    async with TlsUpstream(authority.server("localhost"), HI) as server:
        for way in (DIRECT, trusting(stranger)):
            with pytest.raises(UpstreamError, match=r"its authority is not known here.*ca_file"):
                await ask(pool, secure(server.port), way)
        assert server.heads == []


async def test_ways_do_not_share_connections(
    pool: UpstreamPool, authority: Authority, stranger: Authority
) -> None:
    """Or a route would be served by a connection that it does not trust, or that is somebody else's."""
    async with TlsUpstream(authority.server("localhost"), HI) as server:
        assert await ask(pool, secure(server.port), trusting(authority)) == b"hi"
        with pytest.raises(UpstreamError):
            await ask(pool, secure(server.port), trusting(stranger))
        assert await ask(pool, secure(server.port), trusting(authority)) == b"hi"
        assert server.connections == 1


@pytest.mark.parametrize(
    ("names", "days", "problem"),
    [
        (["other.example"], 2, "it is for another name"),
        (["10.0.0.1"], 2, "it is for another name"),
        (["localhost"], -2, "it has expired"),
    ],
)
async def test_certificates_that_do_not_hold(
    pool: UpstreamPool, authority: Authority, names: list[str], days: int, problem: str
) -> None:
    async with TlsUpstream(authority.server(*names, days=days), HI) as server:
        with pytest.raises(UpstreamError, match=f"has no certificate that can be trusted: {problem}$"):
            await ask(pool, secure(server.port), trusting(authority))
        assert server.heads == []


async def test_a_certificate_for_another_address(pool: UpstreamPool, authority: Authority) -> None:
    async with TlsUpstream(authority.server("10.0.0.1"), HI) as server:
        with pytest.raises(UpstreamError, match="it is for another address"):
            await ask(pool, secure(server.port, "127.0.0.1"), trusting(authority))


async def test_another_name_to_ask_for(pool: UpstreamPool, authority: Authority) -> None:
    """It is the one that has to be in the certificate, too."""
    async with TlsUpstream(authority.server("api.internal"), HI) as server:
        way = trusting(authority, server_name="api.internal")
        assert await ask(pool, secure(server.port, "127.0.0.1"), way) == b"hi"
        assert server.names == ["api.internal"]
        with pytest.raises(UpstreamError, match="it is for another name"):
            await ask(pool, secure(server.port), trusting(authority, server_name="localhost"))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("in_one_file", [True, False])
async def test_a_certificate_of_our_own(
    pool: UpstreamPool, authority: Authority, tmp_path: Path, version: ssl.TLSVersion, in_one_file: bool
) -> None:
    certificate, key = authority.issue("client-1")
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    files = {"client_cert_file": str(certificate), "client_key_file": str(key)}
    way = trusting(authority, **({"client_cert_file": str(both)} if in_one_file else files))
    context = authority.server("localhost", clients=True)
    context.minimum_version = context.maximum_version = version
    async with TlsUpstream(context, HI) as server:
        assert await ask(pool, secure(server.port), way) == b"hi"
        assert server.subjects == ["client-1"]


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        (ssl.TLSVersion.TLSv1_2, "does not speak TLS, or wants another kind of it"),
        (ssl.TLSVersion.TLSv1_3, "refuses the client's certificate, or wants one; see client_cert_file"),
    ],
)
async def test_a_server_that_wants_a_certificate_of_ours(
    pool: UpstreamPool, authority: Authority, version: ssl.TLSVersion, problem: str
) -> None:
    context = authority.server("localhost", clients=True)
    context.minimum_version = context.maximum_version = version
    with TlsServer(context, HI) as server:  # with blocking sockets, which send the alert
        with pytest.raises(UpstreamError, match=problem):
            await ask(pool, secure(server.port), trusting(authority))
        assert server.requests == []


async def test_old_versions_are_refused(pool: UpstreamPool, authority: Authority) -> None:
    context = authority.server("localhost")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with TlsUpstream(context, HI) as server:
        with pytest.raises(UpstreamError, match="does not speak TLS, or wants another kind of it"):
            await ask(pool, secure(server.port), trusting(authority))
        assert server.heads == []


def test_every_context_verifies(authority: Authority) -> None:
    certificate, key = authority.issue("client")
    for tls in (Tls(), Tls(str(authority.ca_file)), Tls(None, str(certificate), str(key), "name")):
        context = build_context(tls)
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_contexts_are_made_once(authority: Authority) -> None:
    trust = Trust()
    for tls in (Tls(), Tls(str(authority.ca_file))):
        assert trust.context(tls) is trust.context(tls)
    with pytest.raises(Untrustworthy) as caught:
        trust.context(Tls("/no/such/file"))
    assert caught.value.key == "ca_file"


async def test_a_name_that_is_written_to_its_end(authority: Authority) -> None:
    """The last dot is the resolver's, and no part of the name that TLS asks for (RFC 6066 section 3)."""
    async with TlsUpstream(authority.server("api.test"), HI) as server:
        names = Names(("127.0.0.1", server.port))
        pool = UpstreamPool(resolve=names)
        assert await ask(pool, secure(server.port, "api.test."), trusting(authority)) == b"hi"
        assert names.asked == [("api.test.", server.port)]
        assert server.names == ["api.test"]
        pool.close()


async def test_calls_cancelled_at_any_turn_of_a_handshake_leave_nothing(authority: Authority) -> None:
    pool = UpstreamPool()
    async with TlsUpstream(authority.server("localhost"), HI) as server:
        assert await ask(pool, secure(server.port), trusting(authority)) == b"hi"
        for turns in range(60):
            call = asyncio.create_task(pool.send(secure(server.port), GET, Way(Tls(None, server_name="x"))))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        for _ in range(500):
            if server.open == 1:
                break
            await asyncio.sleep(0.02)
        assert server.open == 1
        pool.close()


async def test_a_handshake_cancelled_leaves_nothing() -> None:
    async with FaultServer([hang]) as server:
        pool = UpstreamPool(connect_s=0.1)
        with pytest.raises(UpstreamTimeout):
            await ask(pool, secure(server.port))  # what an event loop opens once
        await soon(server.peers[0].gone)
        before = descriptors()
        calls = [asyncio.create_task(pool.send(secure(server.port), GET)) for _ in range(10)]
        await settle(0.05)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await settled(before, server)


# ---------------------------------------------------------------- proxies


async def test_a_tunnel_to_an_https_upstream(pool: UpstreamPool, authority: Authority) -> None:
    """Its name is for the proxy to resolve, and its certificate for us to judge."""
    async with TlsUpstream(authority.server("api.example.com"), HI) as server, TunnelProxy() as proxy:
        origin = secure(server.port, "api.example.com")
        way = Way(trusting(authority).tls, through(proxy.port).proxy)
        assert [await ask(pool, origin, way) for _ in range(2)] == [b"hi", b"hi"]
        authority_ = f"api.example.com:{server.port}"
        assert proxy.heads == [f"CONNECT {authority_} HTTP/1.1\r\nHost: {authority_}\r\n\r\n".encode()]
        assert server.heads == [GET.head] * 2
        assert server.names == ["api.example.com"]
        with pytest.raises(UpstreamError, match=r"https://api\.example\.com:.* its authority is not known"):
            await ask(pool, origin, through(proxy.port))


async def test_a_tunnel_to_an_http_upstream(pool: UpstreamPool) -> None:
    """The same, so that bytes arrive as they were sent and the proxy's answers are not taken for the upstream's."""
    async with FaultServer([serve(HI)]) as server, TunnelProxy() as proxy:
        origin = Origin("http", "api.example.com", server.port)
        assert [await ask(pool, origin, through(proxy.port)) for _ in range(2)] == [b"hi", b"hi"]
        assert server.requests == [GET.head] * 2
        assert proxy.connections == 1
        assert await ask(pool, Origin("http", "127.0.0.1", server.port)) == b"hi"
        assert proxy.connections == 1


async def test_a_tunnel_to_an_address(pool: UpstreamPool) -> None:
    async with FaultServer([serve(HI)], host="127.0.0.1") as server, TunnelProxy() as proxy:
        assert await ask(pool, Origin("http", "fd00::1", server.port), through(proxy.port)) == b"hi"
        assert proxy.heads[0].startswith(f"CONNECT [fd00::1]:{server.port} HTTP/1.1\r\n".encode())


async def test_credentials_of_a_proxy(pool: UpstreamPool) -> None:
    """They go to the proxy, and no further."""
    encoded = b64encode("mé:p@ss word".encode()).decode()
    async with FaultServer([serve(HI)]) as server, TunnelProxy(encoded) as proxy:
        origin = Origin("http", "api.example.com", server.port)
        assert await ask(pool, origin, through(proxy.port, "m%C3%A9:p%40ss%20word@")) == b"hi"
        assert server.requests == [GET.head]


@pytest.mark.parametrize(
    ("answer", "credentials", "problem"),
    [
        (b"407 No", "", r"wants a user name and password \(407\); write them into its URL"),
        (b"407 No", "me:canary@", r"refuses its user name and password \(407\); mend them in its URL"),
        (b"403 No", "", r"does not let calls through to http://api\.example\.com \(403\)"),
        (b"502 No", "", r"has no way to http://api\.example\.com \(502\)"),
        (b"503 No", "", r"has no way to http://api\.example\.com \(503\)"),
        (b"301 No", "", r"has no way to http://api\.example\.com \(301\)"),
        (b"401 No", "", r"has no way to http://api\.example\.com \(401\)"),
    ],
)
async def test_a_proxy_that_says_no(
    pool: UpstreamPool, caplog: pytest.LogCaptureFixture, answer: bytes, credentials: str, problem: str
) -> None:
    caplog.set_level(logging.DEBUG)
    raw = b"HTTP/1.1 " + answer + b"\r\nContent-Length: 4\r\n\r\nbody"
    async with FaultServer([read, send(raw), hang]) as server:
        way = through(server.port, credentials)
        with pytest.raises(UpstreamError, match=rf"^the proxy http://127\.0\.0\.1:\d+ {problem}$") as caught:
            await ask(pool, NAME, way)
        assert type(caught.value) is UpstreamUnreachable
        assert server.connections == 1
        await soon(server.peers[0].gone)
    assert "canary" not in caplog.text + repr(way) + repr(caught.value)


async def test_a_proxy_for_which_the_upstream_was_too_slow(pool: UpstreamPool) -> None:
    async with FaultServer([read, send(b"HTTP/1.1 504 Late\r\n\r\n"), hang]) as server:
        with pytest.raises(UpstreamTimeout, match=r"the proxy .* has no way to .* \(504\)"):
            await ask(pool, NAME, through(server.port))


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"<html></html>\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3000,
    ],
    ids=lambda raw: repr(raw[:30]),
)
async def test_a_proxy_that_speaks_no_http(pool: UpstreamPool, raw: bytes) -> None:
    async with FaultServer([read, send(raw), hang]) as server:
        with pytest.raises(
            UpstreamError, match=r"^the proxy http://127.* gave an answer that is not valid HTTP$"
        ):
            await ask(pool, NAME, through(server.port))
        await soon(server.peers[0].gone)


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [reset],
        [read],
        [read, reset],
        [read, half_close, hang],
        [read, send(b"HTTP/1.1 200 OK\r\n")],
        [read, send(b"HTTP/1.1 2"), pause(0.02), reset],
    ],
)
async def test_a_proxy_that_closes(pool: UpstreamPool, steps: list[Step]) -> None:
    async with FaultServer(steps) as server:
        with pytest.raises(
            UpstreamError, match=r"^the proxy http://127.* closed the connection before it answered$"
        ):
            await ask(pool, NAME, through(server.port))
        assert server.connections == 1


@pytest.mark.parametrize("steps", [[hang], [read, hang], [read, send(b"HTTP/1.1 100 C\r\n\r\nHTTP"), hang]])
async def test_a_proxy_that_hangs(steps: list[Step]) -> None:
    async with FaultServer(steps) as server:
        with pytest.raises(UpstreamTimeout, match=r"^the proxy http://127.* did not answer in time$"):
            await ask(UpstreamPool(connect_s=0.2), NAME, through(server.port))
        await soon(server.peers[0].gone)


async def test_a_proxy_that_is_not_there(pool: UpstreamPool) -> None:
    with pytest.raises(UpstreamError, match=r"^the proxy http://127.* cannot be connected to$"):
        await ask(pool, NAME, through(refused_port()))
    with black_hole() as port, pytest.raises(UpstreamTimeout, match=r"^the proxy .* did not accept a conn"):
        await ask(UpstreamPool(connect_s=0.2), NAME, through(port))


async def test_a_proxy_that_says_more_than_it_was_asked(pool: UpstreamPool) -> None:
    """It would be taken for the upstream's answer."""
    async with FaultServer([read, send(OPEN + HI), hang]) as server:
        with pytest.raises(UpstreamError, match=r"the proxy .* sent more than an answer"):
            await ask(pool, NAME, through(server.port))


async def test_an_answer_of_a_proxy_in_pieces(pool: UpstreamPool) -> None:
    raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 204 Fine\r\nVia: x\r\n\r\n"
    async with FaultServer([read, slices(raw, 1, 0.001), serve(HI)]) as server:
        assert await ask(pool, NAME, through(server.port)) == b"hi"


async def test_an_upstream_that_fails_behind_a_proxy_is_not_taken_for_it(pool: UpstreamPool) -> None:
    async with FaultServer([read, send(OPEN), read, reset]) as server:
        with pytest.raises(UpstreamError, match=r"^the upstream closed the connection"):
            await ask(pool, NAME, through(server.port))


async def test_a_stale_tunnel_is_opened_anew_once(pool: UpstreamPool) -> None:
    async with FaultServer(
        [read, send(OPEN), read, send(HI), read, reset], [read, send(OPEN), serve(HI)]
    ) as server:
        assert [await ask(pool, NAME, through(server.port)) for _ in range(2)] == [b"hi", b"hi"]
        assert server.connections == 2


async def test_a_locked_key_asks_nobody(authority: Authority, tmp_path: Path) -> None:
    certificate, _ = authority.issue("client")
    key = write_key(tmp_path / "locked.key", authority._key, "secret")
    with pytest.raises(Untrustworthy, match="has a passphrase"):
        build_context(Tls(None, str(certificate), str(key)))
