"""`bearerd service`: have the user's own session start bearerd, and keep it running."""

import os
import plistlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import click

from bearerd.cli import config_option
from bearerd.errors import BearerdError, NotConfigured
from bearerd.shipped import find_shipped

UNIT: Final = "bearerd.service"
LABEL: Final = "bearerd"
MARK: Final = "Written by: bearerd service install"
STOP_S: Final = 20  # to drain, which takes 8 s by default
COMMAND_S: Final = 120.0


class Manager(Protocol):
    """Who starts programs of a session. `path` is the file that tells it of ours; commands are its own program's."""

    path: Path

    def build(self, argv: Sequence[str]) -> bytes:
        """The file by which `argv` is started. Raises BearerdError for what cannot be written there."""

    def prepare(self) -> Sequence[Sequence[str]]:
        """What has to be done before `begin` where an older file is in force, and fails where none is."""

    def begin(self) -> Sequence[Sequence[str]]: ...

    def end(self) -> Sequence[Sequence[str]]:
        """Before the file is removed."""

    def forget(self) -> Sequence[Sequence[str]]:
        """Afterwards."""

    def ask(self) -> Sequence[str]: ...


class Systemd:
    """The user's systemd, on Linux."""

    def __init__(self) -> None:
        base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
        folder = base if base.is_absolute() else Path.home() / ".config"
        self.path = folder / "systemd" / "user" / UNIT

    def build(self, argv: Sequence[str]) -> bytes:
        text = (find_shipped("units") / UNIT).read_text(encoding="utf-8")
        text = text[text.index("[Unit]") :]
        reload = ["reload" if word == "run" else word for word in argv]
        for key, words in (("ExecStart", argv), ("ExecReload", reload)):
            line = f"{key}={' '.join(map(quote, words))}".replace("\\", r"\\")  # as `re.sub` reads it
            text = re.sub(f"(?m)^{key}=.*$", line, text)
        return f"# {MARK}\n\n{text}".encode()

    def prepare(self) -> Sequence[Sequence[str]]:
        return ()

    def begin(self) -> Sequence[Sequence[str]]:
        own = ("systemctl", "--user")
        return (*own, "daemon-reload"), (*own, "enable", UNIT), (*own, "restart", UNIT)

    def end(self) -> Sequence[Sequence[str]]:
        return (("systemctl", "--user", "disable", "--now", UNIT),)

    def forget(self) -> Sequence[Sequence[str]]:
        return (("systemctl", "--user", "daemon-reload"),)

    def ask(self) -> Sequence[str]:
        return "systemctl", "--user", "--no-pager", "status", UNIT


class Launchd:
    """The agents of a session of macOS."""

    def __init__(self) -> None:
        self.path = Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
        self._session = f"gui/{os.getuid()}"

    def build(self, argv: Sequence[str]) -> bytes:
        text = plistlib.dumps(
            {
                "Label": LABEL,
                "ProgramArguments": list(argv),
                "RunAtLoad": True,
                "KeepAlive": {"SuccessfulExit": False},
                "ProcessType": "Interactive",
                "ExitTimeOut": STOP_S,
                "Umask": 0o077,
                "StandardErrorPath": str(Path.home() / "Library" / "Logs" / f"{LABEL}.log"),
            }
        )
        return text.replace(b"<plist ", f"<!-- {MARK} -->\n<plist ".encode(), 1)

    def prepare(self) -> Sequence[Sequence[str]]:
        return self.end()

    def begin(self) -> Sequence[Sequence[str]]:
        return (("launchctl", "bootstrap", self._session, str(self.path)),)

    def end(self) -> Sequence[Sequence[str]]:
        return (("launchctl", "bootout", f"{self._session}/{LABEL}"),)

    def forget(self) -> Sequence[Sequence[str]]:
        return ()

    def ask(self) -> Sequence[str]:
        return "launchctl", "print", f"{self._session}/{LABEL}"


def quote(word: str) -> str:
    """A word of ExecStart= (systemd.service(5), systemd.syntax(7)). Raises BearerdError."""
    if not word.isprintable():
        raise BearerdError(f"{word!r} has characters that a unit cannot have; move it to another path")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if re.fullmatch(r"[\w/.:=+@,-]+", word) else f'"{escaped}"'


def find_manager() -> Manager:
    """Raises BearerdError where there is none that we know."""
    if sys.platform == "darwin":
        return Launchd()
    if sys.platform == "linux":
        return Systemd()
    raise BearerdError(
        "services are for Linux with systemd and for macOS; on Windows make a task that runs at log-on: "
        'schtasks /Create /SC ONLOGON /TN bearerd /TR "bearerd run"'
    )


@click.group("service")
def command() -> None:
    """Have your session start bearerd and keep it running.

    By systemd on Linux, by launchd on macOS.
    """


@command.command("install")
@config_option
@click.option("--print", "shows", is_flag=True, help="Show the file that would be written, and do nothing.")
def install(path: Path | None, *, shows: bool) -> None:
    """Write the file of the service, and start it.

    It is for this installation and this configuration. What another has written there is left alone.

    Example: bearerd service install -c ~/work.toml
    """
    manager = find_manager()
    text = manager.build(build_argv(path))
    if shows:
        click.echo(text.decode(), nl=False)
        return
    write(manager.path, text)
    click.echo(f"wrote {manager.path}", err=True)
    _try(manager.prepare(), quiet=True)
    failed = _try(manager.begin())
    if failed:
        raise BearerdError(f"it is not started: {failed}")
    click.echo("bearerd runs, and starts with your session; see it with: bearerd service status", err=True)


@command.command("uninstall")
def uninstall() -> None:
    """End the service and remove its file.

    Logins and configuration are kept.

    Example: bearerd service uninstall
    """
    manager = find_manager()
    if not is_there(manager.path):
        click.echo("there is no such service; nothing to do", err=True)
        return
    check_own(manager.path)
    failed = _try(manager.end())
    for leftover in (manager.path, manager.path.parent / "default.target.wants" / manager.path.name):
        leftover.unlink(missing_ok=True)
    for folder in (manager.path.parent / "default.target.wants", *list(manager.path.parents)[:2]):
        with suppress(OSError):  # there are other services
            folder.rmdir()
    click.echo(f"removed {manager.path}; logins and configuration are kept", err=True)
    if failed or (failed := _try(manager.forget())):
        raise BearerdError(failed)


@command.command("status")
def status() -> None:
    """Say how the service does.

    The exit status is 0 where it runs.

    Example: bearerd service status
    """
    manager = find_manager()
    if not is_there(manager.path):
        raise BearerdError("there is no such service; make one with: bearerd service install")
    click.echo(f"the service is {manager.path}", err=True)
    words = manager.ask()
    if shutil.which(words[0]) is None:
        raise BearerdError(f"{words[0]} is not there to be asked; ask bearerd itself: bearerd status")
    output = _run(words)
    if output is None:
        raise BearerdError(f"{words[0]} did not answer; ask bearerd itself: bearerd status")
    click.echo(output.stdout, nl=False)
    click.echo(output.stderr, nl=False, err=True)
    if output.returncode:
        raise BearerdError("it does not run; start it with: bearerd service install")


def build_argv(path: Path | None) -> list[str]:
    """What starts this very bearerd with the configuration that would be read now. Raises ConfigError, NotConfigured."""
    from bearerd.places import find_file
    from bearerd.privacy import without_own
    from bearerd.settings import load

    environ = without_own(os.environ)
    for name in sorted(os.environ.keys() - environ.keys() - {"BEARERD_CONFIG"}):
        click.echo(f"bearerd: warning: the service does not have {name}; put it into the file", err=True)
    file = find_file(path, os.environ)
    if file is None:
        raise NotConfigured("there is no configuration for a service; write one with: bearerd init")
    load(file, {}, environ)
    # -P: a file in the folder where it is started is no module of ours.
    return [sys.executable, "-P", "-m", "bearerd", "run", "-c", os.path.abspath(file)]  # noqa: PTH100  # pathlib's would follow links


def is_there(path: Path) -> bool:
    return os.path.lexists(path)


def check_own(path: Path) -> None:
    """Raises BearerdError for a file that somebody else has written."""
    try:
        own = not path.is_symlink() and MARK in path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        own = False
    if not own:
        raise BearerdError(
            f"{path} was not written by bearerd service install; move it away, or see what would be in its place with: "
            "bearerd service install --print"
        )


def write(path: Path, text: bytes) -> None:
    """In place of what bearerd itself has written there, all or nothing. Raises BearerdError."""
    if is_there(path):
        check_own(path)
    following = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        following.write_bytes(text)
        following.chmod(0o644)
        following.replace(path)
    except OSError as exc:
        with suppress(OSError):
            following.unlink(missing_ok=True)
        raise BearerdError(
            f"{path} cannot be written: {os.strerror(exc.errno or 0).lower()}; mend that, or write it by hand from: "
            "bearerd service install --print"
        ) from None


def _try(commands: Sequence[Sequence[str]], *, quiet: bool = False) -> str:
    """Empty where all have succeeded, else what is left to do by hand."""
    for place, words in enumerate(commands):
        if shutil.which(words[0]) is None:
            return f"{words[0]} is not there; in your session do: {_join(commands[place:])}"
        ended = _run(words)
        if ended is None or ended.returncode:
            for line in () if quiet or ended is None else _printable(ended.stderr):
                click.echo(f"{words[0]}: {line}", err=True)
            return f"{words[0]} did not do it; in your session do: {_join(commands[place:])}"
    return ""


def _run(words: Sequence[str], limit_s: float = COMMAND_S) -> subprocess.CompletedProcess[bytes] | None:
    """None where it cannot be run, or does not end."""
    try:
        return subprocess.run(  # noqa: S603  # our own words
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _printable(output: bytes) -> Iterator[str]:
    return (line for line in output.decode(errors="replace").splitlines() if line.isprintable())


def _join(commands: Sequence[Sequence[str]]) -> str:
    import shlex

    return " && ".join(shlex.join(words) for words in commands)
