"""`Expect: 100-continue` to upstreams (RFC 9110 section 10.1.1), for bodies that could be sent only once.

An upstream that does not take the token can say so before such a body is gone; then it can still be sent with another.
"""

import asyncio
import time
from collections.abc import Collection
from typing import Final

from bearerd.core.targets import Route

PATIENCE_S: Final = 1.0  # for an upstream to say anything
PAUSE_S: Final = 600.0  # before one that does not know of this is asked again


def add_expectation(head: bytes) -> bytes:
    """The head of a request that waits with its body. The field stands behind the first one, which is Host."""
    start_line, host, rest = head.split(b"\r\n", 2)
    return b"\r\n".join((start_line, host, b"Expect: 100-continue", rest))


class Expectation:
    """Of one request, whose body waits. `refused` says that a final answer came first: no byte of it was sent.

    `unheeded` says that nothing came in time, so that the body was sent unasked.
    """

    __slots__ = ("_over", "_said", "refused", "unheeded")

    def __init__(self) -> None:
        self._said: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over = False
        self.refused = False
        self.unheeded = False

    def hear(self, status: int) -> None:
        """The upstream has answered. What it says when the body is on its way already changes nothing."""
        self.refused = status >= 200 and not self._over
        if (status == 100 or self.refused) and not self._said.done():
            self._said.set_result(None)

    async def met(self) -> bool:
        """Whether the body is to be sent, as soon as that is known."""
        await asyncio.wait([self._said], timeout=PATIENCE_S)
        self._over = True
        self.unheeded = not self._said.done()
        return not self.refused


class Patience:
    """Which routes have upstreams that are worth waiting for."""

    def __init__(self) -> None:
        self.paused_until: dict[Route, float] = {}

    def inherit(self, earlier: "Patience", routes: Collection[Route]) -> None:
        """What is known of `routes` from before."""
        self.paused_until = {route: until for route, until in earlier.paused_until.items() if route in routes}

    def expect(self, route: Route) -> Expectation | None:
        """An expectation for a request of `route`, if it may have one."""
        if not route.expect_continue or time.monotonic() < self.paused_until.get(route, 0.0):
            return None
        return Expectation()

    def learn(self, route: Route, expectation: Expectation, status: int) -> bool:
        """Take note of what became of an expectation. Whether the request is to be sent again without it."""
        again = status == 417 and expectation.refused
        if again or expectation.unheeded:
            self.paused_until[route] = time.monotonic() + PAUSE_S
        return again
