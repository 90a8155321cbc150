"""Tokens printed by a program (gcloud, az, kubectl plugins, a script)."""

import asyncio
import os
import signal
from contextlib import suppress
from typing import Final

from bearerd.core.accounts import CommandSource
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.outputs import parse_output
from bearerd.core.tokens import Granted, TokenSet
from bearerd.ports import Clock

OUTPUT_LIMIT: Final = 1 << 20


class CommandTokenSource:
    """Runs the program without a shell, in a process group of its own, at most `timeout_s`.

    It gets no input, none of our own variables, and its error output is dropped: it may hold anything.
    """

    def __init__(self, source: CommandSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock

    async def obtain(self, current: TokenSet | None) -> Granted | Failure:
        del current
        try:
            transport, run = await asyncio.get_running_loop().subprocess_exec(
                _Run,
                *self._source.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if not name.startswith("BEARERD_")},
            )
        except OSError as exc:
            return _failure(f"cannot be started: {os.strerror(exc.errno or 0)}")
        try:
            async with asyncio.timeout(self._source.timeout_s):
                await run.finished
            return self._result(bytes(run.output), transport.get_returncode())
        except TimeoutError:
            return _failure(f"did not finish within {self._source.timeout_s:g} s")
        finally:
            await _end(transport, run)

    def changed(self) -> bool:
        return False

    async def aclose(self) -> None:
        """Nothing is kept between runs."""

    def _result(self, output: bytes, status: int | None) -> Granted | Failure:
        if len(output) > OUTPUT_LIMIT:
            return _failure("printed more than 1 MiB")
        if status != 0:
            return _failure(f"ended with status {status}; run it by hand to see why")
        return parse_output(output, self._clock.wall(), origin="the command's output")


class _Run(asyncio.SubprocessProtocol):
    """One run. `finished` once the program has ended and its output too, or once that is too long.

    Not an `asyncio.subprocess.Process`: its `wait` waits for the pipe as well, which a process that
    left the group may hold for ever.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.output = bytearray()
        self.finished: asyncio.Future[None] = loop.create_future()
        self.exited: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        del fd
        self.output += data
        if len(self.output) > OUTPUT_LIMIT:
            _settle(self.finished)

    def process_exited(self) -> None:
        _settle(self.exited)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        _settle(self.finished)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _failure(problem: str) -> Failure:
    return Failure(FailureKind.TRANSIENT, f"the command {problem}")


async def _end(transport: asyncio.SubprocessTransport, run: _Run) -> None:
    """Kill what is left of the group, grandchildren too, reap, and let go of the pipe."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(transport.get_pid(), signal.SIGKILL)
    try:
        await run.exited
    finally:
        transport.close()
