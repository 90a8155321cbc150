"""pip, twine and npm at private indexes, as their page has them; and what each cure of the page is for."""

import os
from pathlib import Path

import pytest

from oidc_peer import OidcPeer
from recipes.package_indexes import WHEEL, NpmRegistry, PythonIndex, build_wheel
from recipes.recipe import STATIC, TOKEN, account_of, following
from upstreams import accept_any_of

INDEX = "https://packages.example.com"
BARE = {"PIP_TARGET": "installed", "PIP_NO_CACHE_DIR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
ONLY = BARE | {"PIP_CONFIG_FILE": os.devnull}  # no index of this machine's
QUIET = {"npm_config_update_notifier": "false"}
FULL = 'forwarded = "x-forwarded"\n'


def installed(folder: Path) -> bool:
    return (folder / "installed" / "acme_greeting.py").exists()


async def test_pip_installs_and_twine_uploads(tmp_path: Path, here: Path) -> None:
    wheel = here / "dist" / WHEEL
    wheel.parent.mkdir()
    wheel.write_bytes(build_wheel())
    async with OidcPeer() as peer, PythonIndex(peer.introspect) as index:
        account = account_of(peer, tmp_path)
        async with following("packages", tmp_path, account, {INDEX: index.url}, "pypi.toml") as recipe:
            await recipe.run("pip", **ONLY)
            await recipe.run("twine")
        assert index.unauthorized == 0
    assert installed(here)
    assert len(index.uploads) == 1
    assert wheel.read_bytes() in index.uploads[0]


async def test_npm_installs_and_publishes(tmp_path: Path, here: Path) -> None:
    async with OidcPeer() as peer, NpmRegistry(peer.introspect) as registry:
        account = account_of(peer, tmp_path)
        async with following("packages", tmp_path, account, {INDEX: registry.url}, "npm.toml") as recipe:
            recipe.write(".npmrc")
            (here / "package.json").write_text('{"name": "acme-parting", "version": "1.0.0"}')
            await recipe.run("npm", **QUIET)
            await recipe.follow("npm ping", **QUIET)
            assert registry.calls[-1].raw_path.startswith("/npm/-/ping")  # no page of bearerd's own
            await recipe.run("publish", **QUIET)
        assert registry.unauthorized == 0
    assert (here / "node_modules" / "acme-greeting" / "index.js").exists()
    assert "127.0.0.1" not in (here / "package-lock.json").read_text()
    assert registry.published == ["acme-parting"]


@pytest.mark.soak
async def test_pip_by_its_file(tmp_path: Path, here: Path) -> None:
    async with (
        PythonIndex(accept_any_of({TOKEN})) as index,
        following("packages", tmp_path, STATIC, {INDEX: index.url}, "pypi.toml") as recipe,
    ):
        recipe.write("pip.conf", "../.config/pip/pip.conf")
        await recipe.run("pip with its file", **BARE)
    assert installed(here)


@pytest.mark.soak
async def test_an_index_that_names_itself_in_full_is_told_what_it_is_called(
    tmp_path: Path, here: Path
) -> None:
    async with PythonIndex(accept_any_of({TOKEN}), full=True) as index:
        servers = {INDEX: index.url}
        async with following("packages", tmp_path, STATIC, servers, "pypi.toml") as recipe:
            with pytest.raises(AssertionError, match="401"):
                await recipe.run("pip", PIP_NO_INPUT="1", **ONLY)
        assert not installed(here)
        async with following("packages", tmp_path, STATIC, servers, "pypi.toml", more=FULL) as recipe:
            await recipe.run("pip", **ONLY)
        assert installed(here)


@pytest.mark.soak
async def test_uv_installs(tmp_path: Path, here: Path) -> None:
    async with (
        PythonIndex(accept_any_of({TOKEN})) as index,
        following("packages", tmp_path, STATIC, {INDEX: index.url}, "pypi.toml") as recipe,
    ):
        await recipe.run("uv", UV_PYTHON_DOWNLOADS="never")
    assert list(here.glob(".venv/lib/*/site-packages/acme_greeting.py"))


@pytest.mark.soak
async def test_npm_goes_to_the_registry_itself_where_it_may(tmp_path: Path, here: Path) -> None:
    """What `replace-registry-host` of the page is for."""
    async with (
        NpmRegistry(accept_any_of({TOKEN})) as registry,
        following("packages", tmp_path, STATIC, {INDEX: registry.url}, "npm.toml") as recipe,
    ):
        lines = recipe.write(".npmrc").read_text().splitlines()
        (here / ".npmrc").write_text("\n".join(line for line in lines if "host" not in line))
        with pytest.raises(AssertionError, match="E401"):
            await recipe.run("npm", **QUIET)


@pytest.mark.soak
async def test_a_registry_that_is_told_what_it_is_called_serves_one_scope(tmp_path: Path, here: Path) -> None:
    async with NpmRegistry(accept_any_of({TOKEN})) as registry:
        servers = {INDEX: registry.url}
        async with following("packages", tmp_path, STATIC, servers, "npm.toml", more=FULL) as recipe:
            (here / ".npmrc").write_text(
                f"@acme:registry={recipe.daemon.url}/npm/\nregistry=http://127.0.0.1:9/\n"
            )
            (here / "package.json").write_text('{"dependencies": {"@acme/greeting": "1.0.0"}}')
            await recipe.follow("npm install --no-audit", **QUIET)
    assert (here / "node_modules" / "@acme" / "greeting" / "index.js").exists()
