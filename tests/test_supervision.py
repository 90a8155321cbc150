"""A real supervisor starts a daemon, hears of it, and starts it again, while clients call."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from faults import FaultServer, reply, serve
from messages import read_response
from patience import settle

BUSY_S = 60.0
HI = reply(b"hi")

# As a service manager does it: the descriptors are from 3 on, and the variables are for this very process.
LAUNCH = """
import os, sys
names, *numbers = sys.argv[1].split(",")
spare = [os.dup(int(number)) for number in numbers]
spare = [os.dup(number) if number < 32 else number for number in spare]
for place, number in enumerate(spare, 3):
    os.dup2(number, place, inheritable=True)
if numbers:
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(numbers)), "LISTEN_FDNAMES": names}
if "WATCHDOG_USEC" in os.environ:
    os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "bearerd", "run", "-c", sys.argv[2]])
"""


class Manager:
    """Keeps one daemon, on `sockets` that are its own, and hears what it says."""

    def __init__(self, folder: Path, toml: str, *sockets: socket.socket, watchdog_s: float = 0) -> None:
        self._file = folder / "bearerd.toml"
        self._file.write_text(toml)
        self._file.chmod(0o600)
        self._sockets = sockets
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._path = folder / "notify"
        self._environ = {"NOTIFY_SOCKET": str(self._path)}
        if watchdog_s:
            self._environ["WATCHDOG_USEC"] = str(round(watchdog_s * 1e6))
        self._tasks: list[asyncio.Task[None]] = []
        self.said = ""
        self.heard: list[str] = []
        self.process: Process

    async def __aenter__(self) -> Self:
        self._ear.bind(str(self._path))
        self._ear.setblocking(False)
        self._tasks.append(asyncio.create_task(self._listen()))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.kill()
        await self.process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._ear.close()

    async def launch(self) -> None:
        numbers = ",".join(["one:two", *(str(sock.fileno()) for sock in self._sockets)])
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LAUNCH, numbers, str(self._file)),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            pass_fds=[sock.fileno() for sock in self._sockets],
            env=os.environ | self._environ,
        )
        self._tasks.append(asyncio.create_task(self._read(self.process)))

    async def start(self) -> None:
        self.heard.clear()
        await self.launch()
        await self.hear("READY=1")

    async def stop(self) -> int:
        self.process.terminate()
        async with asyncio.timeout(BUSY_S):
            return await self.process.wait()

    async def hear(self, message: str) -> None:
        """Until it has been said. RuntimeError where the daemon ends instead."""
        async with asyncio.timeout(BUSY_S):
            while not any(each.startswith(message) for each in self.heard):
                if self.process.returncode is not None:
                    raise RuntimeError(f"it ended without {message}. It said:\n{self.said}")
                await asyncio.sleep(0.01)

    async def _listen(self) -> None:
        while True:
            self.heard.append((await asyncio.get_running_loop().sock_recv(self._ear, 4096)).decode())

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self.said += line.decode()


def toml(upstream: str, further: str = "") -> str:
    return f'{further}\n[accounts.a]\ntoken = "static-token"\n[routes."/"]\nupstream = "{upstream}"\n'


def inet(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


async def call(port: int, after_s: float = 0) -> int:
    """On a connection of its own, which is there for so long before. Raises whatever a client would have seen."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await asyncio.sleep(after_s)
        writer.write(b"GET /x HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % port)
        async with asyncio.timeout(BUSY_S):
            return int((await read_response(reader, b"GET")).start.split()[1])
    finally:
        writer.close()


async def restart_under_load(folder: Path, times: int, callers: int) -> Counter[str]:
    """How calls ended, of clients that make one after the other."""
    outcomes: Counter[str] = Counter()
    over = asyncio.Event()

    async def keep_calling(port: int, after_s: float) -> None:
        while not over.is_set():
            try:
                outcomes[str(await call(port, after_s))] += 1
            except (OSError, EOFError, TimeoutError) as exc:
                outcomes[repr(exc)] += 1

    with inet() as listening:
        port = listening.getsockname()[1]
        async with (
            FaultServer([serve(HI)]) as upstream,
            Manager(folder, toml(upstream.url), listening) as manager,
        ):
            await manager.start()
            async with asyncio.TaskGroup() as group:
                for number in range(callers):  # every other one is slow to say what it wants
                    group.create_task(keep_calling(port, 0.05 * (number % 2)))
                for _ in range(times):
                    before = outcomes.total()
                    while outcomes.total() < before + 5 * callers:  # it is at work  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                    assert await manager.stop() == 0, manager.said
                    await manager.start()
                over.set()
            assert await manager.stop() == 0
    return outcomes


async def test_no_connection_is_lost_when_it_is_started_again(tmp_path: Path) -> None:
    outcomes = await restart_under_load(tmp_path, times=1, callers=4)
    assert set(outcomes) == {"200"}, outcomes


@pytest.mark.soak
async def test_no_connection_is_lost_when_it_is_started_again_ten_times(tmp_path: Path) -> None:
    outcomes = await restart_under_load(tmp_path, times=10, callers=16)
    assert set(outcomes) == {"200"}, outcomes
    print(f"\n{outcomes.total()} calls, a connection each, over ten restarts")  # noqa: T201  # the soak's result


async def test_what_a_service_manager_hears(tmp_path: Path) -> None:
    """In the order in which it happens; and a process that hangs says no more that it is alive."""
    login = '[accounts.work]\nissuer = "https://login.example.com"\nclient_id = "c"\n[routes."/w"]\nupstream = "https://api.example.com"\naccount = "work"\n'
    text = f'[listen]\nport = 0\n[store]\npath = "{tmp_path}/vault"\nkey_file = "{tmp_path}/key"\n'
    text += toml("http://127.0.0.1:9").replace("upstream", 'account = "a"\nupstream') + login
    with inet() as listening:
        async with Manager(tmp_path, text, listening, watchdog_s=0.2) as manager:
            await manager.start()
            await manager.hear("WATCHDOG=1")
            await manager.hear("STATUS=http://127.0.0.1:")
            status = [each for each in manager.heard if each.startswith("STATUS=")][-1]
            assert status.endswith("; 2 accounts, 1 needs a login: bearerd login work")
            manager.process.send_signal(signal.SIGSTOP)
            await stopped(manager.process.pid)
            await silence(manager)
            manager.process.send_signal(signal.SIGCONT)
            manager.heard.clear()
            await manager.hear("WATCHDOG=1")
            manager.heard.clear()
            manager.process.send_signal(signal.SIGHUP)
            await manager.hear("RELOADING=1\nMONOTONIC_USEC=")
            await manager.hear("READY=1")
            assert await manager.stop() == 0
            async with asyncio.timeout(BUSY_S):  # both are read by other tasks
                while "STOPPING=1" not in manager.heard or "config.reloaded" not in manager.said:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


async def stopped(pid: int) -> None:
    async with asyncio.timeout(BUSY_S):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "T":  # noqa: ASYNC110  # the kernel does it
            await asyncio.sleep(0.01)


async def silence(manager: Manager) -> None:
    """What it had said already is heard; then nothing, for several of its periods."""
    await settle(0.2)
    manager.heard.clear()
    await settle(0.5)
    assert manager.heard == []
