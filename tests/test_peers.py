"""Whose a TCP connection is, as the system tells it, by real sockets of real users."""

import asyncio
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from bearerd.peers import (
    GONE,
    UNKNOWN,
    Address,
    Connection,
    Found,
    Lookup,
    ProcNet,
    SockDiag,
    TcpUsers,
    own_users,
)
from faults import refused_port
from users import NOBODY, needs_root

pytestmark = [pytest.mark.threat(14), pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")]

# To the address in its arguments, from the port in the last one, if that is not 0; then what its input says.
OTHER_USER: Final = """
import socket, struct, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if sys.argv[3] != "0":
    s.bind((sys.argv[1], int(sys.argv[3])))
s.connect((sys.argv[1], int(sys.argv[2])))
print(s.getsockname()[1], flush=True)
for line in sys.stdin:
    if line == "shutdown\\n":
        s.shutdown(socket.SHUT_WR)
    if line == "reset\\n":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if line in ("close\\n", "reset\\n"):
        s.close()
    print("done", flush=True)
"""


class Accepted(Connection):
    """As much of a transport as is asked for."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def get_extra_info(self, name: str) -> Any:
        return {"socket": self._sock}[name]


class Caller:
    """Another user's process that has connected. What it is told to do is done when the call returns."""

    def __init__(self, host: str, port: int, from_port: int = 0) -> None:
        self._process = subprocess.Popen(
            ["/usr/bin/python3", "-S", "-c", OTHER_USER, host, str(port), str(from_port)],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def do(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        assert self._read() == "done\n"

    def end(self) -> None:
        self._process.communicate()


@contextmanager
def listening(host: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as sock:
        yield sock


@contextmanager
def called(listener: socket.socket, host: str, from_port: int = 0) -> Iterator[tuple[Caller, socket.socket]]:
    """By another user."""
    needs_root()
    caller = Caller(host, listener.getsockname()[1], from_port)
    try:
        with listener.accept()[0] as sock:
            yield caller, sock
    finally:
        caller.end()


@pytest.fixture(params=[SockDiag, ProcNet])
def users(request: pytest.FixtureRequest) -> Iterator[TcpUsers]:
    with closing(TcpUsers(request.param())) as users:
        yield users


CLOSED: Final = 7
CLOSE_WAIT: Final = 8
HOSTS: Final = ("127.0.0.1", "127.0.0.2", "::1")


@pytest.mark.parametrize("host", HOSTS)
def test_our_own(users: TcpUsers, host: str) -> None:
    with (
        listening(host) as listener,
        socket.create_connection(listener.getsockname()[:2]),
        listener.accept()[0] as sock,
    ):
        assert users.of(Accepted(sock)) == os.geteuid()


@pytest.mark.parametrize("host", HOSTS)
def test_threat_14_another_user_s(users: TcpUsers, host: str) -> None:
    with listening(host) as listener, called(listener, host) as (caller, sock):
        assert users.of(Accepted(sock)) == NOBODY
        caller.do("shutdown")
        assert users.of(Accepted(sock)) == NOBODY, "it may have said all it has to say"


def test_an_ipv6_socket_that_speaks_ipv4(users: TcpUsers) -> None:
    """A dual-stack program names 127.0.0.1 as ::ffff:127.0.0.1."""
    with listening("127.0.0.1") as listener, called(listener, "::ffff:127.0.0.1") as (_, sock):
        assert users.of(Accepted(sock)) == NOBODY


@pytest.mark.parametrize("way", ["close", "reset"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_one_that_has_closed_is_nobodys(users: TcpUsers, host: str, way: str) -> None:
    """Many kernels say root of a socket that no process has open, and its bytes could be read all the same."""
    with listening(host) as listener, called(listener, host) as (caller, sock):
        caller.do(way)
        assert select.select([sock], [], [], 5)[0], "that has arrived"
        assert users.of(Accepted(sock)) == GONE


def test_one_whose_process_has_died_is_nobodys(users: TcpUsers) -> None:
    with listening("127.0.0.1") as listener, called(listener, "127.0.0.1") as (caller, sock):
        caller.end()
        assert users.of(Accepted(sock)) == GONE


def test_the_next_one_at_the_same_address_is_not_taken_for_it(users: TcpUsers) -> None:
    """A stranger has said something, reset its connection, and somebody who may call has got its port."""
    with (
        listening("127.0.0.1") as listener,
        called(listener, "127.0.0.1", refused_port()) as (stranger, first),
    ):
        stranger.do("reset")
        assert select.select([first], [], [], 5)[0]
        with socket.socket() as ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            ours.bind(("127.0.0.1", stranger.port))
            ours.connect(listener.getsockname())
            with listener.accept()[0] as second:
                assert users.of(Accepted(second)) == os.geteuid()
                assert users.of(Accepted(first)) == GONE


def taken(sock: socket.socket, port: int, remote: tuple[str, int]) -> bool:
    """Whether it has got `port` for a connection to `remote`."""
    try:
        sock.bind(("127.0.0.1", port))
        sock.connect(remote)
    except OSError:
        return False
    return True


def state_of(sock: socket.socket) -> int:
    """By include/net/tcp_states.h."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


@pytest.mark.parametrize("after_s", [0, pytest.param(1.5, marks=pytest.mark.waits)])
def test_who_takes_the_address_of_one_that_is_half_closed_is_not_taken_for_it(
    users: TcpUsers, after_s: float
) -> None:
    """The system gives it away on this machine after a second (tcp_tw_reuse in ip-sysctl), but resets our end first."""
    with listening("127.0.0.1") as listener, called(listener, "127.0.0.1") as (stranger, sock):
        stranger.do("close")
        time.sleep(after_s)
        with socket.socket() as ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            got_it = taken(ours, stranger.port, listener.getsockname())
            assert state_of(sock) == (CLOSED if got_it else CLOSE_WAIT)
            assert users.of(Accepted(sock)) == GONE


def test_a_socket_that_is_bound_to_its_interface(users: TcpUsers) -> None:
    with listening("127.0.0.1") as listener, socket.socket() as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
        ours.connect(listener.getsockname())
        with listener.accept()[0] as sock:
            assert users.of(Accepted(sock)) == os.geteuid()


class Scripted(Lookup):
    """Says the same of every connection. `asked` is called each time."""

    def __init__(self, found: Found | OSError | None, asked: Callable[[], object] = lambda: None) -> None:
        self._found = found
        self._asked = asked

    def find(self, local: Address, remote: Address) -> Found | None:
        del local, remote
        self._asked()
        if isinstance(self._found, OSError):
            raise self._found
        return self._found

    def close(self) -> None:
        pass


@contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    with ExitStack() as opened:
        listener = opened.enter_context(listening("127.0.0.1"))
        ours = opened.enter_context(socket.create_connection(listener.getsockname()))
        yield ours, opened.enter_context(listener.accept()[0])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Found(1, 7, 1), 7),
        (Found(4, 7, 1), 7),
        (Found(5, 7, 1), 7),
        (Found(1, 0, 0), GONE),
        (Found(6, 0, 0), GONE),
        (Found(2, 7, 1), GONE),
        (Found(10, 7, 1), GONE),
        (None, UNKNOWN),
        (OSError(), UNKNOWN),
    ],
)
def test_what_is_made_of_what_is_found(found: Found | OSError | None, expected: int) -> None:
    """Never a user by a socket that listens, is only about to connect, or has no process."""
    with connected() as (_, sock):
        assert TcpUsers(Scripted(found)).of(Accepted(sock)) == expected


def test_ours_is_looked_at_last() -> None:
    """A connection that ends while the other end is looked for may have been another one's."""
    with connected() as (ours, sock):

        def reset() -> None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ours.close()
            assert select.select([sock], [], [], 5)[0]

        assert TcpUsers(Scripted(Found(1, 7, 1), reset)).of(Accepted(sock)) == GONE


def test_a_socket_that_is_not_connected_at_all() -> None:
    with listening("127.0.0.1") as listener, closing(TcpUsers(SockDiag())) as users:
        assert users.of(Accepted(listener)) == GONE
    with connected() as (_, sock), closing(SockDiag()) as lookup:
        lookup.close()
        assert TcpUsers(lookup).of(Accepted(sock)) == UNKNOWN


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", [SockDiag, ProcNet])
def test_what_listens_at_an_address_is_not_what_is_connected_there(
    kind: Callable[[], Lookup], host: str
) -> None:
    """The kernel tells of it where it finds nothing better."""
    with listening(host) as listener, closing(kind()) as lookup:
        assert lookup.find(listener.getsockname(), (host, 1)) is None


def test_an_answer_to_an_earlier_question_is_passed_over() -> None:
    with connected() as (ours, sock), closing(SockDiag()) as lookup:
        receive, lookup._receive = lookup._receive, lambda: b""  # type: ignore[method-assign]
        with pytest.raises(struct.error):
            lookup.find(sock.getsockname(), ours.getsockname())
        lookup._receive = receive  # type: ignore[method-assign]
        found = lookup.find(ours.getsockname(), sock.getsockname())
        assert found is not None
        assert found.inode == os.fstat(ours.fileno()).st_ino


class TestOpening:
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    def test_the_exact_question_where_it_is_answered(self, host: str) -> None:
        with listening(host) as listener:
            users = TcpUsers.open(listener)
            assert users is not None
            with closing(users):
                assert isinstance(users._lookup, SockDiag)

    def test_none_that_does_not_find_us(self, tmp_path: Path) -> None:
        """As in a folder of lists that are empty."""
        for name in ("tcp", "tcp6"):
            (tmp_path / name).write_text("  sl  local_address\n")
        with listening("127.0.0.1") as listener:
            assert TcpUsers.open(listener, (no_netlink, lambda: ProcNet(tmp_path))) is None
            assert TcpUsers.open(listener, (no_netlink, lambda: ProcNet(tmp_path / "none"))) is None

    def test_the_lists_where_no_question_is_answered(self) -> None:
        with listening("127.0.0.1") as listener:
            users = TcpUsers.open(listener, (no_netlink, ProcNet))
            assert users is not None
            assert isinstance(users._lookup, ProcNet)
            users.close()


def no_netlink() -> Lookup:
    raise PermissionError


def test_us_and_root() -> None:
    assert own_users() == {os.geteuid(), 0}


async def test_an_event_loop_s_own_sockets() -> None:
    """They are stand-ins with uvloop."""
    seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    class Listening(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            seen.set_result(found.of(transport))
            transport.close()

    server = await asyncio.get_running_loop().create_server(Listening, "127.0.0.1", 0)
    async with server:
        with (
            closing(TcpUsers(SockDiag())) as found,
            socket.create_connection(server.sockets[0].getsockname()),
        ):
            assert await asyncio.wait_for(seen, 10) == os.geteuid()
