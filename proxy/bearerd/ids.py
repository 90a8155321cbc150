"""What a call is called: the id that its lines in the logs and an answer of our own have in common."""

import re
import secrets
from itertools import count
from typing import Final

from bearerd.core.guard import Head

_CLIENTS: Final = re.compile(rb"[!-~]{1,64}")
_process: Final = secrets.token_hex(5)
_numbers: Final = count(1)


def request_id(head: Head) -> str:
    """The call's, which is given at the first question: most calls that nobody logs need none. Not a secret."""
    if head.request_id is None:
        head.request_id = f"{_process}{next(_numbers):06x}"
    return head.request_id


def identify(head: Head) -> dict[str, str]:
    """What events that belong to a call say of it, as far as it is known."""
    known = {"request_id": request_id(head)}
    trace_id = head.trace_id
    if trace_id is not None:
        known["trace_id"] = trace_id
    if head.key is not None:
        known["key"] = head.key
    given = head.get(b"x-request-id")
    if given is not None and _CLIENTS.fullmatch(given):
        known["client_request_id"] = given.decode()
    return known
