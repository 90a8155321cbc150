"""What the token manager needs of the world. Adapters live in `oauth`, `sources` and `stores`."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from bearerd.core.authorization import Transaction
from bearerd.core.calls import Asker
from bearerd.core.device import DeviceAuthorization
from bearerd.core.failures import FailureNote
from bearerd.core.lifecycle import Event, Failure, State
from bearerd.core.metadata import Metadata
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted, TokenSet, Tombstone


class Timer(Protocol):
    """A call set for later."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Time, injected so that tests can move it."""

    def wall(self) -> float:
        """Epoch seconds by this machine's clock, which people and NTP may set."""
        ...

    def steady(self) -> float:
        """Seconds that only ever go forward, from an arbitrary start."""
        ...

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` on the event loop after `delay_s` seconds."""
        ...


class TokenSource(Protocol):
    """Where an account's tokens come from: a token endpoint, a program, a file."""

    async def obtain(self, current: TokenSet | None) -> Granted | Failure:
        """A new token. `current` is what is in the store, whose refresh token may be spent by this.

        Failures are values: nothing is raised but cancellation, and defects.
        """
        ...

    def changed(self) -> bool:
        """True where the credential behind the source is not what `obtain` last saw. Cheap, no network."""
        ...

    async def aclose(self) -> None:
        """Give up connections and processes."""
        ...


class AuthorizationServer(Protocol):
    """What a login asks of an account's authorization server. Failures are values, as in `TokenSource`."""

    async def describe(self) -> Metadata | Failure:
        """Its endpoints: what the configuration names, and else what the issuer's metadata does."""
        ...

    async def redeem(self, code: Secret, transaction: Transaction) -> Granted | Failure:
        """Exchange the code of a callback (RFC 6749 section 4.1.3), and check the ID token if one comes."""
        ...

    async def authorize_device(self) -> DeviceAuthorization | Failure:
        """Begin a login on another device (RFC 8628 section 3.1)."""
        ...

    async def redeem_device(self, device: DeviceAuthorization) -> Granted | Failure:
        """Ask once whether that login is done (section 3.4). `Failure.error` tells what to do if not."""
        ...

    async def revoke(self, token: Secret, kind: Literal["refresh_token", "access_token"]) -> str | None:
        """Tell the server to forget `token` (RFC 7009). Why it has not, or None."""
        ...

    async def aclose(self) -> None:
        """Give up connections."""
        ...


class TokenStore(Protocol):
    """One account's tokens at rest, and what processes that share them tell each other."""

    async def load(self) -> TokenSet | Tombstone | None:
        """The record of the highest generation saved by any process, or None. Raises StoreError."""
        ...

    async def save(self, record: TokenSet | Tombstone) -> None:
        """Keep `record` in place of what is there. On return it will be found by any `load`.

        Raises StoreUnwritable where it cannot be kept now, and StoreError.
        """
        ...

    async def check_writable(self) -> None:
        """Raises as `save` would."""
        ...

    def changed(self) -> bool:
        """True where another process may have saved since the last `load` or `save`. Cheap."""
        ...

    async def load_note(self) -> FailureNote | None:
        """The last failure any process has noted."""
        ...

    async def save_note(self, note: FailureNote) -> None:
        """Note a failure. Where that cannot be done nothing is lost."""
        ...


class Siblings(Protocol):
    """Other processes that share the account's store, and hold tokens that it may not have yet."""

    async def borrow(self, above: int) -> TokenSet | None:
        """The access token of the highest generation beyond `above` that one of them has in force.

        It has no refresh token. None, and soon, where nobody has one. Raises nothing.
        """
        ...


class RefreshLock(Protocol):
    """Held around a whole refresh: no other holder, in any process that shares the store.

    Entering raises StoreError, RefreshLockTimeout among them.
    """

    def hold(self) -> AbstractAsyncContextManager[None]: ...


class Observer(Protocol):
    """Is told what happens to an account, for logs and people. Must not raise."""

    def changed(self, before: State, event: Event, after: State, askers: Sequence[Asker]) -> None:
        """`askers` are the calls that wait for a token by then, the one that has waited longest first."""
        ...

    def unsaved(self, reason: str | None) -> None:
        """A token is in use that the store could not keep, for `reason`; None once it has been kept."""
        ...

    def defect(self, exc: Exception) -> None:
        """A port raised what it should have returned; the account goes on."""
        ...
