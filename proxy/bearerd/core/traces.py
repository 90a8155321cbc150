"""Trace contexts, as the field `traceparent` has them (W3C Trace Context, level 2)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

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
