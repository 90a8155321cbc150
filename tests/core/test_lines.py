"""An event as a line of JSON: one line, JSON for every reader, and masked just as deep values are."""

import json
import re
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bearerd.core import redaction
from bearerd.core.lines import build_line
from bearerd.core.redaction import MASK, Secret, redact_text, redact_value

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.builds(Secret, st.text()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=6,
)
KEYS = st.text() | st.sampled_from(["path", "token", "Authorization", "set-cookie", "trace_id", "code"])


def refuse(name: str) -> NoReturn:
    raise AssertionError(f"{name} is no JSON")


def read(line: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line, parse_constant=refuse)
    return found


@pytest.mark.threat(9)
@settings(deadline=None)
@given(st.dictionaries(KEYS, VALUES))
def test_whatever_an_event_has_is_one_line_of_ascii_and_masked_as_values_are(
    event: dict[str, object],
) -> None:
    line = build_line(event)
    assert re.fullmatch(r"[\x20-\x7e]*", line)
    assert read(line) == {
        key: json.loads(json.dumps(redact_value(key, value))) for key, value in event.items()
    }


@pytest.mark.threat(9)
@pytest.mark.parametrize(
    "text",
    [
        *(
            "/a/token=s3cret",
            "/a/token%3ds3cret",
            "token:s3cret",
            "/?code=s3cret",
            "://s3cret@host",
            "Bearer s3cret-s3cret",
        ),
        *(
            "basic%20s3crets3cret",
            "api_key=s3cret",
            "eyJs3crets3cret",
            f"bearerd_{'5' * 64}",
            "token s3cret1-s3cret",
        ),
    ],
)
def test_a_secret_in_a_path_is_masked(text: str) -> None:
    line = build_line({"path": text})
    assert MASK in line
    assert "s3cret" not in line
    assert "5555" not in line


@settings(deadline=None)
@given(
    st.text() | st.from_regex(r"[A-Za-z0-9/._:= %-]{0,20}(eyJ|token|code|bearerd_)?[A-Za-z0-9/._:= %-]{0,20}")
)
def test_the_quick_look_at_a_text_misses_nothing(text: str) -> None:
    slowly = text
    for pattern in redaction._PATTERNS:
        slowly = pattern.sub(redaction._mask, slowly)
    assert redact_text(text) == slowly


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_has_not_is_a_text(number: float) -> None:
    assert read(build_line({"a": number, "b": [number, {"c": number}]})) == {
        "a": repr(number),
        "b": [repr(number), {"c": repr(number)}],
    }


def test_what_people_look_for_comes_first() -> None:
    line = build_line({"path": "/", "event": "x.y", "level": "info", "timestamp": "now"})
    assert list(read(line)) == ["timestamp", "level", "event", "path"]
