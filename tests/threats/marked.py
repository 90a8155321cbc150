"""Which threats a test names: by a marker of its own, of its class or its file, or in its name."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path


@cache
def find_tests(file: Path) -> dict[str, tuple[str, frozenset[int]]]:
    """The tests of a file by their names: how pytest calls them, and which threats they name."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {name: (place, marks) for name, place, marks in _functions(tree.body, "", _module_marks(tree))}


def _functions(
    body: list[ast.stmt], place: str, marks: frozenset[int]
) -> Iterator[tuple[str, str, frozenset[int]]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{place}::{node.name}", marks | _numbers(node.decorator_list))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            named = frozenset(map(int, re.findall(r"threat_(\d+)_", node.name)))
            yield node.name, f"{place}::{node.name}", marks | named | _numbers(node.decorator_list)


def _module_marks(tree: ast.Module) -> frozenset[int]:
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    return _numbers(values)


def _numbers(marks: list[ast.expr]) -> frozenset[int]:
    found = (re.findall(r"pytest\.mark\.threat\((\d+)\)", ast.unparse(mark)) for mark in marks)
    return frozenset(int(number) for numbers in found for number in numbers)
