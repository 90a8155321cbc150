"""The end of the accounts of a process: what has been spent is saved first, for as long as that can take."""

import asyncio
from collections.abc import Collection
from typing import Final

import structlog

from bearerd.supervisor import Supervisor
from bearerd.tokens.manager import TokenManager

LONGEST_S: Final = 150.0  # a refresh may take 120 s, and its saving some more
TURN_S: Final = 5.0
AT_ONCE_S: Final = 5.0  # for a pair that has come, where everything else is to end at once
_LOOK_S: Final = 0.02


async def close_all(
    managers: Collection[TokenManager],
    supervisor: Supervisor,
    *,
    longest_s: float = LONGEST_S,
    turn_s: float = TURN_S,
) -> bool:
    """Close them all. False where the tokens of one are lost by it, or may be.

    The service manager is told that it takes longer, as long as it does and no longer than `longest_s`.
    """
    log = structlog.get_logger("bearerd.daemon")
    pending = {asyncio.ensure_future(manager.aclose()) for manager in managers}
    refreshes = sum(manager.busy for manager in managers)
    if refreshes:
        log.info("daemon.saving", refreshes=refreshes, at_most_s=longest_s)
        supervisor.describe(f"waits until {refreshes} refreshed login(s) are saved, at most {longest_s:g} s")
    for _ in range(max(1, round(longest_s / turn_s))):
        if not pending:
            break
        supervisor.extend(3 * turn_s)
        done, pending = await asyncio.wait(pending, timeout=turn_s)
        for task in done:
            task.result()
    for task in pending:
        task.cancel()
    if pending:
        log.error(
            "daemon.gave_up", accounts=len(pending), because="a refresh or the store did not come to its end"
        )
    return not pending and not any(manager.unsaved for manager in managers)


async def save_now(managers: Collection[TokenManager], limit_s: float = AT_ONCE_S) -> bool:
    """Let those be saved that have come. False where that has not been possible within `limit_s`."""
    for _ in range(round(limit_s / _LOOK_S)):
        if not any(manager.unsaved for manager in managers):
            return True
        await asyncio.sleep(_LOOK_S)
    return False
