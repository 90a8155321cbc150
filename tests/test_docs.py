"""What people read and copy agrees with the program."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click import Context, Group
from pydantic_core import PydanticUndefined

from bearerd.cli import main
from bearerd.cli.table import Screen, format_all
from bearerd.core.lifecycle import NEVER_LOGGED_IN, Policy, advisory_at, mandatory_at
from bearerd.core.problems import no_token, problem_body
from bearerd.core.redaction import Secret
from bearerd.core.tokens import TokenSet
from bearerd.errors import LoginRequired
from bearerd.places import CONFIG_VARIABLE, default_path
from bearerd.settings import load
from bearerd.settings.model import NAMED, SINGLE
from bearerd.settings.sources import HOOK_VARIABLES, UPSTREAM_VARIABLE, variable_name
from bearerd.settings.values import parse_duration, parse_size
from certificates import Authority

PROJECT = Path(__file__).parent.parent
DOCUMENT = (PROJECT / "docs" / "configuration.md").read_text(encoding="utf-8")
README = (PROJECT / "README.md").read_text(encoding="utf-8")
LOGIN = (PROJECT / "docs" / "login.md").read_text(encoding="utf-8")
EXAMPLE = (PROJECT / "config" / "bearerd.toml").read_text(encoding="utf-8")

HEADINGS = {
    "listen": "[listen]",
    "keys": "[keys]",
    "accounts": "[accounts.NAME]",
    "routes": '[routes."/prefix/"]',
    "limits": "[limits]",
    "store": "[store]",
    "hooks": "[hooks]",
    "log": "[log]",
}
KEYS_OF_THE_KEY = {"key_source", "key_file", "key_secret_file"}
PARSERS: dict[str, Callable[[object], object]] = {
    "replay_body": parse_size,
    "replay_total": parse_size,
    "spool_body": parse_size,
    "spool_total": parse_size,
    **dict.fromkeys(("command_timeout", "header_read", "body_idle", "keep_alive", "drain"), parse_duration),
    **dict.fromkeys(("upstream_connect", "upstream_idle"), parse_duration),
}
NAMES = {"accounts": "name", "routes": "/prefix/"}
SETTINGS = [(section, key) for section, table in (SINGLE | NAMED).items() for key in table.model_fields]


def rows(section: str) -> dict[str, list[str]]:
    """The cells of a section's table by setting; other tables have another number of columns."""
    _, _, text = DOCUMENT.partition(f"\n## `{HEADINGS[section]}`\n")
    text = text.partition("\n## ")[0]
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {cells[0].strip(" `"): [cell.strip() for cell in cells] for cells in lines if len(cells) == 5}


def variable_of(section: str, key: str) -> str:
    return variable_name((section, NAMES[section], key) if section in NAMED else (section, key))


@pytest.mark.parametrize(("section", "key"), SETTINGS)
def test_every_setting_is_documented(section: str, key: str) -> None:
    """Its row has a type, a default, its variable and what it does."""
    _, kind, default, variable, purpose = rows(section)[key]
    assert kind
    assert default
    assert purpose.endswith(".")
    assert variable == f"`{variable_of(section, key)}`"


@pytest.mark.parametrize("section", HEADINGS)
def test_nothing_else_is_documented(section: str) -> None:
    assert set(rows(section)) == set((SINGLE | NAMED)[section].model_fields)


@pytest.mark.parametrize(("section", "key"), SETTINGS)
def test_documented_defaults_are_the_real_ones(section: str, key: str) -> None:
    default = (SINGLE | NAMED)[section].model_fields[key].default
    if default is None or default is PydanticUndefined:
        return
    shown = json.loads(rows(section)[key][2].strip("`"))
    parse = PARSERS.get(key)
    assert (parse(shown) if parse else shown) == default


def test_variables_in_the_document_exist() -> None:
    known = {variable_of(section, key) for section, key in SETTINGS}
    known |= {name.replace("__NAME__", "__WORK__") for name in known}
    known |= HOOK_VARIABLES | {CONFIG_VARIABLE, UPSTREAM_VARIABLE, "BEARERD_", "BEARERD_SERVICE_HOST"}
    assert set(re.findall(r"BEARERD_[\w/]*", DOCUMENT)) <= known


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files the example names."""
    for name in ("client-secret", "refresh-token", "token"):
        (tmp_path / name).write_text("made-up\n")
    (tmp_path / "vault-key").write_text("0" * 64)
    authority = Authority(tmp_path)
    certificate, key = authority.issue("client")
    for path, name in (
        (authority.ca_file, "authorities.pem"),
        (certificate, "client.pem"),
        (key, "client.key"),
    ):
        path.rename(tmp_path / name)
    return tmp_path


def load_text(folder: Path, text: str) -> set[str]:
    """The names of the accounts, and those of the settings that the file sets."""
    path = folder / "bearerd.toml"
    path.write_text(text)
    loaded = load(path, {}, {})
    assert loaded.warnings == ()
    given = {setting.name for setting in loaded.settings if setting.source != "default"}
    return given | set(loaded.configuration.accounts)


def test_the_example_loads_as_it_is(folder: Path) -> None:
    assert "work" in load_text(folder, EXAMPLE)


@pytest.mark.parametrize("key", sorted(KEYS_OF_THE_KEY))
def test_the_example_loads_with_everything_taken_in(folder: Path, key: str) -> None:
    """But for what excludes it, and for the secret that belongs in a file of its own."""
    excluded = KEYS_OF_THE_KEY - {key}
    text = re.sub(r"(?m)^#(?![ :])", "", EXAMPLE)
    text = re.sub(rf"(?m)^(?=({'|'.join(excluded)}) |token_endpoint .*in place of)", "# ", text)
    found = load_text(folder, text)
    assert {"work", "me", "explicit", "personal", "cloud", "workload"} <= found
    expected = {f"{section}.{key}" for section, key in SETTINGS if section in SINGLE}
    assert expected - {f"store.{name}" for name in excluded} - {"store.key_secret"} <= found


DEFAULTS = [
    *(
        "port",
        "hosts",
        "credential",
        "inject",
        "forwarded",
        "cookies",
        "query_token",
        "upgrades",
        "retry_statuses",
        "spool",
        "expect_continue",
        "browser_app",
        "level",
        "format",
        "access",
        "audit_required",
        "traces",
        "peer_uid",
        "kind",
        "key_source",
    ),
    *SINGLE["limits"].model_fields,
]


def test_the_defaults_the_example_shows(folder: Path) -> None:
    """What is not taken in is what holds anyway, but for the list that is empty."""
    plain = folder / "bearerd.toml"
    plain.write_text(EXAMPLE)
    taken_in = folder / "all.toml"
    taken_in.write_text(re.sub(rf"(?m)^#(?=({'|'.join(DEFAULTS)}) )", "", EXAMPLE))
    assert load(taken_in, {}, {}).configuration == load(plain, {}, {}).configuration


def test_what_the_first_page_shows_of_a_session_is_what_is_printed() -> None:
    shown = README.split("$ bearerd status\n")[1].splitlines()[:3]
    now = 2_000_000_000.0
    file = str(default_path().resolve())
    document = {
        "addresses": ["http://127.0.0.1:6750", "http://[::1]:6750"],
        "pid": 4711,
        "config": file,
        "accounts": [
            {
                "name": "work",
                "state": "active",
                "expires": {"epoch": now + 3300},
                "last_refresh": {"epoch": now - 300},
                "problem": None,
            }
        ],
    }
    printed = format_all([document], now, Screen()).replace(file, "/home/me/.config/bearerd/bearerd.toml")
    assert printed.splitlines() == shown


@pytest.mark.parametrize("page", ["README.md", "docs/start.md", "docs/troubleshooting.md"])
def test_commands_of_a_page_exist(page: str) -> None:
    text = (PROJECT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|\$ )bearerd ([a-z]+)(?: ([a-z]+))?", text))
    assert {("run", ""), ("config", "check")} <= named
    for name, below in named:
        command = main.get_command(Context(main), name)
        assert command is not None, name
        if isinstance(command, Group):
            assert below in command.commands


def test_the_least_configuration_of_the_document_loads(folder: Path) -> None:
    found = re.search(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found
    text = found[1].replace("/run/secrets/my-client", "client-secret")
    assert "work" in load_text(folder, text)


def test_the_variables_of_the_document_load(folder: Path) -> None:
    pairs = dict(re.findall(r"export (\w+)=(\S+)", DOCUMENT))
    pairs["BEARERD_ACCOUNTS__WORK__CLIENT_SECRET_FILE"] = str(folder / "client-secret")
    assert load(None, {}, pairs | {CONFIG_VARIABLE: os.devnull}).configuration.accounts


def test_the_answer_without_a_login_is_as_shown() -> None:
    shown = LOGIN.split("```json\n")[1].partition("```")[0]
    url = "http://127.0.0.1:6750/-/login/work"
    assert shown.encode() == problem_body(no_token("work", LoginRequired(NEVER_LOGGED_IN), url))


def test_options_of_a_login_exist() -> None:
    shown = re.findall(r"(?m)^bearerd (login|logout) work(?: (--[a-z-]+))?", LOGIN)
    assert len(shown) == 4
    for name, option in shown:
        command = main.get_command(Context(main), name)
        assert command is not None
        assert not option or option in {each for known in command.params for each in known.opts}


def test_each_line_of_the_doctor_is_explained() -> None:
    """By what the line begins with; and no other is."""
    section = (
        (PROJECT / "docs" / "operations.md").read_text().partition("## Doctor\n")[2].partition("\n## ")[0]
    )
    table = section.partition("| line |")[2]
    explained = set(re.findall(r"(?m)^\| `([a-z]+)` \|", table))
    folder = PROJECT / "proxy" / "bearerd" / "doctor"
    sources = "".join(path.read_text() for path in folder.glob("*.py"))
    assert explained == set(re.findall(r'(?:Level\.[A-Z]+|\blevel),\s*"([a-z]+)",', sources))


def seconds(text: str) -> list[float]:
    units = {"s": 1.0, "min": 60.0, "hour": 3600.0, "day": 86_400.0}
    return [float(number) * units[unit] for number, unit in re.findall(r"([\d.]+) (s|min|hour|day)\b", text)]


def test_refresh_windows_are_as_shown() -> None:
    concepts = (PROJECT / "docs" / "concepts.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| (\d+ \w+) \| (.*) \| (.*) \|$", concepts)
    assert len(rows) == 4
    policy = Policy(renewable=True)
    for whole, window, last in rows:
        [life] = seconds(whole)
        token = TokenSet(1, Secret("made-up"), 0.0, life)
        begins = [life - advisory_at(token, jitter, policy) for jitter in (0.0, 1.0)]
        assert seconds(window) == pytest.approx(begins)
        assert seconds(last) == pytest.approx([life - mandatory_at(token, policy)])
