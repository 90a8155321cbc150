"""Request targets: which route a call takes and what goes upstream, on raw bytes.

The target is never decoded, normalised or re-quoted (RFC 9112 section 3.2): what the client
wrote after the route's prefix is what the upstream reads after the route's base path.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from bearerd.core.field_rules import DEFAULT_RULES, FieldRules
from bearerd.core.queries import has_parameter
from bearerd.core.redaction import Secret
from bearerd.core.rules import Rules

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::(.*))?")
_NAME: Final = re.compile(r"(?:[a-z0-9_][a-z0-9_-]*\.)*[a-z0-9_][a-z0-9_-]*\.?")
_TOKEN_NAME: Final = b"access_token"  # RFC 6750 section 2.3
_ENDS: Final = frozenset({b"", b"/", b"?"})  # what can follow a segment of a path
_BAD_HOST: Final = (
    "has a host that is neither a name nor an address; write it like https://api.example.com/v1"
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port (RFC 6454). `host` is lower case and has no brackets."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The `Host` header's value: no port where it is the scheme's own (RFC 9110 section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """True for this machine. A name that begins like an address (``127.evil.test``) is just a name."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Tls:
    """What an upstream's TLS is held against: paths of PEM files, where they are not the system's.

    `server_name` is asked for, and expected in the certificate, in place of the origin's host. `seal` is a hash of what the
    files held when the settings were read: other contents are another TLS.
    """

    ca_file: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None
    server_name: str | None = None
    seal: str = ""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An outbound proxy. `credentials` are ``user:password``."""

    origin: Origin
    credentials: Secret | None = None

    def __str__(self) -> str:
        """Its URL, with the credentials masked."""
        masked = "" if self.credentials is None else f"{self.credentials}@"
        return f"http://{masked}{self.origin.authority}"


@dataclass(frozen=True, slots=True)
class Way:
    """How an origin is reached. Connections of one way never serve another."""

    tls: Tls = Tls()
    proxy: Proxy | None = None


DIRECT: Final = Way()


def way_to_server(origin: Origin, way: Way) -> Way:
    """How an authorization server's endpoint at `origin` is reached by an account's `way`: http is on this machine."""
    return way if origin.scheme == "https" else DIRECT


@dataclass(frozen=True, slots=True)
class Route:
    """Calls under `prefix` go to `origin` under `base`, with a token of `account`.

    `prefix` and `base` are raw paths without a trailing slash; the root is the empty one. `exec_env` has variables
    that `bearerd exec` sets, each with the path that its value has after the prefix. `cookies` pass if they may, and so
    does a call with a token of the client's in its query (`query_token`).
    An upstream that is silent for `response_idle_s` seconds is given up.
    `upgrades` are the protocols, in lower case, that a client may switch its connection to. `fields` says where
    the token goes, and which of a client's fields stay here.
    `rules` say which calls may pass; without any, all may. `retry_statuses` are how the upstream says that it does not
    take the token. `disk_spool` says that bodies too large for memory are kept on disk for a replay.
    `expect_continue` says that the upstream may be asked whether it wants a body that cannot be sent again.
    `browser_app` says that the upstream's pages may do here whatever bearerd's own may.
    """

    prefix: bytes
    origin: Origin
    base: bytes
    account: str
    exec_env: tuple[tuple[str, str], ...] = ()
    cookies: bool = True
    query_token: bool = False
    way: Way = DIRECT
    response_idle_s: float | None = None
    upgrades: frozenset[bytes] = frozenset({b"websocket"})
    fields: FieldRules = DEFAULT_RULES
    rules: Rules | None = None
    retry_statuses: frozenset[int] = frozenset({401})
    disk_spool: bool = False
    expect_continue: bool = True
    browser_app: bool = False

    @property
    def name(self) -> str:
        """How the route is written in the configuration, for people and labels."""
        return self.prefix.decode("latin-1") or "/"


def parse_origin(url: str) -> tuple[Origin, str]:
    """Split an absolute URL into its origin and its path.

    Raises ValueError with a reason that names the cure, never the URL: it may hold a password.
    """
    if any(not "!" <= char <= "~" for char in url):
        raise ValueError("has a space, a control or a non-ASCII character; percent-encode it")
    try:
        parts = urlsplit(url)
    except ValueError:  # its text quotes the URL
        raise ValueError(_BAD_HOST) from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("is not an http or https URL; write it like https://api.example.com/v1")
    if "@" in parts.netloc:
        raise ValueError("has a user name in it; take out everything before the @")
    if "?" in url or "#" in url:
        raise ValueError(
            "has a query or a fragment; take it out, for only scheme, host, port and path belong here"
        )
    authority = _AUTHORITY.fullmatch(parts.netloc.lower())
    if authority is None:
        raise ValueError(_BAD_HOST)
    host, port = _parse_host(authority[1]), _parse_port(authority[2])
    return Origin(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme]), parts.path


def _parse_host(host: str) -> str:
    if not host:
        raise ValueError("names no host; write it like https://api.example.com/v1")
    if not host.startswith("["):
        if not _NAME.fullmatch(host):
            raise ValueError(_BAD_HOST)
        return host
    try:
        zone = IPv6Address(host[1:-1]).scope_id
    except ValueError:
        zone = host
    if zone:
        raise ValueError(_BAD_HOST)
    return host[1:-1]


def _parse_port(port: str | None) -> int | None:
    if not port:
        return None
    if not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
        raise ValueError("has a port that is no number from 1 to 65535; mend it")
    return int(port)


def parse_route(prefix: str, upstream: str, account: str) -> Route:
    """A route from its written form. Raises ValueError as `parse_origin` does."""
    origin, base = parse_origin(upstream)
    return Route(_parse_prefix(prefix), origin, base.rstrip("/").encode("ascii"), account)


def _parse_prefix(prefix: str) -> bytes:
    if not prefix.startswith("/"):
        raise ValueError("does not begin with a slash; write it like /service/")
    if any(not "!" <= char <= "~" or char in "?#\\%" for char in prefix):
        raise ValueError("has a character other than plain path characters; write it like /service/")
    if prefix.rstrip("/") == "/-" or prefix.startswith("/-/"):
        raise ValueError("lies under /-/, which belongs to bearerd itself; choose another prefix")
    if "//" in prefix or any(part in {".", ".."} for part in prefix.split("/")):
        raise ValueError("has an empty, . or .. segment; write it like /service/")
    return prefix.rstrip("/").encode("ascii")


def sort_routes(routes: Iterable[Route]) -> tuple[Route, ...]:
    """Longest prefix first, the order in which `match_route` tries them."""
    return tuple(sorted(routes, key=lambda route: len(route.prefix), reverse=True))


def path_of(target: bytes) -> bytes:
    """The raw path of an origin-form target: everything before the first question mark."""
    return target.partition(b"?")[0]


def has_token(target: bytes) -> bool:
    """Whether the query has a bearer token, however its name is spelt."""
    return has_parameter(target, _TOKEN_NAME)


def match_route(routes: tuple[Route, ...], target: bytes) -> Route | None:
    """The first of `routes` whose prefix is the path or ends at one of its slashes."""
    for route in routes:
        prefix = route.prefix
        if target.startswith(prefix) and target[len(prefix) : len(prefix) + 1] in _ENDS:
            return route
    return None


def build_target(route: Route, target: bytes) -> bytes:
    """The origin-form target for the upstream: base path, then the client's bytes after the prefix."""
    rest = route.base + target[len(route.prefix) :]
    return rest if rest.startswith(b"/") else b"/" + rest


def in_control(target: bytes) -> bool:
    """True for what lies under the reserved prefix ``/-/`` and is never forwarded."""
    return target.startswith(b"/-") and target[2:3] in _ENDS
