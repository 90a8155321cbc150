"""Uploads as large as may be kept, several at once: each is sent again whole, from disk and not from memory."""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from daemons import RunningDaemon
from upstreams import ApiUpstream

pytestmark = pytest.mark.soak

MiB: Final = 1 << 20
SIZE: Final = 64 * MiB
UPLOADS: Final = 4
PIECE: Final = bytes(range(256)) * 256
SLOWEST_S: Final = 1.0  # of a small call beside them


async def body() -> AsyncIterator[bytes]:
    for _ in range(SIZE // len(PIECE)):
        yield PIECE


async def ask_beside(session: aiohttp.ClientSession, url: str) -> float:
    """The longest that a small call takes, until this is cancelled."""
    slowest_s = 0.0
    try:
        while True:
            began_at = time.monotonic()
            async with session.get(f"{url}/-/livez") as response:
                assert response.status == 200
            slowest_s = max(slowest_s, time.monotonic() - began_at)
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        return slowest_s


async def test_uploads_of_64_mib_are_sent_again_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tokens: list[str] = []

    async def check(token: str) -> bool:
        """The first token is not taken."""
        if token not in tokens:
            tokens.append(token)
        return token != tokens[0]

    digest = hashlib.sha256(b"".join([piece async for piece in body()])).hexdigest()
    async with ApiUpstream(check) as api, aiohttp.ClientSession() as session:
        toml = (
            '[accounts.work]\ncommand = ["sh", "-c", "echo $$"]\n'
            f'[routes."/"]\nspool = "disk"\nupstream = "{api.url}"\n'
        )
        async with RunningDaemon(tmp_path, toml) as daemon:
            beside = asyncio.create_task(ask_beside(session, daemon.url))

            async def upload() -> str:
                async with session.post(f"{daemon.url}/x", data=body()) as response:
                    assert response.status == 200
                    answer = await response.json()
                return str(answer["body_sha256"])

            digests = await asyncio.gather(*(upload() for _ in range(UPLOADS)))
            beside.cancel()
            slowest_s = await beside
            peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{daemon.pid}/status").read_text())
            assert list((tmp_path / "bearerd" / "bodies").iterdir()) == []
    assert digests == [digest] * UPLOADS
    assert api.unauthorized >= 1
    assert len(api.calls) == UPLOADS + api.unauthorized
    assert peak is not None
    assert int(peak[1]) << 10 < 2 * SIZE
    assert slowest_s < SLOWEST_S
