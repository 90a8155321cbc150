"""What of a response names the upstream's own places, turned into ours: redirects and cookies.

Nothing is followed, decoded or re-quoted: what a value has after the upstream's base path, it has after the
route's prefix.
"""

import re
from typing import Final

from bearerd.core.headers import OWN_COOKIES
from bearerd.core.targets import Origin, Route, build_target, in_control, match_route, parse_origin, path_of

# Scheme, authority, path, and the query and fragment together (RFC 3986 appendix B).
_REFERENCE: Final = re.compile(rb"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(.*)", re.DOTALL)
# In a path: browsers read a backslash as a slash and leave tabs out. A fragment's mark comes from odd requests.
_STRANGE: Final = re.compile(rb"[\0-\x1f\\#]")
_HERE: Final = frozenset({b".", b"%2e"})  # dot segments, also as browsers read them (WHATWG URL section 4.3)
_UP: Final = frozenset({b"..", b".%2e", b"%2e.", b"%2e%2e"})


def rewrite_field(
    routes: tuple[Route, ...], route: Route, target: bytes, name: bytes, value: bytes
) -> bytes | None:
    """The value for the client of a field that `headers.REWRITTEN` has, or None where it is to be dropped.

    `name` is lower case; `target` is the client's.
    """
    if name == b"set-cookie":
        return rewrite_cookie(route, value)
    return rewrite_reference(routes, route, build_target(route, target), value)


def rewrite_reference(routes: tuple[Route, ...], route: Route, target: bytes, value: bytes) -> bytes:
    """The value of a Location or Content-Location in a response to `target`, which is the upstream's.

    What the route's upstream has under its base becomes a path of ours: without an authority, for a client may
    know us by another name, port or scheme than we do. All else is absolute, as it was or made so, that no client
    takes it for ours. `routes` are all there are, in the order of `match_route`.
    """
    if not value:
        return value  # this very resource, by whatever name the client has asked for it
    scheme, authority, path, rest = _split(value)
    if scheme is None and authority is None:
        path, rest = _resolve(target, path, rest)
        way = _find_way(routes, route, path)
        return (str(route.origin).encode() + path if way is None else way) + rest
    if scheme is None:
        scheme = route.origin.scheme.encode()
        value = scheme + b":" + value
    if authority is None or not _is_at(route.origin, scheme, authority):
        return value
    way = _find_way(routes, route, path)
    return value if way is None else way + rest


def _split(value: bytes) -> tuple[bytes | None, bytes | None, bytes, bytes]:
    found = _REFERENCE.fullmatch(value)
    assert found is not None  # noqa: S101  # the pattern matches anything
    return found[1], found[2], found[3], found[4]


def _is_at(origin: Origin, scheme: bytes, authority: bytes) -> bool:
    """Whether that is `origin`: in any case, its port written or not, and no user name."""
    try:
        return parse_origin(f"{scheme.decode()}://{authority.decode('latin-1')}")[0] == origin
    except ValueError:
        return False


def _resolve(target: bytes, path: bytes, rest: bytes) -> tuple[bytes, bytes]:
    """Path, and query and fragment, of a reference that has no authority (RFC 3986 section 5.2.2)."""
    base = path_of(target)
    if path.startswith(b"/"):
        return path, rest
    if path:
        merged = base[: base.rfind(b"/") + 1] + path
        return merged if _STRANGE.search(merged) else _resolve_dots(merged), rest
    return base, rest if rest.startswith(b"?") else target[len(base) :] + rest


def _resolve_dots(path: bytes) -> bytes:
    """`path` without its dot segments (RFC 3986 section 5.2.4), percent-encoded ones too."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment.lower() in _UP:
            del kept[-1:]
        elif segment.lower() not in _HERE:
            kept.append(segment)
    if segments and segments[-1].lower() in _UP | _HERE:
        kept.append(b"")
    return b"/" + b"/".join(kept)


def _find_way(routes: tuple[Route, ...], route: Route, path: bytes) -> bytes | None:
    """The path of ours that leads to the upstream's `path` by this very route, or None.

    The bytes are kept if neither they nor what browsers make of them leaves the route; else the dot segments
    are resolved first, as browsers would at the upstream.
    """
    if _STRANGE.search(path):
        return None
    for candidate in (path, _resolve_dots(path)):
        below = _below(route.base, candidate)
        if below is not None and not _climbs(below):
            way = route.prefix + below or b"/"
            return way if all(_leads(routes, route, seen) for seen in (way, _resolve_dots(way))) else None
    return None


def _leads(routes: tuple[Route, ...], route: Route, path: bytes) -> bool:
    # Two slashes at the start would be another host.
    return not path.startswith(b"//") and not in_control(path) and match_route(routes, path) is route


def _below(base: bytes, path: bytes) -> bytes | None:
    """What `path` has after `base`, or None where it is not at or under it."""
    below = path[len(base) :]
    return below if path.startswith(base) and below[:1] in {b"", b"/"} else None


def _climbs(path: bytes) -> bool:
    """Whether dot segments lead out of where `path` begins, be it only on the way.

    An empty segment is no way down: some take two slashes for one.
    """
    depth = 0
    for segment in path.lower().split(b"/"):
        if segment in _UP:
            depth -= 1
        elif segment and segment not in _HERE:
            depth += 1
        if depth < 0:
            return True
    return False


def rewrite_cookie(route: Route, value: bytes) -> bytes | None:
    """The value of a Set-Cookie, or None for a cookie that is not to be set here (RFC 6265 section 5.2).

    Domain goes, for it is not ours; Path is that of the route. All else is as it was.
    """
    pair, *attributes = value.split(b";")
    # A pair without a name is sent back as its value alone, which could read like one of ours.
    if not route.cookies or pair.lstrip(b" \t=").startswith(OWN_COOKIES):
        return None
    kept = [pair]
    host_only = pair.lstrip().lower().startswith(b"__host-")  # browsers ask for Path=/ with that
    for attribute in attributes:
        match attribute.partition(b"=")[0].strip().lower():
            case b"domain":
                continue
            case b"path" if not host_only:
                kept.append(_map_path(route, attribute))
            case _:
                kept.append(attribute)
    return b";".join(kept)


def _map_path(route: Route, attribute: bytes) -> bytes:
    """A Path attribute. One above the base holds for all of the base: here for all of the route, and no more."""
    name, _, written = attribute.partition(b"=")
    path = written.strip(b' \t"')
    below = b"" if _is_above(path, route.base) else _below(route.base, path)
    if below is None or not path.startswith(b"/"):
        return attribute
    before, after = written.split(path, 1)
    return b"%b=%b%b%b" % (name, before, route.prefix + below or b"/", after)


def _is_above(path: bytes, base: bytes) -> bool:
    return path == b"/" or base.startswith(path.rstrip(b"/") + b"/")
