"""The composition root: start, refuse to start, serve, stop."""

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from bearerd.alone import fetch_token
from bearerd.assembly import build_policy, first_refresh_token, needs_vault
from bearerd.core.accounts import Account, CommandSource, FileSource, Grant, OAuthSource, Source, StaticSource
from bearerd.core.configuration import Configuration, Listen, Logging, Store
from bearerd.core.redaction import Secret
from bearerd.core.targets import parse_route
from bearerd.core.tokens import TokenSet
from bearerd.daemon import Daemon
from bearerd.demo.authorization_server import Lifetimes
from bearerd.demo.world import Demo
from bearerd.doors import listen
from bearerd.errors import ConfigError, LoginRequired, TokenUnavailable
from bearerd.serving import raise_descriptor_limit
from both_loops import LOOPS
from daemons import RunningDaemon
from faults import refused_port
from patience import within
from upstreams import ApiUpstream, accept_any_of
from users import looks_into_daemon

ASYNCIO_ONLY = Path(__file__).parent / "asyncio_only"
STATIC = StaticSource(Secret("static-token"))


def configuration(source: Source, upstream: str, *, port: int = 0) -> Configuration:
    return Configuration(
        accounts={"work": Account("work", source)},
        routes=(parse_route("/", upstream, "work"),),
        listen=Listen(port=port),
        store=Store(kind="memory"),
        log=Logging(access=False),
    )


@asynccontextmanager
async def running(subject: Configuration) -> AsyncIterator[Daemon]:
    daemon = Daemon(subject)
    await daemon.start()
    try:
        yield daemon
    finally:
        await daemon.stop()


async def one_token(source: Source) -> TokenSet:
    return await fetch_token(configuration(source, "http://[::1]:9"), Account("work", source))


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The status of the answer on a connection; nothing where it is closed instead."""
    host, port = writer.get_extra_info("peername")[:2]
    with suppress(ConnectionError):
        writer.write(f"GET /x HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        return (await reader.readline())[9:12]
    return b""


class TestListen:
    def test_both_loopback_families_share_one_port(self) -> None:
        sockets = listen(Listen(port=0))
        try:
            assert {sock.getsockname()[0] for sock in sockets} == {"127.0.0.1", "::1"}
            assert len({sock.getsockname()[1] for sock in sockets}) == 1
        finally:
            for sock in sockets:
                sock.close()

    def test_a_port_in_use_is_fatal_and_names_the_cure(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ConfigError) as refusal:
                listen(Listen(port=port))
        assert str(refusal.value) == (
            f"listen.port: {port} on 127.0.0.1 is in use by another program; "
            "stop it, or choose another with --port or listen.port"
        )

    def test_a_port_in_use_on_one_family_alone_is_fatal_too(self) -> None:
        """A program on ::1 would get the calls of clients for which localhost is ::1."""
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ConfigError, match=f"{port} on ::1 is in use"):
                listen(Listen(port=port))
        with socket.create_server(("127.0.0.1", port)):
            """The first address was given back."""

    def test_an_address_this_machine_lacks_is_left_out(self) -> None:
        (sock,) = listen(Listen(hosts=("192.0.2.1", "127.0.0.1"), port=0))
        assert sock.getsockname()[0] == "127.0.0.1"
        sock.close()

    def test_no_address_at_all_is_fatal(self) -> None:
        with pytest.raises(ConfigError, match=r"this machine has none of 192\.0\.2\.1; use 127\.0\.0\.1"):
            listen(Listen(hosts=("192.0.2.1",), port=0))


class TestAccounts:
    @pytest.mark.parametrize(
        ("source", "renewable"),
        [
            (OAuthSource(Grant.CLIENT_CREDENTIALS, "id"), True),
            (OAuthSource(Grant.REFRESH_TOKEN, "id"), False),
            (CommandSource(("true",), 1.0), True),
            (FileSource("x"), True),
            (STATIC, True),
        ],
        ids=repr,
    )
    def test_policy(self, source: Source, *, renewable: bool) -> None:
        assert build_policy(Account("work", source)).renewable is renewable

    def test_a_refresh_token_in_the_configuration_is_where_an_account_begins(self) -> None:
        source = OAuthSource(Grant.REFRESH_TOKEN, "id", refresh_token=Secret("r"))
        assert first_refresh_token(Account("work", source)) == Secret("r")
        assert first_refresh_token(Account("work", STATIC)) is None

    @pytest.mark.parametrize(
        ("source", "auto", "vault"),
        [
            (OAuthSource(Grant.REFRESH_TOKEN, "id"), True, True),
            (OAuthSource(Grant.CLIENT_CREDENTIALS, "id"), False, True),
            (STATIC, False, False),
        ],
        ids=repr,
    )
    def test_only_what_a_person_gave_is_kept_at_rest_by_itself(
        self, source: Source, *, auto: bool, vault: bool
    ) -> None:
        account = Account("work", source)
        assert needs_vault(account, Store()) is auto
        assert needs_vault(account, Store(kind="vault")) is vault
        assert not needs_vault(account, Store(kind="memory"))

    async def test_one_token_for_a_process_that_ends_after_it(self, tmp_path: Path) -> None:
        command = CommandSource((sys.executable, "-c", "print('from-a-command')"), 20.0)
        assert (await one_token(command)).access_token.reveal() == "from-a-command"
        with pytest.raises(TokenUnavailable, match="the token file cannot be read: No such file"):
            await one_token(FileSource(str(tmp_path / "absent")))
        with pytest.raises(LoginRequired):
            await one_token(OAuthSource(Grant.REFRESH_TOKEN, "id", token_endpoint="http://[::1]:9/"))

    @pytest.mark.waits
    async def test_a_refresh_that_was_due_is_waited_for_and_its_token_is_the_one_given(
        self, tmp_path: Path
    ) -> None:
        """The one in force before may have expired by the time that the process has ended."""
        async with Demo.start(Lifetimes(access_s=3)) as demo:
            store = Store(
                kind="vault", path=str(tmp_path / "vault"), key_source="file", key_file=str(tmp_path / "key")
            )
            whole = replace(demo.configuration(0), store=store)
            account = whole.accounts["service"]
            first = await fetch_token(whole, account)
            assert await fetch_token(whole, account) == first
            await asyncio.sleep(2.6)
            second = await fetch_token(whole, account)
            assert second.generation == first.generation + 1
            assert demo.authorization_server.token_requests == 2


class TestServing:
    async def test_a_call_by_either_family_gets_its_token(self) -> None:
        async with ApiUpstream(accept_any_of({"static-token"})) as api:
            async with running(configuration(STATIC, api.url)) as daemon:
                assert daemon.addresses == (f"http://127.0.0.1:{daemon.port}", f"http://[::1]:{daemon.port}")
                for address in daemon.addresses:
                    assert (await get(f"{address}/x"))[0] == 200
            assert api.unauthorized == 0

    async def test_a_changed_token_file_is_picked_up_with_no_call_failing(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("first-token\n")
        good = {"first-token"}
        async with ApiUpstream(accept_any_of(good)) as api:
            async with running(configuration(FileSource(str(file)), api.url)) as daemon:
                url = f"{daemon.addresses[0]}/x"
                assert (await get(url))[0] == 200
                file.write_text("second-token\n")
                good.symmetric_difference_update({"first-token", "second-token"})
                assert (await get(url))[0] == 200
            assert api.calls[-1].values(b"authorization") == [b"Bearer second-token"]

    async def test_an_issuer_that_is_not_there_yet_costs_503_until_it_is(self) -> None:
        async with Demo.start() as demo:
            absent = OAuthSource(
                Grant.CLIENT_CREDENTIALS,
                demo.client_id,
                client_secret=demo.client_secret,
                issuer=f"http://127.0.0.1:{refused_port()}",
            )
            async with running(configuration(absent, demo.api_url)) as daemon:
                status, text = await get(f"{daemon.addresses[0]}/x")
                assert status == 503
                assert "the issuer cannot be reached" in text
                assert (await get(f"{daemon.addresses[0]}/-/readyz"))[0] == 200

    @pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for the length of its queue")
    async def test_a_thousand_may_wait_to_be_accepted(self) -> None:
        async with running(configuration(STATIC, "http://[::1]:9")) as daemon:
            for sock in daemon._doors._inet:
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
                (most,) = struct.unpack("28xI", info)
                assert most == 1024

    async def test_stopping_lets_a_call_in_flight_finish(self) -> None:
        asked = asyncio.Event()

        async def slowly(token: str) -> bool:
            asked.set()
            await asyncio.sleep(0.5)
            return bool(token)

        async with ApiUpstream(slowly) as api:
            daemon = Daemon(configuration(STATIC, api.url))
            await daemon.start()
            call = asyncio.create_task(get(f"{daemon.addresses[0]}/x"))
            await asked.wait()
            await daemon.stop()
            assert (await call)[0] == 200

    @pytest.mark.waits
    async def test_stopping_takes_no_longer_than_it_says(self) -> None:
        asked = asyncio.Event()

        async def never(token: str) -> bool:
            asked.set()
            await asyncio.sleep(30)
            return bool(token)

        async with ApiUpstream(never) as api:
            daemon = Daemon(configuration(STATIC, api.url))
            await daemon.start()
            call = asyncio.create_task(get(f"{daemon.addresses[0]}/x"))
            await asked.wait()
            async with within(1.5):
                await daemon.stop(drain_s=1.0)
            with pytest.raises(aiohttp.ClientError):
                await call

    async def test_a_defect_of_ours_is_a_500_that_tells_nothing(self) -> None:
        async with (
            ApiUpstream(accept_any_of(set())) as api,
            running(configuration(STATIC, api.url)) as daemon,
        ):
            daemon._front._forwarder._lanes.clear()
            status, text = await get(f"{daemon.addresses[0]}/x")
        assert status == 500
        assert "internal_error" in text
        assert "KeyError" not in text

    @pytest.mark.threat(17)
    async def test_a_call_that_leads_back_here_is_a_loop(self) -> None:
        port = refused_port()
        async with running(configuration(STATIC, f"http://127.0.0.1:{port}", port=port)) as daemon:
            status, text = await get(f"{daemon.addresses[0]}/x")
        assert status == 508
        assert "its upstream leads back here" in text


class TestDemo:
    @pytest.mark.waits
    async def test_three_lifetimes_at_five_calls_a_second(self) -> None:
        """What the demo is to show, with shorter tokens: always 200, other tokens with time, none expired."""
        lifetime_s = 4
        fingerprints = set()
        async with (
            Demo.start(Lifetimes(access_s=lifetime_s)) as demo,
            running(demo.configuration(0)) as daemon,
            aiohttp.ClientSession() as session,
        ):
            for _ in range(3 * lifetime_s * 5):
                async with session.get(f"{daemon.addresses[0]}/service/hello") as response:
                    assert response.status == 200
                    seen = await response.json()
                assert seen["seconds_left"] > 0
                fingerprints.add(seen["token_fingerprint"])
                await asyncio.sleep(0.2)
        assert len(fingerprints) >= 3

    async def test_revoke_me_costs_one_token_request_and_no_call(self) -> None:
        async with Demo.start() as demo, running(demo.configuration(0)) as daemon:
            base = f"{daemon.addresses[0]}/service"
            assert (await get(f"{base}/hello"))[0] == 200
            async with aiohttp.ClientSession() as session, session.post(f"{base}/revoke-me") as response:
                assert response.status == 200
            for _ in range(10):
                assert (await get(f"{base}/hello"))[0] == 200
            assert demo.authorization_server.token_requests == 2


WITHOUT_UVLOOP = """
import asyncio, sys
sys.modules["uvloop"] = None
from bearerd.loop import run
async def main():
    return type(asyncio.get_running_loop()).__module__
print(run(main()))
"""


class TestLoop:
    def test_it_is_asyncio_s_own_where_there_is_no_uvloop(self) -> None:
        program = (sys.executable, "-c", WITHOUT_UVLOOP)
        printed = subprocess.run(program, capture_output=True, check=True, text=True).stdout
        assert printed.startswith("asyncio.")

    @looks_into_daemon
    async def test_a_daemon_and_these_tests_are_on_the_same(self, tmp_path: Path) -> None:
        toml = '[accounts.a]\ntoken = "x"\n[routes."/"]\nupstream = "http://[::1]:9"\n'
        async with RunningDaemon(tmp_path, toml) as daemon:
            loaded = Path(f"/proc/{daemon.pid}/maps").read_text()
        plain = "asyncio_only" in os.environ.get("PYTHONPATH", "")  # in `make plain`
        ours = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        assert ours == ("asyncio" if plain else "uvloop")
        assert ("/uvloop/" in loaded) is not plain


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


class TestProcess:
    async def test_sigterm_ends_it_with_status_0(self, tmp_path: Path) -> None:
        async with ApiUpstream(accept_any_of({"static-token"})) as api:
            toml = f'[accounts.a]\ntoken = "static-token"\n[routes."/"]\nupstream = "{api.url}"\n'
            async with RunningDaemon(tmp_path, toml) as daemon:
                assert (await get(f"{daemon.url}/x"))[0] == 200
        assert "daemon.stopped" in daemon.log
        assert "static-token" not in daemon.log

    @pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit for Windows")
    @pytest.mark.parametrize("loop", LOOPS)
    async def test_few_descriptors_are_enough_and_never_run_out(
        self, tmp_path: Path, loop: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if loop == "asyncio":
            monkeypatch.setenv("PYTHONPATH", str(ASYNCIO_ONLY))
        async with ApiUpstream(accept_any_of({"static-token"})) as api:
            toml = f'[accounts.a]\ntoken = "static-token"\n[routes."/"]\nupstream = "{api.url}"\n'
            async with RunningDaemon(tmp_path, toml, descriptors=64) as daemon:
                for _ in range(2):
                    crowd = [await asyncio.open_connection("127.0.0.1", daemon.port) for _ in range(200)]
                    statuses = await asyncio.gather(*(ask(reader, writer) for reader, writer in crowd))
                    assert statuses.count(b"200") == 8
                    assert set(statuses) == {b"200", b"503", b""}
                    for _, writer in crowd:
                        writer.transport.abort()
                    async with asyncio.timeout(10):  # for another process to notice that they have left
                        while (await get(f"{daemon.url}/x"))[0] != 200:  # noqa: ASYNC110
                            await asyncio.sleep(0.1)
        assert daemon.log.count("connections.full") == 2
        assert "connections.fewer" in daemon.log
        assert "library.message" not in daemon.log

    @pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit for Windows")
    async def test_a_body_on_disk_takes_a_descriptor_too(self, tmp_path: Path) -> None:
        toml = '[accounts.a]\ntoken = "t"\n[routes."/"]\nupstream = "http://127.0.0.1:9"\nspool = "disk"\n'
        async with RunningDaemon(tmp_path, toml, descriptors=64) as daemon:
            pass
        assert '"connections": 5' in daemon.log

    async def test_a_second_signal_does_not_wait(self, tmp_path: Path) -> None:
        asked = asyncio.Event()

        async def never(token: str) -> bool:
            asked.set()
            await asyncio.sleep(30)
            return bool(token)

        async with ApiUpstream(never) as api:
            toml = f'[accounts.a]\ntoken = "static-token"\n[routes."/"]\nupstream = "{api.url}"\n'
            daemon = RunningDaemon(tmp_path, toml)
            await daemon.__aenter__()
            call = asyncio.create_task(get(f"{daemon.url}/x"))
            await asked.wait()
            os.kill(daemon.pid, signal.SIGTERM)
            async with asyncio.timeout(10):
                while await listens(daemon.port):  # noqa: ASYNC110  # another process, until it has the first
                    await asyncio.sleep(0.02)
            assert not call.done()
            os.kill(daemon.pid, signal.SIGTERM)
            assert await daemon._process.wait() == -signal.SIGTERM
            await daemon._reader
            with pytest.raises(aiohttp.ClientError):
                await call


def test_the_descriptor_limit_is_raised_to_the_hard_one() -> None:
    import resource  # noqa: PLC0415  # there is none for Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    raise_descriptor_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
