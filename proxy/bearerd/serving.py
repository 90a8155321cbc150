"""A daemon as a process: its limits, and the signals that end it."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from bearerd.control.rendezvous import Origin
from bearerd.core.configuration import Configuration
from bearerd.daemon import Daemon


async def serve(
    configuration: Configuration, ready: Callable[[Daemon], None], origin: Origin | None = None
) -> None:
    """Run until SIGINT or SIGTERM; a second one ends at once. `ready` is called when the port answers.

    `origin` is where the configuration is from.
    """
    raise_descriptor_limit()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: Ctrl-C arrives as KeyboardInterrupt
            loop.add_signal_handler(number, stopping.set)
    daemon = Daemon(configuration, origin=origin or Origin())
    await daemon.start()
    try:
        await _first_of(daemon.started(), stopping.wait())
        ready(daemon)
        await stopping.wait()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
    finally:
        await daemon.stop()


async def _first_of(*steps: Coroutine[Any, Any, object]) -> None:
    """Until one of them has ended; the others are cancelled. Raises what it raised."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    for task in done:
        task.result()


def raise_descriptor_limit() -> None:
    """Two descriptors go with each call; the soft limit is often 1,024, and the hard one is there to be used."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415  # there is none for Windows

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
