"""A real browser where clients have keys: threats 2 and 3 of the threat model.

A page of any origin calls with a key that it was given. None calls with the one that a person has typed into the browser.
"""

from base64 import b64encode
from pathlib import Path
from typing import Any, Final

import pytest

from bearerd.core.client_keys import ClientKey, build_document, build_key, digest_of
from bearerd.core.configuration import Keys
from browser import browsing, site
from callers import running, split
from faults import FaultServer, reply, serve

pytestmark = [pytest.mark.threat(2), pytest.mark.threat(3)]
TEXT: Final = build_key(bytes(32)).reveal()
BASIC: Final = f"Basic {b64encode(f'me:{TEXT}'.encode()).decode()}"
WRONG: Final = build_key(bytes(range(32))).reveal()
CALL: Final = """async ([url, key, credentials]) => {
    const headers = key ? {Authorization: `Bearer ${key}`, "X-A": "1"} : {};
    try {
        const answer = await fetch(url, {method: "POST", headers, body: "{}", credentials});
        return [answer.status, await answer.text()];
    } catch (error) {
        return [0, String(error)];
    }
}"""
ATTACKS: Final = """async (url) => {
    const settled = [];
    const image = new Image();
    settled.push(new Promise((done) => { image.onload = image.onerror = done; }));
    image.src = `${url}/image`;
    const frame = document.createElement("iframe");
    frame.name = "frame";
    settled.push(new Promise((done) => { frame.onload = done; }));
    document.body.append(frame);
    const form = document.createElement("form");
    Object.assign(form, {method: "post", action: `${url}/form`, target: "frame", enctype: "text/plain"});
    document.body.append(form);
    form.submit();
    const socket = new WebSocket(`${url.replace("http", "ws")}/socket`);
    settled.push(new Promise((done) => { socket.onopen = socket.onerror = socket.onclose = done; }));
    for (const credentials of ["omit", "include"]) {
        settled.push(fetch(`${url}/fetch`, {mode: "no-cors", method: "POST", body: "x", credentials}));
    }
    await Promise.allSettled(settled);
}"""


@pytest.mark.threat(2)
@pytest.mark.parametrize("use", ["required", "optional"])
async def test_a_page_calls_with_its_own_key_and_never_with_the_persons(tmp_path: Path, use: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(build_document([ClientKey("laptop", digest_of(TEXT.encode()), 0)]))
    path.chmod(0o600)
    async with (
        FaultServer([serve(reply(b"hi"))]) as server,
        site("<p>elsewhere</p>") as elsewhere,
        running(server.url, keys=Keys(use, str(path))) as daemon,
        browsing(http_credentials={"username": "me", "password": TEXT, "send": "unauthorized"}) as tab,
    ):
        own = f"http://localhost:{daemon.port}"  # the page is on 127.0.0.1: another site

        async def call(key: str | None, credentials: str = "omit") -> list[Any]:
            answer: list[Any] = await tab.page.evaluate(CALL, [f"{own}/call", key, credentials])
            return answer

        await tab.page.goto(f"{own}/-/")  # where a person types it in, if the browser is asked
        assert "work" in await tab.text()
        if use == "required":
            answer = await tab.page.goto(f"{own}/page")  # where it is not
            assert answer is not None
            assert (answer.status, server.requests) == (401, [])
        await tab.page.goto(elsewhere)
        # As if the browser knew the key for all paths: it goes with whatever this page sends, and the page has no say.
        await tab.context.set_extra_http_headers({"Authorization": BASIC})
        await tab.page.evaluate(ATTACKS, own)
        for credentials in ("omit", "include"):
            assert (await call(None, credentials))[0] in {0, 403}
        assert server.requests == []
        await tab.context.set_extra_http_headers({})
        if use == "optional":
            assert (await call(TEXT))[0] == 0  # the preflight is for allowed origins alone
            assert server.requests == []
            return
        assert await call(TEXT) == [200, "hi"]
        status, problem = await call(WRONG)
        assert (status, "key_refused" in problem) == (401, True)
        (request,) = server.requests
        assert b"Authorization: Bearer the-token" in split(request)[1]
        assert b"bearerd_" not in request
