"""What is released: a wheel and the source, what is in them, and that they install and run where there is no index."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from packaging.metadata import Metadata
from packaging.utils import canonicalize_name

from bearerd import __version__
from bearerd.shipped import SOURCES
from distributions import DAEMON, DEMO, PROJECT, WHEELS, Built, Home, Installation, build, started

ROOT: Final = f"bearerd-{__version__}"
PACKAGE: Final = PROJECT / "proxy" / "bearerd"
TIED: Final = frozenset({"pydantic_core"})
"""What something else asks for in one version alone."""

MANUAL: Final = {"bearerd.1": "man1", "bearerd.toml.5": "man5"}
LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\([^()]*\)")
_TARGET: Final = re.compile(r"\]\(([^()\s]+)")
_IN_TAGS: Final = re.compile(r"\b(?:src|srcset|href)\s*=\s*[\"']?([^\"'>\s]+)")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Of the project as it stands here."""
    folder = tmp_path_factory.mktemp("dist")
    return build(Home(folder, folder), PROJECT, folder / "built")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """The path of a socket may not be long: so the runtime folder has a short name."""
    with tempfile.TemporaryDirectory(prefix="run-") as runtime:
        yield Home(tmp_path, Path(runtime))


def contents_of_wheel(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def contents_of_source(source: Path) -> dict[str, bytes]:
    """By their names below its one folder."""
    return {name.removeprefix(f"{ROOT}/"): content for name, _, content in members_of_source(source)}


def members_of_source(source: Path) -> Iterator[tuple[str, int, bytes]]:
    """The name, the mode and the content of each: there is nothing but files."""
    with tarfile.open(source) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None, f"{member.name} is no file"
            yield member.name, member.mode, file.read()


def unpack(source: Path, folder: Path) -> Path:
    """The one folder that is in it."""
    for name, mode, content in members_of_source(source):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
    return folder / ROOT


def files_of_git() -> set[str]:
    """What belongs to the project, and what is about to."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in listed.stdout.split("\0") if name and (PROJECT / name).exists()}


def files_below(path: Path) -> Iterator[Path]:
    """Those that Python has not made."""
    paths = path.rglob("*") if path.is_dir() else [path]
    return (file for file in paths if file.is_file() and "__pycache__" not in file.parts)


def files_of_the_wheel() -> dict[str, Path]:
    """What is in it as it is written, by its names there."""
    info, shared = f"{ROOT}.dist-info", f"{ROOT}.data/data/share/man"
    files = {f"bearerd/{file.relative_to(PACKAGE).as_posix()}": file for file in files_below(PACKAGE)}
    for name, source in SOURCES.items():
        place = PROJECT / source
        for file in files_below(place):
            files[f"bearerd/{name}/{file.name}" if place.is_dir() else f"bearerd/{name}"] = file
    files |= {f"{shared}/{section}/{name}": PROJECT / "docs/man" / name for name, section in MANUAL.items()}
    return files | {f"{info}/licenses/LICENSE": PROJECT / "LICENSE"}


def metadata_of(built: Built) -> bytes:
    return contents_of_wheel(built.wheel)[f"{ROOT}.dist-info/METADATA"]


# ---------------------------------------------------------------- what is in them


def test_the_wheel_has_what_bearerd_needs_to_run_and_nothing_else(built: Built) -> None:
    found, expected = contents_of_wheel(built.wheel), files_of_the_wheel()
    made = {f"{ROOT}.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")}
    assert set(found) == set(expected) | made
    assert [name for name, file in expected.items() if found[name] != file.read_bytes()] == []
    assert {"bearerd/py.typed", "bearerd/providers/oidc.toml", "bearerd/units/bearerd.service"} <= set(found)
    assert built.wheel.name == f"{ROOT}-py3-none-any.whl"


@pytest.mark.skipif(
    not (PROJECT / ".git").exists(), reason="only a checkout knows what belongs to the project"
)
def test_the_source_is_all_that_git_has(built: Built) -> None:
    """So it can be built and tested by whoever has nothing else. A new folder is added in pyproject.toml."""
    assert set(contents_of_source(built.source)) == files_of_git() | {"PKG-INFO"}


def test_the_source_says_of_itself_what_the_wheel_does(built: Built) -> None:
    assert contents_of_source(built.source)["PKG-INFO"] == metadata_of(built)


def test_the_metadata_are_such_as_an_index_takes(built: Built) -> None:
    found = Metadata.from_email(metadata_of(built), validate=True)
    assert (found.name, str(found.version)) == ("bearerd", __version__)
    assert (found.license_expression, found.license_files) == ("Apache-2.0", ["LICENSE"])
    assert str(found.requires_python) == ">=3.11"
    assert found.provides_extra == ["otel", "qr"]
    assert found.description_content_type == "text/markdown"


def imports_of(source: str) -> Iterator[str]:
    """The packages and modules, without what is below them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_what_is_imported_is_asked_for(built: Built) -> None:
    """And does not only come with something else, which may leave it out one day."""
    wanted = Metadata.from_email(metadata_of(built), validate=True).requires_dist or []
    declared = {canonicalize_name(requirement.name) for requirement in wanted}
    found = {name for file in PACKAGE.rglob("*.py") for name in imports_of(file.read_text(encoding="utf-8"))}
    having = packages_distributions()
    others = found - sys.stdlib_module_names - {"bearerd"} - TIED
    assert {"aiohttp", "uvloop", "segno", "requests"} <= others
    assert {n for n in others if not declared & {canonicalize_name(d) for d in having.get(n, ())}} == set()


# ---------------------------------------------------------------- the page that an index makes of the README


def targets(markdown: str) -> list[str]:
    return _TARGET.findall(markdown) + _IN_TAGS.findall(markdown)


def words(markdown: str) -> list[str]:
    """Without pictures, and of links only what is read."""
    text = LINK.sub(lambda link: "" if link[1] else link[2], markdown)
    return re.sub(r"<[^>]*>", "", text).split()


def test_links_are_found_however_they_are_written() -> None:
    text = '[a](b.md) [`[c]`](d.md#e "f") ![g](h.svg) [![i](j.png)](https://k.test/) <img alt="" src="l.png">'
    assert sorted(targets(text)) == ["b.md", "d.md#e", "h.svg", "https://k.test/", "j.png", "l.png"]
    assert words("a ![b](c) [`d`](e)\n<img src='f'>") == ["a", "`d`"]


def test_the_description_is_the_readme_without_links_to_what_is_not_there(built: Built) -> None:
    """An index shows the page alone: a link to a file beside it leads nowhere."""
    description = Metadata.from_email(metadata_of(built), validate=True).description
    assert description is not None
    assert [target for target in targets(description) if not target.startswith("https://")] == []
    assert words(description) == words((PROJECT / "README.md").read_text(encoding="utf-8"))


# ---------------------------------------------------------------- built again


def test_whoever_builds_them_again_has_the_same_to_the_byte(built: Built, home: Home) -> None:
    """From the source that is released, in another folder, at another time, for other eyes, in another time zone."""
    project = unpack(built.source, home.folder)
    for path in project.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    strict = ("sh", "-c", 'umask 077 && exec "$@"', "sh")
    again = build(home, project, home.folder / "again", *strict, TZ="Pacific/Kiritimati", PYTHONHASHSEED="1")
    assert again.wheel.read_bytes() == built.wheel.read_bytes()
    assert again.source.read_bytes() == built.source.read_bytes()


@pytest.mark.soak
def test_the_date_in_them_is_the_one_that_is_asked_for(home: Home) -> None:
    """As https://reproducible-builds.org/specs/source-date-epoch/ has it. Without the variable it is always the same one."""
    dated = build(home, PROJECT, home.folder / "dated", SOURCE_DATE_EPOCH="1700000000", TZ="America/Lima")
    with tarfile.open(dated.source) as archive:
        assert {member.mtime for member in archive} == {1_700_000_000}
    with zipfile.ZipFile(dated.wheel) as wheel:
        assert {member.date_time for member in wheel.infolist()} == {(2023, 11, 14, 22, 13, 20)}


# ---------------------------------------------------------------- installed


async def called(home: Home, *argv: str | Path) -> None:
    """A demo that is started by `argv` answers a call."""
    async with (
        started(home, DEMO, *argv) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/hello") as response,
    ):
        assert response.status == 200
        assert "token_fingerprint" in await response.json()


async def test_from_its_installation_to_its_removal(built: Built, home: Home) -> None:
    """By pip, in an empty environment, where there is no index and no checkout."""
    installed = Installation(home)
    installed.install(built.wheel)
    assert home.run(installed.program, "--version") == f"bearerd, version {__version__}\n"
    assert '"listen"' in home.run(installed.python, "-I", "-m", "bearerd", "config", "schema")
    assert (installed.folder / "share/man/man1/bearerd.1").exists()
    await called(home, installed.program, "run", "--or-demo", "--port", "0")

    installed.pip("uninstall", "--yes", "bearerd")
    home.has_nothing_of("bearerd")


@pytest.mark.soak
@pytest.mark.parametrize("options", ["-I", "-P", "-OO", "-X utf8=0", "-W error"])
async def test_python_may_be_told_how_to_run_it(options: str, built: Built, home: Home) -> None:
    """Without the user's own packages and variables, without assertions and docstrings, with warnings that are errors."""
    installed = Installation(home)
    installed.install(built.wheel)
    program: tuple[str | Path, ...] = (installed.python, *options.split(), "-m", "bearerd")
    assert home.run(*program, "--version") == f"bearerd, version {__version__}\n"
    await called(home, *program, "demo", "--port", "0")


@pytest.mark.soak
async def test_extras_bring_what_they_are_for(built: Built, home: Home) -> None:
    """Where one is missing bearerd says which, and what it says to do does it, though no index has bearerd."""
    config = home.folder / "traced.toml"
    config.write_text(
        '[listen]\nport = 0\n[accounts.work]\ntoken = "made-up"\n[routes."/"]\nupstream = "http://127.0.0.1:9"\n'
        '[log]\ntraces = true\ntraces_endpoint = "http://127.0.0.1:9/v1/traces"\n[store]\nkind = "memory"\n'
    )
    config.chmod(0o600)
    installed = Installation(home)
    installed.install(built.wheel)
    with pytest.raises(AssertionError, match=r"ended with 78[^$]*pip install 'bearerd\[otel\]'"):
        home.run(installed.program, "run", "-c", config)
    installed.install("bearerd[otel,qr]")
    installed.pip("check")
    async with started(home, DAEMON, installed.program, "run", "-c", config):
        pass
    home.run(installed.python, "-c", "from segno import make; make('https://login.example.com/device')")


@pytest.mark.soak
def test_a_wheel_that_pip_builds_from_the_source_is_the_one_that_is_released(
    built: Built, home: Home
) -> None:
    """With what the build needs in an environment of its own, as pip makes it for every source."""
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--find-links", WHEELS)
    home.run(*pip, "--wheel-dir", home.folder, built.source)
    assert (home.folder / built.wheel.name).read_bytes() == built.wheel.read_bytes()


def need(name: str) -> str:
    program = shutil.which(name)
    assert program is not None, f"{name} is not there and this test needs it: run make soak"
    return program


@pytest.mark.soak
async def test_pipx_installs_it_and_leaves_nothing_behind(built: Built, home: Home) -> None:
    pipx, bin_folder = need("pipx"), home.folder / ".local" / "bin"
    from_files = f"--pip-args=--no-index --find-links={WHEELS}"
    options = ("--backend", "pip", "--python", sys.executable, from_files)
    home.run(pipx, "install", *options, f"{built.wheel}[qr]")
    await called(home, bin_folder / "bearerd", "demo", "--port", "0")
    assert (home.folder / ".local/share/man/man1/bearerd.1").exists()
    home.run(pipx, "uninstall", "bearerd")
    home.has_nothing_of("bearerd")


@pytest.mark.soak
async def test_uv_installs_it_and_leaves_nothing_behind(built: Built, home: Home) -> None:
    uv, bin_folder = need("uv"), home.folder / ".local" / "bin"
    offline = ("--offline", "--no-index", "--no-config", "--find-links", WHEELS, "--python", sys.executable)
    home.run(uv, "tool", "install", *offline, built.wheel, UV_NO_CACHE="1")
    await called(home, bin_folder / "bearerd", "demo", "--port", "0")
    home.run(uv, "tool", "uninstall", "bearerd")
    home.has_nothing_of("bearerd")


@pytest.mark.soak
def test_the_source_has_what_its_tests_need(built: Built, home: Home) -> None:
    """All are found, and those pass that read the project's own files."""
    project = unpack(built.source, home.folder)
    tests = (sys.executable, "-m", "pytest", "-qq", "-p", "no:cacheprovider")
    alone = {"PYTHONPATH": str(project / "proxy")}
    home.run(*tests, "--collect-only", "-m", "", cwd=project, **alone)
    pages = ("docs", "pages", "shipped", "units", "version", "releasing", "providers", "dashboards", "events")
    home.run(*tests, *(f"tests/test_{name}.py" for name in pages), cwd=project, **alone)
