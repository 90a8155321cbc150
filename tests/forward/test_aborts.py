"""Clients that leave at any stage leave no task, no connection and no count of a daemon's behind them."""

import asyncio

import pytest

from aborts import STAGES, HoldingUpstream, abort_calls
from bearerd.core.configuration import Limits
from bearerd.daemon import Daemon
from callers import running
from patience import settle

HEARD = (
    6  # of the stages, whose clients wait for something that a connection of their own to the upstream says
)


def left(daemon: Daemon, upstream: HoldingUpstream, before: "set[asyncio.Task[object]]") -> dict[str, object]:
    """Whatever there is beside the daemon at rest."""
    assert daemon._server is not None
    upstreams = {task for task in upstream._tasks if not task.done()}
    return {
        "tasks": asyncio.all_tasks() - before - upstreams,
        "calls": daemon._front._in_flight,
        "clients": len(daemon._server.connections),
        "served": daemon._server.served,
        "upstream connections": upstream.open,
        "kept": sum(map(len, daemon._pool._idle.values())),
        "spooled": daemon._front._forwarder._budget.left - daemon._configuration.limits.replay_total,
    }


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.soak)])
async def test_clients_that_leave_leave_nothing(count: int) -> None:
    limits = Limits(upstream_idle_s=0.2)
    async with HoldingUpstream() as upstream, running(upstream.url, limits=limits) as daemon:
        await abort_calls(daemon.port, len(STAGES))
        async with asyncio.timeout(20):
            await settle(0.5)
            while any(left(daemon, upstream, asyncio.all_tasks()).values()):  # noqa: ASYNC110  # tells nobody
                await asyncio.sleep(0.05)
        before = asyncio.all_tasks()
        rest = left(daemon, upstream, before)
        assert not any(rest.values())
        connections = upstream.connections
        await abort_calls(daemon.port, count)
        assert upstream.connections - connections >= count // len(STAGES) * HEARD
        for _ in range(400):
            if not any(left(daemon, upstream, before).values()):
                break
            await asyncio.sleep(0.05)
        assert left(daemon, upstream, before) == rest
