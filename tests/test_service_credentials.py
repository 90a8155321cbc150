"""Secrets that a service manager gives to this service alone."""

from pathlib import Path

import pytest

from bearerd.core.accounts import OAuthSource
from bearerd.core.configuration import Configuration
from bearerd.errors import ConfigError
from bearerd.settings import load

TOML = """
[store]
key_secret_file = "$CREDENTIALS_DIRECTORY/vault.key"
[accounts.work]
grant = "client_credentials"
token_endpoint = "https://login.example.com/token"
client_id = "c"
client_secret_file = "$CREDENTIALS_DIRECTORY/client"
[routes."/"]
upstream = "https://api.example.com"
"""


def configure(folder: Path) -> Configuration:
    file = folder / "bearerd.toml"
    file.write_text(TOML)
    return load(file, {}, {}).configuration


def test_they_are_read_from_the_folder_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "client").write_text("the-secret\n")
    (credentials / "vault.key").write_text("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    found = configure(tmp_path)
    source = found.accounts["work"].source
    assert isinstance(source, OAuthSource)
    assert source.client_secret is not None
    assert source.client_secret.reveal() == "the-secret"
    assert found.store.key_source == "secret"


@pytest.mark.parametrize("folder", [None, ""])
def test_without_one_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str | None
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    if folder is not None:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", folder)
    with pytest.raises(ConfigError) as refusal:
        configure(tmp_path)
    assert str(refusal.value).splitlines() == [
        f"{name}: begins with $CREDENTIALS_DIRECTORY/, which is not there; let systemd start bearerd, with "
        "LoadCredential= in its unit, or name the file"
        for name in ("accounts.work.client_secret_file", "store.key_secret_file")
    ]
