"""`bearerd doctor`: every fault made for real, its line with a cure, and nothing changed by looking."""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bearerd.cli import main
from bearerd.core.accounts import Grant, OAuthSource
from bearerd.core.client_keys import ClientKey, build_document
from bearerd.core.redaction import Secret
from bearerd.core.tokens import TokenSet, Tombstone
from bearerd.core.vault import Key, build_identity, build_key, seal
from bearerd.doctor import Level
from bearerd.doctor.findings import FIRST_AT, judge_clock, judge_permissions
from bearerd.doctor.sight import Kind, look, look_at
from bearerd.doctor.trials import find_held, judge_making, try_locks
from bearerd.stores.rekey import identity_of
from bearerd.stores.vault import VaultFolder
from disks import mounted
from test_rekey import keychain, without_keychain
from users import NOBODY, bound_by_permissions

KEY = build_key(bytes(range(32)))
OTHER = build_key(bytes(32))
ENDPOINT = "http://127.0.0.1:9/token"
WORK = build_identity("work", OAuthSource(Grant.REFRESH_TOKEN, "cli", token_endpoint=ENDPOINT))
VAULT, NEXT = f"{WORK.stem}.vault", f"{WORK.stem}.next"
STORE = '[store]\npath = "vault"\nkey_file = "vault.key"\n'
ACCOUNT = f"""\
[listen]
port = 0
[accounts.work]
refresh_token = "canary"
client_id = "cli"
token_endpoint = "{ENDPOINT}"
[accounts.fixed]
token = "canary"
[routes."/"]
upstream = "http://127.0.0.1:9"
account = "work"
"""
AT_REST = ["settings", "key", "vault", "lock", "permissions", "writable", "clock"]
SUBJECTS = [*AT_REST, "runtime", "port", "limits", "environment"]
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can give files away and mount; run by CI"
)

# Holds a lock until it is ended.
HOLDER = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


class Patient:
    """A set-up to examine. It begins healthy."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.file = home / "bearerd.toml"
        self.vault = home / "vault"
        self.key_file = home / "vault.key"
        self.configure(STORE)
        self.key_file.write_bytes(base64.b64encode(KEY.raw))
        self.key_file.chmod(0o600)
        self.put(VAULT, self.tokens(3))
        (self.vault / f"{WORK.stem}.lock").touch(0o600)

    def configure(self, store: str) -> None:
        self.file.write_text(store + ACCOUNT)
        self.file.chmod(0o600)

    def tokens(self, generation: int, *, age_s: float = 60.0, login: str | None = "canary") -> TokenSet:
        at = time.time() - age_s
        return TokenSet(generation, Secret("canary"), at, at + 600, Secret(login) if login else None)

    def put(self, name: str, record: TokenSet | Tombstone, key: Key = KEY, cut: int | None = None) -> None:
        data = seal(record, identity_of(name), key, b"n" * 12)[:cut]
        VaultFolder(self.vault).replace(name, data, by_way_of="made.probe")

    def run(self, *words: str) -> Result:
        """The command; whatever it finds, it leaves everything as it is."""
        before = self.everything()
        ours: dict[str, str | None] = {
            name: None
            for name in os.environ
            if name.startswith("BEARERD_") or name.lower().endswith("_proxy")
        }
        runner = CliRunner(env=ours | {"HOME": str(self.home)})
        result = runner.invoke(main, ["doctor", "--offline", "-c", str(self.file), *words])
        assert self.everything() == before
        assert "canary" not in result.output
        return result

    def everything(self) -> dict[str, tuple[object, ...]]:
        """Names, modes, owners and contents of all there is."""
        paths = [self.home, *self.home.rglob("*")]
        return {str(path): facts_of(path) for path in paths if ".coverage" not in path.name}

    def lines(self, subject: str, *, code: int) -> list[str]:
        """The lines about `subject` without it."""
        result = self.run()
        assert result.exit_code == code, result.output
        rows = [line.split(None, 2) for line in result.stdout.splitlines()]
        return [f"{level} {text}" for level, about, text in rows if about == subject]


def facts_of(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    content = path.read_bytes() if look_kind(path) is Kind.FILE else b""
    return (found.st_mode, found.st_uid, found.st_nlink, found.st_ino, content)


def look_kind(path: Path) -> Kind:
    seen = look_at(path, read=False)
    assert seen is not None
    return seen.kind


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    return Patient(tmp_path)


def bearerd(patient: Patient, environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """As a process with these variables, for they decide which keychain there is."""
    command = (sys.executable, "-m", "bearerd", *words, "-c", str(patient.file))
    return subprocess.run(
        command, env=without_keychain() | environ, capture_output=True, check=False, text=True
    )


@pytest.fixture
def bare() -> Iterator[Path]:
    """A folder that other users can enter."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
        path.chmod(0o755)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            process.kill()


class TestClients:
    def test_where_there_are_no_keys_nothing_is_said_of_them(self, patient: Patient) -> None:
        assert patient.lines("clients", code=0) == []

    def test_a_key_that_is_needed_and_not_there(self, patient: Patient) -> None:
        patient.configure('[keys]\nuse = "required"\nfile = "keys.json"\n' + STORE)
        (line,) = patient.lines("clients", code=1)
        path = patient.home / "keys.json"
        assert line == (
            f"FAIL there is no key in {path}, and each call needs one; make one with: bearerd key create NAME"
        )

    def test_a_file_that_others_can_write(self, patient: Patient) -> None:
        patient.configure('[keys]\nuse = "optional"\nfile = "keys.json"\n' + STORE)
        path = patient.home / "keys.json"
        path.write_text(build_document([ClientKey("laptop", bytes(32), 0)]))
        path.chmod(0o602)
        (line,) = patient.lines("clients", code=1)
        assert line == f"FAIL {path} cannot be used: other users can write to it; chmod go-w {path}"
        path.chmod(0o600)
        assert patient.lines("clients", code=0) == [f"ok a key is optional, and there are 1 in {path}"]


class TestHealthy:
    def test_each_subject_has_its_line_and_the_code_is_0(self, patient: Patient) -> None:
        result = patient.run()
        assert (result.exit_code, result.stderr) == (0, "")
        rows = [line.split(None, 2) for line in result.stdout.splitlines()]
        assert [level for level, _, _ in rows] == ["ok"] * len(SUBJECTS)
        assert [subject for _, subject, _ in rows] == SUBJECTS

    def test_what_is_kept_is_told_without_showing_it(self, patient: Patient) -> None:
        [line] = patient.lines("vault", code=0)
        assert line.startswith("ok work: generation 3, a login, token expires in 5")

    def test_json(self, patient: Patient) -> None:
        (patient.vault / "letter.txt").touch(0o600)
        document = json.loads(patient.run("--json").stdout)
        assert document["format_version"] == 1
        assert document["examined"]["rfc3339"].endswith("+00:00")
        assert document["findings"][0]["cure"] is None
        assert document["findings"][3] == {
            "level": "warn",
            "subject": "vault",
            "found": "letter.txt is no file of a vault",
            "cure": "move it out of the folder",
        }

    def test_the_first_start_is_healthy_and_nothing_is_made(self, tmp_path: Path) -> None:
        patient = Patient(tmp_path)
        patient.configure('[store]\npath = "new/vault"\nkey_file = "new/vault.key"\n')
        result = patient.run()
        assert result.exit_code == 0
        assert not (tmp_path / "new").exists()
        assert "holds no vault key yet; one is made when" in result.stdout
        assert "work: nothing is kept yet" in result.stdout
        assert "nothing to lock yet" in result.stdout
        assert "there is no folder yet" in result.stdout
        assert "is made when bearerd first needs it" in result.stdout

    def test_without_a_vault_there_is_nothing_to_examine(self, patient: Patient) -> None:
        patient.configure('[store]\nkind = "memory"\n')
        result = patient.run()
        assert result.exit_code == 0
        assert "no account is kept in one" in result.stdout
        assert "loses its login" in result.stdout
        assert "clock" in result.stdout


class TestSettings:
    def test_a_bad_configuration_is_told_as_elsewhere(self, patient: Patient) -> None:
        patient.configure('[store]\npaht = "vault"\n')
        result = patient.run()
        assert (result.exit_code, result.stdout) == (78, "")
        assert "did you mean" in result.stderr

    def test_what_is_not_wise_is_a_warning(self, patient: Patient) -> None:
        patient.file.chmod(0o644)
        good, warning = patient.lines("settings", code=0)
        assert good == f"ok {patient.file} is good"
        assert warning.startswith("warn ")
        assert "chmod 600" in warning


class TestKey:
    def test_a_key_file_that_is_gone(self, patient: Patient) -> None:
        patient.key_file.unlink()
        [line] = patient.lines("key", code=1)
        assert line.startswith(f"FAIL the key file {patient.key_file} holds no vault key, and ")
        assert "give that key back" in line
        assert patient.lines("vault", code=1) == [
            "warn work: not looked into, for there is no key; mend the key first"
        ]

    @pytest.mark.parametrize("mode", [0o600, 0o644])
    def test_a_key_file_that_is_damaged(self, patient: Patient, mode: int) -> None:
        patient.key_file.write_text("no key")
        patient.key_file.chmod(mode)
        [line] = patient.lines("key", code=1)
        assert line.startswith("FAIL")
        assert "restore it" in line

    def test_a_key_file_that_others_can_read(self, patient: Patient) -> None:
        patient.key_file.chmod(0o644)
        assert patient.lines("key", code=1)[0].startswith(f"ok the key file {patient.key_file}, read in 0.0")
        assert patient.lines("permissions", code=1) == [
            (
                "FAIL the key file vault.key has mode 0644; "
                "chmod 600 it, and if others may have read it: bearerd store rekey"
            )
        ]

    def test_a_key_file_that_is_a_link(self, patient: Patient) -> None:
        patient.key_file.rename(patient.home / "elsewhere")
        patient.key_file.symlink_to(patient.home / "elsewhere")
        assert patient.lines("key", code=0)[0].startswith("ok ")
        (patient.home / "elsewhere").chmod(0o644)
        assert "it is a link, and what it leads to has mode 0644" in patient.lines("key", code=1)[0]
        assert patient.lines("permissions", code=1) == [
            (
                "FAIL the key file vault.key is a link, and what it leads to has mode 0644; "
                "chmod 600 that, in Kubernetes by defaultMode: 0440"
            )
        ]

    def test_a_key_file_that_is_a_circle_of_links(self, patient: Patient) -> None:
        patient.key_file.unlink()
        patient.key_file.symlink_to(patient.key_file)
        [line] = patient.lines("permissions", code=1)
        assert "is a link, and cannot be followed: Too many levels of symbolic links; mend it" in line

    def test_a_secret(self, patient: Patient) -> None:
        secret = base64.b64encode(KEY.raw).decode()
        patient.configure(f'[store]\npath = "vault"\nkey_secret = "{secret}"\n')
        [line] = patient.lines("key", code=0)
        assert line.startswith("ok store.key_secret, read in 0.0")

    def test_no_keychain(self, patient: Patient) -> None:
        patient.configure('[store]\npath = "vault"\nkey_source = "keychain"\n')
        ended = bearerd(patient, {"HOME": str(patient.home)}, "doctor", "--offline")
        assert ended.returncode == 1
        assert "FAIL  key          no usable keychain here" in ended.stdout
        assert 'set store.key_source = "file"' in ended.stdout

    def test_the_keychain_and_its_backend(self, patient: Patient) -> None:
        with keychain() as environ:
            assert bearerd(patient, environ, "store", "rekey", "--key-source", "keychain").returncode == 0
            patient.configure('[store]\npath = "vault"\nkey_source = "keychain"\n')
            ended = bearerd(patient, environ, "doctor", "--offline")
        assert ended.returncode == 0
        assert "ok    key          the keychain (keyring.backends." in ended.stdout
        assert "work: generation 3" in ended.stdout


class TestVault:
    def test_another_key(self, patient: Patient) -> None:
        patient.put(VAULT, patient.tokens(3), OTHER)
        assert patient.lines("vault", code=1) == [
            (
                f"FAIL {VAULT} was sealed with another key; "
                "give that key back, or move the file away and log in again"
            )
        ]

    def test_a_damaged_file(self, patient: Patient) -> None:
        patient.put(VAULT, patient.tokens(3), cut=60)
        [line] = patient.lines("vault", code=1)
        assert line.startswith(f"FAIL {VAULT} is damaged")
        assert line.endswith("; restore it, or log in again, which sets it aside")

    def test_a_damaged_file_beside_a_whole_save(self, patient: Patient) -> None:
        patient.put(VAULT, patient.tokens(3), cut=60)
        patient.put(NEXT, patient.tokens(4))
        damaged, waiting, record = patient.lines("vault", code=0)
        assert damaged.startswith(f"warn {VAULT} is damaged")
        assert waiting.startswith(f"warn {NEXT} is a whole save that was interrupted, of generation 4; ")
        assert record.startswith("ok work: generation 4")

    def test_a_save_that_waits(self, patient: Patient) -> None:
        patient.put(NEXT, patient.tokens(4))
        waiting, record = patient.lines("vault", code=0)
        assert "of generation 4; nothing is lost" in waiting
        assert "generation 4" in record

    def test_a_save_that_was_overtaken_is_nothing_to_tell(self, patient: Patient) -> None:
        patient.put(NEXT, patient.tokens(2))
        [record] = patient.lines("vault", code=0)
        assert "generation 3" in record

    def test_a_torn_save(self, patient: Patient) -> None:
        patient.put(NEXT, patient.tokens(4), cut=60)
        torn, _ = patient.lines("vault", code=0)
        assert torn == (
            f"warn {NEXT} is what a save that was interrupted has left; the next save writes over it"
        )

    def test_a_save_under_another_key(self, patient: Patient) -> None:
        patient.put(NEXT, patient.tokens(4), OTHER)
        waiting, _ = patient.lines("vault", code=1)
        assert waiting.startswith(f"FAIL {NEXT} was sealed with another key; ")

    def test_a_logout(self, patient: Patient) -> None:
        patient.put(VAULT, Tombstone(4))
        assert patient.lines("vault", code=0) == ["warn work: generation 4, logged out; log in again"]

    def test_an_expired_token_with_and_without_a_login(self, patient: Patient) -> None:
        patient.put(VAULT, patient.tokens(3, age_s=1000))
        assert patient.lines("vault", code=0)[0].startswith(
            "ok work: generation 3, a login, token expired 40"
        )
        patient.put(VAULT, patient.tokens(3, age_s=1000, login=None))
        assert patient.lines("vault", code=0)[0].startswith(
            "warn work: generation 3, no login, token expired"
        )

    def test_a_login_that_was_brought_in(self, patient: Patient) -> None:
        patient.put(VAULT, TokenSet(0, Secret(""), 0.0, 0.0, Secret("canary")))
        assert patient.lines("vault", code=0) == ["ok work: generation 0, a login, no token yet"]

    def test_strays(self, patient: Patient) -> None:
        other = "home-0123456789abcdef.vault"
        patient.put(other, patient.tokens(1))
        (patient.vault / f"{VAULT}.damaged-1").touch(0o600)
        (patient.vault / "let\nter").touch(0o600)
        _, *lines = patient.lines("vault", code=0)
        assert lines == [
            f"ok {other} belongs to no account of this configuration",
            r"warn 'let\nter' is no file of a vault; move it out of the folder",
            (
                f"warn {VAULT}.damaged-1 was set aside as damaged; "
                "remove it once you are sure that you do not need it"
            ),
        ]

    def test_a_link_in_its_place_is_not_followed(self, patient: Patient) -> None:
        (patient.vault / VAULT).rename(patient.home / "elsewhere")
        (patient.vault / VAULT).symlink_to(patient.home / "elsewhere")
        assert patient.lines("vault", code=1)[0].startswith(f"FAIL {VAULT} cannot be read: it is a link; ")
        assert patient.lines("permissions", code=1) == [
            f"FAIL {patient.vault / VAULT} is a link; move it out of the folder"
        ]


class TestLock:
    def test_a_lock_that_another_process_holds(self, patient: Patient) -> None:
        with held(patient.vault / f"{WORK.stem}.lock"):
            first, second = patient.lines("lock", code=0)
        assert first.startswith(
            f"warn {WORK.stem}.lock is held by another process, which may be refreshing; "
        )
        assert second == f"ok a lock in {patient.vault} excludes other processes"

    def test_a_lock_that_is_let_go_in_time_is_free(self, patient: Patient) -> None:
        path = patient.vault / f"{WORK.stem}.lock"
        program = HOLDER.replace("sys.stdin.read()", "import time; time.sleep(0.3)")
        with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            began = time.monotonic()
            assert find_held([path], wait_s=10) == []
            assert time.monotonic() - began < 5

    def test_a_lock_that_cannot_be_opened_is_a_matter_of_permissions(self, patient: Patient) -> None:
        path = patient.vault / "link.lock"
        path.symlink_to(patient.vault / "absent")
        assert find_held([path], wait_s=0) == []

    @pytest.mark.parametrize(
        ("holder", "found"),
        [
            ('import sys; print("held", flush=True); sys.stdin.read()', "two processes can hold one lock"),
            ("", "locks cannot be tried"),
        ],
        ids=["that does not lock", "that fails"],
    )
    def test_a_file_system_that_does_not_lock(self, patient: Patient, holder: str, found: str) -> None:
        """There is none to be had here, so it is the other process that does not lock."""
        finding = try_locks(patient.vault, holder)
        assert finding.level is Level.FAIL
        assert found in finding.found
        assert list(patient.vault.glob("*.probe")) == []

    def test_a_lock_that_outlives_its_process(self, patient: Patient) -> None:
        """By a process that it has started, which has the file too."""
        holder = """
import fcntl, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(file, fcntl.LOCK_EX)
if os.fork() == 0:
    os.close(1)
    time.sleep(1)
    os._exit(0)
print("held", flush=True)
sys.stdin.read()
"""
        assert "outlives the process" in try_locks(patient.vault, holder).found


class TestPermissions:
    def test_a_folder_that_others_can_enter(self, patient: Patient) -> None:
        patient.vault.chmod(0o755)
        assert patient.lines("permissions", code=0) == [
            f"warn {patient.vault} has mode 0755; chmod 700 {patient.vault}"
        ]
        assert patient.lines("lock", code=0) == [
            f"warn not tried in {patient.vault}; mend its permissions first"
        ]
        assert patient.lines("writable", code=0)[0].startswith("warn not tried")

    @pytest.mark.parametrize("made", [True, False])
    def test_a_folder_that_another_user_could_exchange(self, patient: Patient, *, made: bool) -> None:
        if not made:
            patient.configure(STORE.replace('"vault"', '"new/vault"'))
        patient.home.chmod(0o777)
        path = patient.vault if made else patient.home / "new" / "vault"
        [line] = patient.lines("permissions", code=1)
        assert line == (
            f"FAIL {path} could be exchanged for another folder: other users can write to {patient.home}; "
            f"chmod go-w {patient.home}, or chmod +t {patient.home} if it is meant for all, "
            "or name another store.path"
        )
        if made:
            assert patient.lines("lock", code=1)[0].startswith("warn not tried")
            assert patient.lines("writable", code=1)[0].startswith("warn not tried")

    def test_a_folder_of_other_things(self, patient: Patient) -> None:
        patient.vault.chmod(0o755)
        (patient.vault / "letter.txt").touch(0o600)
        [line] = patient.lines("permissions", code=1)
        assert line.startswith(f"FAIL {patient.vault} has mode 0755 and holds other files; ")

    def test_a_note_that_was_being_written_is_a_file_of_ours(self, patient: Patient) -> None:
        (patient.vault / f"{WORK.stem}.noting").touch(0o600)
        assert len(patient.lines("vault", code=0)) == 1
        patient.vault.chmod(0o755)
        assert patient.lines("permissions", code=0)[0].startswith("warn ")

    def test_files_that_others_can_read(self, patient: Patient) -> None:
        (patient.vault / VAULT).chmod(0o644)
        (patient.vault / f"{WORK.stem}.lock").chmod(0o666)
        lines = patient.lines("permissions", code=0)
        assert [line.split(" has ")[1].split(";")[0] for line in lines] == ["mode 0666", "mode 0644"]

    def test_a_file_of_two_names(self, patient: Patient) -> None:
        (patient.home / "second").hardlink_to(patient.vault / VAULT)
        assert "has another name too" in patient.lines("permissions", code=1)[0]

    def test_a_folder_that_is_a_link(self, patient: Patient) -> None:
        patient.vault.rename(patient.home / "elsewhere")
        patient.vault.symlink_to(patient.home / "elsewhere")
        assert patient.lines("permissions", code=1) == [
            f"FAIL {patient.vault} is a link; name another folder with store.path"
        ]

    def test_a_pipe_in_the_folder(self, patient: Patient) -> None:
        os.mkfifo(patient.vault / NEXT, 0o600)
        assert "is a special file" in patient.lines("permissions", code=1)[0]

    @needs_root
    def test_a_folder_and_files_of_another_user(self, patient: Patient) -> None:
        for path in (patient.vault, patient.vault / VAULT, patient.key_file):
            os.chown(path, NOBODY, -1)
        folder, file, key = patient.lines("permissions", code=1)
        assert folder == (
            f"FAIL {patient.vault} belongs to another user (uid {NOBODY}); name another folder with store.path"
        )
        assert f"{VAULT} belongs to another user" in file
        assert key.startswith("FAIL the key file vault.key belongs to another user")

    @needs_root
    def test_what_cannot_be_read(self, bare: Path) -> None:
        """Looked at by another user, whose folder it is in part."""
        vault = bare / "vault"
        vault.mkdir(mode=0o700)
        (vault / VAULT).touch(0o600)
        with bound_by_permissions():
            assert self.problems(vault) == [
                f"{vault} belongs to another user (uid 0)",
            ]
        os.chown(vault, NOBODY, -1)
        with bound_by_permissions():
            seen = look(vault).files[VAULT]
            assert (seen.data, seen.problem) == (None, "Permission denied")
            assert self.problems(vault) == [f"{vault / VAULT} belongs to another user (uid 0)"]
        os.chown(vault / VAULT, NOBODY, -1)
        (vault / VAULT).chmod(0)
        vault.chmod(0o600)
        with bound_by_permissions():
            unknown = f"{vault / VAULT} cannot be looked at: Permission denied"
            assert self.problems(vault) == [f"{vault} has mode 0600", unknown]
            vault.chmod(0o700)
            assert self.problems(vault) == [f"{vault / VAULT} cannot be read: Permission denied"]
            vault.chmod(0)
            assert self.problems(vault) == [f"{vault} cannot be read: Permission denied"]

    def problems(self, vault: Path) -> list[str]:
        return [finding.found for finding in judge_permissions(look(vault), None, os.geteuid())]


class TestWritable:
    @needs_root
    def test_a_full_disk(self, patient: Patient) -> None:
        with mounted(patient.vault, "64k"):
            patient.put(VAULT, patient.tokens(3))
            (patient.vault / "filler.probe").touch(0o600)
            (patient.vault / "filler.probe").write_bytes(bytes(56 << 10))
            [line] = patient.lines("writable", code=1)
        assert line == (
            f"FAIL {patient.vault} cannot be written to: No space left on device; make room there"
        )

    @needs_root
    def test_a_read_only_file_system(self, patient: Patient) -> None:
        with mounted(patient.vault, "64k"):
            subprocess.run(["mount", "-o", "remount,ro", patient.vault], check=True)
            assert "Read-only file system" in patient.lines("writable", code=1)[0]
            assert "cannot be tried" in patient.lines("lock", code=1)[0]

    def test_a_folder_that_cannot_be_made_for_a_file_is_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert look(tmp_path / "file" / "vault").folder is None
        finding = judge_making(tmp_path / "file" / "vault")
        assert str(finding) == (
            f"FAIL  writable     {tmp_path}/file/vault cannot be made; "
            f"mend {tmp_path}/file, or name another folder with store.path"
        )

    def test_a_folder_that_cannot_be_made_in_another_user_s(self, bare: Path) -> None:
        bare.chmod(0o555)
        with bound_by_permissions():
            assert judge_making(bare / "vault").level is Level.FAIL


class TestClock:
    def test_a_token_from_the_future(self, patient: Patient) -> None:
        patient.put(VAULT, patient.tokens(3, age_s=-7200))
        [line] = patient.lines("clock", code=0)
        assert line.startswith("warn the token of work is from 7")
        assert "in the future; set this machine's clock" in line

    def test_hosts_that_share_may_differ_a_little(self, patient: Patient) -> None:
        patient.put(VAULT, patient.tokens(3, age_s=-50))
        assert patient.lines("clock", code=0)[0].startswith("ok ")

    def test_a_clock_that_was_never_set(self, patient: Patient) -> None:
        [finding] = judge_clock([("work", patient.tokens(3))], FIRST_AT - 1)
        assert str(finding) == "FAIL  clock        this machine's clock is before 2025; set it"
