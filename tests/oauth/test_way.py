"""The way to an authorization server: through a proxy, and by an authority of one's own."""

import json
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from bearerd.assembly import SystemClock
from bearerd.core.accounts import Grant, OAuthSource
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.proxies import parse_proxy
from bearerd.core.redaction import Secret
from bearerd.core.targets import DIRECT, Proxy, Tls, Way
from bearerd.core.tokens import Granted, TokenSet
from bearerd.oauth.endpoint import OAuthTokenSource
from bearerd.oauth.exchange import open_session
from bearerd.oauth.server import OAuthServer
from bearerd.trust import known_context, seal
from certificates import Authority
from faults import FaultServer, Step, hang, read, refused_port, repeat, reply, reset, send, serve
from relays import TlsUpstream, TunnelProxy

SECRETS: Final = ("c1ient-secret", "refresh-t0ken")
ANSWER: Final = reply(
    json.dumps({"access_token": "t", "token_type": "Bearer", "expires_in": 300}).encode(),
    "200 OK",
    "Content-Type: application/json",
)
OPEN: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
CURRENT: Final = TokenSet(1, Secret("old"), 0.0, 1.0, Secret(SECRETS[1]))
SOURCE: Final = OAuthSource(Grant.REFRESH_TOKEN, "the client", client_secret=Secret(SECRETS[0]))
NAME: Final = "login.example.com"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusting(authority: Authority) -> Way:
    return Way(Tls(str(authority.ca_file)))


def through(port: int, way: Way = DIRECT, credentials: str = "") -> Way:
    proxy = parse_proxy(f"http://{credentials}127.0.0.1:{port}")
    assert isinstance(proxy, Proxy)
    return replace(way, proxy=proxy)


async def obtain(url: str, way: Way, reply_s: float = 20.0) -> Granted | Failure:
    source = replace(SOURCE, token_endpoint=url, way=way)
    adapter = OAuthTokenSource(OAuthServer(source, SystemClock(), open_session()), reply_s=reply_s)
    try:
        return await adapter.obtain(CURRENT)
    finally:
        await adapter.aclose()


def unspent(outcome: Granted | Failure, *servers: FaultServer) -> str:
    """Why there is no token, where nothing secret has left and so nothing can have been spent."""
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.TRANSIENT
    for secret in SECRETS:
        assert all(secret.encode() not in peer.received for server in servers for peer in server.peers)
        assert secret not in outcome.reason
    return outcome.reason


async def test_an_authority_of_one_s_own(authority: Authority, trusting: Way) -> None:
    async with TlsUpstream(authority.server("127.0.0.1"), ANSWER) as server:
        url = f"https://127.0.0.1:{server.port}/token"
        assert isinstance(await obtain(url, trusting), Granted)
        assert unspent(await obtain(url, DIRECT)) == (
            "the token endpoint has no certificate that can be trusted"
        )
        assert len(server.heads) == 1


async def test_an_authority_of_one_s_own_is_the_only_one(authority: Authority, tmp_path: Path) -> None:
    other = Way(Tls(str(Authority(tmp_path, "other").ca_file)))
    async with TlsUpstream(authority.server("127.0.0.1"), ANSWER) as server:
        unspent(await obtain(f"https://127.0.0.1:{server.port}/token", other))
        assert server.heads == []


async def test_the_file_of_an_authority_that_has_gone(tmp_path: Path) -> None:
    way = Way(Tls(str(tmp_path / "gone.pem")))
    assert unspent(await obtain(f"https://127.0.0.1:{refused_port()}/token", way)) == (
        f"the token endpoint cannot be reached: {tmp_path}/gone.pem cannot be read: no such file or directory; "
        "mend that or name another file"
    )


async def test_a_tunnel(authority: Authority, trusting: Way) -> None:
    """The name is for the proxy to resolve; what is secret passes it under TLS."""
    async with TlsUpstream(authority.server(NAME), ANSWER) as server, TunnelProxy() as proxy:
        url = f"https://{NAME}:{server.port}/token"
        assert isinstance(await obtain(url, through(proxy.port, trusting)), Granted)
        unspent(await obtain(url, through(proxy.port)))
        assert [head.split(b"\r\n")[0] for head in proxy.heads] == [
            f"CONNECT {NAME}:{server.port} HTTP/1.1".encode()
        ] * 2
        assert b"uthorization" not in b"".join(proxy.heads)
        assert server.names == [NAME] * 2
        assert len(server.heads) == 1


@pytest.mark.parametrize("host", ["https://{}", "HTTPS://{}", "https://{}."])
async def test_however_the_server_s_address_is_written(
    authority: Authority, trusting: Way, host: str
) -> None:
    async with TlsUpstream(authority.server(NAME), ANSWER) as server, TunnelProxy() as proxy:
        url = f"{host.format(NAME)}:{server.port}/token"
        assert isinstance(await obtain(url, through(proxy.port, trusting)), Granted)
        unspent(await obtain(url, through(proxy.port)))
        assert proxy.connections == 2
        assert len(server.heads) == 1


async def test_credentials_of_a_proxy_go_no_further(authority: Authority, trusting: Way) -> None:
    encoded = b64encode("mé:p@ss word".encode()).decode()
    async with TlsUpstream(authority.server(NAME), ANSWER) as server, TunnelProxy(encoded) as proxy:
        way = through(proxy.port, trusting, "m%C3%A9:p%40ss%20word@")
        assert isinstance(await obtain(f"https://{NAME}:{server.port}/token", way), Granted)
        assert b"roxy" not in server.heads[0]
        assert encoded.encode() not in server.heads[0]


async def test_this_machine_s_http_is_reached_without_a_proxy() -> None:
    async with FaultServer([serve(ANSWER)]) as server, FaultServer([read, hang]) as proxy:
        assert isinstance(await obtain(f"{server.url}/token", through(proxy.port)), Granted)
        assert proxy.connections == 0


async def test_a_reply_that_is_lost_behind_a_proxy_may_have_spent_the_token(
    authority: Authority, trusting: Way
) -> None:
    async with TlsUpstream(authority.server(NAME), b"") as server, TunnelProxy() as proxy:
        url = f"https://{NAME}:{server.port}/token"
        outcome = await obtain(url, through(proxy.port, trusting), reply_s=1.0)
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.OUTCOME_UNKNOWN
        assert len(server.heads) == 1


@pytest.mark.parametrize(
    ("answer", "credentials", "problem"),
    [
        ("407 No", "", "wants a user name and password (407); write them into its URL"),
        ("407 No", "me:canary@", "refuses its user name and password (407); mend them in its URL"),
        ("403 No", "", f"does not let calls through to https://{NAME} (403)"),
        ("502 No", "", f"has no way to https://{NAME} (502)"),
        ("302 No", "", f"has no way to https://{NAME} (302)"),
        ("204 No", "", "opens no way there"),
    ],
)
async def test_a_proxy_that_says_no_spends_nothing(answer: str, credentials: str, problem: str) -> None:
    raw = f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode()
    async with FaultServer([read, send(raw), hang]) as proxy:
        reason = unspent(
            await obtain(f"https://{NAME}/token", through(proxy.port, credentials=credentials)), proxy
        )
        assert reason == f"the token endpoint cannot be reached: the proxy {proxy.url} {problem}"
        assert proxy.connections == 1


@pytest.mark.parametrize(
    "steps",
    [
        [hang],
        [read],
        [read, hang],
        [read, reset],
        [read, send(b"garbage\r\n\r\n")],
        [read, send(OPEN[:20]), hang],
        [read, send(b"HTTP/1.1 200 OK\r\nA: "), repeat(b"b" * 65536, 100), hang],
        [read, send(OPEN), hang],
        [read, send(OPEN), reset],
        [read, send(OPEN)],
    ],
)
async def test_a_proxy_that_fails_spends_nothing(steps: list[Step]) -> None:
    async with FaultServer(steps) as proxy:
        outcome = await obtain(f"https://{NAME}/token", through(proxy.port), reply_s=1.0)
        reason = unspent(outcome, proxy)
        assert reason == f"the token endpoint cannot be reached: the proxy {proxy.url} opens no way there"
        assert proxy.connections == 1


async def test_a_proxy_that_answers_in_the_server_s_place_gets_no_secret() -> None:
    async with FaultServer([read, send(OPEN), send(ANSWER), hang]) as proxy:
        unspent(await obtain(f"https://{NAME}/token", through(proxy.port)), proxy)


async def test_a_proxy_that_is_not_there() -> None:
    port = refused_port()
    assert unspent(await obtain(f"https://{NAME}/token", through(port))) == (
        f"the token endpoint cannot be reached: the proxy http://127.0.0.1:{port} opens no way there"
    )


async def test_another_way_is_taken_from_the_next_request_on(authority: Authority, trusting: Way) -> None:
    async with (
        TlsUpstream(authority.server(NAME), ANSWER) as server,
        TunnelProxy() as one,
        TunnelProxy() as other,
    ):
        url = f"https://{NAME}:{server.port}/token"
        source = replace(SOURCE, token_endpoint=url, way=through(one.port, trusting))
        asked = OAuthServer(source, SystemClock(), open_session())
        adapter = OAuthTokenSource(asked)
        assert isinstance(await adapter.obtain(CURRENT), Granted)
        asked.renew(replace(source, way=through(other.port, trusting)))
        assert isinstance(await adapter.obtain(CURRENT), Granted)
        await adapter.aclose()
        assert (one.connections, other.connections) == (1, 1)


async def test_authorities_are_those_of_when_the_settings_were_read(tmp_path: Path) -> None:
    """As of routes: what stands in the file by now counts from the next reload on."""
    authority = Authority(tmp_path)
    tls = Tls(str(authority.ca_file))
    way = Way(replace(tls, seal=seal(tls)))
    known_context(way.tls)
    authority.ca_file.unlink()
    async with TlsUpstream(authority.server("127.0.0.1"), ANSWER) as server:
        assert isinstance(await obtain(f"https://127.0.0.1:{server.port}/token", way), Granted)
