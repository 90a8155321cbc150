"""curl, httpx, requests and Newman, as their page has them, and a notebook that calls."""

import json
from pathlib import Path

import pytest

from oidc_peer import OidcPeer
from recipes.recipe import STATIC, TOKEN, account_of, following
from upstreams import ApiUpstream, accept_any_of

API = "https://api.example.com"


async def test_each_client_of_the_page(tmp_path: Path) -> None:
    async with OidcPeer() as peer, ApiUpstream(peer.introspect) as api:
        account = account_of(peer, tmp_path)
        async with following("http", tmp_path, account, {API: api.url}) as recipe:
            await recipe.run("curl")
            assert await recipe.python("items.py") == "/v1/items\n"
            assert await recipe.python("upload.py") == "8\n"
            recipe.write("api.postman_collection.json")
            (printed,) = await recipe.run("newman")
        assert "is good" in printed
        assert [call.raw_path for call in api.calls] == [
            "/v1/items",
            "/v1/files/report.csv",
            "/v1/chat/completions",
            "/v1/items",
            "/v1/files/report.csv",
            "/v1/items",
        ]
        assert all(call.authorized for call in api.calls)


@pytest.mark.soak
async def test_a_test_of_newman_that_fails_fails_the_recipe(tmp_path: Path) -> None:
    """The status is what the collection looks at: here the API refuses each token."""
    async with (
        ApiUpstream(accept_any_of(())) as api,
        following("http", tmp_path, STATIC, {API: api.url}) as recipe,
    ):
        recipe.write("api.postman_collection.json")
        with pytest.raises(AssertionError, match="ended with 1"):
            await recipe.run("newman")


@pytest.mark.soak
async def test_a_notebook_calls(tmp_path: Path, here: Path) -> None:
    cell: dict[str, object] = {"cell_type": "code", "id": "a", "outputs": [], "execution_count": None}
    async with (
        ApiUpstream(accept_any_of({TOKEN})) as api,
        following("data", tmp_path, STATIC, {API: api.url}) as recipe,
    ):
        source = recipe.write("cell.py").read_text()
        notebook = here / "calls.ipynb"
        notebook.write_text(
            json.dumps(
                {
                    "cells": [cell | {"source": source, "metadata": {}}],
                    "metadata": {},
                    "nbformat": 4,
                    "nbformat_minor": 5,
                }
            )
        )
        await recipe.run("jupyter")
    (executed,) = json.loads(notebook.read_text())["cells"]
    assert executed["outputs"][0]["data"]["text/plain"] == ["'/v1/items'"]
