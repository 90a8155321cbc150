"""A call's line in the audit log: one line, whatever the call is, and no token in it."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.core.audit import build_line, fingerprint
from bearerd.core.calls import Entry, Peer
from bearerd.core.guard import Head
from bearerd.core.redaction import MASK, Secret

NOW = 1_700_000_000.25


def line(target: bytes, method: str = "GET", **of: Any) -> bytes:
    head = Head(method, target, (1, 1), ())
    return build_line(Entry(of.pop("peer", Peer()), head, of.pop("status", 200), **of), NOW)


@pytest.mark.parametrize(
    "path",
    [b'/a\n{"status": 200}', b"/\r\n", b"/\x1b[2J", b"/\x7f", b"/\x85", b"/\xe2\x80\xa8", b'/"}', b"/\0"],
)
def test_a_path_forges_no_line(path: bytes) -> None:
    written = line(path)
    assert re.fullmatch(rb"[\x20-\x7e]+\n", written)
    assert json.loads(written)["path"].encode("latin-1") == path


@given(target=st.binary(), key=st.none() | st.text(), account=st.text())
def test_whatever_comes_is_one_line_of_printable_ascii(target: bytes, key: str | None, account: str) -> None:
    written = line(target, peer=Peer(key), account=account)
    assert re.fullmatch(rb"[\x20-\x7e]+\n", written)
    assert json.loads(written)["account"] == account


def test_a_query_is_not_in_it() -> None:
    assert json.loads(line(b"/a?code=s3cret?x"))["path"] == "/a"


def test_what_looks_like_a_credential_is_masked() -> None:
    assert json.loads(line(b"/a/api_key=s3cret/x"))["path"] == f"/a/api_key={MASK}"


def test_all_that_is_known_of_a_call() -> None:
    entry = {
        "route": "/a",
        "account": "work",
        "received": 3,
        "sent": 4,
        "duration_s": 0.12345678,
        "problem": "no_route",
        "cut": "client",
        "replayed": True,
        "fingerprint": "0" * 16,
    }
    assert json.loads(line(b"/a/b", "POST", peer=Peer("ci", 1000), status=None, **entry)) == {
        "time": "2023-11-14T22:13:20.250Z",
        "client": "ci",
        "uid": 1000,
        "route": "/a",
        "account": "work",
        "method": "POST",
        "path": "/a/b",
        "status": None,
        "problem": "no_route",
        "cut": "client",
        "bytes_in": 3,
        "bytes_out": 4,
        "duration_s": 0.123457,
        "replayed": True,
        "token": "0" * 16,
        "request_id": None,
        "trace_id": None,
    }


def test_what_the_call_is_called_and_its_trace() -> None:
    head = Head("GET", b"/", (1, 1), ((b"Traceparent", f"00-{'a' * 32}-{'b' * 16}-00".encode()),))
    head.request_id = "0123"
    said = json.loads(build_line(Entry(Peer(), head, 200), NOW))
    assert (said["request_id"], said["trace_id"]) == ("0123", "a" * 32)


def test_fingerprints_tell_tokens_apart_and_are_what_the_document_says() -> None:
    """As `printf %s the-token | sha256sum | cut -c1-16` has it."""
    assert fingerprint(Secret("the-token")) == "c2a73fcf61dfbdca" != fingerprint(Secret("the-tokem"))
