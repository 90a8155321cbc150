"""Set-ups that are broken for real: the doctor names the fault, what its line says is done, and the line turns ok."""

import asyncio
import json
import os
import plistlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from bearerd.assembly import SystemClock
from bearerd.cli import main
from bearerd.cli.config import format_accounts
from bearerd.cli.service import Systemd
from bearerd.core.accounts import OAuthSource
from bearerd.core.client_keys import ClientKey, build_document
from bearerd.core.configuration import Listen, Store
from bearerd.core.metadata import parse_metadata
from bearerd.core.redaction import Secret
from bearerd.core.targets import DIRECT, Origin
from bearerd.core.tokens import TokenSet
from bearerd.core.vault import Key, build_identity, build_key, seal
from bearerd.demo.world import Demo
from bearerd.doctor import Finding, Level, Network, examine, examine_accounts
from bearerd.doctor.destinations import Place
from bearerd.doctor.holders import examine_ports, examine_socket, find_holder, judge_holder
from bearerd.doctor.pace import Check, aside, side_by_side
from bearerd.doctor.reach import try_place
from bearerd.doctor.servers import Questions
from bearerd.doctor.services import judge_service, parse_plist
from bearerd.doctor.surroundings import examine_audit, examine_runtime, examine_spool
from bearerd.oauth.exchange import open_session
from bearerd.settings import Loaded, load
from bearerd.stores.keys import load_key
from bearerd.stores.vault import VaultFolder
from certificates import Authority
from clocks import FakedClock
from daemons import RunningDaemon
from disks import mounted
from faults import FaultServer, black_hole, hang, read, refused_port, reply, send
from oidc_peer import BASIC_CLIENT, FOLDER, find_node
from relays import TunnelProxy
from test_keychain import Desktop, desktop, home
from test_rekey import write_key
from users import bound_by_permissions, shared_folder

__all__ = ["desktop", "home"]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount; run by CI")

LIMIT_S: Final = 60.0  # for a machine that has other things to do; commands themselves give up after 4.5 s
NOT_REGISTERED: Final = "http://127.0.0.1:6750/elsewhere"
REGISTERED: Final = "http://localhost/registered/elsewhere"


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """A real authorization server for all tests here."""
    with subprocess.Popen(
        [find_node(), FOLDER / "server.mjs", "{}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["issuer"]
        finally:
            process.stdin.close()  # which ends it


class SetUp:
    """A configuration as tables, and what surrounds it. It is sound to begin with."""

    def __init__(self, folder: Path, runtime: Path, issuer: str) -> None:
        self.folder = folder
        self.runtime = runtime  # of a short name, as sockets want it
        self.file = folder / "bearerd.toml"
        self.environ = {"XDG_RUNTIME_DIR": str(runtime), "PATH": os.environ["PATH"]}
        self.service: dict[str, Any] = {
            "grant": "client_credentials",
            "issuer": issuer,
            "client_id": BASIC_CLIENT.client_id,
            "client_secret": BASIC_CLIENT.client_secret,
            "scopes": ["api:read"],
        }
        self.work: dict[str, Any] = {
            "issuer": issuer,
            "client_id": "app-client",
            "scopes": ["openid", "offline_access", "api:read"],
        }
        self.route: dict[str, Any] = {"upstream": issuer, "account": "work"}
        self.tables: dict[str, dict[str, Any]] = {
            "listen": {"port": refused_port()},
            "store": {"path": "vault", "key_file": "vault.key"},
            "accounts.service": self.service,
            "accounts.work": self.work,
            'routes."/"': self.route,
        }

    def write(self) -> Path:
        lines = [
            line
            for name, table in self.tables.items()
            for line in (f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()))
        ]
        self.file.write_text("\n".join(lines) + "\n")
        self.file.chmod(0o600)
        return self.file

    async def findings(self, network: Network = Network.FULL) -> list[Finding]:
        loaded = load(self.write(), {}, self.environ)
        return [found async for found in examine(loaded, self.environ, network, LIMIT_S)]

    async def fault(self, subject: str, pattern: str, level: Level = Level.FAIL) -> str:
        """The cure of the only line that is not ok."""
        amiss = [finding for finding in await self.findings() if finding.level is not Level.OK]
        assert [(finding.level, finding.subject) for finding in amiss] == [(level, subject)], amiss
        assert re.search(pattern, amiss[0].found), amiss[0].found
        assert amiss[0].cure
        return amiss[0].cure

    async def is_sound(self) -> bool:
        amiss = [str(finding) for finding in await self.findings() if finding.level is not Level.OK]
        assert amiss == []
        return True

    async def run(self, *words: str) -> Result:
        """A command, while the servers of this process answer it."""
        arguments = [*words, "-c", str(self.write())]
        return await asyncio.to_thread(CliRunner(env=self.environ).invoke, main, arguments)

    def do(self, cure: str, word: str) -> None:
        """The command in a cure that begins with `word`, as a shell would do it, in this environment."""
        command = re.search(rf"\b{word}\b(?:[^;,)]|,(?! ))*", cure)
        assert command, cure
        script = f"{command[0]}\nenv -0"
        done = subprocess.run(["sh", "-ec", script], env=self.environ, capture_output=True, check=True)
        pairs = (pair.partition("=") for pair in done.stdout.decode().split("\0") if pair)
        self.environ |= {name: value for name, _, value in pairs}


def setting(cure: str, name: str) -> str:
    """What a cure says to set it to."""
    found = re.search(rf'{re.escape(name)} = "([^"]+)"', cure)
    assert found, cure
    return found[1]


@pytest.fixture
def set_up(tmp_path: Path, runtime: Path, issuer: str) -> SetUp:
    return SetUp(tmp_path, runtime, issuer)


async def test_what_is_sound_is_called_sound(set_up: SetUp) -> None:
    assert await set_up.is_sound()
    subjects = [finding.subject for finding in await set_up.findings()]
    server = ["discovery", "clock", "client", "scopes"]
    assert subjects[-10:] == ["reach", *server, "discovery", "clock", "client", "redirect", "scopes"]


async def test_the_demo_is_sound() -> None:
    async with Demo.start() as demo:
        loaded = Loaded(demo.configuration(refused_port()), None, (), ())
        findings = [found async for found in examine(loaded, {}, Network.FULL, LIMIT_S)]
    assert [str(finding) for finding in findings if finding.level is not Level.OK] == []
    assert len([finding for finding in findings if finding.subject == "discovery"]) == 2


async def test_the_command_says_the_same(set_up: SetUp) -> None:
    """Lines, exit codes, and nothing secret."""
    sound = await set_up.run("doctor", "--online")
    assert (sound.exit_code, sound.stderr) == (0, "")
    rows = [line.split(None, 2)[:2] for line in sound.stdout.splitlines()]
    assert rows == [["ok", finding.subject] for finding in await set_up.findings()]
    set_up.service["client_secret"] = "wrong-canary"
    broken = await set_up.run("doctor", "--online", "--json")
    assert (broken.exit_code, broken.stderr) == (1, "")
    assert "canary" not in broken.stdout
    (amiss,) = (found for found in json.loads(broken.stdout)["findings"] if found["level"] != "ok")
    assert (amiss["level"], amiss["subject"]) == ("fail", "client")


async def test_it_asks_of_nobody_what_it_may_not(set_up: SetUp) -> None:
    both = ["doctor", "--online", "--offline", "-c", str(set_up.write())]
    assert CliRunner().invoke(main, both).exit_code == 2
    async with FaultServer([hang]) as server:
        set_up.route["upstream"] = set_up.work["issuer"] = set_up.service["issuer"] = server.url
        assert [found for found in await set_up.findings(Network.NONE) if found.level is not Level.OK] == []
        assert server.connections == 0


class TestTime:
    async def test_what_hangs_is_given_up(self, set_up: SetUp) -> None:
        """Side by side: were it one after the other, it would take six times as long."""
        async with FaultServer([hang]) as server:
            set_up.route["upstream"] = set_up.work["issuer"] = set_up.service["issuer"] = server.url
            loaded = load(set_up.write(), {}, set_up.environ)
            began_at = time.monotonic()
            findings = [found async for found in examine(loaded, set_up.environ, Network.FULL, 0.5)]
            assert time.monotonic() - began_at < 20
        assert [found.subject for found in findings if found.level is Level.FAIL][-2:] == ["discovery"] * 2

    async def test_a_call_that_never_ends_holds_nobody_up(self) -> None:
        forever = Event()
        try:
            checks = [
                Check("stuck", lambda: aside(lambda: [] * forever.wait()), 0.1),
                Check("good", lambda: aside(lambda: [Finding(Level.OK, "good", "is")]), LIMIT_S),
            ]
            stuck, good = [found async for found in side_by_side(checks)]
        finally:
            forever.set()
        assert (
            str(stuck)
            == "FAIL  stuck        nothing is known of it within 0.1 s; see what hangs, and try again"
        )
        assert good.level is Level.OK

    async def test_an_error_is_not_lost_in_its_thread(self) -> None:
        def fail() -> list[Finding]:
            raise RuntimeError("a defect")

        with pytest.raises(RuntimeError, match="a defect"):
            _ = [found async for found in side_by_side([Check("x", lambda: aside(fail), LIMIT_S)])]


class TestConfigCheck:
    async def test_stages_can_be_compared(self, set_up: SetUp) -> None:
        """Twice the same, and another client is all the difference there is."""
        first = await self.check(set_up)
        assert first == await self.check(set_up)
        assert first["accounts"].keys() == {"service", "work"}
        work = first["accounts"]["work"]
        assert {name: check["level"] for name, check in work["checks"].items()} == dict.fromkeys(
            ("client", "discovery", "redirect", "scopes"), "ok"
        )
        assert first["accounts"]["service"]["settings"]["client_secret"] == "**********"
        set_up.work["client_id"] = "nobody"
        second = await self.check(set_up)
        assert second["accounts"]["service"] == first["accounts"]["service"]
        changed = second["accounts"]["work"]
        assert changed["settings"] == work["settings"] | {"client_id": "nobody"}
        assert {name for name, check in changed["checks"].items() if check != work["checks"][name]} == {
            "client",
            "redirect",
        }

    async def check(self, set_up: SetUp) -> Any:
        loaded = load(set_up.write(), {}, set_up.environ)
        return json.loads(format_accounts(loaded, await examine_accounts(loaded, LIMIT_S)))

    async def test_the_command(self, set_up: SetUp) -> None:
        set_up.tables["accounts.fixed"] = {"token": "canary"}
        set_up.work["redirect_uri"] = NOT_REGISTERED
        ended = await set_up.run("config", "check", "--online")
        good, head, *rows = ended.stdout.splitlines()
        assert (ended.exit_code, good[:21], head.split()) == (
            1,
            "configuration is good",
            ["ACCOUNT", "CHECK", "FOUND"],
        )
        assert [row.split()[:3] for row in rows] == [
            *(["service", name, "ok"] for name in ("discovery", "client", "scopes")),
            ["work", "discovery", "ok"],
            ["work", "client", "ok"],
            ["work", "redirect", "FAIL"],
            ["work", "scopes", "ok"],
            ["fixed", "-", "ok"],
        ]
        assert "; register exactly" in ended.stdout
        assert "canary" not in ended.stdout
        del set_up.work["redirect_uri"]
        ended = await set_up.run("config", "check", "--online", "--json")
        assert (ended.exit_code, ended.stderr.partition(":")[0]) == (0, "configuration is good")
        assert json.loads(ended.stdout)["accounts"]["fixed"]["checks"] == {}

    async def test_json_alone_is_not_understood(self, set_up: SetUp) -> None:
        assert (
            CliRunner().invoke(main, ["config", "check", "--json", "-c", str(set_up.write())]).exit_code == 2
        )


class TestAccounts:
    async def test_a_wrong_client_secret(self, set_up: SetUp) -> None:
        set_up.service["client_secret"] = "wrong"
        cure = await set_up.fault(
            "client", "^service: .*by client_secret_basic is not taken: .*invalid_client"
        )
        assert "mend client_id and client_secret" in cure
        set_up.service["client_secret"] = BASIC_CLIENT.client_secret
        assert await set_up.is_sound()

    async def test_a_secret_is_not_shown_unless_that_is_asked_for(self, set_up: SetUp) -> None:
        set_up.service["client_secret"] = "wrong"
        found = {str(finding.level): finding for finding in await set_up.findings(Network.OPEN)}
        assert found.keys() == {"ok", "note"}
        assert found["note"].found == "service: not tried, for that shows its secret to the server"
        assert found["note"].cure == "bearerd doctor --online does"

    async def test_a_redirect_uri_that_is_not_registered(self, set_up: SetUp) -> None:
        set_up.work["redirect_uri"] = NOT_REGISTERED
        cure = await set_up.fault("redirect", f"^work: {NOT_REGISTERED} is not registered")
        assert f"register exactly {NOT_REGISTERED} for client 'app-client'" in cure
        assert "or set redirect_uri to what is registered" in cure
        set_up.work["redirect_uri"] = REGISTERED
        assert await set_up.is_sound()

    async def test_another_issuer_than_the_server_says(self, set_up: SetUp) -> None:
        set_up.work["issuer"] += "/"
        cure = await set_up.fault("discovery", "^work: .*names another issuer than the configured one")
        set_up.work["issuer"] = setting(cure, "issuer")
        assert await set_up.is_sound()

    async def test_an_issuer_that_is_none(self, set_up: SetUp) -> None:
        set_up.work["issuer"] += "/nothing/here"
        cure = await set_up.fault("discovery", "^work: the issuer has no metadata")
        assert cure == "set token_endpoint in its place"
        issuer = set_up.work.pop("issuer").removesuffix("/nothing/here")
        set_up.work |= {"token_endpoint": f"{issuer}/token", "authorization_endpoint": f"{issuer}/auth"}
        assert await set_up.is_sound()

    async def test_a_scope_that_is_not_offered(self, set_up: SetUp) -> None:
        set_up.service["scopes"] = ["api:read", "api:delete"]
        cure = await set_up.fault("scopes", "^service: asked for and not granted: api:delete$", Level.WARN)
        assert "take them out of scopes" in cure
        set_up.service["scopes"] = ["api:read"]
        assert await set_up.is_sound()

    async def test_a_scope_that_is_refused(self, set_up: SetUp) -> None:
        set_up.work |= {"client_id": "narrow-client", "scopes": ["openid", "api:read"]}
        cure = await set_up.fault("scopes", "^work: the scopes are refused: the server says invalid_scope")
        assert "take out of scopes what it does not have" in cure
        set_up.work["scopes"] = ["openid"]
        assert await set_up.is_sound()

    async def test_a_client_that_nobody_knows(self, set_up: SetUp) -> None:
        set_up.work["client_id"] = "nobody"
        amiss = [finding for finding in await set_up.findings() if finding.level is not Level.OK]
        assert [finding.subject for finding in amiss] == ["client", "redirect"]
        assert all("mend client_id" in finding.cure for finding in amiss)
        set_up.work["client_id"] = "app-client"
        assert await set_up.is_sound()


@pytest.mark.skipif(sys.platform != "linux", reason="the clock is faked by way of LD_PRELOAD")
async def test_a_clock_ten_minutes_off(set_up: SetUp) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from bearerd.doctor import Network, examine
from bearerd.settings import load
async def main():
    async for finding in examine(load(Path(sys.argv[1]), {}, {}), {"XDG_RUNTIME_DIR": sys.argv[2]}, Network.OPEN, 60):
        if finding.subject == "clock":
            print(finding)
asyncio.run(main())
"""

    async def clocks() -> list[str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, set_up.write(), set_up.environ["XDG_RUNTIME_DIR"]),
            env=os.environ | faked.environment(),
            stdout=subprocess.PIPE,
        )
        out, _ = await process.communicate()
        return out.decode().splitlines()

    faked = FakedClock(set_up.folder)
    faked.set(600)
    _, *lines = await clocks()
    assert len(lines) == 2
    for line in lines:
        assert re.search(r"^FAIL  clock .* is (59|60)\d s ahead of the token endpoint's; set it: ", line), (
            line
        )
    faked.set(0)
    assert all(line.startswith("ok ") for line in await clocks())


# ---------------------------------------------------------------- servers of other kinds


class Odd:
    """An authorization server that describes itself as it is told to, and has a page for whoever wants to log in.

    `asked` are the paths and queries it was asked for, `forms` what came to its token endpoint.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self.document: dict[str, Any] = {}
        self.refuses_redirects = False
        self.status = 200
        self.hangs = Event()
        self.asked: list[str] = []
        self.forms: list[dict[str, str]] = []
        application = web.Application()
        application.router.add_get("/.well-known/openid-configuration", self._describe)
        application.router.add_get("/authorize", self._show)
        application.router.add_post("/token", self._refuse)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        self.issuer = ""

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._context).start()
        scheme = "https" if self._context else "http"
        self.issuer = f"{scheme}://127.0.0.1:{self._runner.addresses[0][1]}"
        self.document = {
            "issuer": self.issuer,
            "token_endpoint": f"{self.issuer}/token",
            "authorization_endpoint": f"{self.issuer}/authorize",
        }
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _describe(self, _: web.Request) -> web.Response:
        return web.json_response(self.document)

    async def _show(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        if self.hangs.is_set():
            await asyncio.sleep(LIMIT_S)
        strange = self.refuses_redirects and not request.query["redirect_uri"].startswith("http://127.0.0.1")
        return web.Response(status=400 if strange else self.status, text="Please log in.")

    async def _refuse(self, request: web.Request) -> web.Response:
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        return web.json_response({"error": "invalid_grant"}, status=400)


@pytest.fixture
async def odd() -> AsyncIterator[Odd]:
    async with Odd() as server:
        yield server


class TestOtherServers:
    async def test_one_that_shows_its_page_whatever_is_asked(self, set_up: SetUp, odd: Odd) -> None:
        set_up.work["issuer"] = odd.issuer
        found = by_level(await set_up.findings(), Level.NOTE)
        assert found.subject == "redirect"
        assert found.found.endswith("is registered cannot be told from outside: a login tells")
        silent, usual, nobodys = (parse_qs(urlsplit(asked).query) for asked in odd.asked)
        assert (silent["prompt"], "prompt" in usual) == (["none"], False)
        assert nobodys["redirect_uri"] == ["https://bearerd-doctor.invalid/callback"]

    async def test_one_that_refuses_others(self, set_up: SetUp, odd: Odd) -> None:
        odd.refuses_redirects = True
        set_up.work["issuer"] = odd.issuer
        assert await set_up.is_sound()

    async def test_one_in_trouble(self, set_up: SetUp, odd: Odd) -> None:
        odd.status = 503
        set_up.work["issuer"] = odd.issuer
        await set_up.fault(
            "redirect", "it cannot be told now: the authorization endpoint answers 503", Level.WARN
        )
        odd.document["authorization_endpoint"] = f"http://127.0.0.1:{refused_port()}/authorize"
        await set_up.fault("redirect", "the authorization endpoint cannot be reached", Level.WARN)

    async def test_one_that_hangs(self, set_up: SetUp, odd: Odd) -> None:
        odd.hangs.set()
        set_up.work["issuer"] = odd.issuer
        source = load(set_up.write(), {}, {}).configuration.accounts["work"].source
        assert isinstance(source, OAuthSource)
        server = parse_metadata(odd.issuer, json.dumps(odd.document).encode())
        async with open_session() as session:
            questions = Questions(session, SystemClock(), Network.OPEN, 0.2, {})
            (finding,), _ = await questions._judge_redirect(source, server, REGISTERED)
        assert finding.level is Level.WARN
        assert "did not answer in time" in finding.found

    async def test_one_whose_token_endpoint_is_elsewhere(self, set_up: SetUp, odd: Odd) -> None:
        set_up.work["issuer"] = odd.issuer
        port = refused_port()
        odd.document["token_endpoint"] = f"http://127.0.0.1:{port}/token"
        amiss = [found for found in await set_up.findings() if found.level is Level.FAIL]
        assert [found.subject for found in amiss] == ["reach", "clock", "client"]
        assert amiss[0].found == f"work: http://127.0.0.1:{port} cannot be connected to"
        assert amiss[2].found == "work: the token endpoint cannot be reached"

    async def test_one_without_pkce(self, set_up: SetUp, odd: Odd) -> None:
        set_up.work["issuer"] = odd.issuer
        odd.document["code_challenge_methods_supported"] = ["plain"]
        await set_up.fault("discovery", "does not do PKCE with S256")
        assert odd.asked == []

    async def test_one_whose_authority_is_not_known(self, set_up: SetUp, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        async with Odd(authority.server("127.0.0.1", days=90)) as server:
            server.refuses_redirects = True
            set_up.work["issuer"] = server.issuer
            amiss = [found for found in await set_up.findings() if found.level is Level.FAIL]
            assert [found.subject for found in amiss] == ["reach", "discovery"]
            assert "an authority that is not known here" in amiss[0].found
            assert "set accounts.work.ca_file to a PEM file with it" in amiss[0].cure
            set_up.work["ca_file"] = str(authority.ca_file)
            assert await set_up.is_sound()
            set_up.work["ca_file"] = str(Authority(tmp_path, "other").ca_file)
            amiss = [found for found in await set_up.findings() if found.level is Level.FAIL]
            assert "other.pem has not got it" in amiss[0].found
            assert amiss[0].cure == "mend accounts.work.ca_file"

    async def test_one_behind_a_proxy(self, set_up: SetUp, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        async with (
            Odd(authority.server("127.0.0.1", days=90)) as server,
            TunnelProxy("bWU6cGFzcw==") as proxy,  # me:pass
        ):
            server.refuses_redirects = True
            set_up.work |= {"issuer": server.issuer, "ca_file": str(authority.ca_file)}
            set_up.work["proxy"] = f"http://127.0.0.1:{proxy.port}"
            amiss = [found for found in await set_up.findings() if found.level is Level.FAIL]
            assert [found.subject for found in amiss] == ["reach", "discovery"]
            for found in amiss:
                assert "wants a user name and password (407)" in found.found
            assert amiss[0].cure == "write them into its URL"
            set_up.work["proxy"] = f"http://me:pass@127.0.0.1:{proxy.port}"
            assert await set_up.is_sound()
            set_up.work["proxy"] = f"http://127.0.0.1:{refused_port()}"
            amiss = [found for found in await set_up.findings() if found.level is Level.FAIL]
            assert [found.subject for found in amiss] == ["reach", "discovery"]
            assert 'set accounts.work.proxy to another or to "none"' in amiss[0].cure
            set_up.work["proxy"] = "none"
            assert await set_up.is_sound()

    async def test_devices_alone_can_log_in(self, set_up: SetUp, issuer: str) -> None:
        del set_up.work["issuer"]
        set_up.work |= {
            "token_endpoint": f"{issuer}/token",
            "device_authorization_endpoint": f"{issuer}/device/auth",
        }
        assert await set_up.is_sound()
        assert "redirect" not in {found.subject for found in await set_up.findings()}

    async def test_no_refresh_token_is_shown(self, set_up: SetUp, odd: Odd) -> None:
        set_up.tables["accounts.brought"] = {
            "issuer": odd.issuer,
            "client_id": "app-client",
            "refresh_token": "canary-refresh",
        }
        assert await set_up.is_sound()
        (form,) = odd.forms
        assert form["grant_type"] == "refresh_token"
        assert form["refresh_token"].startswith("bearerd-doctor-")

    async def test_a_port_that_the_system_chooses(self, set_up: SetUp) -> None:
        set_up.tables["listen"]["port"] = 0
        found = by_level(await set_up.findings(), Level.NOTE)
        assert (found.subject, found.cure) == ("redirect", "set redirect_uri or listen.port")
        set_up.work["redirect_uri"] = REGISTERED
        assert await set_up.is_sound()

    async def test_an_upstream_with_a_name(self, set_up: SetUp) -> None:
        async with served(None) as port:
            set_up.route["upstream"] = f"http://localhost:{port}"
            assert await set_up.is_sound()

    async def test_a_file_that_is_gone_since_the_settings_were_read(
        self, set_up: SetUp, tmp_path: Path
    ) -> None:
        authority = Authority(tmp_path)
        set_up.route |= {"upstream": "https://127.0.0.1:9", "ca_file": str(authority.ca_file)}
        loaded = load(set_up.write(), {}, set_up.environ)
        authority.ca_file.unlink()
        found = [found async for found in examine(loaded, set_up.environ, Network.FULL, LIMIT_S)]
        finding = by_level(found, Level.FAIL)
        assert finding.found.startswith(f'routes."/".ca_file: {authority.ca_file} cannot be read')
        assert finding.cure == "mend that or name another file"

    async def test_an_upstream_that_says_nothing(self) -> None:
        async with FaultServer([hang]) as server:
            place = Place(Origin("http", "127.0.0.1", server.port), DIRECT, ("routes", "/"), "upstream")
            (finding,) = await try_place(place, 0.0, LIMIT_S, talk_s=0.2)
        assert finding.level is Level.NOTE
        assert finding.found.endswith("accepts a connection, and says nothing on it for now")

    async def test_an_upstream_that_accepts_nothing(self) -> None:
        with black_hole() as port:
            place = Place(Origin("http", "127.0.0.1", port), DIRECT, ("routes", "/"), "upstream")
            (finding,) = await try_place(place, 0.0, 0.4)
        assert finding.level is Level.FAIL
        assert finding.found.endswith("did not accept a connection in time")


# ---------------------------------------------------------------- ways


@asynccontextmanager
async def served(context: ssl.SSLContext | None, port: int = 0) -> AsyncIterator[int]:
    """An API that wants a token."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", _refuse)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context, reuse_address=True).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def _refuse(_: web.Request) -> web.Response:
    return web.Response(status=401)


@contextmanager
def telling(context: ssl.SSLContext) -> Iterator[int]:
    """The same, of a server that says why it breaks a handshake off, as most do and those of event loops do not."""

    def serve() -> None:
        with suppress(OSError):  # of the listener's end
            while True:
                answer(listening.accept()[0])

    def answer(connection: socket.socket) -> None:
        with (
            suppress(OSError),
            context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as sock,
        ):
            try:
                sock.do_handshake()
                sock.recv(4096)
                sock.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            finally:
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


class TestWays:
    async def test_nobody_listens(self, set_up: SetUp) -> None:
        port = refused_port()
        set_up.route["upstream"] = f"http://127.0.0.1:{port}/v1"
        cure = await set_up.fault("reach", f"http://127.0.0.1:{port} cannot be connected to")
        assert "start what should listen there" in cure
        async with served(None, port):
            assert await set_up.is_sound()

    async def test_a_name_that_leads_nowhere(self, set_up: SetUp) -> None:
        good = set_up.route["upstream"]
        set_up.route["upstream"] = "https://no-such-name.invalid/v1"
        cure = await set_up.fault("reach", "^https://no-such-name.invalid: its name leads to no address")
        assert 'mend its name in routes."/".upstream' in cure
        set_up.route["upstream"] = good
        assert await set_up.is_sound()

    async def test_an_expired_certificate(self, set_up: SetUp, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        set_up.route["ca_file"] = str(authority.ca_file)
        async with served(authority.server("127.0.0.1", days=-1)) as port:
            set_up.route["upstream"] = f"https://127.0.0.1:{port}"
            cure = await set_up.fault("reach", "its certificate has expired")
            assert "have it renewed at the server" in cure
        async with served(authority.server("127.0.0.1", days=90), port):
            assert await set_up.is_sound()

    async def test_a_certificate_that_ends_soon(self, set_up: SetUp, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        set_up.route["ca_file"] = str(authority.ca_file)
        async with served(authority.server("127.0.0.1", days=13)) as port:
            set_up.route["upstream"] = f"https://127.0.0.1:{port}"
            cure = await set_up.fault("reach", "its certificate ends in 13 days", Level.WARN)
            assert cure == "have it renewed at the server"

    async def test_an_authority_that_is_not_known(self, set_up: SetUp, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        async with served(authority.server("127.0.0.1", days=90)) as port:
            set_up.route["upstream"] = f"https://127.0.0.1:{port}"
            cure = await set_up.fault("reach", "of an authority that is not known here")
            assert 'set routes."/".ca_file to a PEM file with it' in cure
            set_up.route["ca_file"] = str(authority.ca_file)
            assert await set_up.is_sound()
            set_up.route["ca_file"] = str(Authority(tmp_path, "another").ca_file)
            assert 'mend routes."/".ca_file' in await set_up.fault("reach", "another.pem has not got it")

    async def test_a_certificate_for_another_name(self, set_up: SetUp, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        set_up.route["ca_file"] = str(authority.ca_file)
        async with served(authority.server("api.example.com", days=90)) as port:
            set_up.route["upstream"] = f"https://127.0.0.1:{port}"
            cure = await set_up.fault(
                "reach", "its certificate is not for 127.0.0.1, but for api.example.com"
            )
            set_up.route["server_name"] = setting(cure, 'routes."/".server_name')
            assert await set_up.is_sound()

    async def test_a_server_that_wants_a_client_certificate(self, set_up: SetUp, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        set_up.route["ca_file"] = str(authority.ca_file)
        with telling(authority.server("127.0.0.1", days=90, clients=True)) as port:
            set_up.route["upstream"] = f"https://127.0.0.1:{port}"
            cure = await set_up.fault("reach", "refuses TLS: .*certificate required")
            assert 'set routes."/".client_cert_file' in cure
            certificate, key = authority.issue("laptop", days=90)
            set_up.route |= {"client_cert_file": str(certificate), "client_key_file": str(key)}
            assert await set_up.is_sound()
            set_up.route["client_cert_file"], set_up.route["client_key_file"] = map(
                str, authority.issue("laptop", days=3)
            )
            cure = await set_up.fault("certificate", "the client certificate .* ends on 20", Level.WARN)
            assert cure == "have a new one issued, and put it there"
            loaded = load(set_up.write(), {}, set_up.environ)
            Path(set_up.route["client_cert_file"]).unlink()
            found = [found async for found in examine(loaded, set_up.environ, Network.NONE, LIMIT_S)]
            assert by_subject(found, "certificate").found.endswith("ends cannot be read")

    async def test_a_server_that_closes_without_a_word(self, set_up: SetUp, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        set_up.route["ca_file"] = str(authority.ca_file)
        async with served(authority.server("127.0.0.1", days=90, clients=True)) as port:
            set_up.route["upstream"] = f"https://127.0.0.1:{port}"
            cure = await set_up.fault("reach", "without an answer")
            assert 'or set routes."/".client_cert_file if it wants one' in cure

    async def test_http_where_tls_should_be_and_the_other_way_round(
        self, set_up: SetUp, tmp_path: Path
    ) -> None:
        authority = Authority(tmp_path)
        set_up.route["ca_file"] = str(authority.ca_file)
        async with served(None) as plain, served(authority.server("127.0.0.1", days=90)) as secure:
            set_up.route["upstream"] = f"https://127.0.0.1:{plain}"
            assert "http in place of https" in await set_up.fault("reach", "does not speak TLS")
            del set_up.route["ca_file"]
            set_up.route["upstream"] = f"http://127.0.0.1:{secure}"
            await set_up.fault("reach", "without an answer|does not speak HTTP")

    async def test_a_proxy_that_refuses(self, set_up: SetUp) -> None:
        async with FaultServer([read, send(reply(b"", "403 Forbidden"))]) as proxy:
            set_up.route["proxy"] = proxy.url
            cure = await set_up.fault("reach", "^the proxy .* does not let calls through to http://127.0.0.1")
            assert 'set routes."/".proxy to another or to "none"' in cure
            set_up.route["proxy"] = "none"
            assert await set_up.is_sound()


# ---------------------------------------------------------------- this machine

LISTENER: Final = """
import socket, sys
sock = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listens", flush=True)
sys.stdin.read()
"""


@contextmanager
def listener(port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Another program, on that port."""
    with subprocess.Popen(
        [sys.executable, "-c", LISTENER, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listens\n"
        try:
            yield process
        finally:
            process.kill()


def by_level(findings: list[Finding], level: Level) -> Finding:
    (found,) = (finding for finding in findings if finding.level is level)
    return found


def by_subject(findings: list[Finding], subject: str) -> Finding:
    (found,) = (finding for finding in findings if finding.subject == subject)
    return found


def seal_a_login(set_up: SetUp, key: Key) -> None:
    """Of the account of a person."""
    loaded = load(set_up.write(), {}, set_up.environ)
    identity = build_identity("work", loaded.configuration.accounts["work"].source)
    now = time.time()
    tokens = TokenSet(1, Secret("canary"), now, now + 600, Secret("canary"), scope="openid api:read")
    folder = VaultFolder(set_up.folder / "vault")
    folder.replace(f"{identity.stem}.vault", seal(tokens, identity, key, b"n" * 12), by_way_of="made.probe")


class TestMachine:
    async def test_another_program_has_the_port(self, set_up: SetUp) -> None:
        port = set_up.tables["listen"]["port"]
        with listener(port) as process:
            cure = await set_up.fault(
                "port", f"{port} on 127.0.0.1 is in use by python.*, process {process.pid}$"
            )
            set_up.do(cure, "kill")
            assert process.wait(timeout=LIMIT_S) == -signal.SIGTERM
            assert await set_up.is_sound()

    async def test_what_the_system_does_not_tell(self, tmp_path: Path) -> None:
        (tmp_path / "self" / "net").mkdir(parents=True)
        assert find_holder(6750, tmp_path) is None
        assert find_holder(refused_port()) is None

    async def test_a_daemon_has_the_port(self, set_up: SetUp, tmp_path: Path) -> None:
        """Its own ports are where they should be; another's are not."""
        probes = refused_port()
        token = '[accounts.a]\ntoken = "x"\n[routes."/"]\nupstream = "http://127.0.0.1:9"'
        (tmp_path / "other").mkdir()
        listen = f'port = 0\nprobes = "127.0.0.1:{probes}"'
        async with RunningDaemon(tmp_path / "other", token, set_up.runtime, listen=listen) as daemon:
            set_up.tables["listen"]["port"] = daemon.port
            cure = await set_up.fault(
                "port", f"by the bearerd of .*other/bearerd.toml, process {daemon.pid}$"
            )
            assert f"kill {daemon.pid}" in cure
            loaded = load(tmp_path / "other" / "bearerd.toml", {"port": daemon.port}, {})
            found = [found async for found in examine(loaded, set_up.environ, Network.NONE, LIMIT_S)]
            own = f"is that of the bearerd that runs with this file, process {daemon.pid}"
            assert [each.found for each in found if each.subject == "port"] == [
                f"{daemon.port} {own}",
                f"{probes} {own}",
            ]

    async def test_a_service_that_starts_what_is_not_there(self, set_up: SetUp) -> None:
        unit = Systemd().path
        unit.parent.mkdir(parents=True)
        set_up.environ["XDG_CONFIG_HOME"] = os.environ["XDG_CONFIG_HOME"]
        program = set_up.folder / 'a "b" 50% $HOME' / "bearerd"
        unit.write_bytes(Systemd().build([str(program), "run", "-c", str(set_up.file)]))
        cure = await set_up.fault(
            "service", f"starts {re.escape(str(program))}, which is not there", Level.WARN
        )
        assert cure == "bearerd service install"
        program.parent.mkdir()
        program.touch(0o700)
        assert await set_up.is_sound()
        unit.write_bytes(Systemd().build([str(program), "run", "-c", "/other.toml"]))
        cure = await set_up.fault("service", "with /other.toml, which is not what was examined", Level.NOTE)
        assert cure == "bearerd doctor -c /other.toml"
        unit.write_text("[Service]\n")
        assert "no command" in by_level(await set_up.findings(), Level.WARN).found

    def test_the_same_of_launchd(self) -> None:
        content = plistlib.dumps({"ProgramArguments": ["/bin/sh", "run", "--config", "/x.toml"]})
        assert parse_plist(content) == ["/bin/sh", "run", "--config", "/x.toml"]
        assert judge_service(Path("x.plist"), parse_plist(content), "/x.toml").level is Level.OK
        for odd in (b"", b"<plist><array/></plist>"):
            with pytest.raises(ValueError, match="is no property list"):
                parse_plist(odd)

    async def test_an_audit_file_that_others_can_write(self, set_up: SetUp) -> None:
        path = set_up.folder / "audit.log"
        set_up.tables["log"] = {"audit": str(path)}
        assert await set_up.is_sound()
        path.touch()
        path.chmod(0o666)
        set_up.do(await set_up.fault("audit", "has mode 0666: others could write to it"), "chmod")
        assert await set_up.is_sound()

    async def test_an_audit_file_without_its_folder(self, set_up: SetUp) -> None:
        set_up.tables["log"] = {"audit": str(set_up.folder / "logs" / "audit.log")}
        set_up.do(await set_up.fault("audit", "cannot be made"), "mkdir")
        assert await set_up.is_sound()

    async def test_a_runtime_folder_that_others_can_enter(self, set_up: SetUp) -> None:
        folder = set_up.runtime / "bearerd"
        folder.mkdir()
        folder.chmod(0o755)
        set_up.do(await set_up.fault("runtime", "is open to other users", Level.WARN), "rm")
        assert await set_up.is_sound()

    async def test_what_a_daemon_has_left_is_left(self, set_up: SetUp) -> None:
        folder = set_up.runtime / "bearerd"
        folder.mkdir(mode=0o700)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(folder / "1-dead.sock"))
        assert await set_up.is_sound()
        assert [path.name for path in folder.iterdir()] == ["1-dead.sock"]

    async def test_a_variable_that_leads_clients_to_a_proxy(self, set_up: SetUp) -> None:
        set_up.environ |= {"HTTP_PROXY": "http://proxy.example.com:3128", "NO_PROXY": "example.org"}
        set_up.do(await set_up.fault("environment", "HTTP_PROXY", Level.WARN), "export")
        assert set_up.environ["NO_PROXY"] == "example.org,127.0.0.1,localhost,::1"
        assert await set_up.is_sound()

    async def test_a_variable_that_takes_all_trust_away(self, set_up: SetUp) -> None:
        set_up.environ["SSL_CERT_FILE"] = str(set_up.folder / "nothing.pem")
        assert "unset SSL_CERT_FILE" in await set_up.fault("environment", "no server is trusted")

    async def test_programs_that_are_not_there(self, set_up: SetUp) -> None:
        program = set_up.folder / "get-token"
        program.write_text("#!/bin/sh\necho token\n")
        set_up.tables["accounts.command"] = {"command": [str(program), "canary"]}
        cure = await set_up.fault(
            "programs", r"^accounts\.command\.command: .*get-token is not there, or cannot"
        )
        assert "chmod +x" in cure
        assert "canary" not in cure
        program.chmod(0o700)
        assert await set_up.is_sound()
        set_up.tables["hooks"] = {"on_login_needed": ["no-such-program-of-ours"]}
        await set_up.fault("programs", "hooks.on_login_needed: no-such-program-of-ours", Level.WARN)
        set_up.tables["hooks"] = {"on_login_needed": ["true"]}
        assert await set_up.is_sound()

    async def test_a_key_file_of_clients_that_others_can_write(self, set_up: SetUp) -> None:
        path = set_up.folder / "keys.json"
        set_up.tables["keys"] = {"use": "optional", "file": str(path)}
        path.write_text(build_document([ClientKey("laptop", bytes(32), 0)]))
        path.chmod(0o662)
        set_up.do(await set_up.fault("clients", "other users can write to it"), "chmod")
        assert await set_up.is_sound()

    async def test_the_key_of_another_vault(self, set_up: SetUp) -> None:
        key_file = set_up.folder / "vault.key"
        folder = VaultFolder(set_up.folder / "vault")
        store = Store(key_source="file", key_file=str(key_file))
        good = await load_key(store, folder, create=True)
        seal_a_login(set_up, good)
        assert await set_up.is_sound()
        write_key(key_file, build_key(bytes(32)))
        cure = await set_up.fault("vault", "was sealed with another key")
        assert "give that key back" in cure
        write_key(key_file, good)
        assert await set_up.is_sound()

    async def test_a_keychain_that_is_locked(self, set_up: SetUp, desktop: Desktop) -> None:
        desktop.open_keychain()
        del set_up.tables["store"]["key_file"]
        await load_key(Store(), VaultFolder(set_up.folder / "vault"), create=True)
        desktop.close_keychain()
        desktop.open_keychain("wrong")
        assert "unlock it" in await set_up.fault("key", "is locked")
        desktop.close_keychain()
        desktop.open_keychain()
        assert await set_up.is_sound()

    @needs_root
    async def test_a_full_disk(self, set_up: SetUp) -> None:
        path = set_up.folder / "vault"
        path.mkdir()
        with mounted(path, "64k"):
            filler = path / "filler.probe"
            filler.touch(0o600)
            filler.write_bytes(bytes(64 << 10))
            assert await set_up.fault("writable", "No space left on device") == "make room there"
            filler.unlink()
            assert await set_up.is_sound()

    async def test_a_socket_and_no_port(self, set_up: SetUp) -> None:
        """Its folder is not there; a file is there; another's socket; one of the dead; its own."""
        path = set_up.runtime / "sockets" / "bearerd.sock"
        set_up.tables["listen"] = {"hosts": [], "socket": str(path)}
        set_up.work["redirect_uri"] = REGISTERED
        set_up.do(await set_up.fault("socket", "its folder is not there"), "mkdir")
        assert await set_up.is_sound()
        path.touch()
        assert "move it away" in await set_up.fault("socket", "is a file, and no socket")
        path.unlink()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
            assert by_subject(await set_up.findings(), "socket").found.endswith("died, and is made anew")
            sock.listen()
            assert "stop what listens there" in await set_up.fault("socket", "is in use by another program")
        assert path.exists()
        path.parent.chmod(0o777)
        set_up.do(await set_up.fault("socket", "could be exchanged for another socket"), "chmod")
        with socket.socket(socket.AF_UNIX) as sock:
            path.unlink()
            sock.bind(str(path))
            sock.listen()
            daemon = {"socket": str(path), "config": "/x.toml", "pid": 7}
            own, other = (examine_socket(path, [daemon], file) for file in ("/x.toml", "/y.toml"))
        assert own.level is Level.OK
        assert own.found.endswith("that runs with this file, process 7")
        assert (other.level, other.cure) == (Level.FAIL, "kill 7, or set listen.socket to another path")

    @needs_root
    def test_a_port_and_files_of_others(self) -> None:
        """As another user than root, whose they are."""
        with shared_folder() as folder:
            audit, path = folder / "audit.log", folder / "bearerd.sock"
            audit.touch(0o600)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(path))
            with bound_by_permissions():
                assert examine_audit(audit).found == f"{audit} belongs to another user (uid 0)"
                assert examine_socket(path, [], None).found == f"{path} belongs to another user (uid 0)"
                (low,) = examine_ports(Listen(hosts=("127.0.0.1",), port=1), [], None)
                assert (low.level, low.cure) == (Level.FAIL, "set listen.port to one from 1024 on")

    def test_a_port_that_a_service_manager_holds(self) -> None:
        """It starts bearerd when somebody connects, and must not be ended for it."""
        finding = judge_holder("6750", "", 1, "systemd")
        assert finding.level is Level.NOTE
        assert "kill" not in str(finding)

    @pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/null")])
    def test_an_audit_file_that_is_none(self, tmp_path: Path, make: Callable[[Path], object]) -> None:
        make(tmp_path / "audit.log")
        finding = examine_audit(tmp_path / "audit.log")
        assert (finding.level, finding.cure) == (Level.FAIL, "set log.audit to another file")

    def test_an_audit_file_that_cannot_be_written_to(self) -> None:
        with shared_folder() as folder, bound_by_permissions():
            path = folder / "audit.log"
            path.touch(0o400)
            finding = examine_audit(path)
        assert (finding.level, finding.cure) == (Level.FAIL, f"chmod 600 {path}")

    async def test_room_for_bodies(self, set_up: SetUp, monkeypatch: pytest.MonkeyPatch) -> None:
        cache = set_up.folder / "cache"
        cache.mkdir(mode=0o700)
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        set_up.route["spool"] = "disk"
        set_up.tables["limits"] = {"spool_total": 1 << 60}
        cure = await set_up.fault("spool", "limits.spool_total is 1099511627776 MiB", Level.WARN)
        assert "set limits.spool_total to less" in cure
        set_up.tables["limits"] = {"spool_total": "64MiB"}
        assert await set_up.is_sound()
        assert list(cache.iterdir()) == []
        cache.chmod(0o777)
        set_up.do(await set_up.fault("spool", "other users can write to", Level.WARN), "chmod")
        assert await set_up.is_sound()

    @needs_root
    def test_a_folder_of_bodies_that_is_another_s(self) -> None:
        with shared_folder() as folder:
            (folder / "root").mkdir(mode=0o755)
            with bound_by_permissions():
                finding = examine_spool(folder / "root" / "bodies", 0)
        assert finding.level is Level.WARN
        assert finding.cure.startswith(f"let this user write to {folder / 'root'}, or set XDG_CACHE_HOME")

    def test_a_runtime_folder_that_cannot_be(self, tmp_path: Path, runtime: Path) -> None:
        long = tmp_path / ("x" * 100)
        long.mkdir()
        assert "too long for sockets" in examine_runtime({"XDG_RUNTIME_DIR": str(long)}).found
        assert "cannot be made" in examine_runtime({"TMPDIR": "/nowhere"}).found
        assert "is made when bearerd runs" in examine_runtime({"TMPDIR": str(runtime)}).found
