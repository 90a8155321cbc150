"""What one writes first: aiohttp's server, its client session, and a header."""

import sys
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from multidict import CIMultiDict

UPSTREAM, TOKEN = sys.argv[2], sys.argv[3]
HOP_BY_HOP = ("Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length", "TE", "Trailer", "Upgrade")
SESSION = web.AppKey("session", ClientSession)


async def forward(request: web.Request) -> web.StreamResponse:
    headers = CIMultiDict(request.headers)
    for name in (*HOP_BY_HOP, "Host", "Authorization"):
        headers.popall(name, None)
    headers["Authorization"] = f"Bearer {TOKEN}"
    body = request.content if request.can_read_body else None
    async with request.app[SESSION].request(
        request.method, UPSTREAM + request.raw_path, headers=headers, data=body, allow_redirects=False
    ) as answer:
        passed = CIMultiDict(answer.headers)
        for name in HOP_BY_HOP:
            passed.popall(name, None)
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=passed)
        response.content_length = answer.content_length
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


async def session(application: web.Application) -> AsyncIterator[None]:
    connector = TCPConnector(limit=0)
    timeout = ClientTimeout(total=None)
    async with ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as opened:
        application[SESSION] = opened
        yield


def main() -> None:
    uvloop.install()
    application = web.Application()
    application.cleanup_ctx.append(session)
    application.router.add_route("*", "/{path:.*}", forward)
    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=lambda _: None)


if __name__ == "__main__":
    main()
