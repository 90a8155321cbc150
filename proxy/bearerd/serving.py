"""A daemon as a process: its limits, who started it, and the signals that end it."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import structlog

from bearerd import logs
from bearerd.activation import take_sockets
from bearerd.control.rendezvous import Origin
from bearerd.core.configuration import Configuration
from bearerd.daemon import Daemon
from bearerd.errors import StoreError
from bearerd.settings import Loaded
from bearerd.supervisor import Supervisor

_LOST: Final = (
    "tokens that had been refreshed could not be saved, and are lost with this process; the log says of which account: "
    "log in there again with: bearerd login"
)


async def serve(
    configuration: Configuration,
    ready: Callable[[Daemon], None],
    origin: Origin | None = None,
    reread: Callable[[], Loaded] | None = None,
) -> None:
    """Run until SIGINT or SIGTERM; a second one ends at once. `ready` is called when the port answers.

    `origin` is where the configuration is from; SIGHUP has `reread` read it again, if there is any. Raises StoreError where
    the vault cannot be read, or could not be written to up to the end.
    """
    raise_descriptor_limit()
    supervisor = Supervisor.take(os.environ)
    daemon = Daemon(
        configuration,
        origin=origin or Origin(),
        supervisor=supervisor,
        handed=take_sockets(os.environ),
        reread=reread,
    )
    supervisor.watch()
    with Signals() as signals:
        hangups = Hangups(signals.first)
        if not await signals.spare(daemon.start()):
            return
        try:
            if await signals.spare(daemon.started()):
                supervisor.ready()
                ready(daemon)
                hangups.tell(daemon.reload)
                await signals.first.wait()
        finally:
            hangups.ignore()
            await _end(daemon, signals)
            supervisor.close()


async def _end(daemon: Daemon, signals: "Signals") -> None:
    """In order, unless there is a second signal."""
    ending = asyncio.ensure_future(daemon.stop())
    hurry = asyncio.ensure_future(signals.second.wait())
    await asyncio.wait([ending, hurry], return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if not ending.done():
        await daemon.cut_short()
        signals.die()
    if not ending.result():
        raise StoreError(_LOST)


class Signals:
    """SIGINT and SIGTERM, while the context is open: the first is to end everything in order, the second at once.

    An interrupt that whoever started us has ignored stays ignored, as for every program that a shell puts into the
    background.
    """

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self._last = signal.SIGTERM
        self._heeded: list[signal.Signals] = []

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            if number is signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN:
                continue
            with suppress(NotImplementedError):  # Windows: Ctrl-C arrives as KeyboardInterrupt
                loop.add_signal_handler(number, self._hear, number)
                self._heeded.append(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in self._heeded:
            loop.remove_signal_handler(number)

    def _hear(self, number: signal.Signals) -> None:
        self._last = number
        (self.second if self.first.is_set() else self.first).set()
        structlog.get_logger("bearerd.daemon").info("daemon.signal", signal=number.name)

    async def spare(self, step: Coroutine[Any, Any, object]) -> bool:
        """Until `step` is done. False where a signal came first; it is given up then. Raises what it raises."""
        doing = asyncio.ensure_future(step)
        ending = asyncio.ensure_future(self.first.wait())
        await asyncio.wait([doing, ending], return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if doing.done():
            doing.result()
            return True
        doing.cancel()
        await asyncio.wait([doing])
        return False

    def die(self) -> None:
        """By the last signal, as whoever waits for this process expects it: a shell says 128 and its number."""
        logs.flush()
        signal.signal(self._last, signal.SIG_DFL)
        os.kill(os.getpid(), self._last)
        os._exit(128 + self._last)  # the first process of a container does not die by its own signal


class Hangups:
    """SIGHUP: the configuration is to be read again; but where it says that the terminal has gone, this is the end.

    One that comes while the daemon starts is not lost.
    """

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self._terminal = sys.stderr.isatty()
        self._heed: Callable[[], object] | None = None
        self._early = False
        if sys.platform != "win32":
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hear)

    def tell(self, heed: Callable[[], object]) -> None:
        """From now on each is for `heed`."""
        self._heed = heed
        if self._early:
            heed()

    def ignore(self) -> None:
        """What ends reads nothing any more, and is not killed by this."""
        self._heed = _nothing

    def _hear(self) -> None:
        if self._terminal and not sys.stderr.isatty():
            self._stopping.set()
        elif self._heed is None:
            self._early = True
        else:
            self._heed()


def _nothing() -> None:
    """Is heeded."""


def raise_descriptor_limit() -> None:
    """Two descriptors go with each call; the soft limit is often 1,024, and the hard one is there to be used."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415  # there is none for Windows

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
