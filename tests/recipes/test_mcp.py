"""An MCP client at an MCP server that wants tokens, both of the protocol's own SDK, as the page has it."""

import asyncio
import json
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from oidc_peer import RESOURCE_SERVER, OidcPeer
from recipes.recipe import PROGRAMS, PYTHON_CLIENTS, STATIC, account_of, clients, following

SERVER = "https://mcp.example.com"
PROGRAM = PROGRAMS / "mcp_server.py"
START_S = 60.0


@asynccontextmanager
async def serving(peer: OidcPeer) -> AsyncIterator[str]:
    """The address of a server of `PROGRAM`, for tokens of `peer`."""
    clients()  # are there
    process = await asyncio.create_subprocess_exec(
        PYTHON_CLIENTS / "python", PROGRAM, stdin=PIPE, stdout=PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        settings = {
            "issuer": peer.issuer,
            "introspection": peer.introspection_endpoint,
            "client_id": RESOURCE_SERVER.client_id,
            "client_secret": RESOURCE_SERVER.client_secret,
        }
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        async with asyncio.timeout(START_S):
            port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def test_a_tool_is_called(tmp_path: Path) -> None:
    async with OidcPeer() as peer, serving(peer) as server:
        account = account_of(peer, tmp_path)
        async with following("mcp", tmp_path, account, {SERVER: server}) as recipe:
            assert await recipe.python("call.py") == "{'result': 5}\n"


@pytest.mark.soak
async def test_a_token_that_the_server_does_not_take(tmp_path: Path) -> None:
    """The server's refusal comes to the client as it is."""
    async with (
        OidcPeer() as peer,
        serving(peer) as server,
        following("mcp", tmp_path, STATIC, {SERVER: server}) as recipe,
    ):
        with pytest.raises(AssertionError, match=r"ended with 1:(.|\n)*Server returned an error"):
            await recipe.python("call.py")
