"""A Unix socket with a name in the file system: where it may be, and whose old one is taken away for it."""

import errno
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from bearerd.errors import CannotListen
from bearerd.way import find_weakness, own_home

PATH_LIMIT: Final = 107 if sys.platform == "linux" else 103
"""Bytes of a path that a socket's address has room for."""
_TURN_S: Final = 3.0
_PAUSE_S: Final = 0.05
_ANSWER_S: Final = 1.0


class LocalSocket:
    """Listens at `path`, whose mode is `mode` from then on and 0600 until then."""

    def __init__(self, path: Path, mode: int) -> None:
        self._path = path
        self._mode = mode
        self._made: tuple[int, int] | None = None

    def open(self) -> socket.socket:
        """The socket of a process that has died there is taken away; nothing else ever is. Raises CannotListen.

        Of several processes that begin at once one comes after the other, or each might take the other's for a dead one.
        """
        folder = self._path.parent
        try:
            if weakness := find_weakness(folder, own_home()):
                raise self._unusable(
                    f"could be exchanged for another socket: {weakness.found}", weakness.cure
                )
            with self._turn(folder):
                self._clear()
                return self._bind()
        except OSError as exc:
            cure = f"make the folder {folder}" if exc.errno == errno.ENOENT else "mend that"
            raise self._unusable(f"cannot be made: {os.strerror(exc.errno or 0).lower()}", cure) from None

    def close(self) -> None:
        """Take the name away, unless it is another's by now."""
        with suppress(OSError):
            if _identity(self._path.lstat()) == self._made:
                self._path.unlink()

    @contextmanager
    def _turn(self, folder: Path) -> Iterator[None]:
        import fcntl  # noqa: PLC0415  # there is none for Windows

        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            deadline = time.monotonic() + _TURN_S
            while True:
                try:
                    fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    self._wait(deadline)
            yield
        finally:
            os.close(place)

    def _wait(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise self._unusable(f"cannot be made: another process has locked {self._path.parent}", "end it")
        time.sleep(_PAUSE_S)

    def _clear(self) -> None:
        """See that nothing is there. Raises CannotListen, OSError."""
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise self._unusable("is there already and is no socket", "move it away")
        if found.st_uid != os.geteuid():
            raise self._unusable(f"belongs to another user (uid {found.st_uid})", "have it removed")
        if answers(self._path):
            raise self._unusable("is in use by another program", "stop that")
        self._path.unlink()

    def _bind(self) -> socket.socket:
        """Nobody but this user may ever write to it before its mode says so."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            umask = os.umask(0o177)
            try:
                sock.bind(str(self._path))
            finally:
                os.umask(umask)
            self._made = _identity(self._path.lstat())
            sock.listen()
            self._path.chmod(self._mode)
            sock.setblocking(False)
        except OSError:
            sock.close()
            self.close()
            raise
        return sock

    def _unusable(self, why: str, cure: str) -> CannotListen:
        return CannotListen(f"{self._path} {why}; {cure}, or name another path", 0)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def answers(path: Path) -> bool:
    """False only where it is certain that no process listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_ANSWER_S)
        try:
            sock.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True
