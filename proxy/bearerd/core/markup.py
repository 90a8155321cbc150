"""HTML as values: what is not markup already is escaped when it goes in."""

from dataclasses import dataclass
from html import escape
from typing import Final

_VOID: Final = frozenset({"br", "input", "link", "meta"})


@dataclass(frozen=True, slots=True)
class Markup:
    """Text that is HTML, and goes into other HTML as it is."""

    text: str

    def __str__(self) -> str:
        return self.text


def element(name: str, /, *children: Markup | str, **attributes: str | bool | None) -> Markup:
    """An element. Strings among `children`, and the values of `attributes`, are plain text.

    In the names of attributes an underscore stands for a hyphen and one at the end for nothing. True makes an
    attribute without a value; False and None make none.
    """
    pairs = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{pairs}>")
    return Markup(f"<{name}{pairs}>{''.join(_inner(child) for child in children)}</{name}>")


def _attribute(key: str, value: str | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(value)}"'


def _inner(child: Markup | str) -> str:
    return child.text if isinstance(child, Markup) else escape(child, quote=False)
