"""Logs: dotted event names, console or JSON on stderr, nothing secret in any of them."""

import atexit
import logging
import os
import re
import sys
import time
from contextlib import suppress
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from bearerd.core.configuration import Logging
from bearerd.core.lines import build_line
from bearerd.core.redaction import redact_text, redact_value
from bearerd.outlet import Outlet
from bearerd.privacy import frames
from bearerd.repeats import Repeats

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,  # for commands, which say by themselves what went wrong
}

_PLACE: Final = re.compile(r"\bat (/[^\s<>()]+:[0-9]+)")


_outlet: Outlet | None = None
_repeats: Final = Repeats(time.monotonic)


def write_aside() -> None:
    """From now on, and once for the process, what goes to stderr is written by a thread. Before `configure`."""
    global _outlet  # noqa: PLW0603  # there is one standard error
    if _outlet is None:
        _outlet = Outlet(sys.stderr.fileno(), _tell_of_loss)
        atexit.register(_outlet.close)
        atexit.register(_repeats.flush)  # which comes first


def lost_lines() -> int:
    """How many lines there has been no room for, since the start of the process."""
    return 0 if _outlet is None else _outlet.lost


def flush() -> None:
    """Write what is waiting, for an end of the process that is not Python's own."""
    _repeats.flush()
    if _outlet is not None:
        _outlet.close()


def _tell_of_loss(lines: int) -> None:
    structlog.get_logger("bearerd.logs").warning("log.dropped", lines=lines)


class _Logger(structlog.make_filtering_bound_logger(logging.DEBUG)):  # type: ignore[misc]  # it is made, not written
    """The class of all loggers. Its methods are those of the level in force, so what is not logged costs nothing."""


_processors: Final[list[Processor]] = []  # of all loggers


def configure(settings: Logging, stream: TextIO | None = None) -> None:
    """Set up logging for the process, or change it: loggers that are there already follow. `stream` is stderr unless named."""
    output = _outlet if _outlet is not None and stream is None else _Patient(stream or sys.stderr)
    stream = stream or sys.stderr
    console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    _repeats.forget()
    _processors[:] = [
        _repeats,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([redact, escape, _renderer(stream)] if console else [render]),
    ]
    for name, method in vars(structlog.make_filtering_bound_logger(LEVELS[settings.level])).items():
        if callable(method):
            setattr(_Logger, name, method)
    structlog.configure(
        processors=_processors,
        wrapper_class=_Logger,
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, output)),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Bridge()], force=True)
    logging.captureWarnings(capture=True)
    # Its records carry the request that could not be parsed, credentials and all.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL + 1)


def render(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """A structlog processor: the event as a line of JSON, with nothing secret in any value."""
    del logger, method
    return build_line(_with_trace(event))


def redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """A structlog processor that masks secrets in every value."""
    del logger, method
    return {key: redact_value(key, value) for key, value in _with_trace(event).items()}


def _with_trace(event: EventDict) -> EventDict:
    """With the places of an exception in its stead: a renderer would show its text, and might show what is near it."""
    if "exc_info" in event:
        failure = _exception(event.pop("exc_info"))
        if failure is not None:
            event["trace"] = frames(failure)
    return event


def _exception(given: object) -> BaseException | None:
    """What ``exc_info`` stands for, in any of its forms."""
    match given:
        case BaseException():
            return given
        case (_, BaseException() as inner, _):
            return inner
        case True:
            return sys.exception()
        case _:
            return None


def escape(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """A structlog processor: what came from outside must not move the cursor or add lines."""
    del logger, method
    return {key: _printable(value) if isinstance(value, str) else value for key, value in event.items()}


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _renderer(stream: TextIO) -> Processor:
    return structlog.dev.ConsoleRenderer(colors=stream.isatty() and not os.environ.get("NO_COLOR"))


class _Patient:
    """A stream that may fail: a full disk or a reader that has gone must not stop what is being logged."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


class _Bridge(logging.Handler):
    """What libraries log through the standard library, as events of ours; no traceback texts."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger("bearerd.library").log(_level(record.levelno), **event_of(record))


def event_of(record: logging.LogRecord) -> dict[str, Any]:
    """The event that a library's record becomes."""
    message = _message(record)
    fields: dict[str, Any] = {"event": "library.message", "logger": record.name}
    if record.exc_info and record.exc_info[1]:
        fields["trace"] = frames(record.exc_info[1])
    return fields | {
        "message": redact_text(_without_values(message) if record.name == "asyncio" else message)
    }


def _without_values(message: str) -> str:
    """Tasks, callbacks and futures are shown by asyncio with their results and arguments, which may be secrets.

    What is left is what it says of them, and where in the code they are.
    """
    first = message.partition("\n")[0]
    before, bracket, shown = first.partition("<")
    if not bracket:
        return first
    places = dict.fromkeys(_PLACE.findall(message))
    return f"{before}{', '.join(places) or '...'}{shown.rpartition('>')[2]}"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  # the library's own mistake, in arguments that do not fit its text
        return str(record.msg)


def _level(number: int) -> int:
    """The standard level at or below `number`: libraries invent their own."""
    return max(logging.DEBUG, min(logging.CRITICAL, number // 10 * 10))
