import asyncio
import errno
import gc
import io
import json
import logging
import re
import sys
import time
import warnings
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bearerd.core.configuration import Logging
from bearerd.core.redaction import MASK, Secret
from bearerd.core.tokens import Granted
from bearerd.logs import configure
from bearerd.privacy import frames

TAKEN = ("event", "level", "timestamp", "again", "stack", "exception")
JWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """A stream whose disk is full, or whose reader has gone."""

    def __init__(self, problem: Exception) -> None:
        super().__init__()
        self.problem = problem

    def write(self, text: str) -> int:
        del text
        raise self.problem

    def flush(self) -> None:
        raise self.problem


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Logging is set up for the whole process: undo that."""
    root, aiohttp = logging.getLogger(), logging.getLogger("aiohttp")
    before = root.handlers[:], root.level, aiohttp.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    aiohttp.setLevel(before[2])
    structlog.reset_defaults()


def start(level: str = "info", format_: str = "json", stream: io.StringIO | None = None) -> io.StringIO:
    stream = stream or io.StringIO()
    configure(Logging(level=level, format=format_), stream)
    return stream


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json() -> None:
    stream = start()
    log = structlog.get_logger("x").bind(account="work")
    log.info("token.refreshed", generation=3, lifetime_s=1.5, text="two\nlines \u00e9\x9b\x1b[31m", none=None)
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().isascii()
    (event,) = events(stream)
    assert list(event)[:3] == ["timestamp", "level", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", event.pop("timestamp"))
    assert event == {
        "level": "info",
        "event": "token.refreshed",
        "account": "work",
        "generation": 3,
        "lifetime_s": 1.5,
        "text": "two\nlines \u00e9\x9b\x1b[31m",
        "none": None,
    }


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(level: str, shown: list[str]) -> None:
    stream = start(level)
    log = structlog.get_logger("x")
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("x.y")
        log.log(getattr(logging, name.upper()), "x.y")
    assert [event["level"] for event in events(stream)] == [name for name in shown for _ in range(2)]


@pytest.mark.threat(9)
@pytest.mark.parametrize(
    "fields",
    [
        {"authorization": "s3cret"},
        {"Authorization": "s3cret"},
        {"set-cookie": ["s3cret", "s3cret"]},
        {"access_token": Secret("s3cret")},
        {"anything": Secret("s3cret")},
        {"headers": {"Authorization": "s3cret", "Proxy-Authorization": ("s3cret",)}},
        {"deep": [{"a": ({"refresh_token": "s3cret"},)}]},
        {"secret": {"any": "s3cret"}},
        {"text": "Authorization: Bearer s3cret-s3cret"},
        {"text": "grant_type=x&client_secret=s3cret&b=c"},
        {"text": '{"access_token": "s3cret"}'},
        {"raw": b"Bearer s3cret-s3cret"},
        {"url": "http://a/?access_token=s3cret"},
        {"nested": [["Basic s3crets3cret"]]},
    ],
)
@pytest.mark.parametrize("format_", ["json", "console"])
def test_no_secret_is_shown_at_any_depth(fields: dict[str, Any], format_: str) -> None:
    stream = start(format_=format_)
    structlog.get_logger("x").warning("x.y", **fields)
    structlog.get_logger("x").bind(**fields).warning("x.y")
    assert "s3cret" not in stream.getvalue()
    assert stream.getvalue().count(MASK) >= 2


@pytest.mark.threat(9)
def test_a_jwt_anywhere_is_masked() -> None:
    stream = start()
    structlog.get_logger("x").info(f"x.y {JWT}", detail=f"got {JWT}", more={"k": [JWT]})
    assert "eyJ" not in stream.getvalue()


def fail() -> None:
    password = "s3cret-local"
    raise ValueError(f"s3cret {password}")


@pytest.mark.threat(9)
def test_frames_say_where_and_not_what() -> None:
    try:
        fail()
    except ValueError as exc:
        shown = frames(exc)
    assert shown[0] == "ValueError"
    assert re.fullmatch(r".*test_logs\.py:\d+ fail", shown[-1])
    assert "s3cret" not in "".join(shown)


SECRET_TEXT = "c4n4ry-c4n4ry-c4n4ry"
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=8)
)
NAMED = st.sampled_from(
    [
        "authorization",
        "Proxy-Authorization",
        "set-cookie",
        "access_token",
        "code",
        "state",
        "x-api-key",
        "PASSWORD",
    ]
)


class Holder:
    """Whatever a library may hand on, which is shown by its repr."""

    def __init__(self, *held: object) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"<Holder {self.held!r}>"


def secrets() -> st.SearchStrategy[object]:
    """A secret as it may be met: wrapped, after a scheme or a name, under a name, in an exception."""
    text = SECRET_TEXT
    return st.one_of(
        st.just(Secret(text)),
        st.sampled_from(
            [f"Bearer {text}", f"token={text}", f'{{"refresh_token": "{text}"}}', f"/cb?code={text}"]
        ),
        st.sampled_from([f"Basic {text}".encode(), bytearray(b"cookie: a=" + text.encode())]),
        NAMED.map(lambda name: {name: text}),
        NAMED.map(lambda name: ((name.encode(), text.encode()), ("A", "b"))),
        NAMED.map(lambda name: MappingProxyType({name: [text, {"a": text}]})),
        st.sampled_from([ValueError(text), KeyError(text), ExceptionGroup(text, [OSError(text)])]),
        st.just(Granted(Secret(text), refresh_token=Secret(text))),
        st.just(Holder(Secret(text), f"Bearer {text}")),
    )


def nest(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    pairs = st.tuples(inner, PLAIN)
    return st.one_of(
        st.dictionaries(st.text(max_size=8), inner, min_size=1, max_size=3),
        st.lists(inner, min_size=1, max_size=3),
        pairs,
        pairs.map(list),
        inner.map(lambda value: [{"a": (value,)}]),
        inner.map(lambda value: Holder({"deep": Secret(SECRET_TEXT)}) if isinstance(value, str) else value),
    )


@pytest.mark.parametrize("format_", ["json", "console"])
@given(
    fields=st.dictionaries(
        st.text(st.characters(categories=["Ll", "Lu"]), min_size=1, max_size=8).filter(
            lambda name: name not in TAKEN
        ),
        st.recursive(secrets(), nest, max_leaves=5),
        min_size=1,
        max_size=4,
    )
)
@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@pytest.mark.threat(9)
def test_no_event_shows_a_secret_wherever_it_is(fields: dict[str, Any], format_: str) -> None:
    stream = start("debug", format_)
    structlog.get_logger("x").bind(**fields).debug("x.y", again=fields)
    logging.getLogger("lib").warning("with a value: %s", Secret(SECRET_TEXT), extra={"values": fields})
    assert "x.y" in stream.getvalue()
    assert SECRET_TEXT not in stream.getvalue()


@pytest.mark.parametrize("form", ["true", "exception", "triple"])
@pytest.mark.parametrize("format_", ["json", "console"])
@pytest.mark.threat(9)
def test_an_exception_beside_an_event_is_shown_by_its_place(format_: str, form: str) -> None:
    stream = start(format_=format_)
    try:
        fail()
    except ValueError as exc:
        given_ = {"true": True, "exception": exc, "triple": sys.exc_info()}[form]
        structlog.get_logger("x").error("x.y", exc_info=given_)
    structlog.get_logger("x").error("x.z", exc_info=True)
    shown = stream.getvalue()
    assert "ValueError" in shown
    assert " fail" in shown
    assert "s3cret" not in shown


@pytest.mark.parametrize("format_", ["json", "console"])
def test_an_exception_as_a_value_is_its_kind(format_: str) -> None:
    stream = start(format_=format_)
    structlog.get_logger("x").error("x.y", error=ValueError("s3cret"))
    assert "ValueError" in stream.getvalue()
    assert "s3cret" not in stream.getvalue()


def test_frames_are_few_and_those_nearest_to_the_problem() -> None:
    def dig(depth: int) -> None:
        if depth == 0:
            fail()
        dig(depth - 1)

    try:
        dig(50)
    except ValueError as exc:
        shown = frames(exc)
    assert len(shown) == 9
    assert shown[-1].endswith("fail")
    assert frames(KeyError("s3cret")) == ["KeyError"]


def test_the_standard_library_comes_over_the_bridge() -> None:
    stream = start()
    logging.getLogger("lib.part").warning("about %s", "Bearer s3cret-s3cret")
    logging.getLogger("lib.part").info("not shown")
    logging.getLogger("aiohttp.server").error("s3cret request")
    (event,) = events(stream)
    assert event["event"] == "library.message"
    assert event["level"] == "warning"
    assert event["logger"] == "lib.part"
    assert event["message"] == f"about Bearer {MASK}"


def test_an_exception_in_the_standard_library_is_shown_by_its_place() -> None:
    stream = start()
    try:
        fail()
    except ValueError:
        logging.getLogger("lib").exception("went wrong")
    logging.getLogger("lib").error("no exception", exc_info=True)  # noqa: LOG014  # as a library might
    first, second = events(stream)
    assert first["trace"][0] == "ValueError"
    assert "trace" not in second
    assert "s3cret" not in stream.getvalue()


def test_a_forgotten_task_shows_no_exception_text() -> None:
    stream = start()

    async def main() -> None:
        async def wrong() -> None:
            fail()

        task = asyncio.create_task(wrong())
        await asyncio.sleep(0.01)
        del task
        gc.collect()

    asyncio.run(main())
    (event,) = events(stream)
    assert event["logger"] == "asyncio"
    assert event["message"] == "Task exception was never retrieved"
    assert event["trace"][0] == "ValueError"
    assert "s3cret" not in stream.getvalue()


async def hand_over(value: object) -> object:
    await asyncio.sleep(0)
    return value


@pytest.mark.threat(9)
def test_what_asyncio_says_in_its_debug_mode_has_no_value() -> None:
    """Slow callbacks are shown with their arguments, futures with their results, destroyed tasks with what they wait for."""
    stream = start()
    secret = "c4n4ry-of-a-call"

    def slow(value: object) -> None:
        del value
        time.sleep(0.002)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0.001
        loop.call_soon(slow, secret)
        future: asyncio.Future[object] = loop.create_future()
        future.add_done_callback(slow)
        future.set_result(secret)
        await asyncio.create_task(hand_over(secret))
        await future
        loop.call_exception_handler({"message": "odd", "future": future, "value": secret})
        waiting = loop.create_task(asyncio.sleep(3600, secret))
        await asyncio.sleep(0)
        loop.call_exception_handler({"message": "Task was destroyed but it is pending!", "task": waiting})
        waiting.cancel()

    with asyncio.Runner(debug=True, loop_factory=asyncio.new_event_loop) as runner:
        runner.run(main())
    said = [event["message"] for event in events(stream)]
    assert [line for line in said if line.startswith("Executing ") and "test_logs.py:" in line], said
    assert {"odd", "Task was destroyed but it is pending!"} <= set(said)
    assert "c4n4ry" not in stream.getvalue()


def test_warnings_are_events() -> None:
    stream = start()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old, token=s3cret", DeprecationWarning, stacklevel=1)
    (event,) = events(stream)
    assert event["logger"] == "py.warnings"
    assert "old" in event["message"]
    assert "s3cret" not in stream.getvalue()


@pytest.mark.parametrize(
    ("number", "name"), [(31, "warning"), (35, "warning"), (45, "error"), (50, "critical"), (99, "critical")]
)
def test_levels_that_libraries_invent(number: int, name: str) -> None:
    stream = start()
    logging.getLogger("lib").log(number, "odd")
    (event,) = events(stream)
    assert event["level"] == name


def test_a_level_below_all_others_is_debug() -> None:
    stream = start("debug")
    logging.getLogger().setLevel(1)
    logging.getLogger("lib").log(5, "trace")
    assert [event["level"] for event in events(stream)] == ["debug"]


@pytest.mark.parametrize("arguments", [("%d", "x"), ("%s %s", "x"), ("%(a)s", "x")])
def test_a_library_that_logs_wrongly_is_not_stopped(arguments: tuple[str, str]) -> None:
    stream = start()
    logging.getLogger("lib").warning(*arguments)
    (event,) = events(stream)
    assert event["message"] == arguments[0]


@pytest.mark.parametrize(
    "problem", [BrokenPipeError(), OSError(errno.ENOSPC, "full"), ValueError("I/O operation on closed file")]
)
@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_log_that_cannot_be_written_stops_nothing(problem: Exception, format_: str) -> None:
    start(format_=format_, stream=Broken(problem))
    structlog.get_logger("x").error("x.y")
    logging.getLogger("lib").error("x.y")


def test_a_closed_stream_stops_nothing() -> None:
    stream = start()
    stream.close()
    structlog.get_logger("x").error("x.y")


@pytest.mark.parametrize(
    ("format_", "stream", "json_"),
    [
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
        ("json", Terminal, True),
        ("console", io.StringIO, False),
    ],
)
def test_the_format_follows_the_setting_and_the_stream(
    format_: str, stream: type[io.StringIO], json_: bool
) -> None:
    shown = start(format_=format_, stream=stream())
    structlog.get_logger("x").info("x.y", account="work")
    assert shown.getvalue().startswith("{") is json_
    assert "x.y" in shown.getvalue()
    assert "work" in shown.getvalue()


@pytest.mark.parametrize(
    ("stream", "no_color", "coloured"),
    [(Terminal, None, True), (Terminal, "", True), (Terminal, "1", False), (io.StringIO, None, False)],
)
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], no_color: str | None, coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    shown = start(format_="console", stream=stream())
    structlog.get_logger("x").info("x.y")
    assert ("\x1b[" in shown.getvalue()) is coloured


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[2Jb", "a\x9b2Jb", "a\rb", "a\u202eb", "a\x00b", "a\udc80b"])
def test_what_came_from_outside_does_not_move_the_cursor(text: str) -> None:
    stream = start(format_="console")
    structlog.get_logger("x").info("request.refused", path=text, nested=[text])
    shown = stream.getvalue()
    assert shown.count("\n") == 1
    assert shown.removesuffix("\n").isprintable()


def test_stderr_is_the_stream_unless_named(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Logging(format="json"))
    structlog.get_logger("x").info("x.y")
    captured = capsys.readouterr()
    assert '"x.y"' in captured.err
    assert captured.out == ""


def test_loggers_that_are_there_already_follow_a_change_of_level_and_format() -> None:
    """Whoever has been made, bound or used before: they last as long as the process."""
    stream = start("info")
    bound, used = structlog.get_logger("x").bind(account="work"), structlog.get_logger("y")
    for log in (bound, used):
        log.debug("not.seen")
        log.info("first")
    start("error", "console", stream)
    for log in (bound, used):
        log.info("not.seen")
        log.error("second")
    start("debug", "json", stream)
    for log in (bound, used):
        log.debug("third")
    lines = stream.getvalue().splitlines()
    assert ["first" in line for line in lines] == [True, True, False, False, False, False]
    assert ["second" in line for line in lines] == [False, False, True, True, False, False]
    assert [json.loads(lines[n])["event"] for n in (0, 1, 4, 5)] == ["first", "first", "third", "third"]
    assert not lines[2].startswith("{")
    assert "not.seen" not in stream.getvalue()
