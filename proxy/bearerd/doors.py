"""The ways in: what is listened on, and who may connect there."""

import asyncio
import errno
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import structlog

from bearerd.activation import Handed
from bearerd.core.configuration import Listen
from bearerd.core.guard import Guard, Head, for_socket
from bearerd.core.problems import Problem
from bearerd.core.redirects import own_address
from bearerd.errors import CannotListen, ConfigError
from bearerd.gate import Callers, Door, Gate
from bearerd.listening import accept_from, accept_no_more, open_sockets
from bearerd.local_socket import LocalSocket
from bearerd.peers import TcpUsers, own_users, unix_user

BuildJudge = Callable[[Guard], Callable[[Head], Problem | None]]

_NOT_BY_TCP: Final = Problem(
    403,
    "peer_refused",
    "this connection is of another user than the one that runs bearerd, or it is not known of which; "
    'call as that user, or by a socket that lets yours in (listen.socket_uids), or set listen.peer_uid to "any"',
    "http_request_denied",
    close=True,
)
_NOT_BY_SOCKET: Final = Problem(
    403,
    "peer_refused",
    "this socket is for the user that runs bearerd and for those in listen.socket_uids; add your own there, or call as one of them",
    "http_request_denied",
    close=True,
)
_ANOTHER_PORT: Final = "; choose another with --port or listen.port"
_CURES: Final = {
    errno.EADDRINUSE: "; stop it, or choose another with --port or listen.port",
    errno.EACCES: "; choose a port above 1023 with --port or listen.port",
}


class Doors:
    """One for clients of this machine, one for those of others, one by the Unix socket; and a place for probes.

    `handed` are sockets to listen on in place of those of `settings`. `port` is the one for calls.
    """

    def __init__(self, settings: Listen, handed: Handed) -> None:
        self.port = settings.port
        self.probes_port = 0
        self.probes: list[socket.socket] = []
        self._settings = settings
        self._handed = handed
        self._inet: list[socket.socket] = []
        self._unix: socket.socket | None = None
        self._local: LocalSocket | None = None
        self._users: TcpUsers | None = None
        self._by_tcp: Callers | None = None
        self._doors: tuple[Door, ...] = ()
        self._servers: list[asyncio.Server] = []

    @property
    def addresses(self) -> tuple[str, ...]:
        """The base URLs under which clients reach us by TCP."""
        return tuple(f"http://{_host(sock)}" for sock in self._inet)

    def open(self, opened: ExitStack) -> None:
        """Listen; nobody is let in yet. `opened` closes all of it. Raises ConfigError."""
        self._inet = list(self._handed.inet) if self._handed else listen(self._settings)
        for sock in self._inet:
            opened.callback(sock.close)
        if self._inet:
            self.port = self._inet[0].getsockname()[1]
        self._by_tcp = self._tcp_callers(opened)
        self._unix = self._listen_locally(opened)
        self.probes = _listen_for_probes(self._settings)
        for sock in self.probes:
            opened.callback(sock.close)
            self.probes_port = sock.getsockname()[1]

    async def accept(self, gate: Gate, guard: Guard, build_judge: BuildJudge) -> None:
        """Let them in. Other machines' clients are known by their keys: whose they are there is nobody's to tell here."""
        socket_uids = own_users() | self._settings.socket_uids
        callers = (self._by_tcp, None, Callers(unix_user, socket_uids, _NOT_BY_SOCKET))
        self._doors = tuple(
            Door(each, build_judge(each), who) for each, who in zip(_guards(guard), callers, strict=True)
        )
        near = [sock for sock in self._inet if _is_near(sock)]
        far = [sock for sock in self._inet if not _is_near(sock)]
        by_socket = [] if self._unix is None else [self._unix]
        for door, sockets in zip(self._doors, (near, far, by_socket), strict=True):
            self._servers += await accept_from(sockets, gate.by(door))

    def turn_to(self, guard: Guard, build_judge: BuildJudge) -> None:
        """Judge by these from now on."""
        for door, each in zip(self._doors, _guards(guard), strict=False):
            door.guard, door.judge = each, build_judge(each)

    async def shut(self) -> None:
        """Nobody new gets in."""
        if self._local is not None:
            self._local.close()
        self._inet = []
        await accept_no_more(self._servers)

    def close(self) -> None:
        """When all have left."""
        if self._users is not None:
            self._users.close()

    def _listen_locally(self, opened: ExitStack) -> socket.socket | None:
        settings = self._settings
        if settings.socket is None:
            return None
        if self._handed.unix is not None:  # its name is the service manager's to take away
            return opened.enter_context(self._handed.unix)
        self._local = LocalSocket(Path(settings.socket), settings.socket_mode)
        opened.callback(self._local.close)
        try:
            return opened.enter_context(self._local.open())
        except CannotListen as problem:
            raise ConfigError(f"listen.socket: {problem}") from None

    def _tcp_callers(self, opened: ExitStack) -> Callers | None:
        """Those who may connect by TCP; None for all, which is said where it is not what was wanted."""
        if not self._inet or self._settings.peer_uid == "any":
            return None
        if sys.platform != "linux":
            log = structlog.get_logger("bearerd.daemon")
            log.warning("peer.unknown", because="this system does not tell whose a connection is")
            return None
        self._users = TcpUsers.open(self._inet[0])
        if self._users is None:
            raise ConfigError(
                "listen.peer_uid: this system does not tell whose a connection is, by sock_diag or in /proc/net/tcp; "
                'mend that, use listen.socket with listen.hosts = [], or set it to "any"'
            )
        opened.callback(self._users.close)
        return Callers(self._users.of, own_users(), _NOT_BY_TCP)


def listen(settings: Listen) -> list[socket.socket]:
    """Bind every address, all on one port; none where there are no `hosts`. Raises ConfigError."""
    try:
        sockets = open_sockets(settings.hosts, settings.port)
    except CannotListen as problem:
        raise ConfigError(f"listen.port: {problem}{_CURES.get(problem.number, _ANOTHER_PORT)}") from None
    if settings.hosts and not sockets:
        raise ConfigError(
            f"listen.hosts: this machine has none of {', '.join(settings.hosts)}; use 127.0.0.1"
        )
    return sockets


def _listen_for_probes(settings: Listen) -> list[socket.socket]:
    """On the address that is for them alone, if there is one. Raises ConfigError."""
    if settings.probes is None:
        return []
    host, port = settings.probes
    try:
        sockets = open_sockets((host,), port)
    except CannotListen as problem:
        raise ConfigError(f"listen.probes: {problem}; choose another") from None
    if not sockets:
        raise ConfigError(f"listen.probes: this machine has no {host}; use 127.0.0.1")
    return sockets


def _guards(guard: Guard) -> tuple[Guard, Guard, Guard]:
    return guard, guard, for_socket(guard)


def _is_near(listening: socket.socket) -> bool:
    return ip_address(listening.getsockname()[0]).is_loopback


def _host(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    host = own_address(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
