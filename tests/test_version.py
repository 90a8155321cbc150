"""The version is written in one place, proxy/bearerd/__init__.py, and the changelog knows it."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from packaging.version import Version

from bearerd import __version__

PROJECT: Final = Path(__file__).parent.parent
CHANGELOG: Final = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
RECORDS: Final = {"benchmarks.md", "status.txt"}
"""What was measured or seen, and with which version."""

_NAMED: Final = re.compile(
    r"(?i)bearerd[\"'`)]*(?:,? version)?[\s:=/@-]*v?\"?(?!(?:\d+\.){3}\d)(\d+\.\d+\.\d+[\w.]*)"
)
_LABEL: Final = re.compile(r"(?im)image\.version\W+(\d[^\s\"']*)")
_HEADING: Final = re.compile(r"(?m)^## \[(\S+)\](?: - (\S+))?$")
_ISO_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")


def find_versions(text: str) -> list[str]:
    """Of bearerd, however they are written."""
    return _NAMED.findall(text) + _LABEL.findall(text)


def judge(version: Version, changelog: str) -> Iterator[str]:
    """What of `changelog` is not as the changelog of `version` is to be: a line each."""
    (first, dated), *released = _HEADING.findall(changelog) or [("", "")]
    if (first, dated) != ("Unreleased", ""):
        yield "the first section is to be ## [Unreleased]"
    for name, date in released:
        if not _ISO_DATE.fullmatch(date):
            yield f"## [{name}] is to have its date: ## [{name}] - 2001-12-31"
    versions = [Version(name) for name, _ in released]
    if versions != sorted(set(versions), reverse=True):
        yield "the newest section is to be the first, and each is to be there once"
    newest = versions[0] if versions else Version("0")
    if version.is_devrelease and newest >= Version(version.base_version):
        yield f"{newest} is released; __version__ is to be a later one's .dev0"
    if not version.is_devrelease and newest != version:
        yield f"there is to be a section ## [{version}], or __version__ is to end in .dev0"


@pytest.mark.parametrize(
    ("version", "headings", "problem"),
    [
        ("1.0.0", "## [1.0.0] - 2001-12-31", "the first section is to be ## [Unreleased]"),
        ("1.0.0.dev0", "", "the first section is to be ## [Unreleased]"),
        (
            "1.0.0",
            "## [Unreleased]",
            "there is to be a section ## [1.0.0], or __version__ is to end in .dev0",
        ),
        ("1.0.0", "## [Unreleased]\n## [1.0.0]", "## [1.0.0] is to have its date: ## [1.0.0] - 2001-12-31"),
        (
            "1.0.0.dev0",
            "## [Unreleased]\n## [1.0.0] - 2001-12-31",
            "1.0.0 is released; __version__ is to be a later one's .dev0",
        ),
        (
            "1.1.0.dev0",
            "## [Unreleased]\n## [0.9.0] - 2001-12-31\n## [1.0.0] - 2001-12-31",
            "the newest section is to be the first, and each is to be there once",
        ),
    ],
)
def test_a_changelog_that_is_not_of_this_version_is_seen(version: str, headings: str, problem: str) -> None:
    assert problem in list(judge(Version(version), headings))


@pytest.mark.parametrize(
    ("version", "headings"),
    [
        ("0.1.0.dev0", "## [Unreleased]"),
        ("1.0.0", "## [Unreleased]\n## [1.0.0] - 2001-12-31"),
        ("1.0.1.dev0", "## [Unreleased]\n## [1.0.0] - 2001-12-31\n## [0.9.0] - 2001-12-30"),
    ],
)
def test_a_changelog_as_it_is_to_be(version: str, headings: str) -> None:
    assert list(judge(Version(version), headings)) == []


def test_the_changelog_is_of_this_version() -> None:
    assert list(judge(Version(__version__), CHANGELOG)) == []


def test_the_version_is_one_that_an_index_takes() -> None:
    assert str(Version(__version__)) == __version__


def test_the_build_takes_it_from_there() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in settings["project"]["dynamic"]
    assert settings["tool"]["hatch"]["version"] == {"path": "proxy/bearerd/__init__.py"}


@pytest.mark.parametrize(
    "text",
    [
        "bearerd, version 1.2.3",
        "bearerd 1.2.3 on 127.0.0.1",
        "`bearerd` 1.2.3",
        "Server: bearerd/1.2.3",
        "pip install bearerd==1.2.3.dev0",
        "image: ghcr.example.com/bearerd:v1.2.3",
        "bearerd-1.2.3-py3-none-any.whl",
        'LABEL org.opencontainers.image.version="1.2.3"',
    ],
)
def test_versions_are_found_however_they_are_written(text: str) -> None:
    (found,) = find_versions(text)
    assert found.startswith("1.2.3")


def test_an_address_is_no_version() -> None:
    assert find_versions("bearerd 127.0.0.1, bearerd=10.0.0.1:6750, Python 3.11.7") == []


@pytest.mark.parametrize(
    "path",
    [
        *(PROJECT / name for name in ("pyproject.toml", "Makefile", "README.md", "SECURITY.md")),
        *(page for page in sorted((PROJECT / "docs").rglob("*.*")) if page.name not in RECORDS),
        *sorted(file for folder in ("docker", "config", ".ci") for file in (PROJECT / folder).rglob("*.*")),
        PROJECT / "docker" / "Dockerfile",
    ],
    ids=lambda path: path.relative_to(PROJECT).as_posix(),
)
def test_nothing_else_names_one(path: Path) -> None:
    """It would be wrong after the next release: write `bearerd --version`, or take it from there."""
    assert find_versions(path.read_text(encoding="utf-8", errors="replace")) == []
