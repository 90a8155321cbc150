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
            process = await asyncio.create_subprocess_exec(
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
                return await self._result(process)
        except TimeoutError:
            return _failure(f"did not finish within {self._source.timeout_s:g} s")
        finally:
            await _end(process)

    def changed(self) -> bool:
        return False

    async def aclose(self) -> None:
        """Nothing is kept between runs."""

    async def _result(self, process: asyncio.subprocess.Process) -> Granted | Failure:
        assert process.stdout is not None  # noqa: S101  # it was asked for above
        output = bytearray()
        while chunk := await process.stdout.read(65536):
            output += chunk
            if len(output) > OUTPUT_LIMIT:
                return _failure("printed more than 1 MiB")
        status = await process.wait()
        if status != 0:
            return _failure(f"ended with status {status}; run it by hand to see why")
        return parse_output(bytes(output), self._clock.wall(), origin="the command's output")


def _failure(problem: str) -> Failure:
    return Failure(FailureKind.TRANSIENT, f"the command {problem}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of the group, grandchildren too, and reap."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
