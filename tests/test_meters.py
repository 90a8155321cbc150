"""What is counted, as values."""

import pytest

from bearerd.errors import UpstreamClosed, UpstreamError, UpstreamTimeout, UpstreamUnreachable, kind_of
from bearerd.meters import CALL_BOUNDS_S, LEFT, CallMeter, Histogram, Meters


@pytest.mark.parametrize(("seconds", "place"), [(0.0, 0), (1.0, 0), (1.5, 1), (2.0, 1), (2.5, 2), (1e9, 2)])
def test_a_bound_belongs_to_what_is_below_it(seconds: float, place: int) -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(seconds)
    assert histogram.counts == [int(place == n) for n in range(3)]
    assert histogram.sum_s == seconds


def test_a_call_is_counted_by_its_class_and_its_duration() -> None:
    meter = CallMeter()
    for status, seconds in [(200, 0.0004), (204, 0.02), (404, 0.02), (599, 1000.0)]:
        meter.answered(status, seconds)
    meter.ended(101)
    meter.ended(LEFT)
    assert meter.classes == [1, 1, 2, 0, 1, 1]
    assert sum(meter.counts) == 4
    assert (meter.counts[0], meter.counts[-1]) == (1, 1)
    assert meter.counts[CALL_BOUNDS_S.index(0.025)] == 2
    assert meter.sum_s == pytest.approx(1000.0404)


def test_a_meter_stays_the_same_whoever_asks_for_it() -> None:
    meters = Meters()
    assert meters.of_calls("/", "work") is meters.of_calls("/", "work")
    assert meters.of_calls("/", "work") is not meters.of_calls("/", "")


def test_bounds_rise() -> None:
    assert list(CALL_BOUNDS_S) == sorted(set(CALL_BOUNDS_S))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UpstreamTimeout(), "timeout"),
        (UpstreamClosed(), "closed"),
        (UpstreamUnreachable(), "unreachable"),
        (UpstreamError(), "invalid"),
    ],
)
def test_kinds_of_upstream_errors(error: UpstreamError, kind: str) -> None:
    assert kind_of(error) == kind
