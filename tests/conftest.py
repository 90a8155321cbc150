"""What is not in a folder of its own kind runs on the event loop that daemons run on."""

import asyncio
import signal
from collections.abc import Callable, Mapping

from bearerd.loop import new_event_loop
from canaries import pytest_runtest_makereport, pytest_runtest_setup

__all__ = ["pytest_runtest_makereport", "pytest_runtest_setup"]  # no secret comes out of any test

# What a shell starts in the background has SIGINT ignored, and so would have all that it starts in turn; Ctrl-C is tried here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop; asyncio's own where there is no other."""
    return {"daemon": new_event_loop}


def pytest_report_header() -> str:
    """Which of them it is."""
    loop = new_event_loop()
    loop.close()
    return f"event loop: {type(loop).__module__}"
