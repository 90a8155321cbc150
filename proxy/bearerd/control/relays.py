"""The listeners for logins whose redirect URI has another port than ours."""

import asyncio
import string
from urllib.parse import quote

from aiohttp import web

from bearerd.control.answers import send_on
from bearerd.control.callback_listener import CallbackListener, Handler
from bearerd.core.authorization import LIFETIME_S
from bearerd.core.guard import Head
from bearerd.core.redirects import Landing, Place
from bearerd.errors import LoginFailed
from bearerd.tokens.logins import Logins


class Relays:
    """Each port is open while a login may come back to it. From there the browser is sent on to our own callback.

    There it is known by its cookie, and can go on to where it wanted to: from another port's page it could not.
    """

    def __init__(self, logins: Logins) -> None:
        self._logins = logins
        self._listeners: dict[Place, CallbackListener] = {}
        self._holds: dict[str, tuple[Place, asyncio.Task[None]]] = {}
        self._opening = asyncio.Lock()

    async def hold(self, account: str, landing: Landing) -> None:
        """Listen until the login of `account` that has just begun is over. Raises LoginFailed where that cannot be."""
        place = landing.relay
        if place is None:
            return
        async with self._opening:
            if place not in self._listeners:
                listener = CallbackListener(place, _send_on_to(landing))
                await listener.start()
                self._listeners[place] = listener
        if account in self._holds:
            self._holds[account][1].cancel()
        self._holds[account] = (place, asyncio.create_task(self._release(account, place)))

    async def aclose(self) -> None:
        tasks = [task for _, task in self._holds.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners.values():
            await listener.aclose()
        self._listeners.clear()

    async def _release(self, account: str, place: Place) -> None:
        try:
            async with asyncio.timeout(LIFETIME_S):
                await self._logins.wait(account)
        except (LoginFailed, TimeoutError):
            """It is over all the same."""
        del self._holds[account]
        async with self._opening:
            if all(held != place for held, _ in self._holds.values()) and place in self._listeners:
                await self._listeners.pop(place).aclose()


def _send_on_to(landing: Landing) -> Handler:
    async def send(head: Head) -> web.Response:
        query = quote(head.target.partition(b"?")[2], safe=string.punctuation)
        return send_on(f"{landing.origin}{landing.path}?{query}")

    return send
