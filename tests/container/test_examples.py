"""The examples of docker/, as they stand."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from containers import PROJECT, Engine

COMPOSE: Final = PROJECT / "docker" / "compose.yaml"
LIFETIMES: Final = 3
LIMIT_S: Final = 180.0
# There is no bridge here that containers could meet on. They need none: what they share is the sidecar's loopback.
_ALONE: Final = "services: {bearerd: {network_mode: none}}\n"


@contextmanager
def composed(engine: Engine, folder: Path) -> Iterator[None]:
    (folder / "alone.yaml").write_text(_ALONE)
    compose = ("podman-compose", "-p", "example", "-f", COMPOSE, "-f", folder / "alone.yaml")
    engine.run(*compose, "up", "--detach", "--no-build")
    try:
        yield
    finally:
        engine.run(*compose, "down", "--timeout", "5")


def test_the_app_of_the_compose_file_never_fails_over_three_lifetimes_of_a_token(
    engine: Engine, tmp_path: Path
) -> None:
    with composed(engine, tmp_path):
        until = time.monotonic() + LIMIT_S
        tokens: list[str] = []
        while len(tokens) <= LIFETIMES:
            assert time.monotonic() < until, engine.log("example_app_1")
            time.sleep(1)
            lines = engine.log("example_app_1").splitlines()
            answers = lines[next((n for n, line in enumerate(lines) if line.startswith("200")), len(lines)) :]
            assert [line for line in answers if not line.startswith("200 ")] == []
            tokens = list(dict.fromkeys(re.findall('"token_fingerprint": "([0-9a-f]+)"', "\n".join(answers))))
        assert engine.health("example_bearerd_1") == 0


@pytest.mark.parametrize("name", sorted(path.name for path in (PROJECT / "docker/kubernetes").iterdir()))
def test_a_manifest_is_what_kubernetes_knows(name: str) -> None:
    path = PROJECT / "docker" / "kubernetes" / name
    validate = ("kubernetes-validate", "--strict", "-k", "1.30", str(path))
    ended = subprocess.run(validate, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
