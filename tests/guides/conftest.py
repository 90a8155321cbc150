"""Who follows a guide: with a home of their own, and a vault whose key is in a file, for there is no keychain here."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Empty; with none of this machine's settings, and a runtime folder of a short name."""
    for name in [name for name in os.environ if name.startswith("BEARERD_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / ".config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / ".local" / "share"))
    with tempfile.TemporaryDirectory(prefix="run-") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        yield folder


@pytest.fixture
def key_file(monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    """Where the key of the vault is, for all that runs from now on."""
    file = home / "vault.key"
    monkeypatch.setenv("BEARERD_STORE__KEY_FILE", str(file))
    return file
