"""Where bearerd's time goes in a small call, function by function."""

import os
import pstats
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, cast

from bench.contestants import PEERS, prepare_bearerd, prepare_upstream
from bench.figures import BenchError
from bench.loads import Loader
from bench.servers import STOP_S, read_cpu_s, serve
from bench.tables import build_table
from bench.workloads import SMALL

TOP: Final = 24
OTHERS: Final = "all other functions"
REST: Final = "the event loop, outside of any function"

Place = tuple[str, int, str]
"""File, line and function, as pstats has them."""
Stats = Mapping[Place, tuple[Any, ...]]
"""The second value is the number of calls, the third the time without callees, in seconds."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one function: times called for a request, and its own part of all CPU time."""

    name: str
    calls: float
    share: float


def build_costs(stats: Stats, requests: int, cpu_s: float) -> list[Cost]:
    """The dearest first; last what is left of `cpu_s`, which no function of Python's accounts for."""
    merged: dict[str, tuple[int, float]] = {}
    for (file, _, function), (_, calls, own_s, *_) in stats.items():
        name = name_of(file, function)
        before = merged.get(name, (0, 0.0))
        merged[name] = (before[0] + calls, before[1] + own_s)
    costs = [Cost(name, calls / requests, own_s / cpu_s) for name, (calls, own_s) in merged.items()]
    costs.sort(key=lambda cost: -cost.share)
    others = sum(cost.share for cost in costs[TOP:])
    rest = max(0.0, 1.0 - sum(cost.share for cost in costs))
    return [*costs[:TOP], Cost(OTHERS, 0.0, others), Cost(REST, 0.0, rest)]


def name_of(file: str, function: str) -> str:
    """Relative to its package, whatever folder that is in."""
    if file == "~":
        return function.strip("<>")
    parts = PurePosixPath(file).with_suffix("").parts
    roots = [place for place, part in enumerate(parts) if part in {"site-packages", "proxy"}]
    roots += [place for place, part in enumerate(parts) if part.startswith("python3.")]
    own = parts[roots[0] + 1 :] if roots else parts[-1:]
    return f"{'.'.join(own)}: {function.strip('<>')}"


def build_costs_table(costs: list[Cost]) -> str:
    lines = [
        [cost.name, f"{cost.calls:.2f}" if cost.calls else "", f"{cost.share * 100:.1f}"] for cost in costs
    ]
    return build_table([["function", "calls per request", "% of CPU time, its own"], *lines])


def profile(folder: Path, loader: Loader, proxy_cores: set[int], seconds: float) -> list[Cost]:
    """The small GET through bearerd under cProfile. It is slower then: shares are of use, times are not."""
    folder.mkdir()
    upstream = partial(prepare_upstream, bodies=loader.bodies)
    file = folder / "profile"
    with (
        serve(upstream, folder / "upstream", loader.cores) as behind,
        serve(partial(_prepare, file=file), folder / "proxy", proxy_cores, behind.port) as server,
    ):
        loader.warm_up(server)
        os.kill(server.pid, signal.SIGUSR1)
        before_s = read_cpu_s(server.pid)
        with loader.hold(server, SMALL, seconds) as load:
            cpu_s = read_cpu_s(server.pid) - before_s
        os.kill(server.pid, signal.SIGUSR2)
        _wait_for(file)
    stats = cast("Stats", vars(pstats.Stats(str(file)))["stats"])
    return build_costs(stats, load.calls, cpu_s)


def _prepare(folder: Path, port: int, upstream: int, *, file: Path) -> list[str]:
    _, *arguments = prepare_bearerd(folder, port, upstream)
    return [sys.executable, str(PEERS / "profiled.py"), str(file), *arguments]


def _wait_for(file: Path) -> None:
    deadline = time.monotonic() + STOP_S
    while not file.exists():
        if time.monotonic() > deadline:
            raise BenchError("bearerd under cProfile wrote no profile")
        time.sleep(0.05)
