"""`bearerd reload`: what it says of each daemon, and how it ends."""

import os
from pathlib import Path

import pytest

from bearerd.cli.reload import describe
from commands import run
from daemons import RunningDaemon

STATIC = """
[accounts.work]
token = "the-static-token"
[routes."/"]
upstream = "http://127.0.0.1:9"
"""
MORE = """
[accounts.more]
token = "another-token"
[routes."/more/"]
upstream = "http://10.0.0.1:9"
account = "more"
"""
BAD = """
[routes."/more/"]
upstream = "http://127.0.0.1:9"
account = "wrok"
[limits]
connections = 0
"""


async def test_what_has_changed_and_what_is_not_wise(tmp_path: Path) -> None:
    async with RunningDaemon(tmp_path, STATIC) as daemon:
        daemon.configure(STATIC.replace(":9", ":10").replace("upstream", 'account = "work"\nupstream') + MORE)
        ended = await run("reload", "-c", daemon.file)
        assert ended.status == 0
        assert ended.out == ""
        said = (
            f'the daemon {daemon.pid} has reloaded: added accounts.more, routes."/more"; changed routes."/"'
        )
        warning, *_ = [line for line in ended.err.splitlines() if "warning" in line]
        assert ended.err.splitlines()[0] == f"bearerd: {said}"
        assert 'routes."/more".upstream: is plain http to another machine' in warning
        ended = await run("reload", "-c", daemon.file)
        assert "nothing has changed" in ended.err


async def test_a_bad_one_is_told_as_elsewhere_and_changes_nothing(tmp_path: Path) -> None:
    async with RunningDaemon(tmp_path, STATIC) as daemon:
        daemon.configure(STATIC + BAD)
        ended = await run("reload", "-c", daemon.file)
        checked = await run("config", "check", "-c", daemon.file)
        assert ended.status == checked.status == 78
        first, *problems = ended.err.splitlines()
        assert first == f"bearerd: the daemon {daemon.pid} goes on with the configuration it has:"
        assert problems == checked.err.splitlines()
        status = await run("status", "-c", daemon.file)
        assert "more" not in status.out


async def test_a_link_that_leads_elsewhere_now(tmp_path: Path) -> None:
    """As in a volume of Kubernetes. What is asked for afterwards is found by the new file, too."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "link"
    link.symlink_to("one")
    async with RunningDaemon(link, STATIC) as daemon:
        other = tmp_path / "two" / "bearerd.toml"
        other.write_text(
            (tmp_path / "one" / "bearerd.toml").read_text().replace("upstream", 'account = "work"\nupstream')
            + MORE
        )
        link.unlink()
        link.symlink_to("two")
        ended = await run("reload", "-c", daemon.file)
        assert ended.status == 0, ended.err
        assert "added accounts.more" in ended.err
        status = await run("status", "-c", daemon.file)
        assert "more" in status.out


async def test_where_no_daemon_serves_the_file(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.toml"
    file.write_text(STATIC)
    async with RunningDaemon(tmp_path, STATIC):
        ended = await run("reload", "-c", file)
    assert ended.status == 1
    assert ended.err == (
        f"bearerd: no running bearerd serves {file}; see those that run with: bearerd status; "
        "start one with: bearerd run\n"
    )


async def test_a_folder_of_sockets_that_cannot_be_used(tmp_path: Path, runtime: Path) -> None:
    (runtime / "bearerd").symlink_to(tmp_path)
    ended = await run("reload")
    assert ended.status == 1
    assert "serves this configuration; running daemons are not asked: " in ended.err


async def test_the_environment_of_the_start_stays_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's upstream is not asked for, before and after."""
    monkeypatch.setenv("BEARERD_UPSTREAM", "http://127.0.0.1:7")
    async with RunningDaemon(tmp_path, STATIC) as daemon:
        monkeypatch.delenv("BEARERD_UPSTREAM")
        daemon.configure(STATIC.replace(":9", ":10") + "[limits]\nconnections = 9\n")
        ended = await run("reload", "-c", daemon.file)
        assert ended.err.endswith("has reloaded: changed limits.connections\n")
        status = await run("status", "--json", "-c", daemon.file)
        assert "http://127.0.0.1:7" in status.out
    assert os.environ.get("BEARERD_UPSTREAM") is None


def test_words_for_people() -> None:
    report = {
        "pid": 1,
        "problems": [],
        "added": ["a", "b"],
        "changed": [],
        "removed": ["c"],
        "warnings": ["w"],
    }
    assert list(describe(report)) == ["the daemon 1 has reloaded: added a, b; removed c", "warning: w"]
