"""Who may call, and with what kind of request: decided before anything else looks at it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from bearerd.core.fields import Fields, RawFields
from bearerd.core.limits import HEAD_LIMIT, HEAD_TOO_LARGE
from bearerd.core.problems import Problem
from bearerd.core.targets import in_control, path_of
from bearerd.core.traces import Trail, parse_traceparent

_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
_LOCALHOST: Final = re.compile(rb"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?")
_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_TELLING: Final = frozenset(
    {b"transfer-encoding", b"upgrade", b"origin", b"sec-fetch-site", b"max-forwards", b"via"}
)
_DOCUMENT: Final = (b"navigate", b"document")
_OURS_OR_NOBODYS: Final = frozenset({b"same-origin", b"none"})  # none: a person's, in the address bar


@dataclass(frozen=True, slots=True)
class Guard:
    """What this daemon answers to: exact `Host` values, the origins of its own pages, its Via pseudonym.

    `callbacks` are raw paths where logins come back to, other than those under the control prefix. `foreign` are origins
    of other pages that may make calls. `keyed` says that no call is made without a client's key, whoever's page
    makes it. `any_localhost` is for what no web page can reach, and no port belongs to.
    """

    authorities: frozenset[bytes]
    origins: frozenset[bytes]
    pseudonym: bytes
    callbacks: frozenset[bytes] = frozenset()
    foreign: frozenset[bytes] = frozenset()
    keyed: bool = False
    any_localhost: bool = False


class Head(Fields):
    """The head of a request as it was read: method, target and fields in raw bytes, version as a pair.

    `grant` are fields that whatever answers it has beside its own (`cors.grant`). `key` is the name of the client's key, if
    it has shown one. `request_id` is what the call is called in logs, once that is asked for; `trail` is its way so far,
    if that is recorded.
    """

    __slots__ = ("grant", "key", "method", "request_id", "target", "trail", "version")

    def __init__(self, method: str, target: bytes, version: tuple[int, int], fields: RawFields) -> None:
        super().__init__(fields)
        self.method = method
        self.target = target
        self.version = version
        self.grant: RawFields = ()
        self.key: str | None = None
        self.request_id: str | None = None
        self.trail: Trail | None = None

    def become(self, fields: RawFields, key: str | None) -> None:
        """What it is without the keys that were in it, and whose call it is."""
        super().__init__(fields)
        self.key = key

    @property
    def trace_id(self) -> str | None:
        """Of the trace that the call is in: the one that is recorded, or else the client's."""
        if self.trail is not None:
            return self.trail.context.trace_id
        client = (
            None if b"traceparent" not in self.names.places else parse_traceparent(self.every(b"traceparent"))
        )
        return None if client is None else client.trace_id


def build_guard(
    port: int,
    allowed_hosts: Iterable[str],
    pseudonym: str,
    public_url: str | None = None,
    allowed_origins: Iterable[str] = (),
    *,
    keyed: bool = False,
) -> Guard:
    """The guard of a daemon on `port`. Port 80 is the one a client may leave out (RFC 9110 section 4.2.1).

    `public_url` is an origin. Its scheme is its own: a page of the other scheme is another site's.
    """
    own = {f"{name}:{port}" for name in _NAMES} | (set(_NAMES) if port == 80 else set())
    authorities = own | {host.lower() for host in allowed_hosts}
    origins = {f"http://{name}" for name in authorities}
    if public_url is not None:
        origins.add(public_url)
        authorities.add(public_url.partition("://")[2])
    return Guard(
        frozenset(name.encode() for name in authorities),
        frozenset(origin.encode() for origin in origins),
        pseudonym.encode(),
        foreign=frozenset(origin.encode() for origin in allowed_origins if origin not in origins),
        keyed=keyed,
    )


def for_socket(guard: Guard) -> Guard:
    """The same guard for a Unix socket: there `localhost` has no port, or any that a client makes up."""
    bare = frozenset(f"http://{name}".encode() for name in _NAMES)
    return replace(guard, any_localhost=True, origins=guard.origins | bare)


def is_own(guard: Guard, target: bytes) -> bool:
    """True for what this daemon answers itself and never forwards."""
    return in_control(target) or (bool(guard.callbacks) and path_of(target) in guard.callbacks)


def is_same_origin(guard: Guard, head: Head) -> bool:
    """True where a browser says that a page of the very origin it asks has sent this; `refuse` let it pass.

    No proof at all is none. A TLS server in front may have changed Host, but not Origin.
    """
    origin, site = head.get(b"origin"), head.get(b"sec-fetch-site")
    if site is not None and site != b"same-origin":
        return False
    if origin is None:
        return site is not None
    host = (head.get(b"host") or b"").lower()
    return origin in guard.origins and (site is not None or origin.partition(b"://")[2] == host)


def foreign_origin(guard: Guard, head: Head) -> bytes | None:
    """The origin of another page that has sent this, if it is one that may make calls."""
    origins = head.every(b"origin")
    return origins[0] if len(origins) == 1 and origins[0] in guard.foreign else None


def origin_form(guard: Guard, target: bytes) -> bytes:
    """`target`, or its path where it is an absolute URL of this daemon's own (RFC 9112 section 3.2.2)."""
    if not target.startswith(b"/"):
        for origin in guard.origins:
            if target.startswith(origin + b"/"):
                return target[len(origin) :]
    return target


def refuse(guard: Guard, head: Head, *, vouched: bool = False) -> Problem | None:
    """The problem with a request, or None for one that may go on. The first rule that speaks decides.

    `vouched` says that it does not matter whose page has sent it.
    """
    return (
        _refuse_method(head)
        or (HEAD_TOO_LARGE if head.size > HEAD_LIMIT else None)
        or _refuse_target(head)
        or _refuse_host(guard, head)
        or (None if _TELLING.isdisjoint(head.names.places) else _refuse_fields(guard, head, vouched))
    )


def _refuse_fields(guard: Guard, head: Head, vouched: bool) -> Problem | None:
    """The rules that say nothing of a request without any of the fields in `_TELLING`."""
    return (
        _refuse_framing(head)
        or (None if vouched else _refuse_origin(guard, head))
        or _refuse_loop(guard, head)
    )


def _refuse_method(head: Head) -> Problem | None:
    if head.method in {"CONNECT", "TRACE"}:
        detail = (
            f"{head.method} is not forwarded: this is a gateway to configured upstreams, not an open proxy"
        )
        return Problem(
            405, "method_refused", detail, "http_request_denied", (("Allow", _METHODS),), close=True
        )
    return None


def _refuse_target(head: Head) -> Problem | None:
    if head.version not in {(1, 0), (1, 1)}:  # the parser knows 0.9 and 2.0 too
        detail = "this version of HTTP is not spoken here; use HTTP/1.1"
        return Problem(400, "bad_request", detail, "http_request_error", close=True)
    if head.target.startswith(b"/") or (head.target == b"*" and head.method == "OPTIONS"):
        return None
    detail = "the request target must be a path: set this daemon as base URL, not as HTTP proxy"
    return Problem(421, "wrong_authority", detail, "http_request_denied", close=True)


def _refuse_host(guard: Guard, head: Head) -> Problem | None:
    """Exactly one Host, and one of ours: the defence against DNS rebinding."""
    hosts = head.every(b"host")
    if len(hosts) == 1 and hosts[0].lower() in guard.authorities:
        return None
    if len(hosts) == 1 and guard.any_localhost and _LOCALHOST.fullmatch(hosts[0].lower()):
        return None
    if len(hosts) != 1:
        detail = "there must be exactly one Host field (RFC 9112 section 3.2)"
        return Problem(400, "bad_request", detail, "http_request_error", close=True)
    detail = (
        "this Host is not served; call localhost with the right port, or add the name to listen.allowed_hosts"
    )
    return Problem(421, "wrong_authority", detail, "http_request_denied", close=True)


def _refuse_framing(head: Head) -> Problem | None:
    """What the parser lets pass and another parser may read otherwise (RFC 9112 section 6)."""
    codings = head.every(b"transfer-encoding")
    lengths = head.get(b"content-length")
    upgrades = b",".join(head.every(b"upgrade")).lower()
    single = len(codings) == 1 and codings[0].strip(b" \t").lower() == b"chunked"
    if codings and (head.version < (1, 1) or not single):
        detail = "Transfer-Encoding must be a single chunked, on HTTP/1.1"
    elif codings and lengths is not None:
        detail = "Transfer-Encoding and Content-Length exclude each other"
    elif b"websocket" in upgrades and (codings or lengths not in {None, b"0"}):
        detail = "a WebSocket handshake has no body"
    else:
        return None
    return Problem(400, "bad_request", detail, "http_request_error", close=True)


def _refuse_origin(guard: Guard, head: Head) -> Problem | None:
    """A web page is not a client: another origin's calls are refused, by Origin or by Fetch Metadata."""
    origins = set(head.every(b"origin"))
    if origins:
        allowed = foreign_origin(guard, head) is not None and not is_own(guard, head.target)
        return None if allowed or origins <= guard.origins else _cross_site()
    if _OURS_OR_NOBODYS.issuperset(head.every(b"sec-fetch-site")) or _is_own_navigation(guard, head):
        return None
    return _cross_site()


def _cross_site() -> Problem:
    detail = (
        "a page of another origin may not call this daemon, but for those in listen.allowed_origins; "
        "a page of an upstream counts as such, unless its route has browser_app"
    )
    return Problem(403, "origin_refused", detail, "http_request_denied")


def _is_own_navigation(guard: Guard, head: Head) -> bool:
    """A link or a redirect in a browser's address bar to one of our own pages."""
    fetch = (head.get(b"sec-fetch-mode"), head.get(b"sec-fetch-dest"))
    return head.method == "GET" and fetch == _DOCUMENT and is_own(guard, head.target)


def _refuse_loop(guard: Guard, head: Head) -> Problem | None:
    """Our own pseudonym in Via: the call has been here before. Or it has gone as far as it may."""
    if head.method == "OPTIONS" and head.get(b"max-forwards") == b"0":
        return Problem(
            508,
            "loop",
            "Max-Forwards lets this call go no further; leave that field out",
            "proxy_loop_detected",
        )
    if any(guard.pseudonym in via for via in head.every(b"via")):
        detail = "this call has already passed through this daemon: its upstream leads back here"
        return Problem(508, "loop", detail, "proxy_loop_detected")
    return None
