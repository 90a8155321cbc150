"""Logs: dotted event names, console or JSON on stderr, nothing secret in any of them."""

import logging
import os
import sys
import traceback
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from bearerd.core.configuration import Logging
from bearerd.core.redaction import redact_text, redact_value

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_FIRST: Final = ("timestamp", "level", "event")


def configure(settings: Logging, stream: TextIO | None = None) -> None:
    """Set up logging for the process, once. `stream` is stderr unless named."""
    stream = stream or sys.stderr
    console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            _renderer(stream) if console else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.level]),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Bridge()], force=True)
    logging.captureWarnings(capture=True)
    # Its records carry the request that could not be parsed, credentials and all.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL + 1)


def redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """A structlog processor that masks secrets in every value, and puts first what people look for first."""
    del logger, method
    order = {key: event[key] for key in _FIRST if key in event} | event
    return {key: redact_value(key, value) for key, value in order.items()}


def frames(exc: BaseException) -> list[str]:
    """Where `exc` came from, without its text and without any value: both may hold secrets."""
    steps = traceback.extract_tb(exc.__traceback__)
    return [type(exc).__qualname__] + [f"{step.filename}:{step.lineno} {step.name}" for step in steps[-8:]]


def _renderer(stream: TextIO) -> Processor:
    return structlog.dev.ConsoleRenderer(colors=stream.isatty() and not os.environ.get("NO_COLOR"))


class _Bridge(logging.Handler):
    """What libraries log through the standard library, as events of ours; no traceback texts."""

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"logger": record.name, "message": redact_text(record.getMessage())}
        if record.exc_info and record.exc_info[1]:
            fields["exception"] = frames(record.exc_info[1])
        structlog.get_logger("bearerd.library").log(record.levelno, "library.message", **fields)
