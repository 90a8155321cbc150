"""`bearerd store rekey`: what it says, what it asks for, and that the configuration it prints is the one to use."""

import base64
import os
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bearerd.cli import main
from bearerd.core.redaction import Secret
from bearerd.core.tokens import TokenSet
from bearerd.core.vault import build_key, parse_key, seal
from bearerd.settings import load
from bearerd.stores.rekey import identity_of
from bearerd.stores.vault import VaultFolder

OLD = build_key(bytes(range(32)))
NEW = build_key(bytes(range(1, 33)))
NAME = "work-0123456789abcdef.vault"
STORE = '[store]\nkey_file = "old.key"\npath = "vault"\n'
ROUTES = """\
[accounts.work]
refresh_token = "canary"
client_id = "cli"
token_endpoint = "http://127.0.0.1:9/token"
[routes."/"]
upstream = "http://127.0.0.1:9"
"""


class Setup:
    """A vault of one file, and a configuration that opens it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.file = home / "bearerd.toml"
        self.configure(STORE)
        write_key(home / "old.key", OLD)
        ours: dict[str, str | None] = {name: None for name in os.environ if name.startswith("BEARERD_")}
        self._runner = CliRunner(env=ours | {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")})

    def configure(self, store: str) -> None:
        self.file.write_text(store + ROUTES)
        self.file.chmod(0o600)

    def fill(self) -> None:
        data = seal(
            TokenSet(3, Secret("canary"), 0.0, 1.0, Secret("canary")),
            identity_of(NAME),
            OLD,
            b"n" * 12,
        )
        VaultFolder(self.home / "vault").replace(NAME, data, by_way_of="made.probe")

    def rekey(self, *words: str, **variables: str) -> Result:
        arguments = ["store", "rekey", "-c", str(self.file), *words]
        result = self._runner.invoke(main, arguments, env=variables)
        assert "canary" not in result.output
        return result

    def key_of_vault(self) -> bytes:
        return (self.home / "vault" / NAME).read_bytes()[15:23]


def write_key(path: Path, key: object) -> None:
    raw = getattr(key, "raw", b"")
    path.write_bytes(base64.b64encode(raw))
    path.chmod(0o600)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


class TestUsage:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ((), "Missing option '--key-source'"),
            (("--key-source", "auto"), "is not one of"),
            (
                ("--key-source", "keychain", "--key-file", "k"),
                "--key-file goes with --key-source file; take one of them, or write both",
            ),
            (
                ("--key-source", "secret"),
                "--key-secret-file and --key-source secret go together; write both, or none",
            ),
            (("--key-source", "file", "--key-secret-file", "k"), "go together"),
            (("--key-source", "secret", "--key-secret-file", "absent"), "absent cannot be read"),
        ],
    )
    def test_what_does_not_go_together(self, setup: Setup, words: tuple[str, ...], message: str) -> None:
        setup.fill()
        result = setup.rekey(*words)
        assert result.exit_code == 2
        assert message in result.output
        assert setup.key_of_vault() == OLD.id

    def test_a_secret_file_that_holds_no_key(self, setup: Setup) -> None:
        (setup.home / "secret").write_text("short")
        result = setup.rekey("--key-source", "secret", "--key-secret-file", str(setup.home / "secret"))
        assert result.exit_code == 2
        assert "--key-secret-file" in result.output

    def test_a_bad_configuration(self, setup: Setup) -> None:
        setup.configure('[store]\nkey_fiel = "x"\n')
        assert setup.rekey("--key-source", "file").exit_code == 78

    def test_no_vault_by_configuration(self, setup: Setup) -> None:
        setup.configure('[store]\nkind = "memory"\n')
        result = setup.rekey("--key-source", "file")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "there is no vault and no key to change" in result.stderr

    def test_a_third_key_stops_it(self, setup: Setup) -> None:
        setup.fill()
        write_key(setup.home / "old.key", NEW)
        result = setup.rekey("--key-source", "file", "--key-file", str(setup.home / "new.key"))
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"bearerd: {NAME} was sealed with a third key; " in result.stderr
        assert not (setup.home / "new.key").exists()


class TestChange:
    def test_what_it_prints_is_the_configuration_to_use(self, setup: Setup) -> None:
        setup.fill()
        new = setup.home / 'a "new" clé.key'
        result = setup.rekey("--key-source", "file", "--key-file", str(new))
        assert result.exit_code == 0
        assert tomllib.loads(result.stdout) == {"store": {"key_source": "file", "key_file": str(new)}}
        assert setup.key_of_vault() == parse_key(new.read_text()).id
        setup.configure(result.stdout + f'path = "{setup.home}/vault"\n')
        store = load(setup.file, {}, {}).configuration.store
        assert (store.key_source, store.key_file) == ("file", str(new))

    def test_what_is_left_to_do_stands_on_standard_error(self, setup: Setup) -> None:
        setup.fill()
        result = setup.rekey("--key-source", "file", "--key-file", str(setup.home / "new.key"))
        assert result.stderr.splitlines() == [
            f"sealed in {setup.home}/vault with the key in the key file {setup.home}/new.key: 1",
            f"put the lines below into {setup.file}, beside store.path",
            f"in place of store.key_file (file {setup.file})",
            (
                "then start every bearerd of this vault again: "
                "one that still runs has the old key and can save nothing more"
            ),
            "keep the old key until they have started",
        ]

    def test_to_a_secret_file(self, setup: Setup) -> None:
        setup.fill()
        write_key(setup.home / "secret", NEW)
        words = ("--key-source", "secret", "--key-secret-file", str(setup.home / "secret"))
        result = setup.rekey(*words)
        assert result.exit_code == 0
        assert tomllib.loads(result.stdout) == {
            "store": {"key_source": "secret", "key_secret_file": f"{setup.home}/secret"}
        }
        assert setup.key_of_vault() == NEW.id
        assert "the secret file: 0; already so: 1\n" in setup.rekey(*words).stderr

    def test_the_key_file_of_the_default_place(self, setup: Setup) -> None:
        setup.fill()
        result = setup.rekey("--key-source", "file")
        assert result.exit_code == 0
        path = setup.home / "config" / "bearerd" / "vault.key"
        assert tomllib.loads(result.stdout)["store"]["key_file"] == str(path)
        assert setup.key_of_vault() == parse_key(path.read_text()).id

    def test_a_variable_that_would_outdo_the_file_is_named(self, setup: Setup) -> None:
        setup.configure('[store]\npath = "vault"\n')
        setup.fill()
        variables = {"BEARERD_STORE__KEY_FILE": str(setup.home / "old.key")}
        result = setup.rekey("--key-source", "file", "--key-file", str(setup.home / "new.key"), **variables)
        assert result.exit_code == 0
        assert (
            "in place of store.key_file (environment BEARERD_STORE__KEY_FILE)" in result.stderr.splitlines()
        )

    def test_without_a_vault_nothing_is_made(self, setup: Setup) -> None:
        setup.configure('[store]\npath = "vault"\n')
        result = setup.rekey("--key-source", "keychain")
        assert result.exit_code == 0
        assert result.stdout == '[store]\nkey_source = "keychain"\n'
        assert result.stderr.startswith(f"nothing is sealed in {setup.home}/vault yet, and no key was made\n")
        assert len(result.stderr.splitlines()) == 2
        assert not (setup.home / "vault").exists()
