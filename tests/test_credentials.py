"""Whatever field carries a token: it is in no text of a daemon's."""

from base64 import b64encode
from pathlib import Path
from typing import Final

from callers import connected
from daemons import RunningDaemon
from faults import FaultServer, read, reply, reset, serve

HI: Final = reply(b"hi")
NO: Final = reply(b"no", "401 Unauthorized", "WWW-Authenticate: Bearer")


async def test_the_token_is_in_no_text_of_ours(tmp_path: Path) -> None:
    """Logs of all levels, problems, the status: of calls that work, that are refused, and that fail half-way."""
    token = "canary-0123456789"
    async with FaultServer([serve(NO, HI, NO)]) as server, FaultServer([read, reset]) as broken:
        toml = f"""
            [log]
            level = "debug"
            [accounts.work]
            command = ["echo", "{token}"]
            [routes."/plain"]
            upstream = "{server.url}"
            credential = "X-Gateway: {{token}}"
            [routes."/basic"]
            upstream = "{server.url}"
            credential = "X-Gateway: v1.{{base64:me:{{token}}}}"
            [routes."/broken"]
            upstream = "{broken.url}"
            credential = "X-Gateway: {{token}}"
            [routes."/own"]
            upstream = "{server.url}"
            credential = "X-Gateway: {{token}}"
            inject = "if-absent"
        """
        async with RunningDaemon(tmp_path, toml, tmp_path) as daemon, connected(daemon) as client:
            said = b""
            lines = (
                "GET /plain",
                "GET /basic",
                "GET /-/status",
                "GET /broken",
                "GET /own",
                "GET /plain?access_token=x",
            )
            for line in lines:
                client.write(f"{line} HTTP/1.1", "X-Gateway: canary-of-client")
                said += await client.answer()
        text = daemon.log + said.decode("latin-1")
    encoded = b64encode(b"me:" + token.encode())
    assert any(b"X-Gateway: " + token.encode() in request for request in server.requests)
    assert any(b"X-Gateway: v1." + encoded in request for request in server.requests)
    assert any(b"X-Gateway: canary-of-client" in request for request in server.requests)
    assert '"route": "/own", "account": null' in text
    for event in ("request.forwarded", "token.refreshed", "upstream_broken", "token_in_query"):
        assert event in text
    assert "canary" not in text
    assert encoded.decode()[4:20] not in text
