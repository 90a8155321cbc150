"""Logins: one at a time of each account, ended only by whoever began it, and nothing lost when one comes to nothing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from authorization_servers import ISSUER, PENDING, FakeAuthorizationServer
from bearerd.core.accounts import Grant, OAuthSource
from bearerd.core.authorization import Callback
from bearerd.core.calls import Asker
from bearerd.core.device import DeviceAuthorization
from bearerd.core.lifecycle import Event, Failure, FailureKind, LoginPending, Policy, State
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted, TokenSet, Tombstone
from bearerd.errors import LoginFailed, LoginRefused, LoginRequired, StoreError, StoreUnwritable
from bearerd.stores.memory import MemoryLock, MemoryStore
from bearerd.tokens.logins import (
    ABANDONED,
    EXPIRED,
    GIVEN_UP,
    NO_STATE,
    NOT_YOURS,
    REPLACED,
    STILL_REFRESHING,
    UNKNOWN,
    LoggedIn,
    Logins,
    LogoutReport,
    Party,
)
from bearerd.tokens.manager import TokenManager
from bearerd.tokens.refresh import RefreshProtocol
from clocks import FakeClock

MINE = Secret("the-binding-of-whoever-began-it")
REDIRECT = "http://127.0.0.1:6750/-/callback"
SOURCE = OAuthSource(grant=Grant.AUTHORIZATION_CODE, client_id="cli", issuer=ISSUER)
DENIED = Failure(FailureKind.GRANT_REJECTED, "the token endpoint says invalid_grant", None, "invalid_grant")


class Quiet:
    """An observer that only counts alarms."""

    def __init__(self) -> None:
        self.alarms: list[str | None] = []

    def changed(self, before: State, event: Event, after: State, askers: Sequence[Asker]) -> None: ...

    def unsaved(self, reason: str | None) -> None:
        self.alarms.append(reason)

    def defect(self, exc: Exception) -> None:
        raise exc


class Refreshes:
    """A token source; with `gate` cleared, a refresh hangs until it is set."""

    def __init__(self) -> None:
        self.spent: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def obtain(self, current: TokenSet | None) -> Granted | Failure:
        assert current is not None
        assert current.refresh_token is not None
        self.spent.append(current.refresh_token.reveal())
        await self.gate.wait()
        return Granted(Secret("refreshed"), 600.0, Secret("rotated"))

    def changed(self) -> bool:
        return False

    async def aclose(self) -> None: ...


class Troubled(MemoryStore):
    """A store that cannot be written as long as `full` says why, nor read as long as `damaged` does."""

    def __init__(self) -> None:
        super().__init__()
        self.full: str | None = None
        self.damaged: str | None = None

    async def load(self) -> TokenSet | Tombstone | None:
        if self.damaged:
            raise StoreError(self.damaged)
        return await super().load()

    async def check_writable(self) -> None:
        if self.full:
            raise StoreUnwritable(self.full)

    async def save(self, record: TokenSet | Tombstone) -> None:
        await self.check_writable()
        await super().save(record)


class World:
    """One account named work, its server, its store, and the service."""

    def __init__(self, source: OAuthSource = SOURCE, *, stays: bool = True, logout_s: float = 5.0) -> None:
        self.clock = FakeClock()
        self.server = FakeAuthorizationServer()
        self.server.wall = self.clock.wall()
        self.refreshes = Refreshes()
        self.store = Troubled()
        self.seen = Quiet()
        protocol = RefreshProtocol(
            self.refreshes, self.store, MemoryLock(), self.clock, self.seen, stays=stays
        )
        self.manager = TokenManager(protocol, Policy(renewable=False), self.seen, draw=lambda: 0.0)
        self.logins = Logins(
            {"work": Party(source, self.server, self.manager)}, self.clock, logout_s=logout_s
        )

    async def begin(self, binding: Secret = MINE) -> Callback:
        """A login that is begun, and the callback with which it would end well."""
        url, transaction = await self.logins.begin("work", redirect_uri=REDIRECT, binding=binding)
        assert parse_qs(urlsplit(url).query)["state"] == [transaction.state.reveal()]
        return Callback(state=transaction.state, code=Secret("the-code"))

    async def finish(self, callback: Callback, binding: Secret | None = MINE) -> LoggedIn:
        return await self.logins.finish(callback, lambda _: binding)

    async def log_in(self) -> TokenSet:
        await self.finish(await self.begin())
        return await self.manager.token()

    async def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await turns()


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def world(**parts: Any) -> AsyncIterator[World]:
    made = World(**parts)
    await made.manager.start()
    try:
        yield made
    finally:
        made.refreshes.gate.set()
        made.server.gate.set()
        await made.manager.aclose()


async def refused(made: World, callback: Callback, binding: Secret | None = MINE) -> str:
    """What a callback is refused with that leads to no token request."""
    before = list(made.server.redeemed)
    with pytest.raises(LoginRefused) as refusal:
        await made.finish(callback, binding)
    assert made.server.redeemed == before
    return str(refusal.value)


class TestFinish:
    async def test_a_login_brings_the_account_to_life(self) -> None:
        async with world() as made:
            with pytest.raises(LoginRequired):
                await made.manager.token()
            done = await made.finish(await made.begin())
            assert done == LoggedIn("work", "someone", made.clock.wall() + 600.0, "/-/")
            token = await made.manager.token()
            assert token.access_token.reveal() == "login-1"
            assert await made.store.load() == token

    @pytest.mark.parametrize("state", [None, Secret(""), Secret("made up"), Secret("\N{SNOWMAN}")])
    async def test_threat_7_a_state_that_was_not_given_out(self, state: Secret | None) -> None:
        async with world() as made:
            await made.begin()
            assert await refused(made, Callback(state=state, code=Secret("stolen"))) == UNKNOWN

    async def test_threat_7_a_callback_with_no_login_under_way(self) -> None:
        async with world() as made:
            assert await refused(made, Callback(state=Secret("x"), code=Secret("unsolicited"))) == UNKNOWN

    async def test_threat_7_a_state_is_good_once(self) -> None:
        async with world() as made:
            callback = await made.begin()
            await made.finish(callback)
            assert await refused(made, callback) == UNKNOWN

    @pytest.mark.parametrize("binding", [None, Secret(""), Secret("another's")])
    async def test_threat_7_another_browser_s_state_is_refused_and_its_owner_goes_on(
        self, binding: Secret | None
    ) -> None:
        async with world() as made:
            callback = await made.begin()
            assert await refused(made, callback, binding) == NOT_YOURS
            assert (await made.finish(callback)).account == "work"

    async def test_threat_7_another_issuer_s_callback_ends_the_login(self) -> None:
        async with world() as made:
            callback = await made.begin()
            mixed = Callback(state=callback.state, code=callback.code, iss="https://evil.example")
            await refused(made, mixed)
            assert await refused(made, callback) == UNKNOWN

    async def test_threat_7_a_server_that_names_itself_always_does(self) -> None:
        async with world() as made:
            made.server.require_iss()
            await refused(made, await made.begin())
            callback = await made.begin()
            named = Callback(state=callback.state, code=callback.code, iss=ISSUER)
            assert (await made.finish(named)).account == "work"

    async def test_it_expires_after_ten_minutes(self) -> None:
        async with world() as made:
            callback = await made.begin()
            await made.later(600)
            assert await refused(made, callback) == UNKNOWN
            with pytest.raises(LoginRequired, match=EXPIRED):
                await made.manager.token()

    async def test_a_machine_that_slept_meanwhile_does_not_make_it_last(self) -> None:
        async with world() as made:
            callback = await made.begin()
            made.clock.suspend(601)
            await refused(made, callback)

    async def test_a_second_login_replaces_the_first(self) -> None:
        async with world() as made:
            first = await made.begin()
            second = await made.begin()
            assert await refused(made, first) == UNKNOWN
            assert (await made.finish(second)).account == "work"

    async def test_a_server_s_refusal_is_told_and_the_good_login_stays(self) -> None:
        async with world() as made:
            before = await made.log_in()
            callback = await made.begin()
            denied = Callback(state=callback.state, error="access_denied", error_description="not <b>you</b>")
            assert "not <b>you</b>" in await refused(made, denied)
            assert await made.manager.token() == before

    async def test_a_code_the_server_does_not_take_leaves_the_good_login(self) -> None:
        async with world() as made:
            before = await made.log_in()
            made.server.failure = DENIED
            with pytest.raises(LoginFailed, match="invalid_grant"):
                await made.finish(await made.begin())
            assert await made.manager.token() == before

    async def test_a_browser_that_leaves_does_not_end_the_exchange(self) -> None:
        async with world() as made:
            made.server.gate.clear()
            leaving = asyncio.create_task(made.finish(await made.begin()))
            await turns()
            leaving.cancel()
            await turns()
            made.server.gate.set()
            await turns()
            assert (await made.manager.token()).access_token.reveal() == "login-1"

    async def test_a_login_outlives_the_end_of_the_daemon(self) -> None:
        made = World()
        await made.manager.start()
        made.server.gate.clear()
        leaving = asyncio.create_task(made.finish(await made.begin()))
        await turns()
        closing = asyncio.create_task(made.manager.aclose())
        await turns()
        assert not closing.done()
        made.server.gate.set()
        await closing
        await leaving
        assert isinstance(await made.store.load(), TokenSet)


class TestBegin:
    async def test_an_account_that_may_not_log_in_here(self) -> None:
        async with world(source=OAuthSource(Grant.AUTHORIZATION_CODE, "cli", login=False)) as made:
            assert made.logins.accounts == ()
            with pytest.raises(LoginFailed, match="not one that a person may log in to"):
                await made.begin()
            with pytest.raises(LoginFailed, match="not one that a person may log in to"):
                await made.logins.device("nobody", announce([]))

    async def test_a_server_that_cannot_be_asked(self) -> None:
        async with world() as made:
            made.server.description = Failure(FailureKind.TRANSIENT, "the issuer cannot be reached")
            with pytest.raises(LoginFailed, match="the issuer cannot be reached"):
                await made.begin()

    async def test_calls_use_the_token_while_a_login_is_under_way(self) -> None:
        async with world() as made:
            before = await made.log_in()
            await made.begin()
            assert await made.manager.token() == before

    async def test_whoever_began_and_leaves_ends_it(self) -> None:
        async with world() as made:
            callback = await made.begin()
            made.logins.abandon("work", Secret("another's"))
            made.logins.abandon("work", MINE)
            assert await refused(made, callback) == UNKNOWN
            with pytest.raises(LoginRequired, match=ABANDONED):
                await made.manager.token()


class TestStore:
    async def test_what_cannot_be_read_is_found_before_the_code_is_spent(self) -> None:
        async with world() as made:
            made.store.damaged = "the vault is damaged; restore it"
            with pytest.raises(LoginFailed, match="the vault is damaged"):
                await made.finish(await made.begin())
            assert made.server.redeemed == []

    async def test_a_daemon_logs_in_with_a_full_disk_and_saves_later(self) -> None:
        async with world() as made:
            made.store.full = "no room"
            assert (await made.log_in()).access_token.reveal() == "login-1"
            assert made.seen.alarms == ["no room"]
            made.store.full = None
        assert isinstance(await made.store.load(), TokenSet)

    async def test_a_process_that_ends_does_not(self) -> None:
        async with world(stays=False) as made:
            made.store.full = "no room"
            with pytest.raises(LoginFailed, match="no room"):
                await made.finish(await made.begin())
            assert made.server.redeemed == []

    async def test_a_login_is_above_whatever_another_process_has_stored(self) -> None:
        async with world() as made:
            callback = await made.begin()
            await made.store.save(Tombstone(41, "where the refresh token of the configuration came from"))
            await made.finish(callback)
            stored = await made.store.load()
            assert isinstance(stored, TokenSet)
            assert stored.generation == 42
            assert stored.origin == "where the refresh token of the configuration came from"

    async def test_nothing_is_taken_over_from_the_login_before(self) -> None:
        async with world() as made:
            await made.store.save(
                TokenSet(7, Secret("old"), 0.0, 1.0, Secret("old-refresh"), "old-scope", subject="old")
            )

            async def redeem() -> Granted:
                return Granted(Secret("new"), 60.0)

            token = await made.manager.login(redeem)
            assert isinstance(token, TokenSet)
            assert (token.refresh_token, token.scope, token.subject) == (None, None, None)


class TestPaste:
    @pytest.mark.parametrize("wrap", ["{redirect}?{query}", "{query}", "  {redirect}?{query}\n"])
    async def test_an_address_or_its_query(self, wrap: str) -> None:
        async with world() as made:
            callback = await made.begin()
            assert callback.state is not None
            query = f"code=the-code&state={callback.state.reveal()}"
            done = await made.logins.paste("work", wrap.format(redirect=REDIRECT, query=query), MINE)
            assert done.subject == "someone"

    async def test_a_code_alone(self) -> None:
        async with world() as made:
            await made.begin()
            await made.logins.paste("work", "the-code", MINE)
            assert made.server.redeemed == ["the-code"]

    async def test_a_code_alone_where_the_server_names_itself(self) -> None:
        async with world() as made:
            made.server.require_iss()
            await made.begin()
            with pytest.raises(LoginRefused, match=NO_STATE):
                await made.logins.paste("work", "the-code", MINE)

    async def test_a_wrong_paste_can_be_corrected(self) -> None:
        async with world() as made:
            await made.begin()
            for wrong in ("", "code=x&state=made-up", f"{REDIRECT}?code=a&code=b&state=c"):
                with pytest.raises(LoginRefused):
                    await made.logins.paste("work", wrong, MINE)
            await made.logins.paste("work", "the-code", MINE)

    async def test_nothing_to_paste_for(self) -> None:
        async with world() as made:
            with pytest.raises(LoginRefused, match=UNKNOWN):
                await made.logins.paste("work", "the-code", MINE)

    async def test_somebody_else_s_terminal(self) -> None:
        async with world() as made:
            await made.begin()
            with pytest.raises(LoginRefused, match=NOT_YOURS):
                await made.logins.paste("work", "the-code", Secret("another's"))


def announce(shown: list[DeviceAuthorization]) -> Any:
    async def show(device: DeviceAuthorization) -> None:
        shown.append(device)

    return show


class TestDevice:
    async def test_it_asks_until_the_person_has_agreed(self) -> None:
        async with world() as made:
            made.server.device_pending = [PENDING, PENDING]
            shown: list[DeviceAuthorization] = []
            work = asyncio.create_task(made.logins.device("work", announce(shown)))
            await turns()
            assert shown[0].user_code == "WDJB-MJHT"
            for asked in range(3):
                assert len(made.server.redeemed) == asked
                await made.later(5)
            assert (await work).subject == "someone"

    async def test_slow_down_adds_five_seconds(self) -> None:
        async with world() as made:
            made.server.device_pending = [
                Failure(FailureKind.TRANSIENT, "slow down", None, "slow_down"),
                PENDING,
            ]
            work = asyncio.create_task(made.logins.device("work", announce([])))
            await turns()
            await made.later(5)
            await made.later(9)
            assert len(made.server.redeemed) == 1
            await made.later(1)
            assert len(made.server.redeemed) == 2
            await made.later(10)
            await work

    async def test_a_refusal_ends_it_and_is_told(self) -> None:
        async with world() as made:
            denial = Failure(FailureKind.PERMANENT, "the person said no", None, "access_denied")
            made.server.device_pending = [denial]
            work = asyncio.create_task(made.logins.device("work", announce([])))
            await turns()
            await made.later(5)
            with pytest.raises(LoginFailed, match="the person said no"):
                await work
            with pytest.raises(LoginRequired, match="the person said no"):
                await made.manager.token()

    async def test_a_code_nobody_types_in_expires(self) -> None:
        async with world() as made:
            made.server.device_pending = [PENDING] * 200
            work = asyncio.create_task(made.logins.device("work", announce([])))
            await turns()
            for _ in range(121):
                await made.later(5)
            with pytest.raises(LoginFailed, match=EXPIRED):
                await work

    async def test_another_login_replaces_it(self) -> None:
        async with world() as made:
            made.server.device_pending = [PENDING] * 200
            work = asyncio.create_task(made.logins.device("work", announce([])))
            await turns()
            await made.log_in()
            await made.later(5)
            with pytest.raises(LoginFailed, match=REPLACED):
                await work

    async def test_whoever_began_and_leaves_ends_it(self) -> None:
        async with world() as made:
            made.server.device_pending = [PENDING] * 200
            work = asyncio.create_task(made.logins.device("work", announce([])))
            await turns()
            work.cancel()
            await turns()
            with pytest.raises(LoginRequired, match=ABANDONED):
                await made.manager.token()

    async def test_a_server_that_has_no_such_grant(self) -> None:
        async with world() as made:
            made.server.failure = Failure(FailureKind.PERMANENT, "unauthorized_client")
            with pytest.raises(LoginFailed, match="unauthorized_client"):
                await made.logins.device("work", announce([]))


class TestWait:
    async def test_whoever_waits_is_told_of_any_login(self) -> None:
        async with world() as made:
            waiting = [asyncio.create_task(made.logins.wait("work")) for _ in range(2)]
            await turns()
            done = await made.finish(await made.begin())
            assert [await wait for wait in waiting] == [done, done]

    async def test_and_of_one_that_failed(self) -> None:
        async with world() as made:
            waiting = asyncio.create_task(made.logins.wait("work"))
            await turns()
            callback = await made.begin()
            await refused(made, Callback(state=callback.state, error="access_denied"))
            with pytest.raises(LoginFailed, match="access_denied"):
                await waiting

    async def test_one_who_has_gone_is_not_missed(self) -> None:
        async with world() as made:
            waiting = asyncio.create_task(made.logins.wait("work"))
            await turns()
            waiting.cancel()
            await turns()
            await made.log_in()


class TestLogout:
    async def test_it_wipes_and_revokes(self) -> None:
        async with world() as made:
            await made.log_in()
            assert await made.logins.logout("work") == LogoutReport(revoked=True)
            assert made.server.revoked == [("refresh_token", "refresh-1")]
            assert await made.store.load() == Tombstone(3)
            with pytest.raises(LoginRequired, match="logged out"):
                await made.manager.token()

    async def test_another_login_follows(self) -> None:
        async with world() as made:
            await made.log_in()
            await made.logins.logout("work")
            assert (await made.log_in()).generation == 4

    async def test_a_server_that_cannot_be_reached_is_reported(self) -> None:
        async with world() as made:
            await made.log_in()
            made.server.unrevoked = "the revocation endpoint cannot be reached"
            assert await made.logins.logout("work") == LogoutReport(False, made.server.unrevoked)
            assert await made.store.load() == Tombstone(3)

    async def test_a_store_that_cannot_be_written_is_reported_and_the_server_told(self) -> None:
        async with world() as made:
            await made.log_in()
            made.store.full = "no room"
            assert await made.logins.logout("work") == LogoutReport(True, "no room", wiped=False)
            assert made.server.revoked == [("refresh_token", "refresh-1")]
            with pytest.raises(LoginRequired, match="logged out"):
                await made.manager.token()

    async def test_nobody_was_logged_in(self) -> None:
        async with world() as made:
            assert await made.logins.logout("work") == LogoutReport(revoked=False)
            assert made.server.revoked == []

    async def test_an_account_without_a_login(self) -> None:
        async with world() as made:
            with pytest.raises(LoginFailed, match="has no login"):
                await made.logins.logout("other")

    async def test_it_waits_for_a_refresh_and_revokes_what_that_gave(self) -> None:
        async with world() as made:
            token = await made.log_in()
            made.refreshes.gate.clear()
            await made.later(599)
            assert made.refreshes.spent == ["refresh-1"]
            work = asyncio.create_task(made.logins.logout("work"))
            await turns()
            assert not work.done()
            with pytest.raises(LoginRequired, match="logged out"):
                await made.manager.token()
            made.refreshes.gate.set()
            assert await work == LogoutReport(revoked=True)
            assert made.server.revoked == [("refresh_token", "rotated")]
            assert await made.store.load() == Tombstone(token.generation + 2)
            assert made.refreshes.spent == ["refresh-1"]

    async def test_an_access_token_alone_is_revoked(self) -> None:
        async with world() as made:

            async def redeem() -> Granted:
                return Granted(Secret("alone"), 60.0)

            await made.manager.login(redeem)
            await made.logins.logout("work")
            assert made.server.revoked == [("access_token", "alone")]

    async def test_it_ends_a_login_under_way_and_tells_who_waits_for_it(self) -> None:
        async with world() as made:
            waiting = asyncio.create_task(made.logins.wait("work"))
            await turns()
            callback = await made.begin()
            await made.logins.logout("work")
            assert await refused(made, callback) == UNKNOWN
            with pytest.raises(LoginFailed, match=GIVEN_UP):
                await waiting

    async def test_a_refresh_that_hangs_is_not_waited_for_without_end(self) -> None:
        async with world(logout_s=0.05) as made:
            await made.log_in()
            made.refreshes.gate.clear()
            await made.later(599)
            assert await made.logins.logout("work") == LogoutReport(False, STILL_REFRESHING, wiped=False)
            made.refreshes.gate.set()
            await turns()
            assert made.server.revoked == [("refresh_token", "rotated")]
            assert isinstance(await made.store.load(), Tombstone)


class TestReload:
    """Logins under way while the configuration changes."""

    def party(self, made: World, source: OAuthSource = SOURCE) -> Party:
        return Party(source, made.server, made.manager)

    def another(self, made: World) -> Party:
        protocol = RefreshProtocol(Refreshes(), MemoryStore(), MemoryLock(), made.clock, made.seen)
        return Party(SOURCE, made.server, TokenManager(protocol, Policy(renewable=False), made.seen))

    async def test_one_goes_on_with_its_account(self) -> None:
        async with world() as made:
            callback = await made.begin()
            waiting = asyncio.create_task(made.logins.wait("work"))
            await turns()
            made.logins.turn_to({"work": self.party(made, replace(SOURCE, scopes=("more",)))})
            done = await made.finish(callback)
            assert await waiting == done

    @pytest.mark.parametrize("change", [{"redirect_uri": "http://127.0.0.1:9/x"}, {"login": False}])
    async def test_one_that_could_not_come_back_is_over(self, change: dict[str, Any]) -> None:
        async with world() as made:
            callback = await made.begin()
            waiting = asyncio.create_task(made.logins.wait("work"))
            await turns()
            made.logins.turn_to({"work": self.party(made, replace(SOURCE, **change))})
            with pytest.raises(LoginFailed, match="configuration of this account has changed"):
                await waiting
            assert await refused(made, callback) == UNKNOWN
            assert not isinstance(made.manager.state, LoginPending)

    async def test_one_of_an_account_that_has_gone_or_is_another_is_over(self) -> None:
        async with world() as made:
            for parties in ({}, {"work": self.another(made)}):
                made.logins.turn_to({"work": self.party(made)})
                callback = await made.begin()
                made.logins.turn_to(parties)
                assert await refused(made, callback) == UNKNOWN

    async def test_a_code_that_is_being_redeemed_is_for_the_account_it_was_for(self) -> None:
        async with world() as made:
            made.server.gate.clear()
            ending = asyncio.create_task(made.finish(await made.begin()))
            await asyncio.sleep(0)
            assert made.server.redeemed == []
            made.logins.turn_to({"work": self.another(made)})
            await turns()
            assert made.server.redeemed == ["the-code"]
            made.server.gate.set()
            assert (await ending).account == "work"
            assert (await made.manager.token()).access_token.reveal() == "login-1"

    async def test_one_that_fails_when_its_account_has_gone(self) -> None:
        async with world() as made:
            made.server.gate.clear()
            made.server.failure = Failure(FailureKind.PERMANENT, "the code is not known")
            ending = asyncio.create_task(made.finish(await made.begin()))
            await turns()
            made.logins.turn_to({})
            made.server.gate.set()
            with pytest.raises(LoginFailed, match="the code is not known"):
                await ending

    async def test_one_that_begins_as_its_account_goes(self) -> None:
        for begin in (World.begin, lambda made: made.logins.device("work", announce([]))):
            async with world() as made:
                made.server.pause = asyncio.Event()
                beginning = asyncio.create_task(begin(made))
                await turns()
                made.logins.turn_to({})
                made.server.pause.set()
                with pytest.raises(LoginFailed, match="configuration of this account has changed"):
                    await beginning

    async def test_at_another_device_it_is_over_too(self) -> None:
        async with world() as made:
            made.server.device_pending = [PENDING] * 9
            waiting = asyncio.create_task(made.logins.device("work", announce([])))
            await turns()
            await made.later(5)
            made.logins.turn_to({})
            await made.later(5)
            with pytest.raises(LoginFailed):
                await waiting
            assert len(made.server.redeemed) == 1
