"""How the keys of a table make the way to an upstream or an authorization server, and what the environment adds."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from bearerd.core.proxies import NONE, find_proxy, parse_proxy
from bearerd.core.targets import DIRECT, Proxy, Tls, Way, parse_origin
from bearerd.settings.files import Invalid, PathOf, Problem, cannot_read
from bearerd.settings.model import AccountTable, RouteTable
from bearerd.settings.sources import Given, Unreadable, Values, read_text
from bearerd.settings.sources import Origin as Source
from bearerd.trust import Untrustworthy, known_context, seal

_TLS_KEYS: Final = ("ca_file", "client_cert_file", "client_key_file", "server_name")
_LEADING: Final = {("routes", "upstream"), ("accounts", "issuer"), ("accounts", "token_endpoint")}
_UNPROXIED: Final = ("proxy", "proxy_file", "command", "token", "token_file")  # these decide for themselves


def read_proxies(environ: Mapping[str, str], known: Values) -> Values:
    """The proxies that the environment has for upstreams and authorization servers, where nothing is said of one."""
    values: Values = {}
    for path, given in known.items():
        if len(path) != 3 or (path[0], path[-1]) not in _LEADING:
            continue
        place = path[:2]
        if any((*place, key) in known for key in _UNPROXIED):
            continue
        try:
            origin, _ = parse_origin(str(given.value).partition("?")[0])
        except ValueError:
            continue  # the model says so
        found = find_proxy(origin, environ)
        if found is not None:
            values[*place, "proxy"] = Given(found[1], Source("environment", found[0]))
    return values


def check_way(table: RouteTable) -> Iterator[Problem]:
    """What is wrong with how the keys of a table go together."""
    if table.proxy is not None and table.proxy_file is not None:
        yield "proxy", "is set, and so is proxy_file; keep one of them"
    if table.client_key_file is not None and table.client_cert_file is None:
        yield "client_key_file", "is set without client_cert_file; set that too, or take it out"
    if table.upstream.startswith("http:"):
        for key in _TLS_KEYS:
            if getattr(table, key) is not None:
                yield key, "does not go with an http upstream; take it out, or make the upstream https"


def build_way(table: AccountTable | RouteTable, path_of: PathOf) -> Way:
    """The way of a table without problems. Raises Invalid for a file that cannot be used."""
    ca, certificate, key = (_path(key, getattr(table, key, None), path_of) for key in _TLS_KEYS[:3])
    tls = Tls(ca, certificate, key, getattr(table, "server_name", None))
    if tls != Tls(server_name=tls.server_name):
        try:
            tls = replace(tls, seal=seal(tls))
            known_context(tls)  # an account's is used as it is; a route's is made again at the start
        except Untrustworthy as exc:
            raise Invalid(exc.key, exc.text) from None
    way = Way(tls, _build_proxy(table, path_of))
    return DIRECT if way == DIRECT else way


def _path(key: str, text: str | None, path_of: PathOf) -> str | None:
    return None if text is None else str(path_of(key, text))


def _build_proxy(table: AccountTable | RouteTable, path_of: PathOf) -> Proxy | None:
    proxy = table.proxy
    if table.proxy_file is not None:
        path = path_of("proxy_file", table.proxy_file)
        try:
            proxy = parse_proxy(read_text(path).rstrip("\r\n"))
        except Unreadable as exc:
            raise Invalid("proxy_file", cannot_read(path, str(exc))) from None
        except ValueError as exc:
            raise Invalid("proxy_file", f"{path} {exc}") from None
    return None if proxy == NONE else proxy
