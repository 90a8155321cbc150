"""Programs of the user's that are run when something happens."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

import structlog

from bearerd.core.lifecycle import Active, State
from bearerd.core.notices import Notice, decide_notice
from bearerd.ports import Clock
from bearerd.privacy import without_secrets

LIMIT_S: Final = 30.0


class LoginHook:
    """Runs the program `argv`, if there is one, for accounts whose calls need a login.

    Nobody waits for it, and whatever comes of it is for the log alone.
    """

    def __init__(
        self, argv: tuple[str, ...], clock: Clock, environment: Mapping[str, str], *, limit_s: float = LIMIT_S
    ) -> None:
        self.argv = argv
        self._clock = clock
        self._environment = environment
        self._limit_s = limit_s
        self._notices: dict[str, Notice] = {}
        self._runs: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("bearerd.hooks")

    def refused(self, account: str, state: State, url: str) -> None:
        """A call of `account` was refused in `state`; `url` is where a person can mend that."""
        if not self.argv:
            return
        notice = decide_notice(self._notices.get(account), state, self._clock.steady())
        if notice is not None:
            self._notices[account] = notice
            run = asyncio.create_task(self._run(account, url))
            self._runs.add(run)
            run.add_done_callback(self._runs.discard)

    def changed(self, account: str, state: State) -> None:
        """`account` is in `state` now."""
        if isinstance(state, Active) and (notice := self._notices.get(account)):
            self._notices[account] = replace(notice, heeded=True)

    async def aclose(self) -> None:
        """End the programs that still run."""
        for run in self._runs:
            run.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)

    async def _run(self, account: str, url: str) -> None:
        log = self._log.bind(account=account)
        own = {"BEARERD_LOGIN_ACCOUNT": account, "BEARERD_LOGIN_URL": url}
        try:
            process = await asyncio.create_subprocess_exec(
                *self.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env=without_secrets(self._environment) | own,
            )
        except OSError as exc:
            reason = f"cannot be started: {os.strerror(exc.errno or 0)}"
            log.warning("hook.failed", hook="on_login_needed", reason=reason)
            return
        try:
            async with asyncio.timeout(self._limit_s):
                status = await process.wait()
        except TimeoutError:
            log.warning("hook.failed", hook="on_login_needed", reason=f"still ran after {self._limit_s:g} s")
        else:
            log.info("hook.ended", hook="on_login_needed", status=status)
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the group of a program that has not ended. What one that did end left running is meant to run."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
