"""Threat 9: a daemon at the level debug, with everything that can go wrong, and every command beside it. What comes out is searched."""

import asyncio
import sys
from pathlib import Path
from typing import Final
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web

import canaries
from commands import run
from daemons import RunningDaemon
from login_server import LoginServer
from login_world import Browser
from upstreams import ApiUpstream, accept_any_of
from users import looks_into_daemon

pytestmark = pytest.mark.threat(9)

PATHS: Final = (
    "/-/",
    "/-/status",
    "/-/livez",
    "/-/login",
    "/-/callback",
    "/-/nope",
    "/nowhere",
    "/me/x",
    "/broken/x",
)
FEW: Final = (("token", "me"), ("status", "--json"))
ALL: Final = (
    *FEW,
    *(("status",), ("config", "check"), ("config", "show"), ("doctor",)),
    *(("token", account) for account in ("static", "file", "command", "service")),
    *(("refresh", account) for account in ("me", "service", "static")),
)


def configure(folder: Path, server: LoginServer, api: ApiUpstream, broken: str) -> str:
    """An account of each kind, with its secret where it can be."""
    (folder / "a-token").write_text(canaries.make("file"))
    (folder / "a-secret").write_text(canaries.make("secret"))
    printing = (
        f"import sys; sys.stderr.write({canaries.make('stderr')!r}); print({canaries.make('command')!r})"
    )
    return f"""
[store]
kind = "vault"
path = "{folder}/vault"
key_file = "{folder}/vault.key"
[accounts.me]
issuer = "{server.issuer}"
client_id = "app"
scopes = ["openid", "offline_access"]
[accounts.static]
token = "{canaries.make("static")}"
[accounts.file]
token_file = "{folder}/a-token"
[accounts.command]
command = ["{sys.executable}", "-c", '''{printing.replace("'", '"')}''']
[accounts.service]
grant = "client_credentials"
token_endpoint = "{broken}/token"
client_id = "app"
client_secret_file = "{folder}/a-secret"
[routes."/me/"]
upstream = "{api.url}"
account = "me"
[routes."/static/"]
upstream = "{api.url}"
account = "static"
headers = {{ X-Api-Key = "{canaries.make("header")}" }}
[routes."/file/"]
upstream = "{api.url}"
account = "file"
[routes."/command/"]
upstream = "{broken}"
account = "command"
[routes."/broken/"]
upstream = "{broken}"
account = "static"
[routes."/service/"]
upstream = "{broken}"
account = "service"
"""


class Broken:
    """An API and a token endpoint whose every word is a secret of somebody's: errors that quote what they were asked."""

    def __init__(self) -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)

    async def __aenter__(self) -> str:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = (await request.read()).decode()
        quoted = f"{request.headers.get('Authorization')} {body} {canaries.make('upstream')}"
        if request.path == "/token":
            words = f"client {quote(body)} with {request.headers.get('Authorization')} is unknown"
            return web.json_response({"error": "invalid_client", "error_description": words}, status=401)
        if request.path == "/cut":
            response = web.StreamResponse(headers={"Content-Length": "1000", "X-Said": "x"})
            await response.prepare(request)
            await response.write(quoted.encode())
            assert request.transport is not None
            request.transport.abort()
            return response
        return web.Response(status=500, text=quoted)


async def ask(client: aiohttp.ClientSession, url: str, *, own: bool, method: str = "GET") -> int:
    """What of it is bearerd's `own` answer is noted, the API's is the client's to have."""
    try:
        async with client.request(
            method, url, allow_redirects=False, data=b"x" if method == "POST" else None
        ) as response:
            fields = "\n".join(
                f"{name}: {value}"
                for name, value in response.headers.items()
                if name not in {"Location", "Set-Cookie"}
            )
            canaries.note(f"the fields of {method} {url.partition('?')[0]}", fields)
            text = await response.text()
            if own:
                canaries.note(f"the answer to {method} {url.partition('?')[0]}", text)
            return response.status
    except aiohttp.ClientError:
        return 0


async def log_in(browser: Browser, url: str) -> str:
    """The callback's address, once it has been used."""
    back = (await browser.go((await browser.go(f"{url}/-/login/me")).location)).location
    assert (await browser.follow(back)).status == 200
    return back


@pytest.mark.parametrize("commands", [FEW, pytest.param(ALL, marks=pytest.mark.soak)], ids=["few", "all"])
async def test_a_day_of_a_daemon_s(tmp_path: Path, commands: tuple[tuple[str, ...], ...]) -> None:
    async with (
        Broken() as broken,
        LoginServer() as server,
        ApiUpstream(accept_any_of(server.valid)) as api,
        RunningDaemon(tmp_path, configure(tmp_path, server, api, broken)) as daemon,
        Browser() as browser,
        aiohttp.ClientSession() as client,
    ):
        file = tmp_path / "bearerd.toml"
        for path in PATHS:
            await ask(client, daemon.url + path, own=not path.startswith("/broken"))
            await ask(client, daemon.url + path, own=not path.startswith("/broken"), method="POST")
        used = await log_in(browser, daemon.url)
        assert (await browser.follow(used)).status == 400, "it was used"
        server.denial = (
            "access_denied",
            f"no {canaries.make('denial')} for access_token={canaries.make('said')}",
        )
        server.denial = (server.denial[0], "token=a-quoted-token refused")
        canaries.know("a-quoted-token", "quoted token")
        denied = (await browser.go((await browser.go(f"{daemon.url}/-/login/me")).location)).location
        assert (await browser.follow(denied)).status == 400
        server.denial = None
        for path in ("/me/x", "/static/x", "/file/x", "/command/x", "/broken/x", "/broken/cut", "/service/x"):
            await ask(client, daemon.url + path, own=path.startswith("/service"))
        server.valid.clear()
        assert await ask(client, f"{daemon.url}/me/x", own=False) == 200, "replayed with a newer token"
        server.error = "invalid_grant"
        server.valid.clear()
        await ask(client, f"{daemon.url}/me/x", own=False)
        for words in commands:
            assert (await run(*words, "-c", file)).status in {0, 1, 4}
        await browser.go(f"{daemon.url}/-/")
        server.error = None
        await log_in(browser, daemon.url)
        assert (await run("logout", "me", "-c", file)).status == 0
        for path in PATHS:
            await browser.go(daemon.url + path) if not path.startswith("/broken") else None
    assert '"level": "warning"' in daemon.log
    assert "request.forwarded" in daemon.log


SOAK: Final = pytest.mark.soak


@pytest.mark.parametrize(
    "words",
    [
        ("token", "service"),
        pytest.param(("logout", "me"), marks=SOAK),
        pytest.param(("refresh", "me"), marks=SOAK),
        pytest.param(("doctor",), marks=SOAK),
    ],
)
async def test_commands_by_themselves(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Where no daemon runs, and nothing that they ask works."""
    async with Broken() as broken, LoginServer() as server, ApiUpstream(accept_any_of(())) as api:
        server.error = "invalid_grant"
        file = tmp_path / "bearerd.toml"
        file.write_text("[listen]\nport = 0\n" + configure(tmp_path, server, api, broken))
        file.chmod(0o600)
        ended = await run(
            *words,
            "-c",
            file,
            PYTHONASYNCIODEBUG="1",
            PYTHONWARNINGS="always",
            XDG_RUNTIME_DIR=str(tmp_path),
        )
        assert ended.status in {0, 1, 4}


@looks_into_daemon
async def test_secrets_given_by_environment_stay_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documented: what came in so can be read there. None of the programs it starts has it, nor do the arguments."""
    secret = canaries.make("environment")
    monkeypatch.setenv("BEARERD_ACCOUNTS__WORK__REFRESH_TOKEN", secret)
    monkeypatch.setenv("BEARERD_ACCOUNTS__WORK__CLIENT_ID", "app")
    monkeypatch.setenv("BEARERD_ACCOUNTS__WORK__TOKEN_ENDPOINT", "http://127.0.0.1:9/token")
    monkeypatch.setenv("BEARERD_STORE__KIND", "memory")
    toml = f"""
[accounts.slow]
command = ["sh", "-c", "echo $$ > {tmp_path}/pid; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"]
[routes."/"]
upstream = "http://127.0.0.1:9"
account = "slow"
"""
    async with RunningDaemon(tmp_path, toml) as daemon:
        async with asyncio.timeout(20):
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.02)
        given = Path(f"/proc/{daemon.pid}/environ").read_bytes()
        child = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/environ").read_bytes()
        (tmp_path / "go").touch()
        assert secret.encode() in given
        assert secret.encode() not in child
