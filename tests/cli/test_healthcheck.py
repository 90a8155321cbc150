"""`bearerd healthcheck`, against daemons and against what is none."""

import asyncio
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bearerd.cli import main
from bearerd.cli.healthcheck import ANSWER_LIMIT, check
from bearerd.core.configuration import Listen
from bearerd.core.reaching import Target
from callers import running
from commands import run, write
from faults import FaultServer, Step, hang, read, refused_port, repeat, reply, reset, send, serve
from patience import within

HEAVY = (
    "aiohttp",
    "pydantic",
    "asyncio",
    "structlog",
    "prometheus_client",
    "cryptography",
    "keyring",
    "http.client",
    "bearerd.core.configuration",
)


def ask(*words: str | Path) -> Result:
    """In this process: what is tried is not how it starts."""
    return CliRunner().invoke(main, ["healthcheck", *map(str, words)])


async def heard(server: FaultServer) -> None:
    """Until it has taken the request, whose sender may have left."""
    async with within(15):
        while not server.requests:  # noqa: ASYNC110  # there is nothing that would tell
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------- what is no daemon, or no good one


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([read, reset], "nothing answers at"),
        ([read], "is not bearerd"),
        ([read, send(b"SSH-2.0-x\r\n\r\n")], "is not bearerd"),
        ([read, send(b"HTTP/1.1 xyz OK\r\n\r\n")], "is not bearerd"),
        ([read, send(reply(b"", "404 Not Found"))], "the answer is 404, not 200"),
        (
            [read, send(b"HTTP/1.1 503 No\r\n\r\n[-]store failed: it is gone\n[-]a failed: \x1b[2J\n")],
            "store failed: it is gone",
        ),
    ],
)
async def test_what_is_no_good_answer(steps: list[Step], reason: str) -> None:
    async with FaultServer(steps) as server:
        until = time.monotonic() + 20
        problem = await asyncio.to_thread(check, Target("127.0.0.1", server.port), "livez", until)
    assert reason in problem
    assert problem.isprintable()


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    async with FaultServer(
        [read, send(b"HTTP/1.1 200 OK\r\n\r\n"), repeat(b"x" * 8192, 1000), hang]
    ) as server:
        until = time.monotonic() + 30
        assert await asyncio.to_thread(check, Target("127.0.0.1", server.port), "livez", until) == ""
        assert ANSWER_LIMIT < 8192 * 1000


async def test_an_answer_that_does_not_come() -> None:
    async with FaultServer([read, hang]) as server:
        until = time.monotonic() + 0.2
        problem = await asyncio.to_thread(check, Target("127.0.0.1", server.port), "livez", until)
        await heard(server)
    assert "there was no answer within" in problem


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    socket = Target(socket=str(tmp_path / "none"))
    assert "nothing answers at the socket" in check(socket, "livez", time.monotonic() + 20)


async def test_an_answer_that_comes_too_late() -> None:
    async with FaultServer([read, send(reply(b"ok\n"))]) as server:
        problem = await asyncio.to_thread(
            check, Target("127.0.0.1", server.port), "livez", time.monotonic() - 1
        )
        await heard(server)
    assert "there was no answer within" in problem


def test_nobody_there() -> None:
    ended = ask("--port", str(refused_port()))
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert re.fullmatch(
        r"bearerd: nothing answers at 127\.0\.0\.1:\d+; start it with: bearerd run\n", ended.stderr
    )


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("not TOML", "is no configuration; see: bearerd config check"),
        ("a = " + "[" * 5000, "is no configuration; see: bearerd config check"),
        ("[listen]\nport = 0", "the port is one that the system chose; name it with --port"),
    ],
)
def test_a_configuration_that_does_not_say_where(tmp_path: Path, toml: str, reason: str) -> None:
    ended = ask("-c", write(tmp_path, toml))
    assert reason in ended.output
    assert ended.output.count("\n") == 1


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    ended = ask("-c", tmp_path / "none.toml")
    assert (ended.exit_code, "cannot be read: no such file" in ended.stderr) == (1, True)


# ---------------------------------------------------------------- daemons


async def test_a_daemon_by_its_port_and_by_its_address_for_probes(tmp_path: Path) -> None:
    probed = Listen(hosts=("127.0.0.1",), port=0, probes=("127.0.0.1", 0))
    async with running("http://127.0.0.1:9", listen=probed) as daemon:
        await daemon.started()
        file = write(tmp_path, f'[listen]\nprobes = "127.0.0.1:{daemon.probes_port}"')
        ended = await asyncio.to_thread(ask, "-c", file)
        assert (ended.exit_code, ended.output) == (0, f"bearerd at 127.0.0.1:{daemon.probes_port} is alive\n")
        ended = await asyncio.to_thread(ask, "--ready", "--port", str(daemon.port))
        assert (ended.exit_code, ended.output) == (0, f"bearerd at 127.0.0.1:{daemon.port} is ready\n")
        daemon.health.draining = True
        ended = await asyncio.to_thread(ask, "--ready", "-c", file)
        assert (ended.exit_code, ended.stdout) == (1, "")
        assert ended.stderr.startswith("bearerd: drain failed: bearerd is ending")
        assert ended.stderr.count("\n") == 1


async def test_a_daemon_on_a_unix_socket_alone(tmp_path: Path, runtime: Path) -> None:
    socket = (runtime / "calls.sock").resolve()
    async with running("http://127.0.0.1:9", listen=Listen(hosts=(), socket=str(socket))) as daemon:
        await daemon.started()
        file = write(tmp_path, f'[listen]\nhosts = []\nsocket = "{socket}"')
        ended = await asyncio.to_thread(ask, "--ready", "-c", file)
        assert (ended.exit_code, ended.output) == (0, f"bearerd at the socket {socket} is ready\n")


async def test_it_imports_little() -> None:
    """A probe comes every few seconds: 70 ms of CPU where it was measured, most of it Python's own start."""
    async with FaultServer([serve(reply(b"ok\n"))]) as server:
        words = ("healthcheck", "--port", str(server.port))
        ended = await run(*words, python=("-X", "importtime"), COVERAGE_PROCESS_START="")
    loaded = {
        line.rpartition("|")[2].strip() for line in ended.err.splitlines() if line.startswith("import time:")
    }
    assert "click" in loaded
    assert loaded.isdisjoint(HEAVY)
