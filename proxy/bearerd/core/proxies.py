"""Outbound proxies: how they are written, when the environment's is taken, and what is said to them (RFC 9110 section 9.3.6)."""

import re
from base64 import b64encode
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from bearerd.core.redaction import Secret
from bearerd.core.targets import Origin, Proxy, parse_origin

NONE: Final = "none"
_URL: Final = re.compile(r"(?:(?:http|HTTP)://)?(?:([^/?#@]*)@)?([^/?#@]+)/?")
_BAD_URL: Final = (
    'is not the URL of an http proxy; write it like http://proxy.example.com:3128, or "none" for no proxy'
)
_ENTRY: Final = re.compile(r"(\[[^\]]*\]|[^:]*):([0-9]{1,5})")


def parse_proxy(value: object) -> Proxy | Literal["none"]:
    """From ``http://user:password@host:port``, of which only the host is needed. Raises ValueError, without the value."""
    if value == NONE:
        return NONE
    found = (
        _URL.fullmatch(value) if isinstance(value, str) and value.isascii() and value.isprintable() else None
    )
    if found is None:
        raise ValueError(_BAD_URL)
    try:
        origin, _ = parse_origin(f"http://{found[2]}")
    except ValueError:
        raise ValueError(_BAD_URL) from None
    if not found[1]:
        return Proxy(origin)
    try:
        credentials = unquote_to_bytes(found[1]).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("has a user name or password that is not UTF-8; percent-encode it") from None
    return Proxy(origin, Secret(credentials if ":" in credentials else f"{credentials}:"))


def find_proxy(origin: Origin, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The variable that names the proxy for an origin, and what it says; None where there is none.

    ``https_proxy`` or ``http_proxy`` by the origin's scheme, unless ``no_proxy`` excepts it; each also in upper case,
    which counts where the lower case is not set. This machine itself is never reached by way of another.
    """
    name, text = _lookup(environ, f"{origin.scheme}_proxy")
    if not text or origin.loopback or is_excepted(origin, _lookup(environ, "no_proxy")[1]):
        return None
    return name, text


def _lookup(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    found = next((spelling for spelling in (name, name.upper()) if spelling in environ), name)
    return found, environ.get(found, "").strip()


def is_excepted(origin: Origin, no_proxy: str) -> bool:
    """Whether a list such as ``example.com, .corp:8443, 10.0.0.0/8, [fd00::1]`` has the origin in it; ``*`` has all.

    A name stands for itself and for all below it.
    """
    return any(_covers(entry, origin) for entry in re.split(r"[\s,]+", no_proxy.lower()) if entry)


def _covers(entry: str, origin: Origin) -> bool:
    if entry == "*":
        return True
    with_port = _ENTRY.fullmatch(entry)
    if with_port is not None and int(with_port[2]) != origin.port:
        return False
    host = (with_port[1] if with_port else entry).strip("[]")
    try:
        address = ip_address(origin.host)
    except ValueError:
        name = host.removeprefix("*").strip(".")
        return bool(name) and f".{origin.host.rstrip('.')}".endswith(f".{name}")
    try:
        return address in ip_network(host, strict=False)
    except ValueError:
        return False


def build_connect(proxy: Proxy, origin: Origin) -> bytes:
    """The request for a tunnel to `origin`."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    authority = f"{host}:{origin.port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.credentials is not None:
        lines.append(f"Proxy-Authorization: {build_authorization(proxy.credentials)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def build_authorization(credentials: Secret) -> str:
    """The value of ``Proxy-Authorization`` for ``user:password`` (RFC 7617 section 2)."""
    return f"Basic {b64encode(credentials.reveal().encode()).decode('ascii')}"


def judge_connect(status: int, proxy: Proxy, origin: Origin) -> str | None:
    """What a proxy's answer to the request means for a person, or None where there is a tunnel."""
    if 200 <= status < 300:
        return None
    name = f"the proxy {proxy.origin}"
    if status == 407 and proxy.credentials is None:
        return f"{name} wants a user name and password (407); write them into its URL"
    if status == 407:
        return f"{name} refuses its user name and password (407); mend them in its URL"
    if status == 403:
        return f"{name} does not let calls through to {origin} (403)"
    return f"{name} has no way to {origin} ({status})"
