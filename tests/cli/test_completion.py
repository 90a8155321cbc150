"""What shells complete: in shells, where a person presses Tab, and without them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from bearerd.cli import COMMANDS, main
from bearerd.cli.completion import SHELLS
from commands import Terminal

TOML = """
[accounts.work]
token = "made-up-one"
[accounts.wide]
token = "made-up-two"
[accounts.me]
token = "made-up-three"
[routes."/"]
upstream = "https://api.test"
account = "me"
[routes."/openai/"]
upstream = "https://api.test"
account = "work"
"""
TAB = "\t"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bearerd.toml"
    path.write_text(TOML)
    return path


@pytest.fixture(autouse=True)
def by_variable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEARERD_CONFIG", str(file))


def complete(*words: str) -> list[str]:
    """What there is for the last of the words."""
    complete = ShellComplete(main, {}, "bearerd", "_BEARERD_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


class TestNames:
    def test_commands_and_options(self) -> None:
        assert complete("") == list(COMMANDS)
        assert complete("to") == ["token"]
        assert complete("config", "") == ["check", "schema", "show"]
        assert complete("token", "--fo") == ["--force", "--format"]
        assert complete("token", "--format", "d") == ["docker-credential"]
        assert complete("completion", "") == list(SHELLS)

    @pytest.mark.parametrize(
        "words", [("token",), ("login",), ("logout",), ("refresh",), ("key", "create", "--account")]
    )
    def test_accounts(self, words: tuple[str, ...]) -> None:
        assert complete(*words, "") == ["me", "wide", "work"]
        assert complete(*words, "w") == ["wide", "work"]

    @pytest.mark.parametrize("words", [("exec",), ("key", "create", "--route")])
    def test_routes(self, words: tuple[str, ...]) -> None:
        assert complete(*words, "") == ["/", "/openai"]

    def test_what_stands_after_two_dashes_is_a_command_of_somebody_elses(self) -> None:
        found = ShellComplete(main, {}, "bearerd", "_BEARERD_COMPLETE").get_completions(["exec", "--"], "py")
        assert [(item.type, item.value) for item in found] == [("file", "py")]

    def test_presets(self) -> None:
        assert complete("init", "--provider", "g") == ["github", "gitlab", "google"]

    def test_the_file_that_the_line_names(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "other.toml").write_text("[accounts.other]\n")
        assert complete("token", "-c", str(tmp_path / "other.toml"), "") == ["other"]
        monkeypatch.setenv("HOME", str(tmp_path))
        assert complete("token", "-c", "~/other.toml", "") == ["other"]

    def test_the_environment_has_accounts_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BEARERD_ACCOUNTS__CLOUD__TOKEN", "x")
        monkeypatch.setenv("BEARERD_ROUTES__/Cloud__UPSTREAM", "x")
        assert complete("token", "c") == ["cloud"]
        assert complete("exec", "/C") == ["/Cloud"]

    @pytest.mark.parametrize("text", ["nonsense", "accounts = 1", "a = " + "[" * 10_000, "\udcff"])
    def test_a_bad_file_is_no_account(self, file: Path, text: str, capfd: pytest.CaptureFixture[str]) -> None:
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        assert complete("token", "") == []
        file.unlink()
        assert complete("token", "") == []
        assert capfd.readouterr() == ("", "")


class Shell(Terminal):
    """A shell at which somebody types."""

    def __init__(self, program: str, *words: str, **variables: str) -> None:
        self.program = (str(shutil.which(program)),)
        super().__init__(*words, TERM="dumb", **variables)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A search path with `bearerd` on it, as it is imported here."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "bearerd"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m bearerd "$@"\n')
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def script(folder: Path, shell: str) -> Path:
    result = CliRunner().invoke(main, ["completion", shell])
    assert (result.exit_code, result.stderr) == (0, "")
    written = folder / f"completion.{shell}"
    written.write_text(result.stdout)
    return written


@pytest.mark.parametrize(
    ("shell", "options", "begin"),
    [
        ("bash", ("--norc", "--noprofile", "-i"), ""),
        ("zsh", ("-f", "-i"), "autoload -U compinit; compinit -u -D; "),
    ],
)
async def test_somebody_presses_tab(
    tmp_path: Path, path: str, shell: str, options: tuple[str, ...], begin: str
) -> None:
    """Twice: a command and an account. The line is then run as it stands."""
    async with Shell(shell, *options, PATH=path, HOME=str(tmp_path), PS1="ready> ") as terminal:
        await terminal.until("ready> ")
        terminal.type(f"{begin}. {script(tmp_path, shell)}; echo loa''ded\n")
        await terminal.until("loaded")
        terminal.type(f"bearerd tok{TAB}wo{TAB}\n")
        await terminal.until("made-up-one")
        terminal.type("exit\n")
        await terminal.end()


def test_fish_completes(tmp_path: Path, path: str) -> None:
    lines = f"source {script(tmp_path, 'fish')}; complete -C 'bearerd tok'; complete -C 'bearerd token w'"
    ended = subprocess.run(
        ["fish", "--no-config", "-c", lines],
        env=os.environ | {"PATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert [line.partition("\t")[0] for line in ended.stdout.splitlines()] == ["token", "wide", "work"]
    assert "token\tPrint a token of ACCOUNT" in ended.stdout
    assert ended.stderr == ""


def test_an_account_is_completed_without_what_takes_long_to_import() -> None:
    asked = os.environ | {
        "_BEARERD_COMPLETE": "bash_complete",
        "COMP_WORDS": "bearerd token w",
        "COMP_CWORD": "2",
    }
    words = (sys.executable, "-X", "importtime", "-m", "bearerd")
    ended = subprocess.run(words, env=asked, capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == "plain,wide\nplain,work\n"
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.stderr.splitlines()}
    assert "click" in imported
    assert imported.isdisjoint({"aiohttp", "asyncio", "cryptography", "pydantic", "structlog"})
