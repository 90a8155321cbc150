"""What probes are told, as values."""

import pytest

from bearerd.core.probes import Check, build_report

GOOD = Check("loop")
BAD = Check("store", "the folder cannot be read")


@pytest.mark.parametrize(
    ("checks", "verbose", "expected"),
    [
        ((GOOD,), False, (200, "ok\n")),
        ((GOOD,), True, (200, "[+]loop ok\nreadyz check passed\n")),
        (
            (GOOD, BAD),
            False,
            (503, "[+]loop ok\n[-]store failed: the folder cannot be read\nreadyz check failed\n"),
        ),
        ((BAD,), True, (503, "[-]store failed: the folder cannot be read\nreadyz check failed\n")),
    ],
)
def test_report(checks: tuple[Check, ...], expected: tuple[int, str], *, verbose: bool) -> None:
    assert build_report("readyz", checks, verbose=verbose) == expected
