"""A page of the recipes followed: its routes by a real bearerd, its files and commands in a folder, with real clients.

What a page shows as addresses of servers is put for those of a test, and bearerd's own port for the one that the system gave.
"""

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blocks import Block, find_block, follow
from daemons import RunningDaemon
from oidc_peer import BASIC_CLIENT, OidcPeer

PROJECT: Final = Path(__file__).parent.parent.parent
PAGES: Final = PROJECT / "docs" / "recipes"
PYTHON_CLIENTS: Final = PROJECT / ".make" / "recipes-venv" / "bin"
PROGRAMS: Final = PROJECT / "tests" / "peers" / "recipes"
NODE_CLIENTS: Final = PROGRAMS / "node_modules" / ".bin"
BEARERD: Final = "127.0.0.1:6750"
STATIC: Final = '[accounts.work]\ntoken = "a-token"\n'
"""For what no renewal has a part in: an account of `TOKEN`."""
TOKEN: Final = "a-token"


@dataclass(frozen=True)
class Recipe:
    """A page whose routes `daemon` serves. Its commands run in `folder`."""

    page: Path
    folder: Path
    daemon: RunningDaemon

    def write(self, name: str, file: str = "") -> Path:
        """The file of the block of that name."""
        path = self.folder / (file or name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._block(name).text, encoding="utf-8")
        return path

    async def run(self, name: str, **variables: str) -> list[str]:
        """What each command of the block of that name prints. Fails as `blocks.follow` does."""
        return await follow(self._block(name), self.folder, PATH=clients(), **variables)

    async def follow(self, command: str, **variables: str) -> str:
        """What a command that is not on the page prints. Fails as `blocks.follow` does."""
        block = Block("sh", f"{command}\n", "", 0)
        return (await follow(block, self.folder, PATH=clients(), **variables))[0]

    async def python(self, name: str, **variables: str) -> str:
        """What the program of the block of that name prints. Fails as `blocks.follow` does."""
        self.write(name)
        return await self.follow(f"python {name}", **variables)

    def _block(self, name: str) -> Block:
        return find_block(self.page, name).put_shown({BEARERD: f"127.0.0.1:{self.daemon.port}"})


@asynccontextmanager
async def following(
    page: str, folder: Path, account: str, servers: Mapping[str, str], *routes: str, more: str = ""
) -> AsyncIterator[Recipe]:
    """The page of that name, with `account`, a table of it, and its blocks `routes`, by default the one called ``route.toml``.

    `servers` has the address of a server in place of each that the routes show. `more` is added to the last route. The
    configuration is in `folder`, and commands run where the fixture `here` says, below it.
    """
    path = PAGES / f"{page}.md"
    shown = [find_block(path, route).put(servers).text for route in routes or ("route.toml",)]
    async with RunningDaemon(folder, account + "\n".join(shown) + more) as daemon:
        yield Recipe(path, folder / "home" / "here", daemon)


def account_of(peer: OidcPeer, folder: Path) -> str:
    """The account of the first page, at a real authorization server."""
    secret = folder / "secret"
    secret.write_text(BASIC_CLIENT.client_secret)
    real = {
        "/run/secrets/my-client": str(secret),  # before the name of the client, which is in it
        "my-client": BASIC_CLIENT.client_id,
        "https://login.example.com": peer.issuer,
    }
    return find_block(PAGES / "index.md", "account.toml").put(real).text


def clients() -> str:
    """Where programs are found: those of the recipes first. Raises RuntimeError where these are not installed."""
    for needed in (PYTHON_CLIENTS / "python", NODE_CLIENTS / "newman"):
        if not needed.exists():
            raise RuntimeError(f"{needed.name}, a client of the recipes, is not installed: run make test")
    own = Path(sys.executable).parent  # bearerd's own command
    return os.pathsep.join(map(str, (PYTHON_CLIENTS, NODE_CLIENTS, PROGRAMS, own, os.environ["PATH"])))
