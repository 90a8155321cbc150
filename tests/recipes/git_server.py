"""A git server: git's own program for HTTP (``git http-backend``), behind a token as git servers take it."""

import asyncio
import base64
import os
import subprocess
import tempfile
from asyncio.subprocess import PIPE
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Final

from aiohttp import web

from upstreams import ApiUpstream, Check

USER: Final = "oauth2"
FIRST: Final = b"""commit refs/heads/main
committer Nobody <nobody@example.com> 0 +0000
data 10
A greeting
M 100644 inline greeting.txt
data 6
Hello

"""


class GitServer(ApiUpstream):
    """The repository /acme/greeting.git, with one commit, kept below `folder`."""

    challenge = 'Basic realm="code"'

    def __init__(self, check: Check, folder: Path) -> None:
        super().__init__(check)
        self._folder = folder
        repository = folder / "acme" / "greeting.git"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", repository], check=True)
        subprocess.run(["git", "-C", repository, "fast-import", "--quiet"], input=FIRST, check=True)

    def token_of(self, request: web.Request) -> str:
        scheme, _, coded = request.headers.get("Authorization", "").partition(" ")
        user, _, token = base64.b64decode(coded if scheme == "Basic" else "").decode().partition(":")
        return token if user == USER else ""

    async def reply(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """As RFC 3875 has it."""
        with (
            tempfile.TemporaryFile() as sent
        ):  # a pipe may be closed by then: not every call has its body read
            sent.write(body)
            sent.seek(0)
            process = await asyncio.create_subprocess_exec(
                *("git", "http-backend"), stdin=sent, stdout=PIPE, env=os.environ | self._describe(request)
            )
            out, _ = await process.communicate()
        head, _, content = out.partition(b"\r\n\r\n")
        fields = BytesHeaderParser().parsebytes(head)
        status = int(fields.get("Status", "200").split()[0])
        return web.Response(status=status, content_type=fields.get_content_type(), body=content)

    def _describe(self, request: web.Request) -> dict[str, str]:
        """The server has taken the body out of its coding already."""
        return {
            "GIT_PROJECT_ROOT": str(self._folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "REMOTE_USER": USER,
        }
