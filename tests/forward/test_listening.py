"""Who has been accepted is connected, whenever listening ends."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, cast

from bearerd.listening import accept_from, accept_no_more, open_sockets
from patience import within

CLIENTS: Final = 40


class Welcome(asyncio.Protocol):
    """Says so, and that is all."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        writing = cast(asyncio.Transport, transport)
        writing.write(b"hi")
        writing.close()


@contextmanager
def waiting(port: int) -> Iterator[list[socket.socket]]:
    """Clients that the system has connected, and that nobody has accepted yet."""
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(CLIENTS)]
        for client in clients:
            client.setblocking(False)
        yield clients


async def is_welcome(client: socket.socket) -> bool:
    async with within(5):
        try:
            return await asyncio.get_running_loop().sock_recv(client, 2) == b"hi"
        except ConnectionResetError:
            return False


async def test_nobody_is_dropped_between_having_been_accepted_and_being_connected() -> None:
    accepted, begun = 0, asyncio.Event()

    def accept() -> Welcome:
        nonlocal accepted
        accepted += 1
        begun.set()
        return Welcome()

    (sock,) = open_sockets(("127.0.0.1",), 0)
    servers = await accept_from([sock], accept)
    with waiting(sock.getsockname()[1]) as clients:
        await begun.wait()
        await accept_no_more(servers)
        welcome = [await is_welcome(client) for client in clients]
    assert 0 < welcome.count(True) == accepted
