"""What the image is made of."""

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


def test_what_it_runs_is_this_version(engine: Engine) -> None:
    said = engine.podman("run", "--rm", "--network=none", IMAGE, "--version")
    assert said == f"bearerd, version {__version__}\n"


def test_nothing_in_it_is_that_user_s_to_change_and_no_installer_is_left(engine: Engine) -> None:
    find = ("run", "--rm", "--network=none", "--entrypoint=find", IMAGE, "/opt/bearerd")
    assert engine.podman(*find, "-writable").split() == []
    assert engine.podman(*find, "-name", "pip").split() == []
    assert engine.podman(*find, "-name", "cli").split() != []
