"""Threat 9: a process that goes wrong leaves no core, and shows no value."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, get_args

import pytest

from bearerd.core.redaction import Secret
from bearerd.privacy import allow_cores, keep_private, without_own, without_secrets
from bearerd.settings.model import SINGLE, AccountTable
from users import NOBODY

pytestmark = [
    pytest.mark.threat(9),
    pytest.mark.skipif(sys.platform == "win32", reason="there are no cores"),
]

START_S: Final = 60.0
SECRET: Final = "kept-s3cret-value"
STATIC: Final = f"""
[listen]
port = 0
[accounts.work]
token = "{SECRET}"
[accounts.slow]
command = ["sh", "-c", "echo > ready; sleep 60"]
[accounts.me]
grant = "authorization_code"
client_id = "x"
client_secret = "{SECRET}"
token_endpoint = "http://127.0.0.1:9/token"
authorization_endpoint = "http://127.0.0.1:9/authorize"
[store]
kind = "vault"
path = "vault"
key_file = "vault.key"
[routes."/"]
upstream = "http://127.0.0.1:9"
account = "work"
"""
CONTROL: Final = "import pathlib, time; pathlib.Path('ready').touch(); time.sleep(60)"
GET_DUMPABLE: Final = 3
SET_DUMPABLE: Final = 4


@contextmanager
def in_folder(folder: Path, *words: str, cores: bool = True, **variables: str) -> Iterator["Started"]:
    """A Python that has `folder` as its own, where a core would be; with `cores` the system lets it write one."""
    unlimited = ("sh", "-c", 'ulimit -c unlimited && exec "$@"', "sh") if cores else ()
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [*unlimited, sys.executable, *words],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=os.environ | {"XDG_RUNTIME_DIR": str(folder)} | variables,
            start_new_session=True,
        )
        try:
            yield Started(folder, process)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


class Started:
    def __init__(self, folder: Path, process: "subprocess.Popen[bytes]") -> None:
        self.folder = folder
        self.process = process

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text(errors="replace")

    def until(self, ready: str) -> None:
        """Until it has said `ready`, or made a file of that name."""
        deadline = time.monotonic() + START_S
        while ready not in self.said and not (self.folder / ready).exists():
            assert time.monotonic() < deadline, self.said
            assert self.process.poll() is None, self.said
            time.sleep(0.02)

    def crash(self, number: signal.Signals) -> bool:
        """Whether the system says that it dumped a core."""
        os.kill(self.process.pid, number)
        _, status = os.waitpid(self.process.pid, 0)
        self.process.returncode = -number
        assert os.WTERMSIG(status) == number
        return os.WCOREDUMP(status)


def cores_of(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if file.name.startswith("core")]


@pytest.fixture(scope="module")
def writes_cores(tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Whether this machine does: else there would be nothing to see."""
    with in_folder(tmp_path_factory.mktemp("control"), "-c", CONTROL) as started:
        started.until("ready")
        return started.crash(signal.SIGABRT)


@pytest.fixture
def folder(tmp_path: Path, writes_cores: bool) -> Path:
    """With a configuration."""
    if not writes_cores:
        pytest.skip("this machine writes no cores")
    (tmp_path / "bearerd.toml").write_text(STATIC)
    (tmp_path / "bearerd.toml").chmod(0o600)
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV])
def test_a_daemon_that_crashes_leaves_no_core(folder: Path, number: signal.Signals) -> None:
    with in_folder(folder, "-m", "bearerd", "run", "-c", "bearerd.toml") as started:
        started.until("listens on")
        assert not started.crash(number)
    assert cores_of(folder) == []


@pytest.mark.parametrize(
    ("words", "ready"),
    [
        (("token", "slow"), "ready"),
        (("login", "me", "--no-browser"), "/authorize?"),
        (("demo", "--port", "0"), "curl"),
    ],
)
def test_a_command_that_crashes_leaves_no_core(folder: Path, words: tuple[str, ...], ready: str) -> None:
    configured = () if words[0] == "demo" else ("-c", "bearerd.toml")
    with in_folder(folder, "-u", "-m", "bearerd", *words, *configured) as started:
        started.until(ready)
        assert not started.crash(signal.SIGSEGV)
    assert cores_of(folder) == []


def test_what_python_says_of_a_crash_has_no_value(folder: Path) -> None:
    with in_folder(folder, "-m", "bearerd", "run", "-c", "bearerd.toml", PYTHONFAULTHANDLER="1") as started:
        started.until("listens on")
        started.crash(signal.SIGABRT)
    assert "Fatal Python error: Aborted" in started.said
    assert SECRET not in started.said


@pytest.mark.threat(9)
@pytest.mark.skipif(sys.platform != "linux", reason="a flag of Linux's")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_nobody_else_of_this_user_looks_into_a_daemon(tmp_path: Path) -> None:
    """A core that goes to a program is written whatever its limit, unless the process is not dumpable."""
    looked = {}
    for name, step in (("open", ""), ("private", "keep_private(); ")):
        words = (
            "import ctypes, os, pathlib, resource, time; from bearerd.privacy import keep_private; "
            # A change of user takes the flag away, too; given back, it is as where a user starts a daemon.
            f"os.setuid({NOBODY}); ctypes.CDLL(None).prctl({SET_DUMPABLE}, 1); {step}{CONTROL}"
        )
        mine = tmp_path / name
        mine.mkdir()
        mine.chmod(0o777)
        with in_folder(mine, "-c", words, SECRET=SECRET) as started:
            started.until("ready")
            looked[name] = Path(f"/proc/{started.process.pid}/environ").stat().st_uid
    assert looked == {"open": NOBODY, "private": 0}


@pytest.mark.threat(9)
@pytest.mark.skipif(sys.platform != "linux", reason="a flag of Linux's")
def test_the_flag_and_the_limit_are_set_and_the_limit_can_be_given_back(tmp_path: Path) -> None:
    program = (
        "import ctypes, resource\n"
        "from bearerd.privacy import allow_cores, keep_private\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (4096, resource.getrlimit(resource.RLIMIT_CORE)[1]))\n"
        "limit = keep_private()\n"
        f"print(limit, resource.getrlimit(resource.RLIMIT_CORE)[0], ctypes.CDLL(None).prctl({GET_DUMPABLE}))\n"
        "allow_cores(limit)\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0])\n"
    )
    with in_folder(tmp_path, "-c", program) as started:
        assert started.process.wait(START_S) == 0, started.said
    assert started.said == "4096 0 0\n4096\n"


WRONG: Final = {
    "main": "raise ValueError('kept-s3cret-value')",
    "chain": (
        "try:\n    {}['kept-s3cret-value']\nexcept KeyError as exc:\n    raise RuntimeError('kept-s3cret-value') from exc"
    ),
    "thread": (
        "import threading\nthread = threading.Thread(target=int, args=('kept-s3cret-value',))\nthread.start()\nthread.join()"
    ),
    "unraisable": (
        "class Wrong:\n    def __del__(self):\n        raise ValueError('kept-s3cret-value')\nwrong = Wrong()\ndel wrong"
    ),
    "group": "raise ExceptionGroup('kept-s3cret-value', [ValueError('kept-s3cret-value')])",
}


@pytest.mark.threat(9)
@pytest.mark.parametrize("way", WRONG)
def test_an_exception_that_nobody_expected_is_shown_by_its_place(tmp_path: Path, way: str) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(f"from bearerd.privacy import keep_private\nkeep_private()\n{WRONG[way]}\n")
    with in_folder(tmp_path, str(file)) as started:
        status = started.process.wait(START_S)
    assert status == (0 if way in {"thread", "unraisable"} else 1)
    assert re.search(r"bearerd: internal error: \w+; it is a defect", started.said)
    assert SECRET not in started.said


def test_without_it_each_of_them_would_show_its_text(tmp_path: Path) -> None:
    for way, wrong in WRONG.items():
        (tmp_path / "wrong.py").write_text(f"{wrong}\n")
        with in_folder(tmp_path, "wrong.py") as started:
            started.process.wait(START_S)
        assert SECRET in started.said, way


def test_a_defect_of_a_command_shows_no_text(tmp_path: Path) -> None:
    """By way of the command line itself, which is where most would come up."""
    program = (
        "import bearerd.cli, bearerd.cli.status, click\n"
        "@click.command('status')\n"
        f"def wrong():\n    raise LookupError('{SECRET}')\n"
        "bearerd.cli.status.command = wrong\n"
        "bearerd.cli.main(['status'])\n"
    )
    with in_folder(tmp_path, "-c", program) as started:
        assert started.process.wait(START_S) == 1
    assert "bearerd: internal error: LookupError" in started.said
    assert SECRET not in started.said


@pytest.mark.threat(9)
@pytest.mark.parametrize("case", [str, str.lower])
def test_no_variable_of_a_secret_goes_to_a_program(case: Callable[[str], str]) -> None:
    """By the model: a setting that is new and secret is none that another program gets."""
    settings = [("work", key, info) for key, info in AccountTable.model_fields.items()]
    settings += [("", key, info) for table in SINGLE.values() for key, info in table.model_fields.items()]
    secret = {key for _, key, info in settings if Secret in _kinds(info.annotation)}
    assert secret == {"client_secret", "refresh_token", "token", "key_secret"}
    names = {case(f"BEARERD_SECTION__{key.upper()}"): "x" for key in secret | {"headers", "proxy", "command"}}
    kept = {case("BEARERD_CONFIG"): "x", case("BEARERD_ACCOUNTS__WORK__CLIENT_SECRET_FILE"): "x"}
    others = {"PATH": "x", "CLIENT_SECRET": "x", "HTTPS_PROXY": "x"}
    assert without_secrets(names | kept | others) == kept | others
    assert without_own(names | kept | others) == others


def _kinds(annotation: object) -> set[object]:
    return {annotation}.union(*(_kinds(inner) for inner in get_args(annotation)))


class Gone:
    """A standard error whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(text)


def test_what_cannot_be_told_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, whose limit and hooks are put back."""
    before = sys.excepthook, sys.unraisablehook, threading.excepthook
    limit = keep_private()
    ctypes.CDLL(None).prctl(SET_DUMPABLE, 1)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", Gone())
            sys.excepthook(ValueError, ValueError(SECRET), None)
    finally:
        sys.excepthook, sys.unraisablehook, threading.excepthook = before
        allow_cores(limit)
