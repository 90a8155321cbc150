"""A login in a terminal as a conversation: each way to its end, and nothing left pending when one comes to nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest

from authorization_servers import ISSUER, PENDING, SERVER, FakeAuthorizationServer
from bearerd.control.terminal import WAYS, Reply, TerminalLogins, advise
from bearerd.core.authorization import Callback
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.metadata import Metadata
from bearerd.core.redaction import Secret
from bearerd.errors import LoginRefused, LoginRequired
from bearerd.tokens.logins import (
    ABANDONED,
    EXPIRED,
    GIVEN_UP,
    NO_STATE,
    NOT_YOURS,
    REPLACED,
    UNKNOWN,
    Logins,
)
from both_loops import nothing_left
from clocks import FakeClock
from parties import BASE, DONE, LANDING, build_parties, is_under_way

__all__ = ["nothing_left"]

MINE: Final = Secret("the-binding-of-another-place")
NOT_HERE: Final = "account {} is not one that a person may log in to here; log in where its vault is filled, or see its grant and login with: bearerd config show"
DEVICE: Final = {
    "device": {
        "verification_uri": f"{ISSUER}/go",
        "verification_uri_complete": None,
        "user_code": "WDJB-MJHT",
        "expires_at": 1_000_600.0,
    }
}
INVALID_GRANT: Final = Failure(
    FailureKind.GRANT_REJECTED, "the server says invalid_grant", None, "invalid_grant"
)
SLOW_DOWN: Final = Failure(FailureKind.TRANSIENT, "slow down", None, "slow_down")
SAID_NO: Final = Failure(FailureKind.PERMANENT, "the person said no", None, "access_denied")


class Server(FakeAuthorizationServer):
    """With `door` cleared it does not answer what it is asked to begin with."""

    def __init__(self) -> None:
        super().__init__()
        self.door = asyncio.Event()
        self.door.set()

    async def describe(self) -> Metadata | Failure:
        await self.door.wait()
        return await super().describe()


class Person:
    """The other side: what was said to it, and what it pastes."""

    def __init__(self) -> None:
        self.said: list[Reply] = []
        self.pasted: asyncio.Queue[str | None] = asyncio.Queue()
        self.unreachable: Exception | None = None

    async def say(self, reply: Reply) -> None:
        if self.unreachable:
            raise self.unreachable
        self.said.append(reply)

    async def hear(self) -> str | None:
        return await self.pasted.get()

    def paste(self, text: str) -> None:
        self.pasted.put_nowait(text)

    def leave(self) -> None:
        self.pasted.put_nowait(None)

    @property
    def url(self) -> str:
        return str(self.said[0]["login"]["url"])

    def callback(self, **answer: str) -> str:
        """The address on which the login ends that this person was told of."""
        (state,) = parse_qs(urlsplit(self.url).query)["state"]
        fields = {"state": state} | (answer or {"code": "the-code"})
        return f"{LANDING.redirect_uri}?" + "&".join(f"{name}={value}" for name, value in fields.items())


class World:
    """An account called work, and one called closed at which nobody may log in."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.server = Server()
        self.server.wall = self.clock.wall()
        parties = build_parties(self.server, self.clock)
        self.managers = [party.manager for party in parties.values()]
        self.manager = parties["work"].manager
        self.logins = Logins(parties, self.clock)
        landings = dict.fromkeys(("work", "closed"), LANDING)
        urls = {"work": f"{BASE}/-/login/work", "closed": f"{BASE}/-/login/closed"}
        self.terminals = TerminalLogins(self.logins, landings, urls, **options)

    async def meet(self, way: str, account: str = "work") -> tuple[Person, asyncio.Task[Reply]]:
        """Somebody who has been told what to do, and how the conversation ends."""
        person = Person()
        ending = asyncio.create_task(self.terminals.log_in(account, way, person.say, person.hear))
        await turns()
        return person, ending

    async def end_elsewhere(self, denial: str | None = None) -> None:
        """As a browser that has logged in, or not, at the page of its own."""
        _, transaction = await self.logins.begin("work", redirect_uri=LANDING.redirect_uri, binding=MINE)
        if denial is None:
            await self.logins.finish(Callback(transaction.state, Secret("the-code")), lambda _: MINE)
            return
        with pytest.raises(LoginRefused):
            await self.logins.finish(Callback(transaction.state, error=denial), lambda _: MINE)

    async def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await turns()

    @property
    def under_way(self) -> bool:
        return is_under_way(self.clock)

    async def reason(self) -> str:
        """Why there is no token."""
        with pytest.raises(LoginRequired) as refusal:
            await self.manager.token()
        return str(refusal.value)


async def turns() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    made = World(**options)
    for manager in made.managers:
        await manager.start()
    try:
        yield made
    finally:
        made.server.gate.set()
        made.server.door.set()
        for manager in made.managers:
            await manager.aclose()


def error(text: str) -> Reply:
    return {"error": {"kind": "login_failed", "text": text}}


class TestPaste:
    @pytest.mark.parametrize(
        "paste",
        [
            Person.callback,
            lambda person: urlsplit(person.callback()).query,
            lambda person: f"  {person.callback()}\n",
            lambda _: "the-code",
        ],
        ids=["address", "query", "with spaces", "code alone"],
    )
    async def test_it_ends_the_login(self, paste: Callable[[Person], str]) -> None:
        async with world() as made:
            person, ending = await made.meet("paste")
            assert person.url.startswith(f"{ISSUER}/authorize?")
            assert parse_qs(urlsplit(person.url).query)["redirect_uri"] == [LANDING.redirect_uri]
            person.paste(paste(person))
            assert await ending == DONE
            assert len(person.said) == 1
            assert made.server.redeemed == ["the-code"]
            assert (await made.manager.token()).access_token.reveal() == "login-1"
            assert not made.under_way

    async def test_a_wrong_one_is_refused_and_may_be_followed_by_the_right_one(self) -> None:
        async with world() as made:
            person, ending = await made.meet("paste")
            wrong = ("", "https://example.com/", "code=x&state=made-up", f"{BASE}/?code=a&code=b&state=c")
            for text in wrong:
                person.paste(text)
            await turns()
            assert [list(said) for said in person.said] == [["login"], *[["refused"]] * len(wrong)]
            assert person.said[3] == {"refused": UNKNOWN}
            assert made.server.redeemed == []
            person.paste(person.callback())
            assert await ending == DONE

    async def test_a_code_alone_is_not_enough_where_the_server_names_itself(self) -> None:
        async with world() as made:
            made.server.require_iss()
            person, ending = await made.meet("paste")
            person.paste("the-code")
            await turns()
            assert person.said[1:] == [{"refused": NO_STATE}]
            person.paste(person.callback(code="the-code", iss=ISSUER))
            assert await ending == DONE

    async def test_a_denial_ends_it(self) -> None:
        async with world() as made:
            person, ending = await made.meet("paste")
            person.paste(person.callback(error="access_denied", error_description="not+you"))
            assert await ending == error("the server says access_denied: not you; begin again")
            assert [reply for reply in person.said if "refused" in reply] == [], "it is said once"
            assert made.server.redeemed == []
            assert not made.under_way

    async def test_a_code_that_the_server_does_not_take_ends_it(self) -> None:
        async with world() as made:
            person, ending = await made.meet("paste")
            made.server.failure = INVALID_GRANT
            person.paste(person.callback())
            assert await ending == error(INVALID_GRANT.reason)
            assert len(person.said) == 1
            assert await made.reason() == INVALID_GRANT.reason

    async def test_nobody_else_can_end_it(self) -> None:
        """Each terminal's login is bound to it by a secret of its own."""
        async with world() as made:
            person, ending = await made.meet("paste")
            (state,) = parse_qs(urlsplit(person.url).query)["state"]
            theirs = made.logins.find(Secret(state))
            assert theirs is not None
            with pytest.raises(LoginRefused, match=NOT_YOURS):
                await made.logins.finish(Callback(Secret(state), Secret("stolen")), lambda _: MINE)
            other, other_ending = await made.meet("paste")
            (state,) = parse_qs(urlsplit(other.url).query)["state"]
            begun = made.logins.find(Secret(state))
            assert begun is not None
            assert begun.binding != theirs.binding
            person.paste("the-code")
            await turns()
            assert person.said[1:] == [{"refused": NOT_YOURS}]
            assert made.server.redeemed == []
            other.paste(other.callback())
            assert [await ending, await other_ending] == [DONE, DONE]

    async def test_whoever_has_the_binding_it_was_given_can(self) -> None:
        """A listener of the same process, to which the browser comes back."""
        async with world(binding=MINE) as made:
            person, ending = await made.meet("paste")
            (state,) = parse_qs(urlsplit(person.url).query)["state"]
            await made.logins.finish(Callback(Secret(state), Secret("the-code")), lambda _: MINE)
            assert await ending == DONE


class TestBrowser:
    async def test_it_is_sent_to_our_own_page_and_nothing_is_begun_yet(self) -> None:
        async with world() as made:
            person, ending = await made.meet("browser")
            assert person.said == [{"login": {"url": f"{BASE}/-/login/work"}}]
            assert not made.under_way
            await made.end_elsewhere()
            assert await ending == DONE

    async def test_what_is_pasted_is_refused_and_the_login_goes_on(self) -> None:
        async with world() as made:
            person, ending = await made.meet("browser")
            person.paste("the-code")
            await turns()
            ((name, text),) = person.said[1].items()
            assert name == "refused"
            assert "--no-browser" in text
            assert made.server.redeemed == []
            await made.end_elsewhere()
            assert await ending == DONE


class TestDevice:
    async def test_the_person_is_told_what_to_do_and_waited_for(self) -> None:
        async with world() as made:
            made.server.device_pending = [PENDING, SLOW_DOWN, PENDING]
            person, ending = await made.meet("device")
            assert person.said == [DEVICE]
            person.paste("nothing is to be pasted")
            for asked, wait_s in enumerate((5, 5, 10, 10)):
                assert len(made.server.redeemed) == asked
                await made.later(wait_s - 1)
                assert len(made.server.redeemed) == asked
                assert not ending.done()
                await made.later(1)
            assert await ending == {"done": DONE["done"] | {"expires_at": 1_000_630.0}}
            assert person.said == [DEVICE]
            assert not made.under_way

    async def test_a_denial_ends_it(self) -> None:
        async with world() as made:
            made.server.device_pending = [PENDING, SAID_NO]
            _, ending = await made.meet("device")
            await made.later(5)
            assert not ending.done()
            await made.later(5)
            assert await ending == error("the person said no")
            assert await made.reason() == "the person said no"

    async def test_a_server_that_has_no_such_grant(self) -> None:
        async with world() as made:
            made.server.failure = Failure(FailureKind.PERMANENT, "unauthorized_client")
            person, ending = await made.meet("device")
            assert await ending == error("unauthorized_client")
            assert person.said == []

    async def test_a_code_that_nobody_types_in_expires(self) -> None:
        async with world() as made:
            made.server.device_pending = [PENDING] * 200
            made.server.device_lifetime_s = 60.0
            _, ending = await made.meet("device")
            await made.later(59)
            assert not ending.done()
            await made.later(1)
            assert await ending == error(EXPIRED)


class TestOthers:
    """What becomes of a conversation by what happens to its account elsewhere."""

    async def test_a_login_ends_all_conversations_of_the_account(self) -> None:
        async with world() as made:
            made.server.device_pending = [PENDING] * 200
            endings = [(await made.meet(way))[1] for way in (*WAYS, "browser", "paste")]
            await made.end_elsewhere()
            assert await asyncio.gather(*endings) == [DONE] * 5
            assert not made.under_way
            assert (await made.manager.token()).access_token.reveal() == "login-1"

    @pytest.mark.parametrize("way", ["paste", "device"])
    async def test_one_in_a_terminal_does_so_too(self, way: str) -> None:
        async with world() as made:
            _, waiting = await made.meet("browser")
            person, ending = await made.meet(way)
            if way == "paste":
                person.paste("the-code")
            else:
                await made.later(5)
            assert "done" in await ending
            assert await waiting == await ending

    @pytest.mark.parametrize("way", WAYS)
    async def test_one_that_came_to_nothing_ends_them(self, way: str) -> None:
        async with world() as made:
            made.server.device_pending = [PENDING] * 200
            _, ending = await made.meet(way)
            await made.end_elsewhere(denial="access_denied")
            assert await ending == error("the server says access_denied; begin again")

    async def test_a_replaced_login_on_a_device_ends(self) -> None:
        async with world() as made:
            made.server.device_pending = [PENDING] * 200
            _, replaced = await made.meet("device")
            person, ending = await made.meet("paste")
            await made.later(5)
            assert await replaced == error(REPLACED)
            assert not ending.done()
            person.paste("the-code")
            assert "done" in await ending

    async def test_a_replaced_login_by_paste_is_over_for_who_pastes(self) -> None:
        """It ends as the newer one does, which is given up here."""
        async with world() as made:
            person, replaced = await made.meet("paste")
            newer, ending = await made.meet("paste")
            person.paste(person.callback())
            await turns()
            assert person.said[1:] == [{"refused": UNKNOWN}]
            assert made.server.redeemed == []
            newer.leave()
            assert [await replaced, await ending] == [error(ABANDONED)] * 2

    async def test_whoever_leaves_a_replaced_login_leaves_the_newer_alone(self) -> None:
        async with world() as made:
            made.server.device_pending = [PENDING] * 200
            first, first_ending = await made.meet("paste")
            second, second_ending = await made.meet("device")
            third, third_ending = await made.meet("paste")
            first.leave()
            second.leave()
            assert [await first_ending, await second_ending] == [error(ABANDONED)] * 2
            assert not third_ending.done()
            third.paste(third.callback())
            assert await third_ending == DONE

    @pytest.mark.parametrize("way", ["paste", "device"])
    async def test_a_logout_ends_it(self, way: str) -> None:
        async with world() as made:
            made.server.device_pending = [PENDING] * 200
            _, ending = await made.meet(way)
            assert "done" in await made.terminals.log_out("work")
            assert await ending == error(GIVEN_UP)
            assert not made.under_way
            assert await made.reason() == "logged out"

    async def test_a_login_that_ends_while_a_newer_one_is_begun_stays(self) -> None:
        """The newer conversation is over with it, and takes nothing back by that."""
        async with world() as made:
            made.server.gate.clear()
            person, ending = await made.meet("paste")
            person.paste("the-code")
            await turns()
            _, newer = await made.meet("paste")
            made.server.gate.set()
            assert [await ending, await newer] == [DONE, DONE]
            assert not made.under_way
            assert (await made.manager.token()).access_token.reveal() == "login-1"


def leave(person: Person, ending: asyncio.Task[Reply]) -> None:
    del ending
    person.leave()


def cut_off(person: Person, ending: asyncio.Task[Reply]) -> None:
    del person
    ending.cancel()


class TestNobodyThere:
    async def test_one_that_leaves_while_the_last_poll_is_answered_has_logged_in(self) -> None:
        """The tokens are here, so everybody who waits is told."""
        async with world() as made:
            made.server.gate.clear()
            _, waiting = await made.meet("browser")
            person, ending = await made.meet("device")
            await made.later(5)
            person.leave()
            assert await ending == {"error": {"kind": "login_failed", "text": ABANDONED}}
            made.server.gate.set()
            assert (await waiting)["done"]["account"] == "work"

    @pytest.mark.parametrize("way", WAYS)
    async def test_a_defect_is_not_told_as_a_login_given_up(self, way: str) -> None:
        async def hear() -> str | None:
            raise ZeroDivisionError

        async with world() as made:
            made.server.device_pending = [PENDING] * 200
            with pytest.raises(ZeroDivisionError):
                await made.terminals.log_in("work", way, Person().say, hear)

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("go", [leave, cut_off])
    async def test_whoever_leaves_gives_the_login_up(
        self, way: str, go: Callable[[Person, asyncio.Task[Reply]], None]
    ) -> None:
        async with world() as made:
            made.server.device_pending = [PENDING] * 200
            person, ending = await made.meet(way)
            assert made.under_way is (way != "browser")
            go(person, ending)
            outcome = (await asyncio.gather(ending, return_exceptions=True))[0]
            if go is leave:
                assert outcome == error(ABANDONED)
            else:
                assert isinstance(outcome, asyncio.CancelledError)
            assert not made.under_way
            assert await made.reason() == (ABANDONED if way != "browser" else "nobody has logged in yet")
            await made.later(30)
            assert made.server.redeemed == []

    @pytest.mark.parametrize("way", WAYS)
    async def test_one_to_whom_nothing_can_be_said(self, way: str) -> None:
        async with world() as made:
            person = Person()
            person.unreachable = BrokenPipeError()
            work = made.terminals.log_in("work", way, person.say, person.hear)
            (outcome,) = await asyncio.gather(work, return_exceptions=True)
            assert isinstance(outcome, BrokenPipeError) or outcome == error(ABANDONED)
            assert not made.under_way

    async def test_whoever_leaves_once_the_code_is_spent_has_logged_in(self) -> None:
        async with world() as made:
            made.server.gate.clear()
            person, ending = await made.meet("paste")
            person.paste("the-code")
            person.leave()
            await turns()
            ending.cancel()
            await asyncio.wait({ending})
            made.server.gate.set()
            await turns()
            assert (await made.manager.token()).access_token.reveal() == "login-1"

    @pytest.mark.parametrize("way", WAYS)
    async def test_what_takes_too_long_is_over(self, way: str) -> None:
        async with world(limit_s=0.05) as made:
            made.server.device_pending = [PENDING] * 200
            person, ending = await made.meet(way)
            assert len(person.said) == 1
            assert await ending == error(EXPIRED)
            assert not made.under_way

    async def test_a_server_that_does_not_answer_is_not_waited_for_longer(self) -> None:
        async with world(limit_s=0.05) as made:
            made.server.door.clear()
            person, ending = await made.meet("paste")
            assert await ending == error(EXPIRED)
            made.server.door.set()
            await turns()
            assert (person.said, made.under_way) == ([], False)


class TestAccounts:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("account", ["closed", "nobody"])
    async def test_one_that_nobody_may_log_in_to(self, way: str, account: str) -> None:
        async with world() as made:
            assert made.terminals.accounts == ("work",)
            person, ending = await made.meet(way, account)
            assert await ending == error(NOT_HERE.format(account))
            assert (person.said, made.under_way) == ([], False)

    @pytest.mark.parametrize(
        ("description", "text"),
        [
            (Failure(FailureKind.TRANSIENT, "the issuer cannot be reached"), "the issuer cannot be reached"),
            (replace(SERVER, authorization_endpoint=None), "has no authorization endpoint"),
        ],
        ids=["unreachable", "no such endpoint"],
    )
    async def test_a_server_at_which_no_login_can_begin(
        self, description: Metadata | Failure, text: str
    ) -> None:
        async with world() as made:
            made.server.description = description
            person, ending = await made.meet("paste")
            outcome = await ending
            assert text in outcome["error"]["text"]
            assert person.said == []


class TestLogout:
    async def test_what_was_revoked_and_wiped(self) -> None:
        async with world() as made:
            await made.end_elsewhere()
            assert await made.terminals.log_out("work") == {
                "done": {"revoked": True, "wiped": True, "problem": None}
            }
            assert made.server.revoked == [("refresh_token", "refresh-1")]
            assert await made.reason() == "logged out"

    async def test_what_could_not_be_revoked_is_said(self) -> None:
        async with world() as made:
            await made.end_elsewhere()
            made.server.unrevoked = "the server cannot be reached"
            assert await made.terminals.log_out("work") == {
                "done": {"revoked": False, "wiped": True, "problem": "the server cannot be reached"}
            }

    @pytest.mark.parametrize("account", ["work", "closed"])
    async def test_where_nobody_had_logged_in(self, account: str) -> None:
        async with world() as made:
            assert await made.terminals.log_out(account) == {
                "done": {"revoked": False, "wiped": True, "problem": None}
            }
            assert made.server.revoked == []

    async def test_an_account_that_is_not_there(self) -> None:
        async with world() as made:
            assert await made.terminals.log_out("nobody") == error(
                "account nobody has no login that could be given up; see it with: bearerd status"
            )


def test_what_a_command_advises() -> None:
    assert advise("work", "nobody has logged in yet") == (
        "account work: nobody has logged in yet; log in with: bearerd login work"
    )
