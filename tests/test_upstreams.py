import hashlib
import time
from collections.abc import AsyncIterator
from io import BytesIO

import aiohttp
import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionUserMessageParam
from yarl import URL

from oidc_peer import BASIC_CLIENT, OidcPeer
from upstreams import CHAT_PATH, CHAT_REPLY, ApiUpstream, accept_any_of

MESSAGES: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Say something."}]
BEARER = {"Authorization": "Bearer good"}


@pytest_asyncio.fixture
async def api() -> AsyncIterator[ApiUpstream]:
    async with ApiUpstream(accept_any_of({"good"})) as running:
        yield running


def open_sdk(api: ApiUpstream, key: str = "good") -> openai.AsyncOpenAI:
    # In full strictness the SDK refuses replies its types do not describe.
    return openai.AsyncOpenAI(
        base_url=f"{api.url}/v1", api_key=key, max_retries=0, _strict_response_validation=True
    )


async def test_the_sdk_reads_a_whole_reply(api: ApiUpstream) -> None:
    async with open_sdk(api) as sdk:
        reply = await sdk.chat.completions.create(model="any", messages=MESSAGES)
    assert reply.choices[0].message.content == CHAT_REPLY
    assert reply.model == "any"


async def test_the_sdk_reads_a_stream_as_it_comes(api: ApiUpstream) -> None:
    words, arrivals = [], []
    async with open_sdk(api) as sdk:
        async for chunk in await sdk.chat.completions.create(model="any", messages=MESSAGES, stream=True):
            assert chunk.object == "chat.completion.chunk"
            words.append(chunk.choices[0].delta.content or "")
            arrivals.append(time.monotonic())
    assert len(words) == 12
    assert "".join(words) == CHAT_REPLY
    assert chunk.choices[0].finish_reason == "stop"
    assert arrivals[-1] - arrivals[0] > 0.08  # eleven gaps of 10 ms: it was not held back and sent at once


async def test_the_sdk_takes_the_401_for_one(api: ApiUpstream) -> None:
    async with open_sdk(api, "bad") as sdk:
        with pytest.raises(openai.AuthenticationError, match="unknown, expired or revoked"):
            await sdk.chat.completions.create(model="any", messages=MESSAGES)
    (call,) = api.calls
    assert (call.method, call.raw_path, call.authorized) == ("POST", CHAT_PATH, False)
    assert api.unauthorized == 1


async def test_calls_are_recorded_as_they_stood_on_the_wire(api: ApiUpstream) -> None:
    body = bytes(range(256)) * (8 << 10)
    target = URL(f"{api.url}//a%2Fb/%0A/../?q=%20&q=+", encoded=True)
    headers = {**BEARER, "X-MiXed": "kept"}
    async with (
        aiohttp.ClientSession() as http,
        http.put(target, data=BytesIO(body), headers=headers) as response,
    ):
        echo = await response.json()
    (call,) = api.calls
    assert (call.method, call.raw_path) == ("PUT", "//a%2Fb/%0A/../?q=%20&q=+")
    assert (b"X-MiXed", b"kept") in call.raw_headers
    assert call.values(b"authorization") == [b"Bearer good"]
    assert call.body_sha256 == echo["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert echo["size"] == len(body)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer bad")],
        [("Authorization", "Basic good")],
        [("Authorization", "Bearer good"), ("Authorization", "Bearer good")],
    ],
)
async def test_exactly_one_good_bearer_is_wanted(api: ApiUpstream, headers: list[tuple[str, str]]) -> None:
    async with aiohttp.ClientSession() as http, http.get(api.url, headers=headers) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert api.unauthorized == 1


async def test_the_authorization_server_can_be_the_judge() -> None:
    async with OidcPeer() as peer, ApiUpstream(peer.introspect) as api, aiohttp.ClientSession() as http:
        reply = await peer.request_token(BASIC_CLIENT, grant_type="client_credentials")
        bearer = {"Authorization": f"Bearer {reply.access_token}"}
        async with http.get(api.url, headers=bearer) as response:
            assert response.status == 200
        await peer.revoke(reply.access_token)
        async with http.get(api.url, headers=bearer) as response:
            assert response.status == 401
