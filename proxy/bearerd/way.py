"""The way to a path: the folders and links that lead to it, and whether another user could make them lead elsewhere.

The rule of sshd's StrictModes: all of them belong to this user or to root, and nobody else can write to a folder, from
the user's home folder down, or else from the root. What is above the home folder is the machine's own affair. A sticky
folder may be open, as /tmp is: there nobody can rename what is not theirs.
"""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Final

_LINKS: Final = 40  # as Linux has it


@dataclass(frozen=True, slots=True)
class Weakness:
    """What another user could use, and what mends it."""

    found: str
    cure: str


def own_home() -> Path | None:
    """By the system's list of users: a variable may name another user's, as under sudo."""
    return _home_of(os.geteuid())


@cache
def _home_of(user: int) -> Path | None:
    """The list may be on another machine."""
    with suppress(KeyError):
        return Path(pwd.getpwuid(user).pw_dir).resolve()
    return None


def find_weakness(path: Path, home: Path | None) -> Weakness | None:
    """What is wrong with the way to `path`, itself included, as far as it is there. Raises OSError.

    `home` is without links.
    """
    inside = home is not None and Path(os.path.realpath(path)).is_relative_to(home)
    above = home.parents if home is not None and inside else ()
    weaknesses = (_judge(place, found) for place, found in _follow(path) if place not in above)
    return next(filter(None, weaknesses), None)


def make_folders(path: Path) -> bool:
    """Make those that are missing, for us alone: pathlib leaves all but the last to the umask. True if any were.

    Raises FileExistsError where `path` is no folder, and other OSError.
    """
    missing = list(takewhile(lambda folder: not folder.exists(), (path, *path.parents)))
    for folder in reversed(missing):
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            folder.chmod(0o700)  # the umask may have taken even our own access away
    if not path.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    return bool(missing)


def _follow(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Each name on the way and what stands there; links, and then where they lead. Ends where there is nothing."""
    here, rest, links = Path("/"), _reversed(path.absolute()), 0
    yield here, here.lstat()
    while rest:
        name = rest.pop()
        there = here.parent if name == ".." else here / name
        try:
            found = there.lstat()
        except FileNotFoundError:
            return
        yield there, found
        if not stat.S_ISLNK(found.st_mode):
            here = there
            continue
        links += 1
        if links > _LINKS:
            raise OSError(errno.ELOOP, "too many links")
        target = there.readlink()
        rest += _reversed(target)
        if target.is_absolute():
            here = Path("/")


def _reversed(path: Path) -> list[str]:
    return [name for name in reversed(path.parts) if name != path.anchor]


def _judge(place: Path, found: os.stat_result) -> Weakness | None:
    if found.st_uid not in {0, os.geteuid()}:
        return Weakness(f"{place} belongs to another user (uid {found.st_uid})", f"give {place} to this user")
    if stat.S_ISDIR(found.st_mode) and not found.st_mode & stat.S_ISVTX and _open_to_others(found):
        cure = f"chmod go-w {place}, or chmod +t {place} if it is meant for all"
        return Weakness(f"other users can write to {place}", cure)
    return None


def _open_to_others(found: os.stat_result) -> bool:
    return bool(found.st_mode & 0o002) or bool(found.st_mode & 0o020 and not _is_private(found.st_gid))


def _is_private(group: int) -> bool:
    """Whether a group is root's, or nobody but this user and root is known to be in it.

    Many systems give each user such a group and open new folders to it. A group that the system has no name for is a
    container's, whose users only its set-up knows.
    """
    try:
        entry = grp.getgrgid(group)
    except KeyError:
        return True
    own = _own_name()
    members = {*entry.gr_mem, *(user.pw_name for user in pwd.getpwall() if user.pw_gid == group)}
    return group == 0 or (members <= {own, "root"} and bool(members or entry.gr_name == own))


def _own_name() -> str:
    with suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return ""
