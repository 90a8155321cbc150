"""Who listens where bearerd is to: a bearerd of ours, or which other process, if the system tells."""

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from bearerd.core.configuration import Listen
from bearerd.core.targets import Origin
from bearerd.doctor.findings import Finding, Level, shown
from bearerd.doctor.sight import Kind, Seen, look_at
from bearerd.local_socket import answers
from bearerd.way import find_weakness, own_home

_NO_FAMILY: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_MANAGERS: Final = frozenset({"systemd", "launchd"})
_LISTENING: Final = "0A"  # include/net/tcp_states.h


def examine_ports(listen: Listen, daemons: Sequence[dict[str, Any]], file: str | None) -> Iterator[Finding]:
    """That of clients, and that of probes. `daemons` are the status documents of those that run.

    `file` is the configuration that is examined, resolved.
    """
    if not listen.hosts:
        yield Finding(Level.OK, "port", "there is none: bearerd listens on a Unix socket alone")
    else:
        yield _examine_port(listen.hosts, listen.port, "listen.port", daemons, file)
    if listen.probes is not None:
        host, port = listen.probes
        yield _examine_port((host,), port, "listen.probes", daemons, file)


def _examine_port(
    hosts: Sequence[str], port: int, setting: str, daemons: Sequence[dict[str, Any]], file: str | None
) -> Finding:
    if port == 0:
        return Finding(Level.OK, "port", "the system chooses one at each start")
    for host in hosts:
        problem = _try(host, port)
        if problem in {0, *_NO_FAMILY}:
            continue
        if problem == errno.EADDRINUSE:
            return _judge_taken(host, port, setting, daemons, file)
        cure = (
            f"set {setting} to one from 1024 on"
            if problem == errno.EACCES
            else f"mend {setting}, or the address"
        )
        text = f"{port} on {host} cannot be listened on: {os.strerror(problem).lower()}"
        return Finding(Level.FAIL, "port", text, cure)
    return Finding(Level.OK, "port", f"{port} is free")


def _try(host: str, port: int) -> int:
    """0 where the address can be had, else the error. Nobody could connect meanwhile."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, port))
    except OSError as exc:
        return exc.errno or errno.EINVAL
    return 0


def _judge_taken(
    host: str, port: int, setting: str, daemons: Sequence[dict[str, Any]], file: str | None
) -> Finding:
    """A daemon does not tell of its address for probes, so that is known by its process."""
    address = str(Origin("http", host, port))
    process = find_holder(port)
    ours = next((each for each in daemons if address in each["addresses"] or each["pid"] == process), None)
    other = f"set {setting} to another"
    if ours is not None and ours["config"] == file:
        text = f"{port} is that of the bearerd that runs with this file, process {ours['pid']}"
        return Finding(Level.OK, "port", text)
    if ours is not None:
        text = f"{port} is in use by the bearerd of {ours['config'] or 'no file'}, process {ours['pid']}"
        return Finding(Level.FAIL, "port", text, f"{other}, or: kill {ours['pid']}")
    if process is None:
        cure = f"{other}, or stop what has it: lsof -nP -iTCP:{port} -sTCP:LISTEN"
        return Finding(Level.FAIL, "port", f"{port} on {host} is in use by another program", cure)
    return judge_holder(f"{port} on {host}", other, process, _name(process))


def judge_holder(place: str, other: str, process: int, name: str) -> Finding:
    """Of a process that is none of ours. A service manager listens for the services that it starts."""
    if name in _MANAGERS:
        text = f"{place} is held by {name}, process {process}, for the service that it starts"
        return Finding(Level.NOTE, "port", text)
    text = f"{place} is in use by {shown(name)}, process {process}"
    return Finding(Level.FAIL, "port", text, f"{other}, or: kill {process}")


def examine_socket(path: Path, daemons: Sequence[dict[str, Any]], file: str | None) -> Finding:
    """Whether a Unix socket could be made at `path`."""
    if not path.parent.is_dir():
        text = f"{path} cannot be made, for its folder is not there"
        return Finding(Level.FAIL, "socket", text, f"mkdir -p -m 700 {path.parent}")
    if weakness := find_weakness(path.parent, own_home()):
        text = f"{path} could be exchanged for another socket: {weakness.found}"
        return Finding(Level.FAIL, "socket", text, weakness.cure)
    seen = look_at(path, read=False)
    if seen is None:
        return Finding(Level.OK, "socket", f"{path} is made when bearerd runs")
    if seen.kind is not Kind.OTHER or not path.is_socket():
        text = f"{path} is a {seen.kind}, and no socket"
        return Finding(Level.FAIL, "socket", text, "move it away, or set listen.socket to another path")
    return _judge_socket(path, seen, daemons, file)


def _judge_socket(path: Path, seen: Seen, daemons: Sequence[dict[str, Any]], file: str | None) -> Finding:
    other = "set listen.socket to another path"
    if seen.owner != os.geteuid():
        text = f"{path} belongs to another user (uid {seen.owner})"
        return Finding(Level.FAIL, "socket", text, f"have it removed, or {other}")
    if not answers(path):
        return Finding(Level.OK, "socket", f"{path} is left of a bearerd that died, and is made anew")
    ours = next((daemon for daemon in daemons if daemon.get("socket") == str(path)), None)
    if ours is not None and ours["config"] == file:
        text = f"{path} is that of the bearerd that runs with this file, process {ours['pid']}"
        return Finding(Level.OK, "socket", text)
    cure = f"kill {ours['pid']}, or {other}" if ours else f"stop what listens there, or {other}"
    return Finding(Level.FAIL, "socket", f"{path} is in use by another program", cure)


def find_holder(port: int, system: Path = Path("/proc")) -> int | None:
    """The process that listens on `port`. None where the system does not tell: not Linux, or another user's process."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port, system)}
    for folder in system.glob("[0-9]*/fd") if wanted else ():
        with suppress(OSError):
            if any(_leads_to(descriptor) in wanted for descriptor in folder.iterdir()):
                return int(folder.parent.name)
    return None


def _leads_to(descriptor: Path) -> str:
    with suppress(OSError):  # it is closed by now
        return os.readlink(descriptor)  # noqa: PTH115  # what stands there is no path
    return ""


def _inodes(port: int, system: Path) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (system / "self" / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _name(process: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text(errors="replace").strip()
    return "another program"
