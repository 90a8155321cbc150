"""Calls that have to wait for nobody but the upstream: forwarded without a task, a future or a timer.

Most calls are like that: the request comes in one piece, when there is a token and an idle connection, and so does
its answer. A call that turns out to be another goes on as an ordinary one, from where it is.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

from bearerd.core.guard import Head
from bearerd.core.headers import build_lines
from bearerd.core.sandbox import MARKS, WORKER, may_become_page
from bearerd.core.tokens import TokenSet
from bearerd.forward.lanes import Lane
from bearerd.forward.spool import Spool
from bearerd.forward.upstream import Connection
from bearerd.meters import LEFT

_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_UNUSUAL: Final = frozenset({b"upgrade", b"expect", b"transfer-encoding", WORKER})
_TELLING: Final = _UNUSUAL | MARKS


class Caller(Protocol):
    """Whoever sent the request."""

    def answer(self, data: bytes) -> None:
        """Here is all of the answer. The call is over."""

    def go_on(self) -> None:
        """The call is an ordinary one from now on."""

    def take_begun(self) -> "DirectCall | None":
        """What was begun, for whoever handles the call and sees to its end."""


def is_ordinary(head: Head) -> bool:
    """Whether the head of a request asks for nothing but an answer, which is passed on as it is."""
    if head.method not in _METHODS or head.version != (1, 1):
        return False
    places = head.names.places
    return _TELLING.isdisjoint(places) or (_UNUSUAL.isdisjoint(places) and not may_become_page(head))


class Counting(Protocol):
    """Who counts the calls under way."""

    def end(self) -> None:
        """One less."""


class DirectCall:
    """One call, until it is answered, given up or goes on. `token` is what it was sent with.

    `front` is told when it is answered or given up; a call that goes on does so there.
    """

    __slots__ = ("_answered", "_caller", "body", "connection", "front", "head", "lane", "started_at", "token")

    front: Counting

    def __init__(
        self,
        caller: Caller,
        head: Head,
        lane: Lane,
        token: TokenSet,
        connection: Connection,
        answered: "Callable[[DirectCall, int], None]",
    ) -> None:
        """`answered` is told of the status of the answer."""
        self._caller = caller
        self._answered = answered
        self.head = head
        self.lane = lane
        self.token = token
        self.connection = connection
        self.body: Spool | None = None
        self.started_at = time.perf_counter()

    def send(self, via: bytes, body: Spool | None) -> None:
        """Send the request, whose `body` is all there."""
        head, lane = self.head, self.lane
        message = lane.build_head(head, head, via, self.token, head.get(b"content-length"))
        if body is not None:
            self.body = body
            message += body.take()
        self.connection.begin_whole(message, lane.route.response_idle_s, self)

    def abandon(self) -> None:
        """Nobody waits for the answer."""
        self.connection.abandon()
        self.lane.meter.ended(LEFT)
        self._end()

    def hand_over(self) -> None:
        """What comes of the request is for whoever asks the connection for it."""
        self.connection.forget_receiver()

    def takes(self, status: int) -> bool:
        """What says that the token is not taken is not just passed on."""
        return status not in self.lane.route.retry_statuses

    def relay(self, status: int, answer: bytes) -> None:
        if self.head.grant:
            head, _, body = answer.partition(b"\r\n\r\n")
            answer = b"%b\r\n%b\r\n%b" % (head, build_lines(self.head.grant), body)
        self._caller.answer(answer)
        self.lane.meter.answered(status, time.perf_counter() - self.started_at)
        self._answered(self, status)
        self._end()

    def settle(self) -> None:
        self._caller.go_on()

    def _end(self) -> None:
        if self.body is not None:
            self.body.release()
        self.front.end()
