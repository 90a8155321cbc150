"""Debian's nginx as a plain reverse proxy: what calls through it look like is what bearerd's are compared with."""

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL, Process
from pathlib import Path
from typing import Final, Self

from faults import refused_port

_START_S: Final = 60.0
_CONFIGURATION: Final = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path temp;
  proxy_temp_path temp;
  fastcgi_temp_path temp;
  uwsgi_temp_path temp;
  scgi_temp_path temp;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{upstream};
      proxy_http_version 1.1;
    }}
  }}
}}
"""


class Nginx:
    """In a process of its own, with its files in `folder`, before the upstream on a port of 127.0.0.1; on `port`, or any.

    Entering the context raises RuntimeError where it does not come to listen; it says on standard error why.
    """

    def __init__(self, folder: Path, upstream: int, port: int | None = None) -> None:
        self._folder = folder
        self._upstream = upstream
        self._process: Process
        self.port = port or refused_port()

    async def __aenter__(self) -> Self:
        program = shutil.which(
            "nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
        )
        if program is None:
            raise RuntimeError("nginx is not installed; make test installs it")
        configuration = self._folder / "nginx.conf"
        configuration.write_text(_CONFIGURATION.format(port=self.port, upstream=self._upstream))
        self._process = await asyncio.create_subprocess_exec(
            *(program, "-p", str(self._folder), "-c", str(configuration)),
            stdin=DEVNULL,
            stdout=DEVNULL,
        )
        try:
            async with asyncio.timeout(_START_S):
                await self._until_it_listens()
        except TimeoutError:
            await self.__aexit__()
            raise RuntimeError(f"nginx did not start in {_START_S} s") from None
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()

    async def _until_it_listens(self) -> None:
        """Its own word, for who answers on the port may be somebody else: it keeps its number once it has bound all."""
        noted = self._folder / "nginx.pid"
        while not (noted.exists() and noted.read_text()):
            if self._process.returncode is not None:
                raise RuntimeError(f"nginx did not start: status {self._process.returncode}")
            await asyncio.sleep(0.02)
