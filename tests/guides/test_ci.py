"""The guide for CI jobs: its script as a step would run it, with each way to get a token, and what ends it early."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

import canaries
from bearerd.assembly import SystemClock
from bearerd.core.accounts import CommandSource
from bearerd.core.lifecycle import Failure
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted
from bearerd.demo.authorization_server import Lifetimes
from bearerd.demo.world import Demo
from bearerd.settings import load
from bearerd.sources.command import CommandTokenSource
from faults import refused_port
from guides.guide import API, LOGIN, Guide, run_script, served

SECRET_FILE = "/run/secrets/ci"


@pytest.fixture
async def demo() -> AsyncIterator[Demo]:
    async with Demo.start(Lifetimes()) as running:
        yield running


@pytest.fixture
def guide(demo: Demo, home: Path) -> Guide:
    secret = home / "secret"
    secret.write_text(demo.client_secret.reveal() + "\n")
    places = {LOGIN: demo.issuer, API: demo.api_url, SECRET_FILE: str(secret)}
    return Guide(
        "ci", home, places | {"CLIENT_ID=ci": f"CLIENT_ID={demo.client_id}", '"ci"': f'"{demo.client_id}"'}
    )


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    free = refused_port()
    monkeypatch.setenv("BEARERD_LISTEN__PORT", str(free))
    return free


def read_job(guide: Guide, shown: str, real: str) -> str:
    """The script with another command in it, on a machine that may be slow."""
    return guide.block("job").put({shown: real, "timeout 30": "timeout 110"}).text


async def assert_free(port: int) -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientConnectionError):
            await http.get(f"http://127.0.0.1:{port}/-/livez")


async def test_the_job(guide: Guide, port: int) -> None:
    """Its command's calls succeed, and its status is that of the step, although the daemon ends after it."""
    job = read_job(guide, "$API_BASE_URL/hello", "$API_BASE_URL/hello; exit 7")
    ended = await run_script(f"set -e\n{guide.block('variables').text}\n{job}", guide.folder)
    assert ended.status == 7, ended.err
    assert '"token_fingerprint"' in ended.out
    assert "daemon.stopped" in ended.err
    await assert_free(port)


def test_the_file_says_what_the_variables_say(guide: Guide) -> None:
    variables = dict(re.findall(r"export (\w+)=(\S+)", guide.block("variables").text))
    file = guide.folder / "bearerd.toml"
    file.write_text(guide.block("file").text)
    by_file = load(file, {}, {}).configuration
    assert load(None, {}, variables).configuration == by_file
    assert "service" in by_file.accounts


async def test_a_secret_that_is_not_taken(guide: Guide) -> None:
    (guide.folder / "secret").write_text("another")
    ended = await run_script(f"{guide.block('variables').text}\nbearerd token service", guide.folder)
    assert (ended.status, ended.out) == (1, "")
    assert "the token endpoint says invalid_client" in ended.err


@pytest.mark.soak
async def test_a_secret_that_is_not_taken_ends_the_job_before_the_command(guide: Guide, port: int) -> None:
    (guide.folder / "secret").write_text("another")
    job = read_job(guide, "curl", "touch called; curl")
    ended = await run_script(f"{guide.block('variables').text}\n{job}", guide.folder)
    assert ended.status == 1
    assert not (guide.folder / "called").exists()
    await assert_free(port)


async def test_a_configuration_that_is_not_there_ends_the_job_at_once(guide: Guide) -> None:
    ended = await run_script(guide.block("job").text, guide.folder)
    assert ended.status == 78
    assert ended.err.startswith("bearerd: there is no configuration; ")
    assert "`there is no configuration`, status 78" in guide.page.read_text()


async def test_without_a_daemon(guide: Guide) -> None:
    ended = await run_script(guide.block("variables").text + guide.block("alone").text, guide.folder)
    assert (ended.status, ended.err) == (0, "")
    assert '"token_fingerprint"' in ended.out


def answer_with(document: object, seen: list[str]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """`seen` gets the credential, or the subject token in the form, of each request."""

    async def answer(request: web.Request) -> web.Response:
        form = await request.post()
        seen.append(str(form.get("subject_token", request.headers.get("Authorization"))))
        return web.json_response(document)

    return answer


async def obtain(guide: Guide, name: str) -> Granted | Failure:
    """What the command of the block's account gives."""
    file = guide.folder / "bearerd.toml"
    file.write_text(guide.block(name).text + '[routes."/"]\nupstream = "http://127.0.0.1:9"\n')
    source = load(file, {}, {}).configuration.accounts["service"].source
    assert isinstance(source, CommandSource)
    return await CommandTokenSource(source, SystemClock()).obtain(None)


async def test_the_identity_of_a_job_at_github(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token, seen = canaries.make("access"), list[str]()
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-the-job")
    async with served(answer_with({"count": 1, "value": token}, seen)) as free:
        address = f"http://127.0.0.1:{free}/token?api-version=2"
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", address)
        assert await obtain(Guide("ci", home, {}), "github") == Granted(Secret(token), None)
    assert seen == ["bearer of-the-job"]


async def test_a_token_that_is_exchanged(home: Path) -> None:
    token, seen = canaries.make("access"), list[str]()
    subject = home / "subject"
    subject.write_text("of-the-job")
    reply = {"access_token": token, "token_type": "Bearer", "expires_in": 300, "issued_token_type": "x"}
    async with served(answer_with(reply, seen)) as free:
        places = {LOGIN: f"http://127.0.0.1:{free}", "/var/run/secrets/tokens/ci": str(subject)}
        assert await obtain(Guide("ci", home, places), "exchange") == Granted(Secret(token), 300)
    assert seen == ["of-the-job"]
    failed = await obtain(Guide("ci", home, places), "exchange")
    assert isinstance(failed, Failure)
    shown = "`the command ended with status 1; run it by hand to see why`"
    assert shown.replace("1", "7", 1) == f"`{failed.reason}`"
    assert shown in Guide("ci", home, {}).page.read_text()
