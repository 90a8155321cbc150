"""An MCP server with one tool, for whoever has a token that the authorization server calls active (RFC 7662).

Its standard input is a line of JSON: ``issuer``, ``introspection``, ``client_id``, ``client_secret``. It prints its port.
"""

import json
import socket
import sys

import httpx2
import uvicorn
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl

SETTINGS = json.loads(sys.stdin.readline())


class Introspection(TokenVerifier):
    async def verify_token(self, token: str) -> AccessToken | None:
        client = (SETTINGS["client_id"], SETTINGS["client_secret"])
        async with httpx2.AsyncClient(auth=client, trust_env=False) as http:
            told = (await http.post(SETTINGS["introspection"], data={"token": token})).json()
        return AccessToken(token=token, client_id=told["client_id"], scopes=[]) if told["active"] else None


listening = socket.create_server(("127.0.0.1", 0))
address = f"http://127.0.0.1:{listening.getsockname()[1]}"
auth = AuthSettings(
    issuer_url=AnyHttpUrl(SETTINGS["issuer"]),
    resource_server_url=AnyHttpUrl(f"{address}/mcp"),
    required_scopes=[],
    validate_token_resource=False,  # the account asks for none
)
server = MCPServer("sums", token_verifier=Introspection(), auth=auth, log_level="WARNING")


@server.tool()
def add(a: int, b: int) -> int:
    """The sum of two numbers."""
    return a + b


print(listening.getsockname()[1], flush=True)  # noqa: T201  # it is what the test waits for
uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="warning")).run(sockets=[listening])
