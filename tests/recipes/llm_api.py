"""An API of models as OpenAI's and Anthropic's SDKs know them, whose streams rest half-way."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from upstreams import CHAT_REPLY, CHAT_WORDS, ApiUpstream, Check

MESSAGES_PATH: Final = "/anthropic/v1/messages"


async def _at_once() -> None:
    """No rest."""


class LlmApi(ApiUpstream):
    """Chat completions, and messages at `MESSAGES_PATH`, each whole or as a stream.

    A stream waits half-way for `half_way`. What brings a key beside its token gets 400, as of gateways that want one credential.
    """

    def __init__(self, check: Check) -> None:
        super().__init__(check)
        self.half_way: Callable[[], Awaitable[None]] = _at_once

    async def reply(self, request: web.Request, body: bytes) -> web.StreamResponse:
        if "X-Api-Key" in request.headers:
            return web.json_response({"error": {"message": "two credentials"}}, status=400)
        if request.path != MESSAGES_PATH:
            return await super().reply(request, body)
        wish = json.loads(body)
        message = build_message(str(wish["model"]))
        if not wish.get("stream"):
            return web.json_response(message)
        return await self.stream(request, [encode_event(event) for event in build_events(message)])

    async def rest(self, sent: int, count: int) -> None:
        if sent == count // 2:
            await self.half_way()


def build_message(model: str) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": CHAT_REPLY}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 10},
    }


def build_events(message: dict[str, Any]) -> list[dict[str, Any]]:
    """A beginning without content, the words, and an end."""
    begun = message | {"content": [], "stop_reason": None}
    words = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
        for word in CHAT_WORDS
    ]
    ended = {key: message[key] for key in ("stop_reason", "stop_sequence")}
    return [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *words,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 10}},
        {"type": "message_stop"},
    ]


def encode_event(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode())
