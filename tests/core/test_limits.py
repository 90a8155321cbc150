import math

import pytest

from bearerd.core.limits import allowed_connections


@pytest.mark.parametrize(
    ("wanted", "descriptors", "allowed"),
    [
        (1024, math.inf, 1024),
        (1024, 1 << 20, 1024),
        (1024, 1024, 488),
        (5, 64, 5),
        (1024, 64, 8),
        (1024, 3, 1),
    ],
)
def test_each_call_takes_two_descriptors(wanted: int, descriptors: float, allowed: int) -> None:
    assert allowed_connections(wanted, descriptors) == allowed


def test_a_call_that_keeps_its_body_on_disk_takes_three() -> None:
    assert allowed_connections(1024, 1008, per_call=3) == 320
