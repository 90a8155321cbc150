"""No test may end with a secret in what came out of the program: the suite is a mine full of canaries.

What the tests' servers give carries `MARK`, what the demo gives `demo-…-`; what is made elsewhere (a state, a verifier, the
secrets of a configuration) is made known where it is first seen, by `know`. What came out is noted by the instruments through
which it came: processes' output, arguments and environments, replies, events of this process. At the end of each test all of it is searched, with
what pytest has captured and the files that bearerd has made. A hit fails the test.

As a plugin of pytest's it is part of conftest.py.
"""

import base64
import json
import logging
import os
import re
import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

import pytest
import structlog

from bearerd import logs

MARK: Final = "c4n4ry"
SHORTEST: Final = 6  # shorter ones are found everywhere
_DEMO: Final = re.compile(rb"demo-(?:access|refresh|grant|code|secret)-[0-9A-Za-z]{8}")
_IN_TOML: Final = re.compile(r'(?m)\b(client_secret|refresh_token|key_secret|token)\s*=\s*"([^"\n]+)"')
_IN_ENVIRONMENT: Final = re.compile(r"BEARERD_\w*(?:SECRET|TOKEN)")
_IN_QUERIES: Final = {"code", "state", "device_code", "code_verifier", "refresh_token", "access_token"}
_OURS: Final = {"vault", "bearerd", "bodies"}
_WRITTEN_BY_TESTS: Final = {".toml", ".key"}

_known: dict[str, str] = {}
_noted: list[tuple[str, bytes, frozenset[str]]] = []


def make(kind: str) -> str:
    """A secret that is found again."""
    return f"{MARK}-{kind}-{secrets.token_hex(8)}"


def know(value: str | None, kind: str) -> None:
    """`value`, which somebody else has made, is a secret until the test ends."""
    if value and len(value) >= SHORTEST:
        _known[value] = kind


def know_toml(text: str) -> None:
    for name, value in _IN_TOML.findall(text):
        know(value, name)


def know_variables(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        if _IN_ENVIRONMENT.fullmatch(name.upper()):
            know(value, name)


def know_address(url: str) -> None:
    """What is in the query of an address that a browser is sent to."""
    with suppress(ValueError):
        for name, value in parse_qsl(urlsplit(url).query):
            if name in _IN_QUERIES:
                know(value, name)


def note(channel: str, data: bytes | str, may_have: Iterable[str] = ()) -> None:
    """`data` has come out by `channel`. Kinds of secrets in `may_have` belong there."""
    _noted.append(
        (channel, data.encode("utf-8", "replace") if isinstance(data, str) else data, frozenset(may_have))
    )


def note_process(pid: int, given: Iterable[str] = ()) -> None:
    """Arguments and environment of a process and of those it has started.

    What the first was `given` by environment stays there, and none of its children gets it.
    """
    for number in (pid, *_children(pid)):
        with suppress(OSError):
            folder = Path(f"/proc/{number}")
            own = tuple(f"{name}=".encode() for name in given) if number == pid else ()
            note(f"the arguments of process {number}", (folder / "cmdline").read_bytes())
            variables = (folder / "environ").read_bytes().split(b"\0")
            kept = [variable for variable in variables if not (own and variable.startswith(own))]
            note(f"the environment of process {number}", b"\0".join(kept))


def _children(pid: int) -> Iterator[int]:
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from _children(child)


# ---------------------------------------------------------------- the search


def forms(value: str) -> set[bytes]:
    """`value` as it is, and as it is written in base64 at any place, in a URL, in JSON and in hexadecimal."""
    raw = value.encode()
    found = {raw, json.dumps(value)[1:-1].encode(), raw.hex().encode()}
    found |= {text.encode() for text in (quote(value), quote(value, safe=""), quote_plus(value))}
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + raw).rstrip(b"=")
        inner = coded[(0, 2, 3)[shift] : len(coded) - (1 if (shift + len(raw)) % 3 else 0)]
        found |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


_MARKS: Final = forms(MARK)


def search(data: bytes, known: Mapping[bytes, str]) -> set[str]:
    """The kinds of the secrets in `data`; `known` has their forms."""
    found = {f"the demo's {hit.decode().split('-')[1]}" for hit in _DEMO.findall(data)}
    found |= {_kind_of(data, form) for form in _MARKS if form in data}
    return found | {kind for form, kind in known.items() if form in data}


def _kind_of(data: bytes, form: bytes) -> str:
    named = re.search(re.escape(form) + rb"-(\w+)-", data)
    return named[1].decode() if named else "marked"


def find_all() -> list[str]:
    """A line for each channel that has something it may not have."""
    known = {form: kind for value, kind in _known.items() for form in forms(value)}
    channels: dict[tuple[str, frozenset[str]], list[bytes]] = {}
    for channel, data, may_have in _noted:
        channels.setdefault((channel, may_have), []).append(data)
    found = {channel: search(b"\n".join(parts), known) - channel[1] for channel, parts in channels.items()}
    return sorted(
        f"{', '.join(sorted(kinds))} in {channel}" for (channel, _), kinds in found.items() if kinds
    )


def note_files(folder: Path) -> None:
    """What bearerd has made below `folder`: vaults, locks, notes, sockets' folders, bodies, cores."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            ours = _OURS.intersection(path.relative_to(folder).parts[:-1]) or path.name.startswith("core")
            with suppress(OSError):
                if path.suffix == ".key" and path.stat().st_size < 200:
                    know(path.read_text(errors="replace").strip(), "vault key")
                if ours and path.is_file() and path.suffix not in _WRITTEN_BY_TESTS:
                    note(f"the file {path.name}", path.read_bytes())


# ---------------------------------------------------------------- in this process


def _note_event(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """What a daemon in this process would have written for an event of any level."""
    shown = logs.redact(logger, method, dict(event))
    note("an event of the log", json.dumps(shown, default=str))
    return event


class _Libraries(logging.Handler):
    """What libraries say, as a daemon would have it."""

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("aiohttp"):  # a daemon has it silent
            note("a library's message", json.dumps(logs.redact(None, "", logs.event_of(record)), default=str))


_LIBRARIES: Final = _Libraries()


def pytest_runtest_setup() -> None:
    _known.clear()
    _noted.clear()
    processors = structlog.get_config()["processors"]
    if _note_event not in processors:
        structlog.configure(processors=[_note_event, *processors])
    if _LIBRARIES not in logging.getLogger().handlers:
        logging.getLogger().addHandler(_LIBRARIES)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """After its teardown a test that was good is held to what came out. One that failed shows more than it may."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, default=False) or report.failed
    if call.when == "teardown" and not item.stash[_FAILED]:
        for name, text in report.sections:
            note(name.lower(), text)
        folder = getattr(item, "funcargs", {}).get("tmp_path")
        if folder is not None:
            note_files(folder)
        if leaks := find_all():
            report.outcome = "failed"
            report.longrepr = "\n".join(["secrets came out:", *leaks])
    return report


_FAILED: Final = pytest.StashKey[bool]()
