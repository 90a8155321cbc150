"""Somebody else's attacker: Debian's slowhttptest, while others go on calling (threat 18)."""

import asyncio
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from typing import Final

import pytest

from callers import connected
from daemons import RunningDaemon
from recorders import Recorder

TOML: Final = """
[limits]
header_read = "2s"
body_idle = "2s"
[accounts.work]
token = "the-token"
[routes."/"]
upstream = "{url}"
"""
LENGTH_S: Final = 15
COMMON: Final = ("-c", "400", "-r", "100", "-i", "1", "-l", str(LENGTH_S), "-p", "5")
MODES: Final = {
    "slow heads": ("-H",),
    "slow bodies": ("-B", "-s", "65536"),
    "slow readers": ("-X", "-w", "1", "-y", "2", "-z", "1", "-k", "3"),
}


async def attack(url: str, mode: tuple[str, ...]) -> str:
    """What the attacker says in the end, without colours."""
    program = shutil.which("slowhttptest")
    if program is None:
        raise RuntimeError("slowhttptest is not installed and this test needs it: run make soak")
    process = await asyncio.create_subprocess_exec(
        program, *mode, *COMMON, "-u", f"{url}/slow", stdin=DEVNULL, stdout=PIPE
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", said.decode())


@pytest.mark.soak
@pytest.mark.threat(18)
@pytest.mark.parametrize("mode", MODES)
async def test_slow_clients_leave_room_for_others(tmp_path: Path, mode: str) -> None:
    """Its own probes are answered, and so are calls on a connection that was there before."""
    calls = 0
    async with (
        Recorder() as upstream,
        RunningDaemon(tmp_path, TOML.format(url=upstream.url), tmp_path) as daemon,
        connected(daemon) as client,
    ):
        async with asyncio.TaskGroup() as tasks:
            attacking = tasks.create_task(attack(daemon.url, MODES[mode]))
            while not attacking.done():
                client.write("GET /other HTTP/1.1")
                assert (await client.answer()).endswith(b"hi")
                calls += 1
                await asyncio.sleep(0.05)
        said = attacking.result()
    assert calls
    assert re.findall(r"service available: +(\w+)", said)
    assert set(re.findall(r"service available: +(\w+)", said)) == {"YES"}, said
    if mode == "slow heads":
        assert "No open connections left" in said, said
