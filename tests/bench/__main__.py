"""What a call costs through each proxy: the same calls, to the same upstream, on the same machine, in one run.

The proxy under test has one core to itself; the load and the upstream have the others.
Throughput is then often the load's limit, not the proxy's: CPU per call is the number to compare.
Needs Linux. Names of proxies as arguments limit the run to those and nginx; its tables are
printed, and docs/benchmarks.md stays as it is.
"""

import argparse
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from bench.contestants import CANNOT, CONTESTANTS, prepare_own_upstream, prepare_upstream, takes
from bench.figures import DIRECT, REFERENCE, BenchError, Outcome, Run, build_rows
from bench.hotpath import profile
from bench.loads import Loader, prepare_loader
from bench.machine import describe
from bench.report import DOCUMENT, Report, write_report
from bench.servers import Prepare, Server, read_cpu_s, read_rss_mib, serve, split_cores
from bench.tables import OURS, build_tables
from bench.workloads import UP, WORKLOADS, Workload

DOCS: Final = Path(__file__).parents[2] / "docs"
DURATION_S: Final = 3
OPEN_FILES: Final = 16_384
REQUIRED: Final = frozenset({DIRECT, REFERENCE, OURS})


@dataclass
class Comparison:
    """One run of everything. Runs are in `runs`, and what a peer failed to do in `left_out`."""

    names: Sequence[str]
    folder: Path
    seconds: float
    proxy_cores: set[int]
    loader: Loader
    runs: list[Run] = field(default_factory=list)
    left_out: dict[tuple[str, str], str] = field(default_factory=lambda: dict(CANNOT))

    def together(self, prepare: Prepare, workloads: Sequence[Workload]) -> None:
        """All servers run throughout, idle while another is measured; rounds alternate between them."""
        with self._upstream(prepare) as upstream, ExitStack() as stack:
            servers = {DIRECT: upstream}
            for name in self._takers(workloads):
                servers[name] = stack.enter_context(self._proxy(name, upstream))
            self._check(servers, workloads)
            for workload in workloads:
                for _ in range(workload.rounds):
                    for name, server in servers.items():
                        self._measure(name, server, workload)

    def alone(self, prepare: Prepare, workloads: Sequence[Workload]) -> None:
        """Each proxy is begun for each workload: memory is what is measured."""
        with self._upstream(prepare) as upstream:
            for workload in workloads:
                self._measure(DIRECT, upstream, workload)
                for name in self._takers([workload]):
                    with self._proxy(name, upstream) as server:
                        self.loader.warm_up(server)
                        self._measure(name, server, workload)

    def _takers(self, workloads: Sequence[Workload]) -> list[str]:
        return [name for name in self.names if any(takes(name, workload) for workload in workloads)]

    def _check(self, servers: Mapping[str, Server], workloads: Sequence[Workload]) -> None:
        for name, server in servers.items():
            self.loader.warm_up(server)
            for workload in workloads:
                if takes(name, workload) and workload.tool in {"download", "upload"}:
                    with self.excused(name, workload):
                        self.loader.check(server, workload)

    def _measure(self, name: str, server: Server, workload: Workload) -> None:
        if (workload.name, name) in self.left_out or not takes(name, workload):
            return
        with self.excused(name, workload):
            idle_mib = read_rss_mib(server.pid)
            before_s = read_cpu_s(server.pid)
            with self.loader.hold(server, workload, self.seconds) as load:
                cpu_s = 0.0 if server.direct else read_cpu_s(server.pid) - before_s
                held_kib = (read_rss_mib(server.pid) - idle_mib) * 1024 / workload.connections
            self.runs.append(Run(name, workload.name, load, cpu_s, idle_mib, held_kib))

    @contextmanager
    def excused(self, name: str, workload: Workload) -> Iterator[None]:
        """A peer that fails is left out, and the reason told; the comparison's own parts may not."""
        try:
            yield
        except BenchError as error:
            if name in REQUIRED:
                raise BenchError(f"{name}, {workload.name}: {error}") from error
            self.left_out[workload.name, name] = f"failed ({str(error).splitlines()[0]})"
            self.runs = [run for run in self.runs if (run.workload, run.proxy) != (workload.name, name)]

    @contextmanager
    def _upstream(self, prepare: Prepare) -> Iterator[Server]:
        with self._serve(prepare, self.loader.cores, 0) as server:
            yield server

    @contextmanager
    def _proxy(self, name: str, upstream: Server) -> Iterator[Server]:
        with self._serve(CONTESTANTS[name], self.proxy_cores, upstream.port) as server:
            yield server

    @contextmanager
    def _serve(self, prepare: Prepare, cores: set[int], upstream: int) -> Iterator[Server]:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        with serve(prepare, folder / "server", cores, upstream) as server:
            yield server


def compare(names: Sequence[str], folder: Path, loader: Loader, seconds: float) -> Outcome:
    run = Comparison(names, folder, seconds, split_cores()[0], loader)
    first = partial(prepare_upstream, bodies=loader.bodies)
    run.together(first, [workload for workload in WORKLOADS if workload != UP and not workload.alone])
    run.together(prepare_own_upstream, [UP])
    run.alone(prepare_own_upstream, [workload for workload in WORKLOADS if workload.alone])
    left_out = {place: why for place, why in run.left_out.items() if place[1] in names}
    return Outcome(tuple(build_rows(run.runs)), left_out)


def choose(wanted: Sequence[str]) -> list[str]:
    """The reference and the proxies wanted, all of them by default. Refuses what cannot be measured here."""
    if sys.platform != "linux":
        raise BenchError("this comparison reads /proc and runs on Linux only")
    if unknown := set(wanted) - CONTESTANTS.keys():
        raise BenchError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(CONTESTANTS)}")
    return [name for name in CONTESTANTS if not wanted or name in {REFERENCE, *wanted}]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--duration", type=int, default=DURATION_S, help="of each run, in seconds; 1 at least"
    )
    parser.add_argument("names", nargs="*")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended then, too
    options = parse(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="bearerd-bench-") as name:
            run(options.names, Path(name), options.duration)
    except BenchError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    return 0


def run(wanted: Sequence[str], folder: Path, seconds: int) -> None:
    names = choose(wanted)
    machine = describe()  # first, for it has the load before
    loader = prepare_loader(folder, split_cores()[1])
    outcome = compare(names, folder, loader, seconds)
    sys.stdout.write(build_tables(outcome))
    if not wanted:
        costs = profile(folder / "profiled", loader, split_cores()[0], seconds)
        write_report(DOCS, Report(machine, f"make bench DURATION={seconds}", outcome, costs))
        sys.stdout.write(f"\nWritten: {DOCS.name}/{DOCUMENT}\n")


def allow_open_files() -> None:
    """A thousand streams are two thousand connections of a proxy."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


if __name__ == "__main__":
    allow_open_files()
    sys.exit(main(sys.argv[1:]))
