"""The authorization server and the sample API, running, and the configuration that leads to them."""

import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self

from aiohttp import web

from bearerd.core.accounts import Account, ClientAuth, Grant, OAuthSource
from bearerd.core.configuration import Configuration, Listen, Store
from bearerd.core.redaction import Secret
from bearerd.core.targets import parse_route
from bearerd.demo.authorization_server import AuthorizationServer, Lifetimes
from bearerd.demo.sample_api import SampleApi

ACCOUNT: Final = "service"
PERSON: Final = "me"
CLIENT_ID: Final = "bearerd-demo"
APP_ID: Final = "bearerd-demo-app"

_LOOPBACK: Final = "127.0.0.1"
_SHUTDOWN_S: Final = 1.0

_TEXT: Final = """\
bearerd demo: an API that wants an OAuth token, and bearerd in front of it, which adds one to every call.

Call the API; you send no token:
  curl -s {url}/hello

Watch the token change for a minute; each lives {lifetime_s} seconds and is replaced before it expires:
  for i in 1 2 3 4 5 6 7; do curl -s {url}/hello | grep fingerprint; sleep 10; done

Revoke the token in use, and call again; the call succeeds with a new one:
  curl -s -X POST {url}/revoke-me; curl -s {url}/hello

Log in, as a person does, and come back to the API's answer; open this in a browser:
  {page}
"""


@dataclass(frozen=True, slots=True)
class Demo:
    """Both servers while they run. The client secret is another at each start, unless one is given."""

    authorization_server: AuthorizationServer
    api_url: str
    client_id: str
    client_secret: Secret
    lifetimes: Lifetimes

    @classmethod
    @asynccontextmanager
    async def start(
        cls, lifetimes: Lifetimes | None = None, ports: tuple[int, int] = (0, 0), secret: Secret | None = None
    ) -> AsyncIterator[Self]:
        """Run both on `ports` of 127.0.0.1, or on free ones, until the context ends. Raises OSError if it cannot listen."""
        lifetimes = lifetimes or Lifetimes()
        client_secret = secret or Secret(f"demo-secret-{secrets.token_hex(32)}")
        async with AsyncExitStack() as stack:
            # Bound before it is served, because the metadata names the port.
            listener = stack.enter_context(_listen(ports[0]))
            server = AuthorizationServer(
                _url_of(listener), CLIENT_ID, client_secret, lifetimes=lifetimes, app_id=APP_ID
            )
            await stack.enter_async_context(_serve(server.build_application(), listener))
            listener = stack.enter_context(_listen(ports[1]))
            api = SampleApi(server.introspect, server.revoke)
            await stack.enter_async_context(_serve(api.build_application(), listener))
            yield cls(server, _url_of(listener), CLIENT_ID, client_secret, lifetimes)

    @property
    def issuer(self) -> str:
        return self.authorization_server.issuer

    def configuration(self, port: int) -> Configuration:
        """For a bearerd on `port` that has the sample API under /service/, and under /me/ for who logs in.

        Nothing is left behind: logins last as long as the process.
        """
        source = OAuthSource(
            grant=Grant.CLIENT_CREDENTIALS,
            client_id=self.client_id,
            client_secret=self.client_secret,
            issuer=self.issuer,
        )
        login = OAuthSource(
            grant=Grant.AUTHORIZATION_CODE,
            client_id=APP_ID,
            client_auth=ClientAuth.NONE,
            issuer=self.issuer,
            scopes=("openid", "demo:read"),
        )
        return Configuration(
            accounts={ACCOUNT: Account(ACCOUNT, source), PERSON: Account(PERSON, login)},
            routes=(
                parse_route("/service/", self.api_url, ACCOUNT),
                parse_route("/me/", self.api_url, PERSON),
            ),
            listen=Listen(port=port),
            store=Store(kind="memory"),
        )

    def first_lines(self, port: int) -> str:
        """What a user reads first: a sentence, three commands and a page, for a bearerd on `port`."""
        base = f"http://{_LOOPBACK}:{port}"
        return _TEXT.format(
            url=f"{base}/service", page=f"{base}/me/hello", lifetime_s=self.lifetimes.access_s
        )


def _listen(port: int) -> socket.socket:
    return socket.create_server((_LOOPBACK, port))


def _url_of(listener: socket.socket) -> str:
    return f"http://{_LOOPBACK}:{listener.getsockname()[1]}"


@asynccontextmanager
async def _serve(application: web.Application, listener: socket.socket) -> AsyncIterator[None]:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()
