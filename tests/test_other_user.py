"""Threat 14: another user of the machine and a daemon in a process of its own, neither of which is root.

The daemon's user is `OWNER`, the other one is nobody. They can neither read, call, be there before nor replace anything.
"""

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from faults import FaultServer, reply, serve
from users import NOBODY, as_user, needs_root, python_as

pytestmark = pytest.mark.threat(14)

OWNER: Final = 54321  # has no name on this machine, nor files
TOKEN: Final = "the-token-of-the-owner"
GRANTED: Final = reply(
    b'{"access_token": "%b", "token_type": "Bearer", "expires_in": 3600}' % TOKEN.encode(),
    "200 OK",
    "Content-Type: application/json",
)
TOML: Final = """
[listen]
port = 0
socket = "{base}/shared/s"
{listen}
[limits]
replay_body = "1KiB"
[store]
kind = "vault"
path = "{base}/{vault}"
key_file = "{base}/{key}"
[accounts.work]
grant = "client_credentials"
token_endpoint = "{server}/token"
client_id = "id"
client_secret_file = "{base}/home/secret"
[routes."/"]
upstream = "{server}"
spool = "disk"
"""

# All that it needs is loaded before: the owner may not get to where Python is.
RUN: Final = """
import codecs, concurrent.futures.thread, contextlib, fcntl, importlib, os, pkgutil, resource, sys, tempfile
import bearerd
with contextlib.suppress(ImportError):  # a run on asyncio's own event loop
    import uvloop
for name in ("ascii", "idna", "latin-1", "utf-8-sig"):
    codecs.lookup(name)
for module in pkgutil.walk_packages(bearerd.__path__, "bearerd."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
owner = int(sys.argv[1])
os.setgroups([])
os.setgid(owner)
os.setuid(owner)
os.umask(0)
sys.argv[:2] = ["bearerd"]
bearerd.cli.main()
"""

ATTEMPTS: Final = {
    "read": 'cat "$1"',
    "list": 'ls "$1"/*',
    "write": 'echo mine >> "$1"',
    "put in": 'echo mine > "$1/mine"',
    "delete": 'rm -rf "$1"',
    "move away": 'mv -f "$1" "$2/taken"',
    "replace": 'ln -sfn /nowhere "$2/mine" && mv -fT "$2/mine" "$1"',
    "link": 'ln "$1" "$2/linked"',
    "open to all": 'chmod 777 "$1"',
    "own": 'chown nobody "$1" && test "$(stat -c %u "$1")" = 65534',
    "lock": 'exec 9<"$1" && flock -n 9',
}
CONNECT: Final = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1])
    s.sendall(b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    print(s.recv(65536).decode())
except OSError as exc:
    print(type(exc).__name__)
"""
CALL: Final = """
import sys, urllib.request, urllib.error
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())
except urllib.error.HTTPError as exc:
    print(exc.code, exc.read().decode())
"""
TAKE_PORT: Final = """
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
try:
    s.bind((host, port))
    s.listen()
    print("taken")
except OSError as exc:
    print(exc.errno)
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """Of the owner: `home` and `run`, which they have left open for all to look into. `shared` is like /tmp."""
    needs_root()
    path = Path(tempfile.mkdtemp(prefix="u-"))
    path.chmod(0o755)
    for name, mode in (("home", 0o755), ("run", 0o755), ("shared", 0o1777)):
        (path / name).mkdir()
        (path / name).chmod(mode)
    secret = path / "home" / "secret"
    secret.write_text("client-secret")
    for mine in (path / "home", path / "run", secret):
        os.chown(mine, OWNER, OWNER)
    secret.chmod(0o600)
    try:
        yield path
    finally:
        shutil.rmtree(path)


class Owned:
    """`bearerd run` as the owner. `log` is what it has said, `status` how it ended by itself, if it did."""

    def __init__(
        self,
        base: Path,
        server: str,
        *,
        listen: str = "",
        vault: str = "home/vault",
        key: str = "home/key",
        **env: str,
    ) -> None:
        file = base / "home" / "bearerd.toml"
        file.write_text(TOML.format(base=base, server=server, listen=listen, vault=vault, key=key))
        file.chmod(0o600)
        os.chown(file, OWNER, OWNER)
        self._words = [sys.executable, "-c", RUN, str(OWNER), "run", "-c", str(file)]
        self._env = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(base / "home"),
            "XDG_CACHE_HOME": str(base / "home" / "cache"),
            "XDG_RUNTIME_DIR": str(base / "run"),
        } | env
        self.log = ""
        self.status: int | None = None
        self.port = 0

    def start(self) -> None:
        """Until it listens, or has ended."""
        self._process = subprocess.Popen(
            self._words, env=self._env, cwd="/", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log += line
            if line.startswith("bearerd listens on http://127.0.0.1:"):
                self.port = int(line.split(":")[2].split()[0])
                self._reader = threading.Thread(target=self._read)
                self._reader.start()
                return
        self.status = self._process.wait(20)
        self._process.stderr.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log += line
        self._process.stderr.close()

    def stop(self) -> None:
        if self.status is None:
            self._process.send_signal(signal.SIGTERM)
            assert self._process.wait(30) == 0, self.log
            self._reader.join()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def owned(base: Path, **options: str) -> AsyncIterator[tuple[Owned, FaultServer]]:
    """The daemon, before a server that is its token endpoint and its upstream; it answers both with a token."""
    async with FaultServer([serve(GRANTED)]) as server:
        daemon = Owned(base, server.url, **options)
        await asyncio.to_thread(daemon.start)
        try:
            yield daemon, server
        finally:
            await asyncio.to_thread(daemon.stop)


async def called(daemon: Owned) -> None:
    """By root, who may; with a body that is kept on disk."""
    async with aiohttp.ClientSession() as http, http.post(daemon.url, data=bytes(100_000)) as answer:
        assert answer.status == 200


def nobody(script: str, *words: str | Path) -> int:
    return as_user(NOBODY, "/bin/sh", "-c", script, "sh", *words).returncode


def things(base: Path) -> list[Path]:
    return sorted(path for name in ("home", "run", "shared") for path in (base / name).rglob("*"))


def state(base: Path) -> list[tuple[str, int, int, int, int]]:
    found = [(str(path), path.lstat()) for path in things(base)]
    return [
        (name, each.st_ino, each.st_uid, each.st_mode, each.st_size)
        for name, each in found
        if each.st_uid != NOBODY  # what is their own in the shared folder is their own affair
    ]


async def test_the_attempts_are_real(base: Path) -> None:
    """On a thing of their own each of them works, but for what a file or a folder cannot be asked for."""
    for name, attempt in ATTEMPTS.items():
        shared = base / "shared"
        assert nobody('mkdir "$1"; touch "$1/x"', shared / "folder") == 0
        assert nobody('echo old > "$1"', shared / "file") == 0
        worked = [nobody(attempt, shared / thing, shared) == 0 for thing in ("file", "folder")]
        assert any(worked), name
        nobody('rm -rf "$1"/*', shared)


async def test_nothing_of_a_daemon_that_runs(base: Path) -> None:
    async with owned(base, listen='socket_mode = "0666"') as (daemon, server):
        await called(daemon)
        asked = len(server.requests)
        cannot_touch(base)
        cannot_see(daemon.pid)
        await cannot_call(daemon, base)
        for host in ("127.0.0.1", "0.0.0.0", "::1", "::"):
            assert python_as(NOBODY, TAKE_PORT, host, str(daemon.port)) == f"{errno.EADDRINUSE}\n"
        assert len(server.requests) == asked
        await called(daemon)
    assert TOKEN not in daemon.log
    assert daemon.log.count('"event": "peer.refused"') == 1
    assert all(
        f"Bearer {TOKEN}".encode() in request for request in server.requests if b"/token " not in request
    )


def cannot_touch(base: Path) -> None:
    """Whatever the owner's folders let others see of it: these are open to look into."""
    before = state(base)
    names = {path.relative_to(base).as_posix() for path in things(base)}
    made = {
        "home/vault",
        "home/vault/key.lock",
        "home/key",
        "shared/s",
        "run/bearerd",
        "home/cache/bearerd/bodies",
    }
    assert made | {"home/secret", "home/bearerd.toml"} < names
    assert sorted(name[-5:] for name in names if name.endswith((".sock", ".vault"))) == [".sock", "vault"]
    for path in things(base):
        for name, attempt in ATTEMPTS.items():
            if name == "list" and path.name in {"cache", "bearerd"} and "cache" in path.parts:
                continue  # no more bearerd's own than the home folder is
            assert nobody(attempt, path, base / "shared") != 0, (name, path)
    assert state(base) == before


def cannot_see(pid: int) -> None:
    for name in ("environ", "mem", "maps", "auxv", "io"):
        assert nobody('head -c 1 "$1"', f"/proc/{pid}/{name}") != 0, name
    assert nobody('ls "$1"', f"/proc/{pid}/fd/") != 0
    assert nobody('kill -0 "$1"', str(pid)) != 0


async def cannot_call(daemon: Owned, base: Path) -> None:
    (control,) = (base / "run" / "bearerd").iterdir()
    for url in (daemon.url, f"http://[::1]:{daemon.port}", f"{daemon.url}/-/status"):
        answer = await asyncio.to_thread(python_as, NOBODY, CALL, url)
        assert answer.startswith("403 "), answer
        assert '"peer_refused"' in answer
    answer = await asyncio.to_thread(python_as, NOBODY, CONNECT, base / "shared" / "s")
    assert answer.startswith("HTTP/1.1 403 "), (
        "its mode lets them in, and what the system says of them does not"
    )
    assert '"peer_refused"' in answer
    assert await asyncio.to_thread(python_as, NOBODY, CONNECT, control) == "PermissionError\n"


class TestThereFirst:
    """What the other user has put where ours was to be: it is refused in a line, or done without, and never followed.

    `test_local_socket`, `test_socket` and `stores/test_second_user` have all the kinds of things that can be put there.
    """

    async def test_the_name_of_the_socket(self, base: Path) -> None:
        shared = base / "shared"
        assert nobody('ln -s "$1/theirs" "$1/s"', shared) == 0
        async with owned(base) as (daemon, server):
            assert daemon.status == 78
            assert daemon.log == (
                f"bearerd: listen.socket: {shared}/s is there already and is no socket; "
                "move it away, or name another path\n"
            )
        assert not (shared / "theirs").exists()
        assert server.connections == 0

    async def test_the_runtime_folder(self, base: Path) -> None:
        """Where the session has none it is in the temporary one. Calls go on without a control socket."""
        shared = base / "shared"
        made = 'mkdir -m 777 "$1/theirs"; ln -s "$1/theirs" "$1/bearerd-$2"'
        assert nobody(made, shared, str(OWNER)) == 0
        async with owned(base, XDG_RUNTIME_DIR="", TMPDIR=str(shared)) as (daemon, _):
            await called(daemon)
            assert list((shared / "theirs").iterdir()) == []
        assert '"event": "control.unavailable"' in daemon.log

    async def test_the_vault_and_its_key(self, base: Path) -> None:
        shared = base / "shared"
        made = 'mkdir -m 777 "$1/vault"; head -c 32 /dev/zero | base64 > "$1/key"; chmod 666 "$1/key"'
        assert nobody(made, shared) == 0
        async with owned(base, vault="shared/vault", key="shared/key") as (daemon, server):
            assert daemon.status == 1
            assert daemon.log.splitlines()[-1].startswith("bearerd: ")
            assert "Traceback" not in daemon.log
        assert {path.name for path in shared.rglob("*")} == {"vault", "key"}
        assert TOKEN.encode() not in b"".join(server.requests)
