"""Where a user's running daemons are found, and which configuration each of them serves.

The one rule for both sides. `bearerd token` imports this, so it needs little more than the standard library.
"""

import hashlib
import os
import socket
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bearerd.peers import CREDENTIALS, own_users, user_of
from bearerd.places import find_file

ENDING: Final = ".sock"
GREETING: Final = b'{"bearerd": 1}\n'
"""What a daemon says first: a process that is stopped, or is something else, does not."""
OVERRIDES: Final = ("BEARERD_ACCOUNTS__", "BEARERD_STORE__", "BEARERD_UPSTREAM")


_ELSEWHERE: Final = "let XDG_RUNTIME_DIR or TMPDIR name a folder of your own"


class Unusable(Exception):  # noqa: N818  # a reason, given on as part of a line
    """The runtime folder cannot be trusted or used. The text says which folder and why."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a process is configured by: the file, resolved, and a hash of the variables that override accounts.

    `named` is the file as it was named, through whatever links: they may lead elsewhere by now, as in a volume of Kubernetes.
    """

    file: str | None = None
    overrides: str = ""
    named: str | None = field(default=None, compare=False)

    def answers(self, asked: "Origin") -> bool:
        """Whether a daemon of this origin has the accounts that a client of origin `asked` means.

        A client that overrides nothing means the file's accounts as the daemon has them.
        """
        if self == asked or (asked.file is not None and asked == Origin(self.file)):
            return True
        return (
            asked.named is not None and asked.named == self.named and asked.overrides in {"", self.overrides}
        )


@dataclass(frozen=True, slots=True)
class VaultEntry:
    """Which credential at rest is meant: the vault's folder, resolved, and the name of its files there without ending.

    It is the lock's identity too: who shares it takes turns, whatever the configuration each was started with.
    """

    folder: str
    stem: str


def find_origin(path: Path | None, environ: Mapping[str, str]) -> Origin:
    """The origin of a process that was given `path`, or no path, on its command line."""
    file = find_file(path, environ)
    overrides = _digest(environ)
    if file is None:
        return Origin(None, overrides)
    named = os.path.abspath(file)  # noqa: PTH100  # pathlib's would follow links
    return Origin(os.path.realpath(file), overrides, named)


def _digest(environ: Mapping[str, str]) -> str:
    by_name = {name.upper(): value for name, value in environ.items()}
    overriding = sorted((name, value) for name, value in by_name.items() if name.startswith(OVERRIDES))
    if not overriding:
        return ""
    return hashlib.sha256(repr(overriding).encode("utf-8", "surrogateescape")).hexdigest()


def runtime_folder(environ: Mapping[str, str]) -> Path:
    """The folder of this user's sockets: in the session's runtime folder if that is ours, else in the temporary one.

    The session's may be another user's, as under sudo.
    """
    uid = os.geteuid()
    session = Path(environ.get("XDG_RUNTIME_DIR", ""))
    with suppress(OSError):
        if session.is_absolute() and session.stat().st_uid == uid:
            return session / "bearerd"
    temporary = Path(environ.get("TMPDIR", ""))
    base = temporary if temporary.is_absolute() else Path("/tmp")  # noqa: S108  # what is in it is checked
    return base / f"bearerd-{uid}"


@contextmanager
def opened(folder: Path, *, create: bool = False) -> Iterator[int]:
    """A descriptor of `folder`: no link, ours, and closed to others. Raises Unusable, FileNotFoundError."""
    try:
        if create:
            _make(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as exc:
        reason = "is a link" if folder.is_symlink() else os.strerror(exc.errno or 0).lower()
        raise Unusable(f"{folder} cannot be used: {reason}; mend that, or {_ELSEWHERE}") from None
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise Unusable(f"{folder} belongs to another user; {_ELSEWHERE}")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise Unusable(f"{folder} is open to other users; remove it")
        yield descriptor
    finally:
        os.close(descriptor)


def _make(folder: Path) -> None:
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        folder.chmod(0o700)  # the umask may have taken even our own access away


def may_talk(peer: socket.socket) -> bool:
    """Whether the process at the other end of a Unix socket is ours, or root's."""
    return user_of(peer) in own_users()


def has_sockets() -> bool:
    """Whether this system has sockets that tell who is at the other end."""
    return sys.platform in CREDENTIALS
