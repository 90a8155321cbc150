"""On what, with what and when it was measured."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import bearerd
from bench.contestants import PEERS
from bench.servers import find_program

_VERSION: Final = re.compile(r"\d+\.\d+(?:\.\d+)*")
_ASKED: Final = {
    "nginx": ["nginx", "-v"],
    "Envoy": ["envoy", "--version"],
    "Go": ["go", "version"],
    "Node": ["node", "--version"],
    "mitmproxy": ["mitmdump", "--version"],
    "wrk": ["wrk", "-v"],
}


def describe() -> list[tuple[str, str]]:
    """What the figures depend on. No names of machines or folders."""
    cores = len(os.sched_getaffinity(0))
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return [
        ("date", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("processor", find_model(Path("/proc/cpuinfo").read_text(encoding="utf-8"))),
        ("cores", f"{cores}: one for the proxy, the others for load and upstream"),
        ("memory", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.0f} GiB"),
        ("kernel", f"{platform.system()} {platform.release()}"),
        ("load average before", load),
        ("bearerd", f"{bearerd.__version__}{_commit()}"),
        ("Python", f"{platform.python_version()}, aiohttp {version('aiohttp')}, uvloop {version('uvloop')}"),
        *((name, find_version(_said(argv))) for name, argv in _ASKED.items()),
        ("npm", ", ".join(f"{name} {_npm_version(name)}" for name in ("http-proxy", "fast-proxy"))),
    ]


def find_model(cpuinfo: str) -> str:
    """The processor's name by proc_cpuinfo(5), or its kind where there is none."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1] if found else platform.machine()


def find_version(text: str) -> str:
    """The first thing that looks like one."""
    found = _VERSION.search(text)
    return found[0] if found else "unknown"


def _said(argv: Sequence[str]) -> str:
    """Of these wrk says its version with an exit code of 1, nginx on standard error, Envoy after its own path."""
    program = find_program(argv[0])
    done = subprocess.run([program, *argv[1:]], capture_output=True, text=True, timeout=20, check=False)
    return (done.stdout + done.stderr).replace(program, "")


def _npm_version(name: str) -> str:
    about = json.loads((PEERS / "node_modules" / name / "package.json").read_text(encoding="utf-8"))
    return str(about["version"])


def _commit() -> str:
    argv = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(argv, cwd=PEERS, capture_output=True, text=True, check=False)
    return f" at {done.stdout.strip()}" if done.returncode == 0 else ""
