"""The status page: what it says without its script, and what it becomes with it, in a real browser."""

import re
from typing import Any, Final

import pytest

from bearerd.control.status import build_status
from bearerd.control.status_page import build_status_page, format_duration
from bearerd.core.lifecycle import (
    Active,
    Backoff,
    Failure,
    FailureKind,
    LoginPending,
    LoginRequired,
    NoToken,
    State,
)
from bearerd.core.pages import render
from bearerd.core.redaction import Secret
from bearerd.core.targets import parse_route
from bearerd.core.tokens import TokenSet
from bearerd.daemon import Daemon
from bearerd.demo.world import Demo
from browser import Tab, browsing

TOKEN: Final = TokenSet(
    3, Secret("canary-access"), 1000.0, 2000.0, Secret("canary-refresh"), subject="<b>me</b>"
)
DOWN: Final = Failure(FailureKind.TRANSIENT, "the token endpoint said <i>no</i>")
URLS: Final = {"work": "http://127.0.0.1:6750/-/login/work"}


def page_of(state: State, now: float = 1500.0, urls: dict[str, str] | None = None) -> str:
    route = parse_route("/v1/", "https://api.example.com/base/", "work")
    document = build_status({"work": state}, (route,), ("http://127.0.0.1:6750",), now, urls)
    return render(build_status_page(document, Secret("the-form-token"))).decode()


def field(page: str, name: str) -> str | None:
    """The tag's own text up to its first child, or None where the browser does not show it."""
    found = re.search(rf'<[^>]*data-field="{name}"([^>]*)>([^<]*)', page)
    assert found is not None, name
    return None if " hidden" in found[1] else found[2]


class TestWithoutScript:
    def test_logged_in(self) -> None:
        page = page_of(Active(TOKEN), urls=URLS)
        assert field(page, "badge") == "Logged in"
        assert field(page, "who") == "&lt;b&gt;me&lt;/b&gt;"
        assert field(page, "left") == "8 min 20 s"
        assert field(page, "until") == "1970-01-01 00:33:20 UTC"
        assert field(page, "refresh") == "1970-01-01 00:16:40 UTC"
        assert '<progress max="1000" value="500"' in page
        assert field(page, "trouble") is None
        assert field(page, "again") == "Log in again"
        assert field(page, "logout") is not None
        assert 'name="csrf" value="the-form-token"' in page
        assert 'method="post" action="/-/logout/work"' in page
        assert "canary" not in page

    def test_logged_out(self) -> None:
        page = page_of(LoginRequired("logged out"), urls=URLS)
        assert field(page, "badge") == "Login needed"
        assert field(page, "problem") == "Logged out."
        assert field(page, "command") == "bearerd login work"
        assert field(page, "again") == "Log in"
        assert 'href="/-/login/work"' in page
        for name in ("logout", "facts", "progress", "who", "itself"):
            assert field(page, name) is None

    def test_in_trouble(self) -> None:
        page = page_of(Active(TOKEN, phase=Backoff(1000.0, 1001.0, 0.0, 1, DOWN)), urls=URLS)
        assert 'data-state="trouble"' in page
        assert field(page, "problem") == "The token endpoint said &lt;i&gt;no&lt;/i&gt;."
        assert field(page, "itself") == " It is tried again by itself."
        assert field(page, "cure") is None

    def test_a_login_under_way(self) -> None:
        page = page_of(LoginPending(None, "nobody has logged in yet"), urls=URLS)
        assert field(page, "badge") == "Login under way"
        assert field(page, "logout") is not None

    def test_an_account_that_nobody_logs_in_to(self) -> None:
        page = page_of(Active(TOKEN))
        assert field(page, "badge") == "Ready"
        assert "/-/login" not in page.replace("script>", "")
        assert "<form" not in page
        assert field(page_of(NoToken()), "badge") == "Waiting for a token"
        over = page_of(LoginRequired("invalid_grant"))
        assert field(over, "cure") is None
        assert (
            field(over, "elsewhere") == " Give it a new refresh token, or log in where its vault is filled."
        )
        assert field(page_of(LoginRequired("logged out"), urls=URLS), "elsewhere") is None

    def test_routes_and_addresses(self) -> None:
        page = page_of(Active(TOKEN))
        for text in ("/v1", "https://api.example.com/base", "http://127.0.0.1:6750"):
            assert f"<code>{text}</code>" in page

    def test_nothing_at_all(self) -> None:
        page = render(build_status_page(build_status({}, (), (), 0.0), Secret("t"))).decode()
        assert "No account is configured." in page

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (-1, "0 s"),
            (59.9, "59 s"),
            (60, "1 min 0 s"),
            (3599, "59 min 59 s"),
            (3600, "1 h 0 min"),
            (86_399, "23 h 59 min"),
            (90_000, "1 d 1 h"),
        ],
    )
    def test_durations(self, seconds: float, text: str) -> None:
        assert format_duration(seconds) == text


async def log_in(tab: Tab, url: str) -> None:
    await tab.page.goto(f"{url}/-/login/me")
    await tab.page.get_by_label("Name").fill("demo-user")
    await tab.page.get_by_role("button", name="Log in").click()
    await tab.page.get_by_role("heading", name="You are logged in").wait_for()


class TestInABrowser:
    async def test_out_and_in_again_and_live(self) -> None:
        async with Demo.start() as world:
            daemon = Daemon(world.configuration(0))
            await daemon.start()
            try:
                url = f"http://127.0.0.1:{daemon.port}"
                async with browsing() as tab:
                    await log_in(tab, url)
                    await tab.page.wait_for_url(f"{url}/-/")
                    card = tab.page.get_by_role("article", name="me")
                    await card.get_by_text("demo-user").wait_for()
                    left = card.locator('[data-field="left"]')
                    first = await left.inner_text()
                    await tab.page.wait_for_function(
                        "(first) => document.querySelector('[data-account=me] [data-field=left]').textContent !== first",
                        arg=first,
                    )
                    await card.get_by_role("button", name="Log out").click()
                    await card.get_by_text("Login needed").wait_for()
                    assert tab.page.url == f"{url}/-/"
                    assert await card.get_by_role("button", name="Log out").count() == 0
                    other = await tab.context.new_page()
                    second = Tab(other, tab.context)
                    await log_in(second, url)
                    await card.get_by_text("Logged in", exact=True).wait_for()  # nobody has reloaded it
                    await card.get_by_role("button", name="Log out").click()
                    await card.get_by_text("Login needed").wait_for()
                    assert tab.complaints == []
            finally:
                await daemon.stop(0.0)

    async def test_it_works_without_a_script(self) -> None:
        async with Demo.start() as world:
            daemon = Daemon(world.configuration(0))
            await daemon.start()
            try:
                url = f"http://127.0.0.1:{daemon.port}"
                async with browsing(java_script_enabled=False) as tab:
                    await log_in(tab, url)
                    await tab.page.goto(f"{url}/-/")
                    card = tab.page.get_by_role("article", name="me")
                    await card.get_by_text("demo-user").wait_for()
                    await card.get_by_role("button", name="Log out").click()
                    await card.get_by_text("Login needed").wait_for()
            finally:
                await daemon.stop(0.0)

    async def test_it_says_when_the_daemon_is_gone(self) -> None:
        async with Demo.start() as world, browsing() as tab:
            daemon = Daemon(world.configuration(0))
            await daemon.start()
            await tab.page.goto(f"http://127.0.0.1:{daemon.port}/-/")
            await tab.page.get_by_role("article", name="service").wait_for()
            await daemon.stop(0.0)
            await tab.page.get_by_text("bearerd does not answer any more").wait_for()

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_texts_stand_out_and_a_phone_needs_no_sideways_scrolling(self, scheme: Any) -> None:
        """WCAG 2.2, 1.4.3 and 1.4.10: contrast of 4.5 to 1 at least, and one direction of scrolling at 320 px."""
        async with Demo.start() as world:
            configuration = world.configuration(0)
            daemon = Daemon(configuration)
            await daemon.start()
            try:
                url = f"http://127.0.0.1:{daemon.port}"
                phone = {"width": 320, "height": 640}
                async with browsing(color_scheme=scheme, viewport=phone) as tab:
                    for path in ("/-/", "/me/hello", "/-/nope", "/-/callback?code=c&state=s"):
                        await tab.page.goto(url + path)
                        assert await tab.page.evaluate("document.documentElement.scrollWidth") <= 320
                        assert await tab.page.evaluate(CONTRAST) == []
            finally:
                await daemon.stop(0.0)


# Every element with text of its own, against the nearest ground behind it.
CONTRAST: Final = """
() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (channel) => {
    const c = channel / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  };
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = parse(getComputedStyle(node).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const node of document.body.querySelectorAll("*")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest(".hidden-text")) continue;
    const [a, b] = [luminance(parse(getComputedStyle(node).color)), luminance(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.push(`${node.textContent}: ${ratio.toFixed(2)}`);
  }
  return faint;
}
"""
