"""What the user's session starts bearerd with, where it is told to: systemd on Linux, launchd on macOS."""

import os
import plistlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bearerd.doctor.findings import Finding, Level
from bearerd.places import default_path

_AGAIN = "bearerd service install"


def examine_service(environ: Mapping[str, str], file: str | None) -> Iterator[Finding]:
    """Of its unit, if there is one. `file` is the configuration that is examined, resolved."""
    path = find_unit(environ)
    if not path.is_file():
        return
    try:
        words = parse_plist(path.read_bytes()) if path.suffix == ".plist" else parse_unit(path.read_text())
    except (OSError, ValueError):
        words = []
    yield judge_service(path, words, file)


def find_unit(environ: Mapping[str, str]) -> Path:
    """Where it is, if there is one."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "LaunchAgents" / "bearerd.plist"
    base = Path(environ.get("XDG_CONFIG_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".config") / "systemd" / "user" / "bearerd.service"


def parse_unit(text: str) -> list[str]:
    """The command of a unit of systemd's (systemd.service(5)). Raises ValueError."""
    commands = re.findall(r"(?m)^ExecStart=[-@:+!|]*(.+)$", text)
    words = shlex.split(commands[-1]) if commands else []
    return [word.replace("%%", "%").replace("$$", "$") for word in words]


def parse_plist(content: bytes) -> list[str]:
    """The command of an agent of launchd's. Raises ValueError."""
    with suppress(plistlib.InvalidFileException, AttributeError):
        return [str(word) for word in plistlib.loads(content).get("ProgramArguments", [])]
    raise ValueError("is no property list")


def judge_service(path: Path, words: Sequence[str], file: str | None) -> Finding:
    """`words` are its command; none where that cannot be read."""
    if not words:
        return Finding(Level.WARN, "service", f"{path} has no command that can be read", _AGAIN)
    if shutil.which(words[0]) is None:
        return Finding(Level.WARN, "service", f"{path} starts {words[0]}, which is not there", _AGAIN)
    started = os.path.realpath(_named(words) or default_path())
    if started != file:
        text = f"{path} starts bearerd with {started}, which is not what was examined"
        return Finding(Level.NOTE, "service", text, f"bearerd doctor -c {shlex.quote(started)}")
    return Finding(Level.OK, "service", f"{path} starts bearerd with this file")


def _named(words: Sequence[str]) -> str | None:
    """The file that a command names with -c."""
    for number, word in enumerate(words):
        if word in {"-c", "--config"}:
            return next(iter(words[number + 1 :]), None)
    return None
