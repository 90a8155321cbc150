"""Logins as a real browser sees them: what it sends by itself, and what other sites' pages make it try."""

from playwright.async_api import Page

from bearerd.core.configuration import Listen
from browser import browsing, site
from faults import refused_port
from login_world import world


async def log_in(page: Page, url: str) -> None:
    await page.goto(url)
    await page.get_by_role("link", name="Log in").click()
    await page.get_by_role("heading", name="You are logged in").wait_for()


async def test_from_localhost_to_the_address_of_the_redirect_uri() -> None:
    async with world() as made, browsing() as tab:
        await log_in(tab.page, f"http://localhost:{made.daemon.port}/me/hello?a=1")
        await tab.page.wait_for_url(f"{made.url}/me/hello?a=1")
        assert '"path": "/hello?a=1"' in await tab.text()
        assert tab.complaints == []


async def test_a_redirect_uri_on_another_port() -> None:
    """From that port's page the browser could go to no path but our own: it would be another site's."""
    uri = f"http://localhost:{refused_port()}/registered/elsewhere"
    async with world(redirect_uri=uri) as made, browsing() as tab:
        await log_in(tab.page, f"{made.url}/me/hello")
        await tab.page.wait_for_url(f"{made.url}/me/hello")
        assert tab.complaints == []


async def test_a_redirect_uri_on_another_path_of_ours() -> None:
    port = refused_port()
    uri = f"http://127.0.0.1:{port}/registered/elsewhere"
    async with world(Listen(port=port), redirect_uri=uri) as made, browsing() as tab:
        await log_in(tab.page, f"{made.url}/me/hello")
        await tab.page.wait_for_url(f"{made.url}/me/hello")


async def test_a_link_elsewhere_may_lead_to_a_login() -> None:
    """A chat or a ticket that shows a `login_url`."""
    async with world() as made, browsing() as tab, site(f'<a href="{made.url}/-/login/me">go</a>') as other:
        await tab.page.goto(other)
        await tab.page.get_by_role("link", name="go").click()
        await tab.page.get_by_role("heading", name="You are logged in").wait_for()
        await tab.page.wait_for_url(f"{made.url}/-/")


async def test_going_back_to_a_callback_does_no_harm() -> None:
    async with world() as made, browsing() as tab:
        await log_in(tab.page, f"{made.url}/me/hello")
        callback = tab.page.url
        await tab.page.wait_for_url(f"{made.url}/me/hello")
        await tab.page.goto(callback)
        assert "If you are logged in already, there is nothing left to do." in await tab.text()
        assert made.server.token_requests == 1
        assert made.state() == "active"


async def test_threat_17_another_site_s_page_cannot_log_out() -> None:
    """By a form, by a form in a frame, by a script; from another port, which shares our cookies."""
    async with world() as made, browsing() as tab:
        await log_in(tab.page, f"{made.url}/me/hello")
        await tab.page.goto(f"{made.url}/-/")
        token = await tab.page.locator('input[name="csrf"]').input_value()
        target = f"{made.url}/-/logout/me"
        form = f'<form method="post" action="{target}"><input name="csrf" value="{token}"></form>'
        async with site(f"{form}<script>document.forms[0].submit()</script>") as other:
            await tab.page.goto(other)
            await tab.page.wait_for_url(target)
            assert "origin_refused" in await tab.text()
        fetch = f"fetch('{target}', {{method: 'POST', body: new URLSearchParams({{csrf: '{token}'}})"
        script = (
            f"{fetch}, mode: 'no-cors', credentials: 'include'}}).finally(() => document.title = 'tried')"
        )
        async with site(f"<script>{script}</script>") as other:
            await tab.page.goto(other)
            await tab.page.wait_for_function("document.title === 'tried'")
        assert made.state() == "active"
        assert made.server.revoked == []


async def test_threat_17_nobody_frames_our_pages() -> None:
    async with world() as made, browsing() as tab:
        await log_in(tab.page, f"{made.url}/me/hello")
        for path in ("/-/", "/-/login/me", "/-/callback?code=c&state=s"):
            async with site(f'<iframe src="{made.url}{path}"></iframe>') as other:
                await tab.page.goto(other)
                assert "Log out" not in await tab.page.frame_locator("iframe").locator("html").inner_html()
        assert made.state() == "active"


async def test_no_favicon_is_asked_of_an_upstream() -> None:
    async with world() as made, browsing() as tab:
        for path in ("/-/", "/-/nope", "/me/x"):
            await tab.page.goto(made.url + path)
            await tab.page.wait_for_timeout(100)
        await log_in(tab.page, f"{made.url}/me/hello")
        await tab.page.goto(f"{made.url}/-/")
        assert [call.raw_path for call in made.api.calls if "favicon" in call.raw_path] == []
