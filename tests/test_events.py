"""Each event of the log is in the table of docs/operations.md, with its level and its members, and no other is."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bearerd import logs
from log_events import DOCUMENT, ROW, TABLE

SOURCES: Final = Path(__file__).parent.parent / "proxy" / "bearerd"
METHODS: Final = frozenset(logs.LEVELS) | {"log", "tell"}
NAME: Final = re.compile(r"[a-z]+\.[a-z_]+")
# What is logged by another way than a call with the name of the event.
ELSEWHERE: Final = {"library.message": ({"log"}, {"logger", "message", "trace"})}


def calls(source: str) -> Iterator[tuple[str, str, set[str]]]:
    """The event, the method and the members of each line of the log that `source` may write."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        method = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        event = node.args[0].value
        if method in METHODS and isinstance(event, str) and NAME.fullmatch(event):
            yield event, method, {word.arg for word in node.keywords if word.arg is not None}


def found() -> dict[str, tuple[set[str], set[str]]]:
    """The methods and members of each event."""
    events: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()), ELSEWHERE)
    for path in SOURCES.rglob("*.py"):
        for event, method, members in calls(path.read_text(encoding="utf-8")):
            events[event][0].add(method)
            events[event][1].update(members)
    return events


EVENTS: Final = found()


def test_the_table_has_every_event_and_no_other() -> None:
    assert len(ROW.findall(DOCUMENT)) == len(TABLE), "an event is there twice"
    missing, unknown = EVENTS.keys() - TABLE.keys(), TABLE.keys() - EVENTS.keys()
    assert not missing, f"add to the table under '### Events' in docs/operations.md: {sorted(missing)}"
    assert not unknown, f"take out of the table under '### Events' in docs/operations.md: {sorted(unknown)}"


@pytest.mark.parametrize("event", sorted(TABLE))
def test_a_row_says_at_which_level_and_with_which_members(event: str) -> None:
    methods, members = EVENTS[event]
    levels = set(TABLE[event][2].split(", "))
    assert levels <= set(logs.LEVELS)
    if not methods & {"log", "tell"}:
        assert levels == methods
    assert members <= set(re.findall(r"`([a-z_]+)`", TABLE[event][3]))
    assert len(TABLE[event][4]) > 20


def test_names_are_found_however_they_are_logged() -> None:
    source = 'self._log.info("a.b", x=1, **more)\ntell("c.d", y=2)\nlog("not one")\nother.get("e.f")'
    assert list(calls(source)) == [("a.b", "info", {"x"}), ("c.d", "tell", {"y"})]
