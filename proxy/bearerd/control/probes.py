"""What machines ask of a daemon: does it live, shall it be called, what has it counted."""

from typing import Final

from aiohttp import web

from bearerd.control.answers import answer_plainly
from bearerd.control.health import Health
from bearerd.control.metrics import MetricsPage
from bearerd.core.guard import Head
from bearerd.core.probes import build_report
from bearerd.core.queries import has_parameter

_TEXT: Final = "text/plain; charset=utf-8"


class Probes:
    """The pages of that, wherever they are served."""

    def __init__(self, health: Health, metrics: MetricsPage) -> None:
        self._health = health
        self._metrics = metrics

    async def answer(self, name: str, head: Head) -> web.Response | None:
        """The page called `name`, or None where there is none. healthz is another name for readyz."""
        match name:
            case "livez":
                checks = self._health.alive()
            case "readyz" | "healthz":
                checks = await self._health.ready()
            case "metrics":
                return await self._list(head)
            case _:
                return None
        status, text = build_report(
            "livez" if name == "livez" else "readyz", checks, verbose=has_parameter(head.target, b"verbose")
        )
        return answer_plainly(text, _TEXT, status)

    async def _list(self, head: Head) -> web.Response:
        ready = not any(check.problem for check in await self._health.ready())
        accept = b",".join(head.every(b"accept")).decode("latin-1")
        return answer_plainly(*await self._metrics.answer(accept, ready=ready))
