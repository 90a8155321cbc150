"""Calls that bring a credential of their own, to routes that let it pass (`inject = "if-absent"`)."""

from typing import Final

from bearerd.core.field_rules import canonical
from bearerd.core.fields import RawFields
from bearerd.core.headers import nominated
from bearerd.core.problems import Problem

# They prove who somebody is to a connection, not to a call (RFC 4559 section 6): calls that share it would be theirs.
_OF_CONNECTIONS: Final = frozenset({b"negotiate", b"ntlm"})


def brings_own(carrier: bytes, headers: RawFields) -> bool | Problem:
    """Whether a call with these fields has a credential of the client's own in the field that would carry ours.

    A problem where that cannot be said with certainty. Nobody's credential is exchanged for another's unasked.
    """
    name = carrier.lower()
    brought = [(key.lower(), value.strip()) for key, value in headers if canonical(key) == canonical(name)]
    if not brought:
        return False
    shown = name.decode("ascii")
    if len(brought) > 1:
        return _refuse(f"there is more than one {shown} field; send one of them")
    spelt, value = brought[0]
    if spelt != name:
        return _refuse(f"a field is called {spelt.decode('latin-1')}; write {shown}, or leave it out")
    if not value:
        return _refuse(f"the {shown} field is empty; give it a value, or leave it out")
    if name in nominated(headers):
        return _refuse(f"Connection names {shown}, so it could not go upstream; take it out there")
    if value.split(maxsplit=1)[0].lower() in _OF_CONNECTIONS:
        return _refuse("Negotiate and NTLM are for a connection, and calls share those; use another scheme")
    return True


def _refuse(detail: str) -> Problem:
    return Problem(400, "bad_credential", detail, "http_request_error")
