"""The page on providers: its commands write configurations, and its blocks are ones."""

import re
import shlex
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from bearerd.cli import main
from bearerd.settings import load
from bearerd.settings.presets import load_presets
from blocks import find_block

PAGE: Final = Path(__file__).parent.parent / "docs" / "providers.md"
COMMANDS: Final = re.findall(r"(?m)^`bearerd (init [^`]+)`$", PAGE.read_text())


@pytest.fixture(autouse=True)
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a client's secret, here."""
    monkeypatch.chdir(tmp_path)
    for name in ("FILE", "work-client-secret"):
        (tmp_path / name).write_text("made-up\n")
        (tmp_path / name).chmod(0o600)


def test_each_preset_has_its_command() -> None:
    found = {command.split()[2] for command in COMMANDS}
    assert found == set(load_presets()) - {"oidc"}  # it is for those that have none


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[2])
def test_nothing_more_is_asked(tmp_path: Path, command: str) -> None:
    file = tmp_path / "bearerd.toml"
    ended = CliRunner().invoke(main, [*shlex.split(command), "--output", str(file)])
    assert ended.exit_code == 0, ended.output
    assert load(file, {}, {}).configuration.accounts
    assert "YOUR-" not in re.sub(r"(?m)^#.*$", "", file.read_text())


@pytest.mark.parametrize("name", ["atlassian", "cognito", "snowflake"])
def test_a_server_without_a_preset(tmp_path: Path, name: str) -> None:
    file = tmp_path / "bearerd.toml"
    file.write_text(find_block(PAGE, name).text)
    file.chmod(0o600)
    assert load(file, {}, {}).warnings == ()
