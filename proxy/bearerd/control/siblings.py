"""The other daemons of this user that keep an account in the same vault, as those from whom its token can be borrowed."""

import asyncio
from collections.abc import Mapping
from typing import Final

from bearerd.control.client import Daemons
from bearerd.control.rendezvous import VaultEntry
from bearerd.core.redaction import Secret
from bearerd.core.tokens import TokenSet

_END_OF_TIME: Final = 1e11  # epoch seconds; neither infinity nor a number too big for arithmetic is before it


class VaultSiblings:
    """Asks them by their control sockets. A daemon asks itself too, and learns nothing new."""

    def __init__(self, environ: Mapping[str, str], entry: VaultEntry) -> None:
        self._environ = environ
        self._entry = entry

    async def borrow(self, above: int) -> TokenSet | None:
        """In a thread: a daemon that is stopped is waited for, for a second."""
        loans = await asyncio.to_thread(self._ask)
        tokens = [token for token in map(parse_loan, loans) if token is not None and token.generation > above]
        return max(tokens, key=lambda token: (token.generation, token.expires_at), default=None)

    def _ask(self) -> list[object]:
        return Daemons(self._environ).fetch_loans(self._entry)


def parse_loan(loan: object) -> TokenSet | None:
    """What one of them says it has in force; None where it has nothing, or says no sense."""
    match loan:
        case {
            "generation": int(generation),
            "access_token": str(value),
            "obtained_at": int() | float() as obtained_at,
            "expires_at": int() | float() as expires_at,
        } if value.isprintable() and 0 < obtained_at < expires_at < _END_OF_TIME:
            return TokenSet(generation, Secret(value), obtained_at, expires_at)
        case _:
            return None
