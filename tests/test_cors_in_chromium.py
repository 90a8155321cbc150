"""Pages of other origins as a real browser sees them: what it asks first, what it lets them read."""

from typing import Any, Final

from browser import browsing, site
from callers import running, split
from faults import FaultServer, reply, serve

CALL: Final = """async (url) => {
    const answers = [];
    for (const [path, body] of [["/with-preflight", "{}"], ["/plain", null], ["/?access_token=x", null]]) {
        const asked = body ? {method: "PUT", headers: {"Content-Type": "application/json", "X-A": "1"}, body} : {};
        try {
            const answer = await fetch(url + path, asked);
            answers.push([answer.status, await answer.text(), answer.headers.get("X-Told")]);
        } catch (error) {
            answers.push(String(error));
        }
    }
    return answers;
}"""


async def test_a_page_of_an_allowed_origin_calls_and_one_of_another_does_not() -> None:
    answer = reply(b"hi", "200 OK", "X-Told: yes", "Access-Control-Allow-Origin: https://elsewhere.test")
    async with (
        FaultServer([serve(answer)]) as server,
        site("<p>allowed</p>") as allowed,
        site("<p>other</p>") as other,
        running(server.url, origins=frozenset({allowed.rstrip("/")})) as daemon,
        browsing() as tab,
    ):
        url = f"http://127.0.0.1:{daemon.port}"

        async def call(page: str) -> list[Any]:
            await tab.page.goto(page)
            answers: list[Any] = await tab.page.evaluate(CALL, url)
            return answers

        assert await call(other) == ["TypeError: Failed to fetch"] * 3
        assert server.requests == []
        first, second, problem = await call(allowed)
        assert first == second == [200, "hi", "yes"]
        assert problem[0] == 403
        assert "token_in_query" in problem[1]
        assert [split(request)[0] for request in server.requests] == [
            b"PUT /with-preflight HTTP/1.1",
            b"GET /plain HTTP/1.1",
        ]
        assert all(b"Authorization: Bearer the-token" in request for request in server.requests)
        status = await tab.page.evaluate("url => fetch(url + '/-/status').catch(String)", url)
        assert status == "TypeError: Failed to fetch"
