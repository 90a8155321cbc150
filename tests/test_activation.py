"""Sockets that a service manager hands over: which are taken, which are refused, and that nobody else gets them."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from bearerd.activation import Handed, take_sockets
from bearerd.core.accounts import Account, StaticSource
from bearerd.core.configuration import Configuration, Keys, Listen
from bearerd.core.redaction import Secret
from bearerd.core.targets import parse_route
from bearerd.daemon import Daemon
from bearerd.errors import ConfigError
from faults import FaultServer, refused_port, reply, serve

FIRST = 300  # far above what is open here


class Manager:
    """Hands sockets over to this very process."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._numbers: list[int] = []
        self.folder = folder

    def inet(self, host: str = "127.0.0.1", port: int = 0, kind: int = socket.SOCK_STREAM) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = self._stack.enter_context(socket.socket(family, kind))
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int("ffff" not in host))
        sock.bind((host, port))
        return sock

    def unix(self, name: str = "unix") -> socket.socket:
        sock = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.bind(name if name[:1] in {"\0", ""} else str(self.folder / name))
        sock.listen()
        return sock

    def give(self, *descriptors: int) -> None:
        for number, descriptor in enumerate(descriptors, FIRST + len(self._numbers)):
            os.dup2(descriptor, number, inheritable=True)
            self._numbers.append(number)

    def environ(self, **other: str) -> dict[str, str]:
        own = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(self._numbers)), "LISTEN_FDNAMES": "a:b"}
        return own | other

    def close(self) -> None:
        self._stack.close()
        for number in self._numbers:
            try:
                os.close(number)
            except OSError:
                """It was taken, and closed by who took it."""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


def listening(sock: socket.socket) -> int:
    sock.listen()
    return sock.fileno()


def taken(manager: Manager, **other: str) -> Handed:
    return take_sockets(manager.environ(**other), FIRST)


def refusal(manager: Manager, **other: str) -> str:
    with pytest.raises(ConfigError) as raised:
        taken(manager, **other)
    return str(raised.value)


def close(handed: Handed) -> None:
    for sock in (*handed.inet, *([handed.unix] if handed.unix else [])):
        sock.close()


class TestRefused:
    """What it says ends with what to do."""

    def test_one_that_does_not_listen(self, manager: Manager) -> None:
        manager.give(manager.inet().fileno())
        assert refusal(manager) == (
            f"descriptor {FIRST} (a), which was handed over, does not listen; "
            "let the .socket unit have Accept=no, or leave that out"
        )

    def test_a_connection(self, manager: Manager) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as sock,
        ):
            manager.give(sock.fileno())
            assert "does not listen" in refusal(manager)

    def test_datagrams(self, manager: Manager) -> None:
        manager.give(manager.inet(kind=socket.SOCK_DGRAM).fileno())
        assert "is no stream socket; let the .socket unit have ListenStream= in place of it" in refusal(
            manager
        )

    def test_a_file(self, manager: Manager, tmp_path: Path) -> None:
        with (tmp_path / "file").open("wb") as file:
            manager.give(file.fileno())
            assert "is no socket; let the .socket unit have ListenStream= alone" in refusal(manager)

    def test_nothing(self, manager: Manager) -> None:
        assert f"descriptor {FIRST}, which was to be handed over, is not open" in refusal(
            manager, LISTEN_FDS="1"
        )

    @pytest.mark.parametrize("count", ["", "-1", "65", "many", "1e1", "²"])
    def test_a_number_that_is_none(self, manager: Manager, count: str) -> None:
        assert refusal(manager, LISTEN_FDS=count) == (
            "LISTEN_FDS is not a number of sockets up to 64; start bearerd by its .socket unit"
        )

    @pytest.mark.parametrize("name", ["\0abstract-{pid}", ""])
    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names in no file system")
    def test_a_unix_socket_without_a_path(self, manager: Manager, name: str) -> None:
        manager.give(manager.unix(name.format(pid=os.getpid())).fileno())
        assert "has no name in the file system; let ListenStream= be a path" in refusal(manager)

    def test_an_address_of_the_other_family_in_disguise(self, manager: Manager) -> None:
        manager.give(listening(manager.inet("::ffff:127.0.0.1")))
        assert "listens on ::ffff:127.0.0.1; let ListenStream= name 127.0.0.1 or [::1]" in refusal(manager)

    def test_several_ports(self, manager: Manager) -> None:
        manager.give(listening(manager.inet()), listening(manager.inet()))
        assert "have several ports; let ListenStream= name one port" in refusal(manager)

    def test_several_paths(self, manager: Manager) -> None:
        manager.give(manager.unix("one").fileno(), manager.unix("two").fileno())
        assert "several Unix sockets were handed over; let ListenStream= name one path" in refusal(manager)

    @pytest.mark.threat(14)
    @pytest.mark.parametrize("host", ["0.0.0.0", "::"])
    @pytest.mark.parametrize(
        "configuration",
        [
            Configuration({}, ()),
            Configuration({}, (), Listen(remote=True)),
            Configuration({}, (), Listen(remote=True), Keys("optional")),
            Configuration({}, (), keys=Keys("required")),
        ],
    )
    def test_an_address_for_other_machines(
        self, manager: Manager, host: str, configuration: Configuration
    ) -> None:
        manager.give(manager.inet(host).fileno())
        os.set_blocking(FIRST, False)
        with socket.socket(fileno=os.dup(FIRST)) as sock:
            sock.listen()
        handed = taken(manager)
        with pytest.raises(ConfigError, match=f"{host} of the sockets handed over is not a loopback address"):
            handed.settle(configuration)
        close(handed)


class TestTaken:
    def test_nothing_is_handed_over_to_most(self) -> None:
        assert not take_sockets({})

    def test_what_was_for_another_process_is_not_touched(self, manager: Manager) -> None:
        manager.give(listening(manager.inet()))
        environ = manager.environ(LISTEN_PID="1")
        assert not take_sockets(environ, FIRST)
        assert environ == {}
        assert os.get_inheritable(FIRST)

    def test_programs_that_we_start_get_neither_variables_nor_sockets(self, manager: Manager) -> None:
        manager.give(listening(manager.inet()), manager.unix().fileno())
        environ = manager.environ(HOME="/root")
        handed = take_sockets(environ, FIRST)
        assert environ == {"HOME": "/root"}
        asked = f"import os; os.fstat({FIRST})"
        child = subprocess.run(
            [sys.executable, "-c", asked], close_fds=False, capture_output=True, check=False
        )
        assert b"Bad file descriptor" in child.stderr
        close(handed)

    def test_they_take_the_place_of_the_addresses_that_are_set(self, manager: Manager) -> None:
        four = manager.inet()
        six = manager.inet("::1", four.getsockname()[1])
        path = manager.unix()
        manager.give(listening(four), path.fileno(), listening(six))
        handed = taken(manager)
        listen = Listen(hosts=("127.0.0.2",), port=1, socket="/x", peer_uid="any")
        assert handed.settle(Configuration({}, (), listen)).listen == replace(
            listen, hosts=("127.0.0.1", "::1"), port=four.getsockname()[1], socket=path.getsockname()
        )
        assert {sock.getsockname() for sock in handed.inet} == {four.getsockname(), six.getsockname()}
        assert not any(sock.getblocking() for sock in handed.inet)
        close(handed)

    def test_a_path_alone_is_no_port(self, manager: Manager) -> None:
        manager.give(manager.unix().fileno())
        handed = taken(manager)
        assert handed.settle(Configuration({}, ())).listen.hosts == ()
        close(handed)

    def test_other_machines_may_be_let_in(self, manager: Manager) -> None:
        manager.give(listening(manager.inet("0.0.0.0")))
        handed = taken(manager)
        settled = handed.settle(Configuration({}, (), Listen(remote=True), Keys("required")))
        assert settled.listen.remote_hosts == ("0.0.0.0",)
        close(handed)


async def status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> int:
    writer.write(b"GET /x HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n" % port)
    async with asyncio.timeout(20):
        heard = await reader.read()
    writer.close()
    return int(heard.split()[1])


async def test_a_daemon_serves_by_all_of_them_and_by_nothing_else(manager: Manager) -> None:
    """The addresses that are set are not listened on, and the name of the Unix socket is not the daemon's to take away."""
    four, unix = manager.inet(), manager.unix()
    port, path = four.getsockname()[1], unix.getsockname()
    manager.give(listening(four), unix.fileno(), listening(manager.inet("::1", port)))
    async with FaultServer([serve(reply(b"hi"))]) as upstream:
        daemon = Daemon(
            Configuration(
                {"work": Account("work", StaticSource(Secret("the-token")))},
                (parse_route("/", upstream.url, "work"),),
                Listen(port=refused_port()),
            ),
            handed=taken(manager),
        )
        await daemon.start()
        try:
            assert daemon.addresses == (f"http://127.0.0.1:{port}", f"http://[::1]:{port}")
            assert daemon.status()["socket"] == path
            assert await status(*await asyncio.open_connection("127.0.0.1", port), port) == 200
            assert await status(*await asyncio.open_connection("::1", port), port) == 200
            assert await status(*await asyncio.open_unix_connection(path), port) == 200
        finally:
            await daemon.stop(1)
    assert Path(path).is_socket()
