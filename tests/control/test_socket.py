"""The control socket, by real sockets: who may talk, what is said, and peers that are slow, dead, false or mad."""

import asyncio
import json
import os
import socket
import stat
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bearerd.control.client import REPLY_LIMIT, Daemons
from bearerd.control.rendezvous import (
    GREETING,
    Origin,
    Unusable,
    VaultEntry,
    find_origin,
    may_talk,
    opened,
    runtime_folder,
)
from bearerd.control.siblings import VaultSiblings
from bearerd.control.socket import (
    BAD_REQUEST,
    CONNECTIONS,
    DEFECT,
    LINE_LIMIT,
    NOT_MINE,
    ControlSocket,
    listen,
)
from bearerd.core.calls import Asker
from bearerd.core.lifecycle import Event, Failure, FailureKind, Policy, State
from bearerd.core.redaction import Secret
from bearerd.core.token_formats import HandedToken
from bearerd.core.tokens import Granted, TokenSet, Tombstone
from bearerd.errors import LoginRequired, StoreUnwritable, TokenUnavailable
from bearerd.peers import CREDENTIALS
from bearerd.places import default_path
from bearerd.stores.memory import MemoryLock, MemoryStore
from bearerd.tokens.manager import TokenManager
from bearerd.tokens.refresh import RefreshProtocol
from clocks import FakeClock
from patience import settle, within
from users import NOBODY

ORIGIN = Origin("/etc/one.toml")
ENTRY = VaultEntry("/vault", "work-1")
OF_NOBODY = VaultEntry("/vault", "play-1")
ASK = {"do": "token", "account": "work", "config": ORIGIN.file, "overrides": "", "min_valid_s": 0}


class Numbered:
    """A source of tokens t1, t2 ..., or of `failure`."""

    def __init__(self) -> None:
        self.given = 0
        self.refresh_token: Secret | None = None
        self.failure: Failure | None = None
        self.defect: Exception | None = None

    async def obtain(self, current: TokenSet | None) -> Granted | Failure:
        del current
        self.given += 1
        return self.failure or Granted(Secret(f"t{self.given}"), 1000.0, self.refresh_token)

    def changed(self) -> bool:
        return False

    async def aclose(self) -> None:
        pass


class Quiet:
    """An observer that looks away."""

    def changed(self, before: State, event: Event, after: State, askers: Sequence[Asker]) -> None:
        pass

    def unsaved(self, reason: str | None) -> None:
        pass

    def defect(self, exc: Exception) -> None:
        raise exc


class Full(MemoryStore):
    """A store with no room."""

    async def save(self, record: TokenSet | Tombstone) -> None:
        raise StoreUnwritable(f"no room for {record.generation}")


class Side:
    """One daemon's side: an account called work, and the socket that serves it."""

    def __init__(self, origin: Origin = ORIGIN, *, renewable: bool = True, full: bool = False) -> None:
        self.source = Numbered()
        self.clock = FakeClock()
        self.lock = MemoryLock()
        store = Full() if full else MemoryStore()
        protocol = RefreshProtocol(self.source, store, self.lock, self.clock, Quiet())
        self.manager = TokenManager(protocol, Policy(renewable=renewable), Quiet(), draw=lambda: 0.0)
        self.defect: Exception | None = None
        self.defects: list[Exception] = []
        self.control = ControlSocket(
            *(origin, {"work": self.manager}, self.status, self.defects.append),
            ask_s=0.5,
            answer_s=0.5,
            shared={ENTRY: "work", OF_NOBODY: "play"},
        )

    def status(self) -> dict[str, Any]:
        if self.defect is not None:
            raise self.defect
        return {"addresses": [], "accounts": []}

    @asynccontextmanager
    async def running(self, *, started: bool = True) -> AsyncIterator["Side"]:
        if started:
            await self.manager.start()
        self.control.start(os.environ)
        try:
            yield self
        finally:
            await self.control.aclose()
            await self.manager.aclose()


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder for one test, with a short name: a socket's has room for little more than a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture
def folder(runtime: Path) -> Path:
    (runtime / "bearerd").mkdir(mode=0o700)
    return runtime / "bearerd"


def sockets(runtime: Path) -> list[Path]:
    return sorted((runtime / "bearerd").iterdir())


async def fetch(origin: Origin = ORIGIN, account: str = "work", **options: Any) -> HandedToken | None:
    """As a client in another thread."""
    return await asyncio.to_thread(
        lambda: Daemons(os.environ, token_s=1.0).fetch_token(account, origin, **options)
    )


async def fetch_value(**options: Any) -> str | None:
    token = await fetch(**options)
    return token.access_token.reveal() if token else None


async def say(path: Path, data: bytes, *, half_close: bool = False) -> bytes:
    """What comes back until the end, without the greeting."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    assert await reader.readline() == GREETING
    writer.write(data)
    if half_close:
        writer.write_eof()
    try:
        async with asyncio.timeout(15):
            return await reader.read()
    except ConnectionError:  # it would not read to the end
        return b""
    finally:
        writer.close()


@contextmanager
def impostor(path: Path, *answers: bytes, linger_s: float = 0.0) -> Iterator[list[bytes]]:
    """Something that listens at `path` and says `answers`, one after each thing said to it."""
    heard: list[bytes] = []
    with listen(path) as sock:
        sock.settimeout(10)

        def serve() -> None:
            try:
                peer, _ = sock.accept()
                with peer:
                    peer.settimeout(10)
                    for answer in answers:
                        peer.sendall(answer)
                        heard.append(peer.recv(65536))
                    time.sleep(linger_s)
            except OSError:
                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield heard
        with socket.socket(socket.AF_UNIX) as last, suppress(OSError):
            last.connect(str(path))  # for one that nobody has called
        thread.join(15)


def as_nobody(code: str, *words: str) -> str:
    """What another user's process prints."""
    preamble = f"import os, socket, sys; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    ended = subprocess.run(
        ["/usr/bin/python3", "-S", "-c", preamble + code, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


CONNECT = """
s = socket.socket(socket.AF_UNIX)
s.settimeout(30)
try:
    s.connect(sys.argv[1])
    print(s.recv(100))
except OSError as exc:
    print(type(exc).__name__)
"""
FALSE_DAEMON = """
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
print("ready", flush=True)
s.settimeout(30)
peer = s.accept()[0]
try:
    peer.sendall(b'{"bearerd": 1}\\n{"token": {"access_token": "false", "expires_at": 9}}\\n')
    print(peer.recv(100))
except OSError:  # gone already
    print(b"")
"""

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


class TestWhoMayTalk:
    @pytest.mark.threat(14)
    @pytest.mark.parametrize("umask", [0, 0o022, 0o777])
    async def test_folder_and_socket_are_ours_alone_whatever_the_umask(
        self, runtime: Path, umask: int
    ) -> None:
        before = os.umask(umask)
        try:
            async with Side().running():
                assert stat.S_IMODE((runtime / "bearerd").stat().st_mode) == 0o700
                (path,) = sockets(runtime)
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                assert path.name.startswith(f"{os.getpid()}-")
                assert await fetch_value() == "t1"
        finally:
            os.umask(before)

    @root_only
    async def test_another_user_does_not_get_to_the_socket(self, runtime: Path) -> None:
        async with Side().running():
            runtime.chmod(0o755)
            (path,) = sockets(runtime)
            assert await asyncio.to_thread(as_nobody, CONNECT, str(path)) == "PermissionError"
            (runtime / "bearerd").chmod(0o755)
            assert await asyncio.to_thread(as_nobody, CONNECT, str(path)) == "PermissionError"

    @pytest.mark.threat(14)
    @root_only
    async def test_another_user_who_gets_there_is_cut_off_before_a_word(self, runtime: Path) -> None:
        async with Side().running():
            (path,) = sockets(runtime)
            for opening in (runtime, runtime / "bearerd"):
                opening.chmod(0o755)
            path.chmod(0o666)
            assert await asyncio.to_thread(as_nobody, CONNECT, str(path)) in {"b''", "ConnectionResetError"}
            (runtime / "bearerd").chmod(0o700)
            assert await fetch_value() == "t1"

    @root_only
    async def test_another_user_s_false_daemon_is_told_nothing(self, runtime: Path, folder: Path) -> None:
        """It got its socket in while the folder was open to it."""
        runtime.chmod(0o755)
        folder.chmod(0o777)
        program = f"import os, socket, sys; os.setgroups([]); os.setuid({NOBODY})\n{FALSE_DAEMON}"
        process = await asyncio.create_subprocess_exec(
            *("/usr/bin/python3", "-S", "-c", program, str(folder / "0-false.sock")),
            stdout=subprocess.PIPE,
            cwd="/",
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        folder.chmod(0o700)
        assert await fetch() is None
        assert (await process.communicate())[0] == b"b''\n"

    def test_what_is_no_unix_socket_has_no_user(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unconnected:
            assert not may_talk(unconnected)
        closed = socket.socket(socket.AF_UNIX)
        closed.close()
        assert not may_talk(closed)

    def test_the_user_is_the_second_word_on_linux_and_macos(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with ours, theirs:
            assert may_talk(ours)
        ucred = struct.pack("iII", 12, 1000, 1000)
        xucred = struct.pack("IIh16I", 0, 1000, 1, *[20] * 16)
        assert [struct.unpack_from("=II", data)[1] for data in (ucred, xucred)] == [1000, 1000]
        assert [len(ucred), len(xucred)] == [CREDENTIALS[name][2] for name in ("linux", "darwin")]


class TestFolder:
    def refused(self, folder: Path) -> str:
        with pytest.raises(Unusable) as refusal, opened(folder, create=True):
            pass
        return str(refusal.value)

    async def check_both_sides(self, runtime: Path, why: str) -> None:
        """Neither side uses the folder; the daemon goes on without, and the client says why."""
        async with Side().running() as side:
            assert (await side.manager.token()).generation == 1
            assert await fetch() is None
        daemons = Daemons(os.environ)
        assert str(daemons.warning).startswith(f"running daemons are not asked: {runtime}/bearerd {why}")

    async def test_a_link_is_refused(self, runtime: Path, tmp_path: Path) -> None:
        tmp_path.chmod(0o700)
        (runtime / "bearerd").symlink_to(tmp_path)
        await self.check_both_sides(runtime, "cannot be used: is a link")
        assert list(tmp_path.iterdir()) == []

    async def test_a_link_to_nowhere_is_refused(self, runtime: Path) -> None:
        (runtime / "bearerd").symlink_to(runtime / "nowhere")
        await self.check_both_sides(runtime, "cannot be used: is a link")
        assert not (runtime / "nowhere").exists()

    async def test_a_file_is_refused(self, runtime: Path) -> None:
        (runtime / "bearerd").touch()
        await self.check_both_sides(runtime, "cannot be used: not a directory")

    @pytest.mark.threat(14)
    @root_only
    async def test_one_that_another_user_made_first_is_refused(self, runtime: Path, folder: Path) -> None:
        os.chown(folder, NOBODY, NOBODY)
        await self.check_both_sides(runtime, "belongs to another user")

    async def test_one_that_others_can_write_to_is_refused(self, runtime: Path, folder: Path) -> None:
        folder.chmod(0o770)
        await self.check_both_sides(runtime, "is open to other users; remove it")

    async def test_no_folder_means_no_daemons(self) -> None:
        daemons = Daemons(os.environ)
        assert daemons.fetch_status() == []
        assert daemons.warning is None

    async def test_a_name_too_long_for_a_socket_costs_the_socket_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        long = tmp_path / ("x" * 100)
        long.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
        async with Side().running() as side:
            assert (await side.manager.token()).generation == 1
        assert "control.unavailable" in capsys.readouterr().out

    async def test_one_that_cannot_be_made_costs_the_socket_alone(
        self, runtime: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        monkeypatch.setenv("TMPDIR", str(runtime / "absent"))
        async with Side().running():
            pass
        assert "No such file or directory" in capsys.readouterr().out

    def test_a_name_that_is_taken_is_left_alone(self, folder: Path) -> None:
        (folder / "1-a.new").mkdir()
        with pytest.raises(OSError, match="in use"):
            listen(folder / "1-a.sock")
        assert [path.name for path in folder.iterdir()] == ["1-a.new"]

    def test_where_it_is(self, tmp_path: Path) -> None:
        uid = os.geteuid()
        assert runtime_folder({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / "bearerd"
        assert runtime_folder({"TMPDIR": str(tmp_path)}) == tmp_path / f"bearerd-{uid}"
        for nowhere in ({}, {"XDG_RUNTIME_DIR": "run", "TMPDIR": "t"}, {"XDG_RUNTIME_DIR": f"{tmp_path}/no"}):
            assert runtime_folder(nowhere) == Path(f"/tmp/bearerd-{uid}")

    @root_only
    def test_another_user_s_session_is_not_used(self, tmp_path: Path) -> None:
        """As under sudo, where the variable is still the other user's."""
        os.chown(tmp_path, NOBODY, NOBODY)
        found = runtime_folder({"XDG_RUNTIME_DIR": str(tmp_path)})
        assert found == Path(f"/tmp/bearerd-{os.geteuid()}")


class TestOrigin:
    @pytest.mark.parametrize(
        ("own", "asked", "expected"),
        [
            (Origin("/a"), Origin("/a"), True),
            (Origin("/a"), Origin("/b"), False),
            (Origin("/a"), Origin(None), False),
            (Origin(None), Origin(None), True),
            (Origin("/a", "x"), Origin("/a", "x"), True),
            (Origin("/a", "x"), Origin("/a", "y"), False),
            (Origin("/a", "x"), Origin("/a"), True),
            (Origin("/a"), Origin("/a", "x"), False),
            (Origin(None, "x"), Origin(None), False),
            (Origin(None, "x"), Origin(None, "x"), True),
        ],
        ids=repr,
    )
    def test_a_daemon_answers_its_own(self, own: Origin, asked: Origin, *, expected: bool) -> None:
        assert own.answers(asked) is expected

    def test_a_file_by_any_of_its_names(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "b.toml"
        file.touch()
        (tmp_path / "link.toml").symlink_to(file)
        monkeypatch.chdir(tmp_path)
        expected = Origin(str(file.resolve()))
        assert find_origin(file, {}) == expected
        assert find_origin(Path("b.toml"), {}) == expected
        assert find_origin(tmp_path / "link.toml", {}) == expected
        assert find_origin(None, {"bearerd_config": str(file)}) == expected
        assert find_origin(file, {"BEARERD_CONFIG": "other"}) == expected

    def test_the_default_file_is_that_of_the_settings(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        assert find_origin(None, {}) == Origin(None)
        default_path().parent.mkdir()
        default_path().touch()
        assert find_origin(None, {}) == Origin(str(default_path().resolve()))

    @pytest.mark.parametrize(
        "name",
        [
            "BEARERD_ACCOUNTS__WORK__TOKEN",
            "bearerd_accounts__work__token",
            "BEARERD_STORE__KIND",
            "BEARERD_UPSTREAM",
        ],
    )
    def test_variables_that_change_accounts_count_and_are_not_shown(self, name: str) -> None:
        file = Path("/a")
        origin = find_origin(file, {name: "canary"})
        assert origin.overrides
        assert "canary" not in repr(origin)
        assert origin == find_origin(file, {"HOME": "/", name: "canary"})
        assert origin != find_origin(file, {name: "other"})

    def test_other_variables_do_not(self) -> None:
        assert find_origin(Path("/a"), {"BEARERD_LOG__LEVEL": "debug"}) == find_origin(Path("/a"), {})


async def borrow(entry: VaultEntry = ENTRY, above: int = 0) -> TokenSet | None:
    return await VaultSiblings(os.environ, entry).borrow(above)


class TestLoans:
    """One daemon has a token that others of the same vault have not, whatever configuration each was started with."""

    async def test_it_is_the_token_in_force_without_its_refresh_token(self) -> None:
        async with Side(Origin("/etc/another.toml")).running() as side:
            side.source.refresh_token = Secret("r")
            await side.manager.token()
            await side.manager.refresh()
            now = side.clock.wall()
            assert await borrow() == TokenSet(2, Secret("t2"), now, now + 1000.0)

    async def test_the_newest_is_taken_and_none_that_is_no_news(self) -> None:
        async with Side().running() as older, Side().running() as newer:
            await older.manager.token()
            await newer.manager.token()
            newer.source.given = 10
            await newer.manager.refresh()
            lent = await borrow()
            assert lent is not None
            assert (lent.generation, lent.access_token) == (2, Secret("t11"))
            assert await borrow(above=2) is None

    async def test_it_is_for_those_of_the_same_vault_and_the_same_credential(self) -> None:
        async with Side().running() as side:
            await side.manager.token()
            assert await borrow() is not None
            assert await borrow(VaultEntry("/other", ENTRY.stem)) is None
            assert await borrow(VaultEntry(ENTRY.folder, "work-2")) is None
            assert await borrow(OF_NOBODY) is None

    async def test_nothing_is_begun_or_waited_for_by_it(self) -> None:
        """Neither where there is no token nor where it has expired or is not known to be read from its store."""
        async with Side(renewable=False).running(), Side().running(started=False), Side().running() as side:
            await side.manager.token()
            side.clock.suspend(1001.0)
            async with within(1.0):
                assert await borrow() is None
            assert side.source.given == 1

    async def test_without_daemons_there_is_none(self) -> None:
        assert await borrow() is None


class TestDaemonSide:
    async def test_a_token_a_refresh_and_a_status(self) -> None:
        async with Side().running() as side:
            token = await fetch()
            assert token == HandedToken("work", Secret("t1"), side.clock.wall() + 1000.0)
            assert await fetch_value(min_valid_s=5000.0) == "t1"
            assert await fetch_value(force=True) == "t2"
            assert await fetch_value() == "t2"
            (status,) = await asyncio.to_thread(Daemons(os.environ).fetch_status)
            assert status == {"pid": os.getpid(), "config": ORIGIN.file, "addresses": [], "accounts": []}

    async def test_one_that_does_not_serve_the_account_is_passed_over(self) -> None:
        async with Side().running(), Side(Origin("/etc/two.toml")).running() as other:
            other.source.given = 10
            assert await fetch_value() == "t1"
            assert await fetch_value(origin=Origin("/etc/two.toml")) == "t11"
            assert await fetch(Origin("/etc/three.toml")) is None
            assert await fetch(Origin(None)) is None
            assert await fetch(account="play") is None

    async def test_a_login_that_is_over_is_said_by_its_name(self) -> None:
        async with Side(renewable=False).running():
            with pytest.raises(
                LoginRequired, match=r"^account work: nobody has logged in yet; give it a new refresh token"
            ):
                await fetch()
            with pytest.raises(
                LoginRequired, match=r"^account work: nobody has logged in yet; give it a new refresh token"
            ):
                await fetch(force=True)

    async def test_a_failure_is_said_in_its_words_once_nobody_has_a_token(self) -> None:
        async with Side().running(started=False) as failing:
            failing.source.failure = Failure(FailureKind.TRANSIENT, "it is down", 60.0)
            await failing.manager.start()
            with pytest.raises(TokenUnavailable, match=r"^it is down$") as refusal:
                await fetch()
            assert refusal.value.retry_after_s == pytest.approx(60.0)
            async with Side().running():
                assert await fetch_value() == "t1"

    async def test_an_unsaved_token_is_had_from_who_keeps_the_lock(self) -> None:
        async with Side(full=True).running() as side:
            assert await fetch_value() == "t1"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), side.lock.hold():
                    pass

    @pytest.mark.parametrize(
        "line",
        [
            b"",
            b"nonsense",
            b"\xff\xfe",
            b"[" * 20_000,
            b"[]",
            b'{"do": "shutdown"}',
            b'{"do": "token"}',
            b'{"do": "loan"}',
            json.dumps(ASK | {"account": 1}).encode(),
            json.dumps(ASK | {"config": []}).encode(),
            json.dumps(ASK | {"min_valid_s": "1"}).encode(),
        ],
    )
    async def test_what_is_not_understood_is_said_to_be(self, runtime: Path, line: bytes) -> None:
        async with Side().running():
            (path,) = sockets(runtime)
            assert json.loads(await say(path, line + b"\n")) == BAD_REQUEST
            assert json.loads(await say(path, json.dumps(ASK).encode() + b"\n"))["token"]

    async def test_who_has_said_all_may_close_that_half(self, runtime: Path) -> None:
        async with Side().running():
            (path,) = sockets(runtime)
            asked = json.dumps(ASK | {"account": "play"}).encode() + b"\n"
            assert json.loads(await say(path, asked, half_close=True)) == NOT_MINE

    @pytest.mark.parametrize(
        ("data", "half_close"), [(b"x" * (LINE_LIMIT + 1), False), (b"", True), (b"{", True), (b"{", False)]
    )
    async def test_who_does_not_end_a_line_is_cut_off(
        self, runtime: Path, data: bytes, *, half_close: bool
    ) -> None:
        async with Side().running():
            (path,) = sockets(runtime)
            began_at = time.monotonic()
            assert await say(path, data, half_close=half_close) == b""
            assert time.monotonic() - began_at < 4
            assert await fetch_value() == "t1"

    async def test_so_many_at_a_time_and_no_more(self, runtime: Path) -> None:
        async with Side().running():
            (path,) = sockets(runtime)
            crowd = [await asyncio.open_unix_connection(str(path)) for _ in range(CONNECTIONS)]
            for reader, _ in crowd:
                assert await reader.readline() == GREETING
            reader, late = await asyncio.open_unix_connection(str(path))
            assert await reader.read() == b""
            assert await fetch() is None
            for _, writer in [*crowd, (reader, late)]:
                writer.close()
            await settle(0.1)
            assert await fetch_value() == "t1"

    async def test_an_account_that_takes_long_to_start_is_waited_for_and_no_longer(self) -> None:
        """Its store waits for a keychain that does not answer."""
        async with Side().running(started=False):
            with pytest.raises(TokenUnavailable, match="still being started"):
                await fetch()

    async def test_a_defect_is_no_answer_and_ends_nothing(self, runtime: Path) -> None:
        async with Side().running() as side:
            side.defect = RuntimeError("canary")
            (path,) = sockets(runtime)
            assert json.loads(await say(path, b'{"do": "status"}\n')) == DEFECT
            assert await asyncio.to_thread(Daemons(os.environ).fetch_status) == []
            assert side.defects == [side.defect] * 2
            assert await fetch_value() == "t1"

    async def test_after_the_stop_nothing_is_left(self, runtime: Path) -> None:
        side = Side()
        async with side.running():
            (path,) = sockets(runtime)
            reader, writer = await asyncio.open_unix_connection(str(path))
            assert await reader.readline() == GREETING
        assert sockets(runtime) == []
        assert await reader.read() == b""
        writer.close()
        await side.control.aclose()

    async def test_a_socket_that_somebody_removed_is_no_trouble_at_the_stop(self, runtime: Path) -> None:
        async with Side().running():
            sockets(runtime)[0].unlink()
            assert await fetch() is None


def dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


class TestClientSide:
    @pytest.mark.parametrize("leave", [dead_socket, Path.touch], ids=["socket", "file"])
    async def test_where_nobody_listens_the_socket_is_removed(
        self, folder: Path, leave: Callable[[Path], None]
    ) -> None:
        leave(folder / "0-dead.sock")
        (folder / "0-starting.new").touch()
        async with Side().running():
            assert await fetch_value() == "t1"
            assert min(path.name for path in folder.iterdir()) == "0-starting.new"
            assert not (folder / "0-dead.sock").exists()

    async def test_a_dead_socket_is_left_to_who_only_looks(self, folder: Path) -> None:
        dead_socket(folder / "0-dead.sock")
        assert await asyncio.to_thread(Daemons(os.environ, tidy=False).fetch_status) == []
        assert (folder / "0-dead.sock").exists()

    async def test_a_folder_in_place_of_a_socket_is_passed_over(self, folder: Path) -> None:
        (folder / "0-folder.sock").mkdir()
        async with Side().running():
            assert await fetch_value() == "t1"

    async def test_one_that_hangs_up_is_passed_over(self, folder: Path) -> None:
        with impostor(folder / "0-gone.sock") as heard:
            async with Side().running():
                assert await fetch_value() == "t1"
        assert heard == []

    async def test_a_process_that_is_stopped_is_left_after_a_second(self, folder: Path) -> None:
        """The kernel still takes its connections."""
        with listen(folder / "0-stopped.sock"):
            async with Side().running():
                began_at = time.monotonic()
                assert await fetch_value() == "t1"
                assert 0.9 < time.monotonic() - began_at < 4.5
        assert (folder / "0-stopped.sock").exists()

    async def test_one_that_greets_and_then_hangs_is_left_in_time(self, folder: Path) -> None:
        with impostor(folder / "0-hangs.sock", GREETING, linger_s=2) as heard:
            async with Side().running():
                assert await fetch_value() == "t1"
        assert heard

    async def test_one_that_drips_is_left_in_time(self, folder: Path) -> None:
        """Each byte comes in time, and the line's end never."""

        def drip(sock: socket.socket) -> None:
            peer, _ = sock.accept()
            with peer:
                peer.sendall(GREETING)
                try:
                    for _ in range(100):
                        peer.sendall(b" ")
                        time.sleep(0.05)
                except OSError:
                    return

        with listen(folder / "0-drips.sock") as sock:
            sock.settimeout(10)
            thread = threading.Thread(target=drip, args=(sock,), daemon=True)
            thread.start()
            began_at = time.monotonic()
            assert await fetch() is None
            assert 0.9 < time.monotonic() - began_at < 4.5
            await asyncio.to_thread(thread.join)

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"nonsense\n",
            b"[]\n",
            b"[" * 20_000 + b"\n",
            b"{}\n",
            b" " * (REPLY_LIMIT + 2),
            b'{"token": 1}\n',
            b'{"token": {"access_token": 1, "expires_at": 9}}\n',
            b'{"token": {"access_token": "t", "expires_at": "9"}}\n',
            b'{"token": {"access_token": "t\\nX-Evil: 1", "expires_at": 9}}\n',
            b'{"error": {"kind": "bad_request", "text": "?"}}\n',
            b'{"error": {"kind": "unavailable", "text": "?"}}\n',
            b'{"error": "?"}\n',
        ],
        ids=range(13),
    )
    async def test_senseless_answers_are_passed_over(self, folder: Path, answer: bytes) -> None:
        with impostor(folder / "0-mad.sock", GREETING, answer):
            async with Side().running():
                assert await fetch_value() == "t1"

    @pytest.mark.parametrize(
        "loan",
        [
            b"1",
            b"null",
            b"{}",
            b'{"generation": "9", "access_token": "t", "obtained_at": 1, "expires_at": 2}',
            b'{"generation": 9, "access_token": "t\\nX-Evil: 1", "obtained_at": 1, "expires_at": 2}',
            b'{"generation": 9, "access_token": "t", "obtained_at": 2, "expires_at": 1}',
            b'{"generation": 9, "access_token": "t", "obtained_at": 1, "expires_at": NaN}',
            b'{"generation": 9, "access_token": "t", "obtained_at": 1, "expires_at": Infinity}',
            b'{"generation": 9, "access_token": "t", "obtained_at": 1, "expires_at": 1' + b"0" * 400 + b"}",
        ],
        ids=range(9),
    )
    async def test_a_loan_without_sense_is_none(self, folder: Path, loan: bytes) -> None:
        with impostor(folder / "0-mad.sock", GREETING, b'{"loan": ' + loan + b"}\n"):
            async with Side().running() as side:
                await side.manager.token()
                lent = await borrow()
                assert lent is not None
                assert lent.access_token == Secret("t1")

    async def test_another_program_s_socket_is_told_nothing(self, folder: Path) -> None:
        with impostor(folder / "0-other.sock", b"SSH-2.0\n") as heard:
            assert await fetch() is None
        assert heard == [b""]

    async def test_a_status_without_sense_is_left_out(self, folder: Path) -> None:
        for number, status in enumerate((b"1", b"{}", b'{"accounts": []}')):
            answer = b'{"status": ' + status + b"}\n"
            with impostor(folder / f"{number}-mad.sock", GREETING, answer):
                async with Side().running():
                    (found,) = await asyncio.to_thread(Daemons(os.environ).fetch_status)
                    assert found["pid"] == os.getpid()
