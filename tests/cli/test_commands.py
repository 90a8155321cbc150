"""`run`, `demo`, `token` and `status`, as processes: what they print, where, and how they end."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from commands import Ended, run
from daemons import RunningDaemon
from faults import refused_port

STATIC = """
[accounts.work]
token = "the-static-token"
[routes."/"]
upstream = "http://127.0.0.1:9"
"""


OF_DEMO = """
[accounts.service]
grant = "client_credentials"
issuer = "http://127.0.0.1:{port}"
client_id = "bearerd-demo"
client_secret_file = "{secret}"
[routes."/"]
upstream = "http://127.0.0.1:{api}"
"""


@asynccontextmanager
async def demo(*words: str, lines: int = 4, sign: str = "curl") -> AsyncIterator[str]:
    """A demo that runs, as what it printed; it ends by SIGTERM and with status 0."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bearerd", *words),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=DEVNULL,
    )
    assert process.stdout is not None
    try:
        printed = b""
        async with asyncio.timeout(60):
            while printed.count(sign.encode()) < lines:
                line = await process.stdout.readline()
                assert line, printed
                printed += line
        yield printed.decode()
    finally:
        process.terminate()
        assert await process.wait() == 0


@asynccontextmanager
async def read_by_somebody(fifo: Path) -> AsyncIterator[None]:
    """Once it is read from. Whoever does gets nothing, and no end."""
    while True:
        with suppress(OSError):
            descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            break
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        os.close(descriptor)


def two_free_ports() -> int:
    """The first of two ports in a row that nobody else takes: below those that the system gives out."""
    for _ in range(100):
        port = refused_port()
        with suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
            return port
    raise AssertionError


async def shell(command: str) -> str:
    """What a person gets who pastes `command`."""
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "given.toml"
    path.write_text(STATIC)
    path.chmod(0o600)
    return path


class TestRun:
    async def test_without_a_configuration_it_names_the_ways_out(self, tmp_path: Path) -> None:
        ended = await run("run")
        assert ended.status == 78
        assert ended.out == ""
        first, *rest = ended.err.splitlines()
        assert first == (
            "bearerd: there is no configuration; write one with: bearerd init, or by hand to "
            f"{tmp_path}/config/bearerd/bearerd.toml, or try: bearerd demo"
        )
        assert any("[accounts.work]" in line for line in rest)

    async def test_a_port_in_use_is_one_line_and_status_78(self, file: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            ended = await run("run", "-c", file, "--port", str(port))
        assert (ended.status, ended.out) == (78, "")
        assert ended.err == (
            f"bearerd: listen.port: {port} on 127.0.0.1 is in use by another program; "
            "stop it, or choose another with --port or listen.port\n"
        )

    async def test_a_bad_file_is_one_line_per_problem_and_status_78(self, file: Path) -> None:
        file.write_text(STATIC.replace("upstream", "upstreem"))
        ended = await run("run", "-c", file)
        assert ended.status == 78
        assert len(ended.err.splitlines()) == 2
        assert "did you mean" in ended.err
        assert "missing" in ended.err

    async def test_it_says_where_it_listens_and_what_leads_where(self, tmp_path: Path) -> None:
        async with RunningDaemon(tmp_path, STATIC) as daemon:
            """It has to end before all that it said can be read."""
        assert f"bearerd listens on {daemon.url} and http://[::1]:{daemon.port}\n" in daemon.log
        assert "  / -> http://127.0.0.1:9 with a token of work\n" in daemon.log
        assert "warning" not in daemon.log

    async def test_it_says_who_has_to_log_in_and_where(self, tmp_path: Path) -> None:
        login = """
            [store]
            kind = "memory"
            [accounts.me]
            issuer = "http://127.0.0.1:9"
            client_id = "id"
            [routes."/me/"]
            upstream = "http://127.0.0.1:9"
            account = "me"
        """
        async with RunningDaemon(tmp_path, login) as daemon:
            status = await run("status", "--port", str(daemon.port))
            assert status.out.endswith("me: nobody has logged in yet; run: bearerd login me\n")
        assert f"Account me needs a login: {daemon.url}/-/login/me\n" in daemon.log

    async def test_a_warning_is_a_line_on_standard_error(self, tmp_path: Path) -> None:
        async with RunningDaemon(tmp_path, STATIC.replace("127.0.0.1:9", "api.example")) as daemon:
            """It has to end before all that it said can be read."""
        assert daemon.log.startswith("bearerd: warning: ")

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems have no first process of a container")
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a first process; run by CI")
    async def test_the_first_process_of_a_container_hears_of_its_end_while_it_starts(
        self, tmp_path: Path
    ) -> None:
        waits = tmp_path / "nobody-writes.toml"
        os.mkfifo(waits, 0o600)
        argv = ("unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "bearerd", "run")
        process = await asyncio.create_subprocess_exec(*argv, "-c", str(waits), stdin=DEVNULL, stderr=DEVNULL)
        try:
            async with asyncio.timeout(60), read_by_somebody(waits):
                first = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
                ended = asyncio.ensure_future(process.wait())
                while (
                    not ended.done()
                ):  # one that comes just before it sleeps in the system, Python hears of afterwards
                    os.kill(int(first), signal.SIGTERM)
                    await asyncio.wait([ended], timeout=1)
                assert ended.result() == 128 + signal.SIGTERM
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


class TestDemo:
    @pytest.mark.parametrize("words", [("demo",), ("run", "--or-demo")], ids=" ".join)
    async def test_the_commands_it_prints_work_as_they_stand(self, words: tuple[str, ...]) -> None:
        async with demo(*words, "--port", "0") as printed:
            hello, watch, revoke = (line.strip() for line in printed.splitlines() if line.startswith("  "))
            answer = json.loads(await shell(hello))
            assert answer["method"] == "GET"
            assert answer["path"] == "/hello"
            assert 0 < answer["seconds_left"] <= 60
            assert re.fullmatch("[0-9a-f]{12}", answer["token_fingerprint"])
            short = watch.replace("1 2 3 4 5 6 7", "1").replace("sleep 10", "sleep 0")
            assert answer["token_fingerprint"] in await shell(short)
            after = (await shell(revoke)).split("}")[1] + "}"
            assert json.loads(after)["token_fingerprint"] != answer["token_fingerprint"]

    async def test_its_servers_serve_a_bearerd_elsewhere(self, tmp_path: Path) -> None:
        secret = tmp_path / "client-secret"
        secret.write_text("shared\n")
        port = two_free_ports()
        words = ("demo", "--servers", str(port), "--client-secret-file", str(secret), "--token-lifetime", "7")
        toml = OF_DEMO.format(port=port, api=port + 1, secret=secret)
        servers = demo(*words, lines=1, sign="authorization server")
        async with servers, RunningDaemon(tmp_path, toml) as daemon:
            answer = json.loads(await shell(f"curl -s {daemon.url}/hello"))
        assert answer["subject"] == "bearerd-demo"
        assert 0 < answer["seconds_left"] <= 7

    async def test_a_port_of_its_servers_in_use_is_one_line(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            ended = await run("demo", "--servers", str(port))
        assert (ended.status, ended.out) == (1, "")
        assert ended.err == (
            f"bearerd: port {port} or {port + 1}: Address already in use; choose another with --servers\n"
        )

    async def test_a_secret_is_for_its_servers_alone(self, file: Path) -> None:
        ended = await run("demo", "--client-secret-file", file)
        assert ended.status == 2
        assert "goes with --servers" in ended.err

    async def test_with_a_configuration_the_demo_is_not_run(self, file: Path) -> None:
        file.write_text("nonsense")
        ended = await run("run", "--or-demo", "-c", file)
        assert ended.status == 78


class TestToken:
    async def test_raw_is_the_token_and_a_newline_and_nothing_else(self, file: Path) -> None:
        assert await run("token", "work", "-c", file) == Ended(0, "the-static-token\n", "")

    async def test_header(self, file: Path) -> None:
        ended = await run("token", "work", "-c", file, "--format", "header")
        assert ended == Ended(0, "Authorization: Bearer the-static-token\n", "")

    async def test_json(self, file: Path) -> None:
        ended = await run("token", "work", "-c", file, "--format", "json")
        document = json.loads(ended.out)
        assert document["format_version"] == 1
        assert document["access_token"] == "the-static-token"
        assert document["token_type"] == "Bearer"
        assert document["expires"].endswith("+00:00")
        assert document["expires_at"] > 0

    async def test_an_unknown_account_is_a_usage_error_that_lists_the_known(self, file: Path) -> None:
        ended = await run("token", "wrok", "-c", file)
        assert (ended.status, ended.out) == (2, "")
        assert "there is no account wrok; there is work" in ended.err

    async def test_a_single_use_refresh_token_is_not_spent(self, file: Path) -> None:
        """Nothing listens at the token endpoint: were it asked, the error would be another."""
        file.write_text(
            '[accounts.work]\nrefresh_token = "r"\nclient_id = "c"\ntoken_endpoint = "http://127.0.0.1:9/token"\n'
            '[routes."/"]\nupstream = "http://127.0.0.1:9"\n[store]\nkind = "memory"\n'
        )
        ended = await run("token", "work", "-c", file)
        assert (ended.status, ended.out) == (1, "")
        assert "its successor would be lost" in ended.err

    async def test_a_source_that_gives_nothing_is_an_error_on_standard_error(self, file: Path) -> None:
        file.write_text(STATIC.replace('token = "the-static-token"', 'command = ["false"]'))
        ended = await run("token", "work", "-c", file)
        assert (ended.status, ended.out) == (1, "")
        assert ended.err.endswith("bearerd: the command ended with status 1; run it by hand to see why\n")


class TestStatus:
    async def test_a_table_for_people_and_json_for_programs(self, tmp_path: Path) -> None:
        async with RunningDaemon(tmp_path, STATIC) as daemon:
            async with aiohttp.ClientSession() as session, session.get(f"{daemon.url}/x") as response:
                assert response.status == 502
            table = await run("status", "--port", str(daemon.port))
            document = await run("status", "--port", str(daemon.port), "--json")
        title, header, row = table.out.splitlines()
        assert title == f"bearerd on {daemon.url} and http://[::1]:{daemon.port}"
        assert header.split("  ")[0] == "ACCOUNT"
        assert re.fullmatch(r"work +active +in \d+ min +(now|\d+ s ago)", row)
        assert json.loads(document.out)["accounts"][0]["name"] == "work"
        assert "the-static-token" not in table.out + document.out

    async def test_what_is_wrong_stands_below_the_table(self, tmp_path: Path) -> None:
        toml = STATIC.replace('token = "the-static-token"', 'command = ["false"]')
        async with RunningDaemon(tmp_path, toml) as daemon:
            async with aiohttp.ClientSession() as session, session.get(f"{daemon.url}/x") as response:
                assert response.status == 503
            ended = await run("status", "--port", str(daemon.port))
        assert ended.out.splitlines()[2].split() == ["work", "waiting", "-", "-"]
        assert (
            ended.out.splitlines()[3]
            == "work: the command ended with status 1; run it by hand to see why; it is tried again by itself"
        )

    async def test_no_daemon_is_an_error_that_says_how_to_start_one(self, file: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        expected = Ended(1, "", f"bearerd: no bearerd answers on port {port}; start one with: bearerd run\n")
        assert await run("status", "--port", str(port)) == expected
        file.write_text(f"[listen]\nport = {port}\n{STATIC}")
        named = await run("status", "-c", file)
        assert named.err == expected.err.replace("bearerd run\n", f"bearerd run -c {file}\n")

    async def test_another_program_on_the_port_is_not_taken_for_one(self) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            assert (await run("status", "--port", str(port))).status == 1
