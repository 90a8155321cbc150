"""All settings on one page: the names of the model, with what docs/configuration.md says of each."""

from collections.abc import Iterator, Mapping
from typing import Final

from bearerd.settings.documentation import Described, Section
from bearerd.settings.model import NAMED, SINGLE

_HEAD: Final = """\
# All settings

This page is made from the program: `make pages` writes it. Each section has a page part of its own, which says the rest, in
[Configuration](configuration.md). In the environment `limits.drain` is `BEARERD_LIMITS__DRAIN`, and so on.

| setting | type | default | what it does |
|---|---|---|---|
"""
_NAMES: Final = {"accounts": ("NAME", "accountsname"), "routes": ('"/prefix/"', "routesprefix")}


def build_settings(sections: Mapping[str, Section]) -> str:
    """KeyError where the document leaves a setting out."""
    return _HEAD + "".join(_rows(sections))


def _rows(sections: Mapping[str, Section]) -> Iterator[str]:
    tables = SINGLE | NAMED
    for section, described in sections.items():
        name, anchor = _NAMES.get(section, ("", section))
        for key in tables[section].model_fields:
            row = described.settings[key]
            path = ".".join(filter(None, (section, name, key)))
            yield f"| [`{path}`](configuration.md#{anchor}) | {row.kind} | {row.default} | {_summary(row)} |\n"


def _summary(row: Described) -> str:
    """The first sentence, without what leads elsewhere."""
    sentence = row.purpose.partition(". ")[0].partition("; see ")[0]
    return sentence.removesuffix(".") + "."
