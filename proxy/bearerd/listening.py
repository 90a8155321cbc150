"""Sockets that nobody else shares, on literal addresses of this machine."""

import asyncio
import errno
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from bearerd.errors import CannotListen

WAITING: Final = 1024
"""How many connections the system keeps until they are accepted."""
# Who has made a Unix socket takes its name away. From Python 3.13 on the event loop would, of one that was handed over too.
_NAMED: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
_NO_FAMILY: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_REASONS: Final = {
    errno.EADDRINUSE: "is in use by another program",
    errno.EACCES: "needs privileges",
}


def open_sockets(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Listen on every address, all on one port; 0 lets the system choose it.

    An address of a family that this machine lacks is left out, and there may be none left; one in use is fatal,
    since another program would get what is meant for us. Raises CannotListen; nothing is open then.
    """
    sockets: list[socket.socket] = []
    for host in hosts:
        try:
            sock = _open(host, port)
        except OSError as exc:
            if exc.errno in _NO_FAMILY:
                continue
            for opened in sockets:
                opened.close()
            reason = _REASONS.get(exc.errno or 0, "cannot be listened on")
            raise CannotListen(f"{port} on {host} {reason}", exc.errno or 0) from None
        port = sock.getsockname()[1]
        sockets.append(sock)
    return sockets


async def accept_from(
    sockets: Sequence[socket.socket], build: Callable[[], asyncio.Protocol]
) -> list[asyncio.Server]:
    """Have `build` make a protocol for each connection.

    They are accepted one at a time. asyncio's own event loop would otherwise take 100 before anybody can count the
    first, and they could have all the descriptors there are.
    """
    loop = asyncio.get_running_loop()
    servers = []
    for sock in sockets:
        inet = sock.family in {socket.AF_INET, socket.AF_INET6}
        create: Callable[..., Awaitable[asyncio.Server]] = (
            loop.create_server if inet else partial(loop.create_unix_server, **_NAMED)
        )
        servers.append(await create(build, sock=sock, backlog=1))
        sock.listen(WAITING)  # the system is told the loop's number too
    return servers


async def accept_no_more(servers: Iterable[asyncio.Server]) -> None:
    """Accept no more. Who has been accepted by now is connected.

    asyncio's own event loop makes the transport of a connection one turn after it has accepted it, and drops the
    connection where the server was closed in between.
    """
    loop = asyncio.get_running_loop()
    for server in servers:
        for sock in server.sockets:
            with suppress(NotImplementedError):  # Windows: accepted and connected in one
                loop.remove_reader(sock.fileno())
    await asyncio.sleep(0)
    for server in servers:
        server.close()


def _open(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":  # without it another process can take the port over
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(WAITING)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
