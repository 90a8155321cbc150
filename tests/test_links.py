"""Links in what people read lead to a file that is there, and to a heading in it; and each page is in an index."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pages.index import read_index

PROJECT = Path(__file__).parent.parent
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
DOCS = PROJECT / "docs"
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(PROJECT))


def text_of(page: str) -> str:
    """What is text in a page: its code blocks are not."""
    return re.sub(r"(?ms)^( *)```.*?^\1```", "", page)


def read(page: Path) -> str:
    return text_of(page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """As the repository's viewer makes them: lower case, hyphens for spaces, nothing else but letters and underscores."""
    headings = re.findall(r"(?m)^#+ (.+)$", read(page))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return [link for link in LINK.findall(read(page)) if not re.match(r"[a-z]+:", link)]


def addresses(page: Path) -> list[str]:
    return re.findall(r"(?:\]\(|<)([a-z]+:[^)>\s]*)[)>]", read(page))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        place = (page.parent / path) if path else page
        assert place.is_file(), (
            f"{link}: not a file; a folder cannot be shown on the site, link to a file in it"
        )
        assert not anchor or anchor in anchors(place), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_elsewhere_are_safe(page: Path) -> None:
    """Whether they lead somewhere cannot be told here."""
    for address in addresses(page):
        parts = urlsplit(address)
        assert parts.scheme == "https", address
        assert re.fullmatch(r"[a-z0-9.-]+\.[a-z]+", parts.netloc), address


def test_there_are_links_to_look_at() -> None:
    assert {"docs/security.md", "SECURITY.md"} <= set(links(PROJECT / "README.md"))
    assert any("#" in link for link in links(DOCS / "security.md"))
    assert "https://semver.org/" in addresses(PROJECT / "CHANGELOG.md")


def indexed(index: Path) -> list[Path]:
    """The pages that an index lists, with those of the indexes among them."""
    parts = read_index(index.read_text(encoding="utf-8"))
    listed = [(index.parent / path).resolve() for part in parts for _, path in part.entries]
    return [*listed, *(page for each in listed if each.name == "index.md" for page in indexed(each))]


def test_each_page_is_in_the_index_once() -> None:
    found = indexed(DOCS / "index.md")
    missing = {*DOCS.glob("**/*.md")} - {*found, DOCS / "index.md"}
    assert not missing, "list it in docs/index.md, or in the index.md of its folder"
    assert len(found) == len(set(found))
