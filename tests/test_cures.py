"""Every error that a person may read says what there is to do: "what is wrong; what mends it".

The texts are read out of the source, where they stand in the calls of the classes below. What is put together elsewhere is
looked at where it comes out: in the tests of settings, commands and answers.
"""

import ast
import re
from collections.abc import Iterator
from typing import Final

import pytest

from source_texts import name_of, read_trees, text_of

ERRORS: Final = frozenset(
    {
        *("BearerdError", "ConfigError", "LoginFailed", "LoginRequired", "LoginRefused", "TokenUnavailable"),
        *(
            "StoreError",
            "DamagedKey",
            "StoreUnwritable",
            "CallbackRefused",
            "Unusable",
            "Untrustworthy",
            "Invalid",
        ),
        *("UsageError", "BadParameter", "ClickException", "Problem"),
    }
)
"""Not those that only give a reason to whoever words the rest: Failure, Unreadable, MetadataError, upstream errors."""

PARSERS: Final = frozenset({"core/field_rules.py", "core/proxies.py", "core/rules.py", "core/targets.py"})
"""Whose ValueErrors are problems of settings."""

VERBS: Final = (
    *(
        "add",
        "ask",
        "begin",
        "call",
        "choose",
        "chmod",
        "clear",
        "close",
        "copy",
        "create",
        "give",
        "go",
        "have",
        "install",
    ),
    *(
        "keep",
        "know",
        "leave",
        "let",
        "log",
        "list",
        "make",
        "mend",
        "move",
        "name",
        "open",
        "paste",
        "percent-encode",
    ),
    *(
        "put",
        "read",
        "remove",
        "replace",
        "report",
        "restart",
        "restore",
        "revoke",
        "run",
        "say",
        "see",
        "send",
        "set",
    ),
    *("show", "start", "stop", "take", "try", "unlock", "unset", "use", "wait", "write"),
)
CURE: Final = re.compile(
    rf"(?:^|[;:,] )(?:and |so |then |or |if [^;]+, |in a browser, |on Windows )?(?:{'|'.join(VERBS)})\b|; did you mean|; it belongs|; there is \x01|: bearerd \w"
)
INNER: Final = re.compile(r"[;:] ?\x01|\x01$")
"""What is put in here has its own cure, or is one."""

WITHOUT: Final = {
    "interrupted; what had been sent was waited for": "whoever reads it has just pressed Ctrl-C",
    "the vault's key has not been read yet": "a daemon that is starting says so, and reads it by itself",
}
"""Texts that need none, with the reason."""


def texts() -> Iterator[tuple[str, str]]:
    """Each text with where it stands."""
    for place, tree in read_trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.expr):
                continue
            for text in map(text_of, _candidates(node, place)):
                if " " in text and len(text) > 14:
                    yield f"{place}:{node.lineno}", text


def _candidates(node: ast.expr, place: str) -> Iterator[ast.expr]:
    """The expressions that may be an error's text."""
    of_settings = place.startswith("settings/") or place in PARSERS
    if isinstance(node, ast.Call):
        name = name_of(node.func)
        if name in ERRORS or (of_settings and name in {"ValueError", "add"}):
            yield from node.args
            yield from (keyword.value for keyword in node.keywords if keyword.arg != "title")
    elif isinstance(node, ast.Yield) and of_settings and isinstance(node.value, ast.Tuple):
        yield from node.value.elts[1:]


TEXTS: Final = sorted({text: place for place, text in texts()}.items())


def has_cure(text: str) -> bool:
    return bool(CURE.search(text) or INNER.search(text))


def test_the_texts_are_found() -> None:
    found = [text for text, _ in TEXTS]
    assert len(found) > 150
    assert "no route has this path; see the routes with: bearerd config show" in found


@pytest.mark.parametrize(("text", "place"), TEXTS, ids=[place for _, place in TEXTS])
def test_it_says_what_to_do(text: str, place: str) -> None:
    assert text in WITHOUT or has_cure(text), f"{place}: {text}"


@pytest.mark.parametrize(
    "text", ["the disk is full", "the name; it is wrong", "no: this is none", "\x01 is bad"]
)
def test_what_says_nothing_of_it_is_seen(text: str) -> None:
    assert not has_cure(text)
