"""The events of the log, as the code has them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parent.parent / "proxy" / "bearerd"
_NAME: Final = re.compile(r"[a-z]+\.[a-z_]+")
_METHODS: Final = {"debug", "info", "warning", "error", "tell", "log"}


def known_events() -> frozenset[str]:
    """All that a call of a logger's names, and what libraries' messages are called."""
    return frozenset({"library.message"}.union(*map(_events, PACKAGE.rglob("*.py"))))


def _events(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Attribute(attr=name), args=[ast.Constant(value=str(event)), *_]):
                pass
            case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(event)), *_]):
                pass
            case _:
                continue
        if name in _METHODS and _NAME.fullmatch(event):
            yield event
