"""What a call costs through each proxy: the same small GET, to the same upstream, on the same machine.

The proxy under test has one core to itself; the load (wrk) and the upstream (nginx) have the others.
Throughput is then often the load's limit, not the proxy's: CPU per call is the number to compare.
Needs Linux, nginx and wrk. Names of proxies as arguments limit the run to those and nginx.
"""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

HOST: Final = "127.0.0.1"
TOKEN: Final = "bench-token"
CONNECTIONS: Final = (32, 1)
ROUNDS: Final = 2
LOAD_S: Final = 5
WARM_UP_S: Final = 1
START_S: Final = 10.0
STOP_S: Final = 10.0
REFERENCE: Final = "nginx"


class BenchError(Exception):
    """The comparison cannot be made, or would not be fair."""


# ---------------------------------------------------------------- numbers


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk said of one run. Latencies in microseconds."""

    calls: int
    seconds: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the load against one proxy; `cpu_s` is what the proxy used meanwhile."""

    proxy: str
    connections: int
    load: Load
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """The runs of one proxy with so many connections, taken together."""

    proxy: str
    connections: int
    rps: float
    p50_us: float
    p99_us: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Stat:
    """What is needed of ``/proc/PID/stat``. `ticks` include those of children that have ended."""

    pid: int
    parent: int
    ticks: int


_LATENCY: Final = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)$", re.MULTILINE)
_UNITS_US: Final = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}
_TOTAL: Final = re.compile(r"^\s+(\d+) requests in ([\d.]+)(us|ms|s|m),", re.MULTILINE)
_FAILED: Final = re.compile(r"^\s+(Non-2xx or 3xx responses: .*|Socket errors: .*)$", re.MULTILINE)


def parse_wrk(text: str) -> Load:
    """Raises `BenchError` where calls failed, where there were none, or where this is not wrk's output."""
    failures = _FAILED.findall(text)
    total = _TOTAL.search(text)
    latency_us = {name: float(value) * _UNITS_US[unit] for name, value, unit in _LATENCY.findall(text)}
    if failures:
        raise BenchError("; ".join(failures))
    if total is None or latency_us.keys() != {"50", "99"}:
        raise BenchError(f"wrk said something else than expected:\n{text}")
    if total[1] == "0":
        raise BenchError("no call was completed")
    seconds = float(total[2]) * _UNITS_US[total[3]] / 1e6
    return Load(int(total[1]), seconds, latency_us["50"], latency_us["99"])


def parse_stat(text: str) -> Stat:
    """The second field is a program's name in parentheses and may hold any of both; see proc(5)."""
    pid, _, rest = text.partition(" (")
    fields = rest.rpartition(") ")[2].split()
    return Stat(int(pid), int(fields[1]), sum(map(int, fields[11:15])))


def sum_ticks(stats: Sequence[Stat], root: int) -> int:
    """Of a process and its descendants."""
    family = {root}
    while grown := {stat.pid for stat in stats if stat.parent in family} - family:
        family |= grown
    return sum(stat.ticks for stat in stats if stat.pid in family)


def build_rows(runs: Sequence[Run]) -> list[Row]:
    """Calls and CPU add up over the rounds; percentiles of different runs can only be averaged."""
    groups: dict[tuple[int, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.connections, run.proxy), []).append(run)
    return [_build_row(group) for group in groups.values()]


def _build_row(runs: Sequence[Run]) -> Row:
    calls = sum(run.load.calls for run in runs)
    return Row(
        runs[0].proxy,
        runs[0].connections,
        calls / sum(run.load.seconds for run in runs),
        fmean(run.load.p50_us for run in runs),
        fmean(run.load.p99_us for run in runs),
        sum(run.cpu_s for run in runs) / calls * 1e6,
    )


HEADINGS: Final = ("proxy", "connections", "rps", "p50 us", "p99 us", "CPU us/call", f"CPU / {REFERENCE}")


def build_table(rows: Sequence[Row]) -> str:
    """Aligned columns: names to the left, numbers to the right."""
    reference = {row.connections: row.cpu_us for row in rows if row.proxy == REFERENCE}
    cells = [HEADINGS, *(_build_cells(row, reference.get(row.connections)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "".join(_build_line(line, widths) for line in cells)


def _build_cells(row: Row, reference_us: float | None) -> tuple[str, ...]:
    ratio = f"{row.cpu_us / reference_us:.2f}" if reference_us else "-"
    numbers = (f"{row.rps:.0f}", f"{row.p50_us:.0f}", f"{row.p99_us:.0f}", f"{row.cpu_us:.1f}", ratio)
    return (row.proxy, str(row.connections), *numbers)


def _build_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = cells
    padded = (cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True))
    return "  ".join([name.ljust(widths[0]), *padded]) + "\n"


# ---------------------------------------------------------------- contestants

NGINX: Final = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path temp;
  proxy_temp_path temp;
  fastcgi_temp_path temp;
  uwsgi_temp_path temp;
  scgi_temp_path temp;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  %s
}
"""
# A call without the token is not what is measured: the upstream refuses it, and wrk counts it as failed.
NGINX_UPSTREAM: Final = """
  server {
    listen %(host)s:%(port)d;
    if ($http_authorization != "Bearer %(token)s") { return 401; }
    default_type application/json;
    location / { return 200 '{"ok": true}'; }
  }
"""
NGINX_PROXY: Final = """
  upstream api {
    server %(host)s:%(upstream)d;
    keepalive 64;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
  }
  server {
    listen %(host)s:%(port)d;
    location / {
      proxy_pass http://api;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer %(token)s";
    }
  }
"""
BEARERD: Final = """
[listen]
port = %(port)d
[log]
access = false
level = "warning"
[accounts.bench]
token = "%(token)s"
[routes."/"]
upstream = "http://%(host)s:%(upstream)d"
"""

Prepare = Callable[[Path, int, int], list[str]]


def prepare_upstream(folder: Path, port: int, _: int) -> list[str]:
    return _prepare_nginx(folder, NGINX_UPSTREAM % {"host": HOST, "port": port, "token": TOKEN})


def prepare_nginx(folder: Path, port: int, upstream: int) -> list[str]:
    values = {"host": HOST, "port": port, "upstream": upstream, "token": TOKEN}
    return _prepare_nginx(folder, NGINX_PROXY % values)


def _prepare_nginx(folder: Path, server: str) -> list[str]:
    (folder / "nginx.conf").write_text(NGINX % server)
    return [find_program("nginx"), "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]


def prepare_bearerd(folder: Path, port: int, upstream: int) -> list[str]:
    file = folder / "bearerd.toml"
    file.write_text(BEARERD % {"host": HOST, "port": port, "upstream": upstream, "token": TOKEN})
    file.chmod(0o600)
    return [str(Path(sys.executable).with_name("bearerd")), "run", "-c", str(file)]


# Each writes its configuration into the folder, for these two ports, and gives the program to start.
CONTESTANTS: Final[dict[str, Prepare]] = {REFERENCE: prepare_nginx, "bearerd": prepare_bearerd}


# ---------------------------------------------------------------- processes


@dataclass(frozen=True, slots=True)
class Server:
    """A running server of ours."""

    pid: int
    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"


def find_program(name: str) -> str:
    """Debian keeps servers where an ordinary user's PATH does not look."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise BenchError(f"{name} is not installed; make bench installs it")
    return found


def find_free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def split_cores() -> tuple[set[int], set[int]]:
    """The first core for the proxy, the rest for the load; where there is only one, they share it."""
    first, *rest = sorted(os.sched_getaffinity(0))
    return {first}, set(rest) or {first}


@contextmanager
def serve(prepare: Prepare, folder: Path, cores: set[int], upstream: int = 0) -> Iterator[Server]:
    """A server from its first answer on; ended by its own pid."""
    folder.mkdir()
    port = find_free_port()
    argv = prepare(folder, port, upstream)
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        os.sched_setaffinity(process.pid, cores)
        wait_for_answer(process, port, folder / "output")
        yield Server(process.pid, port)
    finally:
        stop(process)


def wait_for_answer(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + START_S
    while not answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"{process.args!r} did not start:\n{output.read_text(errors='replace')}")
        time.sleep(0.05)


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    else:
        return True
    finally:
        connection.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def load(server: Server, connections: int, seconds: int, cores: set[int]) -> Load:
    argv = [find_program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", server.url]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            os.sched_setaffinity(process.pid, cores)
            text, _ = process.communicate(timeout=seconds + STOP_S)
        finally:
            process.kill()
    return parse_wrk(text)


def read_cpu_s(root: int) -> float:
    """CPU time used so far by a process and its descendants."""
    stats = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            stats.append(parse_stat(file.read_text(errors="replace")))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended since it was listed
    return sum_ticks(stats, root) / os.sysconf("SC_CLK_TCK")


def measure(name: str, server: Server, connections: int, cores: set[int]) -> Run:
    before_s = read_cpu_s(server.pid)
    try:
        done = load(server, connections, LOAD_S, cores)
    except BenchError as error:
        raise BenchError(f"{name}, {connections} connections: {error}") from error
    return Run(name, connections, done, read_cpu_s(server.pid) - before_s)


def compare(names: Sequence[str], folder: Path) -> list[Run]:
    """All servers run throughout, idle while another is measured; rounds alternate between them."""
    proxy_cores, load_cores = split_cores()
    with ExitStack() as stack:
        upstream = stack.enter_context(serve(prepare_upstream, folder / "upstream", load_cores))
        servers = {
            name: stack.enter_context(serve(CONTESTANTS[name], folder / name, proxy_cores, upstream.port))
            for name in names
        }
        for server in servers.values():
            load(server, max(CONNECTIONS), WARM_UP_S, load_cores)
        return [
            measure(name, server, connections, load_cores)
            for connections in CONNECTIONS
            for _ in range(ROUNDS)
            for name, server in servers.items()
        ]


def choose(wanted: Sequence[str]) -> list[str]:
    """The reference and the proxies wanted, all of them by default. Refuses what cannot be measured here."""
    if sys.platform != "linux":
        raise BenchError("this comparison reads /proc and runs on Linux only")
    for program in ("nginx", "wrk"):
        find_program(program)
    if unknown := set(wanted) - CONTESTANTS.keys():
        raise BenchError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(CONTESTANTS)}")
    return [name for name in CONTESTANTS if not wanted or name in {REFERENCE, *wanted}]


def main(wanted: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended then, too
    try:
        with tempfile.TemporaryDirectory(prefix="bearerd-bench-") as folder:
            runs = compare(choose(wanted), Path(folder))
    except BenchError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    sys.stdout.write(build_table(build_rows(runs)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
