"""The access log: a line for each call that took a route, when it is over."""

import structlog

from bearerd.core.calls import Entry
from bearerd.core.targets import path_of
from bearerd.ids import identify


class AccessLog:
    """Calls as events. What was refused has an event of its own."""

    shut = False

    def __init__(self) -> None:
        self._log = structlog.get_logger("bearerd.forward")

    def write(self, entry: Entry) -> None:
        if entry.route is not None:
            head = entry.head
            self._log.info(
                "request.forwarded",
                method=head.method,
                path=path_of(head.target).decode("latin-1"),
                route=entry.route,
                account=entry.account,
                status=entry.status,
                replayed=entry.replayed,
                **identify(head),
                **({} if entry.cut is None else {"cut": entry.cut}),
                duration_s=round(entry.duration_s, 6),
            )
