"""SDKs of models, as their page has them, through renewals: a stream is not touched, the call after it has another token."""

import asyncio
from collections import defaultdict
from operator import attrgetter
from pathlib import Path

import aiohttp
import pytest

from daemons import RunningDaemon
from oidc_peer import OidcPeer
from recipes.llm_api import MESSAGES_PATH, LlmApi
from recipes.recipe import STATIC, TOKEN, account_of, following
from upstreams import CHAT_PATH, CHAT_REPLY, accept_any_of

LIFETIME_S = 8
GATEWAY = "https://llm.example.com"


async def expiry(http: aiohttp.ClientSession, daemon: RunningDaemon) -> float:
    async with http.get(f"{daemon.url}/-/status") as response:
        return float((await response.json())["accounts"][0]["expires"]["epoch"])


async def another_token(daemon: RunningDaemon) -> None:
    """Returns when the daemon has a newer token than it has now."""
    async with aiohttp.ClientSession() as http:
        first = await expiry(http, daemon)
        while await expiry(http, daemon) == first:  # noqa: ASYNC110  # it happens in another process
            await asyncio.sleep(0.05)


def tokens_by_path(api: LlmApi) -> dict[str, list[bytes]]:
    """The credentials of each path's calls that were good. On a slow machine one may be sent again with the next."""
    found: defaultdict[str, list[bytes]] = defaultdict(list)
    for call in filter(attrgetter("authorized"), api.calls):
        found[call.raw_path] += call.values(b"authorization")
    return found


@pytest.mark.waits
async def test_sdks_stream_over_a_renewal(tmp_path: Path) -> None:
    """Both, at once: half-way in each stream the account gets another token, with which the next call is made."""
    async with OidcPeer(access_token_s=LIFETIME_S) as peer, LlmApi(peer.introspect) as api:
        account = account_of(peer, tmp_path)
        async with following("llm", tmp_path, account, {GATEWAY: api.url}) as recipe:
            api.half_way = lambda: another_token(recipe.daemon)
            openai, anthropic = await asyncio.gather(
                recipe.python("openai_chat.py"),
                recipe.python("anthropic_chat.py", ANTHROPIC_API_KEY="dummy"),
            )
        assert openai == anthropic == f"{CHAT_REPLY}\n{CHAT_REPLY}\n"
        seen = tokens_by_path(api)
        assert set(seen) == {CHAT_PATH, MESSAGES_PATH}
        for tokens in seen.values():
            assert len(set(tokens)) == len(tokens) == 2  # one for the stream, another for the call after it
        assert b"dummy" not in b"".join(value for call in api.calls for _, value in call.raw_headers)


@pytest.mark.soak
async def test_the_environment_is_enough(tmp_path: Path) -> None:
    async with (
        LlmApi(accept_any_of({TOKEN})) as api,
        following("llm", tmp_path, STATIC, {GATEWAY: api.url}) as recipe,
    ):
        await recipe.run("exec")


@pytest.mark.soak
async def test_a_key_of_another_field_stays_here(tmp_path: Path) -> None:
    """As older SDKs send it. Without what the page says of it, the gateway gets it."""
    call = f"curl -sS --fail-with-body -H 'X-Api-Key: dummy' {{url}}{MESSAGES_PATH} --json '{{{{\"model\": \"any\"}}}}'"
    async with LlmApi(accept_any_of({TOKEN})) as api:
        plain = f'[routes."/plain/"]\nupstream = "{api.url}"\n'
        async with following("llm", tmp_path, STATIC, {GATEWAY: api.url}, more=plain) as recipe:
            await recipe.follow(call.format(url=recipe.daemon.url))
            with pytest.raises(AssertionError, match="two credentials"):
                await recipe.follow(call.format(url=f"{recipe.daemon.url}/plain"))
