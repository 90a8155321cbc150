"""Callbacks of logins: queries, what people paste, where they are sent afterwards."""

from typing import Final

from bearerd.core.authorization import (
    Callback,
    CallbackRefused,
    Transaction,
    build_transaction,
    check_callback,
    parse_callback,
    parse_pasted,
    parse_return_to,
)
from bearerd.core.metadata import Metadata
from bearerd.core.redaction import Secret
from fuzz import check_sentence

ISSUER: Final = "https://login.example.com"
SERVER: Final = Metadata(ISSUER, f"{ISSUER}/token", iss_required=True)
TRANSACTION: Final[Transaction] = build_transaction(
    "work",
    redirect_uri="http://127.0.0.1:6750/-/callback",
    binding=Secret("binding"),
    return_to="/-/",
    oidc=True,
    entropy=bytes(96),
    now=0.0,
)


def fuzz(data: bytes) -> None:
    try:
        check(parse_callback(data))
    except CallbackRefused as problem:
        check_sentence(problem)
    text = data.decode("utf-8", "surrogateescape")
    try:
        pasted = parse_pasted(text)
        if isinstance(pasted, Callback):
            check(pasted)
        else:
            check_value(pasted.reveal())
    except CallbackRefused as problem:
        check_sentence(problem)
    place = parse_return_to(text)
    assert place.startswith("/")
    assert not place.startswith(("//", "/\\"))
    assert place.isascii()
    assert place.isprintable()


def check(callback: Callback) -> None:
    assert (callback.code is None) != (callback.error is None)
    for value in (callback.state, callback.code):
        if value is not None:
            check_value(value.reveal())
    for text in (callback.iss, callback.error, callback.error_description):
        assert text is None or text.isprintable()
    code = check_callback(callback, TRANSACTION, SERVER, 1.0)
    assert callback.state == TRANSACTION.state
    assert callback.iss == ISSUER
    assert code == callback.code


def check_value(value: str) -> None:
    """RFC 6749 appendix A: VSCHAR, and no more of them than a server sends."""
    assert value.isascii()
    assert value.isprintable()
    assert 0 < len(value) <= 4096
