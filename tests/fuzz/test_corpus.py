"""Every file of the corpus, and every beginning of it, without atheris: only what a parser documents comes out."""

from importlib import import_module
from pathlib import Path

import pytest

from fuzz import CORPUS, TARGETS

FILES = sorted(path.relative_to(CORPUS) for path in CORPUS.glob("*/*"))
SIZE_LIMIT = 4 << 10


@pytest.mark.parametrize("path", FILES, ids=str)
def test_what_was_found_stays_mended(path: Path) -> None:
    fuzz = import_module(f"fuzz.{path.parts[0]}").fuzz
    data = (CORPUS / path).read_bytes()
    assert len(data) <= SIZE_LIMIT
    fuzz(data)
    for cut in range(0, len(data), max(1, len(data) // 16)):
        fuzz(data[:cut])


@pytest.mark.parametrize("target", TARGETS)
def test_each_parser_has_files_to_begin_with(target: str) -> None:
    assert any(path.parts[0] == target for path in FILES)
