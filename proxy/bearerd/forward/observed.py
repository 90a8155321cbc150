"""Calls that somebody is told of. Where nobody is, nothing of this is in their way."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol, cast

from aiohttp import StreamReader, web

from bearerd.core.audit import fingerprint
from bearerd.core.calls import Cut, Entry, Peer
from bearerd.core.guard import Head
from bearerd.core.problems import DEFECT, Problem
from bearerd.core.tokens import TokenSet
from bearerd.forward.direct import Caller, DirectCall
from bearerd.forward.handler import Forwarder, _Call
from bearerd.forward.reply import Written, answer_problem
from bearerd.ids import request_id

_SHUT: Final = Problem(
    503,
    "audit_unavailable",
    "the audit log cannot be written, and log.audit_required wants it; see the log, which says why",
    "proxy_internal_error",
    (("Retry-After", "1"),),
)


class Connected(Protocol):
    """The server's side of a client's connection."""

    @property
    def user(self) -> int | None:
        """Whose process is at the other end, if that was asked and is known."""


class Observer(Protocol):
    """Is told of calls. Must not raise, nor wait for anything."""

    @property
    def shut(self) -> bool:
        """Whether no call is to be made, for it could not be told of."""

    def write(self, entry: Entry) -> None:
        """Of a call that is over, or was refused."""


class Observers:
    """All who are told. `ending` is who it is that ends calls now."""

    def __init__(self, *observers: Observer) -> None:
        self._all = observers
        self.ending: Cut = "client"

    def __bool__(self) -> bool:
        return bool(self._all)

    @property
    def shut(self) -> bool:
        return any(observer.shut for observer in self._all)

    def write(self, entry: Entry) -> None:
        request_id(entry.head)
        for observer in self._all:
            observer.write(entry)


class ObservedForwarder(Forwarder):
    """A forwarder that tells of each call, and of each that it does not make."""

    def __init__(self, *args: Any, observers: Observers, **kwargs: Any) -> None:
        """All but `observers` is for `Forwarder`."""
        super().__init__(*args, **kwargs)
        self._observers = observers
        self._fingerprints: dict[str, tuple[int, str]] = {}  # of each account's last token, by its generation
        self._direct = partial(_ObservedCall, self._answered_directly)

    def begin(self, caller: Caller, head: Head, payload: StreamReader) -> DirectCall | None:
        return None if self._observers.shut else super().begin(caller, head, payload)

    async def handle(
        self, request: web.BaseRequest, head: Head, begun: DirectCall | None = None
    ) -> web.StreamResponse:
        if begun is None and self._observers.shut:
            self.refused(_SHUT, request, head)
            return answer_problem(_SHUT, head)
        return await super().handle(request, head, begun)

    def refused(self, problem: Problem, request: web.BaseRequest, head: Head) -> None:
        super().refused(problem, request, head)
        peer = _peer(request.protocol, head)
        self._observers.write(Entry(peer, head, problem.status, problem=problem.code))

    async def _forward(self, call: _Call) -> web.Response | Written:
        peer = _peer(call.request.protocol, call.head)
        problem, cut = None, None
        try:
            return await super()._forward(call)
        except (ConnectionError, asyncio.CancelledError):
            cut = self._observers.ending
            raise
        except Exception:
            problem = DEFECT
            raise
        finally:
            self._observers.write(self._build_entry(peer, call, call.problem or problem, cut))

    def _answered_directly(self, call: DirectCall, caller: Caller, status: int | None, sent: int) -> None:
        length = call.head.get(b"content-length")
        entry = Entry(_peer(caller, call.head), call.head, status)
        entry.received, entry.sent = int(length or 0), sent
        entry.cut = self._observers.ending if status is None else None
        self._observers.write(self._complete(entry, call))

    def _build_entry(self, peer: Peer, call: _Call, problem: Problem | None, cut: Cut | None) -> Entry:
        entry = Entry(peer, call.head, None, cut=cut, replayed=call.replayed)
        entry.received = call.request.content.total_bytes
        response = call.response
        if response is not None:
            entry.status = response.status
            entry.received += response.tunnelled[0]
            entry.sent = response.received + response.tunnelled[1]
            entry.cut = "upstream" if call.cut_short else cut
        if problem is not None:
            entry.status, entry.problem = problem.status, problem.code
        return self._complete(entry, call)

    def _complete(self, entry: Entry, call: _Call | DirectCall) -> Entry:
        """With what is known of a call however it went. One with the client's own credential is no account's."""
        lane, token = call.lane, call.token
        entry.route = lane.route.name
        entry.account = None if lane.credential is None else lane.route.account
        entry.duration_s = time.perf_counter() - call.started_at
        entry.fingerprint = None if token is None else self._fingerprint(lane.route.account, token)
        return entry

    def _fingerprint(self, account: str, token: TokenSet) -> str:
        known = self._fingerprints.get(account)
        if known is None or known[0] != token.generation:
            known = self._fingerprints[account] = token.generation, fingerprint(token.access_token)
        return known[1]


def _peer(connection: object, head: Head) -> Peer:
    return Peer(head.key, cast(Connected, connection).user)


class _ObservedCall(DirectCall):
    """`tell` is told of how it ended: with a status and the bytes of a body, or with no status."""

    __slots__ = ("_tell",)

    def __init__(self, tell: Callable[[DirectCall, Caller, int | None, int], None], *args: Any) -> None:
        super().__init__(*args)
        self._tell = tell

    def relay(self, status: int, answer: bytes) -> None:
        super().relay(status, answer)
        self._tell(self, self._caller, status, len(answer) - answer.index(b"\r\n\r\n") - 4)

    def abandon(self) -> None:
        super().abandon()
        self._tell(self, self._caller, None, 0)
