"""`bearerd config`, and what every command shares: exit codes, lazy imports, errors as lines."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from bearerd import __version__
from bearerd.cli import COMMANDS, exit_codes, main
from bearerd.core.redaction import MASK
from bearerd.errors import BearerdError, ConfigError, LoginRequired, NotConfigured

KEY = "canary-6" + "A" * 35
GOOD = f"""\
[store]
key_secret = "{KEY}"
[accounts.work]
grant = "client_credentials"
issuer = "https://login.example.com"
client_id = "cli"
client_secret = "canary-1"
[accounts.personal]
token_endpoint = "https://login.example.com/token"
client_id = "cli"
refresh_token = "canary-2"
[accounts.cloud]
command = ["gcloud", "auth canary-3", "canary-4"]
[accounts.fixed]
token = "canary-5"
[routes."/"]
upstream = "https://api.example.com/v1"
account = "work"
headers = {{ X-Key = "canary-8" }}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bearerd.toml"
    path.write_text(GOOD)
    path.chmod(0o600)
    return path


@pytest.fixture
def runner(tmp_path: Path) -> CliRunner:
    """Runs commands with an empty home folder and none of this machine's variables of ours."""
    ours: dict[str, str | None] = {name: None for name in os.environ if name.upper().startswith("BEARERD_")}
    home = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    return CliRunner(env=ours | home)


def run(runner: CliRunner, *words: str | Path, **variables: str) -> Result:
    return runner.invoke(main, [str(word) for word in words], env=variables, catch_exceptions=False)


def run_process(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bearerd", *map(str, words)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_check_of_a_good_file(runner: CliRunner, file: Path) -> None:
    result = run(runner, "config", "check", "-c", file)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"configuration is good: {file}, 4 accounts, 1 route\n"


def test_check_of_the_environment(runner: CliRunner) -> None:
    variables = {
        "BEARERD_ACCOUNTS__WORK__TOKEN": "t",
        "BEARERD_UPSTREAM": "http://api.example.com,/a=https://x",
    }
    result = run(runner, "config", "check", **variables)
    assert result.exit_code == 0
    assert result.stdout == "configuration is good: no file, 1 account, 2 routes\n"
    assert result.stderr == (
        'bearerd: warning: routes."/".upstream: is plain http to another machine, '
        "which shows the token to the network; use https\n"
    )


def test_every_problem_is_a_line_on_stderr(runner: CliRunner, file: Path) -> None:
    file.write_text(GOOD + "zzz = 1\n[listen]\nprot = 1\n")
    result = run(runner, "config", "check", "-c", file)
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr == (
        'bearerd: routes."/".zzz: unknown setting; take it out, or see docs/configuration.md\n'
        "bearerd: listen.prot: unknown setting; did you mean 'port'?\n"
    )


@pytest.mark.parametrize("command", [("check",), ("show",), ("show", "--json")])
def test_no_configuration(runner: CliRunner, command: tuple[str, ...]) -> None:
    result = run(runner, "config", *command)
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.startswith("bearerd: there is no configuration; write one with: bearerd init")
    assert "or try: bearerd demo\n" in result.stderr
    assert all(line.startswith("bearerd: ") for line in result.stderr.splitlines())


def test_show_names_where_each_value_is_from(runner: CliRunner, file: Path) -> None:
    result = run(runner, "config", "show", "-c", file, BEARERD_LISTEN__PORT="7000")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in result.stdout.splitlines()}
    assert rows["listen.port"].split() == ["7000", "environment", "BEARERD_LISTEN__PORT"]
    assert rows["log.level"].split() == ['"info"', "default"]
    assert rows["accounts.work.client_secret"].split() == [f'"{MASK}"', "file", str(file)]
    assert rows["accounts.work.client_auth"].split() == ['"client_secret_basic"', "default"]
    assert rows["accounts.personal.grant"].split() == ['"refresh_token"', "default"]
    assert rows["accounts.cloud.command"].startswith(f'["gcloud", "{MASK}", "{MASK}", "{MASK}"]')
    assert rows["store.key_secret"].split() == [f'"{MASK}"', "file", str(file)]
    assert rows["store.key_source"].split() == ['"secret"', "default"]
    assert re.search(r'bearerd/vault" +default$', rows["store.path"])
    assert rows['routes."/".account'].split() == ['"work"', "file", str(file)]
    assert not any(name.startswith("accounts.fixed.client") for name in rows)


def test_show_is_aligned(runner: CliRunner, file: Path) -> None:
    lines = run(runner, "config", "show", "-c", file).stdout.splitlines()
    columns = [lines[0].index(title) for title in ("SETTING", "VALUE", "SOURCE")]
    for line in lines:
        assert all(line[column] != " " and line[column - 2 : column] in {"", "  "} for column in columns)


def test_show_as_json(runner: CliRunner, file: Path) -> None:
    document = json.loads(run(runner, "config", "show", "--json", "-c", file).stdout)
    assert document["format_version"] == 1
    assert document["file"] == str(file)
    assert {"name": "listen.port", "value": 6750, "source": "default"} in document["settings"]
    secret = {"name": "accounts.fixed.token", "value": MASK, "source": f"file {file}"}
    assert secret in document["settings"]


def test_show_as_json_without_a_file(runner: CliRunner) -> None:
    variables = {"BEARERD_ACCOUNTS__WORK__TOKEN": "canary", "BEARERD_UPSTREAM": "https://x"}
    result = run(runner, "config", "show", "--json", **variables)
    assert json.loads(result.stdout)["file"] is None
    assert "canary" not in result.output


LEAKS = {
    "good": GOOD,
    "unknown key": GOOD.replace("issuer =", "isuer ="),
    "unknown account": GOOD.replace('"work"', '"wrok"'),
    "no TOML": GOOD.replace('"canary-1"', "canary-1"),
    "unfinished": GOOD.replace('"canary-1"', '"canary-1'),
    "secret with a line end": GOOD.replace("canary-1", "canary-1\\n"),
    "secret in a list": GOOD.replace('"canary-1"', '["canary-1"]'),
    "secret in a table": GOOD.replace('"canary-1"', '{value = "canary-1"}'),
    "token with a space": GOOD.replace("canary-5", "Bearer canary-5"),
    "refresh token of another alphabet": GOOD.replace("canary-2", "canary-2-é"),
    "command that is text": GOOD.replace('["gcloud", "auth canary-3", "canary-4"]', '"gcloud canary-3"'),
    "command with a number": GOOD.replace('"gcloud"', "1"),
    "wrong grant": GOOD.replace('"client_credentials"', '"static"'),
    "both twins": GOOD.replace("client_secret =", 'client_secret_file = "x"\nclient_secret ='),
    "password in the upstream": GOOD.replace("https://api", "https://me:canary@api"),
    "password in a broken upstream": GOOD.replace("https://api.example.com", "https://me:canary@[api"),
    "password in the issuer": GOOD.replace("https://login", "https://me:canary@login"),
    "key that is too short": GOOD.replace(KEY, "canary-6"),
    "key with a line end": GOOD.replace(KEY, KEY + "\\n"),
    "key in a list": GOOD.replace(f'"{KEY}"', f'["{KEY}"]'),
    "key of another source": GOOD.replace("key_secret =", 'key_source = "keychain"\nkey_secret ='),
    "key without a vault": GOOD.replace("key_secret =", 'kind = "memory"\nkey_secret ='),
    "token in a credential": GOOD + 'credential = "X-Api-Key: canary-7"\n',
    "token before a credential": GOOD + 'credential = "canary-7 {token}"\n',
    "key in a field of a route": GOOD.replace("canary-8", "canary-8\\t"),
    "secret in a query": GOOD.replace("/v1", "/v1?key=canary"),
}


@pytest.mark.parametrize("command", [("check",), ("show",), ("show", "--json")])
@pytest.mark.parametrize("text", LEAKS.values(), ids=LEAKS)
def test_no_secret_is_ever_printed(
    runner: CliRunner, file: Path, text: str, command: tuple[str, ...]
) -> None:
    file.write_text(text)
    result = run(runner, "config", *command, "-c", file)
    assert result.exit_code == (0 if text == GOOD else 78)
    assert result.output
    assert "canary" not in result.output


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BEARERD_ACCOUNTS__WORK__CLIENT_SECRT", "canary"),
        ("BEARERD_ACCOUNTS__WORK__CLIENT_SECRET_FILE", "canary-file\nx"),
        ("BEARERD_ACCOUNTS__FIXED__TOKEN", "canary canary"),
        ("BEARERD_ACCOUNTS__CLOUD__COMMAND", "tool canary"),
        ("BEARERD_UPSTREAM", "https://me:canary@x"),
        ("BEARERD_STORE__KEY_SECRET", "canary"),
        ("BEARERD_STORE__KEY_SECRT", "canary"),
    ],
)
def test_no_secret_of_a_variable_is_printed(runner: CliRunner, file: Path, name: str, value: str) -> None:
    result = run(runner, "config", "check", "-c", file, **{name: value})
    assert result.exit_code == 78
    assert name in result.stderr or "client_secret_file" in result.stderr
    assert "canary" not in result.output


def test_a_secret_file_shows_its_path_and_not_what_it_holds(runner: CliRunner, file: Path) -> None:
    (file.parent / "secret").write_text("canary-9\n")
    file.write_text(GOOD.replace('client_secret = "canary-1"', 'client_secret_file = "secret"'))
    result = run(runner, "config", "show", "-c", file)
    assert 'accounts.work.client_secret_file  "secret"' in result.stdout
    assert "canary" not in result.output


def test_what_a_key_file_holds_is_not_printed(runner: CliRunner, file: Path) -> None:
    (file.parent / "key").write_text("canary-9\n")
    file.write_text(GOOD.replace(f'key_secret = "{KEY}"', 'key_secret_file = "key"'))
    result = run(runner, "config", "show", "-c", file)
    assert result.exit_code == 78
    assert "store.key_secret_file: " in result.stderr
    assert "canary" not in result.output


def test_check_in_a_process_of_its_own(file: Path) -> None:
    done = run_process("config", "check", "-c", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"configuration is good: {file}, 4 accounts, 1 route\n"


def test_bad_configuration_in_a_process_of_its_own(file: Path) -> None:
    done = run_process("config", "check", "-c", file, BEARERD_LISTEN__PROT="1")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == (
        "bearerd: BEARERD_LISTEN__PROT: unknown variable; did you mean BEARERD_LISTEN__PORT?\n"
    )


def test_a_missing_file_is_never_replaced_by_another(file: Path) -> None:
    done = run_process("config", "check", "-c", file.parent / "nowhere", BEARERD_CONFIG=str(file))
    assert done.returncode == 78
    assert done.stderr == (
        f"bearerd: {file.parent / 'nowhere'}: cannot be read: no such file or directory; "
        "mend that or name another file with -c\n"
    )


def test_help_and_version_import_no_server(tmp_path: Path) -> None:
    program = "import sys, bearerd.cli; sys.exit(bool({'aiohttp', 'pydantic', 'asyncio'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False).returncode == 0


def test_version(runner: CliRunner) -> None:
    assert run(runner, "--version").stdout == f"bearerd, version {__version__}\n"


def test_every_command_is_in_the_help(runner: CliRunner) -> None:
    result = run(runner, "--help")
    assert result.exit_code == 0
    assert all(f"\n  {name} " in result.stdout for name in COMMANDS)


def test_an_unknown_command_is_a_usage_error(runner: CliRunner) -> None:
    assert run(runner, "confg").exit_code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BearerdError("a\nb"), 1),
        (LoginRequired("a\nb"), 4),
        (ConfigError("a\nb"), 78),
        (NotConfigured("a\nb"), 78),
    ],
)
def test_exit_codes(error: BearerdError, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.exceptions.Exit) as caught, exit_codes():
        raise error
    assert caught.value.exit_code == code
    assert capsys.readouterr() == ("", "bearerd: a\nbearerd: b\n")
