"""The event loop, and the threads for what would hold it up."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Any, Final, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")
END_S: Final = 2.0  # for threads that are still at work when the program is over
MOST: Final = 16


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, or asyncio's own where uvloop cannot be imported: there is none for Windows."""
    try:
        import uvloop  # noqa: PLC0415  # it may be absent
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on the fastest event loop there is. What threads still do at its end is waited for, for `END_S`."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.get_loop().set_default_executor(Threads())
        return runner.run(main)


class Threads(ThreadPoolExecutor):
    """Threads that hold up the end of the process no longer than `end_s`: a disk that hangs holds one for ever.

    Python's own are joined at the exit, however long that takes.
    """

    def __init__(self, *, most: int = MOST, end_s: float = END_S) -> None:
        super().__init__(1)  # whose thread is never started
        self._most = most
        self._end_s = end_s
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._idle = Semaphore(0)
        self._begun: list[Thread] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        self._jobs.put((future, partial(fn, *args, **kwargs)))
        if not self._idle.acquire(blocking=False) and len(self._begun) < self._most:
            thread = Thread(target=self._work, daemon=True)
            self._begun.append(thread)
            thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """What has been submitted is done, unless it takes too long."""
        del cancel_futures
        for _ in self._begun:
            self._jobs.put(None)
        due = time.monotonic() + self._end_s
        for thread in self._begun if wait else ():
            thread.join(max(0.0, due - time.monotonic()))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            _do(*job)
            del job  # it is not to be held until there is another
            self._idle.release()


def _do(future: Future[T], work: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as exc:  # noqa: BLE001  # it is whose who waits for it
        future.set_exception(exc)
    else:
        future.set_result(result)
