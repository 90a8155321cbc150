"""Every threat has defences, and every defence has tests that name the threat."""

import pytest

from threats.defences import DEFENCES, TESTS, THREATS, Defence
from threats.marked import find_tests


def test_every_threat_has_a_defence() -> None:
    assert {defence.threat for defence in DEFENCES} == set(THREATS)


@pytest.mark.parametrize("defence", DEFENCES, ids=str)
def test_a_defence_is_where_it_can_be_switched_off(defence: Defence) -> None:
    assert defence.source.read_text(encoding="utf-8").count(defence.text) == 1
    assert defence.off != defence.text


@pytest.mark.parametrize("defence", DEFENCES, ids=str)
def test_its_tests_are_there_and_name_the_threat(defence: Defence) -> None:
    for file, name in defence.named():
        assert name in find_tests(file), f"{file.relative_to(TESTS)} has no {name}"
        assert defence.threat in find_tests(file)[name][1], f"{name} does not name threat {defence.threat}"


def test_no_test_names_a_threat_that_is_none() -> None:
    for file in TESTS.rglob("test_*.py"):
        for name, (_, marks) in find_tests(file).items():
            assert marks <= set(THREATS), f"{file.name}: {name}"
