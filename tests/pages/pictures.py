"""The pictures of the first page: the status page of a demo that runs, light and dark. `make pictures` takes them.

They are other pictures each time. What stands on them is kept beside them, so that a test sees when the page says something else.
"""

import asyncio
from pathlib import Path
from typing import Final

from bearerd.core.reaching import DEFAULT_PORT
from bearerd.daemon import Daemon
from bearerd.demo.world import PERSON, Demo
from browser import Tab, browsing
from pages import PROJECT

FOLDER: Final = PROJECT / "docs" / "pictures"
TEXTS: Final = FOLDER / "status.txt"
SCHEMES: Final = ("light", "dark")
_WIDTH: Final = 720
_SHARP: Final = 2  # pixels for one of the page's


def picture_of(scheme: str) -> Path:
    return FOLDER / f"status-{scheme}.png"


async def take_pictures() -> None:
    """The demo's port must be free."""
    FOLDER.mkdir(exist_ok=True)
    async with Demo.start() as demo:
        daemon = Daemon(demo.configuration(DEFAULT_PORT))
        await daemon.start()
        url = f"http://127.0.0.1:{daemon.port}"
        try:
            async with browsing() as tab:
                await log_in(tab, url)
            for scheme in SCHEMES:
                window = {"width": _WIDTH, "height": 400}
                async with browsing(color_scheme=scheme, viewport=window, device_scale_factor=_SHARP) as tab:
                    await take_picture(tab, url, picture_of(scheme))
        finally:
            await daemon.stop(0.0)


async def log_in(tab: Tab, url: str) -> None:
    await tab.page.goto(f"{url}/-/login/{PERSON}")
    await tab.page.get_by_role("button", name="Log in").click()
    await tab.page.get_by_role("heading", name="You are logged in").wait_for()


async def take_picture(tab: Tab, url: str, file: Path) -> None:
    """Of the accounts and the routes."""
    page = tab.page
    await page.goto(f"{url}/-/")
    end = await page.get_by_role("heading", name="Addresses").bounding_box()
    assert end is not None
    await page.screenshot(
        path=file, full_page=True, clip={"x": 0, "y": 0, "width": _WIDTH, "height": end["y"] - 20}
    )
    TEXTS.write_text(await tab.text() + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(take_pictures())
