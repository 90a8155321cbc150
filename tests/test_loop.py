"""The threads of the event loop: they do what Python's own do, but for the end of the process."""

import asyncio
import subprocess
import sys
import threading
import time
from concurrent.futures import wait

import pytest

from bearerd.loop import Threads, run

BUSY_S = 20.0
# A disk that hangs: nothing wakes the thread, ever.
HANGS = """
import asyncio, sys, threading
from bearerd.loop import run
async def main():
    hangs = asyncio.ensure_future(asyncio.to_thread(threading.Event().wait))
    await asyncio.wait([hangs], timeout=0.1)
    print("over", flush=True)
    hangs.cancel()
    {ending}
run(main())
"""


@pytest.mark.parametrize(("ending", "status"), [("return", 0), ("sys.exit(7)", 7), ("raise OSError", 1)])
def test_a_thread_that_hangs_does_not_hold_up_the_end_of_the_process(ending: str, status: int) -> None:
    program = (sys.executable, "-c", HANGS.format(ending=ending))
    ended = subprocess.run(program, capture_output=True, timeout=60, check=False)
    assert (ended.stdout, ended.returncode) == (b"over\n", status), ended.stderr


def test_what_was_begun_is_done_before_the_end() -> None:
    done = []

    def slowly() -> None:
        time.sleep(0.2)
        done.append(True)

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, slowly)

    run(main())
    assert done == [True]


def test_results_and_failures_are_whose_who_waits() -> None:
    async def main() -> None:
        assert await asyncio.to_thread(max, 1, 2) == 2
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)
        assert await asyncio.to_thread(threading.current_thread) is not threading.main_thread()

    run(main())


def test_what_is_cancelled_before_its_turn_is_not_done() -> None:
    threads, go, done = Threads(most=1), threading.Event(), threading.Event()
    first = threads.submit(go.wait, BUSY_S)
    second = threads.submit(done.set)
    third = threads.submit(str, 3)
    assert second.cancel()
    go.set()
    assert (first.result(BUSY_S), third.result(BUSY_S)) == (True, "3")
    assert not done.is_set()
    threads.shutdown()


def test_as_many_work_at_once_as_there_may_and_no_more_than_are_needed() -> None:
    threads, gate = Threads(most=4), threading.Barrier(5)
    before = threading.active_count()
    works = [threads.submit(gate.wait, BUSY_S) for _ in range(4)]
    gate.wait(BUSY_S)
    assert not wait(works, BUSY_S).not_done
    for number in range(50):
        assert threads.submit(str, number).result(BUSY_S) == str(number)
    assert threading.active_count() <= before + 4
    threads.shutdown()
    assert threading.active_count() == before
