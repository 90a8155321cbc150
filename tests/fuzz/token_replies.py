"""Replies of token and device endpoints. The first bytes are the status and the length of Retry-After."""

from typing import Final

from bearerd.core.device import DeviceAuthorization, parse_device_reply
from bearerd.core.grants import parse_token_reply
from bearerd.core.id_tokens import IdTokenError, check_id_token
from bearerd.core.lifecycle import Failure
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted, build_token_set
from fuzz import check_sentence

STATUSES: Final = (200, 201, 302, 400, 401, 403, 429, 500, 503)
NOW: Final = 1_800_000_000.0
SENT: Final = Secret("a-long-secret-that-was-sent")


def fuzz(data: bytes) -> None:
    status = STATUSES[(data[0] if data else 0) % len(STATUSES)]
    cut = 2 + (data[1] if len(data) > 1 else 0)
    asked, body = data[2:cut].decode("latin-1"), data[cut:]
    token = parse_token_reply(status, body, NOW, retry_after=asked or None, sent=(SENT,))
    device = parse_device_reply(status, body, NOW, sent=(SENT,))
    for outcome in (token, device):
        if isinstance(outcome, Failure):
            check_failure(outcome)
    if isinstance(token, Granted):
        check_granted(token)
    if isinstance(device, DeviceAuthorization):
        check_device(device)


def check_failure(failure: Failure) -> None:
    """What is said of it is a line of text, without what was sent."""
    assert failure.reason.isprintable()
    assert SENT.reveal() not in failure.reason
    assert failure.retry_after_s is None or failure.retry_after_s >= 0


def check_granted(granted: Granted) -> None:
    """The token fits a field's value, and its lifetime is one."""
    token = granted.access_token.reveal()
    assert token.isascii()
    assert token.isprintable()
    assert " " not in token
    kept = build_token_set(granted, None, NOW)
    assert kept.expires_at >= NOW or granted.expires_in_s is not None
    assert repr(kept).find(token) < 0 or len(token) < 16
    if granted.id_token is not None:
        try:
            check_id_token(
                granted.id_token, issuer="https://login.example.com", client_id="cli", nonce="n", now=NOW
            )
        except IdTokenError as problem:
            check_sentence(problem)


def check_device(device: DeviceAuthorization) -> None:
    assert device.user_code.isprintable()
    assert device.verification_uri.lower().startswith(("https://", "http://"))
    assert device.expires_at > NOW
    assert 1 <= device.interval_s <= 60
