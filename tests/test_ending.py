"""The end of accounts whose refreshes and saves do not come to theirs."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from bearerd.ending import close_all, save_now
from bearerd.supervisor import Supervisor
from bearerd.tokens.manager import TokenManager
from patience import within


class Manager:
    """One that is closed when it is let, and then has saved what it had."""

    def __init__(self, *, unsaved: bool = False, keeps: bool = False) -> None:
        self.go = asyncio.Event()
        self.unsaved = unsaved
        self._keeps = keeps

    @property
    def busy(self) -> bool:
        return not self.go.is_set()

    async def aclose(self) -> None:
        await self.go.wait()
        self.unsaved = self._keeps


def managers(*some: Manager) -> list[TokenManager]:
    return cast(list[TokenManager], list(some))


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def supervisor(heard: socket.socket) -> Supervisor:
    return Supervisor.take({"NOTIFY_SOCKET": heard.getsockname()})


async def test_a_store_that_hangs_is_given_up(heard: socket.socket) -> None:
    stuck = Manager(unsaved=True)
    async with within(5):
        assert not await close_all(managers(stuck), supervisor(heard), longest_s=0.1, turn_s=0.05)
    assert heard.recv(4096) == b"STATUS=waits until 1 refreshed login(s) are saved, at most 0.1 s"
    assert heard.recv(4096) == heard.recv(4096) == b"EXTEND_TIMEOUT_USEC=150000"
    with pytest.raises(BlockingIOError):
        heard.recv(4096)


async def test_so_is_one_that_has_not_said_what_it_does(heard: socket.socket) -> None:
    assert not await close_all(managers(Manager()), supervisor(heard), longest_s=0.1, turn_s=0.1)


async def test_tokens_that_are_not_saved_at_the_end_are_lost(heard: socket.socket) -> None:
    full, fine = Manager(unsaved=True, keeps=True), Manager(unsaved=True)
    full.go.set()
    fine.go.set()
    assert not await close_all(managers(full, fine), supervisor(heard))
    assert await close_all(managers(fine), supervisor(heard))


async def test_with_nothing_under_way_nothing_is_said(heard: socket.socket) -> None:
    idle = Manager()
    idle.go.set()
    assert await close_all(managers(idle), Supervisor())
    assert await close_all([], supervisor(heard))
    with pytest.raises(BlockingIOError):
        heard.recv(4096)


async def test_more_time_is_asked_for_as_long_as_it_takes(heard: socket.socket) -> None:
    slow = Manager()
    closing = asyncio.create_task(close_all(managers(slow), supervisor(heard), turn_s=0.05))
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(20):
        for _ in range(4):
            await loop.sock_recv(heard, 4096)
    slow.go.set()
    assert await closing


class TestAtOnce:
    async def test_what_has_come_is_saved_first(self) -> None:
        manager = Manager(unsaved=True)
        saving = asyncio.create_task(save_now(managers(manager)))
        await asyncio.sleep(0.05)
        assert not saving.done()
        manager.unsaved = False
        assert await saving

    async def test_not_for_ever(self) -> None:
        async with within(5):
            assert not await save_now(managers(Manager(unsaved=True)), 0.1)
