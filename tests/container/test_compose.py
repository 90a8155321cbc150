"""The compose example, as it stands: an app that knows nothing of OAuth, its sidecar, and the demo's servers."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from container_apps import KEY, answers_in, ask_from, check_neighbour, check_powerless, failures_in, tokens_in
from containers import PROJECT, PYTHON, Engine, check_confined

LIFETIME_S: Final = 10.0  # as compose.yaml has it
LIFETIMES: Final = 3
LIMIT_S: Final = 180.0
URL: Final = "http://127.0.0.1:6750"
API: Final = "http://127.0.0.1:6761"
APP: Final = "example_app_1"
SIDECAR: Final = "example_bearerd_1"
# There is no bridge here that containers could meet on. They need none: what they share is the sidecar's loopback.
_ALONE: Final = "services: {bearerd: {network_mode: none}}\n"


@dataclass
class Example:
    """The example while it runs, and the key that was made for its app."""

    engine: Engine
    key: str

    def wait_for(self, answers: int) -> str:
        """The app's log, when it has so many answers in it."""
        until = time.monotonic() + LIMIT_S
        while len(answers_in(log := self.engine.log(APP))) < answers:
            assert time.monotonic() < until, log + self.engine.log(SIDECAR)
            time.sleep(0.5)
        return log


@pytest.fixture(scope="module")
def example(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """Started as the first lines of compose.yaml say, in a copy of its folder."""
    folder = tmp_path_factory.mktemp("example") / "docker"
    shutil.copytree(PROJECT / "docker", folder)
    (folder / "alone.yaml").write_text(_ALONE)
    compose = ("podman-compose", "-p", "example", "-f", folder / "compose.yaml", "-f", folder / "alone.yaml")
    secret = folder / "secrets" / "app-key"
    secret.touch()
    try:
        made = engine.run(
            *compose, "run", "--rm", "-T", "bearerd", "key", "create", "app", "--route", "/"
        ).strip()
        assert KEY.fullmatch(made), made
        secret.write_text(f"{made}\n")
        engine.run(*compose, "up", "--detach", "--no-build")
        yield Example(engine, made)
    finally:
        engine.run(*compose, "down", "--volumes", "--timeout", "5")


def test_no_call_of_the_app_fails_over_three_lifetimes_of_a_token(example: Example) -> None:
    """The API refuses a token whose time is over, so each lifetime needs another one."""
    example.wait_for(1)
    began = time.monotonic()
    log = ""
    while time.monotonic() < began + LIFETIMES * LIFETIME_S or len(tokens_in(log)) <= LIFETIMES:
        log = example.wait_for(len(answers_in(log)) + 1)
        assert failures_in(log) == []
        assert time.monotonic() < began + LIMIT_S, log
    assert example.engine.health(SIDECAR) == 0


def test_the_app_s_neighbours_can_do_nothing_without_its_key_and_it_can_do_nothing_but_call(
    example: Example,
) -> None:
    example.wait_for(1)
    check_neighbour(example.engine, APP, URL, example.key)
    check_powerless(example.engine, APP)


def test_the_api_lets_nobody_in_without_the_sidecar_s_token(example: Example) -> None:
    example.wait_for(1)
    questions = [(f"{API}/hello", {}), (f"{API}/hello", {"Authorization": f"Bearer {example.key}"})]
    assert [status for status, _ in ask_from(example.engine, APP, questions)] == [401, 401]


def test_a_container_that_does_not_share_the_network_finds_nobody(example: Example) -> None:
    example.wait_for(1)
    stranger = example.engine.podman(
        "run", "--detach", "--rm", "--network=none", PYTHON, "sleep", "300"
    ).strip()
    try:
        ((status, why),) = ask_from(example.engine, stranger, [(f"{URL}/-/livez", {})])
    finally:
        example.engine.podman("rm", "--force", "--time=0", stranger)
    assert (status, "refused" in why) == (0, True)


def test_the_sidecar_is_confined_and_its_secret_is_not_the_app_s(example: Example) -> None:
    example.wait_for(1)
    check_confined(example.engine, SIDECAR)
    assert example.engine.podman("exec", APP, "ls", "/run/secrets").split() == ["app-key"]
