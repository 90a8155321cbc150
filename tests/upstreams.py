"""A real API as the upstream of end-to-end tests: an aiohttp server that checks every bearer token."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from aiohttp import web

import canaries

HOST: Final = "127.0.0.1"
CHAT_PATH: Final = "/v1/chat/completions"
CHAT_WORDS: Final = (
    "A ",
    "proxy ",
    "that ",
    "nobody ",
    "sees ",
    "keeps ",
    "each ",
    "key ",
    "fresh ",
    "… ¡olé!",
)
CHAT_REPLY: Final = "".join(CHAT_WORDS)
BODY_LIMIT: Final = 256 << 20
SHUTDOWN_S: Final = 1.0

Check = Callable[[str], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it arrived. `raw_path` and `raw_headers` are what stood on the wire."""

    method: str
    raw_path: str
    raw_headers: tuple[tuple[bytes, bytes], ...]
    body_sha256: str
    authorized: bool

    def values(self, name: bytes) -> list[bytes]:
        """The values of every header of this name, in order."""
        return [value for key, value in self.raw_headers if key.lower() == name.lower()]


def accept_any_of(tokens: Container[str]) -> Check:
    """A check against a local set, which the test may change while the API runs."""

    async def check(token: str) -> bool:  # others ask an authorization server
        return token in tokens

    return check


class ApiUpstream:
    """Serves any method and path between ``__aenter__`` and ``__aexit__``: 401 where `check` says no,
    else what `reply` says: a JSON echo, and OpenAI's chat completions at `CHAT_PATH`.
    """

    challenge = 'Bearer error="invalid_token"'

    def __init__(self, check: Check, *, chunk_gap_s: float = 0.01) -> None:
        self.calls: list[Call] = []
        self.last_token = ""
        self._check = check
        self._chunk_gap_s = chunk_gap_s
        application = web.Application(client_max_size=BODY_LIMIT)
        application.router.add_route("*", r"/{path:[\s\S]*}", self._answer)  # a dot leaves out %0A
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S)

    @property
    def url(self) -> str:
        """The origin, without a slash at its end."""
        return f"http://{HOST}:{self._runner.addresses[0][1]}"

    @property
    def unauthorized(self) -> int:
        """How many calls were answered 401."""
        return sum(not call.authorized for call in self.calls)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        digest = hashlib.sha256(body).hexdigest()
        token = self.last_token = self.token_of(request)
        canaries.know(token, "access token")
        authorized = bool(token) and await self._check(token)
        self.calls.append(
            Call(request.method, request.raw_path, tuple(request.raw_headers), digest, authorized)
        )
        if not authorized:
            return _unauthorized(self.challenge)
        return await self.reply(request, body)

    def token_of(self, request: web.Request) -> str:
        """The token that a call brings, else the empty text. For APIs that want it elsewhere to override."""
        return _bearer_of(request)

    async def reply(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """The answer to a call with a good token. For other APIs to override."""
        if request.method == "POST" and request.path == CHAT_PATH:
            return await self._chat(request, json.loads(body))
        digest = hashlib.sha256(body).hexdigest()
        return web.json_response(
            {"method": request.method, "path": request.raw_path, "body_sha256": digest, "size": len(body)}
        )

    async def _chat(self, request: web.Request, wish: dict[str, Any]) -> web.StreamResponse:
        model = str(wish["model"])
        if not wish.get("stream"):
            return web.json_response(_build_completion(model))
        chunks = [b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in _build_chunks(model)]
        return await self.stream(request, [*chunks, b"data: [DONE]\n\n"])

    async def stream(self, request: web.Request, events: Sequence[bytes]) -> web.StreamResponse:
        """Server-sent events, one after another."""
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        for sent, event in enumerate(events, 1):
            await response.write(event)
            await self.rest(sent, len(events))
        return response

    async def rest(self, sent: int, count: int) -> None:  # noqa: ARG002  # others rest where they like
        """What a stream does when `sent` of its `count` events are out."""
        await asyncio.sleep(self._chunk_gap_s)


def _bearer_of(request: web.Request) -> str:
    """The token of the only Authorization header, else the empty text, which is no token."""
    values = request.headers.getall("Authorization", [])
    scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    return token if scheme == "Bearer" else ""


def _unauthorized(challenge: str) -> web.Response:
    """In the words of RFC 6750, with a body as OpenAI's API gives it."""
    error = {"message": "the token is unknown, expired or revoked", "type": "invalid_request_error"}
    return web.json_response(
        {"error": {**error, "param": None, "code": "invalid_token"}},
        status=401,
        headers={"WWW-Authenticate": challenge},
    )


def _build_completion(model: str) -> dict[str, object]:
    message = {"role": "assistant", "content": CHAT_REPLY, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15},
    }


def _build_chunks(model: str) -> list[dict[str, object]]:
    """A role, the words, and a reason to stop."""
    words = [_build_chunk(model, {"content": word}) for word in CHAT_WORDS]
    first = _build_chunk(model, {"role": "assistant", "content": ""})
    return [first, *words, _build_chunk(model, {}, "stop")]


def _build_chunk(model: str, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, object]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }
