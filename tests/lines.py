"""A daemon in a process of its own before a recording upstream, and what one causes at the other."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemons import RunningDaemon
from faults import talk
from recorders import Recorder

TOML: Final = """
[accounts.work]
token = "the-token"
[routes."/"]
upstream = "{url}"
[routes."/based"]
upstream = "{url}/v1/%2F"
"""
PSEUDONYM: Final = re.compile(rb"bearerd-[0-9a-f]{16}")
_NEXT: Final = b"GET /next HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The statuses a client got, and what came upstream of it: requests, and beginnings of requests."""

    statuses: list[int]
    requests: list[bytes]
    fragments: list[bytes]


@dataclass(frozen=True, slots=True)
class Line:
    """`daemon` is what clients call, `upstream` what it calls. In bytes, `{host}` is the authority of either."""

    daemon: RunningDaemon
    upstream: Recorder

    @property
    def host(self) -> bytes:
        """The authority that clients name."""
        return b"localhost:%d" % self.daemon.port

    async def exchange(self, raw: bytes) -> Outcome:
        """Send `raw` on a connection of its own and take all that comes. What it caused upstream has arrived by then."""
        self.upstream.clear()
        answers = await talk(self.daemon.port, raw.replace(b"{host}", self.host))
        assert await talk(self.daemon.port, _NEXT.replace(b"{host}", self.host))
        *requests, last = [self.even(request) for request in self.upstream.requests]
        assert last.startswith(b"GET /next ")
        statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]
        return Outcome(statuses, requests, [self.even(fragment) for fragment in self.upstream.fragments])

    def even(self, request: bytes) -> bytes:
        """Without what is another one in each run: the pseudonym in Via, and the upstream's port."""
        host = b"Host: 127.0.0.1:%d" % self.upstream.port
        return PSEUDONYM.sub(b"bearerd-0", request).replace(host, b"Host: {host}")


@asynccontextmanager
async def laid(folder: Path) -> AsyncIterator[Line]:
    """A line, with a route for all and one, `/based`, to a base path."""
    async with Recorder() as upstream, RunningDaemon(folder, TOML.format(url=upstream.url)) as daemon:
        yield Line(daemon, upstream)
        assert "internal_error" not in daemon.log
