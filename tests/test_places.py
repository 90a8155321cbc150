"""Which file is read, and that whoever asks for it is told the same."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from bearerd.control.rendezvous import find_origin
from bearerd.errors import ConfigError
from bearerd.places import default_path, find_file
from bearerd.settings import load

TEXT = '[accounts.work]\ntoken = "t"\n[routes."/"]\nupstream = "https://api.example.com"\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a default file and two others, in the working folder."""
    for name in ("HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    default_path().parent.mkdir(parents=True)
    for file in (default_path(), Path("a.toml"), Path("b.toml")):
        file.write_text(TEXT)
    return tmp_path


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("path", "environ", "expected"),
    [
        (None, {}, None),
        (Path("a.toml"), {}, Path("a.toml")),
        (None, {"BEARERD_CONFIG": "b.toml"}, Path("b.toml")),
        (None, {"bearerd_config": "b.toml"}, Path("b.toml")),
        (Path("a.toml"), {"BEARERD_CONFIG": "b.toml"}, Path("a.toml")),
    ],
)
def test_what_is_named_or_the_default_one(
    path: Path | None, environ: Mapping[str, str], expected: Path | None
) -> None:
    expected = expected or default_path()
    assert find_file(path, environ) == expected
    assert load(path, {}, environ).path == expected
    assert find_origin(path, environ).file == str(expected.resolve())


def test_a_variable_that_is_empty_names_no_file_and_not_the_default_one(home: Path) -> None:
    """It is a mistake, such as a shell variable that was not set; whose daemon is asked must not hide it."""
    assert find_file(None, {"BEARERD_CONFIG": ""}) == Path()
    with pytest.raises(ConfigError):
        load(None, {}, {"BEARERD_CONFIG": ""})
    assert find_origin(None, {"BEARERD_CONFIG": ""}).file == str(home.resolve())


@pytest.mark.usefixtures("home")
def test_only_the_default_one_may_be_absent() -> None:
    default_path().unlink()
    assert find_file(None, {}) is None
    assert find_origin(None, {}).file is None
    assert find_file(Path("absent"), {}) == Path("absent")
