"""What the guides quote is among what the page of messages has."""

import re
from typing import Final

from guides.guide import GUIDES

MESSAGES: Final = (GUIDES.parent / "troubleshooting.md").read_text(encoding="utf-8")
NOT_OURS: Final = re.compile(r"bind |Warning: remote |remote port |\d+ ")
"""Of ssh, and codes of answers."""


def quoted() -> list[str]:
    """The messages in the tables of what can go wrong, without the account before them."""
    tables = [
        page.read_text(encoding="utf-8").partition("## What can go wrong")[2] for page in GUIDES.glob("*.md")
    ]
    found = [text for table in tables for text in re.findall(r"(?m)^\| `([^`]+ [^`]+)`", table)]
    return [re.sub(r"^bearerd: account \w+: ", "", text) for text in found if not NOT_OURS.match(text)]


def test_each_message_is_explained() -> None:
    """By how it begins: what follows is different each time, or left out here."""
    cells = re.findall(r"(?m)^\| (`.*?) \|", MESSAGES)
    known = [
        text.partition("…")[0].rstrip(" :;") for cell in cells for text in re.findall(r"`([^`]+)`", cell)
    ]
    messages = quoted()
    assert len(messages) > 5
    assert not [text for text in messages if not any(begin and text.startswith(begin) for begin in known)]
