"""What parsers are given that nobody has written by hand: a function `fuzz` for each, and files to begin with."""

from pathlib import Path
from typing import Final

TARGETS: Final = ("requests", "targets", "token_replies", "metadata", "callbacks", "answers")
CORPUS: Final = Path(__file__).parent / "corpus"
FOUND: Final = Path(__file__).parent.parent.parent / ".make" / "fuzz"


def check_sentence(problem: Exception) -> None:
    """What people are told is one line of text."""
    assert str(problem).isprintable()
