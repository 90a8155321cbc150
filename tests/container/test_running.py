"""The image as a sidecar: hardened as the examples have it, on real sockets, until it is stopped."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from aiohttp import web

from containers import IMAGE, Engine, check_confined
from faults import refused_port

GRACE_S: Final = 15
_SETTINGS: Final = """
[listen]
hosts = ["127.0.0.1"]
port = {port}
peer_uid = "any"
[accounts.work]
token = "the-token-of-the-image"
[routes."/"]
upstream = "http://127.0.0.1:{upstream}"
"""


class Api:
    """Answers with the credential it has seen; /slow as soon as it is let."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.let = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/slow":
            self.asked.set()
            await self.let.wait()
        return web.Response(text=request.headers["Authorization"])


@pytest.fixture
async def api() -> AsyncIterator[tuple[Api, int]]:
    api = Api()
    application = web.Application()
    application.router.add_get("/{path:.*}", api.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield api, runner.addresses[0][1]
    await runner.cleanup()


async def until_healthy(engine: Engine, name: str) -> None:
    async with asyncio.timeout(60):
        while engine.health(name) != 0:
            assert engine.inspect("container", name)["State"]["Running"], engine.log(name)
            await asyncio.sleep(0.2)


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_it_serves_without_root_capabilities_or_anything_to_write_to_and_ends_in_order(
    engine: Engine, api: tuple[Api, int], tmp_path: Path
) -> None:
    upstream, upstream_port = api
    port = refused_port()
    file = tmp_path / "bearerd.toml"
    file.write_text(_SETTINGS.format(port=port, upstream=upstream_port))
    with engine.running(f"--volume={file}:/etc/bearerd/bearerd.toml:ro", IMAGE) as name:
        await until_healthy(engine, name)
        assert await get(f"http://127.0.0.1:{port}/hello") == (200, "Bearer the-token-of-the-image")
        check_confined(engine, name)

        slow = asyncio.create_task(get(f"http://127.0.0.1:{port}/slow"))
        await upstream.asked.wait()
        stopping = asyncio.create_task(asyncio.to_thread(engine.podman, "stop", f"--time={GRACE_S}", name))
        await until_refused(port)
        upstream.let.set()
        assert await slow == (200, "Bearer the-token-of-the-image")
        await stopping
        assert engine.inspect("container", name)["State"]["ExitCode"] == 0
        events = [json.loads(line) for line in engine.log(name).splitlines() if line.startswith("{")]
        assert events[-1]["event"] == "daemon.stopped"


async def until_refused(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            writer.close()
            await asyncio.sleep(0.05)
