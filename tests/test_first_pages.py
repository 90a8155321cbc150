"""A new user, who does what README.md and docs/start.md say and nothing else: against the demo, and against a real provider."""

import json
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from blocks import Block, Step, Window, find_block, follow, pattern, read_blocks, read_steps, trim
from browser import browsing
from commands import CTRL_C
from faults import refused_port
from oidc_peer import APP_CLIENT, BASIC_CLIENT, OidcPeer
from upstreams import ApiUpstream

PROJECT: Final = Path(__file__).parent.parent
README: Final = PROJECT / "README.md"
START: Final = PROJECT / "docs" / "start.md"
TROUBLE: Final = PROJECT / "docs" / "troubleshooting.md"
SHELLS: Final = {"console", "sh", "bash"}
LIFETIME_S: Final = 3_540  # "in 58 min"
LATELY: Final = {"55 min": "… min", "5 min ago": "…"}


@dataclass(frozen=True)
class NewUser:
    """Somebody with an empty home. bearerd is on a free port in place of its own, and so it is in what the pages show."""

    home: Path
    runtime: Path
    port: int

    @property
    def variables(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_DATA_HOME": str(self.home / ".local" / "share"),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "BEARERD_LISTEN__PORT": str(self.port),
        }

    @property
    def file(self) -> Path:
        return self.home / ".config" / "bearerd" / "bearerd.toml"

    def sees(self, page: Path, name: str, **others: str) -> Block:
        """A block of the page as it is for this user. `others` are further texts of the page and what is real here."""
        block = find_block(page, name)
        real = {
            " and http://[::1]:6750": "…",  # where there is no IPv6, there is no such address
            "127.0.0.1:6750": f"127.0.0.1:{self.port}",
            "/home/me": str(self.home),
            "process 4711": "process …",
        } | others
        return block.put(
            {shown: text for shown, text in real.items() if shown in block.text or shown in others}
        )


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NewUser]:
    for name in [name for name in os.environ if name.startswith("BEARERD_")]:
        monkeypatch.delenv(name)
    with tempfile.TemporaryDirectory(prefix="run-") as runtime:
        yield NewUser(tmp_path, Path(runtime), refused_port())


@asynccontextmanager
async def goes_on(step: Step, user: NewUser) -> AsyncIterator[Window]:
    """A command that runs in a terminal of its own, once all is there that the page shows, until Ctrl-C."""
    async with Window(step, user.home, **user.variables) as window:
        await window.until(pattern(step.output))
        yield window
        window.type(CTRL_C)
        assert await window.end() == 0


def only_step(block: Block) -> Step:
    (step,) = read_steps(block)
    return step


@pytest.mark.parametrize("page", [README, START, TROUBLE], ids=lambda page: page.name)
def test_each_command_is_run_or_it_is_said_why_not(page: Path) -> None:
    """Each name below is used by a test, which fails where the page has no such block."""
    blocks = [block for block in read_blocks(page.read_text(encoding="utf-8")) if block.language in SHELLS]
    assert [block.line for block in blocks if not block.name and not block.reason] == []
    used = set(
        re.findall(r'(?:find_block|sees)\((\w+), "([^"]+)"', Path(__file__).read_text(encoding="utf-8"))
    )
    variable = {README: "README", START: "START", TROUBLE: "TROUBLE"}[page]
    assert {block.name for block in blocks if block.name} <= {
        name for where, name in used if where == variable
    }


async def test_from_make_run_to_a_call_that_survives_its_token(user: NewUser) -> None:
    """What `make run` runs, when it has installed what that needs. And whose an error is, as troubleshooting shows it."""
    shown = only_step(find_block(README, "demo"))
    assert shown.command == "make run"
    recipe = re.search(r"(?m)^run:.*\n\t@exec \$\(BIN\)/(.*)$", (PROJECT / "Makefile").read_text())
    assert recipe is not None
    async with goes_on(Step(f"{recipe[1]} --port {user.port}", shown.output), user):
        another_time = dict.fromkeys(("59.6", "60.0", "ccc3acd48883", "e1f11b2b7ab4"), "…")
        first, _, last = await follow(user.sees(README, "calls", **another_time), user.home, **user.variables)
        await follow(user.sees(TROUBLE, "whose"), user.home, **user.variables)
    assert json.loads(first)["token_fingerprint"] != json.loads(last)["token_fingerprint"]


async def test_a_service_of_one_s_own(user: NewUser) -> None:
    """The five minutes of the first page."""
    async with OidcPeer(access_token_s=LIFETIME_S) as peer, ApiUpstream(peer.introspect) as api:
        real = {"https://api.example.com/v1": f"{api.url}/v1"}
        server = {"https://login.example.com": peer.issuer, "my-service": BASIC_CLIENT.client_id}
        configuration = user.sees(README, "configuration", **real, **server)
        await follow(user.sees(README, "folder"), user.home, **user.variables)
        user.file.write_text(configuration.text)
        (user.file.parent / "client-secret").write_text(BASIC_CLIENT.client_secret)
        await follow(user.sees(README, "check", **server), user.home, **user.variables)
        async with goes_on(only_step(user.sees(README, "service", **real)), user):
            await follow(user.sees(README, "first call", **LATELY), user.home, **user.variables)
        assert [call.raw_path for call in api.calls] == ["/v1/models"]
        assert api.unauthorized == 0


class TestStart:
    """docs/start.md, from nothing to a call, with a provider that has forms and a browser that fills them in."""

    async def test_from_nothing_to_a_call(self, user: NewUser) -> None:
        async with OidcPeer(access_token_s=LIFETIME_S) as peer, ApiUpstream(peer.introspect) as api:
            upstream = {"https://api.example.org/v1": f"{api.url}/v1"}
            await follow(user.sees(START, "version"), user.home, **user.variables)
            server = {"https://login.example.org": peer.issuer, "my-cli": APP_CLIENT.client_id}
            port = {"127.0.0.1:6750": "127.0.0.1:6750"}  # that of the file, which the variable is not in
            await answer(only_step(user.sees(START, "init", **upstream, **server, **port)), user)
            with user.file.open("a") as file:
                file.write(user.sees(START, "key").text)
            await follow(user.sees(START, "check", **server), user.home, **user.variables)
            async with goes_on(only_step(user.sees(START, "run", **upstream)), user):
                await log_in(only_step(user.sees(START, "login")), user)
                await follow(user.sees(START, "call", **LATELY), user.home, **user.variables)
                await follow(user.sees(START, "exec"), user.home, **user.variables)
                await follow(user.sees(START, "token", **upstream), user.home, **user.variables)
                await follow(Block("sh", "bearerd refresh work", "", 0), user.home, **user.variables)
            assert [call.raw_path for call in api.calls] == ["/v1/hello"] * 3
            assert api.unauthorized == 0


async def answer(step: Step, user: NewUser) -> None:
    """Type what the page has behind each question; then all of it is on the screen, as the page has it."""
    lines = step.output.partition("\nwrote ")[0].splitlines()
    async with Window(step, user.home, **user.variables) as window:
        for line in lines:
            if not line.startswith(" "):
                question, _, typed = f"{line} ".rpartition(": ")
                await window.until(re.escape(f"{question}: "))
                window.type(f"{typed.strip()}\n")
        assert await window.end() == 0
        assert re.fullmatch(pattern(step.output), trim(window.shown)), window.shown


async def log_in(step: Step, user: NewUser) -> None:
    """In the browser that the command opens, at the provider's own forms."""
    opened = user.home / "opened"
    program = user.home / "browser"
    program.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    program.chmod(0o700)
    async with (
        Window(step, user.home, **user.variables, BROWSER=str(program)) as window,
        browsing() as tab,
    ):
        page = tab.page
        await page.goto(await window.until(r"\n(http://\S+)\n"))
        await page.get_by_placeholder("Enter any login").fill("you@example.org")
        await page.get_by_placeholder("and password").fill("any")
        await page.get_by_role("button", name="Sign-in").click()
        await page.get_by_role("button", name="Continue").click()
        await page.get_by_role("heading", name="You are logged in").wait_for()
        assert await window.end() == 0
        assert re.fullmatch(pattern(step.output), trim(window.shown)), window.shown
        assert opened.read_text().strip() in window.shown
