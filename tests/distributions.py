"""What is released, built and installed as people do it: by real programs, in a home folder of nobody's, without an index.

Dependencies come from `WHEELS`, which `make test` fills by the lock: nothing here asks a network.
"""

import asyncio
import os
import re
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import canaries

PROJECT: Final = Path(__file__).parent.parent
WHEELS: Final = Path(sys.prefix, "wheels")
LIMIT_S: Final = 900.0  # what a busy machine takes for all tests to be found
_PIP: Final = (sys.executable, "-m", "pip")
DEMO: Final = re.compile(rb"curl -s (http://127\.0\.0\.1:\d+/service)/hello")
DAEMON: Final = re.compile(rb"bearerd listens on (http://127\.0\.0\.1:\d+)")


@dataclass(frozen=True, slots=True)
class Built:
    """Both files of a release."""

    wheel: Path
    source: Path


class Home:
    """A home folder with nothing in it. What runs here has none of this user's settings, nor any of the tests'."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self.folder = folder
        self.runtime = runtime
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(runtime),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_CACHE_DIR": "1",
        }

    def run(self, *argv: str | Path, cwd: Path | None = None, **variables: str) -> str:
        """What a program says on standard output. Raises AssertionError with all that it said where it fails."""
        ended = subprocess.run(
            list(map(str, argv)),
            cwd=cwd or self.folder,
            env=self.environ | variables,
            stdin=DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert ended.returncode == 0, f"{argv} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}"
        canaries.note(f"what {Path(argv[0]).name} says", ended.stdout + ended.stderr)
        return ended.stdout

    def has_nothing_of(self, word: str) -> None:
        """No file or folder with `word` in its name, but for an installer's own, nor any that is used while something runs."""
        found = [path for path in self.folder.rglob("*") if word in path.name]
        assert [path for path in found if not path.name.startswith(".")] == []
        assert [path for path in self.runtime.rglob("*") if not path.is_dir()] == []


def build(home: Home, project: Path, into: Path, *shell: str, **variables: str) -> Built:
    """Both, as `make dist` builds them; `shell` is what the build is run by."""
    builder = (sys.executable, "-P", "-m", "hatchling", "build", "--directory", into)
    home.run(*shell, *builder, cwd=project, **variables)
    (wheel,) = into.glob("*.whl")
    (source,) = into.glob("*.tar.gz")
    return Built(wheel, source)


class Installation:
    """A Python environment of its own below `home`, for bearerd, with nothing in it at first."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.folder = home.folder / "environment"
        self.python = self.folder / "bin" / "python"
        self.program = self.folder / "bin" / "bearerd"
        home.run(sys.executable, "-m", "venv", "--without-pip", self.folder)

    def pip(self, *words: str | Path) -> str:
        return self.home.run(*_PIP, "--python", self.python, *words)

    def install(self, *words: str | Path) -> str:
        """With dependencies, from files alone."""
        assert WHEELS.is_dir(), f"{WHEELS} is not there and the tests need it: run make test"
        return self.pip("install", "--no-compile", "--no-index", "--find-links", WHEELS, *words)


@asynccontextmanager
async def started(home: Home, sign: re.Pattern[bytes], *argv: str | Path) -> AsyncIterator[str]:
    """A program that serves, as the first group of `sign` in what it says; it ends by SIGTERM and with status 0."""
    process = await asyncio.create_subprocess_exec(
        *map(str, argv), stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env=home.environ, cwd=home.folder
    )
    assert process.stdout is not None
    said = b""
    try:
        async with asyncio.timeout(LIMIT_S):
            while not (found := sign.search(said)):
                line = await process.stdout.readline()
                assert line, said.decode()
                said += line
        yield found[1].decode()
    finally:
        if process.returncode is None:
            process.terminate()
        rest, _ = await process.communicate()
        canaries.note("what a program that was installed says", said + rest)
    assert process.returncode == 0, (said + rest).decode()
