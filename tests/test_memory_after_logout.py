"""Threat 9: after a logout nothing that the daemon can reach has the token any more, nor what it was had by."""

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

import canaries
from login_server import LoginServer
from login_world import Browser
from upstreams import ApiUpstream, accept_any_of

pytestmark = pytest.mark.threat(9)

PROGRAM: Final = Path(__file__).parent / "memory_of_a_daemon.py"
LIMIT_S: Final = 60.0


class Watched:
    """A daemon in a process that looks through all its objects when it is asked to."""

    def __init__(self, process: Process, port: int) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{port}"

    async def find(self) -> list[str]:
        """What in it has a canary: the object's type, and the types of those that lead to it."""
        needles = sorted({canaries.MARK, *canaries._known})
        await _say(self._process, [needle[::-1] for needle in needles])
        return [str(line) for line in await _hear(self._process)]


async def _say(process: Process, words: list[str]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(words).encode() + b"\n")
    await process.stdin.drain()


async def _hear(process: Process) -> Any:
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT_S):
        line = await process.stdout.readline()
    assert line, "the daemon has ended"
    return json.loads(line)


@asynccontextmanager
async def watched(server: LoginServer, api: ApiUpstream, loop: str, *options: str) -> AsyncIterator[Watched]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAM), server.issuer, api.url, loop, *options), stdin=PIPE, stdout=PIPE
    )
    try:
        yield Watched(process, await _hear(process))
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_no_object_has_the_token_after_a_logout(loop: str) -> None:
    """By way of all that has held it: calls that went the short way and others, a replay, a tunnel's refusal, a refresh."""
    async with (
        LoginServer() as server,
        ApiUpstream(accept_any_of(server.valid)) as api,
        watched(server, api, loop) as daemon,
        Browser() as browser,
        aiohttp.ClientSession() as client,
    ):
        page = await browser.go(f"{daemon.url}/-/login/me")
        back = await browser.go(page.location)
        assert (await browser.follow(back.location)).status == 200
        await call(client, daemon.url)
        server.valid.clear()
        await call(client, daemon.url)
        assert await daemon.find(), "it has a token now"
        status = await browser.go(f"{daemon.url}/-/")
        csrf = re.search(r'name="csrf" value="([^"]+)"', status.source)
        assert csrf
        gone = await browser.post(f"{daemon.url}/-/logout/me", {"csrf": csrf[1]})
        assert gone.status == 303, gone.text
        assert server.revoked == ["refresh_token"]
        assert await daemon.find() == []


async def call(client: aiohttp.ClientSession, url: str) -> None:
    """In several ways, on connections that stay open."""
    for method, data in (("GET", None), ("POST", b"x" * 10_000), ("PUT", iterate())):
        async with client.request(method, f"{url}/me/x?a=b", data=data) as response:
            assert response.status == 200
            await response.read()
    async with client.get(
        f"{url}/me/x", headers={"Upgrade": "websocket", "Connection": "upgrade"}
    ) as response:
        await response.read()


async def iterate() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b"part"
