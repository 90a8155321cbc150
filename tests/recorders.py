"""An upstream that keeps every byte it was sent, and answers as it is told."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

from faults import reply, request_size

_PIECE: Final = 65536

Answer = Callable[[bytes], bytes]
"""The raw answer to a raw request; HEAD gets its head. One without a framing, or that says so, ends the connection."""


def say_hi(request: bytes) -> bytes:
    del request
    return reply(b"hi")


class Recorder:
    """Answers on as many connections as it gets, each for as long as the other side likes.

    `requests` are the whole ones, raw, in the order of their ends; `fragments` is what came of others before a
    connection ended, and `broken` is set then; `connections` is how many there have been, and `open` how many there are.
    """

    def __init__(self, answer: Answer = say_hi) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.fragments: list[bytes] = []
        self.broken = asyncio.Event()
        self.connections = 0
        self.open = 0
        self.port = 0
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def clear(self) -> None:
        """Forget what came."""
        self.requests.clear()
        self.fragments.clear()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        unread = bytearray()
        try:
            with suppress(ConnectionError):
                await self._serve(unread, reader, writer)
        finally:
            if unread:
                self.fragments.append(bytes(unread))
                self.broken.set()
            self.open -= 1
            writer.close()

    async def _serve(
        self, unread: bytearray, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            while (size := request_size(unread)) is None:
                data = await reader.read(_PIECE)
                if not data:
                    return
                unread += data
            request = bytes(unread[:size])
            del unread[:size]
            self.requests.append(request)
            answer = self.answer(request)
            if request.startswith(b"HEAD "):
                answer = answer[: answer.index(b"\r\n\r\n") + 4]
            writer.write(answer)
            await writer.drain()
            if _ends_connection(answer, request):
                return


def _ends_connection(answer: bytes, request: bytes) -> bool:
    head = answer.partition(b"\r\n\r\n")[0].lower()
    framed = b"\r\ncontent-length:" in head or b"\r\ntransfer-encoding:" in head
    bodiless = request.startswith(b"HEAD ") or head.split()[1] in {b"204", b"304"}
    return b"\r\nconnection: close" in head or not (framed or bodiless)
