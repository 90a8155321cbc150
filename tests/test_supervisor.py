"""What is said to a service manager: every message on a real socket, and nothing that it does or fails to do hurts."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bearerd.supervisor import Supervisor

BUSY_S = 20.0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where a service manager listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(BUSY_S)
        yield sock


def named(manager: socket.socket, **further: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(manager.getsockname()), "HOME": "/root", **further}


def silent(manager: socket.socket) -> bool:
    manager.settimeout(0)
    try:
        manager.recv(1)
    except BlockingIOError:
        return True
    return False


class TestFaults:
    @pytest.mark.parametrize(
        "address",
        ["", "relative", "vsock:2:1234", "/absent/folder/notify", "@nobody-there", "/" + "x" * 300, "/a\0b"],
    )
    async def test_a_manager_that_is_not_there_costs_nothing(self, address: str) -> None:
        supervisor = Supervisor.take({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
        supervisor.ready()
        supervisor.describe("text")
        supervisor.watch()
        supervisor.close()

    async def test_one_that_does_not_read_holds_nothing_up_for_ever(self, manager: socket.socket) -> None:
        supervisor = Supervisor.take(named(manager, WATCHDOG_USEC="1000000"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            with suppress(BlockingIOError):  # its queue is full
                while True:
                    other.sendto(b"x", manager.getsockname())
        supervisor.watch()
        supervisor.stopping()
        supervisor.close()

    @pytest.mark.parametrize("period", ["", "0", "-5", "soon", "1e6", "²"])
    async def test_a_period_that_is_none_is_no_watchdog(self, manager: socket.socket, period: str) -> None:
        supervisor = Supervisor.take(named(manager, WATCHDOG_USEC=period))
        supervisor.watch()
        assert silent(manager)

    async def test_the_watchdog_of_another_process_is_not_ours(self, manager: socket.socket) -> None:
        supervisor = Supervisor.take(named(manager, WATCHDOG_USEC="1000000", WATCHDOG_PID="1"))
        supervisor.watch()
        assert silent(manager)

    def test_a_text_cannot_say_more_than_it_is(self, manager: socket.socket) -> None:
        Supervisor.take(named(manager)).describe("two accounts\nREADY=1\r\nMAINPID=1")
        assert manager.recv(4096) == b"STATUS=two accounts READY=1 MAINPID=1"


class TestMessages:
    def test_programs_that_we_start_are_not_to_speak_for_us(self, manager: socket.socket) -> None:
        environ = named(manager, WATCHDOG_USEC="1000000", WATCHDOG_PID=str(os.getpid()))
        Supervisor.take(environ)
        assert environ == {"HOME": "/root"}

    def test_without_a_manager_nobody_listens(self, manager: socket.socket) -> None:
        assert not Supervisor.take({}).listens
        assert Supervisor.take(named(manager)).listens

    def test_states(self, manager: socket.socket) -> None:
        supervisor = Supervisor.take(named(manager))
        before = time.monotonic_ns() // 1000
        supervisor.ready()
        supervisor.reloading()
        supervisor.extend(2.5)
        supervisor.stopping()
        assert manager.recv(4096) == b"READY=1"
        first, second = manager.recv(4096).split(b"\n")
        assert first == b"RELOADING=1"
        assert before <= int(second.removeprefix(b"MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
        assert manager.recv(4096) == b"EXTEND_TIMEOUT_USEC=2500000"
        assert manager.recv(4096) == b"STOPPING=1"

    def test_what_is_known_is_not_said_again(self, manager: socket.socket) -> None:
        supervisor = Supervisor.take(named(manager))
        for text in ("one", "one", "two", "one"):
            supervisor.describe(text)
        assert [manager.recv(4096) for _ in range(3)] == [b"STATUS=one", b"STATUS=two", b"STATUS=one"]
        assert silent(manager)

    @pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="only Linux has names in no file system")
    def test_a_name_in_no_file_system(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(b"\0bearerd-test-%d" % os.getpid())
            sock.settimeout(BUSY_S)
            Supervisor.take({"NOTIFY_SOCKET": f"@bearerd-test-{os.getpid()}"}).ready()
            assert sock.recv(4096) == b"READY=1"

    async def test_a_loop_that_turns_says_so_and_one_that_does_not_is_silent(
        self, manager: socket.socket
    ) -> None:
        supervisor = Supervisor.take(named(manager, WATCHDOG_USEC="20000", WATCHDOG_PID=str(os.getpid())))
        supervisor.watch()
        manager.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(BUSY_S):
            for _ in range(3):
                assert await loop.sock_recv(manager, 4096) == b"WATCHDOG=1"
        while not silent(manager):
            """What it had said already."""
        time.sleep(0.1)  # noqa: ASYNC251  # the loop hangs
        assert silent(manager)
        supervisor.close()
