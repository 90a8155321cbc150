"""All settings on one page: the names of the model, with what docs/configuration.md says of each."""

from collections.abc import Iterator, Mapping
from typing import Final

from bearerd.settings.documentation import Described, Section
from bearerd.settings.model import NAMED, SINGLE

_HEAD: Final = """\
# All settings

This page is made from the program: `make pages` writes it. The names lead to where [Configuration](configuration.md) says the rest. In the
environment, `drain` of `[limits]` is `BEARERD_LIMITS__DRAIN`, and so on.
"""
_TABLE: Final = "| setting | type | default | what it does |\n|---|---|---|---|"
_HEADINGS: Final = {
    "accounts": ("[accounts.NAME]", "accountsname"),
    "routes": ('[routes."/prefix/"]', "routesprefix"),
}


def build_settings(sections: Mapping[str, Section]) -> str:
    """KeyError where the document leaves a setting out."""
    return "\n".join([_HEAD, *(line for item in sections.items() for line in _section(*item))])


def _section(name: str, section: Section) -> Iterator[str]:
    heading, anchor = _HEADINGS.get(name, (f"[{name}]", name))
    yield f"## `{heading}`\n\n{_TABLE}"
    for key in (SINGLE | NAMED)[name].model_fields:
        row = section.settings[key]
        yield f"| [`{key}`](configuration.md#{anchor}) | {row.kind} | {row.default} | {_summary(row)} |"
    yield ""


def _summary(row: Described) -> str:
    """The first sentence, without what leads elsewhere."""
    sentence = row.purpose.partition(". ")[0].partition("; see ")[0]
    return sentence.removesuffix(".") + "."
