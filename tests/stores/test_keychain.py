"""The keychain as the place of the key: GNOME's own on a bus of its own; locked, hung, absent, or plain files."""

import asyncio
import base64
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from bearerd.core.configuration import Store
from bearerd.core.vault import build_key
from bearerd.errors import StoreError
from bearerd.stores.keys import KEYCHAIN_S, Keychain, _Run, load_key
from bearerd.stores.vault import VaultFolder
from both_loops import LOOPS

KEY = build_key(bytes(range(32)))
AUTO = Store()
PROGRAM: Final = "bearerd.stores.keychain"
AT_ONCE_S: Final = 0.8 * KEYCHAIN_S  # on a busy machine; before the time is up in any case
ALLOWED: Final = "keyring.backends.SecretService.Keyring"
PLAINTEXT: Final = "keyrings.alt.file.PlaintextKeyring"
KEYRINGS_ALT: Final = (
    "keyrings.alt==5.0.2 --hash=sha256:6be74693192f3f37bbb752bfac9b86e6177076b17d2ac12a390f1d6abff8ac7c\n"
)

# Prints the key's id, which is public. The arguments are the vault folder and the module of the event loop.
LOAD: Final = """
import importlib, sys
from pathlib import Path
from bearerd.core.configuration import Store
from bearerd.stores.keys import load_key
from bearerd.stores.vault import VaultFolder
key = importlib.import_module(sys.argv[2]).run(load_key(Store(), VaultFolder(Path(sys.argv[1])), create=True))
print(key.id.hex())
"""


class Desktop:
    """A session bus with nobody at a screen, and GNOME's keychain on it, for a home of their own."""

    def __init__(self, home: Path) -> None:
        self._home = home
        runtime = home / "run"
        runtime.mkdir(mode=0o700)
        self.address = f"unix:path={runtime}/bus"
        self._environ = {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            "PATH": os.environ["PATH"],
            "DBUS_SESSION_BUS_ADDRESS": self.address,
        }
        self._running = [self._start("dbus-daemon", "--session", "--nofork", f"--address={self.address}")]
        wait_for((runtime / "bus").exists)

    def open_keychain(self, password: str = "right") -> None:
        """The first password becomes the keychain's; any other leaves it locked."""
        program = ("gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets")
        self._running.append(self._start(*program, typed=f"{password}\n"))
        wait_for(self._owned)

    def close_keychain(self) -> None:
        end(self._running.pop())
        wait_for(lambda: not self._owned())

    def stop_answering(self) -> None:
        os.kill(self._running[-1].pid, signal.SIGSTOP)

    def stop(self) -> None:
        while self._running:
            end(self._running.pop())
        wait_for(lambda: not processes_of(self._home))

    def _start(self, *argv: str, typed: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            argv,
            env=self._environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert process.stdin is not None
        with process.stdin:
            process.stdin.write(typed)
        return process

    def _owned(self) -> bool:
        bus = ("dbus-send", f"--bus={self.address}", "--print-reply", "--dest=org.freedesktop.DBus", "/")
        question = ("org.freedesktop.DBus.NameHasOwner", "string:org.freedesktop.secrets")
        return b"true" in subprocess.run([*bus, *question], capture_output=True, check=True).stdout


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited for 30 s"
        time.sleep(0.02)


def end(process: subprocess.Popen[str]) -> None:
    """With all that it has started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def of_process(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def processes_of(home: Path) -> list[int]:
    """Those that were started with this home, this one aside."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    mark = f"HOME={home}\0".encode()
    return [pid for pid in pids if mark in of_process(pid, "environ") and pid != os.getpid()]


def asking(home: Path) -> list[int]:
    """The programs that ask the keychain."""
    return [pid for pid in processes_of(home) if PROGRAM.encode() in of_process(pid, "cmdline")]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that nothing is in, with a path short enough for sockets, and no keychain that could be reached."""
    for name in list(os.environ):
        if name.startswith(("XDG_", "DBUS_", "KEYRING_", "PYTHON_KEYRING_", "DISPLAY", "WAYLAND_")):
            monkeypatch.delenv(name)
    home = Path(tempfile.mkdtemp(prefix="kc"))
    monkeypatch.setenv("HOME", str(home))
    try:
        yield home
    finally:
        shutil.rmtree(home)


@pytest.fixture
def desktop(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desktop]:
    """Its keychain is still closed."""
    for program in ("dbus-daemon", "dbus-send", "gnome-keyring-daemon"):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing: run make test")
    desktop = Desktop(home)
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", desktop.address)
    try:
        yield desktop
    finally:
        desktop.stop()


@pytest.fixture
def folder(tmp_path: Path) -> VaultFolder:
    return VaultFolder(tmp_path / "vault")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keyrings.alt, whose backends keep secrets in plain files."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "requirements.txt").write_text(KEYRINGS_ALT)
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check")
    what = ("--require-hashes", "--target", str(folder), "--requirement", str(folder / "requirements.txt"))
    if subprocess.run([*pip, *what], capture_output=True, check=False).returncode:
        pytest.fail("keyrings.alt cannot be installed: run make test where there is a package index")
    return folder


@pytest.fixture
def keyrings_alt(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    also_import_from(packages, monkeypatch)


def also_import_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, before)]))


@asynccontextmanager
async def at_most(limit_s: float) -> AsyncIterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < limit_s


async def refusal(folder: VaultFolder, *, limit_s: float = 2 * KEYCHAIN_S) -> str:
    """What a first start is told, within the time; in one line, and with the ways out.

    The keychain has KEYCHAIN_S. A busy machine needs time besides, to start its program and to end it.
    """
    async with at_most(limit_s):
        with pytest.raises(StoreError) as caught:
            await load_key(AUTO, folder, create=True)
    text = str(caught.value)
    for way in ('store.key_source = "file"', "store.key_file", '"secret"', 'store.kind = "memory"'):
        assert way in text
    assert "\n" not in text
    return text


def no_secret_at_rest(home: Path) -> None:
    """There are no files but those of GNOME's keychain, which nobody can read, and the choice of a backend."""
    files = [file for file in home.rglob("*") if file.is_file() and file.name != "keyringrc.cfg"]
    assert {file.parent for file in files} == {home / ".local" / "share" / "keyrings"}
    assert not any(b"bearerd" in file.read_bytes() for file in files)


class TestNoKeychain:
    async def test_without_a_bus_it_is_refused(self, home: Path, folder: VaultFolder) -> None:
        assert "no usable keychain here (found: nothing)" in await refusal(folder)
        assert not list(home.iterdir())

    async def test_with_a_bus_that_is_gone_it_is_refused(
        self, home: Path, folder: VaultFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={home}/gone")
        assert "no usable keychain here (found: nothing)" in await refusal(folder)

    @pytest.mark.usefixtures("keyrings_alt")
    async def test_plain_files_are_no_keychain(self, home: Path, folder: VaultFolder) -> None:
        assert PLAINTEXT in await refusal(folder)
        assert not list(home.iterdir())

    async def test_a_keyring_that_cannot_be_imported(
        self, home: Path, folder: VaultFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "keyring.py").write_text("raise ImportError\n")
        also_import_from(tmp_path, monkeypatch)
        assert "keyring does not work here" in await refusal(folder)
        assert not list(home.iterdir())


class TestChosenBackend:
    """However a plain file is chosen, it is not used, nor does a good keychain take its place unasked."""

    @pytest.mark.usefixtures("keyrings_alt")
    @pytest.mark.parametrize(
        "name",
        [PLAINTEXT, "keyring.backends.null.Keyring", "keyring.backends.fail.Keyring", "no.such.Backend"],
    )
    async def test_by_a_variable(
        self, home: Path, desktop: Desktop, folder: VaultFolder, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desktop.open_keychain()
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", name)
        assert f"(found: {name}, which PYTHON_KEYRING_BACKEND or keyringrc.cfg names)" in await refusal(
            folder
        )
        no_secret_at_rest(home)

    @pytest.mark.usefixtures("keyrings_alt")
    async def test_by_the_file(self, home: Path, desktop: Desktop, folder: VaultFolder) -> None:
        desktop.open_keychain()
        choose(home, f"[backend]\ndefault-keyring={PLAINTEXT}\n")
        assert f"(found: {PLAINTEXT}" in await refusal(folder)
        no_secret_at_rest(home)

    async def test_one_on_the_list_that_does_not_work_is_not_replaced(
        self, desktop: Desktop, folder: VaultFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desktop.open_keychain()
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.macOS.Keyring")
        assert "(found: keyring.backends.macOS.Keyring, which" in await refusal(folder)

    @pytest.mark.parametrize("name", [ALLOWED, "keyring.backends.chainer.ChainerBackend"])
    async def test_what_is_on_the_list_is_used(
        self, desktop: Desktop, folder: VaultFolder, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desktop.open_keychain()
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", name)
        key = await load_key(AUTO, folder, create=True)
        monkeypatch.delenv("PYTHON_KEYRING_BACKEND")
        assert await load_key(AUTO, folder, create=False) == key

    @pytest.mark.parametrize(
        "content", ["[backend]\n", "default-keyring=x\n", "[backend]\ndefault-keyring=\n", "\xff"]
    )
    async def test_a_file_that_chooses_nothing(
        self, home: Path, desktop: Desktop, folder: VaultFolder, content: str
    ) -> None:
        desktop.open_keychain()
        choose(home, content)
        await load_key(AUTO, folder, create=True)

    async def test_a_chain_never_ends_in_another_package_s_backend(
        self,
        home: Path,
        desktop: Desktop,
        folder: VaultFolder,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Ranked first in the chain, it is what keyring itself would write to."""
        desktop.open_keychain()
        (tmp_path / "greedy.py").write_text(
            "from keyring.backend import KeyringBackend\n"
            "open(f'{__file__}.imported', 'w').close()\n"
            "class Greedy(KeyringBackend):\n"
            "    priority = 9\n"
            "    def get_password(self, service, username): return None\n"
            "    def set_password(self, service, username, password):\n"
            "        open(f'{__file__}.written', 'w').close()\n"
        )
        (tmp_path / "greedy-1.dist-info").mkdir()
        (tmp_path / "greedy-1.dist-info" / "METADATA").write_text("Name: greedy\nVersion: 1\n")
        (tmp_path / "greedy-1.dist-info" / "entry_points.txt").write_text(
            "[keyring.backends]\ngreedy = greedy\n"
        )
        also_import_from(tmp_path, monkeypatch)
        assert first_in_chain() == "greedy.Greedy (priority: 9)"
        (tmp_path / "greedy.py.imported").unlink()
        await load_key(AUTO, folder, create=True)
        assert not list(tmp_path.glob("greedy.py.*"))
        no_secret_at_rest(home)


def first_in_chain() -> str:
    """As keyring sees it, in a process that is not this one."""
    program = "import keyring; print(keyring.get_keyring().backends[0])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    return run.stdout.strip()


def choose(home: Path, content: str) -> None:
    file = home / ".config" / "python_keyring" / "keyringrc.cfg"
    file.parent.mkdir(parents=True)
    file.write_bytes(content.encode("latin-1"))


class TestLocked:
    async def test_a_wrong_password(self, desktop: Desktop, folder: VaultFolder) -> None:
        desktop.open_keychain("right")
        await load_key(AUTO, folder, create=True)
        desktop.close_keychain()
        desktop.open_keychain("wrong")
        assert f"the keychain ({ALLOWED}) is locked" in await refusal(folder)

    @pytest.mark.usefixtures("desktop")
    async def test_one_that_was_never_set_up(self, folder: VaultFolder) -> None:
        """Asked for, the bus starts a keychain that nobody has given a password."""
        assert f"the keychain ({ALLOWED}) is locked, or was never set up" in await refusal(folder)


class TestHung:
    @pytest.mark.waits
    async def test_it_is_given_up_after_5_s(self, home: Path, desktop: Desktop, folder: VaultFolder) -> None:
        desktop.open_keychain()
        desktop.stop_answering()
        assert "did not answer within 5 s" in await refusal(folder)
        assert not asking(home)

    @pytest.mark.soak
    async def test_it_takes_little_more_than_5_s(self, desktop: Desktop, folder: VaultFolder) -> None:
        desktop.open_keychain()
        desktop.stop_answering()
        for _ in range(5):
            assert "did not answer within 5 s" in await refusal(folder, limit_s=KEYCHAIN_S + 1)

    async def test_a_caller_that_is_cancelled_is_free_at_once(
        self, home: Path, desktop: Desktop, folder: VaultFolder
    ) -> None:
        desktop.open_keychain()
        desktop.stop_answering()
        for wait_s in (0, 0.001, 0.01, 0.05, 0.5):
            task = asyncio.create_task(load_key(AUTO, folder, create=True))
            await asyncio.sleep(wait_s)
            async with at_most(AT_ONCE_S):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            async with at_most(AT_ONCE_S):  # it has been killed: the system takes a moment for that
                wait_for(lambda: not asking(home))

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    async def test_nothing_outlives_the_process(
        self, home: Path, desktop: Desktop, folder: VaultFolder, number: signal.Signals
    ) -> None:
        desktop.open_keychain()
        desktop.stop_answering()
        process = await start(folder, "asyncio")
        while not asking(home):  # noqa: ASYNC110  # another process starts it
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)  # until it waits for the keychain
        process.send_signal(number)
        await process.communicate()
        async with at_most(AT_ONCE_S):
            wait_for(lambda: not asking(home))

    @pytest.mark.waits
    async def test_the_key_is_in_no_argument_and_no_variable(
        self, home: Path, desktop: Desktop, folder: VaultFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desktop.open_keychain()
        desktop.stop_answering()
        monkeypatch.setenv("BEARERD_STORE__KEY_SECRET", "canary")
        task = asyncio.create_task(Keychain(folder, limit_s=3).write(KEY))
        async with asyncio.timeout(3):
            while not asking(home):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.02)
        (pid,) = asking(home)
        seen = of_process(pid, "cmdline") + of_process(pid, "environ")
        assert b"bearerd.stores.keychain\0set\0" in seen
        for text in (base64.b64encode(KEY.raw), KEY.raw.hex().encode(), b"canary", b"BEARERD_"):
            assert text not in seen
        with pytest.raises(StoreError, match=r"did not answer within 3 s"):
            await task


class TestFailing:
    async def test_a_backend_that_fails_is_named_and_not_quoted(
        self, desktop: Desktop, folder: VaultFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desktop.open_keychain()
        monkeypatch.setenv("KEYRING_PROPERTY_SCHEME", "nonsense")
        assert f"the keychain ({ALLOWED}) failed: KeyError" in await refusal(folder)

    @pytest.mark.parametrize("noise", ["not JSON", "[]", '{"value": 1}', "x" * 100_000, ""])
    async def test_an_answer_that_is_none(
        self, home: Path, folder: VaultFolder, tmp_path: Path, noise: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "sitecustomize.py").write_text(f"import os\nprint({noise!r}, flush=True)\nos._exit(0)\n")
        also_import_from(tmp_path, monkeypatch)
        assert "keyring does not work here" in await refusal(folder)
        assert not asking(home)

    async def test_one_that_has_ended_before_it_is_asked(self) -> None:
        """As where the machine is slow; on uvloop, writing to it is an error then."""
        pipe = asyncio.subprocess.PIPE
        transport, run = await asyncio.get_running_loop().subprocess_exec(
            _Run, "true", stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
        )
        await run.exited
        async with asyncio.timeout(10):
            await run.ask(transport, b"anything\n")
        transport.close()
        assert run.output == b""

    async def test_one_that_does_not_end_once_it_has_answered(
        self, home: Path, folder: VaultFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "sitecustomize.py").write_text(
            "import time\nprint('{\"value\": null}', flush=True)\ntime.sleep(60)\n"
        )
        also_import_from(tmp_path, monkeypatch)
        async with at_most(AT_ONCE_S):
            assert await Keychain(folder).read() is None
        assert not asking(home)

    async def test_what_lies_in_the_current_folder_is_not_imported(
        self, desktop: Desktop, folder: VaultFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desktop.open_keychain()
        monkeypatch.setenv("PYTHONPATH", absolute(os.environ.get("PYTHONPATH", "")))
        for name in ("json", "keyring", "secretstorage"):
            (tmp_path / f"{name}.py").write_text("open('imported', 'w')\nraise ImportError\n")
        monkeypatch.chdir(tmp_path)
        await load_key(AUTO, folder, create=True)
        assert not (tmp_path / "imported").exists()

    async def test_an_item_that_is_no_key_is_left_alone(self, desktop: Desktop, folder: VaultFolder) -> None:
        desktop.open_keychain()
        keychain = Keychain(folder)
        await keychain._ask("set", value="somebody's password")
        for create in (True, False):
            with pytest.raises(StoreError, match="holds something that is no key") as caught:
                await load_key(AUTO, folder, create=create)
            assert "somebody" not in str(caught.value)
        assert await keychain._ask("get") == "somebody's password"


def absolute(paths: str) -> str:
    return os.pathsep.join(str(Path(path).absolute()) for path in paths.split(os.pathsep) if path)


class TestKey:
    async def test_it_is_made_once_and_found_ever_after(
        self, home: Path, desktop: Desktop, folder: VaultFolder
    ) -> None:
        desktop.open_keychain()
        with pytest.raises(StoreError, match="holds no vault key yet"):
            await load_key(AUTO, folder, create=False)
        key = await load_key(AUTO, folder, create=True)
        assert len(key.raw) == 32
        desktop.close_keychain()
        desktop.open_keychain()
        for create in (True, False):
            assert await load_key(Store(key_source="keychain"), folder, create=create) == key
        no_secret_at_rest(home)
        assert not asking(home)

    @pytest.mark.usefixtures("keyrings_alt")
    async def test_beside_plain_files_the_keychain_is_taken(
        self, home: Path, desktop: Desktop, folder: VaultFolder
    ) -> None:
        desktop.open_keychain()
        key = await load_key(AUTO, folder, create=True)
        assert await load_key(AUTO, folder, create=False) == key
        no_secret_at_rest(home)

    async def test_each_vault_folder_has_its_own(
        self, desktop: Desktop, folder: VaultFolder, tmp_path: Path
    ) -> None:
        desktop.open_keychain()
        key = await load_key(AUTO, folder, create=True)
        assert await load_key(AUTO, VaultFolder(tmp_path / "\udcffother\n"), create=True) != key
        (tmp_path / "link").symlink_to(tmp_path)
        assert await load_key(AUTO, VaultFolder(tmp_path / "link" / "vault"), create=False) == key

    async def test_one_that_is_gone_is_not_replaced(
        self, desktop: Desktop, folder: VaultFolder, tmp_path: Path
    ) -> None:
        desktop.open_keychain()
        folder.replace("work-1.vault", b"sealed", by_way_of="work-1.next")
        for create in (True, False):
            with pytest.raises(
                StoreError, match=r"holds no vault key, and .*work-1\.vault was sealed with one"
            ):
                await load_key(AUTO, folder, create=create)
        assert await Keychain(folder).read() is None
        assert len((await load_key(AUTO, VaultFolder(tmp_path / "other"), create=True)).raw) == 32

    async def test_first_starts_at_once_end_with_one_key(self, desktop: Desktop, tmp_path: Path) -> None:
        desktop.open_keychain()
        for number in range(4):
            folder = VaultFolder(tmp_path / str(number))
            running = [await start(folder, loop) for loop in (*LOOPS, "asyncio")]
            printed = {(await process.communicate())[0].strip().decode() for process in running}
            assert printed == {(await load_key(AUTO, folder, create=False)).id.hex()}


async def start(folder: VaultFolder, loop: str) -> asyncio.subprocess.Process:
    """A process that loads the key, or makes it."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LOAD, str(folder), loop),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
