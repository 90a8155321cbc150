"""Podman and buildah from Debian, without a registry, a daemon, or a network between containers."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

PROJECT: Final = Path(__file__).parents[1]
PYTHON: Final = "docker.io/library/python:3.12-slim"
IMAGE: Final = "localhost/bearerd:latest"
_LENT: Final = (
    "/etc/ssl/certs",
    "/etc/pip.conf",
)  # what this machine needs to fetch anything, a build here needs too
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
        """An image by the name of the registry's that has a Python at the same place. It is kept for the next time."""
        if self.has(PYTHON):
            return
        tar = self._folder / "python.tar"
        packages = "python3,python3-venv,ca-certificates"
        self.run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", codename(), tar)
        container = self.run("buildah", "from", "scratch").strip()
        self.run("buildah", "add", container, tar, "/")
        link = ("ln", "-s", "/usr/bin/python3", "/usr/local/bin/python3")
        self.run("buildah", "run", "--isolation=chroot", container, "--", *link)
        self.run("buildah", "commit", "--quiet", container, PYTHON)
        self.run("buildah", "rm", container)
        tar.unlink()

    def build(self) -> None:
        """The image, by the Dockerfile as it is."""
        lent = [f"--volume={path}:{path}:ro" for path in _LENT if Path(path).exists()]
        options = ("--isolation=chroot", "--format=docker", "--pull-never", "--quiet", *lent)
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
        ended = subprocess.run(
            ("podman", "logs", container), env=self._environ, capture_output=True, text=True, check=True
        )
        return ended.stdout + ended.stderr


def codename() -> str:
    """Of the Debian that this machine has: what signs its packages is known here."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME="))
