"""`bearerd service` on a real file system, with a systemctl and a launchctl that write down what they are asked."""

import os
import plistlib
import shlex
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from bearerd.cli import main, service
from bearerd.errors import BearerdError, ConfigError, NotConfigured
from commands import write

CONFIG = '[accounts.a]\ntoken = "t"\n[routes."/"]\nupstream = "https://api.example.com"\n'
PROJECT = Path(__file__).parent.parent.parent


class Home:
    """A user's home folder, and the programs that there are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unit = folder / ".config" / "systemd" / "user" / "bearerd.service"
        self._asked = folder / "asked"
        self._programs = folder / "bin"
        self._programs.mkdir()

    def has(self, program: str, status: int = 0) -> None:
        file = self._programs / program
        file.write_text(f'#!/bin/sh\necho {program} "$@" >> {self._asked}\necho no bus >&2\nexit {status}\n')
        file.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self._asked.read_text().splitlines() if self._asked.exists() else []


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = Home(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return made


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / 'my "100%" $folder\\'
    folder.mkdir()
    return write(folder, CONFIG)


def invoke(*words: str | Path) -> Result:
    return CliRunner().invoke(service.command, [str(word) for word in words])


def refusal(*words: str | Path) -> str:
    problem = invoke(*words).exception
    assert isinstance(problem, BearerdError), problem
    return str(problem)


def starts(unit: str) -> list[str]:
    """The words of ExecStart=, as systemd reads them."""
    (line,) = (line for line in unit.splitlines() if line.startswith("ExecStart="))
    words = shlex.split(line.removeprefix("ExecStart="))
    return [word.replace("%%", "%").replace("$$", "$") for word in words]


def accepted(argv: list[str]) -> None:
    """By the command line itself, which is not run."""
    name, command, rest = main.resolve_command(click.Context(main), argv)
    assert name == "run"
    assert command is not None
    command.make_context(name, rest)


class TestFaults:
    def test_a_file_of_somebody_else_s_is_not_touched(self, home: Home, config: Path) -> None:
        home.has("systemctl")
        home.unit.parent.mkdir(parents=True)
        home.unit.write_text("[Service]\nExecStart=/my/own\n")
        for words in (("install", "-c", config), ("uninstall",)):
            assert refusal(*words) == (
                f"{home.unit} was not written by bearerd service install; move it away, or see what would be in its "
                "place with: bearerd service install --print"
            )
        assert home.unit.read_text() == "[Service]\nExecStart=/my/own\n"
        assert home.asked == []

    @pytest.mark.parametrize("kind", ["link", "folder", "bytes"])
    def test_nor_is_anything_else(self, home: Home, config: Path, kind: str) -> None:
        home.unit.parent.mkdir(parents=True)
        if kind == "link":
            home.unit.symlink_to("/dev/null")  # as systemd masks a unit
        elif kind == "folder":
            home.unit.mkdir()
        else:
            home.unit.write_bytes(b"\xff\xfe")
        assert "was not written by bearerd" in refusal("install", "-c", config)

    def test_without_a_configuration(self, home: Home) -> None:
        problem = invoke("install").exception
        assert isinstance(problem, NotConfigured)
        assert not home.unit.exists()

    def test_a_configuration_that_is_not_good(self, home: Home, tmp_path: Path) -> None:
        problem = invoke("install", "-c", write(tmp_path, "nonsense = 1")).exception
        assert isinstance(problem, ConfigError)
        assert not home.unit.exists()

    def test_one_that_is_good_by_this_shell_s_variables_alone(
        self, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BEARERD_UPSTREAM", "https://api.example.com")
        result = invoke("install", "-c", write(tmp_path, '[accounts.a]\ntoken = "t"\n'))
        assert isinstance(result.exception, ConfigError)
        assert "warning: the service does not have BEARERD_UPSTREAM; put it into the file" in result.output
        assert not home.unit.exists()

    def test_without_systemctl_the_commands_are_told(self, home: Home, config: Path) -> None:
        assert refusal("install", "-c", config) == (
            "it is not started: systemctl is not there; in your session do: systemctl --user daemon-reload && "
            "systemctl --user enable bearerd.service && systemctl --user restart bearerd.service"
        )
        assert home.unit.exists()

    def test_a_systemctl_that_fails(self, home: Home, config: Path) -> None:
        home.has("systemctl", status=1)
        result = invoke("install", "-c", config)
        assert "systemctl: no bus\n" in result.output
        assert str(result.exception).startswith(
            "it is not started: systemctl did not do it; in your session do: systemctl --user daemon-reload && "
        )
        assert refusal("uninstall").startswith(
            "systemctl did not do it; in your session do: systemctl --user disable"
        )
        assert not home.unit.exists()

    def test_one_that_cannot_be_run(self, home: Home, config: Path) -> None:
        home.has("systemctl")
        program = home.folder / "bin" / "systemctl"
        program.write_text("#!/nowhere/sh\n")
        assert "systemctl did not do it; in your session do: " in refusal("install", "-c", config)
        assert refusal("status") == "systemctl did not answer; ask bearerd itself: bearerd status"

    def test_one_that_does_not_end(self) -> None:
        assert service._run(("sleep", "60"), 0.2) is None

    def test_a_folder_that_cannot_be_written_to(self, home: Home, config: Path) -> None:
        (home.folder / ".config").write_text("a file")
        assert "cannot be written: not a directory; mend that, or write it by hand" in refusal(
            "install", "-c", config
        )

    @pytest.mark.parametrize("word", ["/a\nExecStartPre=/bin/evil", "/a\x1b[0m"])
    def test_a_path_that_a_unit_cannot_have(self, word: str) -> None:
        with pytest.raises(BearerdError, match="a unit cannot have; move it to another path"):
            service.Systemd().build(["/bin/true", word])

    def test_a_service_that_does_not_run(self, home: Home, config: Path) -> None:
        assert refusal("status") == "there is no such service; make one with: bearerd service install"
        home.has("systemctl")
        invoke("install", "-c", config)
        home.has("systemctl", status=3)
        assert refusal("status") == "it does not run; start it with: bearerd service install"


class TestSystemd:
    def test_it_starts_this_bearerd_with_this_configuration(self, home: Home, config: Path) -> None:
        home.has("systemctl")
        result = invoke("install", "-c", config)
        assert result.exit_code == 0, result.output
        argv = starts(home.unit.read_text())
        assert argv == [sys.executable, "-P", "-m", "bearerd", "run", "-c", str(config)]
        accepted(argv[4:])
        assert home.asked == [
            "systemctl --user daemon-reload",
            "systemctl --user enable bearerd.service",
            "systemctl --user restart bearerd.service",
        ]
        assert home.unit.stat().st_mode & 0o777 == 0o644
        assert list(home.unit.parent.iterdir()) == [home.unit]

    def test_the_rest_is_the_unit_that_is_there_to_copy(self, home: Home, config: Path) -> None:
        home.has("systemctl")
        invoke("install", "-c", config)
        copied = (PROJECT / "config" / "systemd" / "user" / "bearerd.service").read_text()
        ours = [line for line in home.unit.read_text().splitlines() if not line.startswith("Exec")]
        theirs = [
            line for line in copied[copied.index("[Unit]") :].splitlines() if not line.startswith("Exec")
        ]
        assert ours[2:] == theirs

    def test_it_is_reloaded_as_it_is_started(self, home: Home, config: Path) -> None:
        home.has("systemctl")
        invoke("install", "-c", config)
        text = home.unit.read_text()
        start = starts(text)
        reload = starts(text.replace("ExecStart=", "Start=").replace("ExecReload=", "ExecStart="))
        assert reload == [*start[:4], "reload", *start[5:]]
        assert start[4] == "run"

    def test_shown_and_not_written(self, home: Home, config: Path) -> None:
        home.has("systemctl")
        shown = invoke("install", "-c", config, "--print")
        assert not home.unit.exists()
        assert home.asked == []
        invoke("install", "-c", config)
        assert shown.stdout == home.unit.read_text()

    def test_again_is_anew(self, home: Home, config: Path, tmp_path: Path) -> None:
        home.has("systemctl")
        invoke("install", "-c", config)
        other = write(tmp_path, CONFIG)
        assert invoke("install", "-c", other).exit_code == 0
        assert starts(home.unit.read_text())[-1] == str(other)

    def test_the_configuration_that_would_be_read_is_the_service_s(
        self, home: Home, config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        home.has("systemctl")
        monkeypatch.chdir(config.parent)
        monkeypatch.setenv("BEARERD_CONFIG", "bearerd.toml")
        result = invoke("install")
        assert "warning" not in result.output
        assert starts(home.unit.read_text())[-1] == str(config)

    def test_uninstalled_it_leaves_no_trace(self, home: Home, config: Path) -> None:
        before = {path for path in home.folder.rglob("*") if home.unit.parents[2] not in path.parents}
        home.has("systemctl")
        invoke("install", "-c", config)
        wanted = home.unit.parent / "default.target.wants" / "bearerd.service"
        wanted.parent.mkdir()
        wanted.symlink_to(home.unit)
        assert invoke("uninstall").exit_code == 0
        left = set(home.folder.rglob("*")) - before
        assert {path.name for path in left} <= {"asked", "systemctl", ".config"}
        assert home.asked[3:] == [
            "systemctl --user disable --now bearerd.service",
            "systemctl --user daemon-reload",
        ]
        assert "nothing to do" in invoke("uninstall").output

    def test_other_services_stay(self, home: Home, config: Path) -> None:
        home.has("systemctl")
        invoke("install", "-c", config)
        (home.unit.parent / "other.service").write_text("")
        invoke("uninstall")
        assert [path.name for path in home.unit.parent.iterdir()] == ["other.service"]

    def test_status_is_systemctl_s(self, home: Home, config: Path) -> None:
        home.has("systemctl")
        invoke("install", "-c", config)
        assert invoke("status").exit_code == 0
        assert home.asked[-1] == "systemctl --user --no-pager status bearerd.service"

    def test_a_folder_for_settings_elsewhere(
        self, home: Home, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
        home.has("systemctl")
        invoke("install", "-c", config)
        assert (tmp_path / "elsewhere" / "systemd" / "user" / "bearerd.service").exists()


class TestLaunchd:
    @pytest.fixture(autouse=True)
    def mac(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "platform", "darwin")

    def test_it_starts_this_bearerd_with_this_configuration(self, home: Home, config: Path) -> None:
        home.has("launchctl")
        assert invoke("install", "-c", config).exit_code == 0
        file = home.folder / "Library" / "LaunchAgents" / "bearerd.plist"
        told = plistlib.loads(file.read_bytes())
        assert told["ProgramArguments"] == [sys.executable, "-P", "-m", "bearerd", "run", "-c", str(config)]
        session = f"gui/{os.getuid()}"
        assert home.asked == [
            f"launchctl bootout {session}/bearerd",
            f"launchctl bootstrap {session} {file}",
        ]
        assert invoke("install", "-c", config).exit_code == 0, "it is its own"
        assert invoke("status").exit_code == 0
        assert invoke("uninstall").exit_code == 0
        assert not file.exists()
        assert home.asked[-2:] == [
            f"launchctl print {session}/bearerd",
            f"launchctl bootout {session}/bearerd",
        ]

    def test_the_one_that_is_there_to_copy_says_the_same(self) -> None:
        copied = plistlib.loads((PROJECT / "config" / "launchd" / "bearerd.plist").read_bytes())
        ours = plistlib.loads(service.Launchd().build(["x"]))
        accepted(copied["ProgramArguments"][1:])
        for each in (copied, ours):
            del each["ProgramArguments"], each["StandardErrorPath"]
        assert copied == ours


def test_windows_is_told_what_it_has(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    del home
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(BearerdError, match="schtasks /Create"):
        service.find_manager()


def test_the_group_is_one_of_the_commands() -> None:
    assert isinstance(main.get_command(click.Context(main), "service"), click.Group)
