"""Being somebody else for a while."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534

looks_into_daemon = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root looks into a daemon's /proc"
)


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Root may read everything, so for a while this process is another user."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder like /tmp, which pytest's own is not: others may not enter that."""
    path = Path(tempfile.mkdtemp(prefix="bearerd-shared-"))
    path.chmod(0o1777)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def needs_root() -> None:
    """Said aloud: a test that passes by not being run would say that others are kept out."""
    assert os.geteuid() == 0, "only root can become another user: run this test as root, as CI does"


def as_user(user: int, *words: str | Path, said: str = "") -> "subprocess.CompletedProcess[str]":
    """What becomes of a command that another user runs, in an environment of its own."""
    needs_root()
    return subprocess.run(
        words,
        user=user,
        group=user,
        extra_groups=[],
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        input=said,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def python_as(user: int, program: str, *words: str | Path) -> str:
    """What another user's program says. It is the system's Python: ours may be where only we can read."""
    ended = as_user(user, "/usr/bin/python3", "-S", "-c", program, *words)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
