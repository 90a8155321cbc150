"""Sockets that the service manager has opened for this process (sd_listen_fds(3)): no connection is lost between two runs.

They take the place of the addresses that are set, and have to be as good: listening, and of this machine alone unless
the settings let others in. Systems without descriptors that can be handed over have no such variables.
"""

import os
import socket
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address
from typing import Final

from bearerd.core.configuration import Configuration
from bearerd.errors import ConfigError

FIRST: Final = 3
COUNT: Final = "LISTEN_FDS"
FOR: Final = "LISTEN_PID"
NAMES: Final = "LISTEN_FDNAMES"
MOST: Final = 64
_INET: Final = frozenset({socket.AF_INET, socket.AF_INET6})


@dataclass(frozen=True, slots=True)
class Handed:
    """Sockets to listen on, in place of those that `Listen` names. `unix` is the one with a name in the file system."""

    inet: tuple[socket.socket, ...] = ()
    unix: socket.socket | None = None

    def __bool__(self) -> bool:
        return bool(self.inet) or self.unix is not None

    def settle(self, configuration: Configuration) -> Configuration:
        """`configuration` as these sockets have it, if there are any. Raises ConfigError where they let in whom it does not."""
        if not self:
            return configuration
        listen = configuration.listen
        settled = replace(
            listen,
            hosts=tuple(str(sock.getsockname()[0]) for sock in self.inet),
            port=self.inet[0].getsockname()[1] if self.inet else listen.port,
            socket=None if self.unix is None else os.fsdecode(self.unix.getsockname()),
        )
        if settled.remote_hosts and not (listen.remote and configuration.keys.use == "required"):
            raise ConfigError(
                f"{settled.remote_hosts[0]} of the sockets handed over is not a loopback address, so other machines "
                "could connect; let ListenStream= name 127.0.0.1 or [::1], or set listen.remote = true and "
                'keys.use = "required", and make client keys with: bearerd key create'
            )
        return replace(configuration, listen=settled)


def take_sockets(environ: MutableMapping[str, str], first: int = FIRST) -> Handed:
    """What was handed over to this process, if anything was, from the descriptor `first` on.

    The variables are taken out of `environ`, and programs that we start get none of the sockets. Raises ConfigError.
    """
    count, names = environ.pop(COUNT, ""), environ.pop(NAMES, "")
    if environ.pop(FOR, "") != str(os.getpid()):  # of a process that has started us without taking them
        return Handed()
    if not (count.isascii() and count.isdigit() and int(count) <= MOST):
        raise ConfigError(
            f"{COUNT} is not a number of sockets up to {MOST}; start bearerd by its .socket unit"
        )
    with ExitStack() as opened:
        sockets = [opened.enter_context(sock) for sock in _open(first, int(count), names.split(":"))]
        handed = _sort(sockets)
        opened.pop_all()
        return handed


def _open(first: int, count: int, names: Sequence[str]) -> Iterator[socket.socket]:
    """All of them become ours before any is looked at."""
    numbers = range(first, first + count)
    for number in numbers:
        try:
            os.set_inheritable(number, False)
        except OSError:
            raise ConfigError(
                f"descriptor {number}, which was to be handed over, is not open; start bearerd by its .socket unit"
            ) from None
    for number in numbers:
        yield _check(number, names[number - first] if number - first < len(names) else "")


def _check(number: int, name: str) -> socket.socket:
    """Raises ConfigError for what cannot be listened on."""
    what = f"descriptor {number}" + (f" ({name})" if name.isprintable() and name else "")
    try:
        sock = socket.socket(fileno=number)
    except OSError:
        raise ConfigError(
            f"{what}, which was handed over, is no socket; let the .socket unit have ListenStream= alone"
        ) from None
    problem = _distrust(sock)
    if problem is not None:
        sock.close()
        raise ConfigError(f"{what}, which was handed over, {problem}")
    sock.setblocking(False)
    return sock


def _distrust(sock: socket.socket) -> str | None:
    if sock.family not in _INET | {socket.AF_UNIX} or sock.type != socket.SOCK_STREAM:
        return "is no stream socket; let the .socket unit have ListenStream= in place of it"
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "does not listen; let the .socket unit have Accept=no, or leave that out"
    if sock.family == socket.AF_UNIX:
        has_path = os.fsencode(sock.getsockname())[:1] not in {b"", b"\0"}
        return None if has_path else "has no name in the file system; let ListenStream= be a path"
    address = ip_address(sock.getsockname()[0].partition("%")[0])
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or "%" in sock.getsockname()[0]):
        return f"listens on {sock.getsockname()[0]}; let ListenStream= name 127.0.0.1 or [::1], with the port"
    return None


def _sort(sockets: Sequence[socket.socket]) -> Handed:
    """Raises ConfigError where they are more than one place: clients know one port, and one path."""
    inet = tuple(sock for sock in sockets if sock.family in _INET)
    unix = [sock for sock in sockets if sock.family == socket.AF_UNIX]
    if len({sock.getsockname()[1] for sock in inet}) > 1:
        raise ConfigError("the sockets handed over have several ports; let ListenStream= name one port")
    if len(unix) > 1:
        raise ConfigError("several Unix sockets were handed over; let ListenStream= name one path")
    return Handed(inet, unix[0] if unix else None)
