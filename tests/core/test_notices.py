"""When a person is told that a login is needed."""

from bearerd.core.lifecycle import Active, LoginPending, LoginRequired, NoToken
from bearerd.core.notices import PAUSE_S, Notice, decide_notice
from bearerd.core.redaction import Secret
from bearerd.core.tokens import TokenSet

LOST = LoginRequired("logged out")


def test_the_first_call_tells() -> None:
    assert decide_notice(None, LOST, 5.0) == Notice(5.0)


def test_only_where_a_login_is_needed_and_nobody_is_at_it() -> None:
    token = TokenSet(1, Secret("t"), 0.0, 1.0)
    for state in (Active(token), NoToken(), LoginPending(None, "x"), LoginPending(token, "x")):
        assert decide_notice(None, state, 5.0) is None


def test_once_for_each_loss() -> None:
    """However long it lasts, and whatever becomes of logins meanwhile that come to nothing."""
    told = Notice(0.0)
    for now in (0.0, PAUSE_S, 1e6):
        assert decide_notice(told, LoginRequired("the login was given up"), now) is None


def test_the_next_loss_tells_again_but_not_within_a_minute() -> None:
    heeded = Notice(100.0, heeded=True)
    assert decide_notice(heeded, LOST, 100.0 + PAUSE_S - 0.1) is None
    assert decide_notice(heeded, LOST, 100.0 + PAUSE_S) == Notice(100.0 + PAUSE_S)
