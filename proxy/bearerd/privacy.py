"""What a process that holds secrets leaves to others: to who looks where it went wrong, and to what it starts.

No core is dumped, and an exception that nobody expected is shown by where it came from. Its text, and any value near it,
may be a secret or have one in it.
"""

import os
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

FRAMES: Final = 8
_PR_SET_DUMPABLE: Final = 4
_PREFIX: Final = "BEARERD_"
# The last part of a variable's name whose setting is a secret, or seldom goes without one in it.
_SECRET: Final = (
    *("CLIENT_SECRET", "KEY_SECRET", "REFRESH_TOKEN", "TOKEN"),
    *("COMMAND", "HEADERS", "ON_LOGIN_NEEDED", "PROXY"),
)


def keep_private() -> int | None:
    """From now on this process keeps its memory to itself, and shows no exception's text.

    The result is for `allow_cores`.
    """
    sys.excepthook = _tell
    sys.unraisablehook = _tell_unraisable
    threading.excepthook = _tell_thread
    return _forbid_cores()


def keep_standard_streams() -> None:
    """Where whoever started this process has closed one of them, its number leads nowhere from now on.

    A connection would get that number otherwise, and what is written to standard error would go to whoever is at its end.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115, PTH123  # it stays


def allow_cores(limit: int | None) -> None:
    """The limit on cores as `keep_private` found it, for a program that this process becomes."""
    if limit is not None and sys.platform != "win32":
        import resource  # noqa: PLC0415  # there is none for Windows

        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (limit, hard))


def _forbid_cores() -> int | None:
    """Linux heeds the limit where a core would be a file, not where it goes to a program; hence the flag beside it.

    With the flag, other processes of this user cannot read this one's memory, environment or descriptors either. It ends
    where another program is executed; the limit goes on.
    """
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415  # there is none for Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if sys.platform == "linux":
        with suppress(ImportError, OSError, AttributeError):  # a C library that cannot be called
            import ctypes  # noqa: PLC0415  # wanted nowhere else

            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return soft


def without_own(environ: Mapping[str, str]) -> dict[str, str]:
    """What a program of somebody else's gets: no variable of bearerd's, in either case."""
    return {name: text for name, text in environ.items() if not name.upper().startswith(_PREFIX)}


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """What a program gets that may be bearerd again: no variable of bearerd's with a secret in it."""
    return {name: text for name, text in environ.items() if not _is_secret(name.upper())}


def _is_secret(name: str) -> bool:
    return name.startswith(_PREFIX) and name.rpartition("__")[2] in _SECRET


def frames(exc: BaseException) -> list[str]:
    """Where `exc` came from, without its text and without any value: both may hold secrets."""
    return _frames(type(exc), exc.__traceback__)


def _frames(kind: type[BaseException], trace: TracebackType | None) -> list[str]:
    steps = traceback.extract_tb(trace)
    return [kind.__qualname__] + [f"{step.filename}:{step.lineno} {step.name}" for step in steps[-FRAMES:]]


def _tell(kind: type[BaseException], exc: BaseException | None, trace: TracebackType | None) -> None:
    del exc
    name, *places = _frames(kind, trace)
    lines = [f"bearerd: internal error: {name}; it is a defect, and safe to report as it stands here:"]
    with suppress(OSError, ValueError):
        sys.stderr.write("\n".join(lines + [f"  {place}" for place in places]) + "\n")


def _tell_unraisable(unraisable: Any) -> None:
    _tell(unraisable.exc_type, None, unraisable.exc_traceback)


def _tell_thread(args: threading.ExceptHookArgs) -> None:
    _tell(args.exc_type, None, args.exc_traceback)
