"""A login or logout at a running daemon, by its control socket."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from bearerd.control.client import GREETING_S, REPLY_LIMIT, Daemons
from bearerd.control.rendezvous import GREETING, Origin, may_talk

_BEGINNINGS: Final = frozenset({"login", "device", "done", "error"})
FIRST_S: Final = 45.0  # the daemon asks the authorization server for its metadata, or for a device code


class Conversation:
    """With the first of this user's daemons that serves the account. `first` is what it has said."""

    def __init__(
        self, first: Mapping[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._first: Mapping[str, Any] | None = first
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(
        cls, daemons: Daemons, do: str, account: str, origin: Origin, way: str = "paste"
    ) -> Self | None:
        """None where no daemon serves the account by the configuration of `origin`."""
        request = {
            "do": do,
            "account": account,
            "config": origin.file,
            "overrides": origin.overrides,
            "way": way,
        }
        for path in daemons.sockets:
            with suppress(OSError, ValueError, EOFError, TimeoutError):
                first, reader, writer = await _ask(path, json.dumps(request).encode() + b"\n")
                if _is_served(first):
                    return cls(first, reader, writer)
                writer.close()
        return None

    async def next(self) -> Mapping[str, Any]:
        """What is said next. Raises EOFError where the daemon has gone."""
        first, self._first = self._first, None
        return first if first is not None else await _read(self._reader)

    async def paste(self, text: str) -> None:
        if self._writer.is_closing():
            return
        with suppress(OSError):
            self._writer.write(json.dumps({"pasted": text}).encode() + b"\n")
            await self._writer.drain()

    def close(self) -> None:
        """Leave. A login that was begun here is given up by that."""
        self._writer.close()


def _is_served(reply: Mapping[str, Any]) -> bool:
    """Not where the account is not the daemon's, where it is of an older version, or where it makes no sense."""
    error = reply.get("error")
    understood = not (isinstance(error, dict) and error.get("kind") == "bad_request")
    return understood and not _BEGINNINGS.isdisjoint(reply)


async def _ask(
    path: Path, line: bytes
) -> tuple[Mapping[str, Any], asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(GREETING_S):
        reader, writer = await asyncio.open_unix_connection(path, limit=REPLY_LIMIT)
        try:
            await _greet(reader, writer)
            writer.write(line)
            await writer.drain()
        except BaseException:
            writer.close()
            raise
    try:
        async with asyncio.timeout(FIRST_S):
            return await _read(reader), reader, writer
    except BaseException:
        writer.close()
        raise


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Raises ConnectionAbortedError where it is not a daemon of ours at the other end."""
    if not may_talk(writer.get_extra_info("socket")) or await reader.readline() != GREETING:
        raise ConnectionAbortedError


async def _read(reader: asyncio.StreamReader) -> Mapping[str, Any]:
    """Raises EOFError where nothing of sense comes."""
    try:
        said = json.loads(await reader.readline())
    except (OSError, ValueError, RecursionError):
        raise EOFError from None
    return said if isinstance(said, dict) else {}
