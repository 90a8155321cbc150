"""How soon a byte that came is passed on: in turns of the event loop, which all that takes part here shares."""

import asyncio
import socket

from callers import connected, running
from faults import FaultServer, Peer, read, send

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"9\r\ndata: x\n\n\r\n"
EVENTS = 20


class Turns:
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.count = 0
        self._handle = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self.count += 1
        self._handle = self._loop.call_soon(self._turn)

    def stop(self) -> None:
        self._handle.cancel()


async def turns_to_arrive(port: int, request: bytes, peers: list[Peer]) -> int:
    """The most turns from when an upstream sends an event until the client has it."""
    loop = asyncio.get_running_loop()
    most = 0
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setblocking(False)
        await loop.sock_sendall(sock, request)
        data = b""
        while not data.endswith(EVENT):
            data += await loop.sock_recv(sock, 65536)
        turns = Turns()
        for _ in range(EVENTS):
            receiving = asyncio.create_task(loop.sock_recv(sock, 65536))
            await asyncio.sleep(0)
            began = turns.count
            await peers[-1].send(EVENT)
            assert await receiving == EVENT
            most = max(most, turns.count - began)
        turns.stop()
    return most


async def test_an_event_is_passed_on_in_the_turn_after_the_one_in_which_it_came() -> None:
    """Measured against a client that has no daemon before it: one turn to read, one for the task that writes."""
    async with FaultServer([read, send(HEAD + EVENT), lambda peer: peer.read_to_end()]) as server:
        direct = await turns_to_arrive(server.port, b"GET / HTTP/1.1\r\n\r\n", server.peers)
        async with running(server.url) as daemon, connected(daemon) as client:
            request = f"GET / HTTP/1.1\r\nHost: {client.host}\r\n\r\n".encode()
            through = await turns_to_arrive(daemon.port, request, server.peers)
    assert through - direct <= 2
