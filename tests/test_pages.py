"""The pages that are made from the program are those that the program would make now."""

import re
import shutil
import subprocess

import pytest

from pages import PROJECT, build_pages
from pages.commands import Command
from pages.markdown import build_reference
from pages.roff import escape, fill, mark

PAGES = build_pages()
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
