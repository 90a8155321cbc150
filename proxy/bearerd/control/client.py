"""Asking the daemons of this user. No more is imported than that takes: `bearerd token` shall be quick.

A daemon that says nothing, or no sense, is passed over.
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from bearerd.control.rendezvous import (
    ENDING,
    GREETING,
    Origin,
    Unusable,
    VaultEntry,
    has_sockets,
    may_talk,
    opened,
    runtime_folder,
)
from bearerd.core.redaction import Secret
from bearerd.core.token_formats import HandedToken
from bearerd.errors import LoginRequired, TokenError, TokenUnavailable

GREETING_S: Final = 1.0
TOKEN_S: Final = 11.0  # a daemon itself says after 10 s that it is still waiting
STATUS_S: Final = 5.0
RELOAD_S: Final = 60.0  # the one before it may be under way, and a keychain may have to be asked
LOAN_S: Final = 1.0  # it is answered at once or not at all
REPLY_LIMIT: Final = 1 << 20
_OF_A_STATUS: Final = {"pid", "config", "addresses", "accounts"}  # of another version it may have less


class Daemons:
    """The running daemons of this user. `warning` says why they could not be looked for, if so."""

    def __init__(self, environ: Mapping[str, str], *, token_s: float = TOKEN_S, tidy: bool = True) -> None:
        """With `tidy`, a socket on which nobody listens is removed when it is found so."""
        self._token_s = token_s
        self._tidy = tidy
        self.warning: str | None = None
        self.sockets: list[Path] = []
        if not has_sockets():
            return
        folder = runtime_folder(environ)
        try:
            with opened(folder) as descriptor:
                names = os.listdir(descriptor)  # noqa: PTH208  # pathlib cannot list a descriptor
        except FileNotFoundError:
            return
        except Unusable as problem:
            self.warning = f"running daemons are not asked: {problem}"
            return
        self.sockets = sorted(folder / name for name in names if name.endswith(ENDING))

    def fetch_token(
        self, account: str, origin: Origin, *, min_valid_s: float = 0.0, force: bool = False
    ) -> HandedToken | None:
        """A token from the first daemon that can give one, or None where none serves the account.

        Raises what the first of those that serve it says: LoginRequired, TokenUnavailable.
        """
        request = {
            "do": "refresh" if force else "token",
            "account": account,
            "config": origin.file,
            "overrides": origin.overrides,
            "min_valid_s": min_valid_s,
        }
        refusals: list[TokenError] = []
        for reply in self._ask(request, self._token_s):
            token = parse_token(account, reply)
            if token is not None:
                return token
            refusals += parse_refusal(reply)
        if refusals:
            raise refusals[0]
        return None

    def fetch_status(self) -> list[dict[str, Any]]:
        """The status document of each, with its `pid` and the `config` file it serves."""
        replies = (reply.get("status") for reply in self._ask({"do": "status"}, STATUS_S))
        return [status for status in replies if isinstance(status, dict) and status.keys() >= _OF_A_STATUS]

    def reload(self, origin: Origin) -> list[dict[str, Any]]:
        """What came of it at each that serves the configuration of `origin`."""
        request = {
            "do": "reload",
            "config": origin.file,
            "overrides": origin.overrides,
            "named": origin.named,
        }
        replies = (reply.get("reload") for reply in self._ask(request, RELOAD_S))
        return [report for report in replies if isinstance(report, dict) and "problems" in report]

    def fetch_loans(self, entry: VaultEntry) -> list[object]:
        """What each that shares `entry` has in force, as it says it."""
        request = {"do": "loan", "folder": entry.folder, "stem": entry.stem}
        return [reply.get("loan") for reply in self._ask(request, LOAN_S)]

    def _ask(self, request: Mapping[str, object], limit_s: float) -> Iterator[dict[str, Any]]:
        line = json.dumps(request).encode() + b"\n"
        for path in self.sockets:
            try:
                reply = json.loads(_converse(path, line, limit_s, tidy=self._tidy))
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(reply, dict):
                yield reply


def parse_token(account: str, reply: Mapping[str, object]) -> HandedToken | None:
    """The token in a reply, if there is one."""
    match reply.get("token"):
        case {"access_token": str(value), "expires_at": int() | float() as expires_at} if value.isprintable():
            return HandedToken(account, Secret(value), expires_at)
        case _:
            return None


def parse_refusal(reply: Mapping[str, object]) -> Iterator[TokenError]:
    """Why a daemon that serves the account gives no token."""
    match reply.get("error"):
        case {"kind": "login_required", "text": str(text)}:
            yield LoginRequired(text)
        case {"kind": "unavailable", "text": str(text), "retry_after_s": int() | float() as retry_after_s}:
            yield TokenUnavailable(text, retry_after_s)


def _converse(path: Path, line: bytes, limit_s: float, *, tidy: bool) -> bytes:
    """Raises OSError where there is no conversation."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(GREETING_S)
        try:
            sock.connect(str(path))
        except ConnectionRefusedError:
            if tidy:
                with suppress(OSError):
                    path.unlink()
            raise
        if not may_talk(sock) or _read_line(sock, GREETING_S) != GREETING:
            raise ConnectionAbortedError
        sock.sendall(line)
        return _read_line(sock, limit_s)


def _read_line(sock: socket.socket, limit_s: float) -> bytes:
    """All that comes, up to a line's end. However slowly it comes, it has come within `limit_s`."""
    deadline = time.monotonic() + limit_s
    data = bytearray()
    while not data.endswith(b"\n"):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        sock.settimeout(left_s)
        chunk = sock.recv(64 << 10)
        data += chunk
        if not chunk or len(data) > REPLY_LIMIT:
            raise ConnectionAbortedError
    return bytes(data)
