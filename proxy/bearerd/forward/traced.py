"""Calls whose way is recorded, and known to the upstream as a part of the client's trace. Without that nothing of this is in their way."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from aiohttp import StreamReader, web

from bearerd.core.fields import Fields
from bearerd.core.guard import Head
from bearerd.core.tokens import TokenSet
from bearerd.core.traces import Step, carry
from bearerd.errors import LoginRequired, TokenError, UpstreamError, UpstreamTimeout
from bearerd.forward.direct import Caller, DirectCall
from bearerd.forward.expectation import Expectation
from bearerd.forward.handler import _Call
from bearerd.forward.observed import ObservedForwarder
from bearerd.forward.upstream import Connection, UpstreamResponse
from bearerd.tracing import Tracer, new_id

_KINDS: Final = (
    (UpstreamTimeout, "upstream_timeout"),
    (UpstreamError, "upstream_broken"),
    (LoginRequired, "login_required"),
    (TokenError, "token_unavailable"),
    (asyncio.CancelledError, "cancelled"),
)


class TracedForwarder(ObservedForwarder):
    """A forwarder that notes the steps of each call. The tracer is one of those that are told of it at its end."""

    def __init__(self, *args: Any, tracer: Tracer, **kwargs: Any) -> None:
        """All but `tracer` is for `ObservedForwarder`."""
        super().__init__(*args, **kwargs)
        self._tracer = tracer

    def begin(self, caller: Caller, head: Head, payload: StreamReader) -> DirectCall | None:
        head.trail = self._tracer.enter(head)
        if head.trail is not None:
            _begin_step(head, "upstream")
            head.become(_carried(head, head).headers, head.key)
        return super().begin(caller, head, payload)

    async def handle(
        self, request: web.BaseRequest, head: Head, begun: DirectCall | None = None
    ) -> web.StreamResponse:
        if begun is None:
            head.trail = self._tracer.enter(head)
        return await super().handle(request, head, begun)

    def _answered_directly(self, call: DirectCall, caller: Caller, status: int | None, sent: int) -> None:
        if call.head.trail is not None:
            step = call.head.trail.steps[-1]
            step.host, step.port = call.lane.route.origin.host, call.lane.route.origin.port
            step.status, step.error = status, "cancelled" if status is None else None
            step.ended_at = time.perf_counter()
        super()._answered_directly(call, caller, status, sent)

    async def _wait_for_token(self, call: _Call) -> TokenSet:
        with _step(call.head, "token"):
            return await super()._wait_for_token(call)

    async def _force_refresh(self, call: _Call, rejected: TokenSet) -> TokenSet:
        with _step(call.head, "token"):
            return await super()._force_refresh(call, rejected)

    async def _send(
        self,
        call: _Call,
        token: TokenSet | None,
        begun: Connection | None = None,
        expectation: Expectation | None = None,
    ) -> UpstreamResponse:
        with _step(call.head, "upstream", begun=begun is not None) as step:
            response = await super()._send(call, token, begun, expectation)
            if step is not None:
                step.host, step.port = call.route.origin.host, call.route.origin.port
                step.status = response.status
            return response

    def _fields_of(self, head: Head) -> Fields:
        fields = super()._fields_of(head)
        return fields if head.trail is None else _carried(head, fields)


def _carried(head: Head, fields: Fields) -> Fields:
    """`fields` with the place of the step that goes on now."""
    assert head.trail is not None  # noqa: S101  # whoever asks has looked
    return Fields(carry(fields.headers, head.trail.here, keep_state=head.trail.parent is not None))


def _begin_step(head: Head, name: Literal["upstream", "token"]) -> Step:
    assert head.trail is not None  # noqa: S101  # as above
    step = Step(name, new_id(8), time.perf_counter())
    head.trail.steps.append(step)
    return step


@contextmanager
def _step(head: Head, name: Literal["upstream", "token"], *, begun: bool = False) -> Iterator[Step | None]:
    """`begun` says that it is the one that goes on already."""
    if head.trail is None:
        yield None
        return
    step = head.trail.steps[-1] if begun else _begin_step(head, name)
    try:
        yield step
    except BaseException as exc:
        step.error = next((kind for of, kind in _KINDS if isinstance(exc, of)), type(exc).__name__)
        raise
    finally:
        step.ended_at = time.perf_counter()
