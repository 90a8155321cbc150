"""The guide for laptops, from its first line to its last, with a browser in which somebody agrees to everything."""

from pathlib import Path

import pytest

from bearerd.settings import load
from blocks import find_block
from daemons import RunningDaemon
from guides.guide import API, GUIDES, HERE, LOGIN, Guide
from login_server import LoginServer
from upstreams import ApiUpstream, accept_any_of


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes where it is sent, and keeps cookies."""
    program, jar = tmp_path / "browser", tmp_path / "jar"
    program.write_text(f'#!/bin/sh\nexec curl -sL -b "{jar}" -c "{jar}" -o /dev/null "$1"\n')
    program.chmod(0o700)
    monkeypatch.setenv("BROWSER", str(program))


@pytest.mark.usefixtures("browser", "key_file")
async def test_from_its_first_line_to_its_last(home: Path) -> None:
    async with LoginServer() as server, ApiUpstream(accept_any_of(server.valid)) as api:
        places = {LOGIN: server.issuer, API: api.url}
        guide = Guide("laptop", home, places)
        await guide.follow("init")
        file = home / ".config" / "bearerd" / "bearerd.toml"
        async with RunningDaemon(file.parent, file.read_text()) as daemon:
            guide = Guide("laptop", home, places | {HERE: f"127.0.0.1:{daemon.port}"})
            await guide.follow("check")
            await guide.follow("login")
            await guide.follow("use")
            await guide.follow("exec")
            assert [call.raw_path for call in api.calls] == ["/hello"] * 2
            daemon.configure(guide.block("accounts").text)
            await guide.follow("both")
        assert api.calls[-1].raw_path == "/hello"
        assert len({tuple(call.values(b"authorization")) for call in api.calls}) == 2  # of two accounts
        assert (len(api.calls), api.unauthorized) == (3, 0)


def test_its_key_file_is_a_setting(tmp_path: Path) -> None:
    text = find_block(GUIDES / "laptop.md", "key file").text
    file = tmp_path / "bearerd.toml"
    file.write_text(
        text + '[accounts.work]\ntoken = "made-up"\n[routes."/"]\nupstream = "http://127.0.0.1:9"\n'
    )
    file.chmod(0o600)
    assert load(file, {}, {}).configuration.store.key_file == str(tmp_path / "vault.key")
