"""Clients that leave at any stage leave no descriptor of a daemon's open."""

import asyncio
from pathlib import Path
from typing import Final

import pytest

from aborts import STAGES, HoldingUpstream, abort_calls
from daemons import RunningDaemon
from users import looks_into_daemon

pytestmark = looks_into_daemon

TOML: Final = """
[accounts.a]
token = "t"
[routes."/"]
upstream = "{url}"
[limits]
upstream_idle = "200ms"
"""


def descriptors(daemon: RunningDaemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.soak)])
async def test_clients_that_leave_leave_no_descriptor(tmp_path: Path, count: int) -> None:
    async with (
        HoldingUpstream() as upstream,
        RunningDaemon(tmp_path, TOML.format(url=upstream.url)) as daemon,
    ):
        before = descriptors(daemon)
        await abort_calls(daemon.port, len(STAGES))
        await abort_calls(daemon.port, count)
        for _ in range(400):
            if (descriptors(daemon), upstream.open) == (before, 0):
                break
            await asyncio.sleep(0.05)
        assert (descriptors(daemon), upstream.open) == (before, 0)
    assert "internal_error" not in daemon.log
    assert "library.message" not in daemon.log
