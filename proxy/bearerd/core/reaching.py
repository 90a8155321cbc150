"""Where a daemon is asked how it is, by the table of where it listens, as far as that can be known without reading all settings.

A command that is run every few seconds imports this, so it needs little.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

DEFAULT_PORT: Final = 6750  # the number of the RFC that defines Bearer tokens
DEFAULT_HOSTS: Final = ("127.0.0.1", "::1")
_VARIABLE: Final = "BEARERD_LISTEN__"
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # it is connected to, not listened on


@dataclass(frozen=True, slots=True)
class Target:
    """An address and a port, or the path of a Unix socket, and what its probes' paths begin with."""

    host: str = ""
    port: int = 0
    socket: str = ""
    prefix: str = "/-"

    @property
    def authority(self) -> str:
        """The `Host` under which it is asked."""
        if self.socket:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"the socket {self.socket}" if self.socket else self.authority


def choose_target(table: Mapping[str, Any], environ: Mapping[str, str]) -> Target:
    """By `table`, which is ``[listen]``, and the variables that go before it: the address for probes, else that of calls.

    Raises ValueError with the reason, and the cure, where nobody can know it.
    """
    given = dict(table)
    for name, text in environ.items():
        if name.upper().startswith(_VARIABLE):
            given[name.upper().removeprefix(_VARIABLE).lower()] = text
    if given.get("probes"):
        host, _, port = str(given["probes"]).rpartition(":")
        return _at(host.strip("[]"), port, "")
    hosts = _list(given.get("hosts", DEFAULT_HOSTS))
    if hosts:
        return _at(hosts[0], given.get("port", DEFAULT_PORT), "/-")
    if given.get("socket"):
        return Target(socket=str(given["socket"]))
    raise ValueError("the configuration has neither an address nor a socket to ask at; set listen.probes")


def _at(host: str, port: object, prefix: str) -> Target:
    try:
        number = int(str(port))
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise ValueError(f"{port!r} is no port; see: bearerd config check")
    if number == 0:
        raise ValueError("the port is one that the system chose; name it with --port")
    return Target(_ANY.get(host, host), number, prefix=prefix)


def _list(value: object) -> list[str]:
    """Of the file, or of a variable in either of its spellings."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return [str(host) for host in value] if isinstance(value, list | tuple) else []
