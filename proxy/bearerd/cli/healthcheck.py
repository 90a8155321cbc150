"""`bearerd healthcheck`: the probe of a container that has no curl.

It imports little, and reads no more of the configuration than where the daemon listens.
"""

import os
import socket
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from bearerd.cli import config_option
from bearerd.core.reaching import Target, choose_target
from bearerd.places import find_file

PATIENCE_S: Final = 3.0
ANSWER_LIMIT: Final = 64 << 10


@click.command("healthcheck")
@click.option("--ready", is_flag=True, help="Ask whether calls can be sent to it, not only whether it lives.")
@config_option
@click.option("--port", type=click.IntRange(1, 65535), help="Ask 127.0.0.1 at this port of its calls.")
def command(path: Path | None, port: int | None, *, ready: bool) -> None:
    """Ask the daemon on this machine how it is.

    It is asked at listen.probes, else where it takes calls. One line says what it answered. The exit code is 0 if all is well, else 1.

    Example: bearerd healthcheck --ready
    """
    try:
        target = Target("127.0.0.1", port) if port is not None else _find(path, os.environ)
        problem = check(target, "readyz" if ready else "livez", time.monotonic() + PATIENCE_S)
    except ValueError as exc:
        problem = str(exc)
    if problem:
        click.echo(f"bearerd: {problem}", err=True)
        raise click.exceptions.Exit(1)
    click.echo(f"bearerd at {target} is {'ready' if ready else 'alive'}")


def _find(path: Path | None, environ: Mapping[str, str]) -> Target:
    """Raises ValueError."""
    file = find_file(path, environ)
    document: dict[str, Any] = {}
    if file is not None:
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        except OSError as exc:
            raise ValueError(f"{file} cannot be read: {os.strerror(exc.errno or 0).lower()}") from None
        except (ValueError, RecursionError):
            raise ValueError(f"{file} is no configuration; see: bearerd config check") from None
    table = document.get("listen", {})
    target = choose_target(table if isinstance(table, dict) else {}, environ)
    if target.socket and file is not None:
        return Target(socket=str(file.parent / target.socket))
    return target


def check(target: Target, page: str, until: float) -> str:
    """What is wrong with the daemon, or nothing. `until` is an instant of the steady clock."""
    try:
        status, body = _ask(target, page, until)
    except TimeoutError:
        return f"at {target} there was no answer within {PATIENCE_S:g} seconds"
    except OSError:
        return f"nothing answers at {target}; start it with: bearerd run"
    except ValueError:
        return f"what answers at {target} is not bearerd"
    if status == 200:
        return ""
    failed = [line[3:] for line in body.splitlines() if line.startswith("[-]") and line.isprintable()]
    return "; ".join(failed) or f"at {target} the answer is {status}, not 200"


def _ask(target: Target, page: str, until: float) -> tuple[int, str]:
    """Status and body. Raises OSError, and ValueError for what is no answer of HTTP."""
    request = f"GET {target.prefix}/{page} HTTP/1.1\r\nHost: {target.authority}\r\nConnection: close\r\n\r\n"
    with _connect(target) as sock:
        sock.sendall(request.encode())
        answer = b""
        while len(answer) < ANSWER_LIMIT and (data := _receive(sock, until)):
            answer += data
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end or not head.startswith(b"HTTP/1."):
        raise ValueError
    return int(head[9:12]), body.decode("utf-8", "replace")


def _connect(target: Target) -> socket.socket:
    if not target.socket:
        return socket.create_connection((target.host, target.port), PATIENCE_S)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE_S)
    try:
        sock.connect(target.socket)
    except BaseException:
        sock.close()
        raise
    return sock


def _receive(sock: socket.socket, until: float) -> bytes:
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    sock.settimeout(left_s)
    return sock.recv(ANSWER_LIMIT)
