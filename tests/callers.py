"""A daemon before upstreams, and raw connections to it: what a call is on the wire, on either side."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final, Protocol

from bearerd.core.accounts import Account, CommandSource, Source, StaticSource
from bearerd.core.configuration import Configuration, Keys, Limits, Listen, Logging
from bearerd.core.field_rules import DEFAULT_RULES, FieldRules
from bearerd.core.redaction import Secret
from bearerd.core.rules import Rules
from bearerd.core.targets import DIRECT, Way, parse_route, sort_routes
from bearerd.core.upgrades import WEBSOCKET
from bearerd.daemon import Daemon
from faults import FaultServer, Step

FRESH: Final = CommandSource(
    ("sh", "-c", "sleep 0.2; echo $$"), 30
)  # another token each time, and not at once
ANOTHER: Final = CommandSource(("sh", "-c", "echo $$"), 30)  # likewise, as soon as it can be had
PATIENCE_S: Final = 15.0  # of a client: no test waits for as long, unless it fails
STATIC: Final = StaticSource(Secret("the-token"))


@asynccontextmanager
async def running(
    *upstreams: str,
    source: Source = STATIC,
    limits: Limits | None = None,
    cookies: bool = True,
    upgrades: frozenset[bytes] = WEBSOCKET,
    way: Way = DIRECT,
    response_idle_s: float | None = None,
    fields: FieldRules = DEFAULT_RULES,
    origins: frozenset[str] = frozenset(),
    rules: Rules | None = None,
    retry_statuses: frozenset[int] = frozenset({401}),
    disk_spool: bool = False,
    expect_continue: bool = True,
    keys: Keys | None = None,
    browser_app: bool = False,
    port: int = 0,
    log: Logging | None = None,
    listen: Listen | None = None,
) -> AsyncIterator[Daemon]:
    """A daemon with a route to each of `upstreams`, under /, /1, /2 ..."""
    routes = [
        replace(
            parse_route(f"/{n or ''}", url, "work"),
            cookies=cookies,
            upgrades=upgrades,
            way=way,
            response_idle_s=response_idle_s,
            fields=fields,
            rules=rules,
            retry_statuses=retry_statuses,
            disk_spool=disk_spool,
            expect_continue=expect_continue,
            browser_app=browser_app,
        )
        for n, url in enumerate(upstreams)
    ]
    daemon = Daemon(
        Configuration(
            accounts={"work": Account("work", source)},
            routes=sort_routes(routes),
            listen=listen or Listen(hosts=("127.0.0.1",), port=port, allowed_origins=origins),
            limits=limits or Limits(),
            keys=keys or Keys(),
            log=log or Logging(),
        )
    )
    await daemon.start()
    try:
        yield daemon
    finally:
        await daemon.stop(0.2)


class Listening(Protocol):
    """What of a daemon its clients know."""

    @property
    def port(self) -> int: ...


class Client:
    """One raw connection to the daemon."""

    def __init__(self, daemon: Listening, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.host = f"localhost:{daemon.port}"
        self.reader = reader
        self.writer = writer

    def write(self, start_line: str, *fields: str, body: bytes = b"") -> None:
        """Send a request with a good Host."""
        head = "\r\n".join([start_line, f"Host: {self.host}", *fields, "", ""])
        self.writer.write(head.encode("latin-1") + body)

    async def head(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, expected: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            assert await self.reader.readexactly(len(expected)) == expected

    async def answer(self) -> bytes:
        """One whole response that has a length."""
        head = await self.head()
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        async with asyncio.timeout(PATIENCE_S):
            return head + await self.reader.readexactly(int(length[1]) if length else 0)

    async def rest(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    async def problem(self) -> tuple[int, dict[str, Any]]:
        raw = await self.answer()
        head, _, body = raw.partition(b"\r\n\r\n")
        assert b"application/problem+json" in head
        return int(head.split()[1]), json.loads(body)


@asynccontextmanager
async def connected(daemon: Listening, *, limit: int = 1 << 16) -> AsyncIterator[Client]:
    """`limit` is how much the client takes, twice over, that the test has not read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port, limit=limit)
    try:
        yield Client(daemon, reader, writer)
    finally:
        writer.transport.abort()


async def warm(daemon: Daemon, count: int = 1) -> None:
    """Let the daemon have idle connections to the upstream of its first route, as after earlier calls."""
    route = daemon._configuration.routes[-1]
    pool = daemon._pool
    for connection in [await pool._connect(route.origin, route.way) for _ in range(count)]:
        pool.keep(connection)


@asynccontextmanager
async def pair(
    *scripts: Sequence[Step],
    base: str = "",
    source: Source = STATIC,
    limits: Limits | None = None,
    upgrades: frozenset[bytes] = WEBSOCKET,
    fields: FieldRules = DEFAULT_RULES,
    origins: frozenset[str] = frozenset(),
    browser_app: bool = False,
) -> AsyncIterator[tuple[Client, FaultServer]]:
    """A client connected to a daemon before an upstream that plays `scripts`; see `kept`."""
    async with (
        FaultServer(*scripts) as server,
        running(
            server.url + base,
            source=source,
            limits=limits,
            upgrades=upgrades,
            fields=fields,
            origins=origins,
            browser_app=browser_app,
        ) as daemon,
        connected(daemon) as client,
    ):
        if kept.get():
            await warm(daemon)
        yield client, server


kept: Final = ContextVar("kept", default=False)
"""Whether `pair` has a connection to the upstream already: the first call is then made without a task."""


def split(request: bytes) -> tuple[bytes, list[bytes], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    start_line, *fields = head.split(b"\r\n")
    return start_line, fields, body
