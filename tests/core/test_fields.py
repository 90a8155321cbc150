"""Fields are looked up and written by what their names say; what is remembered of names stays small."""

import pytest

from bearerd.core import fields
from bearerd.core.fields import Fields, Templates, index

FIELDS = Fields(((b"B", b"0"), (b"aCCept", b"1"), (b"Accept", b"2"), (b"Empty", b"")))


def test_values_by_name_in_any_case() -> None:
    assert FIELDS.get(b"accept") == b"1"
    assert FIELDS.every(b"accept") == [b"1", b"2"]
    assert FIELDS.get(b"empty") == b""
    assert FIELDS.get(b"accept-x") is None
    assert FIELDS.every(b"accept-x") == []
    assert Fields(()).get(b"a") is None


def test_the_size_is_that_on_the_wire() -> None:
    assert FIELDS.size == len(b"B: 0\r\naCCept: 1\r\nAccept: 2\r\nEmpty: \r\n")
    assert Fields(()).size == 0


@pytest.mark.parametrize("dropped", [(), (b"accept",), (b"accept", b"empty"), (b"accept", b"empty", b"b")])
def test_a_template_leaves_out_what_it_is_told_to(dropped: tuple[bytes, ...]) -> None:
    templates = Templates(lambda name: name in dropped)
    expected = b"".join(b"%b: %b\r\n" % pair for pair in FIELDS.headers if pair[0].lower() not in dropped)
    assert templates.fill(FIELDS) == templates.fill(FIELDS) == expected


def test_names_and_values_are_no_templates() -> None:
    odd = Fields(((b"%b%", b"%b %s %%"), (b"100%", b"%")))
    assert Templates(lambda _: False).fill(odd) == b"%b%: %b %s %%\r\n100%: %\r\n"


def test_what_comes_often_is_one_object() -> None:
    assert Fields(((b"A", b"1"), (b"B", b"2"))).names is Fields(((b"A", b"3"), (b"B", b"4"))).names


def test_what_is_remembered_is_bounded() -> None:
    templates = Templates(lambda _: False)
    for number in range(3000):
        name = b"X-%d" % number
        assert templates.fill(Fields(((name, b"1"),))) == name + b": 1\r\n"
    assert len(fields._names) <= fields._REMEMBERED
    assert len(templates._known) <= fields._REMEMBERED
    long = (b"n" * fields._LONG,)
    assert index(long) is not index(long)
    templates.fill(Fields(((long[0], b"1"),)))
    assert not any(names.written == long for names in templates._known)
