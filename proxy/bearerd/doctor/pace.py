"""Checks side by side, each with a limit, and their findings in the order of the checks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import Final, TypeVar

from bearerd.doctor.findings import Finding, Level

LIMIT_S: Final = 4.5  # an account takes two of them, and all is over within 10 s

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Check:
    """`work` finds something out about `subject` within `limit_s`, or is given up."""

    subject: str
    work: Callable[[], Awaitable[Iterable[Finding]]]
    limit_s: float


async def side_by_side(checks: Sequence[Check]) -> AsyncIterator[Finding]:
    """The findings of the first check, then those of the second, while all of them run."""
    tasks = [asyncio.ensure_future(_bounded(check)) for check in checks]
    try:
        for task in tasks:
            for finding in await task:
                yield finding
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _bounded(check: Check) -> list[Finding]:
    try:
        async with asyncio.timeout(check.limit_s):
            return list(await check.work())
    except TimeoutError:
        text = f"nothing is known of it within {check.limit_s:g} s"
        return [Finding(Level.FAIL, check.subject, text, "see what hangs, and try again")]


async def aside(call: Callable[[], T]) -> T:
    """The result of a call that may hang, in a thread of its own that nobody waits for at the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = call()
        except Exception as exc:  # noqa: BLE001  # who waits has it
            _post(loop, _fail, future, exc)
        else:
            _post(loop, _settle, future, result)

    Thread(target=run, daemon=True).start()
    return await future


def _post(loop: asyncio.AbstractEventLoop, step: Callable[..., None], *values: object) -> None:
    with suppress(RuntimeError):  # the loop is over
        loop.call_soon_threadsafe(step, *values)


def _settle(future: "asyncio.Future[T]", result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[T]", exc: Exception) -> None:
    if not future.done():
        future.set_exception(exc)
