import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bearerd.core.repeats import MOST, PER_S, Run, count, key_of


@settings(deadline=None)
@given(st.lists(st.floats(0, 20), max_size=80))
def test_no_minute_says_more_than_so_many_and_none_is_lost(pauses: list[float]) -> None:
    run = Run(0.0)
    now, said, told = 0.0, 1, 0
    for pause in pauses:
        now += pause
        before, run = run, count(run, now)
        said += not run.unsaid
        if run.began_at != before.began_at:
            assert now - before.began_at >= PER_S
            told += before.unsaid
        assert run.said <= MOST
    assert said + told + run.unsaid == len(pauses) + 1


def test_the_next_minute_begins_anew() -> None:
    run = Run(0.0, MOST, 5)
    assert count(run, PER_S - 0.001) == Run(0.0, MOST, 6)
    assert count(run, PER_S) == Run(PER_S)


@pytest.mark.parametrize("field", ["event", "account", "route", "problem", "kind", "reason", "logger"])
def test_what_differs_in_any_of_these_is_another(field: str) -> None:
    event = {
        "event": "a.b",
        "account": "x",
        "route": "/",
        "problem": "p",
        "kind": "k",
        "reason": "r",
        "logger": "l",
    }
    assert key_of(event) == key_of(event | {"path": "/other", "request_id": "other", "trace_id": "other"})
    assert key_of(event) != key_of(event | {field: "other"})
    assert key_of({"event": "a.b", "account": "x"}) != key_of({"event": "a.b", "route": "x"})


@pytest.mark.parametrize(
    "name",
    [
        *("request.forwarded", "token.login_required", "token.unsaved", "token.saved_at_last"),
        *("daemon.stopped", "audit.failed", "log.dropped", "config.refused"),
    ],
)
def test_what_is_news_each_time_is_always_said(name: str) -> None:
    assert key_of({"event": name, "account": "work"}) is None
