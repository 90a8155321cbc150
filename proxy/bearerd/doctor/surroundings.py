"""What else bearerd needs of the machine: files, programs, limits, variables. Looked at, and neither made nor mended."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from bearerd.control.rendezvous import Unusable, has_sockets, opened, runtime_folder
from bearerd.core.accounts import CommandSource
from bearerd.core.configuration import Configuration, Limits
from bearerd.core.limits import SPARE_DESCRIPTORS, allowed_connections
from bearerd.core.proxies import is_excepted
from bearerd.core.targets import Origin
from bearerd.doctor.certificates import judge_client_certificate
from bearerd.doctor.findings import Finding, Level
from bearerd.doctor.sight import Kind, Seen, look_at
from bearerd.local_socket import PATH_LIMIT
from bearerd.places import spool_folder
from bearerd.settings.problems import setting_name
from bearerd.way import find_weakness, own_home

_SOCKET_NAME: Final = 32  # a process, eight digits and an ending


def examine_surroundings(
    configuration: Configuration, environ: Mapping[str, str], now: float
) -> Iterator[Finding]:
    """Those that the configuration has to do with. `now` is epoch seconds."""
    if configuration.log.audit:
        yield examine_audit(Path(configuration.log.audit))
    if any(route.disk_spool for route in configuration.routes):
        yield examine_spool(spool_folder(), configuration.limits.spool_total)
    yield from examine_programs(configuration, environ)
    yield from _examine_client_certificates(configuration, now)
    yield examine_limits(configuration)
    yield from judge_environment(configuration, environ)


# ---------------------------------------------------------------- runtime folder


def examine_runtime(environ: Mapping[str, str]) -> Finding:
    """Where the control socket is, without which `bearerd token` does its own refreshes."""
    if not has_sockets():
        return Finding(Level.OK, "runtime", "this system has no control sockets")
    folder = runtime_folder(environ)
    if len(os.fsencode(folder)) + _SOCKET_NAME > PATH_LIMIT:
        text = f"{folder} has a path too long for sockets"
        return Finding(Level.WARN, "runtime", text, "set XDG_RUNTIME_DIR to a shorter one of this user's")
    try:
        with opened(folder):
            return Finding(Level.OK, "runtime", f"{folder} is this user's alone")
    except FileNotFoundError:
        return _judge_making(folder)
    except Unusable as problem:
        return Finding(Level.WARN, "runtime", f"no daemon can be asked: {problem}", f"rm -r {folder}")


def _judge_making(folder: Path) -> Finding:
    if _may_write(folder.parent):
        return Finding(Level.OK, "runtime", f"{folder} is made when bearerd runs")
    text = f"{folder} cannot be made, so no daemon could be asked"
    return Finding(Level.WARN, "runtime", text, "set XDG_RUNTIME_DIR to a folder of this user's")


# ---------------------------------------------------------------- files


def examine_audit(path: Path) -> Finding:
    """Whether bearerd would open it; it does not start if not."""
    seen = look_at(path, read=False)
    if seen is None:
        if _may_write(path.parent):
            return Finding(Level.OK, "audit", f"{path} is made when bearerd runs")
        cure = f"mkdir -p {path.parent}, let this user write there, or set log.audit to another file"
        return Finding(Level.FAIL, "audit", f"{path} cannot be made", cure)
    problem = _judge_audit(path, seen)
    if problem is None and not _may(path, os.W_OK):
        problem = Finding(Level.FAIL, "audit", f"{path} cannot be written to", f"chmod 600 {path}")
    return problem or Finding(Level.OK, "audit", f"{path} takes lines, from this user alone")


def _judge_audit(path: Path, seen: Seen) -> Finding | None:
    other = "set log.audit to another file"
    if seen.kind is not Kind.FILE:
        what = "cannot be looked at" if seen.kind is Kind.UNKNOWN else f"is a {seen.kind}"
        return Finding(Level.FAIL, "audit", f"{path} {what}", other)
    if seen.owner != os.geteuid():
        return Finding(Level.FAIL, "audit", f"{path} belongs to another user (uid {seen.owner})", other)
    if seen.mode & 0o022:
        text = f"{path} has mode {seen.mode:04o}: others could write to it"
        return Finding(Level.FAIL, "audit", text, f"chmod 600 {path}")
    return None


def examine_spool(folder: Path, room: int) -> Finding:
    """Whether `room` bytes of bodies have their place there."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if weakness := find_weakness(folder, own_home()):
        return Finding(Level.WARN, "spool", f"no body is kept in {folder}: {weakness.found}", weakness.cure)
    if not _may_write(there):
        cure = f"let this user write to {there}, or set XDG_CACHE_HOME to another folder"
        return Finding(Level.WARN, "spool", f"no body can be kept in {folder}", cure)
    free = shutil.disk_usage(there).free
    if free < room:
        text = f"{folder} has room for {free >> 20} MiB of bodies, and limits.spool_total is {room >> 20} MiB"
        cure = "make room, set limits.spool_total to less, or XDG_CACHE_HOME to another folder"
        return Finding(Level.WARN, "spool", text, cure)
    return Finding(Level.OK, "spool", f"{folder} has room for bodies")


def _may_write(folder: Path) -> bool:
    return folder.is_dir() and _may(folder, os.W_OK | os.X_OK)


def _may(path: Path, what: int) -> bool:
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)


def examine_programs(configuration: Configuration, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Those that bearerd starts, by their names alone."""
    for account in configuration.accounts.values():
        if isinstance(account.source, CommandSource):
            setting = setting_name(("accounts", account.name, "command"))
            yield _examine_program(account.source.argv[0], setting, Level.FAIL, environ)
    if configuration.on_login_needed:
        program = configuration.on_login_needed[0]
        yield _examine_program(program, "hooks.on_login_needed", Level.WARN, environ)


def _examine_program(program: str, setting: str, level: Level, environ: Mapping[str, str]) -> Finding:
    if shutil.which(program, path=environ.get("PATH", os.defpath)) is not None:
        return Finding(Level.OK, "programs", f"{setting}: {program} can be run")
    cure = f"install it, chmod +x it, or give its whole path in {setting}"
    return Finding(level, "programs", f"{setting}: {program} is not there, or cannot be run", cure)


def _examine_client_certificates(configuration: Configuration, now: float) -> Iterator[Finding]:
    """Those of routes, each once. That they can be read is a matter of the settings."""
    paths = {route.way.tls.client_cert_file for route in configuration.routes}
    for path in sorted(filter(None, paths)):
        try:
            yield judge_client_certificate(path, Path(path).read_bytes(), now)
        except (OSError, ValueError):  # OpenSSL takes forms of it that are none of X.509's own
            yield Finding(
                Level.NOTE, "certificate", f"when the client certificate {path} ends cannot be read"
            )


# ---------------------------------------------------------------- limits and variables


def examine_limits(configuration: Configuration) -> Finding:
    """Open files against connections, as bearerd counts them when it starts."""
    per_call = 3 if any(route.disk_spool for route in configuration.routes) else 2
    return judge_limits(configuration.limits, _most_files(), per_call)


def _most_files() -> float:
    if sys.platform == "win32":
        return float("inf")
    import resource  # noqa: PLC0415  # there is none for Windows

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float("inf") if hard == resource.RLIM_INFINITY else hard


def judge_limits(limits: Limits, files: float, per_call: int) -> Finding:
    """`files` is how many bearerd may have open, and `per_call` how many go with a call."""
    most = (
        allowed_connections(limits.connections, files, per_call)
        if files != float("inf")
        else limits.connections
    )
    if most >= limits.connections:
        return Finding(Level.OK, "limits", f"{limits.connections} connections have the files that they need")
    needed = limits.connections * per_call + SPARE_DESCRIPTORS
    text = f"{files:.0f} open files are enough for {most} connections, and limits.connections is {limits.connections}"
    cure = f"ulimit -Hn {needed} (LimitNOFILE={needed} in a unit), or set limits.connections to {most}"
    return Finding(Level.WARN, "limits", text, cure)


def judge_environment(configuration: Configuration, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Variables by which programs started here would miss bearerd, or it the authorities."""
    found = [*_judge_proxies(configuration, environ), *_judge_authorities(environ)]
    yield from found or [Finding(Level.OK, "environment", "no variable comes between clients and bearerd")]


def _judge_proxies(configuration: Configuration, environ: Mapping[str, str]) -> Iterator[Finding]:
    name = next(
        (name for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY") if environ.get(name)), None
    )
    listed = environ.get("no_proxy", environ.get("NO_PROXY", ""))
    port = configuration.listen.port or 1
    if (
        name is None
        or not configuration.listen.hosts
        or is_excepted(Origin("http", "127.0.0.1", port), listed)
    ):
        return
    wanted = ",".join(filter(None, (listed, "127.0.0.1", "localhost", "::1")))
    text = f"with {name} set, clients started here may call bearerd through that proxy"
    yield Finding(Level.WARN, "environment", text, f"export NO_PROXY={wanted} no_proxy={wanted}")


def _judge_authorities(environ: Mapping[str, str]) -> Iterator[Finding]:
    for name, is_there in (("SSL_CERT_FILE", Path.is_file), ("SSL_CERT_DIR", Path.is_dir)):
        value = environ.get(name)
        if value and not is_there(Path(value)):
            yield Finding(
                Level.FAIL,
                "environment",
                f"{name} leads to nothing, so no server is trusted",
                f"unset {name}, or mend it",
            )
