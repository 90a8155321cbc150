"""The audit log: a file of lines that are only ever added, written beside the event loop.

Lines are gathered for a moment and written together, whole, by one write in a thread, so that no disk holds calls up. What
cannot be written is kept, up to `LIMIT`, and tried again.
"""

import asyncio
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from bearerd.core.audit import build_line
from bearerd.core.calls import Entry
from bearerd.errors import ConfigError
from bearerd.ports import Clock

GATHER_S: Final = 0.05  # what a process that is killed may lose
RETRY_S: Final = 1.0
CLOSE_S: Final = 2.0  # for a disk that does not come round
LIMIT: Final = 4 << 20  # bytes of lines that wait
_LINKS: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_OPEN: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _LINKS


class AuditFile:
    """A file of this user's alone, which is opened anew when it was renamed or removed. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where it cannot be opened, or is not to be trusted."""
        self.path = path
        self._file = _open(path)
        self._begun = 0  # bytes that are there of a line which is not there as a whole

    def append(self, lines: bytes) -> tuple[int, str | None]:
        """How many bytes of `lines`, whole lines, are in the file now, and why not all of them.

        What is not has to come first the next time.
        """
        done, reason = 0, None
        try:
            if not self._stays():
                self._turn_over()
            done = self._begun
            while done < len(lines):
                done += os.write(self._file, memoryview(lines)[done:])
        except OSError as exc:
            reason = exc.strerror or "it cannot be written to"
        whole = lines.rfind(b"\n", 0, done) + 1
        self._begun = done - whole
        return whole, reason

    def close(self) -> None:
        os.close(self._file)

    def _stays(self) -> bool:
        """Whether the file is still the one that has the name."""
        with suppress(FileNotFoundError):
            return os.path.samestat(self.path.lstat(), os.fstat(self._file))
        return False

    def _turn_over(self) -> None:
        file = _open(self.path)
        os.close(self._file)
        self._file = file
        self._begun = 0


def _open(path: Path) -> int:
    """Raises OSError, with a text that names the cure where it is ours."""
    file = os.open(path, _OPEN, 0o600)
    problem = _distrust(os.fstat(file))
    if problem is not None:
        os.close(file)
        raise OSError(0, problem)
    return file


def _distrust(found: os.stat_result) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return "is not a plain file; name another"
    if os.name == "posix" and (found.st_uid != os.geteuid() or found.st_mode & 0o022):
        return "could be written to by another user; let it belong to this one, mode 0600"
    return None


def open_file(path: str) -> AuditFile:
    """Raises ConfigError."""
    try:
        return AuditFile(Path(path))
    except OSError as exc:
        cure = "" if exc.errno == 0 else "; make its folder, let this user write there, or name another file"
        raise ConfigError(f"log.audit: {path}: {exc.strerror}{cure}") from None


class AuditLog:
    """Takes lines at any time, and writes them soon. `lost` counts those that there was no room for.

    Where it is `required`, it is `shut` as long as lines cannot be written: no call is to be made then.
    """

    def __init__(self, file: AuditFile, clock: Clock, *, required: bool = False) -> None:
        self._file = file
        self._clock = clock
        self.required = required
        self._waiting = bytearray()
        self._room = LIMIT
        self._writing: asyncio.Future[tuple[int, str | None]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failing = False
        self._log = structlog.get_logger("bearerd.audit")
        self.lost = 0

    @property
    def shut(self) -> bool:
        return self.required and (self._failing or len(self._waiting) > LIMIT)

    def write(self, entry: Entry) -> None:
        """Of a call that is over, or was refused."""
        if len(self._waiting) > self._room:
            self.lost += 1
            return
        self._waiting += build_line(entry, self._clock.wall())
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(None, self._file.append, bytes(self._waiting))
        self._writing.add_done_callback(self._written)

    def _written(self, work: "asyncio.Future[tuple[int, str | None]]") -> None:
        self._writing = None
        done, reason = work.result()
        del self._waiting[:done]
        if reason is not None and not self._failing:
            self._log.error("audit.failed", file=str(self._file.path), reason=reason, refusing=self.required)
        elif reason is None and self._failing:
            self._log.warning("audit.recovered", file=str(self._file.path), lost=self.lost)
        self._failing = reason is not None
        if self._waiting and self._room > 0:
            delay_s = RETRY_S if self._failing else GATHER_S
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._flush)

    async def aclose(self) -> None:
        """Write what there is, within `CLOSE_S`. What comes after that is lost: the file may be another by then."""
        self._room = -1
        if self._timer is not None:
            self._timer.cancel()
        await self._settle()
        if self._waiting and self._writing is None:
            self._flush()
            await self._settle()
        if self._writing is None:  # else a thread has the file, which the end of the process closes
            self._file.close()
        lost = self.lost + self._waiting.count(b"\n")
        if lost:
            self._log.error("audit.incomplete", file=str(self._file.path), lost=lost)

    async def _settle(self) -> None:
        """Until what is being written is written. Its callbacks come before our own turn."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=CLOSE_S)
            await asyncio.sleep(0)
