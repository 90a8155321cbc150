import asyncio
import gc
import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import pytest

from bearerd.assembly import SystemClock
from bearerd.core.accounts import CommandSource
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted
from bearerd.sources.command import CommandTokenSource


async def run(*argv: str, timeout_s: float = 5.0) -> Granted | Failure:
    source = CommandTokenSource(CommandSource(argv, timeout_s), SystemClock())
    try:
        async with asyncio.timeout(10):
            return await source.obtain(None)
    finally:
        assert not source.changed()
        await source.aclose()


async def shell(script: str, timeout_s: float = 5.0) -> Granted | Failure:
    return await run("sh", "-c", script, timeout_s=timeout_s)


def reason(outcome: Granted | Failure) -> str:
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.TRANSIENT
    return outcome.reason


async def wait_for_pids(file: Path, count: int) -> list[int]:
    """The process ids that a script has written to `file`, one a line."""
    async with asyncio.timeout(20):
        while not file.exists() or len(file.read_text().split()) < count:  # noqa: ASYNC110  # another process writes
            await asyncio.sleep(0.01)
    return [int(pid) for pid in file.read_text().split()]


def runs(pid: int) -> bool:
    """True for a process that has not ended. A zombie has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def ended(*pids: int) -> None:
    async with asyncio.timeout(20):
        while any(runs(pid) for pid in pids):  # noqa: ASYNC110  # nobody tells of grandchildren
            await asyncio.sleep(0.01)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")


@pytest.mark.parametrize("output", ["the-token", "the-token\n", "  the-token \r\n\n"])
async def test_a_line_is_a_token(output: str) -> None:
    assert await run("printf", "%s", output) == Granted(Secret("the-token"))


async def test_json_with_an_expiry() -> None:
    expires_at = int(time.time()) + 600
    for document in (
        {"access_token": "the-token", "expires_in": 600},
        {"accessToken": "the-token", "expires_on": expires_at},
        {"status": {"token": "the-token", "expirationTimestamp": expires_at}},
    ):
        outcome = await run("echo", json.dumps(document))
        assert isinstance(outcome, Granted)
        assert outcome.access_token == Secret("the-token")
        assert outcome.expires_in_s == pytest.approx(600, abs=5)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo the-token; exit 3", "ended with status 3"),
        ("kill -9 $$", "ended with status -9"),
        ("true", "output is empty"),
        ("echo two words", "holds no token"),
        ("printf '\\377\\376'", "not UTF-8"),
        ('echo \'{"access_token": "a", "expires_in": 0, "expires_at": 1}\'', "expired"),
        ("echo '{'", "holds no token"),
    ],
)
async def test_what_is_no_token(script: str, expected: str) -> None:
    shown = reason(await shell(script))
    assert expected in shown
    assert "the-token" not in shown


async def test_a_program_that_is_not_there_or_cannot_run(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\necho the-token\n")
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o700)
    assert reason(await run("/no/such/program")).endswith("cannot be started: No such file or directory")
    assert reason(await run("no-such-program-anywhere")).endswith(
        "cannot be started: No such file or directory"
    )
    assert reason(await run(str(plain))).endswith("cannot be started: Permission denied")
    assert reason(await run(str(tmp_path))).endswith("cannot be started: Permission denied")
    assert reason(await run(str(broken))).endswith("cannot be started: No such file or directory")


async def test_arguments_reach_the_program_as_they_are() -> None:
    argument = "$(x);rm&`y`|\"'\\*?~\u00e9"
    program = (
        "import json, sys; print(json.dumps({'token': sys.argv[1].encode('utf-8', 'surrogateescape').hex()}))"
    )
    outcome = await run(sys.executable, "-S", "-c", program, argument)
    assert outcome == Granted(Secret(argument.encode().hex()))


@pytest.mark.threat(9)
async def test_nothing_of_ours_is_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEARERD_ACCOUNTS__WORK__CLIENT_SECRET", "s3cret")
    monkeypatch.setenv("BEARERD_", "s3cret")
    monkeypatch.setenv("bearerd_accounts__work__refresh_token", "s3cret")
    monkeypatch.setenv("OTHER", "kept")
    assert await shell("env | grep -c -e BEARERD -e s3cret; true") == Granted(Secret("0"))
    assert await shell('echo "$OTHER"') == Granted(Secret("kept"))


async def test_it_gets_no_input_and_its_error_output_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    assert await shell("cat; echo s3cret >&2; echo the-token") == Granted(Secret("the-token"))
    shown = reason(await shell("echo s3cret >&2; exit 1"))
    assert "s3cret" not in shown
    assert "s3cret" not in "".join(capfd.readouterr())


async def test_a_flood_of_error_output_holds_nobody_up() -> None:
    assert await shell("head -c 2000000 /dev/zero >&2; echo the-token") == Granted(Secret("the-token"))


@pytest.mark.parametrize(
    "script",
    [
        "head -c 2097152 /dev/zero",
        "head -c 2097152 /dev/zero; sleep 60",
        "exec yes " + "x" * 4000,
        "head -c 1048577 /dev/zero | tr '\\0' ' '",
    ],
)
async def test_too_much_output_ends_it_at_once(script: str) -> None:
    started_at = time.monotonic()
    assert "printed more than 1 MiB" in reason(await shell(script))
    assert time.monotonic() - started_at < 10


async def test_a_mebibyte_is_not_too_much() -> None:
    outcome = await shell("echo the-token; head -c 1048000 /dev/zero | tr '\\0' ' '")
    assert outcome == Granted(Secret("the-token"))


@needs_proc
@pytest.mark.parametrize(
    "last", ["sleep 60", "exec >&-; sleep 60", "trap '' TERM INT HUP; sleep 60", "kill -STOP $$"]
)
@pytest.mark.waits
async def test_a_program_that_does_not_end_is_killed_with_all_it_started(tmp_path: Path, last: str) -> None:
    pids = tmp_path / "pids"
    script = f"(sleep 60 & echo $! >>{pids}; wait) & echo $$ >>{pids}; echo the-token; {last}"
    task = asyncio.create_task(shell(script, timeout_s=2))
    found = await wait_for_pids(pids, 2)
    assert all(runs(pid) for pid in found)
    assert "did not finish within 2 s" in reason(await task)
    await ended(*found)


@needs_proc
async def test_what_a_program_that_ended_leaves_behind_is_left_alone(tmp_path: Path) -> None:
    """Credential programs start agents that are meant to stay."""
    pids = tmp_path / "pids"
    outcome = await shell(f"sleep 60 >/dev/null & echo $! >{pids}; echo the-token")
    assert outcome == Granted(Secret("the-token"))
    (agent,) = await wait_for_pids(pids, 1)
    assert runs(agent)
    os.kill(agent, signal.SIGKILL)
    await ended(agent)


@needs_proc
@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("sleep 60", Failure(FailureKind.TRANSIENT, "the command did not finish within 2 s")),
        ("true", Granted(Secret("the-token"))),
    ],
)
@pytest.mark.waits
async def test_a_process_that_left_the_group_with_the_output_open_holds_nobody_up(
    tmp_path: Path, last: str, expected: Granted | Failure
) -> None:
    """It is beyond reach, but what waits for the token must not wait for it."""
    pids = tmp_path / "pids"
    started_at = time.monotonic()
    script = f"setsid sh -c 'echo $$ >{pids}; exec sleep 20' & echo the-token; {last}"
    outcome = await shell(script, timeout_s=2)
    assert time.monotonic() - started_at < 15
    assert outcome == expected
    for pid in await wait_for_pids(pids, 1):
        os.kill(pid, signal.SIGKILL)


@needs_proc
@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.2])
async def test_a_cancelled_run_is_killed(tmp_path: Path, after_s: float) -> None:
    pids = tmp_path / "pids"
    task = asyncio.create_task(shell(f"sleep 60 & echo $! $$ >{pids}; sleep 60"))
    await asyncio.sleep(after_s)
    if after_s == 0.2:
        await wait_for_pids(pids, 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if after_s == 0.2:
        await ended(*await wait_for_pids(pids, 2))


async def test_a_run_cancelled_before_it_is_known_that_it_cannot_start() -> None:
    task = asyncio.create_task(run("/no/such/program"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_runs_at_once() -> None:
    outcomes = await asyncio.gather(*(run("echo", f"token-{n}") for n in range(10)))
    assert outcomes == [Granted(Secret(f"token-{n}")) for n in range(10)]


async def test_nothing_is_left_open() -> None:
    """No descriptor, no transport, no zombie, whatever the end was."""
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208  # a look at ourselves, not at a disk
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(2):
            await run("echo", "x")
            await run("/no/such/program")
            await shell("exec yes")
            await shell("sleep 60", timeout_s=0.05)
            await shell("exec >&-; sleep 60", timeout_s=0.05)
        await asyncio.sleep(0.05)
        gc.collect()
    assert not caught
    assert len(os.listdir("/dev/fd")) <= before + 2  # noqa: PTH208  # likewise; the loop's own for children
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222  # it does not wait
