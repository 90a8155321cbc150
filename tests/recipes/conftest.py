"""Clients in an environment of their own: a home with nothing in it, and nothing of what this machine sets for its user."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

_FOREIGN: Final = ("BEARERD_", "PIP_", "UV_", "TWINE_", "NPM_CONFIG_", "OPENAI_", "ANTHROPIC_", "GIT_", "TF_")
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Where commands run: a folder below that home. The runtime folder has a short name, for sockets."""
    for name in list(os.environ):
        if name.upper().startswith(_FOREIGN + _PROXIES):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    folder = home / "here"
    folder.mkdir(parents=True)
    own = {"HOME": "", "XDG_CONFIG_HOME": ".config", "XDG_CACHE_HOME": ".cache", "XDG_DATA_HOME": ".local"}
    for name, place in own.items():
        monkeypatch.setenv(name, str(home / place))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    monkeypatch.setenv("CHECKPOINT_DISABLE", "1")  # Terraform asks nobody for news
    monkeypatch.setenv("BEARERD_CONFIG", str(tmp_path / "bearerd.toml"))
    with tempfile.TemporaryDirectory(prefix="run-") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        yield folder
