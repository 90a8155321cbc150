"""Logins at a running daemon, by real sockets: what both sides say, and peers that are old, dead, false or mad."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest

from authorization_servers import ISSUER, PENDING, FakeAuthorizationServer
from bearerd.control.client import REPLY_LIMIT, Daemons
from bearerd.control.conversation import Conversation
from bearerd.control.rendezvous import GREETING, Origin
from bearerd.control.socket import BAD_REQUEST, LINE_LIMIT, LOGINS, NOT_MINE, ControlSocket
from bearerd.control.terminal import WAYS, TerminalLogins
from bearerd.errors import LoginRequired
from bearerd.tokens.logins import ABANDONED, UNKNOWN, Logins
from both_loops import nothing_left
from clocks import FakeClock
from parties import BASE, DONE, LANDING, build_parties, is_under_way
from patience import settle

__all__ = ["nothing_left"]

ORIGIN: Final = Origin("/etc/one.toml")
ASK: Final = {"do": "login", "account": "work", "config": ORIGIN.file, "overrides": "", "way": "paste"}
AT_OUR_PAGE: Final = {"login": {"url": f"{BASE}/-/login/work"}}
GIVEN_UP: Final = {"error": {"kind": "login_failed", "text": ABANDONED}}
TOO_MANY: Final = {
    "error": {"kind": "unavailable", "text": "too many logins are under way", "retry_after_s": 10.0}
}
SOON_S: Final = 30.0  # no test waits for as long, unless it fails


class Side:
    """A daemon's side: an account called work, one called closed at which nobody may log in, and their socket."""

    def __init__(self, origin: Origin = ORIGIN, *, terminals: bool = True) -> None:
        self.clock = FakeClock()
        self.server = FakeAuthorizationServer()
        self.server.wall = self.clock.wall()
        parties = build_parties(self.server, self.clock)
        self.managers = {name: party.manager for name, party in parties.items()}
        self.logins = Logins(parties, self.clock)
        self.defects: list[Exception] = []
        self.control = ControlSocket(
            *(origin, self.managers, dict, self.defects.append),
            terminals=TerminalLogins(self.logins, {"work": LANDING}, {"work": f"{BASE}/-/login/work"})
            if terminals
            else None,
        )

    @property
    def under_way(self) -> bool:
        return is_under_way(self.clock)

    @asynccontextmanager
    async def running(self, environ: Mapping[str, str]) -> AsyncIterator["Side"]:
        for manager in self.managers.values():
            await manager.start()
        self.control.start(environ)
        try:
            yield self
        finally:
            await self.control.aclose()
            for manager in self.managers.values():
                await manager.aclose()
            assert self.defects == []


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    """With a runtime folder of a short name: a socket's has room for little more than a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        (Path(folder) / "bearerd").mkdir(mode=0o700)
        yield {"XDG_RUNTIME_DIR": folder}


@pytest.fixture
async def side(environ: dict[str, str]) -> AsyncIterator[Side]:
    async with Side().running(environ) as made:
        yield made


def folder_of(environ: Mapping[str, str]) -> Path:
    return Path(environ["XDG_RUNTIME_DIR"]) / "bearerd"


async def begin(
    environ: Mapping[str, str],
    way: str = "paste",
    *,
    do: str = "login",
    account: str = "work",
    origin: Origin = ORIGIN,
) -> Conversation | None:
    return await Conversation.open(Daemons(environ), do, account, origin, way)


@asynccontextmanager
async def talking(
    environ: Mapping[str, str], way: str = "paste", **options: Any
) -> AsyncIterator[Conversation]:
    """A conversation that there has to be."""
    conversation = await begin(environ, way, **options)
    assert conversation is not None
    try:
        async with asyncio.timeout(SOON_S):
            yield conversation
    finally:
        conversation.close()


def callback(said: Mapping[str, Any], **answer: str) -> str:
    (state,) = parse_qs(urlsplit(said["login"]["url"]).query)["state"]
    fields = {"state": state} | (answer or {"code": "the-code"})
    return f"{LANDING.redirect_uri}?" + "&".join(f"{name}={value}" for name, value in fields.items())


async def until(holds: Callable[[], bool]) -> None:
    """What happens in the other task of a conversation is waited for."""
    for _ in range(int(SOON_S / 0.01)):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


class Raw:
    """A client that says what it is told to, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ask(self, **changes: Any) -> Any:
        """What a request is answered with first; what is None is left out of it."""
        asked = {name: value for name, value in (ASK | changes).items() if value is not None}
        await self.send(json.dumps(asked).encode() + b"\n")
        return await self.next()

    async def next(self) -> Any:
        return json.loads(await self.reader.readline())


@asynccontextmanager
async def raw(environ: Mapping[str, str]) -> AsyncIterator[Raw]:
    (path,) = Daemons(environ).sockets
    async with asyncio.timeout(SOON_S):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            assert await reader.readline() == GREETING
            yield Raw(reader, writer)
        finally:
            writer.close()


@asynccontextmanager
async def impostor(
    environ: Mapping[str, str], *says: bytes, then: str = "close", name: str = "0-first.sock"
) -> AsyncIterator[list[bytes]]:
    """Something that comes before any daemon. It says the first of `says`, and each other after a line said to it.

    Then it closes, or waits until the other side has left. What it has heard is yielded.
    """
    heard: list[bytes] = []
    told = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            for number, words in enumerate(says):
                if number:
                    heard.append(await reader.readline())
                writer.write(words)
                await writer.drain()
            if then == "left":
                heard.append(await reader.read())
        writer.close()
        told.set()

    server = await asyncio.start_unix_server(serve, folder_of(environ) / name)
    try:
        yield heard
        async with asyncio.timeout(SOON_S):
            await told.wait()
    finally:
        server.close()


class TestTogether:
    """A command's side and a daemon's."""

    async def test_by_paste(self, environ: dict[str, str], side: Side) -> None:
        async with talking(environ) as conversation:
            said = await conversation.next()
            assert said["login"]["url"].startswith(f"{ISSUER}/authorize?")
            await conversation.paste("code=x&state=made-up")
            assert await conversation.next() == {"refused": UNKNOWN}
            await conversation.paste(callback(said))
            assert await conversation.next() == DONE
            with pytest.raises(EOFError):
                await conversation.next()
        assert side.server.redeemed == ["the-code"]
        assert (await side.managers["work"].token()).access_token.reveal() == "login-1"

    @pytest.mark.usefixtures("side")
    async def test_by_browser_and_what_is_pasted_meanwhile(self, environ: dict[str, str]) -> None:
        async with talking(environ, "browser") as conversation, talking(environ) as other:
            assert await conversation.next() == AT_OUR_PAGE
            await conversation.paste("\N{SNOWMAN}\n" * 100)
            assert list(await conversation.next()) == ["refused"]
            await other.next()
            await other.paste("the-code")
            assert [await conversation.next(), await other.next()] == [DONE, DONE]

    async def test_by_device(self, environ: dict[str, str], side: Side) -> None:
        async with talking(environ, "device") as conversation:
            assert (await conversation.next())["device"]["user_code"] == "WDJB-MJHT"
            await until(lambda: 5.0 in side.clock.armed)
            side.clock.advance(5)
            assert "done" in await conversation.next()

    async def test_a_logout(self, environ: dict[str, str], side: Side) -> None:
        async with talking(environ) as conversation:
            await conversation.next()
            await conversation.paste("the-code")
            await conversation.next()
        async with talking(environ, do="logout") as conversation:
            assert await conversation.next() == {"done": {"revoked": True, "wiped": True, "problem": None}}
        assert side.server.revoked == [("refresh_token", "refresh-1")]

    @pytest.mark.parametrize("way", WAYS)
    async def test_an_account_that_nobody_may_log_in_to(
        self, environ: dict[str, str], side: Side, way: str
    ) -> None:
        async with talking(environ, way, account="closed") as conversation:
            said = await conversation.next()
            assert "not one that a person may log in to" in said["error"]["text"]
        assert not side.under_way

    async def test_a_token_that_needs_a_login_is_refused_with_the_command(
        self, environ: dict[str, str], side: Side
    ) -> None:
        advice = "account work: nobody has logged in yet; log in with: bearerd login work"
        closed = "account closed: nobody has logged in yet; give it a new refresh token, or log in where its vault is filled"
        for account, text in (("work", advice), ("closed", closed)):
            assert account in side.managers
            with pytest.raises(LoginRequired) as refusal:
                await asyncio.to_thread(Daemons(environ).fetch_token, account, ORIGIN)
            assert str(refusal.value) == text

    @pytest.mark.parametrize("do", ["login", "logout"])
    @pytest.mark.parametrize(
        ("account", "origin"),
        [
            ("play", ORIGIN),
            ("work", Origin("/etc/two.toml")),
            ("work", Origin(None)),
            ("work", Origin(ORIGIN.file, "x")),
        ],
    )
    async def test_a_daemon_that_does_not_serve_it(
        self, environ: dict[str, str], side: Side, do: str, account: str, origin: Origin
    ) -> None:
        assert await begin(environ, do=do, account=account, origin=origin) is None
        assert not side.under_way

    async def test_the_one_of_several_daemons_that_serves_it(self, environ: dict[str, str]) -> None:
        two = Origin("/etc/two.toml")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(Side(terminals=False).running(environ))
            wrong, right = [
                await stack.enter_async_context(Side(each).running(environ)) for each in (ORIGIN, two)
            ]
            async with talking(environ, origin=two) as conversation:
                assert "login" in await conversation.next()
                assert (wrong.under_way, right.under_way) == (False, True)

    async def test_there_is_no_daemon(self, environ: dict[str, str]) -> None:
        assert await begin(environ) is None
        assert (
            await begin({"XDG_RUNTIME_DIR": str(folder_of(environ) / "absent"), "TMPDIR": "/absent"}) is None
        )

    async def test_whoever_closes_gives_the_login_up(self, environ: dict[str, str], side: Side) -> None:
        async with talking(environ) as conversation:
            await conversation.next()
            assert side.under_way
        await until(lambda: not side.under_way)
        with pytest.raises(LoginRequired, match=ABANDONED):
            await side.managers["work"].token()

    @pytest.mark.parametrize("way", WAYS)
    async def test_the_daemon_s_end_cuts_it_off(self, environ: dict[str, str], way: str) -> None:
        side = Side()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(side.running(environ))
            conversation = await stack.enter_async_context(talking(environ, way))
            await conversation.next()
            await side.control.aclose()
            assert not side.under_way
            with pytest.raises(EOFError):
                await conversation.next()
            await conversation.paste("the-code")
        assert side.server.redeemed == []


FIRST: Final = b'{"login": {"url": "https://login.example.com/"}}\n'
ENDLESS: Final = b'{"login": {"url": "' + b"x" * REPLY_LIMIT + b'"}}\n'


class TestPeers:
    """What else may listen there."""

    @pytest.mark.parametrize(
        "greeting",
        [
            b"",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"\xff\xfe\x00\n",
            b'{"bearerd": 2}\n',
            b'{"bearerd": 1}\r\n',
            GREETING.rstrip(b"\n"),
            b" " * (REPLY_LIMIT + 2),
            b" " * (REPLY_LIMIT + 2) + b"\n",
        ],
        ids=range(8),
    )
    async def test_one_that_is_no_daemon_is_told_nothing(
        self, environ: dict[str, str], greeting: bytes
    ) -> None:
        then = "left" if greeting.endswith(b"\n") else "close"
        async with impostor(environ, greeting, then=then) as heard:
            assert await begin(environ) is None
            async with Side().running(environ), talking(environ) as conversation:
                assert "login" in await conversation.next()
        assert b"".join(heard) == b""

    @pytest.mark.usefixtures("side")
    async def test_one_that_does_not_greet_is_left_in_time(self, environ: dict[str, str]) -> None:
        async with impostor(environ, b'{"bearerd"', then="left") as heard, talking(environ) as conversation:
            assert "login" in await conversation.next()
        assert heard == [b""]

    @pytest.mark.parametrize(
        "answer",
        [
            json.dumps(NOT_MINE).encode() + b"\n",
            json.dumps(BAD_REQUEST).encode() + b"\n",
            b"",
            b"nonsense\n",
            b"\xff\xfe\n",
            b"[" * 20_000 + b"\n",
            b'{"login": {"url"',
            ENDLESS,
        ],
        ids=["not mine", "older", "closes", "nonsense", "no text", "deep", "cut off", "endless"],
    )
    @pytest.mark.usefixtures("side")
    async def test_one_that_cannot_log_in_is_passed_over(
        self, environ: dict[str, str], answer: bytes
    ) -> None:
        then = "left" if answer.endswith(b"\n") else "close"
        async with impostor(environ, GREETING, answer, then=then) as heard:
            async with talking(environ, "device") as conversation:
                assert "device" in await conversation.next()
            assert json.loads(heard[0]) == ASK | {"way": "device"}
        assert b"".join(heard[1:]) == b""

    async def test_all_of_them_before_the_right_one(self, environ: dict[str, str]) -> None:
        peers = [
            (),
            (b"SSH-2.0\n",),
            (GREETING,),
            (GREETING, b'{"not_mine": true}\n'),
            (GREETING, b"nonsense\n"),
        ]
        async with AsyncExitStack() as stack:
            for number, says in enumerate(peers):
                await stack.enter_async_context(impostor(environ, *says, name=f"0-{number}.sock"))
            (folder_of(environ) / "0-folder.sock").mkdir()
            (folder_of(environ) / "0-nothing.sock").touch()
            await stack.enter_async_context(Side().running(environ))
            assert len(Daemons(environ).sockets) == len(peers) + 3
            conversation = await stack.enter_async_context(talking(environ, "browser"))
            assert await conversation.next() == AT_OUR_PAGE

    @pytest.mark.usefixtures("side")
    async def test_one_that_hangs_and_dies(self, environ: dict[str, str]) -> None:
        """It takes the request, so it is waited for, until its end."""
        asked, dying = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(GREETING)
            await reader.readline()
            asked.set()
            await dying.wait()
            writer.close()

        async with await asyncio.start_unix_server(serve, folder_of(environ) / "0-hangs.sock"):
            opening = asyncio.create_task(begin(environ, "browser"))
            await asked.wait()
            await settle(0.05)
            assert not opening.done()
            dying.set()
            conversation = await opening
        assert conversation is not None
        assert await conversation.next() == AT_OUR_PAGE
        conversation.close()

    @pytest.mark.parametrize(
        "last",
        [b"", b'{"done": {', b"nonsense\n", b"\xff\n", b"[" * 20_000 + b"\n", ENDLESS],
        ids=["closes", "cut off", "nonsense", "no text", "deep", "endless"],
    )
    async def test_one_that_dies_or_goes_mad_in_the_middle(
        self, environ: dict[str, str], last: bytes
    ) -> None:
        async with impostor(environ, GREETING, FIRST + last), talking(environ) as conversation:
            assert await conversation.next() == json.loads(FIRST)
            with pytest.raises(EOFError):
                await conversation.next()
            await conversation.paste("to nobody")
            await conversation.paste("to nobody still")

    @pytest.mark.parametrize("word", [b"[]\n", b"1\n", b"null\n", b'"done"\n'])
    async def test_what_is_no_object_says_nothing(self, environ: dict[str, str], word: bytes) -> None:
        said = FIRST + word + b'{"done": {}}\n'
        async with impostor(environ, GREETING, said), talking(environ) as conversation:
            assert [await conversation.next() for _ in range(3)] == [json.loads(FIRST), {}, {"done": {}}]

    @pytest.mark.parametrize("answer", [b"[]\n", b"{}\n", b"1\n", b'{"hello": 1}\n'])
    async def test_a_first_answer_without_sense_is_passed_over(
        self, environ: dict[str, str], answer: bytes
    ) -> None:
        async with (
            Side().running(environ),
            impostor(environ, GREETING, answer),
            talking(environ) as conversation,
        ):
            assert "login" in await conversation.next()

    async def test_what_is_pasted_is_one_line_whatever_it_is(self, environ: dict[str, str]) -> None:
        text = 'a\nb\r\u2028"\x00\N{SNOWMAN}'
        async with impostor(environ, GREETING, FIRST, FIRST) as heard, talking(environ) as conversation:
            await conversation.paste(text)
            assert [await conversation.next() for _ in range(2)] == [json.loads(FIRST)] * 2
        assert json.loads(heard[1]) == {"pasted": text}


class TestDaemonSide:
    @pytest.mark.parametrize("do", ["login", "logout"])
    @pytest.mark.parametrize(
        "changes",
        [
            {"way": "carrier pigeon"},
            {"way": ""},
            {"way": "Paste"},
            {"way": 1},
            {"way": None},
            {"account": None},
            {"account": ["work"]},
            {"config": 1},
            {"overrides": None},
        ],
        ids=repr,
    )
    async def test_what_is_not_understood(
        self, environ: dict[str, str], side: Side, do: str, changes: dict[str, Any]
    ) -> None:
        async with raw(environ) as client:
            assert await client.ask(do=do, **changes) == BAD_REQUEST
            assert await client.reader.read() == b""
        assert not side.under_way

    @pytest.mark.parametrize(
        "changes", [{"config": "/etc/two.toml"}, {"overrides": "x"}, {"account": "play"}], ids=repr
    )
    async def test_what_is_another_daemon_s(
        self, environ: dict[str, str], side: Side, changes: dict[str, Any]
    ) -> None:
        async with raw(environ) as client:
            assert await client.ask(**changes) == NOT_MINE
        assert not side.under_way

    @pytest.mark.parametrize("do", ["login", "logout"])
    async def test_a_daemon_without_logins(self, environ: dict[str, str], do: str) -> None:
        async with Side(terminals=False).running(environ), raw(environ) as client:
            assert await client.ask(do=do) == NOT_MINE

    async def test_so_many_at_a_time_and_no_more(self, environ: dict[str, str], side: Side) -> None:
        """A logout is none of them, and who leaves makes room."""
        async with AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(talking(environ, "browser")) for _ in range(LOGINS)]
            assert [await each.next() for each in crowd] == [AT_OUR_PAGE] * LOGINS
            for way in WAYS:
                async with talking(environ, way) as late:
                    assert await late.next() == TOO_MANY
            assert not side.under_way
            async with talking(environ, do="logout") as leaving:
                assert "done" in await leaving.next()
            crowd[3].close()
            said: Mapping[str, Any] = TOO_MANY
            async with asyncio.timeout(SOON_S):
                while said == TOO_MANY:  # its going is not noticed at once
                    async with talking(environ, "browser") as next_one:
                        said = await next_one.next()
            assert said == AT_OUR_PAGE

    @pytest.mark.parametrize("way", ["paste", "device"])
    @pytest.mark.parametrize("half", [False, True], ids=["closes", "closes that half"])
    async def test_whoever_goes_gives_the_login_up(
        self, environ: dict[str, str], side: Side, way: str, *, half: bool
    ) -> None:
        side.server.device_pending = [PENDING] * 200
        async with raw(environ) as client:
            assert await client.ask(way=way)
            assert side.under_way
            if half:
                client.writer.write_eof()
                assert await client.next() == GIVEN_UP
                assert await client.reader.read() == b""
        await until(lambda: not side.under_way)

    @pytest.mark.parametrize(
        "line",
        [
            b"nonsense\n",
            b"\n",
            b"\xff\xfe\n",
            b"[]\n",
            b'"the-code"\n',
            b'{"pasted": 1}\n',
            b'{"pasted": null}\n',
            b'{"Pasted": "the-code"}\n',
            b"[" * 20_000 + b"\n",
            b"x" * (LINE_LIMIT + 1),
        ],
        ids=range(10),
    )
    @pytest.mark.parametrize("way", ["paste", "browser"])
    async def test_whoever_makes_no_sense_does_so_too(
        self, environ: dict[str, str], side: Side, way: str, line: bytes
    ) -> None:
        async with raw(environ) as client:
            assert "login" in await client.ask(way=way)
            await client.send(line)
            assert await client.next() == GIVEN_UP
        assert not side.under_way
        assert side.server.redeemed == []

    async def test_several_lines_at_once_and_one_in_pieces(self, environ: dict[str, str], side: Side) -> None:
        async with raw(environ) as client:
            said = await client.ask()
            right = json.dumps({"pasted": callback(said)}).encode() + b"\n"
            await client.send(b'{"pasted": "a=1"}\n{"pasted": ""}\n' + right[:9])
            assert [list(await client.next()) for _ in range(2)] == [["refused"]] * 2
            await client.send(right[9:])
            assert await client.next() == DONE
        assert side.server.redeemed == ["the-code"]
