"""Podman and buildah from Debian, without a registry, a daemon, or a network between containers."""

import json
import os
import subprocess
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from bearerd import __version__

PROJECT: Final = Path(__file__).parents[1]
PYTHON: Final = "docker.io/library/python:3.12-slim"
IMAGE: Final = "localhost/bearerd:latest"
_LENT: Final = (
    "/etc/ssl/certs",
    "/etc/pip.conf",
)  # what this machine needs to fetch anything, a build here needs too
_PATH: Final = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_SETTINGS: Final = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
tmp_dir = "{folder}/tmp"
"""
_STORAGE: Final = """
[storage]
driver = "vfs"
graphroot = "{folder}/images"
runroot = "{folder}/run"
"""


class Engine:
    """Images and containers that are kept below `folder`, and nothing of the machine's own engine."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        for name, text in (("containers.conf", _SETTINGS), ("storage.conf", _STORAGE)):
            (folder / name).write_text(text.format(folder=folder))
        self._environ = os.environ | {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }

    def run(self, *argv: str | Path, limit_s: float = 300.0) -> str:
        """What a program says on standard output. Raises AssertionError with all that it said where it fails."""
        ended = subprocess.run(
            argv, env=self._environ, cwd=PROJECT, capture_output=True, text=True, timeout=limit_s, check=False
        )
        assert ended.returncode == 0, f"{argv} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def podman(self, *argv: str | Path) -> str:
        return self.run("podman", *argv)

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.podman("inspect", "--type", kind, name))[0]
        return found

    def has(self, image: str) -> bool:
        listed = self.podman("images", "--format", "{{.Repository}}:{{.Tag}}")
        return image in listed.split()

    def make_python(self) -> None:
        """An image by the name of the registry's that has a Python at the same place, and no bytecode of it either. It is kept
        for the next time.
        """
        if self.has(PYTHON):
            return
        tar = self._folder / "python.tar"
        packages = "python3,python3-venv,ca-certificates"
        bare = "--customize-hook=find \"$1\" -xdev -name '*.pyc' -delete"
        self.run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", bare, codename(), tar)
        container = self.run("buildah", "from", "scratch").strip()
        self.run("buildah", "add", container, tar, "/")
        link = ("ln", "-s", "/usr/bin/python3", "/usr/local/bin/python3")
        self.run("buildah", "run", "--isolation=chroot", container, "--", *link)
        self.run("buildah", "config", f"--env=PATH={_PATH}", container)  # the registry's says it, too
        self.run("buildah", "commit", "--quiet", container, PYTHON)
        self.run("buildah", "rm", container)
        tar.unlink()

    def build(self) -> None:
        """The image, by the Dockerfile as it is, labelled with this version."""
        lent = [f"--volume={path}:{path}:ro" for path in _LENT if Path(path).exists()]
        label = f"--build-arg=VERSION={__version__}"
        options = ("--isolation=chroot", "--format=docker", "--pull-never", "--quiet", label, *lent)
        self.run("buildah", "bud", *options, "-f", "docker/Dockerfile", "-t", IMAGE, ".", limit_s=600)

    @contextmanager
    def running(self, *argv: str | Path) -> Iterator[str]:
        """A container of the image, hardened as the examples have it, on this machine's own network; its name."""
        hardened = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--memory=128m")
        name = self.podman("run", "--detach", "--network=host", *hardened, *argv).strip()
        try:
            yield name
        finally:
            self.podman("rm", "--force", "--time=1", name)

    def health(self, container: str) -> int:
        """The exit code of the image's own check, run now."""
        check = ("podman", "healthcheck", "run", container)
        return subprocess.run(check, env=self._environ, capture_output=True, check=False).returncode

    def log(self, container: str) -> str:
        """What it has written to standard output and standard error."""
        ended = subprocess.run(
            ("podman", "logs", container), env=self._environ, capture_output=True, text=True, check=True
        )
        return ended.stdout + ended.stderr

    async def begin(self, *argv: str) -> Process:
        """Podman, with its standard input and output at hand."""
        return await create_subprocess_exec("podman", *argv, env=self._environ, stdin=PIPE, stdout=PIPE)

    def documents(self, file: Path) -> list[Any]:
        """What is in a file of YAML, read by the Python that podman-compose is installed with."""
        read = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"
        found: list[Any] = json.loads(self.run("python3", "-c", read, file))
        return found


def check_confined(engine: Engine, container: str) -> None:
    """That nothing is open to its first process which the examples shut."""
    status = dict(
        line.split(":\t", 1)
        for line in engine.podman("exec", container, "cat", "/proc/1/status").splitlines()
    )
    assert status["Uid"].split() == ["65532"] * 4
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert int(status["VmHWM"].split()[0]) < 128 << 10
    settings = engine.inspect("container", container)["HostConfig"]
    assert (settings["Memory"], settings["ReadonlyRootfs"]) == (128 << 20, True)
    with pytest.raises(AssertionError, match="Read-only file system"):
        engine.podman("exec", container, "touch", "/opt/bearerd/new")


def codename() -> str:
    """Of the Debian that this machine has: what signs its packages is known here."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME="))
