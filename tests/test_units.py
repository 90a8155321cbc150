"""The units that are there to copy: systemd itself reads them, and our own command line what they start."""

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from bearerd.cli import main

UNITS = Path(__file__).parent.parent / "config" / "systemd"
OPERATIONS = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")
SERVICES = (UNITS / "bearerd.service", UNITS / "user" / "bearerd.service")


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd-analyze is not there and the tests need it: run make test"
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)


def complaints(folder: Path, service: Path, text: str) -> str:
    """Of systemd, of the service and its socket, with a program in place of ours that is there."""
    text = re.sub(r"(?m)^(Exec\w+)=\S+", r"\1=/bin/true", text)
    (folder / service.name).write_text(text)
    shutil.copy(UNITS / "bearerd.socket", folder)
    ended = analyze("verify", "--man=no", folder / service.name, folder / "bearerd.socket")
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("service", SERVICES, ids=["system", "user"])
def test_systemd_has_nothing_against_them(tmp_path: Path, service: Path) -> None:
    text = service.read_text()
    assert complaints(tmp_path, service, text) == ""
    assert "Unknown key" in complaints(tmp_path, service, text.replace("WatchdogSec=", "WatchDog=")), (
        "it reads them"
    )


@pytest.mark.parametrize("service", SERVICES, ids=["system", "user"])
def test_our_command_line_takes_what_they_start(service: Path) -> None:
    started = re.findall(r"(?m)^Exec(?:Start|Reload)=\S*/bearerd (.*)$", service.read_text())
    assert started
    for line in started:
        name, command, rest = main.resolve_command(click.Context(main), line.split())
        assert command is not None
        command.make_context(name, rest)


def test_the_socket_is_where_clients_look() -> None:
    text = (UNITS / "bearerd.socket").read_text()
    assert re.findall(r"(?m)^ListenStream=(.*)$", text) == ["127.0.0.1:6750", "[::1]:6750"]


def test_the_exposure_is_what_is_said_of_it(tmp_path: Path) -> None:
    """By systemd's own reckoning, which is another with another systemd: never worse than the page says."""
    (tmp_path / "bearerd.service").write_text(
        SERVICES[0].read_text().replace("/usr/bin/bearerd", "/bin/true")
    )
    ended = analyze("security", "--offline=true", "--no-pager", tmp_path / "bearerd.service")
    found = re.search(r"exposure level for bearerd.service: ([0-9.]+)", ended.stdout)
    said = re.search(r"exposure level of ([0-9.]+)", OPERATIONS)
    assert found, ended.stderr
    assert said
    assert float(found[1]) <= float(said[1])


def test_the_user_s_is_read_as_a_user_s() -> None:
    """What only the system's manager can do makes a user's service fail to start."""
    lines = SERVICES[1].read_text().splitlines()
    only_root = ("DynamicUser=", "ProtectSystem=", "PrivateTmp=", "CapabilityBoundingSet=", "User=")
    assert [line for line in lines if line.startswith(only_root)] == []
