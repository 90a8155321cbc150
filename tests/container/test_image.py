"""What the image is made of."""

import time

from bearerd import __version__
from containers import IMAGE, PYTHON, Engine

ADDED = 80 << 20  # bytes that it may have beside its base


def test_it_is_small(engine: Engine) -> None:
    size, base = (engine.inspect("image", name)["Size"] for name in (IMAGE, PYTHON))
    assert 0 < size - base < ADDED


def test_it_runs_as_nobody_who_is_known_and_without_a_shell(engine: Engine) -> None:
    config = engine.inspect("image", IMAGE)["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["bearerd"]
    assert config["Cmd"] == ["run"]
    assert config["StopSignal"] == "SIGTERM"
    assert engine.inspect("image", IMAGE)["Healthcheck"]["Test"] == ["CMD", "bearerd", "healthcheck"]
    assert config["Labels"]["org.opencontainers.image.title"] == "bearerd"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["Labels"]["org.opencontainers.image.version"] == __version__


def test_what_it_runs_is_this_version(engine: Engine) -> None:
    said = engine.podman("run", "--rm", "--network=none", IMAGE, "--version")
    assert said == f"bearerd, version {__version__}\n"


def test_nothing_in_it_is_that_user_s_to_change_and_no_installer_is_left(engine: Engine) -> None:
    find = ("run", "--rm", "--network=none", "--entrypoint=find", IMAGE, "/opt/bearerd")
    assert engine.podman(*find, "-writable").split() == []
    assert engine.podman(*find, "-name", "pip").split() == []
    assert engine.podman(*find, "-name", "cli").split() != []


def test_nothing_it_runs_is_compiled_anew_each_time(engine: Engine) -> None:
    """Root, who is let write bytecode here, has none to write: not for a daemon, nor for what checks and asks it."""
    let = ("--user=0", "--network=none", "-e", "PYTHONDONTWRITEBYTECODE=")
    name = engine.podman("run", "--detach", *let, IMAGE, "demo").strip()
    try:
        until = time.monotonic() + 60
        while engine.health(name) != 0:
            assert time.monotonic() < until, engine.log(name)
            time.sleep(0.2)
        engine.podman("exec", name, "bearerd", "status")
        changed = engine.podman("diff", name).splitlines()
    finally:
        engine.podman("rm", "--force", "--time=1", name)
    assert [line for line in changed if "__pycache__" in line] == []


def test_a_volume_for_logins_is_that_user_s(engine: Engine) -> None:
    """Though nobody has said so: what is mounted there is made after the folder of the image."""
    keep = ("key", "create", "app")
    given = ("-e", "BEARERD_ACCOUNTS__ANY__TOKEN=none", "-e", "BEARERD_UPSTREAM=https://api.example.com")
    mounted = ("--rm", "--read-only", "--network=none", "--volume=bearerd-data:/var/lib/bearerd")
    try:
        engine.podman("run", *mounted, *given, IMAGE, *keep)
        assert engine.podman("run", *mounted, *given, IMAGE, "key", "list").startswith("app ")
    finally:
        engine.podman("volume", "rm", "bearerd-data")
