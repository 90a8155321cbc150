"""Logins in a browser, on real sockets: what a person does, and what others try (threats 7, 15, 16, 17)."""

import asyncio
import re
import socket
from base64 import b64encode
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import aiohttp
import pytest

from bearerd.control.login_pages import build_closing
from bearerd.core.accounts import ClientAuth, Grant, OAuthSource, StaticSource
from bearerd.core.client_keys import ClientKey, build_document, build_key, digest_of
from bearerd.core.configuration import Keys, Listen
from bearerd.core.pages import render
from bearerd.core.redaction import Secret
from bearerd.errors import ConfigError
from faults import refused_port
from login_server import LoginServer
from login_world import CROSS_SITE, Answer, Browser, World, raw_url, world


class TestLogin:
    async def test_from_a_call_to_its_answer(self) -> None:
        async with world() as made, Browser() as browser:
            asked = await browser.go(f"{made.url}/me/hello?a=1&b=%20")
            assert asked.status == 503
            link = re.search(r'href="(/-/login/me\?return_to=[^"]*)"', asked.source)
            assert link is not None
            done = await browser.follow(await made.approved(browser, unescape(link[1])))
            assert done.status == 200
            assert "Account me is logged in as someone@example.com." in done.text
            refresh = re.search(r'http-equiv="refresh" content="\d+; url=([^"]*)"', done.source)
            assert refresh is not None
            assert unescape(refresh[1]) == "/me/hello?a=1&b=%20"
            assert f'<a class="button" href="{refresh[1]}">' in done.source
            assert (await browser.go(made.url + unescape(refresh[1]))).status == 200
            assert made.server.token_requests == 1

    async def test_what_nothing_can_renew_is_called_so(self) -> None:
        async with world() as made, Browser() as browser:
            made.server.lasting = False
            assert (
                "It ends with its first token: the server gave no refresh token;"
                in (await made.log_in(browser)).text
            )
            made.server.lasting = True
            assert "first token" not in (await made.log_in(browser)).text

    async def test_the_only_account_needs_no_name(self) -> None:
        async with world() as made, Browser() as browser:
            assert (await made.begin(browser, "/-/login")).startswith(made.server.issuer)

    async def test_of_several_a_person_chooses(self) -> None:
        second = OAuthSource(Grant.AUTHORIZATION_CODE, "x", issuer="http://[::1]:9")
        async with world(others={"work": second}) as made, Browser() as browser:
            page = await browser.go(f"{made.url}/-/login?return_to=/me/x")
            assert page.status == 200
            assert 'href="/-/login/me?return_to=%2Fme%2Fx"' in page.source
            assert 'href="/-/login/work?return_to=%2Fme%2Fx"' in page.source

    async def test_where_clients_have_keys_a_person_shows_one_and_comes_back_without(
        self, tmp_path: Path
    ) -> None:
        """What comes back is from elsewhere, and has a state that only the one who began can have."""
        key = build_key(bytes(32)).reveal()
        path = tmp_path / "keys.json"
        path.write_text(build_document([ClientKey("laptop", digest_of(key.encode()), 0)]))
        path.chmod(0o600)
        shown = {"Authorization": f"Basic {b64encode(f'me:{key}'.encode()).decode()}"}
        async with (
            world(keys=Keys("required", str(path))) as made,
            Browser() as browser,
            Browser() as stranger,
        ):
            for url in ("/-/login/me", "/-/login", "/-/"):
                asked = await browser.go(made.url + url)
                assert asked.status == 401
                assert asked.headers["WWW-Authenticate"].startswith("Basic ")
            assert (await browser.post(f"{made.url}/-/logout/me", {})).status == 401
            began = await browser.go(f"{made.url}/-/login/me", **shown)
            back = (await browser.go(began.location)).location
            await made.refused(stranger, back, "begun elsewhere")
            assert (await browser.follow(back)).status == 200
            assert made.state() == "active"
            assert (await browser.go(f"{made.url}/me/hello")).status == 401
            assert (await browser.go(f"{made.url}/me/hello", **shown)).status == 200
            assert all(b"bearerd_" not in value for call in made.api.calls for _, value in call.raw_headers)

    async def test_where_nobody_may_log_in_there_is_nothing(self) -> None:
        static = StaticSource(Secret("static-token"))
        async with world(others={"static": static}, login=False) as made, Browser() as browser:
            for path in (
                "login",
                "login/me",
                "login/static",
                "login/none",
                "login/",
                "callback?code=c&state=s",
            ):
                answer = await browser.go(f"{made.url}/-/{path}")
                assert answer.status == 404, path
            for account in ("me", "static", "none"):
                assert (await browser.post(f"{made.url}/-/logout/{account}", {})).status == 404

    async def test_pages_are_read_with_get_and_never_by_accident(self) -> None:
        async with world() as made, aiohttp.ClientSession() as http:
            for method in ("HEAD", "POST", "PUT", "OPTIONS"):
                for path in ("login", "login/me", "callback?code=c&state=s"):
                    async with http.request(method, f"{made.url}/-/{path}") as response:
                        assert response.status == 405
            async with http.get(f"{made.url}/-/logout/me") as response:
                assert (response.status, response.headers["Allow"]) == (405, "POST")
            assert made.state() == "login_required"

    async def test_the_cookie_is_for_the_callback_alone(self) -> None:
        async with world() as made, Browser() as browser:
            answer = await browser.go(f"{made.url}/-/login/me")
            cookie = answer.headers["Set-Cookie"]
            assert re.fullmatch(
                r"bearerd_login_[0-9a-f]{8}=[\w-]{43}; Max-Age=600; Path=/-/callback; HttpOnly; SameSite=Lax",
                cookie,
            )
            assert cookie.partition(";")[0].partition("=")[2] not in answer.location
            assert browser.cookies(f"{made.url}/-/callback")
            assert not browser.cookies(f"{made.url}/me/hello")
            done = await browser.follow((await browser.go(answer.location)).location)
            assert "Max-Age=0" in done.headers["Set-Cookie"]
            assert not browser.cookies(f"{made.url}/-/callback")

    async def test_another_of_our_hosts_leads_to_that_of_the_redirect_uri_first(self) -> None:
        async with world() as made, Browser() as browser:
            other = f"http://localhost:{made.daemon.port}"
            answer = await browser.go(f"{other}/-/login/me?return_to=/me/x%3Fa%3D1")
            assert answer.status == 302
            assert "Set-Cookie" not in answer.headers
            assert answer.location.startswith(f"{made.url}/-/login/me?")
            done = await browser.follow(
                (await browser.go((await browser.follow(answer.location)).location)).location
            )
            assert 'href="/me/x?a=1"' in done.source

    async def test_a_server_in_front_that_shows_us_another_host_makes_no_circle(self) -> None:
        """Its own public URL is where the browser is; the Host that arrives may be any of ours."""
        async with world(Listen(port=0, public_url="https://public.test")) as made, Browser() as browser:
            first = await browser.go(f"{made.url}/-/login/me")
            assert first.location.startswith("https://public.test/-/login/me?")
            inside = first.location.replace("https://public.test", made.url)
            second = await browser.follow(inside)
            assert second.location.startswith(made.server.issuer)
            query = parse_qs(urlsplit(second.location).query)
            assert query["redirect_uri"] == ["https://public.test/-/callback"]
            assert second.headers["Set-Cookie"].endswith("; Secure")

    async def test_a_server_that_cannot_be_asked_is_told_of(self) -> None:
        async with world(issuer="http://[::1]:9") as made, Browser() as browser:
            answer = await browser.go(f"{made.url}/-/login/me")
            assert answer.status == 503
            assert "The login cannot begin" in answer.text
            assert "the issuer cannot be reached" in answer.text.lower()
            assert made.state() == "login_required"

    async def test_what_the_token_endpoint_refuses(self) -> None:
        async with world() as made, Browser() as browser:
            await made.log_in(browser)
            made.server.error = "invalid_grant"
            answer = await browser.follow(await made.approved(browser))
            assert answer.status == 502
            assert "invalid_grant" in answer.text
            assert (await browser.go(f"{made.url}/me/x")).status == 200


class TestBadInput:
    """Each is a plain page and no token request, and the login before it stays good."""

    async def test_threat_7_a_state_made_up_replayed_or_unsolicited(self) -> None:
        async with world() as made, Browser() as browser:
            for query in ("code=c&state=made-up", "code=c", "code=c&state="):
                await made.refused(browser, f"{made.url}/-/callback?{query}", "")
            callback = await made.approved(browser)
            assert (await browser.follow(callback)).status == 200
            await made.refused(browser, callback, "it was used")
            assert (await browser.go(f"{made.url}/me/x")).status == 200

    async def test_threat_7_another_browser_s_state(self) -> None:
        """Login CSRF: a victim's browser, or one with no cookie at all, opens the attacker's callback."""
        async with world() as made, Browser() as mine, Browser() as theirs:
            callback = await made.approved(theirs)
            await made.refused(mine, callback, "begun elsewhere")
            assert (await theirs.follow(callback)).status == 200

    async def test_threat_7_a_cookie_of_another_login_does_not_fit(self) -> None:
        async with world() as made, Browser() as browser:
            callback = await made.approved(browser)
            (name,) = browser.cookies(f"{made.url}/-/callback")
            async with aiohttp.ClientSession() as http:
                for value in ("", "x" * 43):
                    fields = CROSS_SITE | {"Cookie": f"{name}={value}"}
                    async with http.get(callback, headers=fields) as response:
                        assert response.status == 400
            assert made.server.token_requests == 0

    async def test_threat_7_a_terminal_s_state_in_a_browser(self) -> None:
        async with world() as made, Browser() as browser:
            url, _ = await made.daemon.logins.begin(
                "me", redirect_uri=f"{made.url}/-/callback", binding=Secret("the terminal's own")
            )
            callback = (await browser.go(url)).location
            before = made.server.token_requests
            answer = await browser.follow(callback)
            assert answer.status == 400
            assert "Copy this page's whole address, paste it into the terminal" in answer.text
            assert made.server.token_requests == before
            done = await made.daemon.logins.paste("me", callback, Secret("the terminal's own"))
            assert done.subject == "someone@example.com"

    @pytest.mark.parametrize("iss", ["https://evil.example", "", None])
    async def test_threat_7_a_server_that_is_not_the_one_asked(self, iss: str | None) -> None:
        async with world(names_itself=True) as made, Browser() as browser:
            callback = urlsplit(await made.approved(browser))
            query = {name: values[0] for name, values in parse_qs(callback.query).items()}
            changed = {key: value for key, value in (query | {"iss": iss}).items() if value is not None}
            await browser.follow(callback._replace(query=urlencode(changed)).geturl())
            assert made.server.token_requests == 0
            assert made.state() != "active"

    async def test_threat_7_a_server_that_names_itself_rightly(self) -> None:
        async with world(names_itself=True) as made, Browser() as browser:
            await made.log_in(browser)

    async def test_a_login_that_was_replaced(self) -> None:
        async with world() as made, Browser() as browser:
            first = await made.approved(browser)
            second = await made.approved(browser)
            await made.refused(browser, first, "replaced by a newer one")
            assert (await browser.follow(second)).status == 200

    async def test_what_the_server_says_is_shown_and_escaped(self) -> None:
        async with world() as made, Browser() as browser:
            await made.log_in(browser)
            made.server.denial = ("access_denied", 'no <script>alert(1)</script> & "you"')
            answer = await made_refusal(made, browser)
            assert 'access_denied: no <script>alert(1)</script> & "you"' in unescape(answer.source)
            assert "<script>" not in answer.source
            assert (await browser.go(f"{made.url}/me/x")).status == 200

    @pytest.mark.parametrize(
        "query",
        [
            "",
            "state={state}",
            "code=c&error=access_denied&state={state}",
            "code=a&code=b&state={state}",
            "code=c&state={state}&state={state}",
            "code=c&state={state}&iss=a&iss=b",
            "code=" + "c" * 9000 + "&state={state}",
            "code=%00&state={state}",
            "code=%ff&state={state}",
            "code=%0d%0aSet-Cookie:x&state={state}",
            "&".join(f"a{n}=1" for n in range(200)) + "&code=c&state={state}",
        ],
    )
    async def test_odd_parameters(self, query: str) -> None:
        """The login goes on: nothing odd has used it up."""
        async with world() as made, Browser() as browser:
            callback = await made.approved(browser)
            (state,) = parse_qs(urlsplit(callback).query)["state"]
            url = f"{made.url}/-/callback?{query.format(state=state)}"
            async with (
                aiohttp.ClientSession() as http,
                http.get(raw_url(url), headers=CROSS_SITE) as response,
            ):
                assert response.status == 400
            assert made.server.token_requests == 0
            assert (await browser.follow(callback)).status == 200

    @pytest.mark.parametrize(
        "target",
        [
            "https://evil.test/",
            "//evil.test/",
            "/\\evil.test",
            "\\\\evil.test",
            "/\t/evil.test",
            "/a\r\nX: y",
            "javascript:alert(1)",
            "me/x",
            "",
            "/" + "a" * 5000,
        ],
    )
    async def test_threat_15_only_local_paths_are_returned_to(self, target: str) -> None:
        async with world() as made, Browser() as browser:
            done = await browser.follow(
                await made.approved(browser, f"/-/login/me?return_to={quote(target)}")
            )
            assert done.status == 200
            assert 'content="2; url=/-/"' in done.source
            assert "evil" not in done.source


async def made_refusal(made: World, browser: Browser) -> Answer:
    answer = await browser.follow(await made.approved(browser))
    assert answer.status == 400
    assert made.server.token_requests == 1
    return answer


class TestRedirectUris:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    async def test_another_path_on_our_port(self, host: str) -> None:
        port = refused_port()
        uri = f"http://{host}:{port}/oauth/done"
        async with world(Listen(port=port), redirect_uri=uri) as made, Browser() as browser:
            begun = await browser.go(f"http://{host}:{port}/-/login/me?return_to=/me/x")
            assert "Path=/oauth/done;" in begun.headers["Set-Cookie"]
            callback = (await browser.go(begun.location)).location
            assert callback.startswith(f"{uri}?")
            done = await browser.follow(callback)
            assert done.status == 200
            assert made.api.calls == []
            assert (await browser.follow(f"http://{host}:{port}/oauth/done/x")).status == 403

    async def test_threat_17_a_callback_of_ours_is_never_forwarded(self) -> None:
        port = refused_port()
        uri = f"http://127.0.0.1:{port}/me/back"
        async with world(Listen(port=port), redirect_uri=uri) as made, Browser() as browser:
            await made.log_in(browser)
            assert (await browser.go(f"{uri}?code=c&state=s")).status == 400
            assert (await browser.post(uri, {})).status == 405
            assert made.api.calls == []
            assert (await browser.go(f"http://127.0.0.1:{port}/me/backward")).status == 200

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
    async def test_another_port_is_open_only_while_a_login_is_under_way(self, host: str) -> None:
        port = refused_port()
        uri = f"http://{host}:{port}/back"
        async with world(redirect_uri=uri) as made, Browser() as browser:
            assert not is_open(host, port)
            callback = await made.approved(browser, "/-/login/me?return_to=/me/x")
            assert callback.startswith(f"{uri}?")
            assert is_open(host, port)
            on = await browser.follow(callback)
            assert on.status == 302
            assert on.location == callback.replace(uri, f"{made.url}/-/callback")
            done = await browser.follow(on.location)
            assert 'href="/me/x"' in done.source
            await closed(host, port)
            assert (await browser.go(f"{made.url}/me/x")).status == 200

    @pytest.mark.threat(1)
    async def test_another_port_answers_to_nothing_else(self) -> None:
        port = refused_port()
        async with world(redirect_uri=f"http://127.0.0.1:{port}/back") as made, Browser() as browser:
            await made.begin(browser)
            url = f"http://127.0.0.1:{port}"
            assert (await browser.go(f"{url}/")).status == 404
            assert (await browser.go(f"{url}/back/x")).status == 404
            assert (await browser.post(f"{url}/back", {})).status == 405
            assert (await browser.go(f"{url}/back?code=c", Host=f"evil.test:{port}")).status == 421
            assert (await browser.go(f"{url}/back?code=c", Host=f"localhost:{port}")).status == 421
            assert (await browser.go(f"{url}/back?code=c", Origin="https://evil.test")).status == 403
            image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
            assert (await browser.go(f"{url}/back?code=c", **image)).status == 403
            odd = "code=a%0d%0aX:%20y&state=%C3%A9'|"
            answer = await browser.go(raw_url(f"{url}/back?{odd}"))
            assert answer.location == f"{made.url}/-/callback?{odd}"

    async def test_threat_16_a_port_that_is_taken(self) -> None:
        """The browser is not sent to where another program would get the code."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            async with world(redirect_uri=f"http://localhost:{port}/back") as made, Browser() as browser:
                answer = await browser.go(f"{made.url}/-/login/me")
                assert answer.status == 503
                assert f"port {port} on 127.0.0.1 is in use by another program" in answer.text
                assert made.state() == "login_required"
            with pytest.raises(OSError, match="use"):
                socket.create_server(("127.0.0.1", port))

    async def test_threat_16_a_port_that_is_ours_is_nobody_else_s(self) -> None:
        port = refused_port()
        async with world(redirect_uri=f"http://127.0.0.1:{port}/back") as made, Browser() as browser:
            await made.begin(browser)
            with socket.socket() as squatter:
                squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                with pytest.raises(OSError, match="use"):
                    squatter.bind(("127.0.0.1", port))

    async def test_two_accounts_share_a_port_and_the_last_closes_it(self) -> None:
        uri = f"http://127.0.0.1:{refused_port()}/back"
        port = urlsplit(uri).port or 0
        async with LoginServer() as theirs:
            work = OAuthSource(
                Grant.AUTHORIZATION_CODE, "x", ClientAuth.NONE, issuer=theirs.issuer, redirect_uri=uri
            )
            async with world(others={"work": work}, redirect_uri=uri) as made, Browser() as browser:
                mine = await made.approved(browser)
                also = await made.approved(browser, "/-/login/work")
                again = await made.approved(browser)
                assert (await browser.follow((await browser.follow(mine)).location)).status == 400
                assert (await browser.follow((await browser.follow(again)).location)).status == 200
                await asyncio.sleep(0.05)
                assert is_open("127.0.0.1", port)
                assert (await browser.follow((await browser.follow(also)).location)).status == 200
                await closed("127.0.0.1", port)

    async def test_one_that_leads_elsewhere_is_a_bad_configuration(self) -> None:
        with pytest.raises(ConfigError, match=r"accounts\.me\.redirect_uri: leads to another machine"):
            async with world(redirect_uri="https://example.com/back"):
                """It does not start."""


def is_open(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        return probe.connect_ex((host.strip("[]"), port)) == 0


async def closed(host: str, port: int) -> None:
    for _ in range(500):
        if not is_open(host, port):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"port {port} of {host} is still open")


@pytest.mark.parametrize("good", [True, False])
def test_a_terminal_s_own_page_says_to_go_back_there(*, good: bool) -> None:
    page = render(build_closing("Done <b>", "the server says <i>", good=good)).decode()
    assert "<title>Done &lt;b&gt;" in page
    assert "The server says &lt;i&gt;." in page
    assert "go on in the terminal" in page


async def csrf_of(browser: Browser, made: World) -> str:
    page = await browser.go(f"{made.url}/-/")
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page.source)
    assert found is not None
    return found[1]


class TestLogout:
    async def test_by_the_button(self) -> None:
        async with world() as made, Browser() as browser:
            await made.log_in(browser)
            answer = await browser.post(f"{made.url}/-/logout/me", {"csrf": await csrf_of(browser, made)})
            assert (answer.status, answer.location) == (303, "/-/")
            assert made.server.revoked == ["refresh_token"]
            assert made.state() == "login_required"
            assert (await browser.go(f"{made.url}/me/x")).status == 503
            await made.log_in(browser)
            assert (await browser.go(f"{made.url}/me/x")).status == 200

    async def test_what_could_not_be_revoked_is_said(self) -> None:
        async with world() as made, Browser() as browser:
            await made.log_in(browser)
            token = await csrf_of(browser, made)
            await made.server.__aexit__()
            answer = await browser.post(f"{made.url}/-/logout/me", {"csrf": token})
            assert answer.status == 200
            assert "Logged out, but not everywhere" in answer.text
            assert made.state() == "login_required"

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"},
            {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
            {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
            {"Origin": "http://localhost:{port}", "Sec-Fetch-Site": "cross-site"},
            {"Origin": "http://localhost:{port}"},
            {"Origin": "http://localhost:{port}", "Sec-Fetch-Site": ""},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "none"},
            {},
        ],
    )
    async def test_threat_17_another_site_s_page(self, headers: dict[str, str]) -> None:
        """Even one that has got hold of the token: the browser says where it comes from."""
        async with world() as made, Browser() as browser:
            await made.log_in(browser)
            form = {"csrf": await csrf_of(browser, made)}
            fields = {name: value.format(port=made.daemon.port) for name, value in headers.items()}
            answer = await browser._ask("POST", f"{made.url}/-/logout/me", fields, form)
            assert answer.status == 403
            assert made.state() == "active"
            assert made.server.revoked == []

    async def test_threat_17_a_token_of_nobody_or_of_another_browser(self) -> None:
        async with world() as made, Browser() as browser, Browser() as other:
            await made.log_in(browser)
            mine, theirs = await csrf_of(browser, made), await csrf_of(other, made)
            assert mine != theirs
            for form in (
                {},
                {"csrf": ""},
                {"csrf": theirs},
                {"csrf": "0" * 64},
                {"csrf": mine, "x": "y" * 5000},
            ):
                refused = await browser.post(f"{made.url}/-/logout/me", form)
                assert refused.status == 403
                assert "form_refused" in refused.text
            json = await browser.post(
                f"{made.url}/-/logout/me", {"csrf": mine}, **{"Content-Type": "text/plain"}
            )
            assert json.status == 403
            assert made.state() == "active"

    async def test_a_token_is_good_as_long_as_its_cookie(self) -> None:
        async with world() as made, Browser() as browser:
            first = await csrf_of(browser, made)
            assert await csrf_of(browser, made) == first
            assert "Set-Cookie" not in (await browser.go(f"{made.url}/-/")).headers


class TestUpstream:
    @pytest.mark.threat(13)
    async def test_our_cookies_never_go_there(self) -> None:
        async with world() as made, Browser() as browser:
            await made.log_in(browser)
            cookie = "a=1; bearerd_csrf=x; b=2; bearerd_login_0011=y"
            await browser.go(f"{made.url}/me/x", Cookie=cookie)
            await browser.go(f"{made.url}/me/x", Cookie="bearerd_csrf=x")
        assert made.api.calls[0].values(b"cookie") == [b"a=1; b=2"]
        assert made.api.calls[1].values(b"cookie") == []

    async def test_programs_get_json_and_no_redirect(self) -> None:
        async with world() as made, aiohttp.ClientSession() as http:
            for accept in ("*/*", "application/json", "text/event-stream"):
                async with http.get(f"{made.url}/me/x", headers={"Accept": accept}) as response:
                    assert response.status == 503
                    problem = await response.json(content_type="application/problem+json")
                    assert response.headers["x-should-retry"] == "false"
                assert problem["code"] == "login_required"
                assert problem["login_url"] == f"{made.url}/-/login/me"

    async def test_threat_17_an_upstream_sees_nothing_of_our_paths(self) -> None:
        async with world() as made, Browser() as browser:
            for path in ("/-/", "/-/login/me", "/-/callback?code=c&state=s", "/-/nope", "/-/logout/me"):
                await browser.go(made.url + path)
            assert made.api.calls == []


@pytest.mark.threat(9)
@pytest.mark.parametrize(
    "path", ["/-/", "/-/login", "/-/login/me", "/-/callback", "/-/nope", "/-/status", "/-/livez", "/me/x"]
)
async def test_fields_of_every_page(path: str) -> None:
    second = OAuthSource(Grant.AUTHORIZATION_CODE, "x", issuer="http://[::1]:9")
    async with world(others={"work": second}, issuer="http://[::1]:9") as made, Browser() as browser:
        answer = await browser.go(made.url + path)
    fields = answer.headers
    assert fields["Cache-Control"] == "no-store"
    assert fields["Referrer-Policy"] == ("same-origin" if path == "/-/" else "no-referrer")
    assert fields["X-Content-Type-Options"] == "nosniff"
    assert fields["X-Frame-Options"] == "DENY"
    policy = fields["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    if fields["Content-Type"].startswith("text/html"):
        assert fields["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "//" not in re.sub(r"https?://(127\.0\.0\.1|\[::1\]|www\.w3\.org)", "", answer.source)
