"""A guide's blocks, with the servers and the port of a test in place of those that the guide shows."""

import asyncio
import os
import signal
import ssl
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

import canaries
from blocks import Block, environment_with, find_block, follow
from commands import Ended

GUIDES: Final = Path(__file__).parent.parent.parent / "docs" / "guides"
LOGIN: Final = "https://login.example.com"
API: Final = "https://api.example.com/v1"
HERE: Final = "127.0.0.1:6750"
LIMIT_S: Final = 120.0


@dataclass(frozen=True)
class Guide:
    """The guide of that name. Its commands run in `folder`; `places` has what is put for what it shows, where it does."""

    name: str
    folder: Path
    places: Mapping[str, str]

    @property
    def page(self) -> Path:
        return GUIDES / f"{self.name}.md"

    def block(self, name: str) -> Block:
        return find_block(self.page, name).put_shown(self.places)

    async def follow(self, name: str, **variables: str) -> list[str]:
        """What each command of the block prints. Fails where one fails, or prints something else than is shown."""
        return await follow(self.block(name), self.folder, **variables)


async def run_script(script: str, folder: Path, **variables: str) -> Ended:
    """As a step of a job, or a person, runs it: however it ends."""
    canaries.know_variables(variables)
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script),
        cwd=folder,
        env=environment_with(variables),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            out, err = await process.communicate()
    except TimeoutError:  # with what it has left in the background, which holds its output open
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def served(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]], context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """The port where each request gets what `answer` says."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
