"""The configurations in docker/ are good, and as safe as docs/containers.md says; running them is for tests/container."""

import re
from pathlib import Path
from textwrap import dedent
from typing import Final

import pytest

from bearerd.settings import load

DOCKER: Final = Path(__file__).parents[1] / "docker"
FILES: Final = ("bearerd.toml", "kubernetes/sidecar.yaml", "kubernetes/shared-login.yaml")


def configuration_in(text: str) -> str:
    """What a manifest has as bearerd.toml; all of any other file."""
    found = re.search(r"(?m)^  bearerd\.toml: \|\n((?:    .*\n|\n)+)", text)
    return dedent(found[1]) if found else text


@pytest.mark.parametrize("name", FILES)
def test_an_example_is_for_its_app_alone(name: str, tmp_path: Path) -> None:
    toml = configuration_in((DOCKER / name).read_text(encoding="utf-8"))
    for folder in ("/run/secrets/bearerd", "/run/secrets", "/var/lib/bearerd"):
        toml = toml.replace(folder, str(tmp_path))
    (tmp_path / "client-secret").write_text("made-up\n")
    (tmp_path / "vault-key").write_text("0" * 64)
    file = tmp_path / "bearerd.toml"
    file.write_text(toml)
    loaded = load(file, {}, {})
    assert loaded.warnings == ()
    listen = loaded.configuration.listen
    assert (listen.remote_hosts, listen.peer_uid, listen.allowed_hosts) == ((), "any", frozenset())
    assert loaded.configuration.keys.use == "required"
