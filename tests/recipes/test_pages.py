"""What the recipes show is run: each block has a test that names it, or says why none does."""

import re
from pathlib import Path

import pytest

from blocks import read_blocks
from recipes.recipe import PAGES

TESTS = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_each_block_is_run_or_says_why_not(page: Path) -> None:
    for block in read_blocks(page.read_text(encoding="utf-8")):
        assert block.name or block.reason, f"line {block.line}"


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_each_name_is_that_of_a_block_that_a_test_follows(page: Path) -> None:
    blocks = read_blocks(page.read_text(encoding="utf-8"))
    names = {block.name for block in blocks if block.language != "toml"} - {""}
    assert {
        name for name in names if not re.search(rf'\.(?:run|write|python)\("{re.escape(name)}"', TESTS)
    } == set()


def test_each_page_with_something_to_run_is_followed() -> None:
    followed = set(re.findall(r'following\(\s*"(\w+)"', TESTS))
    assert followed == {page.stem for page in PAGES.glob("*.md")} - {"index"}
