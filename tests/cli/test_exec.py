"""`bearerd exec`: which variables a command gets, and that it takes the place of bearerd."""

import asyncio
import json
import os
import resource
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import click
import pytest

from bearerd.cli.exec import (
    DUMMY,
    GENERIC,
    Reached,
    build_environment,
    build_variables,
    choose_route,
    find_keyless,
    load_routes,
    parse_variables,
)
from daemons import RunningDaemon

URL = "http://127.0.0.1:6750"
ROOT = Reached("/", URL)
OPENAI = Reached("/openai", f"{URL}/openai", (("OPENAI_BASE_URL", "/v1"),))
CLAUDE = Reached("/claude", f"{URL}/claude", (("ANTHROPIC_BASE_URL", ""), ("CLAUDE_URL", "")))
PRINT = "import json, os; print(json.dumps(dict(os.environ)))"


class TestVariables:
    def test_the_only_route_has_the_generic_one(self) -> None:
        assert build_variables([ROOT], None, []) == {GENERIC: URL}
        assert build_variables([OPENAI], None, []) == {
            GENERIC: f"{URL}/openai",
            "OPENAI_BASE_URL": f"{URL}/openai/v1",
        }

    def test_of_several_the_root_has_it_and_each_has_its_own(self) -> None:
        assert build_variables([CLAUDE, OPENAI, ROOT], None, []) == {
            GENERIC: URL,
            "ANTHROPIC_BASE_URL": f"{URL}/claude",
            "CLAUDE_URL": f"{URL}/claude",
            "OPENAI_BASE_URL": f"{URL}/openai/v1",
        }

    def test_of_several_without_a_root_none_has_it(self) -> None:
        assert GENERIC not in build_variables([CLAUDE, OPENAI], None, [])

    @pytest.mark.parametrize("wanted", ["/openai", "/openai/"])
    def test_the_wanted_route_alone(self, wanted: str) -> None:
        assert build_variables([CLAUDE, OPENAI, ROOT], wanted, [("X", ""), (GENERIC, "/v2")]) == {
            GENERIC: f"{URL}/openai/v2",
            "OPENAI_BASE_URL": f"{URL}/openai/v1",
            "X": f"{URL}/openai",
        }

    def test_what_the_command_line_names_is_for_the_route_without_a_name(self) -> None:
        assert build_variables([CLAUDE, ROOT], None, [("CLAUDE_URL", "/x")])["CLAUDE_URL"] == f"{URL}/x"

    def test_an_unknown_route(self) -> None:
        with pytest.raises(click.BadParameter, match="there is no route /opnai; there is /openai, /"):
            choose_route([OPENAI, ROOT], "/opnai")

    @pytest.mark.parametrize("further", [[], [("X", "")]])
    def test_several_routes_and_none_is_wanted(self, further: list[tuple[str, str]]) -> None:
        routes = [Reached("/a", f"{URL}/a"), Reached("/b", f"{URL}/b")]
        with pytest.raises(click.UsageError, match="there are several routes; name one of /a, /b"):
            build_variables(routes, None, further)

    def test_a_variable_of_two_routes(self) -> None:
        other = Reached("/other", f"{URL}/other", OPENAI.variables)
        with pytest.raises(click.UsageError, match="OPENAI_BASE_URL is of the routes /openai and /other"):
            build_variables([OPENAI, other], None, [])
        assert build_variables([OPENAI, other], "/other", [])["OPENAI_BASE_URL"] == f"{URL}/other/v1"

    @pytest.mark.parametrize("written", ["A B", "BEARERD_URL", "A=x"])
    def test_a_bad_variable_is_a_usage_error(self, written: str) -> None:
        with pytest.raises(click.BadParameter):
            parse_variables([written])


class TestEnvironment:
    @pytest.mark.parametrize(
        ("name", "given", "key", "value"),
        [
            ("OPENAI_BASE_URL", {}, "OPENAI_API_KEY", DUMMY),
            ("OPENAI_API_BASE", {}, "OPENAI_API_KEY", DUMMY),
            ("OPENAI_BASE_URL", {"OPENAI_API_KEY": ""}, "OPENAI_API_KEY", DUMMY),
            ("OPENAI_BASE_URL", {"OPENAI_API_KEY": "own"}, "OPENAI_API_KEY", "own"),
            ("ANTHROPIC_BASE_URL", {}, "ANTHROPIC_AUTH_TOKEN", DUMMY),
            ("ANTHROPIC_BASE_URL", {}, "ANTHROPIC_API_KEY", None),
            ("ANTHROPIC_BASE_URL", {"ANTHROPIC_API_KEY": "own"}, "ANTHROPIC_AUTH_TOKEN", None),
            (GENERIC, {}, "API_API_KEY", None),
            ("SOME_URL", {}, "SOME_API_KEY", None),
        ],
    )
    def test_a_dummy_key_where_there_is_none(
        self, name: str, given: Mapping[str, str], key: str, value: str | None
    ) -> None:
        found = build_environment(given, {name: URL})
        assert found[name] == URL
        assert found.get(key) == value

    def test_no_dummy_key_where_it_would_be_sent_on(self) -> None:
        """By the route that an address leads to, whichever names it."""
        routes = [
            Reached("/", URL),
            Reached("/own", f"{URL}/own", passes_keys=True),
            Reached("/own/not", f"{URL}/own/not"),
        ]
        variables = {
            "A_BASE_URL": URL,
            "B_BASE_URL": f"{URL}/own",
            "C_BASE_URL": f"{URL}/own/v1",
            "D_BASE_URL": f"{URL}/own/not/v1",
            "E_BASE_URL": f"{URL}/owner",
        }
        keyless = find_keyless(routes, variables)
        assert keyless == {"B_BASE_URL", "C_BASE_URL"}
        found = build_environment({}, variables, keyless)
        assert {name for name in found if name.endswith("_KEY")} == {"A_API_KEY", "D_API_KEY", "E_API_KEY"}

    def test_what_is_there_stays_and_what_is_set_wins(self) -> None:
        assert build_environment({"HOME": "/h", "X": "old"}, {"X": "new"}) == {"HOME": "/h", "X": "new"}

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({"http_proxy": "http://p"}, "127.0.0.1,::1,localhost"),
            ({"HTTP_PROXY": "http://p", "NO_PROXY": "a,localhost"}, "a,localhost,127.0.0.1,::1"),
            ({"ALL_PROXY": "http://p", "no_proxy": "a", "NO_PROXY": "b"}, "a,127.0.0.1,::1,localhost"),
            ({"HTTP_PROXY": "http://p", "no_proxy": "*"}, "*"),
            ({"HTTP_PROXY": ""}, None),
            ({"HTTPS_PROXY": "http://p"}, None),
        ],
    )
    def test_no_proxy_comes_between(self, given: Mapping[str, str], expected: str | None) -> None:
        assert build_environment(given, {}).get("no_proxy") == expected


def test_variables_of_routes_by_their_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo has routes and no configuration."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load_routes(None, {}) == {}
    file = tmp_path / "x.toml"
    file.write_text(TOML)
    found = {prefix: route.exec_env for prefix, route in load_routes(file, {}).items()}
    assert found == {"": (("OPENAI_BASE_URL", "/v1"),), "/other": ()}


TOML = """
[accounts.work]
token = "the-static-token"
[routes."/"]
upstream = "http://127.0.0.1:9"
exec_env = ["OPENAI_BASE_URL=/v1"]
[routes."/other/"]
upstream = "http://127.0.0.1:9"
inject = "if-absent"
"""


async def start(folder: Path, *words: str, **variables: str) -> Process:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BEARERD_", "OPENAI_"))}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bearerd", "exec", *words),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env=kept | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config")} | variables,
    )


async def end(process: Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def run(folder: Path, *words: str) -> tuple[int | None, str, str]:
    return await end(await start(folder, *words))


class TestCommand:
    async def test_a_command_gets_the_daemons_addresses(self, tmp_path: Path) -> None:
        file = str(tmp_path / "bearerd.toml")
        async with RunningDaemon(tmp_path, TOML) as daemon:
            status, out, err = await run(tmp_path, "-c", file, "--", sys.executable, "-c", PRINT)
            assert (status, err) == (0, "")
            found = json.loads(out)
            assert found[GENERIC] == daemon.url
            assert found["OPENAI_BASE_URL"] == f"{daemon.url}/v1"
            assert found["OPENAI_API_KEY"] == DUMMY
            async with aiohttp.ClientSession() as session, session.get(f"{found[GENERIC]}/-/status") as reply:
                assert reply.status == 200
            words = ("/other", "--env", "X_BASE_URL=/y", "-c", file, "--", sys.executable, "-c", PRINT)
            _, out, _ = await run(tmp_path, *words)
            found = json.loads(out)
            assert found[GENERIC] == f"{daemon.url}/other"
            assert found["X_BASE_URL"] == f"{daemon.url}/other/y"
            assert "X_API_KEY" not in found, "it would be sent on"
            assert "OPENAI_BASE_URL" not in found

    async def test_its_arguments_status_and_signals_are_its_own(self, tmp_path: Path) -> None:
        words = ("-c", str(tmp_path / "bearerd.toml"), "--", sys.executable, "-c")
        async with RunningDaemon(tmp_path, TOML):
            program = "import signal, sys; print(sys.argv[1:]); sys.exit(7)"
            assert await run(tmp_path, *words, program, "--env", "--", "-c", "$HOME") == (
                7,
                "['--env', '--', '-c', '$HOME']\n",
                "",
            )
            process = await start(tmp_path, *words, "print('up', flush=True); import time; time.sleep(60)")
            assert process.stdout is not None
            assert await process.stdout.readline() == b"up\n"
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == -signal.SIGTERM

    async def test_a_broken_pipe_is_what_it_is_to_others(self, tmp_path: Path) -> None:
        """Python ignores the signal, and what is ignored stays so in the program that takes its place."""
        words = ("-c", str(tmp_path / "bearerd.toml"), "--", "sh", "-c", "kill -PIPE $$; echo alive")
        async with RunningDaemon(tmp_path, TOML):
            assert await run(tmp_path, *words) == (-signal.SIGPIPE, "", "")

    @pytest.mark.threat(9)
    async def test_a_command_gets_no_secret_and_may_leave_a_core(self, tmp_path: Path) -> None:
        """It becomes somebody else's program, with the limit that bearerd was started with."""
        words = ("-c", str(tmp_path / "bearerd.toml"), "--", sys.executable, "-c")
        program = "import os, resource; print(resource.getrlimit(resource.RLIMIT_CORE)[0], dict(os.environ))"
        secrets = {"BEARERD_LISTEN__PORT": "1", "BEARERD_ACCOUNTS__WORK__TOKEN": "s3cret"}
        async with RunningDaemon(tmp_path, TOML):
            status, out, err = await end(await start(tmp_path, *words, program, **secrets))
        assert (status, err) == (0, "")
        assert out.split()[0] == str(resource.getrlimit(resource.RLIMIT_CORE)[0])
        assert "BEARERD_LISTEN__PORT" in out
        assert "s3cret" not in out

    async def test_no_daemon(self, tmp_path: Path) -> None:
        assert await run(tmp_path, "--", "true") == (
            1,
            "",
            "bearerd: no bearerd is running; start one with: bearerd run\n",
        )

    async def test_a_daemon_of_another_configuration(self, tmp_path: Path) -> None:
        file = tmp_path / "bearerd.toml"
        async with RunningDaemon(tmp_path, TOML):
            status, out, err = await run(tmp_path, "-c", str(tmp_path / "other.toml"), "--", "true")
        assert (status, out) == (1, "")
        assert err == (
            f"bearerd: no running bearerd serves {tmp_path}/other.toml, but {file}; "
            f"start one with: bearerd run -c {tmp_path}/other.toml\n"
        )

    async def test_a_file_that_has_gone_bad_meanwhile_is_a_warning(self, tmp_path: Path) -> None:
        file = tmp_path / "bearerd.toml"
        async with RunningDaemon(tmp_path, TOML) as daemon:
            file.write_text("nonsense")
            status, out, err = await run(tmp_path, "-c", str(file), "--", sys.executable, "-c", PRINT)
        assert status == 0
        assert err.startswith(f"bearerd: warning: exec_env is not used: {file}: is not TOML")
        assert json.loads(out)[GENERIC] == daemon.url

    @pytest.mark.parametrize(
        ("name", "status", "reason"),
        [
            ("no-such-command", 127, "no such file or directory; write its name as it is, or its full path"),
            ("/", 126, "permission denied; name a program that may be run"),
        ],
    )
    async def test_a_command_that_cannot_be_run(
        self, tmp_path: Path, name: str, status: int, reason: str
    ) -> None:
        async with RunningDaemon(tmp_path, TOML):
            words = ("-c", str(tmp_path / "bearerd.toml"), "--", name)
            assert await run(tmp_path, *words) == (status, "", f"bearerd: {name} cannot be run: {reason}\n")

    @pytest.mark.parametrize("words", [(), ("true",), ("--",), ("/", "--"), ("--", "")])
    async def test_no_command_is_a_usage_error(self, tmp_path: Path, words: tuple[str, ...]) -> None:
        status, _, err = await run(tmp_path, *words)
        assert status == 2
        assert "bearerd exec -- CMD ..." in err
