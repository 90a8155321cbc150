"""Named points at which a test can have this process die as by a power cut, to see what the next one finds.

In normal use `reach` does nothing: it compares one module variable with None. No environment variable, no setting and
no file can arm a point, only code that runs in this very process before bearerd does, and such code needs no failpoint
to do harm. A test starts ``python -c "from bearerd import failpoints; failpoints.arm('after_reply'); ..."``.

The points of a refresh, in order: ``before_send``, ``after_send``, ``after_reply``, ``mid_write``, ``before_rename``,
``before_unlock``. Two of them are passed by every file that is written, which `of` tells apart.
"""

import os
import signal

_armed: tuple[str, str] | None = None


def arm(point: str, of: str = "") -> None:
    """From now on, end this process by SIGKILL where `point` is reached for a file whose name ends with `of`."""
    global _armed  # noqa: PLW0603  # one point for one process, looked up at no cost
    _armed = (point, of)


def reach(point: str, of: str = "") -> None:
    """`point` has been reached; the file being written, if any, is called `of`."""
    if _armed is not None:
        _die_at(point, of)


def reach_next(point: str) -> None:
    """`point` is reached in the event loop's next turn: what this turn has written has left by then, and nothing
    that came in answer has been read.
    """
    if _armed is not None:
        import asyncio  # noqa: PLC0415  # only where a point is armed

        asyncio.get_running_loop().call_soon(_die_at, point, "")


def _die_at(point: str, of: str) -> None:
    if _armed is not None and point == _armed[0] and of.endswith(_armed[1]):
        os.kill(os.getpid(), signal.SIGKILL)
