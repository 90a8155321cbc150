"""The demo, as a person uses it: in a real browser."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bearerd.daemon import Daemon
from bearerd.demo.world import Demo
from browser import browsing


@asynccontextmanager
async def demo() -> AsyncIterator[str]:
    """The address of a bearerd before the demo's API."""
    async with Demo.start() as world:
        daemon = Daemon(world.configuration(0))
        await daemon.start()
        try:
            yield f"http://127.0.0.1:{daemon.port}"
        finally:
            await daemon.stop(0.0)


class TestBrowser:
    async def test_it_reads_pages_and_hears_complaints(self) -> None:
        async def page(request: web.Request) -> web.Response:
            del request
            return web.Response(text="<p>hello</p><script>nonsense()</script>", content_type="text/html")

        application = web.Application()
        application.router.add_get("/", page)
        async with TestServer(application) as server, browsing() as tab:
            await tab.page.goto(str(server.make_url("/")))
            assert await tab.text() == "hello"
            assert any("nonsense" in complaint for complaint in tab.complaints)

    async def test_it_cannot_leave_this_machine(self) -> None:
        async with browsing() as tab:
            with pytest.raises(Exception, match="ERR_NAME_NOT_RESOLVED"):
                await tab.page.goto("http://example.com/")


async def test_from_a_call_to_a_login_and_back_to_the_answer() -> None:
    async with demo() as url, browsing() as tab:
        response = await tab.page.goto(f"{url}/me/hello")
        assert response is not None
        assert response.status == 503
        await tab.page.get_by_role("link", name="Log in").click()
        await tab.page.get_by_label("Name").fill("demo-user")
        await tab.page.get_by_role("button", name="Log in").click()
        await tab.page.wait_for_url(f"{url}/me/hello")
        answer = json.loads(await tab.text())
        assert answer["subject"] == "demo-user"
        assert answer["path"] == "/hello"
        assert tab.complaints == []
