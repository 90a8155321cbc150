"""The guide for token helpers: each format, with the program that reads it where that is here."""

import base64
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import jsonschema
import pytest
from aiohttp import web

import canaries
from bearerd.cli.token import HELPERS
from bearerd.core.token_formats import FORMS
from certificates import Authority
from commands import Ended
from daemons import RunningDaemon
from guides.guide import Guide, run_script, served
from recipes.git_server import GitServer
from upstreams import ApiUpstream, accept_any_of

ACCOUNT: Final = '[accounts.work]\ntoken = "{token}"\n[routes."/"]\nupstream = "http://127.0.0.1:9"\n'
SHOWN_API: Final = "https://api.example.com/v1"
# client.authentication.k8s.io/v1, what kubectl reads of it
EXEC_CREDENTIAL: Final = {
    "type": "object",
    "required": ["apiVersion", "kind", "status"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "client.authentication.k8s.io/v1"},
        "kind": {"const": "ExecCredential"},
        "status": {
            "type": "object",
            "required": ["token"],
            "additionalProperties": False,
            "properties": {
                "token": {"type": "string", "minLength": 1},
                "expirationTimestamp": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"},
            },
        },
    },
}


@pytest.fixture
def token() -> str:
    return canaries.make("access")


@pytest.fixture
async def guide(home: Path, token: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Guide]:
    """With a daemon that has the token."""
    async with RunningDaemon(home, ACCOUNT.format(token=token)) as daemon:
        monkeypatch.setenv("BEARERD_CONFIG", str(daemon.file))
        yield Guide("token-helper", home, {})


@pytest.fixture
async def api(token: str) -> AsyncIterator[ApiUpstream]:
    async with ApiUpstream(accept_any_of({token})) as running:
        yield running


async def test_shells(guide: Guide, api: ApiUpstream, token: str) -> None:
    raw, document = await guide.follow("formats")
    assert raw == f"{token}\n"
    assert json.loads(document)["access_token"] == token
    await Guide("token-helper", guide.folder, {SHOWN_API: api.url}).follow("curl")
    assert [(call.raw_path, call.authorized) for call in api.calls] == [("/hello", True)]
    script = f"{guide.block('scripts').text}\nexec sh -c 'printf %s \"$ACCESS_TOKEN\"'"
    assert (await run_script(script, guide.folder)).out == token


async def test_without_a_login(home: Path) -> None:
    """The status, and the words."""
    file = home / "bearerd.toml"
    file.write_text(f"""
[store]
key_file = "vault.key"
[accounts.work]
issuer = "https://login.example.com"
client_id = "c"
[routes."/"]
upstream = "{SHOWN_API}"
""")
    file.chmod(0o600)
    ended = await run_script("bearerd token work", home, BEARERD_CONFIG=str(file))
    said = ended.err.strip().removesuffix(f" -c {file}")
    assert (ended.status, ended.out) == (4, "")
    assert f"| `{said}`, status 4 |" in Guide("token-helper", home, {}).page.read_text()


@asynccontextmanager
async def cluster(token: str, folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """The address of an API server, as far as a version needs one, and its authority. It knows this token."""

    async def answer(request: web.Request) -> web.Response:
        good = request.headers.get("Authorization") == f"Bearer {token}"
        return web.json_response({"gitVersion": "v1"} if good else {}, status=200 if good else 401)

    authority = Authority(folder)
    async with served(answer, authority.server("127.0.0.1")) as port:
        yield f"https://127.0.0.1:{port}", authority.ca_file


async def test_kubectl(guide: Guide, token: str, tmp_path: Path) -> None:
    ended = await run_script("bearerd token work --format k8s-exec", guide.folder)
    credential = json.loads(ended.out)
    jsonschema.validate(credential, EXEC_CREDENTIAL)
    assert credential["status"]["token"] == token
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl here; the form is good")
    async with cluster(token, tmp_path) as (url, authority):
        file = guide.folder / "kubeconfig"
        server = json.dumps({"server": url, "certificate-authority": str(authority)})
        file.write_text(
            "apiVersion: v1\nkind: Config\ncurrent-context: work\n"
            "contexts: [{name: work, context: {cluster: work, user: work}}]\n"
            f"clusters: [{{name: work, cluster: {server}}}]\n{guide.block('kubectl').text}"
        )
        ended = await run_script("kubectl --kubeconfig kubeconfig get --raw /version", guide.folder)
        assert (ended.status, ended.out) == (0, '{"gitVersion": "v1"}'), ended.err


async def test_git(guide: Guide, token: str, tmp_path: Path) -> None:
    async with GitServer(accept_any_of({token}), tmp_path / "code") as server:
        shown = {"https://git.example.com": server.url, "team/project.git": "acme/greeting.git"}
        own = Guide("token-helper", guide.folder, shown | {"into 'project'": "into 'greeting'"})
        await own.follow("git", GIT_TERMINAL_PROMPT="0", GIT_CONFIG_NOSYSTEM="1")
        assert not server.calls[0].authorized, "git asks without a credential first"
    assert (guide.folder / "greeting" / "greeting.txt").read_text() == "Hello\n"


@asynccontextmanager
async def registry(seen: list[str]) -> AsyncIterator[str]:
    """Host and port of a registry without images. `seen` gets the user and the password of each request that has some."""

    async def answer(request: web.Request) -> web.Response:
        scheme, _, coded = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Basic":
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="images"'})
        seen.append(base64.b64decode(coded).decode())
        return web.json_response({}, status=404)

    async with served(answer) as port:
        yield f"127.0.0.1:{port}"


async def test_docker(guide: Guide, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper as docker speaks to it, an operation and something on standard input; and docker itself."""
    folder = guide.folder / "bin"
    folder.mkdir()
    program = folder / "docker-credential-bearerd"
    program.write_text(guide.block("docker-helper").text)
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    got = await run_script(f"printf https://images.example.com | {program.name} get", guide.folder)
    expected = {"ServerURL": "https://images.example.com", "Username": "oauth2accesstoken", "Secret": token}
    assert json.loads(got.out) == expected
    script = f"echo '{{}}' | {program.name} store && printf x | {program.name} erase"
    assert await run_script(script, guide.folder) == Ended(0, "", "")
    if not (await run_script("docker --version", guide.folder)).out.startswith("Docker version"):
        pytest.skip("there is no docker here; its protocol is kept")
    seen: list[str] = []
    async with registry(seen) as host:
        text = guide.block("docker-config").put({"registry.example.com": host}).text
        (guide.folder / ".docker").mkdir()
        (guide.folder / ".docker" / "config.json").write_text(text)
        await run_script(f"docker manifest inspect --insecure {host}/team/image:1", guide.folder)
    assert set(seen) == {f"oauth2accesstoken:{token}"}


def test_the_guide_has_all_formats() -> None:
    text = Guide("token-helper", Path(), {}).page.read_text().partition("## Formats")[2]
    assert set(re.findall(r"(?m)^\| `([a-z][a-z0-9-]+)`", text.partition("Standard output")[0])) == {
        *FORMS,
        *HELPERS,
    }
