"""One token from the configuration."""

from bearerd.core.accounts import StaticSource
from bearerd.core.grants import hint_lifetime
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.tokens import Granted, TokenSet
from bearerd.ports import Clock


class StaticTokenSource:
    """Gives the same token until it is seen to have expired."""

    def __init__(self, source: StaticSource, clock: Clock) -> None:
        self._token = source.token
        self._clock = clock

    async def obtain(self, current: TokenSet | None) -> Granted | Failure:
        del current
        lifetime_s = hint_lifetime(self._token, self._clock.wall())
        if lifetime_s is not None and lifetime_s <= 0:
            return Failure(
                FailureKind.PERMANENT, "the configured token has expired; put a new one in its place"
            )
        return Granted(self._token, lifetime_s)

    def changed(self) -> bool:
        return False

    async def aclose(self) -> None:
        """There is nothing to give up."""
