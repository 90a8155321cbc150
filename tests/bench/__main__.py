"""What a call costs through each proxy: the same calls, to the same upstream, on the same machine, in one run.

The proxy under test has one core to itself; the load (wrk) and the upstream (nginx) have the others.
Throughput is then often the load's limit, not the proxy's: CPU per call is the number to compare.
Needs Linux. Names of proxies as arguments limit the run to those and nginx.
"""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.contestants import CONTESTANTS, TOKEN, prepare_upstream
from bench.figures import DIRECT, REFERENCE, BenchError, Load, Run, build_rows, build_tables, parse_wrk
from bench.servers import STOP_S, Server, find_program, pinned, read_cpu_s, read_rss_mib, serve, split_cores

ROUNDS: Final = 2
LOAD_S: Final = 5
WARM_UP_S: Final = 1


@dataclass(frozen=True, slots=True)
class Workload:
    """Calls of one kind, over so many connections that are kept. `script` tells wrk what else there is to a call."""

    name: str
    connections: int
    path: str = ""
    script: str = ""


POST: Final = 'wrk.method = "POST"; wrk.body = string.rep("x", 4096)'
WORKLOADS: Final = (
    Workload("Small GET, 32 connections", 32),
    Workload("Small GET, 1 connection", 1),
    Workload("POST of 4 KiB, 32 connections", 32, script=POST),
    Workload("Response of 1 MiB, 8 connections", 8, path="1m"),
)


def load(server: Server, workload: Workload, seconds: int, folder: Path, cores: set[int]) -> Load:
    script = folder / "load.lua"
    script.write_text(workload.script)
    argv = [find_program("wrk"), "-t1", f"-c{workload.connections}", f"-d{seconds}s", "--latency"]
    # Nobody adds the token to what goes to the upstream itself.
    argv += ["-H", f"Authorization: Bearer {TOKEN}"] if server.direct else []
    argv += ["-s", str(script), server.url + workload.path]
    with (
        pinned(cores),
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        try:
            text, _ = process.communicate(timeout=seconds + STOP_S)
        finally:
            process.kill()
    return parse_wrk(text)


def measure(name: str, server: Server, workload: Workload, folder: Path, cores: set[int]) -> Run:
    before_s = read_cpu_s(server.pid)
    try:
        done = load(server, workload, LOAD_S, folder, cores)
    except BenchError as error:
        raise BenchError(f"{name}, {workload.name}: {error}") from error
    return Run(name, workload.name, done, read_cpu_s(server.pid) - before_s)


def compare(names: Sequence[str], folder: Path) -> tuple[list[Run], dict[str, float]]:
    """All servers run throughout, idle while another is measured; rounds alternate between them.

    With the runs comes each proxy's resident memory in MiB before any call.
    """
    proxy_cores, load_cores = split_cores()
    with ExitStack() as stack:
        upstream = stack.enter_context(serve(prepare_upstream, folder / "upstream", load_cores))
        servers = {
            name: stack.enter_context(serve(CONTESTANTS[name], folder / name, proxy_cores, upstream.port))
            for name in names
        }
        idle_mib = {name: read_rss_mib(server.pid) for name, server in servers.items()}
        for server in servers.values():
            load(server, WORKLOADS[0], WARM_UP_S, folder, load_cores)
        runs = [
            measure(name, server, workload, folder, load_cores)
            for workload in WORKLOADS
            for _ in range(ROUNDS)
            for name, server in ({DIRECT: upstream} | servers).items()
        ]
        return runs, idle_mib


def choose(wanted: Sequence[str]) -> list[str]:
    """The reference and the proxies wanted, all of them by default. Refuses what cannot be measured here."""
    if sys.platform != "linux":
        raise BenchError("this comparison reads /proc and runs on Linux only")
    if unknown := set(wanted) - CONTESTANTS.keys():
        raise BenchError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(CONTESTANTS)}")
    return [name for name in CONTESTANTS if not wanted or name in {REFERENCE, *wanted}]


def main(wanted: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended then, too
    try:
        with tempfile.TemporaryDirectory(prefix="bearerd-bench-") as folder:
            runs, idle_mib = compare(choose(wanted), Path(folder))
    except BenchError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    sys.stdout.write(build_tables(build_rows(runs), idle_mib))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
