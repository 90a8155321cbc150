"""The order of the documentation: the pages that docs/index.md lists, and those that an index.md among them does.

A page is listed by a link at the beginning of a list's item, or alone in the last cell of a table's row.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_HEADING: Final = re.compile(r"(?m)^## (.+)$")
_ENTRY: Final = re.compile(r"(?m)^(?:- |\|.*\| )\[([^\]]+)\]\(([^)#]+\.md)\)(?=:| \||$)")


@dataclass(frozen=True, slots=True)
class Part:
    """A heading of an index, empty above the first one, and the pages under it: title, and path from the index."""

    heading: str
    entries: tuple[tuple[str, str], ...]


def read_index(text: str) -> Iterator[Part]:
    """The parts of an index that have entries."""
    above, *rest = _HEADING.split(text)
    for heading, body in zip(["", *rest[::2]], [above, *rest[1::2]], strict=True):
        entries = tuple(_ENTRY.findall(body))
        if entries:
            yield Part(heading, entries)
