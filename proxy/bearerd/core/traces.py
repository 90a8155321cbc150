"""Trace contexts, as the field `traceparent` has them (W3C Trace Context, level 2), and the way of a call that is recorded."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from bearerd.core.fields import RawFields

SAMPLED: Final = 1  # whoever sent it has recorded it
RANDOM: Final = 2  # the last seven bytes of the trace's id are random
_FORM: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A place in a trace: ids in lower-case hexadecimal, 32 and 16 digits. `flags` has `SAMPLED` and `RANDOM`."""

    trace_id: str
    span_id: str
    flags: int

    @property
    def sampled(self) -> bool:
        return bool(self.flags & SAMPLED)

    def at(self, span_id: str) -> "TraceContext":
        """Another place in the same trace."""
        return TraceContext(self.trace_id, span_id, self.flags)


def parse_traceparent(values: Sequence[bytes]) -> TraceContext | None:
    """What the values of all fields of that name say, or None where that is nothing valid (section 3.2).

    A version that is not known yet is read as far as it is like version 00.
    """
    found = _FORM.fullmatch(values[0].strip(b" \t")) if len(values) == 1 else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceContext(trace_id.decode(), span_id.decode(), int(flags, 16) & (SAMPLED | RANDOM))


def build_traceparent(context: TraceContext) -> bytes:
    return b"00-%b-%b-%02x" % (context.trace_id.encode(), context.span_id.encode(), context.flags)


def carry(headers: RawFields, context: TraceContext, *, keep_state: bool) -> RawFields:
    """Fields with `context` in place of what they say of a trace. `tracestate` stays where the trace goes on (section 3.3)."""
    dropped = {b"traceparent"} if keep_state else {b"traceparent", b"tracestate"}
    kept = tuple(pair for pair in headers if pair[0].lower() not in dropped)
    return (*kept, (b"traceparent", build_traceparent(context)))


@dataclass(slots=True, eq=False)
class Step:
    """A part of a call: `upstream` each time that it was sent, to `host` and `port`, or `token` for a wait. `ended_at` is None while
    it goes on; `error` is the kind of what went wrong. Instants are those of the clock that calls are measured by, in seconds.
    """

    name: Literal["upstream", "token"]
    span_id: str
    began_at: float
    host: str | None = None
    port: int | None = None
    ended_at: float | None = None
    status: int | None = None
    error: str | None = None


@dataclass(slots=True)
class Trail:
    """The way of one call that is recorded: its own place in its trace, its client's if that is in one, and its steps."""

    context: TraceContext
    parent: TraceContext | None
    began_at: float
    steps: list[Step] = field(default_factory=list)

    @property
    def here(self) -> TraceContext:
        """The place of what is being done now."""
        if self.steps and self.steps[-1].ended_at is None:
            return self.context.at(self.steps[-1].span_id)
        return self.context
