"""A vault folder as it is found: looked at, and neither made nor mended as every other use of it would."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from bearerd.core.vault import SIZE_LIMIT
from bearerd.way import Weakness, find_weakness, own_home

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
SEALED: Final = (".vault", ".next")


class Kind(StrEnum):
    """What stands under a name."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    OTHER = "special file"
    UNKNOWN = "unknown"


_KINDS: Final = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.FOLDER, stat.S_IFLNK: Kind.LINK}


@dataclass(frozen=True, slots=True)
class Seen:
    """One name. `data` is what a file holds, where it was read; `problem` says why it, or a folder, was not."""

    name: str
    kind: Kind
    mode: int
    owner: int
    links: int
    data: bytes | None = field(default=None, repr=False)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Sight:
    """A folder, None where there is none, what is in it, by name, and what is wrong with the way to it."""

    path: Path
    folder: Seen | None
    files: dict[str, Seen]
    weakness: Weakness | None = None


def look(path: Path) -> Sight:
    """The folder, and what its sealed files hold."""
    folder, weakness = look_at(path, read=False), _weakness(path)
    if folder is None or folder.kind is not Kind.FOLDER:
        return Sight(path, folder, {}, weakness)
    try:
        names = sorted(os.listdir(path))  # noqa: PTH208  # names are all that is wanted
    except OSError as exc:
        return Sight(path, _unreadable(folder, exc), {}, weakness)
    return Sight(path, folder, {seen.name: seen for seen in _files(path, names)}, weakness)


def _weakness(path: Path) -> Weakness | None:
    with suppress(OSError):  # what cannot be looked at is told of by who looks at the folder
        return find_weakness(path.parent, own_home())
    return None


def _files(path: Path, names: list[str]) -> Iterator[Seen]:
    for name in names:
        seen = look_at(path / name, read=name.endswith(SEALED))
        if seen is not None:  # it may have been a save that has ended meanwhile
            yield seen


def look_at(path: Path, *, read: bool) -> Seen | None:
    """One file, and what it holds if `read`. None where there is none."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        return _unreadable(Seen(path.name, Kind.UNKNOWN, 0, os.geteuid(), 1), exc)
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), Kind.OTHER)
    seen = Seen(path.name, kind, stat.S_IMODE(found.st_mode), found.st_uid, found.st_nlink)
    if not read or kind is not Kind.FILE:
        return seen
    try:
        return _with(seen, data=_content(path))
    except FileNotFoundError:
        return None
    except OSError as exc:
        return _unreadable(seen, exc)


def _content(path: Path) -> bytes:
    file = os.open(path, _OPEN)
    try:
        return os.read(file, SIZE_LIMIT)
    finally:
        os.close(file)


def _unreadable(seen: Seen, exc: OSError) -> Seen:
    return _with(seen, problem=os.strerror(exc.errno or errno.EIO))


def _with(seen: Seen, *, data: bytes | None = None, problem: str = "") -> Seen:
    return Seen(seen.name, seen.kind, seen.mode, seen.owner, seen.links, data, problem)
