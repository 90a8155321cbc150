"""The documentation's site: it is made without a warning, nothing in it leads nowhere, and it loads nothing from elsewhere."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import pytest
from aiohttp import web

from browser import browsing
from test_links import DOCS, PROJECT

LOADED: Final = {"src", "srcset", "poster", "data", "xlink:href"}
IN_STYLES: Final = re.compile(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""")


@dataclass
class Page(HTMLParser):
    """What a page refers to: `loads` as it is shown, `leads` when somebody follows it."""

    text: str
    loads: list[str] = field(default_factory=list)
    leads: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value or "")
            elif name in LOADED or (tag == "link" and name == "href"):
                self.loads.append(value or "")
            elif tag == "a" and name == "href":
                self.leads.append(value or "")
            elif name == "style":
                self.loads += in_styles(value or "")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style":
            self.loads += in_styles(data)


def in_styles(text: str) -> list[str]:
    return [address or imported for address, imported in IN_STYLES.findall(text)]


def find_faults(site: Path) -> Iterator[str]:
    """What is loaded from elsewhere, or is not there."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.glob("**/*.html")}
    for path, page in pages.items():
        for address in page.loads:
            yield from find_fault(site, path, address, {})
        for address in page.leads:
            if not address.startswith("https://"):
                yield from find_fault(site, path, address, pages)
    for path in site.glob("**/*.css"):
        for address in in_styles(path.read_text(encoding="utf-8")):
            yield from find_fault(site, path, address, {})


def find_fault(site: Path, path: Path, address: str, pages: dict[Path, Page]) -> Iterator[str]:
    """`pages` are given where an anchor is to be looked for."""
    parts = urlsplit(address)
    where = f"{path.relative_to(site)}: {address}"
    if parts.scheme == "data":
        return
    if parts.scheme or parts.netloc:
        yield f"{where} is elsewhere"
        return
    place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not place.is_file():
        yield f"{where} is not there"
    elif parts.fragment and place in pages and unquote(parts.fragment) not in pages[place].anchors:
        yield f"{where} has no such anchor"


def make(out: Path, project: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    """As `make docs` does. What of bearerd runs for it is covered by tests of its own, at a third of the time."""
    words = [sys.executable, "-m", "pages.site", str(out), str(project)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        cwd=PROJECT / "tests",
        env=environment,
    )


def test_a_site_with_faults_is_not_made(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "docs" / "site").mkdir(parents=True)
    texts = {
        "index.md": "# Front\n\n## Part\n\n- [A](a.md)\n- [Gone](gone.md)\n",
        "a.md": "# A\n\n[no page](b.md), [no place](a.md#b), [no file](../c.toml)\n\n```nosuch\na\n```\n",
        "unlisted.md": "# Unlisted\n\n![no picture](d.svg)\n",
    }
    for name, text in texts.items():
        (project / "docs" / name).write_text(text)
    done = make(tmp_path / "site", project)
    assert done.returncode == 1
    for told in (
        "gone",
        "b.md",
        "'b'",
        "c.toml",
        "nosuch",
        "unlisted.md: WARNING: document isn't included",
        "d.svg",
    ):
        assert told in done.stderr


async def test_the_site_is_whole_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = await asyncio.to_thread(make, tmp_path)
    assert done.stderr == ""
    assert done.returncode == 0
    made = {
        str(path.relative_to(tmp_path / "docs").with_suffix(".md"))
        for path in tmp_path.glob("docs/**/*.html")
    }
    assert made == {str(path.relative_to(DOCS)) for path in DOCS.glob("**/*.md")}
    assert list(find_faults(tmp_path)) == []
    async with served(tmp_path) as address, browsing() as tab:
        asked: list[str] = []
        tab.page.on("request", lambda request: asked.append(request.url))
        await tab.page.goto(address)
        await tab.page.wait_for_url(f"{address}docs/index.html")
        await tab.page.goto(f"{address}search.html?q=vault")
        await tab.page.wait_for_selector("#search-results li a")
        assert tab.complaints == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
    assert f"{address}searchindex.js" in asked


@asynccontextmanager
async def served(site: Path) -> AsyncIterator[str]:
    """The address of a server of these files."""
    application = web.Application()
    application.router.add_get("/", partial(_front, site))
    application.router.add_static("/", site)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def _front(site: Path, _: web.Request) -> web.FileResponse:
    return web.FileResponse(site / "index.html")


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("a.html", '<script src="https://cdn.example.com/a.js"></script>', "elsewhere"),
        ("a.html", '<script src="//cdn.example.com/a.js"></script>', "elsewhere"),
        ("a.html", '<link rel="preconnect" href="https://fonts.example.com">', "elsewhere"),
        ("a.html", '<p style="background: url(https://example.com/a.png)">', "elsewhere"),
        ("a.html", "<style>@import 'https://example.com/a.css'</style>", "elsewhere"),
        ("a.html", '<a href="http://example.com">', "elsewhere"),
        ("a.html", '<img src="b.svg">', "not there"),
        ("a.html", '<a href="b.html">', "not there"),
        ("a.html", '<a href="a.html#c">', "no such anchor"),
        ("a.html", '<b id="a"></b><a href="#b">', "no such anchor"),
        ("a.css", "@font-face { src: url('https://fonts.example.com/a.woff2') }", "elsewhere"),
        ("a.css", "a { background: url(b.png) }", "not there"),
    ],
)
def test_a_fault_of_a_site_is_found(tmp_path: Path, name: str, text: str, fault: str) -> None:
    (tmp_path / name).write_text(text)
    [found] = find_faults(tmp_path)
    assert fault in found


def test_what_is_there_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("a { background: url(data:image/png;base64,AA) }")
    (tmp_path / "b.html").write_text(
        '<link href="a.css"><i id="c d"></i><a href="https://example.com"><a href="b.html#c%20d">'
    )
    assert list(find_faults(tmp_path)) == []
