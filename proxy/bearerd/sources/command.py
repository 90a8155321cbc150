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
from bearerd.privacy import without_own

OUTPUT_LIMIT: Final = 1 << 20
REST_S: Final = 0.25  # for what a program has printed to arrive after its end


class CommandTokenSource:
    """Runs the program without a shell, in a process group of its own, at most `timeout_s`.

    It gets no input, none of our own variables, and its error output is dropped: it may hold anything.
    """

    def __init__(self, source: CommandSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock

    async def obtain(self, current: TokenSet | None) -> Granted | Failure:
        del current
        start = asyncio.create_task(self._start())
        try:
            transport, run = await asyncio.shield(start)
        except OSError as exc:
            return _failure(f"cannot be started: {os.strerror(exc.errno or 0)}")
        except asyncio.CancelledError:
            with suppress(OSError):
                await _end(*await start)  # the loop's own way would leave what the program has started
            raise
        try:
            async with asyncio.timeout(self._source.timeout_s):
                await run.finished
        except TimeoutError:
            return _failure(f"did not finish within {self._source.timeout_s:g} s")
        else:
            return self._result(bytes(run.output), transport.get_returncode())
        finally:
            await _end(transport, run)

    async def _start(self) -> "tuple[asyncio.SubprocessTransport, _Run]":
        return await asyncio.get_running_loop().subprocess_exec(
            _Run,
            *self._source.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            env=without_own(os.environ),
        )

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

    What the program leaves behind may hold the pipe (and under uvloop does, wherever its own output goes), so
    the pipe's end is waited for only a little. That is why this is no `asyncio.subprocess.Process`: its `wait`
    waits for the pipe.
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
        asyncio.get_running_loop().call_later(REST_S, _settle, self.finished)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        _settle(self.finished)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _failure(problem: str) -> Failure:
    return Failure(FailureKind.TRANSIENT, f"the command {problem}")


async def _end(transport: asyncio.SubprocessTransport, run: _Run) -> None:
    """Kill the group of a program that has not ended, what it started too; reap; let go of the pipe.

    What a program that did end left running is meant to run, and its group's number may be another's by now.
    """
    if not run.exited.done():
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
    try:
        await run.exited
    finally:
        transport.close()
