"""Values as people write them. Every function raises ValueError with the problem and its cure, never the secret part."""

import math
import re
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from bearerd.core.field_rules import check_field_name, check_field_value, parse_credential
from bearerd.core.grants import parse_token
from bearerd.core.metadata import check_browser_url, check_endpoint
from bearerd.core.redaction import Secret
from bearerd.core.rules import parse_rule
from bearerd.core.targets import parse_origin
from bearerd.core.vault import encode_key
from bearerd.core.vault import parse_key as parse_vault_key

_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h)?")
_DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_S: Final = 86_400.0
_SIZE: Final = re.compile(r"([0-9]{1,18}) ?([KMG]i?B|B)?")
_SIZE_UNITS: Final = {
    "B": 1,
    "KB": 1000,
    "KiB": 1 << 10,
    "MB": 1000**2,
    "MiB": 1 << 20,
    "GB": 1000**3,
    "GiB": 1 << 30,
}
_AUTHORITY: Final = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?"
)
_MODE: Final = re.compile(r"0?6[0246]{2}")
_UID: Final = re.compile(r"[0-9]{1,10}")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 appendix A.4
_SECRET: Final = re.compile(r"[\x20-\x7e]+")  # RFC 6749 appendices A.2 and A.17
_URI: Final = re.compile(r"[\x21\x22\x24-\x7e]+")  # visible ASCII but the fragment's mark
_APPLICATION: Final = re.compile(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9._-]+(?::[0-9]{1,5})?")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:=/[A-Za-z0-9._~/-]*)?")
_REDIRECT_PATH: Final = re.compile(r"[A-Za-z0-9._~/-]*")
_PARAMETER: Final = re.compile(r"[A-Za-z0-9._-]+")  # RFC 6749 appendix A
OWN_PARAMETERS: Final = {
    "client_id": " and set client_id of the account",
    "client_secret": ": a browser would show it",
    "code_challenge": "",
    "code_challenge_method": "",
    "nonce": "",
    "redirect_uri": " and set redirect_uri of the account",
    "request": "",
    "request_uri": "",
    "response_mode": "",
    "response_type": "",
    "scope": " and set scopes of the account",
    "state": "",
}
_BAD_NAME: Final = "is not a host name; write it like api.example.com, without scheme, port or path"
# RFC 9110 section 7.8
_PROTOCOL: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+(?:/[!#$%&'*+.^_`|~0-9a-z-]+)?")
NEVER: Final = frozenset({"h2", "h2c", "http", "tls"})
_STATUS: Final = re.compile(r"[0-9]{3}")
_DESCRIPTOR: Final = re.compile(r"fd:[0-9]{1,9}")


def parse_duration(value: object) -> float:
    """Seconds, from a number of them or a text such as 500ms, 30s, 5m, 2h. At most a day."""
    seconds: float = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
    elif isinstance(value, str) and (found := _DURATION.fullmatch(value)):
        seconds = float(found[1]) * _DURATION_UNITS[found[2] or "s"]
    if not 0 < seconds <= _LONGEST_S:
        raise ValueError('is not a duration up to a day; write seconds, or "500ms", "30s", "5m", "2h"')
    return float(seconds)


def parse_size(value: object) -> int:
    """Bytes, from a number of them or a text such as 512B, 64KiB, 10MB, 1MiB."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (found := _SIZE.fullmatch(value)):
        return int(found[1]) * _SIZE_UNITS[found[2] or "B"]
    raise ValueError('is not a size; write bytes, or "512B", "64KiB", "10MB", "1MiB"')


def parse_address(host: str) -> str:
    """A literal address in its usual spelling. No name, no zone, no IPv4-mapped address."""
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if address is None or address.is_multicast or (isinstance(address, IPv6Address) and _is_odd(address)):
        raise ValueError(f"{host!r} is not an address to listen on; use 127.0.0.1 or ::1")
    return str(address)


def parse_probes(text: str) -> str:
    """An address and a port, in their usual spelling: `split_probes` takes them apart."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise ValueError(f"{text!r} is no address with a port; write it like 127.0.0.1:9450 or [::1]:9450")
    literal = host.removeprefix("[").removesuffix("]")
    if (":" in literal) != (host == f"[{literal}]"):
        raise ValueError(
            f"{text!r} has brackets where an address of IPv6 is, or should be; write it like [::1]:9450"
        )
    address = parse_address(literal)
    return f"[{address}]:{int(port)}" if ":" in address else f"{address}:{int(port)}"


def split_probes(text: str) -> tuple[str, int]:
    """Of what `parse_probes` gave."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _is_odd(address: IPv6Address) -> bool:
    return address.scope_id is not None or address.ipv4_mapped is not None


def parse_key_field(name: str) -> str:
    """A field in which a client's key may come."""
    if name.lower() == "authorization":
        raise ValueError("Authorization may always have a client key in it; take it out")
    return check_field_name(name)


def parse_mode(value: str) -> str:
    """Octal digits. A socket's owner reads and writes, and nobody executes it."""
    if not _MODE.fullmatch(value):
        raise ValueError(
            'is not the mode of a socket; write it like "0600", "0660" or "0666": read and write for you, '
            "and for the group and all others or not"
        )
    return value


def parse_uid(value: object) -> int:
    """A user's number or, as the environment has it, its digits. All bits set is nobody's: the system means none by it."""
    number = int(value) if isinstance(value, str) and _UID.fullmatch(value) else value
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 0xFFFFFFFF:
        raise ValueError("is not the number of a user; write it like 1000, as `id -u NAME` says it")
    return number


def parse_authority(value: str) -> str:
    """An exact `Host` value, lower case."""
    found = _AUTHORITY.fullmatch(value)
    if not found or not 0 < int(found[1] or 80) < 65536:
        raise ValueError(
            f"{value!r} is not an exact Host value; write it like api.test or api.test:8080, "
            "without scheme, path or wildcard"
        )
    return value.lower()


def parse_scope(value: str) -> str:
    if not _SCOPE.fullmatch(value):
        raise ValueError(
            "is not a scope: a space, quote, backslash or non-ASCII character is in it; "
            "write each scope as an element of its own"
        )
    return value


def parse_upstream(value: str) -> str:
    _split(value)
    parse_origin(value)
    return value


def parse_server_name(value: str) -> str:
    """A host name, lower case, as a certificate has it."""
    try:
        origin, path = parse_origin(f"https://{value}")
    except ValueError:
        raise ValueError(_BAD_NAME) from None
    if path or origin.host != value.lower():
        raise ValueError(_BAD_NAME)
    return origin.host


def parse_endpoint(value: str) -> str:
    _split(value)
    return check_endpoint(value)


def parse_page(value: str) -> str:
    """An endpoint that a browser opens."""
    _split(value)
    return check_browser_url(value)


def parse_public_url(value: str) -> str:
    """An origin in its usual spelling."""
    _split(value)
    origin, path = parse_origin(value)
    if path.strip("/"):
        raise ValueError("has a path; write scheme, host and port only, like https://bearerd.example.com")
    return str(origin)


def parse_web_origin(value: str) -> str:
    """An origin as browsers write it: of a web page, or of an application that shows pages."""
    if value == "null":
        raise ValueError("null is the origin of every page that hides its own; take it out")
    if "*" in value:
        raise ValueError("has a wildcard in it; write each origin out, like https://app.example.com")
    if value.partition("://")[0] in {"http", "https"}:
        origin, path = parse_origin(value)
        if path:
            raise ValueError("has a path; write scheme, host and port only, like https://app.example.com")
        return str(origin)
    if not _APPLICATION.fullmatch(value) or value.startswith("file:"):
        raise ValueError("is not an origin; write it like https://app.example.com or vscode-webview://id")
    return value


def parse_redirect_uri(value: str) -> str:
    """As it is registered, to the letter. Whether its host is one of ours depends on other settings."""
    _split(value)
    _, path = parse_origin(value)
    if not _REDIRECT_PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ValueError("has a path that browsers rewrite; use letters, digits, dots, dashes and slashes")
    return value


def parse_parameters(value: object) -> dict[str, str]:
    """Further parameters of the authorization request, from a table or, as the environment has it, from JSON."""
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError('is not a table of texts; write it like { access_type = "offline" }')
    for name, text in value.items():
        if not _PARAMETER.fullmatch(name):
            raise ValueError(f"{name!r} is not a parameter's name; use letters, digits, _, . and - only")
        if name in OWN_PARAMETERS:
            raise ValueError(f"{name} is bearerd's own; take it out{OWN_PARAMETERS[name]}")
        if not text or not text.isprintable():
            raise ValueError(f"{name} is empty or has a control character in it; mend that or take it out")
    return value


def parse_error_code(value: str) -> str:
    if not _SCOPE.fullmatch(value):  # RFC 6749 appendix A.7, but for the space
        raise ValueError('is not an error code; write it like "bad_refresh_token"')
    return value


def parse_protocol(value: str) -> str:
    """A protocol that a connection may switch to, lower case. Never one that would carry calls unseen, or hide them."""
    protocol = value.lower()
    if not _PROTOCOL.fullmatch(protocol):
        raise ValueError('is not a protocol; write it like "websocket"')
    if protocol.partition("/")[0] in NEVER:
        raise ValueError("would carry calls past bearerd, without a token; take it out")
    return protocol


def parse_credential_text(value: str) -> str:
    """A route's credential, as it is written."""
    parse_credential(value)
    return value


def parse_fields(value: object) -> dict[str, str]:
    """Header fields, from a table or, as the environment has it, from JSON."""
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError('is not a table of texts; write it like { X-Api-Version = "2" }')
    for name, text in value.items():
        check_field_value(check_field_name(name), text)
    return value


def parse_allow(value: str) -> str:
    parse_rule(value)
    return value


def parse_deny(value: str) -> str:
    parse_rule(value, wide=True)
    return value


def parse_retry_status(value: object) -> int:
    """A status by which an upstream says that it does not take a token: a number or, as the environment has it, digits."""
    number = int(value) if isinstance(value, str) and _STATUS.fullmatch(value) else value
    if not isinstance(number, int) or isinstance(number, bool) or not 400 <= number <= 499:
        raise ValueError("is not a status from 400 to 499; write it like 401")
    return number


def parse_variable(value: str) -> str:
    """``NAME`` or ``NAME=/path``, as `split_variable` takes it apart."""
    if not _VARIABLE.fullmatch(value):
        raise ValueError('is not a variable; write it like "API_BASE_URL", or "API_BASE_URL=/v1"')
    if value.upper().startswith("BEARERD_"):
        raise ValueError("is a variable of bearerd's own; choose another name")
    return value


def split_variable(value: str) -> tuple[str, str]:
    """The variable's name, and the path that its value has after the route's."""
    name, _, path = value.partition("=")
    return name, path


def parse_resource(value: str) -> str:
    """A resource indicator: an absolute URI without a fragment (RFC 8707 section 2)."""
    parts = _split(value)
    if not parts.scheme or not (parts.netloc or parts.path) or not _URI.fullmatch(value):
        raise ValueError("is not an absolute URI without a fragment; write it like https://api.example.com")
    if "@" in parts.netloc:
        raise ValueError("has a user name in it; take out everything before the @")
    return value


def _split(url: str) -> SplitResult:
    """`urlsplit` with a text of our own: its texts quote the URL."""
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("is not a URL; write it like https://api.example.com") from None


def parse_argv(value: object) -> list[str]:
    if isinstance(value, str):
        raise ValueError(  # noqa: TRY004  # the model collects ValueErrors
            'is not a list; write it as a list; no shell is used: ["program", "argument"]'
        )
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise ValueError('is not a list of texts; write it like ["program", "argument"]')
    if not value or not value[0].strip():
        raise ValueError('names no program; write it like ["program", "argument"]')
    if any("\0" in part for part in value):
        raise ValueError("has a NUL character in it; take it out")
    return value


def parse_secret(value: object) -> Secret:
    """A secret of printable ASCII, as the RFC has client secrets and refresh tokens."""
    if not isinstance(value, str):
        raise ValueError("is not text; put it in quotes")  # noqa: TRY004  # likewise
    if not value:
        raise ValueError("is empty; give it a value or take it out")
    if not _SECRET.fullmatch(value):
        raise ValueError("has a character other than printable ASCII; copy it without line ends")
    return Secret(value)


def parse_access_token(value: object) -> Secret:
    secret = parse_secret(value)
    if parse_token(secret.reveal()) is None:
        raise ValueError("cannot stand in a header: it has a space in it or is too long; copy only the token")
    return secret


def parse_key(value: object) -> Secret:
    """The vault's key as the configuration has it: one text for one key, however it was written."""
    return Secret(encode_key(parse_vault_key(parse_secret(value).reveal())))


def parse_path(value: str) -> str:
    if "\0" in value:
        raise ValueError("has a NUL character in it; take it out")
    return value


def parse_token_path(value: str) -> str:
    """A path, or ``fd:N`` for an inherited descriptor."""
    if value.startswith("fd:") and not is_descriptor(value):
        raise ValueError("is not a descriptor; write it like fd:3")
    return value


def is_descriptor(path: str) -> bool:
    return _DESCRIPTOR.fullmatch(path) is not None
