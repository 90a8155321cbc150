"""Where clients have keys: what each page says of them is all that its client needs, and no key reaches a server."""

import re
from pathlib import Path

import pytest

import commands
from recipes.git_server import GitServer
from recipes.llm_api import LlmApi
from recipes.package_indexes import NpmRegistry, PythonIndex
from recipes.recipe import BEARERD, STATIC, TOKEN, Recipe, following
from recipes.state_server import StateServer
from recipes.test_git import SERVER as GIT
from recipes.test_git import WHO
from recipes.test_llm import GATEWAY
from recipes.test_packages import INDEX, ONLY, QUIET
from recipes.test_terraform import SERVER as STATE
from upstreams import ApiUpstream, accept_any_of

KEYS = '[keys]\nuse = "required"\nfile = "keys.json"\n'
SHOWN = re.compile(r"`([^`]*bearerd_…[^`]*)`")

pytestmark = pytest.mark.soak


@pytest.fixture
async def key(tmp_path: Path) -> str:
    """A client's, which the daemon of the test knows."""
    file = commands.write(tmp_path, STATIC + KEYS + '[routes."/"]\nupstream = "http://127.0.0.1:9"\n')
    made = await commands.run("key", "create", "client", "-c", file)
    assert made.status == 0, made.err
    return made.out.strip()


def shown(recipe: Recipe, key: str) -> list[str]:
    """What the page shows with a key in it, with this key and this daemon."""
    pieces = SHOWN.findall(recipe.page.read_text(encoding="utf-8"))
    port = recipe.daemon.port
    return [piece.replace("bearerd_…", key).replace(BEARERD, f"127.0.0.1:{port}") for piece in pieces]


def check(server: ApiUpstream, key: str) -> None:
    """It was called, with nothing of the key."""
    assert server.calls
    sent = b"".join(value for call in server.calls for _, value in call.raw_headers)
    assert key.encode() not in sent


async def test_pip(tmp_path: Path, here: Path, key: str) -> None:
    async with (
        PythonIndex(accept_any_of({TOKEN})) as index,
        following("packages", tmp_path, STATIC + KEYS, {INDEX: index.url}, "pypi.toml") as recipe,
    ):
        with pytest.raises(AssertionError, match="No matching distribution"):
            await recipe.run("pip", PIP_NO_INPUT="1", **ONLY)
        netrc = here.parent / ".netrc"
        netrc.write_text(shown(recipe, key)[0])
        netrc.chmod(0o600)
        await recipe.run("pip", **ONLY)
    check(index, key)


async def test_npm(tmp_path: Path, key: str) -> None:
    async with (
        NpmRegistry(accept_any_of({TOKEN})) as registry,
        following("packages", tmp_path, STATIC + KEYS, {INDEX: registry.url}, "npm.toml") as recipe,
    ):
        settings = recipe.write(".npmrc")
        with pytest.raises(AssertionError, match="E401"):
            await recipe.run("npm", **QUIET)
        settings.write_text(settings.read_text() + shown(recipe, key)[1] + "\n")
        await recipe.run("npm", **QUIET)
    check(registry, key)


async def test_git(tmp_path: Path, key: str) -> None:
    async with (
        GitServer(accept_any_of({TOKEN}), tmp_path / "served") as server,
        following("git", tmp_path, STATIC + KEYS, {GIT: server.url}) as recipe,
    ):
        with pytest.raises(AssertionError, match="terminal prompts disabled"):
            await recipe.run("clone", **WHO)
        (command,) = shown(recipe, key)
        await recipe.follow(command)
        await recipe.run("clone", **WHO)
    check(server, key)


async def test_terraform(tmp_path: Path, key: str) -> None:
    async with (
        StateServer(accept_any_of({TOKEN})) as server,
        following("terraform", tmp_path, STATIC + KEYS, {STATE: server.url}) as recipe,
    ):
        recipe.write("main.tf")
        with pytest.raises(AssertionError, match=r"401|requires auth"):
            await recipe.run("terraform")
        (password,) = shown(recipe, key)
        name, _, value = password.partition("=")
        await recipe.run("terraform", TF_HTTP_USERNAME="key", **{name: value})
    check(server, key)


@pytest.mark.parametrize("program", ["openai_chat.py", "anthropic_chat.py"])
async def test_sdks(tmp_path: Path, key: str, program: str) -> None:
    async with (
        LlmApi(accept_any_of({TOKEN})) as api,
        following("llm", tmp_path, STATIC + KEYS, {GATEWAY: api.url}) as recipe,
    ):
        path = recipe.write(program)
        with pytest.raises(AssertionError, match=r"key_missing|401"):
            await recipe.follow(f"python {program}")
        path.write_text(path.read_text().replace("dummy", key))
        await recipe.follow(f"python {program}")
    check(api, key)
