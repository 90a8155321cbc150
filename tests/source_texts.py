"""The texts in the program's source, as people read them: what is put into one is `FILLED`."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import bearerd

PACKAGE: Final = Path(bearerd.__file__).parent
FILLED: Final = "\x01"


def read_trees() -> Iterator[tuple[str, ast.Module]]:
    """Each module with its path in the package. Those of the demo are left out: its errors are an authorization server's."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "demo" not in path.parts:
            yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def name_of(node: ast.expr) -> str:
    """Of a function or class that is called, without the module's."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def text_of(node: ast.AST) -> str:
    """Empty for what is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else FILLED for part in node.values)
    return ""
