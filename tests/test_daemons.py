"""What daemons are run with says so where they do not run."""

from pathlib import Path

import pytest

from daemons import RunningDaemon

TOML = '[accounts.a]\ntoken = "ours"\n[routes."/"]\nupstream = "http://127.0.0.1:9"\n'


async def test_a_daemon_that_ends_at_once(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"ended with status 78\. It said:\n[^\x00]*no-such-table"):
        async with RunningDaemon(tmp_path, TOML + "[no-such-table]\n"):
            pass


async def test_a_daemon_that_listens(tmp_path: Path) -> None:
    async with RunningDaemon(tmp_path, TOML) as daemon:
        assert daemon.port > 0
    assert daemon.url in daemon.log
