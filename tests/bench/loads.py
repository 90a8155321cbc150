"""The load: wrk for short calls, load.go for what wrk cannot do."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.contestants import TOKEN, build_program
from bench.figures import Load, parse_load, parse_wrk
from bench.servers import HOST, STOP_S, Server, find_program, pinned
from bench.workloads import Workload

WARM_UP_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Loader:
    """Makes calls from `cores`. The upstream's large bodies are files in `bodies`."""

    program: str
    folder: Path
    bodies: Path
    cores: set[int]

    @contextmanager
    def hold(self, server: Server, workload: Workload, seconds: float) -> Iterator[Load]:
        """What a run came to; connections that it held are open until the block ends."""
        if workload.tool == "wrk":
            yield self._run_wrk(server, workload, seconds)
        else:
            with self._run_own(server, workload, "-seconds", str(seconds)) as load:
                yield load

    def check(self, server: Server, workload: Workload) -> None:
        """One call whose body is compared with what was sent. Raises `BenchError` if it is another."""
        with self._run_own(server, workload, "-check"):
            pass

    def warm_up(self, server: Server) -> None:
        """What is loaded with the first call is not the cost of the first stream."""
        with self.hold(server, Workload("warm-up", "calls", "cold"), WARM_UP_S):
            pass

    def _run_wrk(self, server: Server, workload: Workload, seconds: float) -> Load:
        script = self.folder / "load.lua"
        script.write_text(workload.script)
        argv = [find_program("wrk"), "-t1", f"-c{workload.connections}", f"-d{round(seconds)}s", "--latency"]
        # Nobody adds the token to what goes to the upstream itself.
        argv += ["-H", f"Authorization: Bearer {TOKEN}"] if server.direct else []
        argv += ["-s", str(script), f"http://{HOST}:{server.port}{workload.path}"]
        with (
            pinned(self.cores),
            subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
        ):
            try:
                text, _ = process.communicate(timeout=seconds + STOP_S)
            finally:
                process.kill()
        return parse_wrk(text)

    @contextmanager
    def _run_own(self, server: Server, workload: Workload, *arguments: str) -> Iterator[Load]:
        argv = [self.program, "-kind", workload.tool, "-address", f"{HOST}:{server.port}"]
        argv += ["-path", workload.path, "-connections", str(workload.connections), *arguments]
        argv += ["-token", TOKEN] if server.direct else []
        argv += ["-file", str(self.bodies / workload.file)] if workload.body_mib else []
        with pinned(self.cores):
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        with process:
            try:
                assert process.stdout is not None
                yield parse_load(process.stdout.readline())
            finally:
                process.kill()


def prepare_loader(folder: Path, cores: set[int]) -> Loader:
    """Builds the program, and the bodies that calls carry: random, so that a part in another's place shows."""
    bodies = folder / "bodies"
    bodies.mkdir()
    for mib in (1, 100):
        with (bodies / f"{mib}m").open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(1 << 20))
    return Loader(build_program(folder, "load.go"), folder, bodies, cores)
