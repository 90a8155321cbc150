"""The refresh lock among real processes."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bearerd.errors import RefreshLockTimeout, StoreError
from bearerd.stores.lock import KernelLock
from bearerd.stores.vault import VaultFolder

HOLDER = """
import asyncio, pathlib, sys
from bearerd.stores.lock import KernelLock
from bearerd.stores.vault import VaultFolder
async def main():
    async with KernelLock(VaultFolder(pathlib.Path(sys.argv[1])), "work").hold():
        print("held", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> VaultFolder:
    return VaultFolder(tmp_path / "vault")


def lock(folder: VaultFolder, wait_s: float = 5.0) -> KernelLock:
    return KernelLock(folder, "work", wait_s=wait_s)


@asynccontextmanager
async def another_holder(folder: VaultFolder) -> AsyncIterator[Process]:
    """A process that holds the lock, until it is killed."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, str(folder), stdout=PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_it_excludes_other_tasks_of_this_process(folder: VaultFolder) -> None:
    inside = 0
    most = 0

    async def hold() -> None:
        nonlocal inside, most
        async with lock(folder).hold():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(hold() for _ in range(10)))
    assert most == 1


async def test_it_excludes_other_processes_and_the_wait_is_bounded(folder: VaultFolder) -> None:
    async with another_holder(folder):
        began = time.monotonic()
        with pytest.raises(RefreshLockTimeout, match=r"another process has held .*work\.lock for 0\.3 s"):
            async with lock(folder, 0.3).hold():
                raise AssertionError("it was held twice")
        assert 0.3 <= time.monotonic() - began < 10


async def test_a_holder_that_is_killed_leaves_nothing_to_wait_for(folder: VaultFolder) -> None:
    async with another_holder(folder) as holder:
        os.kill(holder.pid, signal.SIGKILL)
        async with asyncio.timeout(10), lock(folder).hold():
            """At once."""


async def test_a_waiter_that_is_cancelled_holds_nothing(folder: VaultFolder) -> None:
    async with lock(folder).hold():
        waiter = asyncio.create_task(lock(folder).hold().__aenter__())
        await asyncio.sleep(0.05)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    async with lock(folder, 0.1).hold():
        """Free."""


async def test_the_file_stays_and_is_ours_alone(folder: VaultFolder, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with lock(folder).hold():
            inode = (tmp_path / "vault" / "work.lock").stat().st_ino
    finally:
        os.umask(before)
    async with lock(folder).hold():
        found = (tmp_path / "vault" / "work.lock").stat()
    assert found.st_ino == inode
    assert stat.S_IMODE(found.st_mode) == 0o600


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def unmount(folder: Path) -> None:
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
async def test_it_holds_on_a_file_system_that_has_become_read_only(tmp_path: Path) -> None:
    """Tokens that cannot be saved there are refreshed all the same."""
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path))
    try:
        folder = VaultFolder(tmp_path / "vault")
        async with lock(folder).hold():
            """It is made while it can be."""
        mount("-o", "remount,ro", str(tmp_path))
        async with lock(folder).hold():
            with pytest.raises(RefreshLockTimeout):
                async with lock(folder, 0.2).hold():
                    raise AssertionError("it was held twice")
            mount("-o", "remount,rw", str(tmp_path))
            with pytest.raises(RefreshLockTimeout):
                async with lock(folder, 0.2).hold():
                    raise AssertionError("it was held twice")
        async with another_holder(folder):
            with pytest.raises(RefreshLockTimeout):
                async with lock(folder, 0.2).hold():
                    raise AssertionError("it was held twice")
        mount("-o", "remount,ro", str(tmp_path))
        with pytest.raises(StoreError, match="read-only"):
            async with KernelLock(folder, "other", wait_s=0.2).hold():
                raise AssertionError("there is no file to lock")
    finally:
        unmount(tmp_path)


async def test_a_link_in_its_place_is_refused(folder: VaultFolder, tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir(mode=0o700)
    (tmp_path / "vault" / "work.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(StoreError):
        async with lock(folder, 0.2).hold():
            raise AssertionError("it was followed")
    assert not (tmp_path / "victim").exists()
