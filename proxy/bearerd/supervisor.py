"""What the service manager that started this process wants to know of it, and how that is said (sd_notify(3)).

systemd names a socket in the environment; whoever else starts a service may do the same. Where nobody does, nothing is
said. Nothing that goes wrong here is anybody's error: a service manager that does not listen costs its own knowledge.
"""

import asyncio
import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final, Self

SOCKET: Final = "NOTIFY_SOCKET"
WATCHDOG: Final = "WATCHDOG_USEC"
WATCHDOG_OF: Final = "WATCHDOG_PID"
SEND_S: Final = 0.5  # for a manager that is behind with reading, to be told of a new state
_MICROSECONDS: Final = 1_000_000


class Supervisor:
    """Tells the service manager at `address`, if there is one, how this process does.

    `watchdog_s` is how often it wants to hear that the process is alive, at least; None where it does not ask.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self._address = address
        self._watchdog_s = watchdog_s if address else None
        self._told = ""
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Self:
        """The one that `environ` names. It is taken out of there: a program that we start is another service, or none."""
        address = environ.pop(SOCKET, None)
        period = environ.pop(WATCHDOG, "")
        ours = environ.pop(WATCHDOG_OF, None) in {None, str(os.getpid())}
        return cls(_parse_address(address), _parse_period(period) if ours else None)

    @property
    def listens(self) -> bool:
        return self._address is not None

    def ready(self) -> None:
        """Clients can connect, now or again."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` says that it is over, whatever came of it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Starting or stopping takes longer: so long from now on, unless this is said again."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * _MICROSECONDS)}")

    def describe(self, text: str) -> None:
        """What `systemctl status` shows, one line. The same again is not sent."""
        if text != self._told:
            self._told = text
            self._send(f"STATUS={' '.join(text.split())}")

    def watch(self) -> None:
        """From now on, say twice in each period that the running event loop turns. One that hangs says nothing."""
        if self._watchdog_s is not None:
            self._send("WATCHDOG=1", limit_s=0)
            self._timer = asyncio.get_running_loop().call_later(self._watchdog_s / 2, self.watch)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _send(self, message: str, limit_s: float = SEND_S) -> None:
        if self._address is None:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(limit_s)
            sock.sendto(message.encode(), self._address)


def _parse_address(text: str | None) -> str | None:
    """A path, or a name after an @ that is in no file system (unix(7)); None for anything else, such as a vsock."""
    if not text or text[0] not in "/@" or not hasattr(socket, "AF_UNIX"):
        return None
    return f"\0{text[1:]}" if text[0] == "@" else text


def _parse_period(text: str) -> float | None:
    """Seconds; None for what is no number of microseconds."""
    return int(text) / _MICROSECONDS if text.isascii() and text.isdigit() and int(text) else None
