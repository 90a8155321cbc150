"""docs/troubleshooting.md has each code that bearerd answers with, and each message that keeps somebody from a start, a login or a token."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from source_texts import FILLED, name_of, read_trees, text_of

DOCS: Final = Path(__file__).parent.parent / "docs"
PAGE: Final = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
HTTP: Final = (DOCS / "http.md").read_text(encoding="utf-8")
TREES: Final = tuple(read_trees())

PUT_TOGETHER: Final = {
    "core/rules.py": ("refused_by_methods", "refused_by_read_only"),
    "core/keyed_guard.py": ("key_missing", "key_refused"),
}
"""Codes that do not stand in the call of a Problem."""

KEEPERS: Final = frozenset(
    {
        *("StoreError", "DamagedKey", "StoreUnwritable", "RefreshLockTimeout"),
        *("LoginFailed", "LoginRefused", "CallbackRefused", "IdTokenError", "LoginRequired", "Failure"),
    }
)
"""The classes of what keeps somebody from a login or a token."""
OTHERS: Final = {
    "ConfigError": {"activation.py", "audit.py", "daemon.py", "telemetry.py"},
    "BearerdError": {"alone.py", "cli/login.py", "cli/logout.py", "cli/status.py", "cli/token.py"},
}
"""Classes of which only what is said at these places belongs to the page: a setting's mistake is explained by `config check`."""

COMPOSED: Final = {
    "listen.port: \x01\x01": ("listen.port: \x01 on \x01 is in use by another program; stop it",),
    "store.key_secret \x01": ("store.key_secret is not a key of 32 bytes in base64; \x01",),
    "the \x01 says \x01": (
        "the token endpoint says invalid_client",
        "the token endpoint says invalid_grant: \x01",
    ),
    "the \x01 \x01": ("the revocation endpoint cannot be reached",),
    "the \x01's reply has an error that is no text": ("the token endpoint's reply has \x01",),
    "the issuer \x01": ("the issuer cannot be reached",),
    "the keychain (\x01) \x01; unlock it and start again": ("the keychain (\x01) is locked, or \x01",),
    "the token endpoint \x01": ("the token endpoint did not answer in time",),
    "\x01 \x01; restore it, or move it out of the folder; nothing was changed": ("\x01 is damaged, or \x01",),
    "\x01/\x01 \x01; restore it, or log in again, which sets it aside": ("\x01/\x01 is no vault file; \x01",),
    "\x01; or \x01": ("the keychain (\x01) failed: \x01; mend that; or \x01",),
}
"""What comes of texts that say little by themselves."""
NOT_THERE: Final = {
    "\x01: is no http or https URL; write it like http://127.0.0.1:4318": "it begins with the variable to mend",
}
"""Texts that are not on the page, with the reason."""


def tables() -> Iterator[tuple[list[str], list[str]]]:
    """Head and cells of each row."""
    head: list[str] = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = cells
        elif set(line) - set("|-"):
            yield head, cells


def spans(*heads: str) -> list[str]:
    """What stands in code in the columns with these heads."""
    found = [cell for head, row in tables() for name, cell in zip(head, row, strict=True) if name in heads]
    return [span for cell in found for span in re.findall(r"`([^`]+)`", cell)]


CODES: Final = set(spans("`code`"))
MESSAGES: Final = spans("message", "`detail`", "what you see")


def codes() -> Iterator[str]:
    """Of every Problem that the program makes."""
    for place, tree in TREES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and name_of(node.func) == "Problem":
                code = node.args[1]
                assert text_of(code) or place in PUT_TOGETHER, f"{place}:{node.lineno}"
                yield from (text_of(code),) if isinstance(code, ast.Constant) else PUT_TOGETHER[place]


def said() -> Iterator[str]:
    """Every text of the program that has words in it, but for its docstrings."""
    for _, tree in TREES:
        for node in ast.walk(tree):
            if not isinstance(node, ast.Expr):
                texts = [text for child in ast.iter_child_nodes(node) if " " in (text := text_of(child))]
                yield from (each for text in texts for each in (text, *COMPOSED.get(text, ())))


def kept() -> Iterator[tuple[str, str]]:
    """Texts of errors that keep somebody from something, with their places. Constants count where they are used."""
    named = {
        target.id: text
        for _, tree in TREES
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(target := node.target, ast.Name)
        if node.value is not None and " " in (text := text_of(node.value))
    }
    for place, tree in TREES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _keeps(name_of(node.func), place):
                for argument in node.args:
                    text = named.get(argument.id, "") if isinstance(argument, ast.Name) else text_of(argument)
                    if " " in text.strip(FILLED):
                        yield text, f"{place}:{node.lineno}"


def _keeps(name: str, place: str) -> bool:
    return name in KEEPERS or place in OTHERS.get(name, ())


def stands_for(message: str, text: str) -> bool:
    """Whether `text` has the words of `message`, with anything for `…`."""
    words = (re.escape(part.strip()) for part in message.split("…"))
    return re.fullmatch(".*".join(words), text, re.DOTALL) is not None


SAID: Final = frozenset(said())
KEPT: Final = sorted(dict(kept()).items())


def test_each_code_has_a_row_and_no_other_has() -> None:
    assert set(codes()) == CODES


def test_each_code_is_in_the_table_of_answers_too() -> None:
    table = HTTP.partition("## Answers of bearerd's own")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[1] for line in table.splitlines() if line.startswith("| ")]
    assert {code for row in rows for code in re.findall(r"`(\w+)`", row)} - {"code"} == set(codes())


@pytest.mark.parametrize("message", MESSAGES)
def test_what_the_page_explains_is_said(message: str) -> None:
    assert any(stands_for(message, text) for text in SAID)


@pytest.mark.parametrize(("text", "place"), KEPT, ids=[place for _, place in KEPT])
def test_what_keeps_somebody_from_something_is_explained(text: str, place: str) -> None:
    ends = COMPOSED.get(text, (text,))
    found = any(stands_for(message, end) for message in MESSAGES for end in ends)
    assert found or text in NOT_THERE, f"{place}: {text.replace(FILLED, '…')}"


def test_the_texts_are_found() -> None:
    assert len(KEPT) > 80
    assert "nobody has logged in yet" in dict(KEPT)
    assert len(MESSAGES) > 100
    assert not stands_for("the token endpoint …", "the key")
