"""Programs started for a comparison, each on a core of its own, and what they use."""

import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.figures import BenchError, Stat, family_of, parse_stat

HOST: Final = "127.0.0.1"
START_S: Final = 60.0
STOP_S: Final = 30.0

Prepare = Callable[[Path, int, int], list[str]]
"""Writes a configuration into a folder, for a port of its own and the upstream's, and gives the program to start."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server of ours. `direct` is one that is the upstream itself."""

    pid: int
    port: int
    direct: bool


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
def pinned(cores: set[int]) -> Iterator[None]:
    """What is started in the block is on these cores from its first instruction, with all its threads.

    Moved later, only its first thread would be there, and Go would have counted the cores it had before.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def serve(prepare: Prepare, folder: Path, cores: set[int], upstream: int = 0) -> Iterator[Server]:
    """A server from its first answer on; ended by its own pid."""
    folder.mkdir()
    port = find_free_port()
    argv = prepare(folder, port, upstream)
    with (folder / "output").open("wb") as output, pinned(cores):
        process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_for_answer(process, port, folder / "output")
        yield Server(process.pid, port, direct=not upstream)
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


def read_family(root: int) -> list[Stat]:
    """A process and its descendants, as they are now."""
    stats = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            stats.append(parse_stat(file.read_text(errors="replace")))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended since it was listed
    return family_of(stats, root)


def read_cpu_s(root: int) -> float:
    """CPU time used so far by a process and its descendants."""
    return sum(stat.ticks for stat in read_family(root)) / os.sysconf("SC_CLK_TCK")


def read_rss_mib(root: int) -> float:
    """Resident memory of a process and its descendants. What they share counts each time."""
    return sum(stat.pages for stat in read_family(root)) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
