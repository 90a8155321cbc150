"""Where a login comes back to: to this daemon's own port, or to another of this machine (RFC 8252 section 7.3)."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from bearerd.core.targets import Origin, parse_origin

CALLBACK: Final = "/-/callback"
_OF_ALL: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # what is replaced, not what is listened on


@dataclass(frozen=True, slots=True)
class Place:
    """One path on one port of this machine, on each of the literal addresses `hosts`."""

    authority: str
    hosts: tuple[str, ...]
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Landing:
    """The way back of one account's logins.

    The server is given `redirect_uri`, to the letter. The browser ends at `path` of `origin`, which is this
    daemon; where the redirect URI is not that itself, what listens at `relay` sends it on.
    """

    redirect_uri: str
    origin: str
    path: str
    relay: Place | None = None

    @property
    def authority(self) -> str:
        """The `Host` by which the browser has to know us, or our cookie is not sent."""
        return urlsplit(self.origin).netloc


def build_base(public_url: str | None, hosts: Collection[str], port: int) -> str:
    """The origin by which a browser reaches a daemon that listens on `port` of `hosts`."""
    if public_url is not None:
        return public_url
    host = "127.0.0.1" if "127.0.0.1" in hosts else next(iter(hosts), "127.0.0.1")
    return str(Origin("http", own_address(host), port))


def own_address(host: str) -> str:
    """The address by which this machine reaches what listens on `host`: one that stands for all is no address itself."""
    return _OF_ALL.get(host, host)


def build_login_url(base: str, account: str) -> str:
    """The page that begins a login."""
    return f"{base}/-/login/{account}"


def find_landing(redirect_uri: str | None, base: str, origins: Collection[bytes]) -> Landing:
    """`redirect_uri` is as configured; `base` is ours by default, and `origins` are all of ours.

    Raises ValueError, with a sentence for people, where no browser can come back from there.
    """
    if redirect_uri is None:
        return Landing(base + CALLBACK, base, CALLBACK)
    origin, path = parse_origin(redirect_uri)
    if str(origin).encode() in origins:
        return Landing(redirect_uri, str(origin), path or "/")
    return Landing(redirect_uri, base, CALLBACK, parse_place(redirect_uri))


def parse_place(redirect_uri: str) -> Place:
    """Where to listen for a redirect URI on this machine. Raises ValueError where that is elsewhere, or is https."""
    origin, path = parse_origin(redirect_uri)
    if origin.scheme != "http" or not origin.loopback:
        raise ValueError(
            "leads to another machine or is https, which nothing speaks here; use http and 127.0.0.1"
        )
    # Not what a resolver makes of localhost: literal addresses only (RFC 8252 section 8.3).
    hosts = ("127.0.0.1", "::1") if origin.host == "localhost" else (origin.host,)
    return Place(origin.authority, hosts, origin.port, path or "/")
