"""What a `traceparent` says, and what is none (W3C Trace Context, level 2, section 3.2)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bearerd.core.traces import TraceContext, build_traceparent, parse_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"{TRACE}",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE}-{SPAN}-01-",  # version 00 has nothing behind the flags
        f"00-{TRACE}-{SPAN}-01-more",
        f"01-{TRACE}-{SPAN}-01more",
        f"ff-{TRACE}-{SPAN}-01",
        f"FF-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-\xb2\xb2",
    ],
)
def test_what_is_none(value: str) -> None:
    assert parse_traceparent([value.encode("latin-1")]) is None


def test_two_are_none() -> None:
    assert parse_traceparent([]) is None
    assert parse_traceparent([GOOD.encode(), GOOD.encode()]) is None


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (GOOD, 1),
        (f" \t{GOOD} ", 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-ff", 3),
        (f"00-{TRACE}-{SPAN}-02", 2),
        (f"01-{TRACE}-{SPAN}-01", 1),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", 1),
        (f"cc-{TRACE}-{SPAN}-01-", 1),
    ],
)
def test_what_is_one(value: str, flags: int) -> None:
    found = parse_traceparent([value.encode()])
    assert found == TraceContext(TRACE, SPAN, flags)
    assert found.sampled == bool(flags & 1)


@settings(deadline=None)
@given(
    st.binary(max_size=70)
    | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-x)?").map(str.encode)
)
def test_what_is_written_is_read_as_it_was(value: bytes) -> None:
    found = parse_traceparent([value])
    if found is not None:
        written = build_traceparent(found)
        assert len(written) == 55
        assert parse_traceparent([written]) == found


def test_another_place_is_in_the_same_trace() -> None:
    assert (
        build_traceparent(TraceContext(TRACE, SPAN, 3).at("1" * 16)).decode() == f"00-{TRACE}-{'1' * 16}-03"
    )
