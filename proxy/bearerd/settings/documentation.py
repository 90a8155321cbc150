"""What docs/configuration.md says of each setting: it is written there, once, and read by whoever has to say it again."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from bearerd.shipped import find_shipped

NOTHING: Final = object()
_SECTION: Final = re.compile(r"(?m)^## `\[(\w+)[^`]*`\n")
_CELLS: Final = 5
_LINK: Final = re.compile(r"\[([^\]]+)\]\([^)]+\)")
_BELOW: Final = re.compile(r"see (?:below|\[below\]\([^)]+\))")


@dataclass(frozen=True, slots=True)
class Described:
    """A row of a section's table, as it is written but for links. `default` is Markdown; `variable` is bare."""

    kind: str
    default: str
    variable: str
    purpose: str

    @property
    def value(self) -> object:
        """The default as the file would have it, or NOTHING where it is none or follows from something else."""
        try:
            value: object = json.loads(self.default.strip("`"))
        except ValueError:
            return NOTHING
        return value

    @property
    def text(self) -> str:
        """What it is for, and its default where that cannot be written as a value."""
        if self.value is not NOTHING or self.default == "none":
            return self.purpose
        return f"{self.purpose} Default: {self.default}."


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the file. `purpose` is its first paragraph, empty where there is none."""

    purpose: str
    settings: Mapping[str, Described]


def load_document() -> str:
    """docs/configuration.md. Raises BearerdError where it was not installed."""
    return find_shipped("configuration.md").read_text(encoding="utf-8")


def parse_document(text: str) -> dict[str, Section]:
    """The sections by the name of their table."""
    parts = _SECTION.split(text)[1:]
    bodies = (part.partition("\n## ")[0] for part in parts[1::2])
    return {
        name: Section(_first_paragraph(body), dict(_rows(body)))
        for name, body in zip(parts[::2], bodies, strict=True)
    }


def _first_paragraph(body: str) -> str:
    paragraph = body.strip().partition("\n\n")[0]
    return "" if paragraph.startswith("|") else _plain(" ".join(paragraph.split()))


def _rows(body: str) -> Iterator[tuple[str, Described]]:
    """Tables of settings have five columns; all others have fewer."""
    for line in body.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) == _CELLS:
            name, kind, default, variable, purpose = cells
            yield (
                name.strip("`"),
                Described(_plain(kind), _plain(default), variable.strip("`"), _plain(purpose)),
            )


def _plain(text: str) -> str:
    return _LINK.sub(r"\1", _BELOW.sub("see docs/configuration.md", text))
