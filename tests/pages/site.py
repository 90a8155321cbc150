"""The documentation as a site: `make docs` writes it into build/site."""

import sys
from io import StringIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Final

from sphinx.application import Sphinx
from sphinx.util.console import nocolor

from pages import PROJECT
from pages.index import Part, read_index

_FRONT: Final = "docs/index"
_REDIRECT: Final = """\
<!doctype html>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url=docs/index.html">
<title>bearerd</title>
<a href="docs/index.html">bearerd</a>
"""
_SETTINGS: Final = {
    "extensions": ["myst_parser"],
    "project": "bearerd",
    "root_doc": _FRONT,
    "include_patterns": ["docs/**", "CHANGELOG.md", "SECURITY.md"],
    "exclude_patterns": [".*", "build", "config", "dist", "docker", "docs/man", "proxy", "tests"],
    "nitpicky": True,
    "smartquotes": False,  # what is quoted is copied
    "myst_heading_anchors": 4,
    "myst_disable_syntax": [
        "myst_block_break",
        "myst_line_comment",
        "myst_role",
        "myst_target",
    ],  # not the viewer's
    "html_theme": "furo",
    "html_title": "bearerd",
    "html_static_path": ["docs/site"],
    "html_css_files": ["site.css"],
    "html_copy_source": False,
    "html_show_copyright": False,
    "html_use_index": False,
    "html_permalinks_icon": "#",
}


def build_site(project: Path, *, out: Path) -> str:
    """Write the site into `out`, and return the warnings: empty if all is well."""
    nocolor()
    warnings = StringIO()
    with TemporaryDirectory() as scratch:
        app = Sphinx(
            srcdir=project,
            confdir=None,
            outdir=out,
            doctreedir=scratch,
            buildername="html",
            confoverrides=_SETTINGS,
            status=None,
            warning=warnings,
            freshenv=True,
        )
        app.connect("source-read", _add_trees)
        app.build(force_all=True)
    (out / "index.html").write_text(_REDIRECT, encoding="utf-8")
    return warnings.getvalue()


def _add_trees(app: Sphinx, page: str, source: list[str]) -> None:
    """An index says in lists what the generator wants to be told in a directive of its own."""
    del app
    if PurePosixPath(page).name == "index":
        source[0] += "".join(map(_tree, read_index(source[0])))


def _tree(part: Part) -> str:
    caption = f":caption: {part.heading}\n" if part.heading else ""
    lines = "\n".join(f"{title} <{path}>" for title, path in part.entries)
    return f"\n\n```{{toctree}}\n:hidden:\n{caption}\n{lines}\n```\n"


if __name__ == "__main__":
    OUT, *OTHER = map(Path, sys.argv[1:])
    sys.exit(build_site(*OTHER or [PROJECT], out=OUT.resolve()) or 0)
