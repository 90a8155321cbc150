"""A real browser: Debian's Chromium, driven by Playwright, with no way off this machine."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web
from playwright.async_api import BrowserContext, ConsoleMessage, Page, async_playwright

REBOUND: Final = "rebound.test"  # a name of somebody else's that leads to this machine
ARGUMENTS: Final = (
    "--no-sandbox",  # there is none for root
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
WAIT_MS: Final = 45_000.0


@dataclass
class Tab:
    """One page, and what the browser complained about on it: errors of scripts, refusals by a policy."""

    page: Page
    context: BrowserContext
    complaints: list[str] = field(default_factory=list)

    async def text(self) -> str:
        """What a person reads."""
        return await self.page.inner_text("body")


@asynccontextmanager
async def browsing(**settings: Any) -> AsyncIterator[Tab]:
    """A browser of its own with one page. `settings` are those of Playwright's `new_context`."""
    program = shutil.which("chromium")
    if program is None:
        raise RuntimeError("chromium is not installed and the tests need it: run make test")
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS)) as browser,
    ):
        context = await browser.new_context(**settings)
        context.set_default_timeout(WAIT_MS)
        tab = Tab(await context.new_page(), context)

        def heard(message: ConsoleMessage) -> None:
            # A status that is an error is an answer too, and the test sees it where it matters.
            if message.type == "error" and not message.text.startswith("Failed to load resource: the server"):
                tab.complaints.append(message.text)

        tab.page.on("console", heard)
        tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
        yield tab
        await context.close()


@asynccontextmanager
async def site(html: str, port: int = 0) -> AsyncIterator[str]:
    """The address of another site on this machine, whose one page is `html`."""

    async def page(request: web.Request) -> web.Response:
        del request
        return web.Response(text=html, content_type="text/html")

    application = web.Application()
    application.router.add_get("/", page)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
