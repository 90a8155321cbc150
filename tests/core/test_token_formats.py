"""The forms of a token: exact texts."""

import json
import shlex

import pytest

from bearerd.core import token_formats
from bearerd.core.redaction import Secret
from bearerd.core.token_formats import FORMS, HandedToken

TOKEN = HandedToken("work", Secret("canary-token"), 1_700_000_000.9)


def handed(value: str) -> HandedToken:
    return HandedToken("work", Secret(value), 0.0)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("raw", "canary-token"),
        ("header", "Authorization: Bearer canary-token"),
        ("env", "ACCESS_TOKEN=canary-token"),
        (
            "json",
            (
                '{\n  "format_version": 1,\n  "account": "work",\n  "access_token": "canary-token",\n'
                '  "token_type": "Bearer",\n  "expires_at": 1700000000.9,\n'
                '  "expires": "2023-11-14T22:13:20+00:00"\n}'
            ),
        ),
        (
            "k8s-exec",
            (
                '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", '
                '"status": {"token": "canary-token", "expirationTimestamp": "2023-11-14T22:13:20Z"}}'
            ),
        ),
    ],
)
def test_a_form(form: str, expected: str) -> None:
    assert FORMS[form](TOKEN) == expected


def test_every_form_is_tested() -> None:
    assert list(FORMS) == ["raw", "json", "env", "header", "k8s-exec"]


@pytest.mark.parametrize("value", ["a", "a.b-c_d~e+f/g==", "=", "-x"])
def test_a_bearer_token_is_not_quoted(value: str) -> None:
    assert token_formats.format_env(handed(value)) == f"ACCESS_TOKEN={value}"


@pytest.mark.parametrize("value", ["a'b", "$(id)", "a b", "~root", "a;b", "`id`", "a\\b", '"', "!!"])
def test_a_shell_reads_an_odd_token_as_it_is(value: str) -> None:
    line = token_formats.format_env(handed(value))
    assert line.startswith("ACCESS_TOKEN='")
    assert shlex.split(line) == [f"ACCESS_TOKEN={value}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("protocol=https\nhost=x\n\nprotocol=http\n", {"protocol": "https", "host": "x"}),
        ("path=a=b\nnonsense\nhost=x", {"path": "a=b", "host": "x"}),
        ("host=x\r\n", {"host": "x"}),
    ],
)
def test_what_git_says(text: str, expected: dict[str, str]) -> None:
    assert token_formats.parse_attributes(text) == expected


@pytest.mark.parametrize(
    ("protocol", "host", "expected"),
    [
        ("https", "git.example.com", True),
        ("https", "", True),
        ("http", "localhost:8080", True),
        ("http", "127.0.0.1", True),
        ("http", "[::1]:80", True),
        ("http", "git.example.com", False),
        ("http", "localhost.example.com", False),
        ("http", "127.0.0.1.example.com", False),
        ("http", "", False),
        ("ssh", "git.example.com", False),
    ],
)
def test_git_has_no_token_for_the_open_network(protocol: str, host: str, *, expected: bool) -> None:
    assert token_formats.may_have({"protocol": protocol, "host": host}) is expected


def test_git_without_a_protocol_has_none() -> None:
    assert not token_formats.may_have({})


@pytest.mark.parametrize(
    ("attributes", "user"), [({}, "oauth2"), ({"username": ""}, "oauth2"), ({"username": "me"}, "me")]
)
def test_git(attributes: dict[str, str], user: str) -> None:
    expected = f"username={user}\npassword=canary-token\npassword_expiry_utc=1700000000"
    assert token_formats.format_git(TOKEN, attributes) == expected


def test_docker() -> None:
    assert json.loads(token_formats.format_docker(TOKEN, "https://images.example.com")) == {
        "ServerURL": "https://images.example.com",
        "Username": "oauth2accesstoken",
        "Secret": "canary-token",
    }


def test_a_handed_token_hides_itself() -> None:
    assert "canary" not in repr(TOKEN)
