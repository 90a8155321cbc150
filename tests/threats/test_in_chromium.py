"""A real browser as attacker: whatever a page of somebody else's tries, nothing of ours is called and nothing is learned."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Frame, Page

from bearerd.core.targets import parse_route, sort_routes
from bearerd.daemon import Daemon
from bearerd.demo.world import ACCOUNT, PERSON, Demo
from browser import REBOUND, Tab, browsing, site
from callers import running, split
from faults import refused_port, reply
from recorders import Recorder

ATTEMPTS: Final = (Path(__file__).parent / "attempts.js").read_text(encoding="utf-8")
NAMES: Final = {
    *("image", "script", "stylesheet", "preload", "prefetch", "modulepreload", "background", "font", "video"),
    *("audio", "iframe", "embed", "object", "form-plain", "form-x-www-form-urlencoded", "form-form-data"),
    *("form-get", "beacon", "event-source", "web-socket", "xhr", "fetch", "fetch-no-cors"),
    *("fetch-no-cors-post", "fetch-post", "fetch-json", "fetch-put", "fetch-header", "fetch-credentials"),
    *("fetch-no-referrer", "fetch-keepalive"),
}
MAYBE: Final = {"speculation", "ping", "popup"}  # not every page and every Chromium does these
SANDBOXED: Final = """<iframe sandbox="allow-scripts allow-forms" srcdoc="<body>nobody's</body>"></iframe>"""


NAVIGATIONS: Final = {
    "link": "<a href='{url}'>go</a>",
    "link-without-referrer": "<a href='{url}' rel='noreferrer'>go</a>",
    "form-get": "<form action='{url}'><button>go</button></form>",
    "form-post": "<form action='{url}' method='post'><button>go</button></form>",
    "form-text": "<form action='{url}' method='post' enctype='text/plain'><button>go</button></form>",
    "script": "<button onclick='location = `{url}`'>go</button>",
}


class Refusals:
    """What the log says of requests that were refused."""

    def __init__(self, capsys: pytest.CaptureFixture[str], upstream: Recorder) -> None:
        self._capsys = capsys
        self._upstream = upstream
        self._said = ""

    def under(self, prefix: str) -> dict[str, set[str]]:
        """What each path has after `prefix`, with the problems that requests for it had."""
        self._said += re.sub(r"\x1b\[[0-9;]*m", "", self._capsys.readouterr().out)
        found: dict[str, set[str]] = {}
        for line in self._said.splitlines():
            path, problem = re.search(rf"path=/{prefix}/(\S+)", line), re.search(r"problem=(\w+)", line)
            if path and problem:
                found.setdefault(path[1], set()).add(problem[1])
        return found

    async def of(self, names: set[str], prefix: str) -> set[str]:
        """The problems under `prefix`, once a request for each of `names` has been refused, or one has gone upstream."""
        with suppress(TimeoutError):
            async with asyncio.timeout(60):
                while names - set(self.under(prefix)) and not self._upstream.requests:  # noqa: ASYNC110  # nobody tells
                    await asyncio.sleep(0.05)
        assert self._upstream.requests == []
        assert names <= set(self.under(prefix)) <= names | MAYBE
        return set().union(*self.under(prefix).values())


async def frame_with(page: Page, text: str) -> Frame:
    await page.frame_locator("iframe").get_by_text(text).wait_for()
    return page.frames[1]


async def navigate(tab: Tab, way: str, url: str) -> int:
    """Go to `url` from where the tab is, and say what the answer was."""
    await tab.page.evaluate("html => { document.body.innerHTML = html }", NAVIGATIONS[way].format(url=url))
    async with tab.page.expect_response(lambda response: response.url.split("?")[0] == url) as response:
        await tab.page.get_by_text("go").click()
    return (await response.value).status


@pytest.mark.threat(1)
@pytest.mark.threat(2)
@pytest.mark.threat(12)
async def test_pages_of_others_spend_no_token(capsys: pytest.CaptureFixture[str]) -> None:
    """Of another port, of no origin, and of a name that is made to lead here; by all that browsers offer."""
    port = refused_port()
    async with AsyncExitStack() as stack:
        tab = await stack.enter_async_context(browsing())
        rebound = f"http://{REBOUND}:{port}"
        async with site("<p>rebound</p>", port):
            await tab.page.goto(rebound)
        upstream = await stack.enter_async_context(Recorder())
        refusals = Refusals(capsys, upstream)
        await stack.enter_async_context(running(upstream.url, port=port))
        assert all("421" in text for text in await tab.page.evaluate(ATTEMPTS, [rebound, "rebound"]))
        assert await refusals.of(NAMES, "rebound") == {"wrong_authority"}

        url = f"http://127.0.0.1:{port}"
        elsewhere = await stack.enter_async_context(site("<p>elsewhere</p>"))
        await tab.page.goto(elsewhere)
        assert await tab.page.evaluate(ATTEMPTS, [url, "port"]) == []
        assert await refusals.of(NAMES, "port") == {"origin_refused"}

        await tab.page.goto(await stack.enter_async_context(site(SANDBOXED)))
        frame = await frame_with(tab.page, "nobody's")
        assert await frame.evaluate("origin") == "null"
        assert await frame.evaluate(ATTEMPTS, [url, "null"]) == []
        assert await refusals.of(NAMES, "null") == {"origin_refused"}

        for way in NAVIGATIONS:
            await tab.page.goto(elsewhere)
            assert await navigate(tab, way, f"{url}/top/{way}") == 403
        assert await refusals.of(set(NAVIGATIONS), "top") == {"origin_refused"}

        await tab.page.goto(elsewhere)
        assert await navigate(tab, "link", f"{url}/-/") == 200
        await tab.page.get_by_role("article", name="work").wait_for()


# What a page of an upstream tries at its own address, which is bearerd's.
TRESPASS: Final = """async (other) => {
    const learned = {};
    const attempt = async (name, act) => {
        try { learned[name] = await act(); } catch { learned[name] = "refused"; }
    };
    const text = async (path, options) => {
        const answer = await fetch(path, options);
        return [0, 403].includes(answer.status) ? "refused" : await answer.text();  // 0: a page may not know
    };
    await attempt("origin", () => origin);
    await attempt("cookie", () => (document.cookie = "mine=1", document.cookie));
    await attempt("storage", () => (localStorage.mine = "1", localStorage.mine));
    await attempt("status", () => text("/-/status"));
    await attempt("page", () => text("/-/"));
    await attempt("other", () => text(other + "fetch"));
    await attempt("other unseen", () => text(other + "unseen", { mode: "no-cors" }));
    await attempt("other post", () => text(other + "post", { method: "POST", body: "x", mode: "no-cors" }));
    await attempt("own", () => text("own"));
    await attempt("socket", () => new Promise((resolve, reject) => {
        const socket = new WebSocket(other.replace("http", "ws") + "socket");
        socket.onopen = () => resolve("open");
        socket.onerror = reject;
    }));
    await attempt("worker", async () => (await navigator.serviceWorker.register("worker.js")).scope);
    await attempt("frame", () => new Promise((resolve) => {
        const frame = document.createElement("iframe");
        frame.onload = () => resolve(frame.contentDocument?.querySelector("article") ? "seen" : "refused");
        frame.src = "/-/";
        document.body.append(frame);
    }));
    await attempt("popup", () => open("/-/") ? "opened" : "refused");
    await attempt("log out", async () => {
        const page = new DOMParser().parseFromString(await text("/-/"), "text/html");
        const body = new URLSearchParams(new FormData(page.querySelector("form[action$=me]")));
        return (await fetch("/-/logout/me", { method: "POST", body })).ok ? "done" : "refused";
    });
    return learned;
}"""
HTML: Final = "Content-Type: text/html"


def serve_pages(request: bytes) -> bytes:
    """A site with a page, a worker, and answers to all else. A cache may keep the page, and has to ask about it."""
    if b"/page" in request.split(b"\r\n")[0]:
        if b"\r\nIf-None-Match: " in request:
            return b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n'
        return reply(b"<body>a page</body>", "200 OK", HTML, 'ETag: "1"', "Cache-Control: no-cache")
    if b"/sniffed" in request.split(b"\r\n")[0]:
        return reply(b"<!doctype html><body>a page</body>", "404 Not Found")
    if b"/worker.js" in request.split(b"\r\n")[0]:
        return reply(b"self.onfetch = () => {}", "200 OK", "Content-Type: text/javascript")
    return reply(b"data")


@asynccontextmanager
async def application(upstream: Recorder) -> AsyncIterator[str]:
    """The address of a bearerd with an account that somebody can log in to, and with `upstream` under
    /page/, under /trusted/ as an application, and under /other/.
    """
    async with Demo.start() as world:
        configuration = world.configuration(0)
        routes = [parse_route(prefix, upstream.url, ACCOUNT) for prefix in ("/page/", "/other/", "/trusted/")]
        routes[-1] = replace(routes[-1], browser_app=True)
        daemon = Daemon(replace(configuration, routes=sort_routes([*configuration.routes, *routes])))
        await daemon.start()
        try:
            yield f"http://127.0.0.1:{daemon.port}"
        finally:
            await daemon.stop(0.0)


async def log_in(tab: Tab, url: str) -> None:
    await tab.page.goto(f"{url}/-/login/{PERSON}")
    await tab.page.get_by_label("Name").fill("demo-user")
    await tab.page.get_by_role("button", name="Log in").click()
    await tab.page.get_by_role("heading", name="You are logged in").wait_for()


@pytest.mark.threat(17)
@pytest.mark.threat(19)
async def test_a_page_of_an_upstream_is_nobody_here() -> None:
    """By an ordinary answer, from the cache, as an error of no type; until its route is trusted with everything."""
    async with Recorder(serve_pages) as upstream, application(upstream) as url, browsing() as tab:
        await log_in(tab, url)
        for address, status in (("page/page", 200), ("page/page", 200), ("page/sniffed", 404)):
            upstream.clear()
            response = await tab.page.goto(f"{url}/{address}")
            assert response is not None
            assert response.status == status
            learned = await tab.page.evaluate(TRESPASS, f"{url}/other/")
            assert learned.pop("origin") == "null"
            assert learned == dict.fromkeys(learned, "refused")
            assert [split(request)[0].split()[1] for request in upstream.requests] == [
                address.removeprefix("page").encode()
            ]
        upstream.clear()
        for way, path in [*((way, "/other/moved") for way in NAVIGATIONS), ("form-post", "/-/logout/me")]:
            await tab.page.goto(f"{url}/page/page")
            assert await navigate(tab, way, url + path) == 403
        assert not any(b"moved" in request for request in upstream.requests)
        await tab.page.goto(f"{url}/page/page")
        assert await navigate(tab, "link", f"{url}/-/") == 200
        await tab.page.get_by_role("article", name=PERSON).get_by_text("demo-user").wait_for()

        await tab.page.goto(f"{url}/trusted/page")
        learned = await tab.page.evaluate(TRESPASS, f"{url}/other/")
        assert learned["origin"] == url
        assert learned["log out"] == "done"
        assert learned["worker"] == f"{url}/trusted/"
        assert learned["other"] == learned["own"] == "data"
        assert learned["frame"] == "refused"
