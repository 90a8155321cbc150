"""Who is at the other end of a connection: its user, as the system knows it.

A Unix socket tells it by itself, as it was when the connection was made. Of TCP on one machine Linux keeps it with the
other end's socket, which both addresses name: `SockDiag` asks for just that one, and `ProcNet` reads the list of all
where a system answers no such questions.

`bearerd token` imports this, so it needs little more than the standard library.
"""

import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, Self

UNKNOWN: Final = -1
"""No user of whom this machine knows."""
GONE: Final = -2
"""The other end has closed: whose it was is not kept."""

# Level, option and size of what the system tells of a Unix peer; its second word is the user.
CREDENTIALS: Final[Mapping[str, tuple[int, int, int]]] = {
    "linux": (socket.SOL_SOCKET, 17, 12),
    "darwin": (0, 1, 76),
}

# include/net/tcp_states.h
_ESTABLISHED: Final = 1
_CLOSE_WAIT: Final = 8
_OURS: Final = frozenset(
    {_ESTABLISHED, _CLOSE_WAIT}
)  # states in which nobody else can have the peer's addresses
_THEIRS: Final = frozenset({_ESTABLISHED, 4, 5})  # it may have said all it has to say (FIN_WAIT1, FIN_WAIT2)

Address = tuple[str, int] | tuple[str, int, int, int]


class HasOptions(Protocol):
    """What of a socket is used: an event loop's stand-in for one has it, too."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


class Connection(Protocol):
    """What of a transport is used."""

    def get_extra_info(self, name: str) -> Any: ...


def own_users() -> frozenset[int]:
    """The user of this process, and root, from whom nothing can be kept."""
    return frozenset({os.geteuid(), 0}) if hasattr(os, "geteuid") else frozenset()


def user_of(peer: HasOptions) -> int:
    """The user at the other end of a Unix socket, or UNKNOWN."""
    level, option, size = CREDENTIALS[sys.platform]
    try:
        credentials = peer.getsockopt(level, option, size)
    except OSError:
        return UNKNOWN
    user: int = struct.unpack_from("=II", credentials)[1]
    return user


def unix_user(transport: Connection) -> int:
    """The same, of a connection that an event loop has accepted."""
    return user_of(transport.get_extra_info("socket"))


class Found(NamedTuple):
    """A TCP socket of this machine. One that no process has open any more has no `inode`, and many kernels say that it is
    root's.
    """

    state: int
    user: int
    inode: int


class Lookup(Protocol):
    """Finds the socket that is at `local` and connected to `remote`. Raises OSError."""

    def find(self, local: Address, remote: Address) -> Found | None: ...

    def close(self) -> None: ...


class SockDiag:
    """The kernel's own look into its table (sock_diag(7)). It takes as long however many sockets there are."""

    _BY_FAMILY: Final = 20
    _REQUEST: Final = 1
    _TCP: Final = 6
    _LOOPBACK: Final = 1  # the number of that interface: sockets that are bound to it are found, too
    _ANY: Final = 0xFFFFFFFF
    _HEADER: Final = struct.Struct("=IHHII")
    _ASKED: Final = struct.Struct("=IHHIIBBBBI")
    _PAIR: Final = struct.Struct("!HH16s16s")
    _WHICH: Final = struct.Struct("=III")
    _SIZE: Final = _ASKED.size + _PAIR.size + _WHICH.size

    def __init__(self) -> None:
        """Raises OSError where there is no such thing."""
        self._number = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 4
        )
        self._socket.bind((0, 0))

    def find(self, local: Address, remote: Address) -> Found | None:
        self._number = (self._number + 1) & self._ANY
        family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
        pair = self._PAIR.pack(local[1], remote[1], _packed(family, local), _packed(family, remote))
        self._socket.sendto(
            self._ASKED.pack(
                *(self._SIZE, self._BY_FAMILY, self._REQUEST, self._number, 0),
                *(family, self._TCP, 0, 0, self._ANY),
            )
            + pair
            + self._WHICH.pack(self._LOOPBACK, self._ANY, self._ANY),
            (0, 0),
        )
        return self._read(self._receive(), pair)

    def _receive(self) -> bytes:
        """The answer is there when the question has been sent. What is left of an earlier one is passed over."""
        while True:
            data, sender = self._socket.recvfrom(4096)
            if sender[0] == 0 and self._HEADER.unpack_from(data)[3] == self._number:
                return data

    def _read(self, data: bytes, asked: bytes) -> Found | None:
        """Not every answer is that socket: where there is none, one that listens at `local` is told of."""
        if self._HEADER.unpack_from(data)[1] != self._BY_FAMILY:
            return None
        _, state, _, _, local_port, remote_port, local, remote = struct.unpack_from("!BBBBHH16s16s", data, 16)
        if self._PAIR.pack(local_port, remote_port, _unmapped(local), _unmapped(remote)) != asked:
            return None
        user, inode = struct.unpack_from("=II", data, 80)
        return Found(state, user, inode)

    def close(self) -> None:
        self._socket.close()


_MAPPED: Final = bytes(10) + b"\xff\xff"


def _packed(family: int, address: Address) -> bytes:
    return socket.inet_pton(family, address[0]).ljust(16, b"\0")


def _unmapped(address: bytes) -> bytes:
    """An IPv4 address as it is asked for, where an IPv6 socket speaks IPv4."""
    return address[12:].ljust(16, b"\0") if address.startswith(_MAPPED) else address


class ProcNet:
    """The lists of all sockets (proc_net(5)): slower the more there are."""

    def __init__(self, folder: Path = Path("/proc/self/net")) -> None:
        self._folder = folder

    def find(self, local: Address, remote: Address) -> Found | None:
        places = [("tcp6", "")] if ":" in local[0] else [("tcp", ""), ("tcp6", "::ffff:")]
        for name, prefix in places:
            line = self._line(name, b" %b %b " % (_listed(prefix, local), _listed(prefix, remote)))
            if line is not None:
                fields = line.split()
                return Found(int(fields[2], 16), int(fields[6]), int(fields[8]))
        return None

    def _line(self, name: str, pair: bytes) -> bytes | None:
        content = (self._folder / name).read_bytes()
        at = content.find(pair)
        return None if at < 0 else content[at : content.find(b"\n", at)]

    def close(self) -> None:
        """Nothing is kept open."""


def _listed(prefix: str, address: Address) -> bytes:
    """Words of 32 bits as this machine has them."""
    text = prefix + address[0]
    packed = socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return b"%b:%04X" % (b"".join(b"%08X" % word for word in words), address[1])


class TcpUsers:
    """The users at the other ends of TCP connections of this machine."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    @classmethod
    def open(
        cls, listening: socket.socket, lookups: Iterable[Callable[[], Lookup]] = (SockDiag, ProcNet)
    ) -> Self | None:
        """With the first of `lookups` that finds our own socket, which is `listening`. None where none does."""
        for kind in lookups:
            try:
                lookup = kind()
            except OSError:
                continue
            if _finds(lookup, listening):
                return cls(lookup)
            lookup.close()
        return None

    def of(self, transport: Connection) -> int:
        """The user of the process that has the other end open; UNKNOWN, or GONE.

        Ours is looked at last. If it is connected still, nobody can have had the other end's addresses since: whoever
        takes them gets no connection by them while this one lives. So what was found is the other end, and not
        another user's socket that came after it.
        """
        sock = transport.get_extra_info("socket")
        try:
            peer, own = sock.getpeername(), sock.getsockname()
        except OSError:  # it has been reset
            return GONE
        try:
            found = self._lookup.find(peer, own)
        except OSError:
            found = None
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in _OURS:
            return GONE
        if found is None:
            return UNKNOWN
        return found.user if found.inode and found.state in _THEIRS else GONE

    def close(self) -> None:
        self._lookup.close()


def _finds(lookup: Lookup, listening: socket.socket) -> bool:
    address = listening.getsockname()
    try:
        return lookup.find(address, ("::" if ":" in address[0] else "0.0.0.0", 0)) is not None  # noqa: S104  # nobody
    except OSError:
        return False
