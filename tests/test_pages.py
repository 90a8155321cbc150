"""The pages that are made from the program are those that the program would make now."""

import re
import shutil
import subprocess
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bearerd.core.lifecycle import Event, NoToken, Policy, State, transition
from bearerd.settings.documentation import load_document, parse_document
from pages import PROJECT, build_pages
from pages.commands import Command
from pages.drawing import draw
from pages.markdown import build_reference
from pages.roff import escape, fill, mark
from pages.settings import build_settings
from pages.states import INSTANTS, POLICIES, WORDS, read_events, read_phases, read_states

PAGES = build_pages()
DRAWN = read_states()
MANUAL = sorted(name for name in PAGES if name.startswith("docs/man/"))


@pytest.mark.parametrize("name", PAGES)
def test_none_is_stale(name: str) -> None:
    assert (PROJECT / name).read_text(encoding="utf-8") == PAGES[name], "run: make pages"


@pytest.mark.parametrize("name", MANUAL)
def test_a_man_page_is_well_formed(name: str) -> None:
    """But for its date, which would be that of its making."""
    assert shutil.which("mandoc"), "install mandoc"
    words = ["mandoc", "-Tlint", "-Wwarning", str(PROJECT / name)]
    said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout.splitlines()
    assert [line for line in said if 'missing date, using "": TH' not in line] == []
    assert len(said) == 1


@pytest.mark.parametrize("name", MANUAL)
def test_a_man_page_reads_as_it_is_meant(name: str) -> None:
    """No mark of roff or of Markdown is left in what is shown."""
    words = ["mandoc", "-Tascii", "-Owidth=78", str(PROJECT / name)]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    plain = re.sub(".\b", "", shown)
    assert "bearerd" in plain
    assert not re.search(r"`|\\\(|\\f[BR]|\]\(", plain)


def test_what_roff_would_take_for_a_macro_is_text() -> None:
    assert escape(".x -y 'z'") == "\\&.x \\-y \\(aqz\\(aq"
    assert mark("a `b-c` d") == "a \\fBb\\-c\\fR d"
    assert fill("a " * 40 + ".b") == " ".join("a" * 39) + "\na .b"
    assert fill("a " * 39 + ".b") == " ".join("a" * 39) + "\n\\&.b"


def test_what_markdown_would_take_for_a_mark_is_text() -> None:
    command = Command(
        "bearerd x", "bearerd x", ("A * b.", "c\nd\n"), (("--e [f|g]", "H_i."),), "bearerd x", "", False
    )
    page = build_reference([command])
    assert "\nA \\* b.\n" in page
    assert "```text\nc\nd\n```" in page
    assert "| `--e [f\\|g]` | H\\_i. |" in page


def test_a_setting_that_is_not_documented_is_missed() -> None:
    document = load_document()
    row = re.compile(r"(?m)^\| `drain` .*\n")
    assert row.search(document)
    with pytest.raises(KeyError, match="drain"):
        build_settings(parse_document(row.sub("", document)))


def test_every_event_has_its_words() -> None:
    assert set(WORDS) == set(get_args(Event))


def test_a_step_that_is_not_drawn_is_missed() -> None:
    steps = read_states() | read_phases()
    assert draw(steps)
    with pytest.raises(ValueError, match=r"differ: \[\('Active', 'NoToken'\)\]"):
        draw(steps | {("Active", "NoToken"): ["a miracle"]})
    with pytest.raises(ValueError, match=r"differ: \[\('Backoff', 'Idle'\)\]"):
        draw({pair: words for pair, words in steps.items() if pair != ("Backoff", "Idle")})


@settings(deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    choices=st.lists(st.tuples(st.integers(0, 99), st.sampled_from(INSTANTS))),
)
def test_no_history_takes_a_step_that_is_not_drawn(policy: Policy, choices: list[tuple[int, float]]) -> None:
    state: State = NoToken()
    for choice, now in choices:
        events = list(read_events(state))
        after, _ = transition(state, events[choice % len(events)], now, policy)
        assert type(after) is type(state) or (type(state).__name__, type(after).__name__) in DRAWN
        state = after
