"""Private indexes: of Python packages (PEP 503) and of npm's, each with what one project needs."""

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web

from upstreams import ApiUpstream, Check

VERSION: Final = "1.0.0"
PROJECT: Final = "acme-greeting"
PACKAGES: Final = {PROJECT, "@acme/greeting"}
WHEEL: Final = "acme_greeting-1.0.0-py3-none-any.whl"


def address_of(request: web.Request) -> str:
    """How the server of this call is reached, as far as it can know: its links begin with it."""
    host = request.headers.get("X-Forwarded-Host", request.host)
    return f"{request.headers.get('X-Forwarded-Proto', 'http')}://{host}"


class PythonIndex(ApiUpstream):
    """Below /pypi: the pages of one project, its wheel, and a place to upload to.

    `full` says that the page names the wheel with scheme and host, and not from the root.
    """

    def __init__(self, check: Check, *, full: bool = False) -> None:
        super().__init__(check)
        self._full = full
        self._wheel = build_wheel()
        self.uploads: list[bytes] = []

    async def reply(self, request: web.Request, body: bytes) -> web.StreamResponse:
        match request.path:
            case "/pypi/simple/acme-greeting/":
                return self._page(address_of(request) if self._full else "")
            case path if path == f"/pypi/files/{WHEEL}":
                return web.Response(body=self._wheel)
            case "/pypi/legacy/" if request.method == "POST":
                self.uploads.append(body)
                return web.Response()
        raise web.HTTPNotFound

    def _page(self, address: str) -> web.Response:
        digest = hashlib.sha256(self._wheel).hexdigest()
        link = f'<a href="{address}/pypi/files/{WHEEL}#sha256={digest}">{WHEEL}</a>'
        return web.Response(text=f"<!DOCTYPE html><html><body>{link}</body></html>", content_type="text/html")


def build_wheel() -> bytes:
    """One module, by PEP 427."""
    info = "acme_greeting-1.0.0.dist-info"
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("acme_greeting.py", "TEXT = 'Hello'\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PROJECT}\nVersion: {VERSION}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(
            f"{info}/RECORD", f"acme_greeting.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"
        )
    return written.getvalue()


class NpmRegistry(ApiUpstream):
    """Below /npm: `PACKAGES`, their tarballs by full addresses, as registries have them, and a place to publish to."""

    def __init__(self, check: Check) -> None:
        super().__init__(check)
        self.published: list[str] = []

    async def reply(self, request: web.Request, body: bytes) -> web.StreamResponse:
        name = request.path.removeprefix("/npm/")
        if name.startswith("-/"):  # audits and the like
            return web.json_response({})
        if request.method == "PUT":
            self.published.append(json.loads(body)["_id"])
            return web.json_response({"ok": True}, status=201)
        project, separator, _ = name.partition("/-/")
        if project not in PACKAGES:
            raise web.HTTPNotFound
        if separator:
            return web.Response(body=build_tarball(project))
        return web.json_response(describe(name, address_of(request)))


def describe(name: str, address: str) -> dict[str, Any]:
    """What a registry says of a package: its versions, and where their tarballs are."""
    integrity = base64.b64encode(hashlib.sha512(build_tarball(name)).digest()).decode()
    tarball = f"{address}/npm/{quote(name)}/-/{name.rpartition('/')[2]}-{VERSION}.tgz"
    version = {
        "name": name,
        "version": VERSION,
        "dist": {"tarball": tarball, "integrity": f"sha512-{integrity}"},
    }
    return {"name": name, "dist-tags": {"latest": VERSION}, "versions": {VERSION: version}}


def build_tarball(name: str) -> bytes:
    """The same each time, for its hash is part of the description."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for path, text in (
            ("package/package.json", json.dumps({"name": name, "version": VERSION})),
            ("package/index.js", "module.exports = 'Hello'\n"),
        ):
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return written.getvalue()
