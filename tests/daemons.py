"""A bearerd in a process of its own, as users run it."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Self

import canaries

READY: Final = re.compile(rb"listens on (?:http://127\.0\.0\.1:(\d+)|unix:)")
LISTENING: Final = re.compile(
    rb'"daemon\.listening".*"http://127\.0\.0\.1:(\d+)"'
)  # where all it says is JSON
STARTED: Final = b'"daemon.started"'
START_S: Final = 60.0
STOP_S: Final = 60.0


class RunningDaemon:
    """`bearerd run` with `toml` as its configuration and `listen` as the table of that name, by default on a port of the
    system's choice. By a Unix socket alone its `port` is 0.

    Its control socket is below `runtime`, or where this process's environment says. `descriptors` is how many files it
    may have open.

    Entering the context raises RuntimeError with what it said where it does not come to listen. Leaving the context sends
    SIGTERM and checks that the exit status is 0.
    """

    def __init__(
        self,
        folder: Path,
        toml: str,
        runtime: Path | None = None,
        *,
        descriptors: int | None = None,
        listen: str = "port = 0",
    ) -> None:
        self._runtime = runtime
        self._shell = ("sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh") if descriptors else ()
        self._file = folder / "bearerd.toml"
        self._listen = listen
        self.configure(toml)
        self._given = tuple(name for name in os.environ if name.upper().startswith("BEARERD_"))
        self._said = bytearray()
        self._ready = asyncio.Event()
        self._listens = False
        self._bare = 'format = "json"' in toml
        self._reader: asyncio.Task[None]
        self._process: Process
        self.port = 0

    def configure(self, toml: str) -> None:
        """Another configuration at once in place of the first one, that listens alike. It is not told of it."""
        self._write(f"[listen]\n{self._listen}\n{toml}")

    def _write(self, text: str) -> None:
        canaries.know_toml(text)
        new = self._file.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o600)
        new.replace(self._file)

    @property
    def file(self) -> Path:
        """Its configuration."""
        return self._file

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written to standard output and standard error so far."""
        return self._said.decode()

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._shell,
            *(sys.executable, "-m", "bearerd", "run", "-c", str(self._file)),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            env={"BEARERD_LOG__LEVEL": "debug"}
            | os.environ
            | ({"XDG_RUNTIME_DIR": str(self._runtime)} if self._runtime else {}),
        )
        self._reader = asyncio.create_task(self._read())
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await self._ready.wait()
        if not self._listens:  # it has ended, or does not come to it
            status = await self.end()
            raise RuntimeError(f"bearerd did not start, and ended with status {status}. It said:\n{self.log}")
        return self

    async def __aexit__(self, *_: object) -> None:
        status = await self.end()
        assert status == 0, f"bearerd ended with status {status}. It said:\n{self.log}"

    async def end(self) -> int:
        canaries.note_process(self.pid, self._given)
        if self._process.returncode is None:
            self._process.terminate()
        return await self.ended()

    async def ended(self) -> int:
        """Its exit status, when it has ended. It is not told to here: that would take the status away from who waits."""
        try:
            async with asyncio.timeout(STOP_S):
                status = await self._process.wait()
        except TimeoutError:
            self._process.kill()
            status = await self._process.wait()
        await self._reader
        return status

    def heed(self, line: bytes) -> None:
        """Take in a line that it has written. Who overrides this has no `log`."""
        self._said += line

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.heed(line)
            found = (LISTENING if self._bare else READY).search(line)
            if found and not self._ready.is_set():
                self.port = int(found[1] or 0)
                self._listens = True
            if self._listens and (not self._bare or STARTED in line):
                self._ready.set()
        self._ready.set()
        canaries.note("the output of a daemon", bytes(self._said))


@asynccontextmanager
async def killed(daemon: RunningDaemon) -> AsyncIterator[None]:
    """A daemon that is given no time to end."""
    await daemon.__aenter__()
    try:
        yield
    finally:
        await kill(daemon)


async def kill(daemon: RunningDaemon) -> None:
    with suppress(ProcessLookupError):
        os.kill(daemon.pid, signal.SIGKILL)
    assert await daemon.ended() == -signal.SIGKILL
