"""What somebody meets who is new to bearerd, or has mistyped something: a sentence and what to do, and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click import BadParameter
from click.testing import CliRunner

from bearerd.cli import main
from bearerd.cli.naming import refuse_name
from bearerd.cli.run import describe
from bearerd.cli.token import name_file
from bearerd.settings import load
from commands import CTRL_C, Ended, Terminal, run, write
from daemons import RunningDaemon

TOML = """
[store]
path = "vault"
key_file = "vault.key"
[accounts.me]
issuer = "http://127.0.0.1:9"
client_id = "id"
[accounts.job]
token = "made-up"
[accounts.far]
issuer = "http://127.0.0.1:9"
client_id = "id"
login = false
[routes."/"]
upstream = "http://127.0.0.1:9/v1"
account = "me"
[routes."/job/"]
upstream = "http://127.0.0.1:9"
account = "job"
"""


def invoke(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, words)
    return result.exit_code, result.stderr


class TestNames:
    @pytest.mark.parametrize(
        ("words", "cure"),
        [
            (("rnu",), "Did you mean 'run'?"),
            (("stauts",), "Did you mean 'status'?"),
            (("xyzzy",), "There is run, demo, login,"),
        ],
    )
    def test_a_misspelt_command(self, words: tuple[str, ...], cure: str) -> None:
        status, said = invoke(*words)
        assert status == 2
        assert f"No such command {words[0]!r}. {cure}" in said

    @pytest.mark.parametrize(
        ("known", "text"),
        [
            (["job", "work"], "there is no account wrok; there is job, work; did you mean work?"),
            (["job"], "there is no account wrok; there is job"),
            ([], "there is no account wrok; there is none"),
        ],
    )
    def test_a_misspelt_account(self, known: list[str], text: str) -> None:
        with pytest.raises(BadParameter) as caught:
            refuse_name("account", "wrok", known, "ACCOUNT")
        assert caught.value.message == text

    def test_a_login_is_told_with_the_file_it_takes(self) -> None:
        text = "account me: nobody has logged in yet; log in with: bearerd login me"
        assert name_file(text, "me", "/etc/x y.toml") == f"{text} -c '/etc/x y.toml'"
        assert name_file(text, "me", None) == text
        assert name_file("account me: is gone", "me", "/etc/x.toml") == "account me: is gone"


class TestFirstStart:
    def describe(self, folder: Path, toml: str, **more: object) -> list[str]:
        configuration = load(write(folder, toml), {}, {}).configuration
        status = {
            "addresses": ["http://127.0.0.1:6750", "http://[::1]:6750"],
            "socket": None,
            "routes": [
                {"prefix": route.name, "upstream": f"{route.origin}", "account": route.account}
                for route in configuration.routes
            ],
            "accounts": [
                {"name": "me", "state": "login_required", "login_url": "http://127.0.0.1:6750/-/login/me"},
                {"name": "job", "state": "active", "login_url": None},
                {"name": "far", "state": "login_required", "login_url": None, "problem": "nobody has yet"},
            ],
        }
        return describe(status | more, configuration, "/etc/b.toml").splitlines()

    def test_what_there_is_who_logs_in_and_what_comes_next(self, tmp_path: Path) -> None:
        assert self.describe(tmp_path, TOML) == [
            "bearerd listens on http://127.0.0.1:6750 and http://[::1]:6750",
            "  /job -> http://127.0.0.1:9 with a token of job",
            "  / -> http://127.0.0.1:9 with a token of me",
            "Account me needs a login: http://127.0.0.1:6750/-/login/me",
            "  or in a terminal: bearerd login me -c /etc/b.toml",
            "Account far has no token, and nobody may log in to it here: nobody has yet",
            "Give clients http://127.0.0.1:6750/job as base URL, in place of http://127.0.0.1:9",
            "Give clients http://127.0.0.1:6750 as base URL, in place of http://127.0.0.1:9",
            "Status page: http://127.0.0.1:6750/-/",
        ]

    def test_by_a_socket_alone(self, tmp_path: Path) -> None:
        accounts = [{"name": "me", "state": "login_required", "login_url": None}]
        shown = self.describe(tmp_path, TOML, addresses=[], socket="/run/b.sock", accounts=accounts)
        assert shown[3:] == [
            "Account me needs a login: bearerd login me -c /etc/b.toml",
            "Give clients http://localhost/job as base URL, in place of http://127.0.0.1:9",
            "Give clients http://localhost as base URL, in place of http://127.0.0.1:9",
            "  by the socket alone: curl --unix-socket /run/b.sock http://localhost/",
        ]

    def test_with_keys(self, tmp_path: Path) -> None:
        shown = self.describe(tmp_path, TOML + '[keys]\nuse = "required"\n')
        assert shown[-1] == "Each client needs a key, once: bearerd key create NAME"


async def test_two_on_one_port_know_of_each_other(tmp_path: Path) -> None:
    async with RunningDaemon(tmp_path, TOML) as daemon:
        file = tmp_path / "bearerd.toml"
        second = await run("run", "-c", file, "--port", str(daemon.port))
        assert second == Ended(
            78,
            "",
            f"bearerd: listen.port: a bearerd listens on {daemon.port} already, process {daemon.pid}, with {file}; "
            "see bearerd status, stop it, or choose another port with --port or listen.port\n",
        )
        missing = await run("token", "me", "-c", file)
        assert (missing.status, missing.err.endswith(f"log in with: bearerd login me -c {file}\n")) == (
            4,
            True,
        )
        shown = await run("status", LC_ALL="C")
        assert f"me: nobody has logged in yet; run: bearerd login me -c {file}\n" in shown.out


class TestOutput:
    def run(self, stdout: int) -> tuple[int, str]:
        words = (sys.executable, "-m", "bearerd", "config", "schema")
        ended = subprocess.run(words, stdout=stdout, stderr=subprocess.PIPE, check=False, timeout=60)
        return ended.returncode, ended.stderr.decode()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    def test_a_full_disk_is_said(self) -> None:
        descriptor = os.open("/dev/full", os.O_WRONLY)
        try:
            assert self.run(descriptor) == (
                1,
                "bearerd: the output cannot be written: no space left on device; write it elsewhere\n",
            )
        finally:
            os.close(descriptor)

    def test_who_reads_no_further_hears_nothing(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        try:
            assert self.run(writing) == (1, "")
        finally:
            os.close(writing)


class TestHome:
    """Of somebody who has nothing yet."""

    @pytest.mark.parametrize("words", ["run", "login", "doctor", "config check", "key list"])
    def test_nothing_is_configured(self, tmp_path: Path, words: str) -> None:
        home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
        ended = CliRunner(env=home).invoke(main, words.split())
        assert (ended.exit_code, ended.stdout) == (78, "")
        assert ended.stderr.startswith("bearerd: there is no configuration; write one with: bearerd init, ")

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        """A file in its place is one for root, too."""
        folder = tmp_path / "config"
        folder.write_text("")
        home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(folder)}
        given = ("--issuer", "https://login.test", "--client-id", "x", "--upstream", "https://api.test")
        ended = CliRunner(env=home).invoke(main, ["init", "--provider", "oidc", *given])
        assert (ended.exit_code, ended.stderr) == (
            1,
            f"bearerd: {folder}/bearerd cannot be written: not a directory; mend that, or name another file with -o\n",
        )


async def test_ctrl_c_at_a_question(tmp_path: Path) -> None:
    """There is no traceback, and a status that says that it did not end well."""
    async with Terminal("init", "-o", tmp_path / "new.toml") as terminal:
        await terminal.until("Provider ")
        terminal.type(CTRL_C)
        terminal.type("\n")  # readline sees no signal that came before it waited
        assert await terminal.end() == 1
        assert "Aborted!" in terminal.shown
        assert "Traceback" not in terminal.shown
    assert list(tmp_path.iterdir()) == []
