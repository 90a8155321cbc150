"""What is asked of each proxy, and who does the asking."""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["calls", "bodies", "streams", "sockets"]


@dataclass(frozen=True, slots=True)
class Workload:
    """Calls of one kind. `tool` is ``wrk`` or a kind of load.go's; `script` tells wrk what else there is to a call.

    `rounds` is how often each proxy has its turn.

    The proxies are measured by turns, but for streams and sockets: there each is begun anew, because memory
    that was given back once is taken again.
    """

    name: str
    kind: Kind
    tool: str
    connections: int = 1
    path: str = "/"
    script: str = ""
    body_mib: int = 0
    rounds: int = 2

    @property
    def alone(self) -> bool:
        return self.kind in {"streams", "sockets"}

    @property
    def file(self) -> str:
        """The body's file in the upstream's folder."""
        return f"{self.body_mib}m"


POST: Final = 'wrk.method = "POST"; wrk.body = string.rep("x", 4096)'

SMALL: Final = Workload("Small GET, 32 connections", "calls", "wrk", 32, rounds=8)
COLD: Final = Workload("Small GET, a new connection for each", "calls", "cold")
ONE_MIB: Final = Workload("Response of 1 MiB, 8 connections", "bodies", "wrk", 8, "/1m", body_mib=1)
DOWN: Final = Workload("Response of 100 MiB, 1 connection", "bodies", "download", path="/100m", body_mib=100)
UP: Final = Workload("Request of 100 MiB, 1 connection", "bodies", "upload", path="/upload", body_mib=100)
STREAMS: Final = Workload("1,000 streams of server-sent events", "streams", "events", 1000, "/events")
SOCKETS: Final = Workload("256 idle WebSockets", "sockets", "sockets", 256, "/socket")

WORKLOADS: Final = (
    SMALL,
    Workload("Small GET, 1 connection", "calls", "wrk"),
    Workload("POST of 4 KiB, 32 connections", "calls", "wrk", 32, script=POST),
    COLD,
    ONE_MIB,
    DOWN,
    UP,
    STREAMS,
    SOCKETS,
)
