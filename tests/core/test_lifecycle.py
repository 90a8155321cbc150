"""The lifecycle table, row by row. Numbers are those of a 1,000 s token obtained at 1,000 unless said."""

from dataclasses import replace

import pytest

from bearerd.core import lifecycle as lc
from bearerd.core.lifecycle import (
    IDLE,
    Active,
    Backoff,
    CallRejected,
    Event,
    Failure,
    FailureKind,
    Freshness,
    InFlight,
    LoggedOut,
    LoginFailed,
    LoginPending,
    LoginRequired,
    LoginStarted,
    NoToken,
    Policy,
    RefreshFailed,
    RefreshSucceeded,
    RefuseForLogin,
    RefuseForNow,
    Settle,
    SourceChanged,
    Started,
    StartRefresh,
    State,
    StoreFailed,
    Ticked,
    TokenBorrowed,
    TokenStored,
    Use,
    Wait,
    advisory_at,
    decide_call,
    decide_loan,
    decide_replay,
    effective_now,
    freshness,
    mandatory_at,
    next_wakeup,
    retry_at,
    transition,
)
from bearerd.core.redaction import Secret
from bearerd.core.tokens import NOTHING, TokenSet, import_refresh_token

RENEWABLE = Policy(renewable=True)
BY_LOGIN = Policy(renewable=False)
DOWN = Failure(FailureKind.TRANSIENT, "the token endpoint cannot be reached")
REFUSED = Failure(FailureKind.PERMANENT, "the token endpoint says invalid_client")
REJECTED = Failure(FailureKind.GRANT_REJECTED, "the token endpoint says invalid_grant")
UNCHANGED = Failure(FailureKind.UNCHANGED, "the source gave the very token again")
UNKNOWN = Failure(FailureKind.OUTCOME_UNKNOWN, "the token endpoint broke off its answer")


def token(
    generation: int = 1, *, at: float = 1000.0, lifetime_s: float = 1000.0, refresh: str | None = "r"
) -> TokenSet:
    secret = Secret(refresh) if refresh else None
    return TokenSet(generation, Secret(f"access-{generation}"), at, at + lifetime_s, secret)


def step(state: State, event: Event, now: float, policy: Policy = RENEWABLE) -> State:
    return transition(state, event, now, policy)[0]


class TestThresholds:
    @pytest.mark.parametrize(
        ("lifetime_s", "advisory", "mandatory"),
        [
            (3600.0, 300.0, 30.0),
            (1500.0, 300.0, 30.0),
            (600.0, 120.0, 30.0),
            (60.0, 12.0, 3.0),
            (10.0, 2.0, 0.5),
        ],
    )
    def test_both_windows(self, lifetime_s: float, advisory: float, mandatory: float) -> None:
        """min(300 s, 20 %) and min(30 s, 5 %) before expiry."""
        subject = token(lifetime_s=lifetime_s)
        assert subject.expires_at - advisory_at(subject, 0.0, RENEWABLE) == pytest.approx(advisory)
        assert subject.expires_at - mandatory_at(subject, RENEWABLE) == pytest.approx(mandatory)

    def test_jitter_is_earlier_by_a_tenth_of_the_window_at_most(self) -> None:
        subject = token(lifetime_s=3600.0)
        plain = advisory_at(subject, 0.0, RENEWABLE)
        assert plain - advisory_at(subject, 0.5, RENEWABLE) == pytest.approx(15.0)
        assert plain - advisory_at(subject, 0.999999, RENEWABLE) == pytest.approx(30.0, abs=0.001)

    @pytest.mark.parametrize(
        ("now", "expected"),
        [
            (1000.0, Freshness.FRESH),
            (1799.9, Freshness.FRESH),
            (1800.0, Freshness.ADVISORY),
            (1969.9, Freshness.ADVISORY),
            (1970.0, Freshness.MANDATORY),
            (1999.9, Freshness.MANDATORY),
            (2000.0, Freshness.EXPIRED),
            (940.0, Freshness.FRESH),  # a sharing host's clock may be a minute behind
            (939.9, Freshness.MANDATORY),  # obtained in the future: cannot be judged
        ],
    )
    def test_freshness(self, now: float, expected: Freshness) -> None:
        assert freshness(token(), 0.0, now, RENEWABLE) is expected


class TestEffectiveNow:
    def test_a_clock_set_back_does_not_stop_time(self) -> None:
        assert effective_now(wall=0.0, steady=150.0, since_wall=1000.0, since_steady=100.0) == 1050.0

    def test_a_suspend_shows_in_the_wall_clock(self) -> None:
        assert effective_now(wall=30_000.0, steady=101.0, since_wall=1000.0, since_steady=100.0) == 30_000.0


class TestStart:
    def test_a_renewable_account_begins_at_once(self) -> None:
        state, actions = transition(NoToken(), Started(None), 1000.0, RENEWABLE)
        assert state == NoToken(InFlight(1000.0, basis=0))
        assert actions == (StartRefresh(0, rejected=False),)

    def test_an_account_by_login_asks_for_one(self) -> None:
        state, actions = transition(NoToken(), Started(None), 1000.0, BY_LOGIN)
        assert state == LoginRequired(lc.NEVER_LOGGED_IN)
        assert actions == (Settle(),)

    def test_a_fresh_token_from_the_store_is_used_as_it_is(self) -> None:
        assert transition(NoToken(), Started(token(), 0.5), 1001.0, BY_LOGIN) == (Active(token(), 0.5), ())

    def test_an_imported_refresh_token_is_spent_at_once(self) -> None:
        state, actions = transition(NoToken(), Started(import_refresh_token(Secret("r"))), 1000.0, BY_LOGIN)
        assert isinstance(state, Active)
        assert isinstance(decide_call(state, 1000.0, BY_LOGIN), Wait)
        assert actions == (StartRefresh(0, rejected=False),)


class TestRefreshAhead:
    def test_nothing_happens_while_fresh(self) -> None:
        state = Active(token())
        assert transition(state, Ticked(), 1799.0, BY_LOGIN) == (state, ())

    def test_the_advisory_instant_begins_a_refresh_and_calls_go_on(self) -> None:
        state, actions = transition(Active(token()), Ticked(), 1800.0, BY_LOGIN)
        assert actions == (StartRefresh(1, rejected=False),)
        assert decide_call(state, 1800.0, BY_LOGIN) == Use(token())

    def test_one_refresh_is_enough(self) -> None:
        state = step(Active(token()), Ticked(), 1800.0)
        assert transition(state, Ticked(), 1801.0, RENEWABLE) == (state, ())
        assert transition(state, SourceChanged(), 1801.0, RENEWABLE) == (state, ())

    def test_success_puts_the_new_token_in_force_and_wakes_the_waiting(self) -> None:
        state = step(Active(token()), Ticked(), 1800.0)
        newer = token(2, at=1800.0)
        assert transition(state, RefreshSucceeded(newer, 1, 0.25), 1801.0, RENEWABLE) == (
            Active(newer, 0.25),
            (Settle(),),
        )

    def test_a_token_without_a_successor_is_used_to_its_end(self) -> None:
        last = Active(token(refresh=None))
        assert step(last, Ticked(), 1999.0, BY_LOGIN) == last
        assert decide_call(last, 1999.0, BY_LOGIN) == Use(last.token)
        assert step(last, Ticked(), 2000.0, BY_LOGIN) == LoginRequired(lc.NOT_RENEWABLE, forgotten=1)
        assert next_wakeup(last, BY_LOGIN) == 2000.0


class TestMandatory:
    def test_calls_wait_for_the_refresh_at_most_10_s(self) -> None:
        state = step(Active(token()), Ticked(), 1980.0)
        assert decide_call(state, 1980.0, RENEWABLE) == Wait(1990.0)
        assert decide_call(state, 1990.0, RENEWABLE) == Use(token())

    def test_once_an_attempt_has_failed_a_valid_token_is_used_without_waiting(self) -> None:
        state = step(Active(token()), Ticked(), 1980.0)
        state = step(state, RefreshFailed(DOWN, 1, 0.0), 1981.0)
        assert decide_call(state, 1981.0, RENEWABLE) == Use(token())
        state = step(state, Ticked(), 1983.0)
        assert isinstance(lc.phase_of(state), InFlight)
        assert decide_call(state, 1983.0, RENEWABLE) == Use(token())

    def test_with_an_expired_token_calls_are_refused_at_once_even_during_the_next_attempt(self) -> None:
        state = step(Active(token()), Ticked(), 2001.0)
        assert decide_call(state, 2001.0, RENEWABLE) == Wait(2011.0)
        state = step(state, RefreshFailed(DOWN, 1, 0.0), 2001.5)
        assert decide_call(state, 2001.6, RENEWABLE) == RefuseForNow(DOWN.reason, 2002.5 - 2001.6)
        state = step(state, Ticked(), 2002.6)
        assert decide_call(state, 2002.6, RENEWABLE) == RefuseForNow(DOWN.reason, 1.0)

    def test_a_token_endpoint_that_hangs_refuses_after_10_s_without_a_wait_per_call(self) -> None:
        state = step(NoToken(), Started(None), 1000.0)
        assert decide_call(state, 1009.9, RENEWABLE) == Wait(1010.0)
        assert decide_call(state, 1010.0, RENEWABLE) == RefuseForNow(lc.SLOW, 1.0)


class TestFailures:
    def failing(
        self, failure: Failure, *, now: float = 1800.0, policy: Policy = BY_LOGIN, jitter: float = 0.0
    ) -> State:
        state = step(Active(token()), Ticked(), now, policy)
        return step(state, RefreshFailed(failure, 1, jitter), now, policy)

    def test_backoff_doubles_from_1_s_to_5_min_with_full_jitter(self) -> None:
        state: State = Active(token(lifetime_s=100_000.0))
        now = 100_900.0
        delays = []
        for _ in range(11):
            state = step(state, Ticked(), now)
            state = step(state, RefreshFailed(DOWN, 1, 0.0), now)
            phase = lc.phase_of(state)
            assert isinstance(phase, Backoff)
            delays.append(phase.until - now)
            now = phase.until
            state = (
                replace(state, token=replace(token(), expires_at=now + 299))
                if isinstance(state, Active)
                else state
            )
        assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
        halved = self.failing(DOWN, jitter=0.5)
        assert isinstance(halved, Active)
        assert isinstance(halved.phase, Backoff)
        assert halved.phase.until == 1800.5

    def test_the_delay_is_cut_to_30_s_once_the_token_has_expired(self) -> None:
        late = Backoff(1990.0, until=2290.0, not_before=0.0, failures=9, failure=DOWN)
        assert retry_at(late, token(), RENEWABLE) == 2030.0
        assert retry_at(replace(late, failed_at=2100.0, until=2400.0), token(), RENEWABLE) == 2130.0
        assert retry_at(late, None, RENEWABLE) == 2020.0

    def test_retry_after_is_honoured_and_capped_at_5_min(self) -> None:
        state = self.failing(replace(DOWN, retry_after_s=120.0))
        assert next_wakeup(state, BY_LOGIN) == 1920.0
        state = self.failing(replace(DOWN, retry_after_s=9999.0))
        assert next_wakeup(state, BY_LOGIN) == 2100.0
        assert step(state, Ticked(), 2099.0, BY_LOGIN) == state

    def test_nothing_is_attempted_before_its_time(self) -> None:
        state = self.failing(DOWN)
        assert transition(state, Ticked(), 1800.9, BY_LOGIN) == (state, ())
        assert transition(state, Ticked(), 1801.0, BY_LOGIN)[1] == (StartRefresh(1, rejected=False),)

    def test_a_client_that_is_refused_is_retried_every_5_min_and_not_logged_out(self) -> None:
        state = self.failing(REFUSED, now=2001.0)
        assert isinstance(state, Active)
        assert next_wakeup(state, BY_LOGIN) == 2301.0

    def test_only_a_rejected_grant_ends_the_login(self) -> None:
        for failure in (DOWN, REFUSED, UNKNOWN):
            assert isinstance(self.failing(failure), Active)
        assert self.failing(REJECTED) == LoginRequired(REJECTED.reason, token())

    def test_the_last_access_token_is_used_until_it_expires(self) -> None:
        state = self.failing(REJECTED)
        assert decide_call(state, 1999.0, BY_LOGIN) == Use(token())
        assert decide_call(state, 2000.0, BY_LOGIN) == RefuseForLogin(REJECTED.reason)

    def test_a_rejection_after_an_unknown_outcome_says_that_the_reply_was_lost(self) -> None:
        state = self.failing(UNKNOWN)
        state = step(state, Ticked(), 1810.0, BY_LOGIN)
        assert step(state, RefreshFailed(REJECTED, 1), 1810.0, BY_LOGIN) == LoginRequired(
            lc.REPLY_LOST, token()
        )

    def test_where_there_is_no_login_a_rejection_is_a_refusal(self) -> None:
        state = self.failing(REJECTED, policy=RENEWABLE)
        assert isinstance(state, Active)
        assert next_wakeup(state, RENEWABLE) == 2100.0


class TestPostponed:
    """A refresh whose outcome could not be kept, and that was therefore not sent."""

    POSTPONED = Failure(FailureKind.POSTPONED, "no room")

    def test_it_is_due_by_the_mandatory_instant_at_the_latest(self) -> None:
        late = Backoff(1900.0, until=2200.0, not_before=0.0, failures=9, failure=self.POSTPONED)
        assert retry_at(late, token(), BY_LOGIN) == 1970.0
        assert retry_at(replace(late, until=1910.0), token(), BY_LOGIN) == 1910.0

    def test_calls_go_on_meanwhile(self) -> None:
        state = step(Active(token()), Ticked(), 1800.0, BY_LOGIN)
        state = step(state, RefreshFailed(self.POSTPONED, 1, 0.0), 1800.0, BY_LOGIN)
        assert decide_call(state, 1969.0, BY_LOGIN) == Use(token())

    def test_calls_wait_for_the_attempt_that_follows_for_nothing_has_been_tried_yet(self) -> None:
        state = step(Active(token()), Ticked(), 1800.0, BY_LOGIN)
        state = step(state, RefreshFailed(self.POSTPONED, 1, 0.0), 1969.5, BY_LOGIN)
        state = step(state, Ticked(), 1970.0, BY_LOGIN)
        assert decide_call(state, 1971.0, BY_LOGIN) == Wait(1980.0)
        state = step(state, RefreshFailed(DOWN, 1, 0.0), 1972.0, BY_LOGIN)
        assert decide_call(state, 1973.0, BY_LOGIN) == Use(token())

    def test_it_is_put_off_no_longer_once_an_api_has_refused_the_token(self) -> None:
        state = step(Active(token()), Ticked(), 1800.0, BY_LOGIN)
        state = step(state, RefreshFailed(self.POSTPONED, 1, 0.0), 1800.0, BY_LOGIN)
        assert next_wakeup(state, BY_LOGIN) == 1801.0
        state, actions = transition(state, CallRejected(1), 1800.5, BY_LOGIN)
        assert actions == (StartRefresh(1, rejected=True),)
        assert decide_replay(state, 1, 1800.5, BY_LOGIN) == Wait(1810.5)

    def test_a_refusal_while_it_is_being_put_off_counts_too(self) -> None:
        state = step(Active(token()), Ticked(), 1800.0, BY_LOGIN)
        state = step(state, CallRejected(1), 1800.0, BY_LOGIN)
        state = step(state, RefreshFailed(self.POSTPONED, 1, 0.0), 1800.1, BY_LOGIN)
        assert next_wakeup(state, BY_LOGIN) == 1800.1
        assert transition(state, Ticked(), 1800.1, BY_LOGIN)[1] == (StartRefresh(1, rejected=True),)


class TestLoans:
    """A sibling keeps the lock with a pair that it cannot save, and lends its access token."""

    LENT = token(2, at=1970.0, refresh=None)

    def borrowed(self) -> State:
        state = step(Active(token()), Ticked(), 1970.0, BY_LOGIN)
        return step(state, TokenBorrowed(self.LENT, 1), 1971.0, BY_LOGIN)

    def test_calls_use_what_is_lent_and_refreshes_go_on_from_what_is_owned(self) -> None:
        assert self.borrowed() == Active(self.LENT, own=token())
        assert decide_call(self.borrowed(), 1971.0, BY_LOGIN) == Use(self.LENT)
        assert lc.owned(self.borrowed()) == token()

    def test_it_is_no_end_of_the_login_that_it_has_no_refresh_token(self) -> None:
        state, actions = transition(self.borrowed(), Ticked(), 2770.0, BY_LOGIN)
        assert actions == (StartRefresh(2, rejected=False),)
        assert next_wakeup(self.borrowed(), BY_LOGIN) == 2770.0
        again = replace(self.LENT, generation=3)
        assert step(state, TokenBorrowed(again, 2), 2771.0, BY_LOGIN) == Active(again, own=token())

    def test_one_who_had_nothing_borrows_too(self) -> None:
        state = step(NoToken(), Started(None), 1000.0)
        assert step(state, TokenBorrowed(self.LENT, 0), 1971.0) == Active(self.LENT, own=NOTHING)

    def test_what_the_lender_saves_is_adopted_though_its_generation_is_no_higher(self) -> None:
        saved = replace(self.LENT, refresh_token=Secret("r2"))
        assert step(self.borrowed(), TokenStored(saved, 0.5), 1980.0, BY_LOGIN) == Active(saved, 0.5)
        older = replace(saved, generation=1)
        assert step(self.borrowed(), TokenStored(older), 1980.0, BY_LOGIN) == self.borrowed()

    def test_what_was_refused_is_so_still_when_the_lender_has_saved_it(self) -> None:
        state = step(self.borrowed(), CallRejected(2), 1980.0, BY_LOGIN)
        saved = replace(self.LENT, refresh_token=Secret("r2"))
        after = step(state, TokenStored(saved), 1980.0, BY_LOGIN)
        assert isinstance(decide_replay(after, 2, 1980.0, BY_LOGIN), Wait)
        other = replace(saved, access_token=Secret("another"))
        assert decide_call(step(state, TokenStored(other), 1980.0, BY_LOGIN), 1980.0, BY_LOGIN) == Use(other)

    def test_a_refusal_of_it_forces_a_refresh(self) -> None:
        assert transition(self.borrowed(), CallRejected(2), 1980.0, BY_LOGIN)[1] == (
            StartRefresh(2, rejected=True),
        )

    def test_a_login_that_ends_takes_it_along_and_the_next_may_have_its_generation(self) -> None:
        state = step(self.borrowed(), Ticked(), 2970.0, BY_LOGIN)
        state = step(state, RefreshFailed(REJECTED, 2), 2970.0, BY_LOGIN)
        assert state == LoginRequired(REJECTED.reason, forgotten=1)
        login = token(2, at=2980.0)
        assert decide_call(step(state, TokenStored(login), 2980.0, BY_LOGIN), 2980.0, BY_LOGIN) == Use(login)

    @pytest.mark.parametrize("generation", [2, 3])
    def test_a_logout_elsewhere_counts_if_it_is_newer_than_what_is_owned(self, generation: int) -> None:
        assert step(self.borrowed(), LoggedOut(1), 1980.0, BY_LOGIN) == self.borrowed()
        assert step(self.borrowed(), LoggedOut(generation), 1980.0, BY_LOGIN) == LoginRequired(
            lc.LOGGED_OUT, forgotten=generation
        )

    def test_what_is_lent_is_in_force_and_good(self) -> None:
        assert decide_loan(Active(token()), 1999.0) == token()
        assert decide_loan(Active(token()), 2000.0) is None
        assert decide_loan(Active(token(), rejected=True), 1500.0) is None
        assert decide_loan(NoToken(), 1500.0) is None
        assert decide_loan(self.borrowed(), 1980.0) == self.LENT


class TestRejectedCalls:
    def test_the_current_token_refused_forces_one_refresh(self) -> None:
        state, actions = transition(Active(token()), CallRejected(1), 1100.0, BY_LOGIN)
        assert actions == (StartRefresh(1, rejected=True),)
        assert transition(state, CallRejected(1), 1100.1, BY_LOGIN) == (state, ())
        assert decide_replay(state, 1, 1100.1, BY_LOGIN) == Wait(1110.0)

    def test_an_older_token_refused_costs_nothing(self) -> None:
        state = Active(token(2))
        assert transition(state, CallRejected(1), 1100.0, BY_LOGIN) == (state, ())
        assert decide_replay(state, 1, 1100.0, BY_LOGIN) == Use(token(2))

    def test_other_calls_wait_for_the_forced_refresh_rather_than_be_refused_too(self) -> None:
        state = step(Active(token()), CallRejected(1), 1100.0)
        assert decide_call(state, 1100.0, RENEWABLE) == Wait(1110.0)

    def test_while_the_token_endpoint_is_down_the_refusal_stands_and_other_calls_go_on(self) -> None:
        state = step(Active(token()), CallRejected(1), 1100.0)
        state = step(state, RefreshFailed(DOWN, 1, 0.0), 1100.0)
        assert decide_replay(state, 1, 1100.5, RENEWABLE) == RefuseForNow(DOWN.reason, 0.5)
        assert decide_call(state, 1100.5, RENEWABLE) == Use(token())
        assert transition(state, CallRejected(1), 1100.5, RENEWABLE) == (state, ())

    def test_the_forced_refresh_is_retried_until_it_succeeds(self) -> None:
        state = step(Active(token()), CallRejected(1), 1100.0)
        state = step(state, RefreshFailed(DOWN, 1, 0.0), 1100.0)
        state, actions = transition(state, Ticked(), 1101.0, RENEWABLE)
        assert actions == (StartRefresh(1, rejected=True),)
        assert step(state, RefreshSucceeded(token(2), 1), 1101.0) == Active(token(2))

    def test_what_was_refused_is_an_answer_again_where_there_is_no_other(self) -> None:
        """A source may have no other token, and nothing to tell of its end: a 401 must not cost it all that come later."""
        state = step(Active(token()), CallRejected(1), 1100.0)
        state = step(state, RefreshFailed(UNCHANGED, 1, 0.0), 1100.0)
        assert transition(state, Ticked(), 1101.0, RENEWABLE)[1] == (StartRefresh(1, rejected=True),)
        for at in (1101.0, 1150.0, 1969.5):
            state = step(step(state, Ticked(), at), RefreshFailed(UNCHANGED, 1, 0.0), at)
            assert decide_call(state, at, RENEWABLE) == Use(token())
        assert next_wakeup(state, RENEWABLE) == 1970.0
        state, actions = transition(state, Ticked(), 1970.0, RENEWABLE)
        assert actions == (StartRefresh(1, rejected=False),)
        assert decide_call(state, 1970.0, RENEWABLE) == Wait(1980.0)

    def test_a_token_that_a_suspend_has_ended_is_waited_for_though_there_was_no_other_before(self) -> None:
        state = step(Active(token()), CallRejected(1), 1100.0)
        state = step(state, RefreshFailed(UNCHANGED, 1, 0.0), 1100.0)
        assert decide_call(step(state, Ticked(), 9000.0), 9000.0, RENEWABLE) == Wait(9010.0)

    def test_a_refusal_so_late_that_a_refresh_is_needed_anyway_takes_what_there_is(self) -> None:
        assert transition(Active(token()), CallRejected(1), 1969.9, RENEWABLE)[1] == (
            StartRefresh(1, rejected=True),
        )
        assert transition(Active(token()), CallRejected(1), 1970.0, RENEWABLE)[1] == (
            StartRefresh(1, rejected=False),
        )

    def test_nothing_can_be_forced_from_a_token_without_successor(self) -> None:
        last = Active(token(refresh=None))
        state, actions = transition(last, CallRejected(1), 1100.0, BY_LOGIN)
        assert actions == ()
        assert isinstance(decide_replay(state, 1, 1100.0, BY_LOGIN), RefuseForLogin)
        assert decide_call(state, 1100.0, BY_LOGIN) == Use(last.token)


class TestSupersededResults:
    """A result counts only for the refresh in flight, and only if its basis is still in force."""

    def test_a_login_during_a_refresh_wins_and_the_slow_result_is_dropped(self) -> None:
        state = step(Active(token()), Ticked(), 1800.0, BY_LOGIN)
        login = token(5, at=1801.0)
        state = step(state, TokenStored(login), 1801.0, BY_LOGIN)
        assert decide_call(state, 1801.0, BY_LOGIN) == Use(login)
        assert step(state, RefreshSucceeded(token(2), 1), 1802.0, BY_LOGIN) == Active(login)
        assert step(state, RefreshFailed(REJECTED, 1), 1802.0, BY_LOGIN) == Active(login)

    def test_a_token_stored_during_a_refresh_does_not_begin_a_second_one(self) -> None:
        state = step(Active(token()), Ticked(), 1800.0, BY_LOGIN)
        state = step(state, TokenStored(token(5, at=1801.0)), 1801.0, BY_LOGIN)
        assert transition(state, CallRejected(5), 1802.0, BY_LOGIN)[1] == ()

    def test_a_result_of_a_refresh_that_is_no_longer_in_flight_is_dropped(self) -> None:
        state = step(Active(token()), Ticked(), 1800.0, BY_LOGIN)
        state = step(state, LoggedOut(), 1801.0, BY_LOGIN)
        assert step(state, RefreshSucceeded(token(2), 1), 1802.0, BY_LOGIN) == state
        assert step(state, RefreshFailed(DOWN, 1), 1802.0, BY_LOGIN) == state

    def test_a_result_of_another_basis_does_not_end_the_refresh_in_flight(self) -> None:
        state = step(Active(token(2)), Ticked(), 1800.0)
        assert transition(state, RefreshFailed(DOWN, 1), 1801.0, RENEWABLE) == (state, ())

    def test_an_older_stored_token_changes_nothing(self) -> None:
        state = Active(token(3))
        assert transition(state, TokenStored(token(3)), 1100.0, RENEWABLE) == (state, ())
        assert transition(state, TokenStored(token(2)), 1100.0, RENEWABLE) == (state, ())


class TestLogin:
    @pytest.mark.parametrize(
        "state",
        [
            NoToken(),
            NoToken(InFlight(1000.0, 0)),
            NoToken(Backoff(1000.0, 1001.0, 0.0, 1, DOWN)),
            LoginRequired("x"),
            LoginRequired("x", token()),
            LoginPending(None, "x"),
            Active(token()),
            Active(token(), rejected=True),
            Active(token(), phase=Backoff(1000.0, 9000.0, 9000.0, 1, DOWN)),
        ],
        ids=repr,
    )
    def test_from_every_state_a_stored_login_brings_the_account_back(self, state: State) -> None:
        login = token(2, at=1100.0)
        after, actions = transition(state, TokenStored(login), 1100.0, BY_LOGIN)
        assert decide_call(after, 1100.0, BY_LOGIN) == Use(login)
        assert Settle() in actions

    def test_a_login_that_fails_leaves_its_reason(self) -> None:
        state = step(LoginRequired("expired", token()), LoginStarted(), 1100.0)
        assert state == LoginPending(token(), "expired")
        assert decide_call(state, 1100.0, BY_LOGIN) == Use(token())
        assert decide_call(state, 2100.0, BY_LOGIN) == RefuseForLogin("expired")
        assert step(state, LoginFailed("denied"), 1100.0) == LoginRequired("denied", token())

    def test_a_login_can_begin_before_anything_else(self) -> None:
        assert step(NoToken(), LoginStarted(), 1000.0) == LoginPending(None, lc.NEVER_LOGGED_IN)

    def test_a_login_on_top_of_a_good_one_leaves_it_in_force(self) -> None:
        state = Active(token())
        assert step(state, LoginStarted(), 1100.0) == state
        assert step(state, LoginFailed("denied"), 1100.0) == state

    def test_logout_forgets_the_token(self) -> None:
        assert transition(Active(token()), LoggedOut(), 1100.0, RENEWABLE) == (
            LoginRequired(lc.LOGGED_OUT, forgotten=2),
            (Settle(),),
        )

    def test_a_logout_elsewhere_counts_if_it_is_newer(self) -> None:
        assert step(Active(token(3)), LoggedOut(3), 1100.0, BY_LOGIN) == Active(token(3))
        assert step(Active(token(3)), LoggedOut(4), 1100.0, BY_LOGIN) == LoginRequired(
            lc.LOGGED_OUT, forgotten=4
        )

    def test_a_store_that_cannot_be_read_is_the_reason_there_is_no_token(self) -> None:
        assert step(NoToken(), StoreFailed("damaged"), 1000.0, BY_LOGIN) == LoginRequired("damaged")
        assert step(Active(token()), StoreFailed("damaged"), 1000.0, BY_LOGIN) == Active(token())

    def test_nothing_of_a_login_given_up_comes_back_after_the_next_one(self) -> None:
        """A refresh of the old login is still running when the new one is stored, and ends after it."""
        state = step(Active(token()), Ticked(), 1800.0, BY_LOGIN)
        state = step(state, LoggedOut(), 1801.0, BY_LOGIN)
        state = step(step(state, LoginStarted(), 1801.0, BY_LOGIN), LoginFailed("denied"), 1801.0, BY_LOGIN)
        assert step(state, TokenStored(token(2)), 1802.0, BY_LOGIN) == state
        state = step(state, TokenStored(token(3)), 1802.0, BY_LOGIN)
        assert step(state, RefreshSucceeded(token(2), 1), 1803.0, BY_LOGIN) == Active(token(3))

    @pytest.mark.parametrize("event", [Ticked(), SourceChanged(), CallRejected(1)], ids=repr)
    def test_what_needs_a_person_does_nothing_by_itself(self, event: Event) -> None:
        state = LoginRequired("x", token())
        assert transition(state, event, 1100.0, RENEWABLE) == (state, ())
        assert next_wakeup(state, RENEWABLE) is None


class TestSourceChanged:
    def test_a_changed_source_is_read_at_once_even_in_backoff(self) -> None:
        for phase in (IDLE, Backoff(1000.0, 1300.0, 1300.0, 3, DOWN)):
            _, actions = transition(Active(token(), phase=phase), SourceChanged(), 1100.0, RENEWABLE)
            assert actions == (StartRefresh(1, rejected=False),)


class TestWakeups:
    @pytest.mark.parametrize(
        ("state", "expected"),
        [
            (Active(token()), 1800.0),
            (Active(token(), phase=Backoff(1800.0, 1808.0, 0.0, 4, DOWN)), 1808.0),
            (NoToken(Backoff(1000.0, 1002.0, 0.0, 2, DOWN)), 1002.0),
            (Active(token(), phase=InFlight(1800.0, 1)), None),
            (LoginRequired("x"), None),
        ],
        ids=repr,
    )
    def test_next_wakeup(self, state: State, expected: float | None) -> None:
        assert next_wakeup(state, RENEWABLE) == expected
