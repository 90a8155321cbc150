"""`token` and `refresh`, as processes beside daemons, dead daemons and none."""

import asyncio
import json
import os
import re
import resource
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from bearerd.demo.authorization_server import Lifetimes
from bearerd.demo.world import Demo
from certificates import Authority
from commands import Ended, run, write
from daemons import RunningDaemon
from faults import FaultServer, reply, serve
from relays import TlsUpstream, TunnelProxy

STATIC = """
[accounts.work]
token = "{token}"
[routes."/"]
upstream = "http://127.0.0.1:9"
"""
COUNTING = """
[accounts.work]
command = ["sh", "-c", "echo x >> {folder}/calls; printf t; wc -l < {folder}/calls | tr -d ' '"]
[routes."/"]
upstream = "http://127.0.0.1:9"
"""
SERVICE = """
[accounts.work]
grant = "client_credentials"
token_endpoint = "{endpoint}"
client_id = "c"
client_secret = "the-secret"
ca_file = "{ca_file}"
[routes."/"]
upstream = "http://127.0.0.1:9"
"""
SLOW_TO_IMPORT = ("aiohttp", "asyncio", "cryptography", "pydantic", "structlog", "uvloop")


def sockets(runtime: Path) -> list[Path]:
    return sorted((runtime / "bearerd").iterdir())


def calls(folder: Path) -> int:
    """How often the command of `COUNTING` has run."""
    return (folder / "calls").read_text().count("x")


class TestWithADaemon:
    async def test_its_token_is_printed_and_none_is_spent(self, tmp_path: Path) -> None:
        async with RunningDaemon(tmp_path, COUNTING.format(folder=tmp_path)):
            file = tmp_path / "bearerd.toml"
            assert await run("token", "work", "-c", file) == Ended(0, "t1\n", "")
            assert await run("token", "work", BEARERD_CONFIG=str(file)) == Ended(0, "t1\n", "")
            assert calls(tmp_path) == 1

    async def test_nothing_slow_is_imported(self, tmp_path: Path) -> None:
        async with RunningDaemon(tmp_path, STATIC.format(token="t")):
            asked = ("token", "work", "-c", tmp_path / "bearerd.toml")
            ended = await run(*asked, python=("-X", "importtime"), COVERAGE_PROCESS_START="")
        assert ended.out == "t\n"
        loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.err.splitlines()}
        assert "bearerd" in loaded
        assert loaded.isdisjoint(SLOW_TO_IMPORT)

    async def test_refresh_and_force(self, tmp_path: Path) -> None:
        file = tmp_path / "bearerd.toml"
        async with RunningDaemon(tmp_path, COUNTING.format(folder=tmp_path)):
            ended = await run("refresh", "work", "-c", file)
            assert (ended.status, ended.out) == (0, "")
            assert ended.err.startswith("bearerd: work has a new token; it expires at 2")
            assert await run("token", "work", "-c", file, "--force") == Ended(0, "t3\n", "")
            assert await run("token", "work", "-c", file, "--min-valid", "9999") == Ended(0, "t3\n", "")
            assert calls(tmp_path) == 3

    async def test_two_that_serve_other_files_with_an_account_of_that_name(self, tmp_path: Path) -> None:
        one, two, three = (tmp_path / name for name in ("one", "two", "three"))
        for folder in (one, two, three):
            folder.mkdir()
        file = write(three, STATIC.format(token="of-three"))
        async with (
            RunningDaemon(one, STATIC.format(token="of-one")),
            RunningDaemon(two, STATIC.format(token="of-two")),
        ):
            assert (await run("token", "work", "-c", one / "bearerd.toml")).out == "of-one\n"
            assert (await run("token", "work", "-c", two / "bearerd.toml")).out == "of-two\n"
            assert (await run("token", "work", "-c", file)).out == "of-three\n"

    async def test_an_account_it_does_not_have_is_a_usage_error(self, tmp_path: Path) -> None:
        async with RunningDaemon(tmp_path, STATIC.format(token="t")):
            ended = await run("token", "wrok", "-c", tmp_path / "bearerd.toml")
        assert (ended.status, ended.out) == (2, "")
        assert "there is no account wrok; there is work" in ended.err

    async def test_variables_that_change_the_account_mean_another_token(self, tmp_path: Path) -> None:
        async with RunningDaemon(tmp_path, STATIC.format(token="of-the-file")):
            file = tmp_path / "bearerd.toml"
            ended = await run("token", "work", "-c", file, BEARERD_ACCOUNTS__WORK__TOKEN="of-the-variable")
            assert ended == Ended(0, "of-the-variable\n", "")

    async def test_it_is_asked_by_who_has_the_same_variables(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BEARERD_ACCOUNTS__WORK__TOKEN", "of-the-variable")
        async with RunningDaemon(tmp_path, STATIC.format(token="of-the-file")) as daemon:
            file = tmp_path / "bearerd.toml"
            asked = run("token", "work", "-c", file, python=("-X", "importtime"))
            ended = await asked
            assert ended.out == "of-the-variable\n"
            assert "pydantic" not in ended.err
        assert "of-the-variable" not in daemon.log

    async def test_a_failure_is_the_daemon_s_in_its_words(self, tmp_path: Path) -> None:
        async with RunningDaemon(tmp_path, STATIC.replace('token = "{token}"', 'command = ["false"]')):
            ended = await run("token", "work", "-c", tmp_path / "bearerd.toml")
        said = "bearerd: the command ended with status 1; run it by hand to see why\n"
        assert ended == Ended(1, "", said)

    async def test_a_login_that_is_over_is_exit_code_4_by_either_way(self, tmp_path: Path) -> None:
        refusal = reply(b'{"error": "invalid_grant"}', "400 Bad Request", "Content-Type: application/json")
        async with FaultServer([serve(refusal)]) as server:
            toml = f"""
[store]
path = "{tmp_path}/vault"
key_file = "{tmp_path}/vault.key"
[accounts.work]
refresh_token = "over"
client_id = "c"
token_endpoint = "{server.url}/token"
[routes."/"]
upstream = "http://127.0.0.1:9"
"""
            asked = ("token", "work", "-c", tmp_path / "bearerd.toml")
            async with RunningDaemon(tmp_path, toml):
                by_socket = await run(*asked)
            by_store = await run(*asked)
        assert (by_socket.status, by_socket.out) == (4, "")
        assert by_socket.err == (
            "bearerd: account work: the token endpoint says invalid_grant; "
            "give it a new refresh token, or log in where its vault is filled\n"
        )
        assert (by_store.status, by_store.out) == (4, "")
        assert by_store.err == by_socket.err


class TestWithADeadDaemon:
    async def test_what_a_killed_one_left_is_removed_and_the_store_is_used(
        self, tmp_path: Path, runtime: Path
    ) -> None:
        daemon = RunningDaemon(tmp_path, COUNTING.format(folder=tmp_path))
        await daemon.__aenter__()
        os.kill(daemon.pid, signal.SIGKILL)
        assert await daemon.end() == -signal.SIGKILL
        assert len(sockets(runtime)) == 1
        assert await run("token", "work", "-c", tmp_path / "bearerd.toml") == Ended(0, "t2\n", "")
        assert sockets(runtime) == []

    async def test_one_that_is_stopped_holds_nobody_up_for_long(self, tmp_path: Path, runtime: Path) -> None:
        async with RunningDaemon(tmp_path, COUNTING.format(folder=tmp_path)) as daemon:
            os.kill(daemon.pid, signal.SIGSTOP)
            try:
                ended = await run("token", "work", "-c", tmp_path / "bearerd.toml")
            finally:
                os.kill(daemon.pid, signal.SIGCONT)
            assert ended == Ended(0, "t2\n", "")
            assert len(sockets(runtime)) == 1

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems do not let limits be set from outside")
    async def test_one_without_a_descriptor_to_spare_recovers(self, tmp_path: Path) -> None:
        asked = ("token", "work", "-c", tmp_path / "bearerd.toml")
        async with RunningDaemon(tmp_path, COUNTING.format(folder=tmp_path)) as daemon:
            before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, before[1]))
            assert await run(*asked) == Ended(0, "t2\n", "")
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
            await asyncio.sleep(0.5)
            assert await run(*asked) == Ended(0, "t1\n", "")

    async def test_one_that_is_ended_leaves_nothing(self, tmp_path: Path, runtime: Path) -> None:
        async with RunningDaemon(tmp_path, STATIC.format(token="t")):
            assert len(sockets(runtime)) == 1
        assert sockets(runtime) == []

    async def test_a_link_in_place_of_the_folder_is_warned_of(self, tmp_path: Path, runtime: Path) -> None:
        (runtime / "bearerd").symlink_to(tmp_path)
        async with RunningDaemon(tmp_path, STATIC.format(token="t")) as daemon:
            ended = await run("token", "work", "-c", tmp_path / "bearerd.toml")
        assert (ended.status, ended.out) == (0, "t\n")
        assert ended.err == (
            f"bearerd: warning: running daemons are not asked: {runtime}/bearerd cannot be used: is a link; mend that, or let XDG_RUNTIME_DIR or "
            "TMPDIR name a folder of your own\n"
        )
        assert "control.unavailable" in daemon.log


@asynccontextmanager
async def small_disk(folder: Path) -> AsyncIterator[Path]:
    """A file system of its own, as a folder."""
    folder.mkdir()
    await command("mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        await command("umount", str(folder))


async def command(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(*words)
    assert await process.wait() == 0


def fill(file: Path) -> None:
    """Take all the room there is."""
    with file.open("ab", buffering=0) as out:
        try:
            while True:
                out.write(bytes(4096))
        except OSError:
            return


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
async def test_an_unsaved_token_is_had_from_the_daemon_that_keeps_it(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        demo = await stack.enter_async_context(Demo.start(Lifetimes()))
        disk = await stack.enter_async_context(small_disk(tmp_path / "disk"))
        toml = f"""
[store]
kind = "vault"
path = "{disk}/vault"
key_file = "{tmp_path}/vault.key"
[accounts.work]
grant = "client_credentials"
issuer = "{demo.issuer}"
client_id = "{demo.client_id}"
client_secret = "{demo.client_secret.reveal()}"
[routes."/"]
upstream = "{demo.api_url}"
"""
        daemon = await stack.enter_async_context(RunningDaemon(tmp_path, toml))
        asked = ("token", "work", "-c", tmp_path / "bearerd.toml")
        first = await run(*asked)
        fill(disk / "filler")
        forced = await run(*asked, "--force")
        again = await run(*asked)
        assert (forced.status, forced.err) == (0, "")
        assert again == forced != first
        (disk / "filler").unlink()
    assert "token.unsaved" in daemon.log


class TestAlone:
    async def test_force_and_min_valid(self, tmp_path: Path) -> None:
        file = write(tmp_path, COUNTING.format(folder=tmp_path))
        assert await run("token", "work", "-c", file, "--min-valid", "9999") == Ended(0, "t1\n", "")
        ended = await run("token", "work", "-c", file, "--force")
        assert ended.status == 0
        assert (
            calls(tmp_path) == 2
        )  # a process without a token of its own has the first refresh for the forced one
        assert (await run("refresh", "work", "-c", file)).status == 0

    async def test_behind_the_proxy_of_the_environment(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        given = reply(b'{"access_token": "t1", "token_type": "Bearer", "expires_in": 300}')
        async with (
            TlsUpstream(authority.server("login.example.com"), given) as server,
            TunnelProxy() as proxy,
        ):
            endpoint = f"https://login.example.com:{server.port}/token"
            file = write(tmp_path, SERVICE.format(endpoint=endpoint, ca_file=authority.ca_file))
            variables = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}", "NO_PROXY": "", "no_proxy": ""}
            assert await run("token", "work", "-c", file, python=(), **variables) == Ended(0, "t1\n", "")
            shown = await run("config", "show", "-c", file, python=(), **variables)
            assert re.search(r"accounts\.work\.proxy .*HTTPS_PROXY", shown.out)
            assert proxy.connections == 1

    @pytest.mark.parametrize("value", ["-1", "soon", "nan"])
    async def test_min_valid_is_a_number_of_seconds(self, tmp_path: Path, value: str) -> None:
        file = write(tmp_path, STATIC.format(token="t"))
        assert (await run("token", "work", "-c", file, "--min-valid", value)).status == 2


class TestFormats:
    """By way of the command: what `core.token_formats` says is tested with it."""

    @pytest.fixture
    def asked(self, tmp_path: Path) -> tuple[str | Path, ...]:
        return ("token", "work", "-c", write(tmp_path, STATIC.format(token="the-token")), "--format")

    async def test_env(self, asked: tuple[str | Path, ...]) -> None:
        assert await run(*asked, "env") == Ended(0, "ACCESS_TOKEN=the-token\n", "")

    async def test_kubernetes(self, asked: tuple[str | Path, ...]) -> None:
        credential = json.loads((await run(*asked, "k8s-exec")).out)
        assert credential["status"]["token"] == "the-token"

    async def test_git_itself(self, asked: tuple[str | Path, ...], tmp_path: Path) -> None:
        """Git runs the helper, with the operation after the words of its configuration."""
        helper = f"!{sys.executable} -m bearerd {' '.join(map(str, asked))} git-credential"
        config = ("-c", "credential.helper=", "-c", f"credential.helper={helper}")
        for operation, expected in (("fill", "password=the-token"), ("approve", ""), ("reject", "")):
            process = await asyncio.create_subprocess_exec(
                *("git", *config, "credential", operation),
                stdin=PIPE,
                stdout=PIPE,
                cwd=tmp_path,
                env=os.environ | {"GIT_TERMINAL_PROMPT": "0"},
            )
            said = b"protocol=https\nhost=git.example.com\nusername=me\npassword=x\n\n"
            asking = said.replace(b"username=me\npassword=x\n", b"") if operation == "fill" else said
            out, _ = await process.communicate(asking)
            assert process.returncode == 0
            assert expected in out.decode().splitlines() or not expected

    async def test_git_over_plain_http_gets_nothing(self, asked: tuple[str | Path, ...]) -> None:
        said = "protocol=http\nhost=git.example.com\n\n"
        assert await run(*asked, "git-credential", "get", stdin=said) == Ended(0, "", "")

    @pytest.mark.parametrize("operation", ["store", "erase", "capability"])
    async def test_there_is_nothing_to_store(self, asked: tuple[str | Path, ...], operation: str) -> None:
        for form in ("git-credential", "docker-credential"):
            assert await run(*asked, form, operation, stdin="x") == Ended(0, "", "")

    async def test_docker(self, asked: tuple[str | Path, ...]) -> None:
        ended = await run(*asked, "docker-credential", "get", stdin="https://images.example.com\n")
        assert json.loads(ended.out)["ServerURL"] == "https://images.example.com"
        assert json.loads(ended.out)["Secret"] == "the-token"
        assert await run(*asked, "docker-credential", "list") == Ended(0, "{}\n", "")
        nothing = await run(*asked, "docker-credential", "get")
        assert (nothing.status, nothing.out) == (2, "")
        assert "reads the address of a server" in nothing.err

    async def test_other_formats_have_no_operations(self, asked: tuple[str | Path, ...]) -> None:
        ended = await run(*asked, "raw", "get")
        assert (ended.status, ended.out) == (2, "")
        assert "only git-credential and docker-credential have operations" in ended.err


class TestStatusOfAll:
    async def test_every_daemon_and_those_of_a_file(self, tmp_path: Path) -> None:
        one, two = tmp_path / "one", tmp_path / "two"
        for folder in (one, two):
            folder.mkdir()
        async with (
            RunningDaemon(one, STATIC.format(token="canary-1")) as first,
            RunningDaemon(two, STATIC.format(token="canary-2")),
        ):
            document = json.loads((await run("status", "--json")).out)
            assert document["format_version"] == 1
            assert {daemon["config"] for daemon in document["daemons"]} == {
                str(folder / "bearerd.toml") for folder in (one, two)
            }
            table = await run("status")
            assert table.out.count("ACCOUNT") == 2
            assert (
                f"{first.url} and http://[::1]:{first.port}, process {first.pid}, {one}/bearerd.toml"
                in table.out
            )
            assert "canary" not in table.out
            of_one = await run("status", "-c", one / "bearerd.toml")
            assert of_one.out.count("ACCOUNT") == 1
            assert of_one.out.startswith(f"bearerd on {first.url} and ")

    async def test_without_sockets_the_configured_port_is_asked(self, tmp_path: Path, runtime: Path) -> None:
        (runtime / "bearerd").symlink_to(tmp_path)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        async with RunningDaemon(tmp_path, STATIC.format(token="t")) as daemon:
            asked = write(tmp_path, f"[listen]\nport = {daemon.port}\n{STATIC.format(token='t')}")
            ended = await run("status", "-c", asked)
            assert ended.out.startswith(f"bearerd on {daemon.url} and http://[::1]:{daemon.port}\nACCOUNT ")
            assert "running daemons are not asked" in ended.err
            assert json.loads((await run("status", "-c", asked, "--json")).out)["daemons"][0]["accounts"]
        write(tmp_path, f"[listen]\nport = {port}\n{STATIC.format(token='t')}")
        assert (await run("status", "-c", asked)).status == 1
