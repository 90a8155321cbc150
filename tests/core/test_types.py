"""Threat 9: what a type shows of itself has no secret in it, whoever prints it."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

import pytest

import bearerd
from bearerd.core.accounts import Account, ClientAuth, CommandSource, Grant, OAuthSource
from bearerd.core.authorization import build_transaction
from bearerd.core.configuration import Configuration
from bearerd.core.field_rules import DEFAULT_RULES
from bearerd.core.grants import TokenRequest, build_revocation_request, parse_token_reply
from bearerd.core.lifecycle import Failure
from bearerd.core.redaction import MASK, Secret
from bearerd.core.targets import parse_route
from bearerd.oauth.exchange import Reply

pytestmark = pytest.mark.threat(9)

MARK: Final = "c4n4ry0123456789"
CLIENT: Final = OAuthSource(Grant.REFRESH_TOKEN, "x", ClientAuth.NONE, token_endpoint="http://127.0.0.1:9")
# Where texts under such a name may be shown all the same.
HARMLESS: Final = {
    ("DeviceAuthorization", "user_code"),  # for a person to type in
    ("FailureNote", "token"),
    ("Failure", "error"),  # a code of at most 64 characters, compared and never shown
    ("Peer", "key"),  # the name of a client key
    ("Changes", "added"),  # names of accounts and routes
    ("Report", "added"),
    ("Page", "body"),  # what a browser is given to show
    ("Problem", "headers"),
    ("Problem", "code"),
    ("Refusal", "code"),
    ("Question", "key"),  # a setting that `bearerd init` asks for
    ("Question", "value"),
    ("UpstreamRequest", "body"),  # what it is read from
}
TELLING: Final = (
    *(
        "added",
        "argv",
        "binding",
        "body",
        "code",
        "cookie",
        "credentials",
        "data",
        "head",
        "headers",
        "key",
        "nonce",
    ),
    *("on_login_needed", "password", "state", "token", "value", "verifier"),
)


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(bearerd.__path__, "bearerd."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def dataclasses_of_ours() -> dict[str, type]:
    found = (kind for module in modules() for kind in vars(module).values() if dataclasses.is_dataclass(kind))
    return {kind.__qualname__: kind for kind in found if isinstance(kind, type)}


def is_text(annotation: object) -> bool:
    """Whether it has texts in it that show themselves."""
    return any(word in str(annotation) for word in ("str", "bytes"))


def test_no_text_that_may_be_secret_is_in_a_repr() -> None:
    """By name: a field that is new and called like one is hidden, or holds a Secret, or is shown to be harmless."""
    shown = {
        (name, field.name)
        for name, kind in dataclasses_of_ours().items()
        for field in dataclasses.fields(kind)
        if field.repr and field.name in TELLING and is_text(field.type)
    }
    assert shown - HARMLESS == set()
    assert len(dataclasses_of_ours()) > 60


def examples() -> dict[str, Any]:
    secret = Secret(MARK)
    source = CommandSource(("get-token", MARK), 1.0)
    rules = dataclasses.replace(DEFAULT_RULES, added=((b"X-Api-Key", MARK.encode()),))
    route = dataclasses.replace(parse_route("/", "http://127.0.0.1:9", "work"), fields=rules)
    transaction = build_transaction(
        "work",
        redirect_uri="http://127.0.0.1/",
        binding=secret,
        return_to="/-/",
        oidc=True,
        entropy=MARK.encode() * 6,
        now=0.0,
    )
    return {
        "reply": Reply(200, MARK.encode(), None),
        "request": TokenRequest((("Authorization", MARK),), secret),
        "configuration": Configuration(
            {"work": Account("work", source)}, (route,), on_login_needed=("x", MARK)
        ),
        "transaction": transaction,
        "error": ValueError(secret, [secret], {"a": secret}),
    }


@pytest.mark.parametrize("name", examples())
def test_what_holds_one_shows_none(name: str) -> None:
    example = examples()[name]
    for shown in (repr(example), str(example), f"{example}", f"{[example]!r:>200}"):
        assert MARK not in shown


def test_made_texts_of_a_transaction_are_hidden_too() -> None:
    transaction = examples()["transaction"]
    assert transaction.nonce
    assert transaction.nonce not in repr(transaction)


@pytest.mark.parametrize("form", [MARK, "a b+c/d&%", "é", "c4n4ry%2Fx"])
@pytest.mark.parametrize("before", ["", "it was ", "in form: x="])
def test_what_was_sent_is_not_quoted_by_a_peer_s_error(form: str, before: str) -> None:
    """As it is, or as a form has it."""
    body = build_revocation_request(CLIENT, Secret(form), None).body.reveal()
    encoded = body.partition("token=")[2].partition("&")[0]
    for quoted in (form, encoded, encoded.replace("+", "%20")):
        text = f'{{"error": "invalid_grant", "error_description": "{before}{quoted} no"}}'
        failure = parse_token_reply(400, text.encode(), 0.0, sent=(Secret(form),))
        assert isinstance(failure, Failure)
        assert quoted not in failure.reason
        assert MASK in failure.reason


def test_a_long_description_is_cut_and_has_no_markup() -> None:
    text = f'{{"error": "x", "error_description": "{"<b>" * 500}\\u001b[31m\\u202e"}}'
    failure = parse_token_reply(400, text.encode(), 0.0)
    assert isinstance(failure, Failure)
    assert len(failure.reason) < 260
    assert failure.reason.isascii()
    assert failure.reason.isprintable()
