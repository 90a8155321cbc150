"""`bearerd init`: what it asks on a terminal, what it needs without one, and what it writes."""

import os
import pty
import select
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bearerd.core.accounts import OAuthSource
from bearerd.settings import load
from bearerd.settings.presets import load_presets

OIDC = (
    *("--provider", "oidc", "--issuer", "https://login.example.com", "--client-id", "cli"),
    *("--upstream", "https://api.example.com/v1"),
)


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BEARERD_")}
    return kept | {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")}


def bearerd(home: Path, *words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bearerd", *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=home,
        env=environment(home) | variables,
    )


def converse(home: Path, words: Sequence[str], answers: Sequence[tuple[str, str]]) -> tuple[int, str, str]:
    """Status, standard output and what the terminal showed; each answer is typed once its question is there."""
    ours, theirs = pty.openpty()
    shown = ""
    with subprocess.Popen(
        [sys.executable, "-m", "bearerd", "init", *words],
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
        cwd=home,
        env=environment(home),
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            for question, answer in answers:
                shown += read_until(ours, question)
                os.write(ours, answer.encode() + b"\n")
            assert process.stdout is not None
            out = process.stdout.read().decode()
            status = process.wait(timeout=60)
            shown += read_until(ours, None)
        finally:
            process.kill()
            os.close(ours)
    return status, out, shown.replace("\r\n", "\n")


def read_until(terminal: int, question: str | None) -> str:
    """What is shown, up to a question that waits or, where there is none, up to the end."""
    shown = ""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.1)[0]:
            if question is None:
                return shown
            continue
        try:
            shown += os.read(terminal, 4096).decode()
        except OSError:  # nobody has it open any more
            break
        if question is not None and question in shown and shown.endswith(": "):
            return shown
    assert question is None, f"{question!r} was not asked; there was:\n{shown}"
    return shown


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def source_of(path: Path, account: str = "work") -> OAuthSource:
    source = load(path, {}, {}).configuration.accounts[account].source
    assert isinstance(source, OAuthSource)
    return source


class TestOptions:
    def test_it_writes_what_bearerd_reads_and_says_what_is_next(self, tmp_path: Path) -> None:
        ended = bearerd(tmp_path, "init", *OIDC)
        path = tmp_path / "config" / "bearerd" / "bearerd.toml"
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.splitlines() == [
            f"wrote {path}; its first lines say how to register",
            "redirect URI to register: http://127.0.0.1:6750/-/callback",
            "next:",
            "  bearerd run",
            "  bearerd login work",
        ]
        assert mode(path) == 0o600
        assert mode(path.parent) == 0o700
        assert [item.name for item in path.parent.iterdir()] == ["bearerd.toml"]
        check = bearerd(tmp_path, "config", "check")
        assert check.stdout == f"configuration is good: {path}, 1 account, 1 route\n"
        text = path.read_text()
        assert text.startswith("# Generic OpenID Connect")
        assert "Replace what begins" not in text

    def test_every_option_is_in_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("s3cret\n")
        words = ("--account", "me", "--scopes", "a b", "--audience", "aud", "--client-secret-file", "secret")
        ended = bearerd(tmp_path, "init", *OIDC, *words, "-o", "a b.toml")
        assert ended.returncode == 0
        assert ended.stdout.splitlines()[-2:] == [
            "  bearerd run -c 'a b.toml'",
            "  bearerd login me -c 'a b.toml'",
        ]
        path = tmp_path / "a b.toml"
        source = source_of(path, "me")
        assert (source.issuer, source.client_id) == ("https://login.example.com", "cli")
        assert (source.scopes, source.audience) == (("a", "b"), "aud")
        assert source.client_secret is not None
        assert source.client_secret.reveal() == "s3cret"
        assert "s3cret" not in path.read_text()

    def test_a_registration_of_its_own_is_what_to_register(self, tmp_path: Path) -> None:
        words = ("--issuer", "https://login.microsoftonline.com/t/v2.0", "--client-id", "cli", "-o", "x.toml")
        ended = bearerd(tmp_path, "init", "--provider", "entra", *words)
        assert "redirect URI to register: http://localhost:6750/-/callback\n" in ended.stdout

    def test_the_variable_names_the_file(self, tmp_path: Path) -> None:
        ended = bearerd(tmp_path, "init", *OIDC, BEARERD_CONFIG=str(tmp_path / "named.toml"))
        assert "  bearerd run\n" in ended.stdout
        assert source_of(tmp_path / "named.toml").client_id == "cli"

    def test_an_issuer_tells_the_addresses_that_go_with_it(self, tmp_path: Path) -> None:
        words = ("--issuer", "https://dbc-1.cloud.databricks.com/oidc", "--client-id", "cli", "-o", "x.toml")
        assert bearerd(tmp_path, "init", "--provider", "databricks", *words).returncode == 0
        (route,) = load(tmp_path / "x.toml", {}, {}).configuration.routes
        assert str(route.origin) == "https://dbc-1.cloud.databricks.com"

    @pytest.mark.parametrize(
        ("words", "problem"),
        [
            ((), "--provider is missing; name one of auth0, databricks, entra,"),
            (("--provider", "gogle"), "there is no preset gogle; there is auth0,"),
            (("--provider", "../x"), "there is no preset ../x"),
            (
                ("--provider", "entra"),
                (
                    "something is still to be said; give --issuer (in place of "
                    "https://login.microsoftonline.com/YOUR-TENANT-ID/v2.0), "
                    "--client-id (in place of YOUR-CLIENT-ID)"
                ),
            ),
            (("--provider", "google", "--client-id", "x"), "name its file with --client-secret-file"),
        ],
    )
    def test_what_is_missing_without_a_terminal(
        self, tmp_path: Path, words: tuple[str, ...], problem: str
    ) -> None:
        ended = bearerd(tmp_path, "init", *words)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert problem in ended.stderr
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("words", "problem"),
        [
            (("--issuer", "http://login.example.com"), "accounts.work.issuer: is plain http"),
            (("--upstream", "api.example.com"), 'routes."/".upstream: is not an http or https URL'),
            (("--account", "My Account"), 'accounts."My Account": is not an account name'),
            (("--scopes", 'a"'), "accounts.work.scopes[0]: is not a scope"),
            (("--client-id", ""), "accounts.work.client_id: is empty"),
            (("--client-secret-file", "nowhere"), "nowhere cannot be read: no such file"),
        ],
    )
    def test_nothing_is_written_that_does_not_load(
        self, tmp_path: Path, words: tuple[str, ...], problem: str
    ) -> None:
        ended = bearerd(tmp_path, "init", *OIDC, *words, "-o", tmp_path / "x" / "b.toml")
        assert ended.returncode == 78
        assert problem in ended.stderr
        assert not list((tmp_path / "x").iterdir())

    def test_a_file_that_is_there_is_not_touched(self, tmp_path: Path) -> None:
        path = tmp_path / "b.toml"
        path.write_text("mine")
        ended = bearerd(tmp_path, "init", "-o", path)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr == (
            f"bearerd: {path} is there already; replace it with --force, which keeps a backup, or name another with -o\n"
        )
        assert path.read_text() == "mine"

    def test_a_link_to_nowhere_is_there_too(self, tmp_path: Path) -> None:
        path = tmp_path / "b.toml"
        path.symlink_to(tmp_path / "elsewhere")
        assert bearerd(tmp_path, "init", *OIDC, "-o", path).returncode == 1
        assert not (tmp_path / "elsewhere").exists()

    def test_force_keeps_a_backup_of_each(self, tmp_path: Path) -> None:
        path = tmp_path / "b.toml"
        path.write_text("first")
        ended = bearerd(tmp_path, "init", *OIDC, "--force", "-o", path)
        assert ended.stderr == f"bearerd: {path} is kept as {path}.bak\n"
        bearerd(tmp_path, "init", *OIDC, "--force", "-o", path)
        assert (tmp_path / "b.toml.bak").read_text() == "first"
        assert (tmp_path / "b.toml.bak1").read_text() == path.read_text()
        assert mode(path) == 0o600

    def test_force_with_what_does_not_load_leaves_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "b.toml"
        path.write_text("first")
        assert bearerd(tmp_path, "init", *OIDC, "--issuer", "x", "--force", "-o", path).returncode == 78
        assert [item.name for item in tmp_path.iterdir()] == ["b.toml"]
        assert path.read_text() == "first"

    def test_a_folder_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        ended = bearerd(tmp_path, "init", *OIDC, "-o", tmp_path / "file" / "b.toml")
        assert ended.returncode == 1
        assert ended.stderr.endswith(
            "cannot be written: file exists; mend that, or name another file with -o\n"
        )
        assert ended.stderr.count("\n") == 1


class TestTerminal:
    def test_a_few_questions(self, tmp_path: Path) -> None:
        status, out, shown = converse(
            tmp_path,
            [],
            [
                ("Provider [oidc]", "databricks"),
                ("Name of the account [work]", "lake"),
                ("Workspace, in https://YOUR-WORKSPACE.cloud.databricks.com/oidc", "https://x y/"),
                ("Workspace", "dbc/1"),
                ("Workspace", "dbc-1"),
                ("Client ID", "abc"),
                ("Scopes, with spaces between them [all-apis offline_access]", ""),
            ],
        )
        assert (status, out.splitlines()[-1]) == (0, "  bearerd login lake")
        assert all(preset.title in shown for preset in load_presets().values())
        assert "Error: write only what takes the place of YOUR-WORKSPACE, or the whole address" in shown
        assert "Error: has a space" in shown
        source = source_of(tmp_path / "config" / "bearerd" / "bearerd.toml", "lake")
        assert source.issuer == "https://dbc-1.cloud.databricks.com/oidc"
        assert source.scopes == ("all-apis", "offline_access")

    def test_what_has_a_default_is_asked_of_who_said_nothing(self, tmp_path: Path) -> None:
        status, _, _ = converse(
            tmp_path,
            ["-o", "b.toml"],
            [
                ("Provider [oidc]", "gitlab"),
                ("Name of the account", ""),
                ("Application ID", "abc"),
                ("Scopes, with spaces between them [openid profile api]", "read_api"),
                ("Address of the API [https://gitlab.com/api/v4]", "https://git.example.org/api/v4"),
            ],
        )
        assert status == 0
        assert source_of(tmp_path / "b.toml").scopes == ("read_api",)
        (route,) = load(tmp_path / "b.toml", {}, {}).configuration.routes
        assert str(route.origin) == "https://git.example.org"

    def test_an_example_is_no_answer(self, tmp_path: Path) -> None:
        status, _, shown = converse(
            tmp_path,
            ["--provider", "oidc", "-o", "b.toml"],
            [
                ("Issuer, the address of the authorization server, such as", "https://login.example.com"),
                ("Issuer", "https://login.example.org"),
                ("Client ID", "abc"),
                ("Address of the API, such as", "ftp://x"),
                ("Address of the API, such as", "https://api.example.org"),
            ],
        )
        assert status == 0
        assert "Error: is only an example; write your own" in shown
        assert "Error: is not an http or https URL" in shown
        assert source_of(tmp_path / "b.toml").issuer == "https://login.example.org"

    def test_a_secret_is_not_shown_and_goes_into_a_file_of_its_own(self, tmp_path: Path) -> None:
        status, out, shown = converse(
            tmp_path,
            ["--provider", "google", "--client-id", "abc", "-o", "b.toml"],
            [("Client secret, or nothing if there is none", "canary")],
        )
        assert status == 0
        assert "canary" not in out + shown + (tmp_path / "b.toml").read_text()
        assert (tmp_path / "work-client-secret").read_text() == "canary\n"
        assert mode(tmp_path / "work-client-secret") == 0o600
        secret = source_of(tmp_path / "b.toml").client_secret
        assert secret is not None
        assert secret.reveal() == "canary"

    def test_no_secret_leaves_a_remark(self, tmp_path: Path) -> None:
        status, _, _ = converse(
            tmp_path,
            ["--provider", "github", "--client-id", "abc", "-o", "b.toml"],
            [("Client secret", "")],
        )
        assert status == 0
        assert source_of(tmp_path / "b.toml").client_secret is None
        assert '\n#client_secret_file = "work-client-secret"\n' in (tmp_path / "b.toml").read_text()

    def test_a_secret_of_before_is_not_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "work-client-secret").write_text("before\n")
        status, _, shown = converse(
            tmp_path,
            ["--provider", "google", "--client-id", "abc", "-o", "b.toml"],
            [("Client secret", "canary")],
        )
        assert status == 1
        assert "work-client-secret is there already" in shown
        assert not (tmp_path / "b.toml").exists()
        assert (tmp_path / "work-client-secret").read_text() == "before\n"

    def test_an_end_of_input_writes_nothing(self, tmp_path: Path) -> None:
        status, _, shown = converse(tmp_path, ["--provider", "oidc", "-o", "b.toml"], [("Issuer", "\x04")])
        assert status == 1
        assert "Aborted!" in shown
        assert not list(tmp_path.iterdir())
