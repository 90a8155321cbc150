"""A form's proof that it was given out by this process to this browser: no state is kept for it."""

import hmac

from bearerd.core.redaction import Secret


def build_token(key: bytes, cookie: str) -> Secret:
    """What a form sends along with the browser's `cookie`. `key` is the process's own, and random."""
    return Secret(hmac.digest(key, cookie.encode(), "sha256").hex())


def is_token(key: bytes, cookie: str | None, given: str | None) -> bool:
    """Whether `given` was made for `cookie`. Takes as long for a near miss as for any other."""
    if not cookie or not given:
        return False
    return hmac.compare_digest(build_token(key, cookie).reveal().encode(), given.encode())
