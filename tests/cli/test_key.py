"""`bearerd key`: keys are made, listed and revoked; and nothing is half done."""

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bearerd.cli import main
from bearerd.core.client_keys import digest_of
from bearerd.stores.client_keys import ClientKeyFile
from callers import connected
from commands import run
from daemons import RunningDaemon
from faults import FaultServer, reply, serve

HI = reply(b"hi")
ROUTES = """\
[accounts.work]
token = "canary"
[accounts.hub]
token = "canary"
[routes."/"]
upstream = "http://127.0.0.1:9"
account = "work"
[routes."/github/"]
upstream = "http://127.0.0.1:9"
account = "hub"
"""


class Setup:
    """A configuration whose keys are in `file`."""

    def __init__(self, home: Path) -> None:
        self.path = home / "client-keys.json"
        self.file = ClientKeyFile(self.path)
        self._toml = home / "bearerd.toml"
        self.configure('use = "required"\n')
        ours: dict[str, str | None] = {name: None for name in os.environ if name.startswith("BEARERD_")}
        self._runner = CliRunner(env=ours | {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")})

    def configure(self, keys: str) -> None:
        self.toml = f'[keys]\nfile = "client-keys.json"\n{keys}{ROUTES}'
        self._toml.write_text(self.toml)
        self._toml.chmod(0o600)

    def key(self, *words: str) -> Result:
        return self._runner.invoke(main, ["key", *words, "-c", str(self._toml)])

    def names(self) -> list[str]:
        return [key.name for key in self.file.load()]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


class TestFaults:
    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (["create"], "Missing argument 'NAME'"),
            (["create", "a b"], "is not a name for a key"),
            (["create", "../x"], "is not a name for a key"),
            (["create", "new", "--route", "/nowhere"], "there is no route /nowhere; there is /github, /"),
            (["create", "new", "--account", "me"], "there is no account me; there is work, hub"),
            (["create", "new", "--method", "get"], "'get' is not a method"),
            (["create", "laptop"], "there is a key called laptop already"),
            (["revoke", "new"], "there is no key new; there is laptop"),
        ],
    )
    def test_a_mistake_changes_nothing(self, setup: Setup, words: list[str], text: str) -> None:
        assert setup.key("create", "laptop").exit_code == 0
        before = setup.path.read_bytes()
        result = setup.key(*words)
        assert result.exit_code == 2
        assert text in re.sub(r"\s+", " ", result.output)
        assert "bearerd_" not in result.output
        assert setup.path.read_bytes() == before

    def test_a_damaged_file_is_left_alone(self, setup: Setup) -> None:
        setup.path.write_text("{")
        setup.path.chmod(0o600)
        for words in (["create", "new"], ["revoke", "new"], ["list"]):
            result = setup.key(*words)
            assert result.exit_code == 1
            assert result.stdout == ""
            assert "is not JSON" in result.stderr
        assert setup.path.read_text() == "{"


class TestKey:
    def test_a_key_is_printed_once_and_kept_as_a_hash(self, setup: Setup) -> None:
        result = setup.key("create", "laptop")
        assert result.exit_code == 0
        key = result.stdout.removesuffix("\n")
        assert re.fullmatch("bearerd_[0-9a-f]{64}", key)
        assert key not in result.stderr
        assert key not in setup.path.read_text()
        (kept,) = setup.file.load()
        assert (kept.name, kept.digest, kept.limited) == ("laptop", digest_of(key.encode()), False)

    def test_no_two_are_alike(self, setup: Setup) -> None:
        assert len({setup.key("create", f"k{n}").stdout for n in range(5)}) == 5

    def test_limits(self, setup: Setup) -> None:
        words = [
            "--route",
            "/github/",
            "--route",
            "/",
            "--method",
            "GET",
            "--method",
            "HEAD",
            "--account",
            "hub",
        ]
        assert setup.key("create", "ci", *words).exit_code == 0
        (kept,) = setup.file.load()
        assert kept.routes == {"/github", "/"}
        assert kept.methods == {"GET", "HEAD"}
        assert kept.accounts == {"hub"}

    def test_what_is_left_to_do_is_said(self, setup: Setup) -> None:
        assert "no key is asked for yet" not in setup.key("create", "a").stderr
        setup.configure("")
        assert 'write use = "required" under [keys]' in setup.key("create", "b").stderr

    def test_a_list_for_people_and_one_for_programs(self, setup: Setup) -> None:
        empty = setup.key("list")
        assert empty.stdout == ""
        assert "bearerd key create" in empty.stderr
        made = [setup.key("create", "laptop").stdout, setup.key("create", "ci", "--route", "/github").stdout]
        shown = setup.key("list").stdout
        when = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
        assert re.fullmatch(rf"laptop  since {when}  no limits\nci  since {when}  routes /github\n", shown)
        document = json.loads(setup.key("list", "--json").stdout)
        assert document["format_version"] == 1
        assert [key["name"] for key in document["keys"]] == ["laptop", "ci"]
        assert document["keys"][1]["routes"] == ["/github"]
        assert document["keys"][1]["methods"] is None
        assert re.fullmatch(when, document["keys"][0]["created"]["rfc3339"])
        for text in made:
            assert text.strip() not in shown + json.dumps(document)

    def test_a_key_is_revoked_by_its_name(self, setup: Setup) -> None:
        for name in ("a", "b"):
            setup.key("create", name)
        result = setup.key("revoke", "a")
        assert result.exit_code == 0
        assert f"revoked a in {setup.path}" in result.stderr
        assert setup.names() == ["b"]
        assert setup.key("create", "a").exit_code == 0
        assert setup.names() == ["b", "a"]


async def test_a_daemon_in_a_process_of_its_own(tmp_path: Path) -> None:
    """A key is made, used, shown by name in the access log and revoked, by another process and with no restart."""
    async with FaultServer([serve(HI)]) as server:
        toml = f"""
            [keys]
            use = "optional"
            file = "keys.json"
            [accounts.work]
            token = "the-token"
            [routes."/"]
            upstream = "{server.url}"
            """
        async with RunningDaemon(tmp_path, toml) as daemon, connected(daemon) as client:
            made = await bearerd(tmp_path, "create", "laptop", "--method", "GET")
            key = made.removesuffix("\n")
            assert re.fullmatch(r"bearerd_[0-9a-f]{64}", key)
            fields = (f"Authorization: Bearer {key}", f"X-Api-Key: {key}")
            client.write("GET /a HTTP/1.1", *fields)
            await client.exactly(HI)
            client.write("POST /b HTTP/1.1", *fields)
            assert (await client.problem())[1]["code"] == "key_limited"
            client.write(f"GET /{key} HTTP/1.1", *fields)
            assert (await client.problem())[1]["code"] == "key_in_target"
            await bearerd(tmp_path, "revoke", "laptop")
            client.write("GET /c HTTP/1.1", *fields)
            assert (await client.problem())[1]["code"] == "key_refused"
        assert [b"bearerd_" in request for request in server.requests] == [False]
    events = [json.loads(line) for line in daemon.log.splitlines() if line.startswith("{")]
    (line,) = (event for event in events if event["event"] == "request.forwarded")
    assert (line["path"], line["status"], line["key"]) == ("/a", 200, "laptop")
    refused = [
        (event["problem"], event.get("key")) for event in events if event["event"] == "request.refused"
    ]
    assert refused == [("key_limited", "laptop"), ("key_in_target", "laptop"), ("key_refused", None)]
    assert key not in daemon.log
    assert digest_of(key.encode()).hex() not in daemon.log


async def bearerd(folder: Path, *words: str) -> str:
    ended = await run("key", *words, "-c", folder / "bearerd.toml")
    assert ended.status == 0, ended.err
    return ended.out


async def test_status_by_the_port_says_that_it_has_no_key(tmp_path: Path) -> None:
    subject = Setup(tmp_path)
    assert subject.key("create", "laptop").exit_code == 0
    async with RunningDaemon(tmp_path, subject.toml) as daemon:
        ended = await run("status", "--port", str(daemon.port))
        assert (ended.status, ended.out) == (1, "")
        assert ended.err == (
            f"bearerd: the bearerd on port {daemon.port} wants a client key; ask as its user, without --port\n"
        )
        asked = await run("status", "-c", tmp_path / "bearerd.toml")
        assert "work" in asked.out, asked.err
