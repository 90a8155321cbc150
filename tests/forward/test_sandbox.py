"""Pages of an upstream on the wire (threat 19): in a sandbox however they come, and without service workers."""

from collections.abc import Iterator
from typing import Final

import pytest

from callers import FRESH, Client, kept, pair
from faults import pause, read, reply, send, serve

pytestmark = pytest.mark.threat(19)

OURS: Final = b"Content-Security-Policy: sandbox allow-scripts allow-forms"
PAGE: Final = reply(b"<script>evil()</script>", "200 OK", "Content-Type: text/html")
TO_A_PAGE: Final = ("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
OLD: Final = ("Accept: text/html,*/*;q=0.8", "Accept-Language: en")


@pytest.fixture(autouse=True, params=[False, True], ids=["new connection", "kept connection"])
def _connection(request: pytest.FixtureRequest) -> Iterator[None]:
    token = kept.set(request.param)
    yield
    kept.reset(token)


async def policies(client: Client, start_line: str, *fields: str) -> tuple[int, list[bytes]]:
    """The status of the answer, and its lines that are policies."""
    client.write(f"{start_line} HTTP/1.1", *fields)
    raw = await client.answer()
    lines = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
    return int(raw.split()[1]), [
        line for line in lines if line.lower().startswith(b"content-security-policy:")
    ]


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, PAGE),
        (200, reply(b"<script>", "200 OK", "Content-Type: application/octet-stream")),
        (200, reply(b"<script>")),  # of whatever type the browser takes it for
        (200, reply(b"<script>", "200 OK", "Connection: Content-Security-Policy, X")),
        (200, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        (302, reply(b"", "302 Found", "Location: /x", "Set-Cookie: a=b")),
        (304, b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
        (404, reply(b"<script>", "404 Not Found")),
        (500, reply(b"<script>", "500 No")),
    ],
)
async def test_what_a_browser_may_show_is_in_a_sandbox(status: int, answer: bytes) -> None:
    async with pair([serve(answer)]) as (client, server):
        client.write("GET /x HTTP/1.1", *TO_A_PAGE)
        head = await client.head()
        assert int(head.split()[1]) == status
        assert head.count(OURS + b"\r\n") == 1
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "fields", [TO_A_PAGE, OLD, ("Sec-Fetch-Dest: iframe",), ("Upgrade-Insecure-Requests: 1",)]
)
async def test_however_it_is_asked_for(fields: tuple[str, ...]) -> None:
    async with pair([serve(PAGE)]) as (client, _):
        assert await policies(client, "GET /", *fields) == (200, [OURS])
        assert await policies(client, "POST /", *fields) == (200, [OURS])


async def test_a_client_of_http_1_0_and_an_answer_without_end() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<script>"
    async with pair([read, send(answer[:30]), pause(0.05), send(answer[30:])]) as (client, _):
        client.write("GET / HTTP/1.0", *TO_A_PAGE)
        assert OURS in (await client.rest()).partition(b"\r\n\r\n")[0]


@pytest.mark.parametrize(
    "theirs",
    [
        [b"Content-Security-Policy: default-src 'self'"],
        [b"content-security-policy: sandbox allow-scripts allow-same-origin"],
        [b"CONTENT-SECURITY-POLICY:", b"Content-Security-Policy: ,;,"],
        [b"Content-Security-Policy: sandbox allow-same-origin, sandbox allow-top-navigation", b"X: y"],
    ],
)
async def test_a_policy_of_the_upstream_stays_beside_ours(theirs: list[bytes]) -> None:
    answer = PAGE.replace(b"\r\n\r\n", b"\r\n" + b"\r\n".join(theirs) + b"\r\n\r\n", 1)
    async with pair([serve(answer)]) as (client, _):
        client.write("GET / HTTP/1.1", *TO_A_PAGE)
        lines = (await client.answer()).partition(b"\r\n\r\n")[0].split(b"\r\n")
    named = [line for line in lines if line.lower().startswith(b"content-security-policy")]
    assert [line.replace(b": ", b":") for line in named] == [
        line.replace(b": ", b":") for line in [*(t for t in theirs if not t.startswith(b"X")), OURS]
    ]


async def test_a_replay_and_a_second_401_are_in_it_too() -> None:
    no = reply(b"<script>", "401 Unauthorized")
    async with pair([serve(no, PAGE, no, no)], source=FRESH) as (client, server):
        assert await policies(client, "GET /", *TO_A_PAGE) == (200, [OURS])
        assert await policies(client, "GET /", *TO_A_PAGE) == (401, [OURS])
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("Accept: text/html",),
        (
            "Sec-Fetch-Mode: cors",
            "Sec-Fetch-Dest: empty",
            "Sec-Fetch-Site: same-origin",
            "Accept-Language: en",
        ),
        ("Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image", "Sec-Fetch-Site: none"),
    ],
)
async def test_all_else_is_as_it_was(fields: tuple[str, ...]) -> None:
    async with pair([serve(PAGE)]) as (client, _):
        client.write("GET / HTTP/1.1", *fields)
        await client.exactly(PAGE)


@pytest.mark.parametrize("value", ["script", "", "Script"])
async def test_no_worker_is_installed(value: str) -> None:
    async with pair([serve(PAGE)]) as (client, server):
        client.write("GET /worker.js HTTP/1.1", f"Service-Worker: {value}", "Sec-Fetch-Site: same-origin")
        status, problem = await client.problem()
        assert (status, problem["code"]) == (403, "worker_refused")
        assert "browser_app" in problem["detail"]
        client.write("GET /worker.js HTTP/1.1")
        await client.exactly(PAGE)
        assert len(server.requests) == 1


async def test_an_application_that_is_trusted() -> None:
    async with pair([serve(PAGE)], browser_app=True) as (client, server):
        client.write("GET / HTTP/1.1", *TO_A_PAGE)
        await client.exactly(PAGE)
        client.write("GET /worker.js HTTP/1.1", "Service-Worker: script", "Sec-Fetch-Site: same-origin")
        await client.exactly(PAGE)
        assert b"\r\nService-Worker: script\r\n" in server.requests[1]


OWN: Final = [
    *("/-/", "/-", "/-/status", "/-/livez", "/-/readyz", "/-/healthz", "/-/login", "/-/login/work"),
    *("/-/logout/work", "/-/callback", "/-/callback?code=x&state=y", "/-/nothing", "/-/login/nobody"),
]


@pytest.mark.parametrize("fields", [TO_A_PAGE, (), ("Sec-Fetch-Dest: iframe", "Sec-Fetch-Mode: navigate")])
async def test_nothing_of_ours_is_shown_in_a_frame(fields: tuple[str, ...]) -> None:
    async with pair([serve(PAGE)]) as (client, server):
        for start_line in [f"{method} {path}" for path in OWN for method in ("GET", "POST")]:
            client.write(f"{start_line} HTTP/1.1", *fields)
            head = (await client.answer()).partition(b"\r\n\r\n")[0]
            assert b"\r\nX-Frame-Options: DENY" in head, start_line
            assert b"frame-ancestors 'none'" in head, start_line
            assert b"\r\nX-Content-Type-Options: nosniff" in head, start_line
        assert server.requests == []
