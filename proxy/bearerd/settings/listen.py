"""How the table of where clients connect becomes what is listened on."""

import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from bearerd.core.configuration import Listen
from bearerd.local_socket import PATH_LIMIT
from bearerd.settings.files import Invalid, PathOf, Problem
from bearerd.settings.model import ListenTable
from bearerd.settings.values import split_probes

_OF_A_SOCKET: Final = ("socket_mode", "socket_uids")
_OWN_ALONE: Final = 0o600


def check_listen(table: ListenTable) -> Iterator[Problem]:
    """What is wrong with how the keys of the table go together."""
    yield from _check_probes(table)
    if table.socket is None:
        if not table.hosts:
            yield "hosts", "is empty, and there is no socket; give it an address, or set listen.socket"
        for key in _OF_A_SOCKET:
            if key in table.model_fields_set:
                yield key, "means nothing without listen.socket; set that, or take this out"
    elif not hasattr(socket, "AF_UNIX"):
        yield "socket", "needs Unix sockets, which this system lacks; take it out"
    elif table.socket_uids and int(table.socket_mode, 8) == _OWN_ALONE:
        yield (
            "socket_uids",
            'may not use a socket of mode 0600; set socket_mode to "0666", or "0660" for your group',
        )


def _check_probes(table: ListenTable) -> Iterator[Problem]:
    if table.probes is None:
        if table.probes_remote:
            yield "probes_remote", "means nothing without listen.probes; set that, or take this out"
        return
    host, port = split_probes(table.probes)
    if not ip_address(host).is_loopback and not table.probes_remote:
        text = (
            f"{host!r} is not a loopback address, so other machines could ask there, without a key; use 127.0.0.1 or "
            "::1, or set listen.probes_remote = true"
        )
        yield "probes", text
    if port == table.port != 0 and host in table.hosts:
        yield "probes", f"has the port of listen.port, {port}; give it another"


def build_listen(table: ListenTable, path_of: PathOf) -> Listen:
    """Raises Invalid."""
    return Listen(
        hosts=tuple(table.hosts),
        port=table.port,
        remote=table.remote,
        allowed_hosts=frozenset(table.allowed_hosts),
        public_url=table.public_url,
        allowed_origins=frozenset(table.allowed_origins),
        peer_uid=table.peer_uid,
        socket=None if table.socket is None else _build_path(table.socket, path_of),
        socket_mode=int(table.socket_mode, 8),
        socket_uids=frozenset(table.socket_uids),
        probes=None if table.probes is None else split_probes(table.probes),
    )


def _build_path(text: str, path_of: PathOf) -> str:
    path = os.path.abspath(path_of("socket", text))  # noqa: PTH100  # pathlib's would follow links
    size = len(os.fsencode(path))
    if size > PATH_LIMIT:
        raise Invalid(
            "socket", f"has {size} bytes, and a socket's path at most {PATH_LIMIT}; choose a shorter one"
        )
    return path
