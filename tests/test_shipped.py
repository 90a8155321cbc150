"""What comes with bearerd beside its code is found where it was installed, and where it is written."""

import tomllib
from pathlib import Path

import pytest

from bearerd.errors import BearerdError
from bearerd.shipped import SOURCES, find_shipped

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a project, with nothing in either."""
    folder = tmp_path / "proxy" / "bearerd"
    folder.mkdir(parents=True)
    return folder


def test_an_installation_that_lacks_it_says_so(package: Path) -> None:
    with pytest.raises(BearerdError) as caught:
        find_shipped("units", package)
    assert str(caught.value) == f"{package / 'units'} is missing; install bearerd again"


def test_what_was_installed_comes_before_what_is_beside_it(package: Path) -> None:
    """Which may be anybody's: `config` is not a rare name."""
    written = package.parent.parent / SOURCES["units"]
    written.mkdir(parents=True)
    assert find_shipped("units", package) == written
    (package / "units").mkdir()
    assert find_shipped("units", package) == package / "units"


@pytest.mark.parametrize("name", SOURCES)
def test_the_project_has_it(name: str) -> None:
    assert find_shipped(name) == PROJECT / SOURCES[name]


def test_what_is_built_has_all_of_it() -> None:
    """Under the names by which it is asked for."""
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    forced = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert forced == {source: f"bearerd/{name}" for name, source in SOURCES.items()}
