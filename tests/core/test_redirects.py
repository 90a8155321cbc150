"""Where logins come back to."""

import pytest

from bearerd.core.accounts import Account, Grant, OAuthSource, Source, StaticSource
from bearerd.core.configuration import Configuration, Keys, Listen
from bearerd.core.reach import build_reach
from bearerd.core.redaction import Secret
from bearerd.core.redirects import Landing, Place, build_base, build_login_url, find_landing, parse_place

OURS = frozenset({b"http://127.0.0.1:6750", b"http://localhost:6750", b"https://public.test"})
BASE = "http://127.0.0.1:6750"


@pytest.mark.parametrize(
    ("public_url", "hosts", "expected"),
    [
        (None, ("127.0.0.1", "::1"), "http://127.0.0.1:6750"),
        (None, ("::1", "127.0.0.1"), "http://127.0.0.1:6750"),
        (None, ("::1",), "http://[::1]:6750"),
        (None, ("127.0.0.2",), "http://127.0.0.2:6750"),
        ("https://public.test", ("127.0.0.1",), "https://public.test"),
    ],
)
def test_our_own_address(public_url: str | None, hosts: tuple[str, ...], expected: str) -> None:
    assert build_base(public_url, hosts, 6750) == expected
    assert build_login_url(expected, "work") == f"{expected}/-/login/work"


@pytest.mark.parametrize(
    ("uri", "origin", "path"),
    [
        (None, BASE, "/-/callback"),
        ("http://127.0.0.1:6750/-/callback", BASE, "/-/callback"),
        ("http://localhost:6750/cb/", "http://localhost:6750", "/cb/"),
        ("http://localhost:6750", "http://localhost:6750", "/"),
        ("https://public.test/cb", "https://public.test", "/cb"),
    ],
)
def test_on_our_own_port(uri: str | None, origin: str, path: str) -> None:
    landing = find_landing(uri, BASE, OURS)
    assert landing == Landing(uri or f"{BASE}/-/callback", origin, path)
    assert f"//{landing.authority}" in origin


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("http://127.0.0.1:8400/cb", Place("127.0.0.1:8400", ("127.0.0.1",), 8400, "/cb")),
        ("http://localhost:8400", Place("localhost:8400", ("127.0.0.1", "::1"), 8400, "/")),
        ("http://[::1]:8400/a/b", Place("[::1]:8400", ("::1",), 8400, "/a/b")),
        ("http://localhost/cb", Place("localhost", ("127.0.0.1", "::1"), 80, "/cb")),
    ],
)
def test_threat_16_on_another_port_by_literal_addresses(uri: str, place: Place) -> None:
    assert parse_place(uri) == place
    assert find_landing(uri, BASE, OURS) == Landing(uri, BASE, "/-/callback", place)


@pytest.mark.parametrize(
    "uri",
    [
        "https://localhost:8400/cb",
        "http://example.com/cb",
        "http://127.evil.test/cb",
        "http://10.0.0.1/cb",
        "x:y",
    ],
)
def test_nowhere(uri: str) -> None:
    with pytest.raises(ValueError, match="; "):
        find_landing(uri, BASE, OURS)


def test_reach_of_a_configuration() -> None:
    sources: dict[str, Source] = {
        "a": OAuthSource(Grant.AUTHORIZATION_CODE, "id", redirect_uri="http://localhost:6750/cb"),
        "b": OAuthSource(Grant.AUTHORIZATION_CODE, "id"),
        "off": OAuthSource(Grant.AUTHORIZATION_CODE, "id", login=False),
        "machine": OAuthSource(Grant.CLIENT_CREDENTIALS, "id"),
        "static": StaticSource(Secret("t")),
    }
    accounts = {name: Account(name, source) for name, source in sources.items()}
    reach = build_reach(Configuration(accounts, (), Listen(port=6750)), 6750, "x")
    assert set(reach.landings) == {"a", "b"}
    assert reach.guard.callbacks == {b"/cb", b"/-/callback"}
    assert reach.login_urls == {"a": f"{BASE}/-/login/a", "b": f"{BASE}/-/login/b"}
    assert reach.mend_url("a") == f"{BASE}/-/login/a"
    assert reach.mend_url("machine") == f"{BASE}/-/"


@pytest.mark.parametrize(
    ("hosts", "base", "served"),
    [
        (("10.0.0.5",), "http://10.0.0.5:6750", {b"10.0.0.5:6750"}),
        (("fd00::1", "127.0.0.1"), BASE, {b"[fd00::1]:6750"}),
        (("0.0.0.0",), BASE, set()),
        (("::",), "http://[::1]:6750", set()),
        (("127.0.0.2",), "http://127.0.0.2:6750", set()),
    ],
)
def test_other_addresses_are_served_by_themselves(
    hosts: tuple[str, ...], base: str, served: set[bytes]
) -> None:
    """One that stands for all is no address, and nobody is served under it."""
    listen = Listen(hosts=hosts, port=6750)
    reach = build_reach(Configuration({}, (), listen, keys=Keys("required")), 6750, "x")
    usual = build_reach(Configuration({}, ()), 6750, "x")
    assert reach.base == base
    assert reach.guard.authorities == usual.guard.authorities | served
    assert (reach.guard.keyed, usual.guard.keyed) == (True, False)


def test_a_redirect_uri_that_leads_nowhere_names_its_setting() -> None:
    source = OAuthSource(Grant.AUTHORIZATION_CODE, "id", redirect_uri="https://example.com/cb")
    with pytest.raises(ValueError, match=r"^accounts\.a\.redirect_uri: leads to another machine"):
        build_reach(Configuration({"a": Account("a", source)}, ()), 6750, "x")
