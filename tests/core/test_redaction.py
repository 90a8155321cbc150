"""What never shows in any text, and what must stay readable."""

import base64
import copy
import json
import pickle
import time
import traceback
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bearerd.core.accounts import Account, ClientAuth, Grant, OAuthSource, StaticSource
from bearerd.core.redaction import MASK, Secret, redact_text, redact_value
from bearerd.core.tokens import Granted, TokenSet

CANARY = "canary0123456789"
SECRET = Secret(CANARY)
JWT = ".".join(
    base64.urlsafe_b64encode(part).rstrip(b"=").decode()
    for part in (b'{"alg":"RS256","kid":"1"}', b'{"sub":"canary"}', b"\xff" * 40)
)


@dataclass
class Holder:
    name: str
    held: Secret


class TestSecret:
    @pytest.mark.threat(9)
    @pytest.mark.parametrize(
        "shown",
        [
            str(SECRET),
            repr(SECRET),
            f"{SECRET}",
            f"{SECRET!r}",
            f"{SECRET!s}",
            f"{SECRET!a}",
            f"{SECRET:>30}",
            "%s %r" % (SECRET, SECRET),  # noqa: UP031  # the way that is tested
            "{} {0!r}".replace("{}", "{0}").format(SECRET),
            str([SECRET]),
            str({SECRET: SECRET}),
            repr(Holder("x", SECRET)),
            repr(Account("work", StaticSource(SECRET))),
            repr(OAuthSource(Grant.REFRESH_TOKEN, "cli", ClientAuth.POST, SECRET, refresh_token=SECRET)),
            repr(Granted(SECRET, refresh_token=SECRET)),
            repr(TokenSet(1, SECRET, 0.0, 1.0, SECRET)),
            repr(replace(TokenSet(1, SECRET, 0.0, 1.0), generation=2)),
            repr(asdict(Holder("x", SECRET))),
            repr(ValueError(SECRET)),
            str(ValueError("no", SECRET)),
            "".join(traceback.format_exception(ValueError(SECRET))),
            json.dumps({"a": SECRET}, default=str),
            repr(copy.deepcopy({"a": [SECRET]})),
        ],
    )
    def test_it_shows_a_mask(self, shown: str) -> None:
        assert CANARY not in shown
        assert MASK in shown

    def test_the_mask_says_nothing_of_the_length(self) -> None:
        assert str(Secret("")) == str(Secret("x" * 99)) == MASK

    def test_reveal(self) -> None:
        assert SECRET.reveal() == CANARY

    def test_a_width_applies_to_the_mask(self) -> None:
        assert f"{SECRET:>12}" == "  " + MASK

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_pickling_is_refused(self, protocol: int) -> None:
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps({"a": SECRET}, protocol)

    def test_a_copy_is_the_same_object(self) -> None:
        assert copy.copy(SECRET) is SECRET
        assert copy.deepcopy([SECRET])[0] is SECRET

    def test_json_does_not_take_it(self) -> None:
        with pytest.raises(TypeError):
            json.dumps(SECRET)

    def test_nothing_can_be_hung_on_it(self) -> None:
        with pytest.raises(AttributeError):
            SECRET.other = 1  # type: ignore[attr-defined]  # what is tested
        assert not hasattr(SECRET, "__dict__")

    def test_equality_is_of_values_among_secrets(self) -> None:
        assert Secret("a") == Secret("a")
        assert Secret("a") != Secret("b")
        assert Secret("a") != "a"
        assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
        assert hash(Secret("a")) != hash("a")

    def test_the_empty_one_is_false(self) -> None:
        assert SECRET
        assert not Secret("")


class TestText:
    @pytest.mark.threat(9)
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            (f"Bearer {CANARY} x", f"Bearer {MASK} x"),
            (f"bearer  {CANARY}", f"bearer  {MASK}"),
            (f"Bearer%20{CANARY}", f"Bearer%20{MASK}"),
            ("DPoP canary~+/.-_==, x", f"DPoP {MASK}, x"),
            ("Basic Y2FuYXJ5OmNhbmFyeQ==", f"Basic {MASK}"),
            ("token ghp_canary1", f"token {MASK}"),
            (
                f"GET / Authorization: Bearer {CANARY}\r\nAccept: */*",
                f"GET / Authorization: {MASK}\r\nAccept: */*",
            ),
            ("Proxy-Authorization: Digest username=canary", f"Proxy-Authorization: {MASK}"),
            ("Cookie: a=canary; b=canary\nX: 1", f"Cookie: {MASK}\nX: 1"),
            ("set-cookie: id=canary; Path=/", f"set-cookie: {MASK}"),
            ("X-Api-Key: canary", f"X-Api-Key: {MASK}"),
            (JWT, MASK),
            (f"at {JWT}, then", f"at {MASK}, then"),
            (f"jwt_{JWT}", f"jwt_{MASK}"),
            (f"'{JWT[:60]}", f"'{MASK}"),
            ("access_token=canary&x=1", f"access_token={MASK}&x=1"),
            ("REFRESH_TOKEN = canary x", f"REFRESH_TOKEN = {MASK} x"),
            ("client_secret: canary,", f"client_secret: {MASK},"),
            ("password=canary; x", f"password={MASK}; x"),
            ("client_assertion=canary", f"client_assertion={MASK}"),
            ("code_verifier=canary", f"code_verifier={MASK}"),
            ("MY-APIKEY=canary", f"MY-APIKEY={MASK}"),
            ("private_key=canary", f"private_key={MASK}"),
            ("access_token%3Dcanary", f"access_token%3D{MASK}"),
            ('{"access_token": "canary", "x": 1}', f'{{"access_token": "{MASK}", "x": 1}}'),
            ('{"id_token":"canary","x":1}', f'{{"id_token":"{MASK}","x":1}}'),
            ('{"refresh_token": "a canary, \\"canary\\"", "x": 1}', f'{{"refresh_token": "{MASK}", "x": 1}}'),
            ('"{\\"token\\": \\"canary\\", \\"x\\": 1}"', f'"{{\\"token\\": \\"{MASK}\\", \\"x\\": 1}}"'),
            ("{'secret': 'canary', 'x': 1}", f"{{'secret': '{MASK}', 'x': 1}}"),
            ("refresh_token='a canary' x", f"refresh_token='{MASK}' x"),
            ('{"access_token": "canary', f'{{"access_token": "{MASK}'),
            ("{'Cookie': 'a=canary', 'x': 1}", f"{{'Cookie': '{MASK}', 'x': 1}}"),
            ("/cb?code=canary&state=canary#x", f"/cb?code={MASK}&state={MASK}#x"),
            ("/cb?state=canary", f"/cb?state={MASK}"),
            ("grant_type=x&device_code=canary", f"grant_type=x&device_code={MASK}"),
            ("https://api.test/?access_token=canary#x", f"https://api.test/?access_token={MASK}"),
            ("https://me:canary@api.test/x", f"https://{MASK}@api.test/x"),
            ("http://canary@[::1]:80", f"http://{MASK}@[::1]:80"),
        ],
    )
    def test_masked(self, text: str, shown: str) -> None:
        assert redact_text(text) == shown

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "the token endpoint answered 503",
            "the token endpoint's reply has no usable access_token",
            "the token endpoint says invalid_grant: Token expired or revoked",
            "the token file cannot be read: No such file or directory",
            "token.refreshed",
            "the refresh token has expired; a token is needed",
            "the token endpoint issued a token that is not of type Bearer",
            "token_type=Bearer",
            "token_endpoint=https://login.test/token",
            "max_tokens=500 tokens: 5",
            "secrets are in the keychain",
            "authorization_endpoint https://login.test/authorize",
            "grant_type=authorization_code",
            "code 503, state active",
            "status_code=503&zipcode=12345",
            "https://api.test:8443/v1/a@b?x=1",
            "mail me@login.test",
            "keyJournalEntries eyJ short",
            "/service/v1/things/42?page=2",
            "2023-11-14T22:13:20Z INFO request.forwarded GET 200 0.0012",
            "bearerd 0.1.0 on 127.0.0.1:6750",
            "Basic auth, Bearer: no",
        ],
    )
    def test_readable(self, text: str) -> None:
        assert redact_text(text) == text

    @pytest.mark.parametrize(
        "text",
        [
            "/" + "a-" * 8_000,
            "eyJ-" * 4_000,
            "eyJaaaaaaaa-" * 1_300,
            "token-" * 2_700,
            "token" + " " * 16_000,
            "token" + "\\" * 16_000,
            'token="' + "\\" * 16_000,
            "token " * 2_700,
            "token%20" * 2_000,
            "bearer " * 2_300,
            "cookie" * 2_700,
            "cookie=" * 2_300,
            "://" * 5_300,
            "://" + "a" * 16_000,
            "&code" * 3_200,
        ],
        ids=lambda text: text[:10],
    )
    def test_no_text_takes_long(self, text: str) -> None:
        """A path goes through here when its call is refused: a web page must not be able to stop the daemon."""
        started_at = time.process_time()
        redact_text(text)
        assert time.process_time() - started_at < 0.25

    @given(
        st.sampled_from(["Bearer ", "access_token=", '"refresh_token": "', "client_secret='", "Cookie: a="]),
        st.text(max_size=20),
        st.sampled_from(["", "\n", '"', "&x=1", " x", "'"]),
    )
    @settings(max_examples=150, deadline=None)
    def test_whatever_stands_around_it(self, key: str, before: str, after: str) -> None:
        """Bar a name that the text before runs into, or a quote that it leaves open."""
        text = before.translate({ord(char): None for char in "\"'\\"}) + " " + key + CANARY + after
        assert CANARY not in redact_text(text)


class TestValue:
    @pytest.mark.threat(9)
    @pytest.mark.parametrize(
        "key",
        [
            "authorization",
            "Authorization",
            "PROXY_AUTHORIZATION",
            "Proxy-Authorization",
            "cookie",
            "Set-Cookie",
            "access_token",
            "accessToken",
            "x-auth-token",
            "client_secret",
            "client-assertion",
            "x-api-key",
            "apikey",
            "password",
            "passwd",
            "code_verifier",
            "device_code",
            "private_key",
            "code",
            "state",
        ],
    )
    @pytest.mark.parametrize("value", ["canary", b"canary", 5, None, ["canary"], {"a": "canary"}, SECRET])
    def test_a_secret_key_hides_any_value(self, key: str, value: object) -> None:
        assert redact_value(key, value) == MASK

    @pytest.mark.parametrize(
        "key", ["token_type", "tokens", "states", "status_code", "secrets_dir", "cookies"]
    )
    def test_keys_that_only_look_like_it(self, key: str) -> None:
        assert redact_value(key, "plain") == "plain"

    @pytest.mark.parametrize("value", [None, True, False, 0, 5, 0.5, "plain", ""])
    def test_plain_values_pass(self, value: object) -> None:
        shown = redact_value("key", value)
        assert shown == value
        assert type(shown) is type(value)

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (f"Bearer {CANARY}", f"Bearer {MASK}"),
            (f"Bearer {CANARY}".encode(), f"Bearer {MASK}"),
            (bytearray(b"token=canary"), f"token={MASK}"),
            (b"caf\xe9", "café"),
            ({"a": {"Authorization": "canary", "b": "c"}}, {"a": {"Authorization": MASK, "b": "c"}}),
            ({b"authorization": b"canary", b"a": b"b"}, {"authorization": MASK, "a": "b"}),
            ({1: ["a", "password=canary"]}, {"1": ["a", f"password={MASK}"]}),
            (["a", ("b", "token=canary", "c")], ["a", ["b", f"token={MASK}", "c"]]),
            ({f"Bearer {CANARY}"}, [f"Bearer {MASK}"]),
            (frozenset({b"plain"}), ["plain"]),
            (
                ((b"Authorization", b"canary"), (b"X-Api-Key", b"canary"), (b"A", b"b")),
                [["Authorization", MASK], ["X-Api-Key", MASK], ["A", "b"]],
            ),
            ([("Cookie", "canary")], [["Cookie", MASK]]),
            ((1, "token=canary"), [1, f"token={MASK}"]),
            (SECRET, MASK),
            (Holder("x", SECRET), f"Holder(name='x', held={MASK})"),
            (ValueError(CANARY), "ValueError"),
            ([KeyError(CANARY), {"a": OSError(CANARY)}], ["KeyError", {"a": "OSError"}]),
            (MappingProxyType({"Cookie": "canary", "code": CANARY}), {"Cookie": MASK, "code": MASK}),
            ({f"Bearer {CANARY}": 1}, {f"Bearer {MASK}": 1}),
        ],
    )
    @pytest.mark.threat(9)
    def test_at_any_depth(self, value: object, shown: object) -> None:
        assert redact_value("key", value) == shown

    def test_a_list_under_a_plain_key_keeps_the_rules(self) -> None:
        assert redact_value("headers", [{"set-cookie": "canary"}]) == [{"set-cookie": MASK}]
