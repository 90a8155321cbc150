"""Every error bearerd raises on purpose.

::

    BearerdError
    +-- Interrupted            a signal asked the program to end
    +-- ConfigError            bad configuration; exit code 78
    |   +-- NotConfigured      there is no configuration at all
    +-- CannotListen           an address cannot be listened on
    +-- TokenError             no token can be had
    |   +-- LoginRequired      a person must log in; exit code 4
    |   +-- TokenUnavailable   the token endpoint or source cannot give one now; retryable
    +-- LoginFailed            a login came to nothing
    |   +-- LoginRefused       a callback that led to no token request
    +-- StoreError             tokens cannot be read or kept; the text names the cure
    |   +-- NoKeyYet           nothing was sealed yet, and there is no key to seal with
    |   +-- DamagedKey         the key file holds no key, or not all of it yet
    |   +-- RefreshLockTimeout another process holds the lock; it passes
    |   +-- StoreUnwritable    no room, a failing disk, a read-only file system: it may pass
    +-- UpstreamError          the upstream failed before a response could be relayed
        +-- UpstreamTimeout    it did not answer, or could not be connected to, in time
        +-- UpstreamUnreachable no connection to it came about
        +-- UpstreamClosed     a connection died before a byte of the response

Texts are written for a person and are safe to print: no message holds a secret, and none is
the text of a foreign exception.
"""

from typing import Final


class BearerdError(Exception):
    """The root of the hierarchy."""


class Interrupted(BearerdError):  # noqa: N818  # the state's own name says more than a suffix
    """A signal asked the program to end before it was done."""


class ConfigError(BearerdError):
    """Bad configuration. The text has one line per problem: setting, problem, cure."""


class NotConfigured(ConfigError):  # noqa: N818  # the state's own name says more than a suffix
    """No file, variable or flag configures anything."""


class CannotListen(BearerdError):  # noqa: N818  # likewise
    """An address of this machine cannot be listened on. The text says which and why; `number` is the system's error."""

    def __init__(self, reason: str, number: int) -> None:
        super().__init__(reason)
        self.number = number


class TokenError(BearerdError):
    """No token can be had for an account."""


class LoginRequired(TokenError):  # noqa: N818  # likewise
    """Only a person can bring the account back."""


class TokenUnavailable(TokenError):  # noqa: N818  # likewise
    """No valid token now; another attempt follows by itself after `retry_after_s` seconds."""

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class LoginFailed(BearerdError):  # noqa: N818  # likewise
    """A login came to nothing. The text says why, and what to do."""


class LoginRefused(LoginFailed):
    """A callback that led to no token request. `ended` says that the login it belongs to is over by it."""

    def __init__(self, reason: str, *, ended: bool = False) -> None:
        super().__init__(reason)
        self.ended = ended


class StoreError(BearerdError):
    """The store cannot be used as it is. The text names what, why and the cure."""


class NoKeyYet(StoreError):  # noqa: N818  # likewise
    """There is no key, none shall be made now, and nothing was ever sealed with one. It is how every vault begins."""


class DamagedKey(StoreError):  # noqa: N818  # likewise
    """The key file holds no key, or not all of it yet: another process may be making it."""


class RefreshLockTimeout(StoreError):  # noqa: N818  # likewise
    """Another process has held the refresh lock for longer than is waited. Nothing is refreshed without it."""


class StoreUnwritable(StoreError):  # noqa: N818  # likewise
    """The store can be read and not written: no room, a failing disk, a read-only file system."""


class UpstreamError(BearerdError):
    """The upstream broke the exchange before its response head was complete."""


class UpstreamTimeout(UpstreamError):  # noqa: N818  # likewise
    """The upstream did not connect or answer within its limit."""


class UpstreamClosed(UpstreamError):  # noqa: N818  # likewise
    """The connection closed before one byte of the response arrived."""


class UpstreamUnreachable(UpstreamError):  # noqa: N818  # likewise
    """No connection came about: no such name, nobody who listens, no TLS that can be trusted."""


def kind_of(error: UpstreamError) -> str:
    """For metrics: one of `UPSTREAM_KINDS`, but not `CUT_SHORT`. What is no HTTP is invalid."""
    return next((kind for cls, kind in _KINDS.items() if isinstance(error, cls)), _INVALID)


CUT_SHORT: Final = "cut_short"
"""The kind of an answer that broke off when a part of it had been passed on."""
_INVALID: Final = "invalid"
_KINDS: Final[dict[type[UpstreamError], str]] = {
    UpstreamTimeout: "timeout",
    UpstreamClosed: "closed",
    UpstreamUnreachable: "unreachable",
}
UPSTREAM_KINDS: Final = (*_KINDS.values(), _INVALID, CUT_SHORT)
