"""Links in what people read lead to a file that is there, and to a heading in it."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """As the repository's viewer makes them: lower case, hyphens for spaces, nothing else but letters and underscores."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        place = (page.parent / path) if path else page
        assert place.exists(), link
        assert not anchor or anchor in anchors(place), link


def test_there_are_links_to_look_at() -> None:
    assert {"docs/security.md", "SECURITY.md"} <= set(links(PROJECT / "README.md"))
    assert any("#" in link for link in links(PROJECT / "docs" / "security.md"))
