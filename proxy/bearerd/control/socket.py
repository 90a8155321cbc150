"""The control socket of a daemon: `bearerd token`, `status`, `refresh`, `login`, `logout` and `reload` ask here.

One line of JSON in, one out, then the connection ends; a login is a longer conversation. Only this user and root may
connect, and a peer may be slow, silent or senseless: it costs one of a few connections, for a short time.
"""

import asyncio
import json
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import structlog

from bearerd.control.rendezvous import (
    ENDING,
    GREETING,
    Origin,
    Unusable,
    VaultEntry,
    has_sockets,
    may_talk,
    opened,
    runtime_folder,
)
from bearerd.control.terminal import WAYS, TerminalLogins, advise
from bearerd.core.reloading import Report
from bearerd.core.tokens import TokenSet
from bearerd.errors import LoginRequired, TokenUnavailable
from bearerd.tokens.manager import TokenManager

CONNECTIONS: Final = 64
LOGINS: Final = 8  # of them may be logins, which last
LINE_LIMIT: Final = 64 << 10
ASK_S: Final = 5.0
ANSWER_S: Final = 10.5  # a call waits 10 s for a refresh; what comes before it is an account's start
TELL_S: Final = 5.0
PAUSE_S: Final = 0.1  # where there is no descriptor for a connection

Reply = dict[str, Any]
NOT_MINE: Final[Reply] = {"not_mine": True}
BAD_REQUEST: Final[Reply] = {"error": {"kind": "bad_request", "text": "the request is not understood"}}
DEFECT: Final[Reply] = {
    "error": {
        "kind": "internal",
        "text": "bearerd met an error of its own; see its log, which says where, and report it",
    }
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a client wants. `do` is token, refresh, login, logout, reload, loan or status; the last three have no `account`.

    `entry` is what a loan is asked for, `way` how to log in.
    """

    do: str
    account: str = ""
    origin: Origin = field(default_factory=Origin)
    min_valid_s: float = 0.0
    entry: VaultEntry | None = None
    way: str = ""


def parse_request(line: bytes) -> Request | None:
    """None for what is not understood."""
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match asked:
        case {"do": "status"}:
            return Request("status")
        case {"do": "loan", "folder": str(folder), "stem": str(stem)}:
            return Request("loan", entry=VaultEntry(folder, stem))
        case {
            "do": "reload",
            "config": str() | None as file,
            "overrides": str(overrides),
            "named": str() | None as named,
        }:
            return Request("reload", origin=Origin(file, overrides, named))
        case {
            "do": "token" | "refresh" as do,
            "account": str(account),
            "config": str() | None as file,
            "overrides": str(overrides),
            "min_valid_s": int() | float() as min_valid_s,
        }:
            return Request(do, account, Origin(file, overrides), min_valid_s)
        case {
            "do": "login" | "logout" as do,
            "account": str(account),
            "config": str() | None as file,
            "overrides": str(overrides),
            "way": str(way),
        } if way in WAYS:
            return Request(do, account, Origin(file, overrides), way=way)
        case _:
            return None


class ControlSocket:
    """Answers for `managers` and `status`, for clients whose configuration is that of `origin`.

    Other daemons that keep an account in the same vault are lent its token: `shared` says which account is kept where.
    That begins nothing and waits for nothing, so daemons that ask each other never wait for each other.

    `defect` is told of what should not have been raised. `reload` reads the configuration again.
    """

    def __init__(
        self,
        origin: Origin,
        managers: Mapping[str, TokenManager],
        status: Callable[[], dict[str, Any]],
        defect: Callable[[Exception], None],
        *,
        ask_s: float = ASK_S,
        answer_s: float = ANSWER_S,
        shared: Mapping[VaultEntry, str] = MappingProxyType({}),
        terminals: TerminalLogins | None = None,
        reload: Callable[[], Awaitable[Report]] | None = None,
    ) -> None:
        self._origin = origin
        self._managers = managers
        self._status = status
        self._defect = defect
        self._ask_s = ask_s
        self._answer_s = answer_s
        self._shared = shared
        self._terminals = terminals
        self._reload = reload
        self._conversations = 0
        self._log = structlog.get_logger("bearerd.control")
        self._socket: socket.socket | None = None
        self._path = Path()
        self._accepting: asyncio.Task[None] | None = None
        self._talks: set[asyncio.Task[None]] = set()

    def turn_to(
        self,
        managers: Mapping[str, TokenManager],
        shared: Mapping[VaultEntry, str],
        terminals: TerminalLogins,
    ) -> None:
        """Answer for these from the next question on, and for clients by the file that the links lead to now."""
        self._managers, self._shared, self._terminals = managers, shared, terminals
        if self._origin.named is not None:
            self._origin = replace(self._origin, file=os.path.realpath(self._origin.named))

    def start(self, environ: Mapping[str, str]) -> Self:
        """Listen. Where that cannot be, the log says so and the daemon goes on: the socket is a convenience."""
        if not has_sockets():
            return self
        folder = runtime_folder(environ)
        try:
            with opened(folder, create=True):
                self._path = folder / f"{os.getpid()}-{secrets.token_hex(4)}{ENDING}"
                self._socket = listen(self._path)
        except (Unusable, OSError) as exc:
            reason = str(exc) if isinstance(exc, Unusable) or exc.errno is None else os.strerror(exc.errno)
            self._log.warning("control.unavailable", folder=str(folder), reason=reason)
            return self
        self._accepting = asyncio.create_task(self._accept(self._socket))
        self._log.info("control.listening", path=str(self._path))
        return self

    async def aclose(self) -> None:
        """Go out of sight and cut off who is being answered: they will find another daemon, or the store."""
        if self._socket is None or self._accepting is None:
            return
        with suppress(OSError):
            self._path.unlink()
        tasks = [self._accepting, *self._talks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, _ = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(PAUSE_S)
                continue
            if len(self._talks) >= CONNECTIONS or not may_talk(peer):
                peer.close()
                continue
            peer.setblocking(False)
            talk = asyncio.create_task(self._talk(peer))
            self._talks.add(talk)
            talk.add_done_callback(self._talks.discard)

    async def _talk(self, peer: socket.socket) -> None:
        talk = _Talk(peer)
        with peer, suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._ask_s):
                await talk.send(GREETING)
                line = await talk.read_line()
            await talk.say(await self._answer(line, talk))

    async def _answer(self, line: bytes, talk: "_Talk") -> Reply:
        request = parse_request(line)
        if request is None:
            return BAD_REQUEST
        try:
            if request.do == "status":
                own = {"pid": os.getpid(), "config": self._origin.file}
                return {"status": own | self._status()}
            if request.entry is not None:
                return self._lend(request.entry)
            if request.do == "reload":
                return await self._read_again(request.origin)
            manager = self._managers.get(request.account)
            if manager is None or not self._origin.answers(request.origin):
                return NOT_MINE
            if request.do in {"login", "logout"}:
                return await self._log_in_or_out(request, talk)
            return await self._obtain(manager, request)
        except Exception as exc:  # noqa: BLE001  # one question's defect must not show its values, nor end the daemon
            self._defect(exc)
            return DEFECT

    async def _read_again(self, origin: Origin) -> Reply:
        """Runs on if nobody waits for it any more."""
        if self._reload is None or not self._origin.answers(origin):
            return NOT_MINE
        report = await asyncio.shield(self._reload())
        return {"reload": {"pid": os.getpid(), **asdict(report)}}

    async def _log_in_or_out(self, request: Request, talk: "_Talk") -> Reply:
        if self._terminals is None:
            return NOT_MINE
        if request.do == "logout":
            return await self._terminals.log_out(request.account)
        if not self._terminals.offers(request.account, request.way):
            return NOT_MINE
        if self._conversations >= LOGINS:
            return _unavailable("too many logins are under way", 10.0)
        self._conversations += 1
        try:
            return await self._terminals.log_in(request.account, request.way, talk.say, talk.hear)
        except OSError:  # nobody listens any more
            return DEFECT
        finally:
            self._conversations -= 1

    def _lend(self, entry: VaultEntry) -> Reply:
        manager = self._managers.get(self._shared.get(entry, ""))
        token = manager.loan() if manager is not None else None
        if token is None:
            return NOT_MINE
        return {
            "loan": {
                "generation": token.generation,
                "access_token": token.access_token.reveal(),
                "obtained_at": token.obtained_at,
                "expires_at": token.expires_at,
            }
        }

    async def _obtain(self, manager: TokenManager, request: Request) -> Reply:
        try:
            async with asyncio.timeout(self._answer_s):
                wanted = manager.refresh() if request.do == "refresh" else manager.token(request.min_valid_s)
                return _tell(await wanted)
        except LoginRequired as problem:
            can = self._terminals is not None and request.account in self._terminals.accounts
            text = advise(request.account, str(problem), here=can)
            return {"error": {"kind": "login_required", "text": text}}
        except TokenUnavailable as problem:
            return _unavailable(str(problem), problem.retry_after_s)
        except TimeoutError:
            return _unavailable("the account is still being started", 1.0)


def _tell(token: TokenSet) -> Reply:
    return {"token": {"access_token": token.access_token.reveal(), "expires_at": token.expires_at}}


def _unavailable(text: str, retry_after_s: float) -> Reply:
    return {"error": {"kind": "unavailable", "text": text, "retry_after_s": retry_after_s}}


class _Talk:
    """A connection, line by line."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._data = bytearray()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._peer, data)

    async def say(self, reply: Reply) -> None:
        async with asyncio.timeout(TELL_S):
            await self.send(json.dumps(reply).encode() + b"\n")

    async def hear(self) -> str | None:
        """What a person has pasted at the other end; None where that has gone, or makes no sense."""
        try:
            heard = json.loads(await self.read_line())
        except (OSError, ValueError, RecursionError):
            return None
        match heard:
            case {"pasted": str(text)}:
                return text
            case _:
                return None

    async def read_line(self) -> bytes:
        """Up to a line's end. Raises ConnectionAbortedError where it does not come, or is too long."""
        loop = asyncio.get_running_loop()
        while b"\n" not in self._data:
            chunk = await loop.sock_recv(self._peer, LINE_LIMIT)
            self._data += chunk
            if not chunk or len(self._data) > LINE_LIMIT:
                raise ConnectionAbortedError
        line, _, rest = self._data.partition(b"\n")
        self._data = rest
        return bytes(line)


def listen(path: Path) -> socket.socket:
    """A socket that has that name only when it is 0600 and answers: clients remove what refuses. Raises OSError."""
    unready = path.with_suffix(".new")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(unready))
        unready.chmod(0o600)
        sock.listen(CONNECTIONS)
        sock.setblocking(False)
        unready.rename(path)
    except OSError:
        sock.close()
        with suppress(OSError):
            unready.unlink()
        raise
    return sock
