import base64
import json
import time

import pytest

from bearerd.assembly import SystemClock
from bearerd.core.accounts import StaticSource
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted
from bearerd.sources.static import StaticTokenSource


def jwt(**claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"eyJhbGciOiJub25lIn0.{payload}.c2ln"


async def obtain(token: str) -> Granted | Failure:
    source = StaticTokenSource(StaticSource(Secret(token)), SystemClock())
    try:
        return await source.obtain(None)
    finally:
        assert not source.changed()
        await source.aclose()


@pytest.mark.parametrize("token", ["plain", "a.b.c", jwt(sub="x"), jwt(exp="soon"), jwt(exp=None)])
async def test_a_token_without_an_expiry(token: str) -> None:
    assert await obtain(token) == Granted(Secret(token), None)


async def test_a_jwt_says_when_it_expires() -> None:
    token = jwt(exp=int(time.time()) + 600)
    outcome = await obtain(token)
    assert isinstance(outcome, Granted)
    assert outcome.access_token == Secret(token)
    assert outcome.expires_in_s == pytest.approx(600, abs=5)


@pytest.mark.parametrize("exp", [1, 1e9])
async def test_an_expired_jwt_is_for_a_person_to_replace(exp: float) -> None:
    outcome = await obtain(jwt(exp=exp))
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.PERMANENT
    assert "expired" in outcome.reason
    assert "eyJ" not in outcome.reason
