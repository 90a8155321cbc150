import pytest

from bearerd.core.fields import Fields
from bearerd.core.guard import Head
from bearerd.core.upgrades import WEBSOCKET, agreed, wanted

HANDSHAKE = (
    (b"Host", b"localhost:6750"),
    (b"Connection", b"Upgrade"),
    (b"Upgrade", b"websocket"),
    (b"Sec-WebSocket-Key", b"x3JJHMbDL1EzLkh9GBhXDw=="),
)
WITHOUT_BODY = ((), ((b"Content-Length", b"0"),))
PROTOCOLS = frozenset({b"websocket", b"mqtt/3", b"irc"})


def head(
    *fields: tuple[bytes, bytes], method: str = "GET", version: tuple[int, int] = (1, 1), target: bytes = b"/"
) -> Head:
    return Head(method, target, version, fields)


def asked(*upgrades: bytes, connection: bytes = b"Upgrade") -> Head:
    return head((b"Connection", connection), *((b"Upgrade", value) for value in upgrades))


# ---------------------------------------------------------------- what a client asks for


@pytest.mark.parametrize("more", WITHOUT_BODY)
def test_a_websocket_handshake(more: tuple[tuple[bytes, bytes], ...]) -> None:
    assert wanted(head(*HANDSHAKE, *more), WEBSOCKET) == b"websocket"


@pytest.mark.parametrize(
    "connection", [b"upgrade", b"UPGRADE", b"keep-alive, Upgrade", b"keep-alive ,\tupgrade,close"]
)
def test_connection_names_it_somewhere(connection: bytes) -> None:
    assert wanted(asked(b"websocket", connection=connection), WEBSOCKET) == b"websocket"


def test_connection_in_several_fields_and_names_in_any_case() -> None:
    fields = ((b"CONNECTION", b"keep-alive"), (b"connection", b"x, uPGRADE"), (b"uPGRADE", b"WebSocket"))
    assert wanted(head(*fields), WEBSOCKET) == b"WebSocket"


@pytest.mark.parametrize("connection", [b"keep-alive", b"upgraded", b"x-upgrade", b'"upgrade"', b""])
def test_an_upgrade_that_connection_does_not_name_is_none(connection: bytes) -> None:
    """Upgrade is for one hop only: without it the field may be from another one (RFC 9110 section 7.8)."""
    assert wanted(asked(b"websocket", connection=connection), WEBSOCKET) is None


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "PUT", "get", "GETX"])
def test_only_get(method: str) -> None:
    assert wanted(head(*HANDSHAKE, method=method), WEBSOCKET) is None


def test_not_by_an_older_protocol() -> None:
    assert wanted(head(*HANDSHAKE, version=(1, 0)), WEBSOCKET) is None


@pytest.mark.parametrize(
    "framing", [(b"Content-Length", b"5"), (b"content-length", b"00"), (b"Transfer-Encoding", b"chunked")]
)
def test_not_with_a_body(framing: tuple[bytes, bytes]) -> None:
    assert wanted(head(*HANDSHAKE, framing), PROTOCOLS) is None


def test_what_is_no_upgrade_at_all() -> None:
    assert wanted(head((b"Connection", b"keep-alive, upgrade")), PROTOCOLS) is None
    assert wanted(head(), PROTOCOLS) is None


@pytest.mark.threat(12)
@pytest.mark.parametrize(
    ("upgrades", "passed"),
    [
        ((b"h2c",), None),
        ((b"h2c, websocket",), b"websocket"),
        ((b"websocket", b"h2c"), b"websocket"),
        ((b"irc/6.9",), None),
        ((b"mqtt",), None),
        ((b"MQTT/3, websocket",), b"MQTT/3, websocket"),
        ((b"irc", b"tls/1.0", b" websocket "), b"irc, websocket"),
        ((b"websocket/13",), None),
        ((b"web socket",), None),
        ((b"",), None),
        ((b",",), None),
        ((b"websocket\x00",), None),
    ],
)
def test_only_what_the_route_lets_pass(upgrades: tuple[bytes, ...], passed: bytes | None) -> None:
    assert wanted(asked(*upgrades), PROTOCOLS) == passed


def test_a_route_that_lets_none_pass() -> None:
    assert wanted(head(*HANDSHAKE), frozenset()) is None


@pytest.mark.threat(12)
def test_h2c_is_not_among_the_default() -> None:
    assert frozenset({b"websocket"}) == WEBSOCKET


# ---------------------------------------------------------------- what an upstream agrees to


def answer(*upgrades: bytes, connection: bytes = b"Upgrade") -> tuple[tuple[bytes, bytes], ...]:
    return ((b"Connection", connection), *((b"Upgrade", value) for value in upgrades))


@pytest.mark.parametrize(
    ("offered", "said"),
    [
        (b"websocket", b"websocket"),
        (b"websocket", b"WebSocket"),
        (b"WebSocket", b"websocket"),
        (b"irc, websocket", b"websocket"),
        (b"irc, mqtt/3", b"irc"),
    ],
)
def test_an_answer_that_was_asked_for(offered: bytes, said: bytes) -> None:
    assert agreed(Fields(answer(said)), offered) == said
    assert (
        agreed(Fields((*answer(said, connection=b"x, UPGRADE"), (b"Content-Length", b"0"))), offered) == said
    )


@pytest.mark.parametrize(
    "fields",
    [
        (),
        answer(),
        answer(b""),
        answer(b"h2c"),
        answer(b"websocket", connection=b"close"),
        ((b"Upgrade", b"websocket"),),
        answer(b"websocket, h2c"),
        answer(b"h2c, websocket"),
        answer(b"websocket", b"websocket"),
        answer(b"websocket", b"h2c"),
        answer(b"websocket/2"),
        (*answer(b"websocket"), (b"Content-Length", b"5")),
        (*answer(b"websocket"), (b"content-length", b"")),
        (*answer(b"websocket"), (b"Transfer-Encoding", b"chunked")),
    ],
)
def test_an_answer_that_was_not(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    assert agreed(Fields(fields), b"websocket") is None


def test_nothing_was_asked_for() -> None:
    assert agreed(Fields(answer(b"websocket")), None) is None
    assert agreed(Fields(answer(b"")), b"") is None
