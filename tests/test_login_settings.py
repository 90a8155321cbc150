"""Settings of accounts that a person logs in to: what is taken over, what is told by what, and what is refused."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from bearerd.core.accounts import ClientAuth, Grant, OAuthSource
from bearerd.core.configuration import Configuration
from bearerd.core.redaction import MASK, Secret
from bearerd.errors import ConfigError
from bearerd.settings import Loaded, load

ROOT = '[routes."/"]\nupstream = "https://api.example.com/v1"\n'
LOGIN = """\
[accounts.work]
issuer = "https://login.example.com"
client_id = "cli"
"""
EXPLICIT = """\
[accounts.work]
authorization_endpoint = "https://login.example.com/authorize?tenant=a"
token_endpoint = "https://login.example.com/token"
client_id = "cli"
"""
NOTHING: Mapping[str, str] = {}


def read(folder: Path, text: str, environ: Mapping[str, str] = NOTHING) -> Loaded:
    path = folder / "bearerd.toml"
    path.write_text(text + ROOT + 'account = "work"\n')
    path.chmod(0o600)
    return load(path, {}, environ)


def configure(folder: Path, text: str, environ: Mapping[str, str] = NOTHING) -> Configuration:
    return read(folder, text, environ).configuration


def source_of(folder: Path, text: str, environ: Mapping[str, str] = NOTHING) -> OAuthSource:
    source = configure(folder, text, environ).accounts["work"].source
    assert isinstance(source, OAuthSource)
    return source


def refuse(folder: Path, text: str, environ: Mapping[str, str] = NOTHING) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, environ)
    return str(caught.value)


def test_the_least_account_to_log_in_to(tmp_path: Path) -> None:
    assert source_of(tmp_path, LOGIN) == OAuthSource(
        grant=Grant.AUTHORIZATION_CODE,
        client_id="cli",
        client_auth=ClientAuth.NONE,
        issuer="https://login.example.com",
    )


def test_every_setting_of_a_login(tmp_path: Path) -> None:
    text = """
        [accounts.work]
        grant = "authorization_code"
        issuer = "https://login.example.com"
        authorization_endpoint = "https://other.example.com/authorize"
        device_authorization_endpoint = "https://other.example.com/device"
        revocation_endpoint = "https://other.example.com/revoke"
        client_id = "cli"
        client_secret = "s3cret"
        client_auth = "client_secret_post"
        scopes = ["openid", "offline_access"]
        audience = "aud"
        resource = "https://api.example.com/"
        redirect_uri = "http://localhost:8400/a/callback"
        login = false
        authorization_params = { access_type = "offline", prompt = "consent é" }
        ended_errors = ["bad_refresh_token", "gone"]
    """
    assert source_of(tmp_path, text) == OAuthSource(
        grant=Grant.AUTHORIZATION_CODE,
        client_id="cli",
        client_auth=ClientAuth.POST,
        client_secret=Secret("s3cret"),
        issuer="https://login.example.com",
        scopes=("openid", "offline_access"),
        audience="aud",
        resource="https://api.example.com/",
        authorization_endpoint="https://other.example.com/authorize",
        device_authorization_endpoint="https://other.example.com/device",
        revocation_endpoint="https://other.example.com/revoke",
        redirect_uri="http://localhost:8400/a/callback",
        login=False,
        authorization_params=(("access_type", "offline"), ("prompt", "consent é")),
        ended_errors=("bad_refresh_token", "gone"),
    )


def test_a_client_with_a_secret_authenticates_with_it(tmp_path: Path) -> None:
    assert source_of(tmp_path, LOGIN + 'client_secret = "s"\n').client_auth is ClientAuth.BASIC


@pytest.mark.parametrize(
    ("text", "grant"),
    [
        (LOGIN, Grant.AUTHORIZATION_CODE),
        (EXPLICIT, Grant.AUTHORIZATION_CODE),
        (
            EXPLICIT.replace("authorization_endpoint", "device_authorization_endpoint"),
            Grant.AUTHORIZATION_CODE,
        ),
        (LOGIN + 'refresh_token = "r"\n', Grant.REFRESH_TOKEN),
        (LOGIN + 'grant = "client_credentials"\nclient_secret = "s"\n', Grant.CLIENT_CREDENTIALS),
    ],
)
def test_the_grant_is_told_by_the_other_keys(tmp_path: Path, text: str, grant: Grant) -> None:
    assert source_of(tmp_path, text).grant is grant


def test_endpoints_in_place_of_an_issuer(tmp_path: Path) -> None:
    source = source_of(tmp_path, EXPLICIT)
    assert source.issuer is None
    assert source.authorization_endpoint == "https://login.example.com/authorize?tenant=a"


def test_where_nobody_may_log_in_no_place_for_that_is_needed(tmp_path: Path) -> None:
    text = '[accounts.work]\ntoken_endpoint = "https://x.example.com"\nclient_id = "cli"\nlogin = false\n'
    assert not source_of(tmp_path, text).interactive


def test_a_brought_refresh_token_may_end_and_be_revoked_like_any_other(tmp_path: Path) -> None:
    text = (
        'refresh_token = "r"\nended_errors = ["gone"]\nrevocation_endpoint = "https://x.example.com/revoke"\n'
    )
    source = source_of(tmp_path, LOGIN + text)
    assert source.ended_errors == ("gone",)
    assert source.revocation_endpoint == "https://x.example.com/revoke"


def test_two_accounts_may_share_a_redirect_uri(tmp_path: Path) -> None:
    text = LOGIN + 'redirect_uri = "http://localhost:8400"\n'
    found = configure(tmp_path, text + text.replace("work", "other"))
    assert set(found.accounts) == {"work", "other"}


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:6750/-/callback",
        "http://[::1]:1/x",
        "http://localhost",
        "http://localhost/",
        "http://LOCALHOST:8400/a_b~c.d-e",
        "https://proxy.example.com/-/callback",
        "https://proxy.example.com:443/other",
    ],
)
def test_redirect_uris_stay_as_they_are_written(tmp_path: Path, uri: str) -> None:
    text = f'[listen]\npublic_url = "https://proxy.example.com"\n{LOGIN}redirect_uri = "{uri}"\n'
    assert source_of(tmp_path, text).redirect_uri == uri


@pytest.mark.parametrize(
    ("written", "origin"),
    [
        ("https://proxy.example.com", "https://proxy.example.com"),
        ("https://Proxy.example.com:443/", "https://proxy.example.com"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_the_public_url_is_an_origin(tmp_path: Path, written: str, origin: str) -> None:
    text = f'[listen]\npublic_url = "{written}"\n'
    assert configure(tmp_path, text + LOGIN).listen.public_url == origin


def test_a_hook(tmp_path: Path) -> None:
    text = '[hooks]\non_login_needed = ["notify-send", "canary login"]\n'
    loaded = read(tmp_path, text + LOGIN)
    assert loaded.configuration.on_login_needed == ("notify-send", "canary login")
    shown = {setting.name: setting.value for setting in loaded.settings}
    assert shown["hooks.on_login_needed"] == ["notify-send", MASK, MASK]


def test_no_hook_is_shown_as_none(tmp_path: Path) -> None:
    shown = {setting.name: setting.value for setting in read(tmp_path, LOGIN).settings}
    assert shown["hooks.on_login_needed"] == []
    assert "listen.public_url" not in shown
    assert "accounts.work.authorization_params" not in shown
    assert shown["accounts.work.grant"] == "authorization_code"
    assert shown["accounts.work.login"] is True


def test_the_variables_of_a_hook_set_nothing(tmp_path: Path) -> None:
    environ = {"BEARERD_LOGIN_ACCOUNT": "other", "bearerd_login_url": "http://127.0.0.1:6750/-/login/other"}
    assert configure(tmp_path, LOGIN, environ) == configure(tmp_path, LOGIN)


def test_the_environment_alone() -> None:
    environ = {
        "BEARERD_CONFIG": os.devnull,
        "BEARERD_UPSTREAM": "https://api.example.com",
        "BEARERD_LISTEN__PUBLIC_URL": "http://localhost:8080",
        "BEARERD_HOOKS__ON_LOGIN_NEEDED": '["mail", "a,b"]',
        "BEARERD_ACCOUNTS__WORK__ISSUER": "https://login.example.com",
        "BEARERD_ACCOUNTS__WORK__CLIENT_ID": "cli",
        "BEARERD_ACCOUNTS__WORK__LOGIN": "no",
        "BEARERD_ACCOUNTS__WORK__AUTHORIZATION_PARAMS": '{"prompt": "consent"}',
        "BEARERD_ACCOUNTS__WORK__ENDED_ERRORS": "gone,over",
    }
    found = load(None, {}, environ).configuration
    assert found.on_login_needed == ("mail", "a,b")
    assert found.listen.public_url == "http://localhost:8080"
    source = found.accounts["work"].source
    assert isinstance(source, OAuthSource)
    assert not source.login
    assert source.authorization_params == (("prompt", "consent"),)
    assert source.ended_errors == ("gone", "over")


def test_a_login_without_a_vault_is_a_warning(tmp_path: Path) -> None:
    (warning,) = read(tmp_path, '[store]\nkind = "memory"\n' + LOGIN).warnings
    assert warning.startswith("accounts.work: loses its login when bearerd ends")


BAD = {
    "no issuer": (
        '[accounts.work]\ngrant = "authorization_code"\nclient_id = "cli"\n',
        "accounts.work.issuer: is missing; set it, or the endpoints where the server has no metadata",
    ),
    "no token endpoint": (
        EXPLICIT.replace('token_endpoint = "https://login.example.com/token"\n', ""),
        "accounts.work.token_endpoint: is missing; set it, or issuer in place of the endpoints",
    ),
    "no authorization endpoint": (
        '[accounts.work]\ntoken_endpoint = "https://x.example.com"\nclient_id = "cli"\n',
        (
            "accounts.work.authorization_endpoint: is missing; set it or device_authorization_endpoint, "
            "or choose another grant"
        ),
    ),
    "no client_id": (
        LOGIN.replace('client_id = "cli"\n', ""),
        "accounts.work.client_id: is missing; set it to what the authorization server calls this client",
    ),
    "issuer and token endpoint": (
        EXPLICIT + 'issuer = "https://login.example.com"\n',
        "accounts.work.issuer: is set, and so is token_endpoint; keep one of them",
    ),
    "authentication without a secret": (
        LOGIN + 'client_auth = "client_secret_basic"\n',
        "accounts.work.client_auth: needs a secret; set client_secret or client_secret_file",
    ),
    "a brought refresh token": (
        LOGIN + 'grant = "authorization_code"\nrefresh_token = "r"\n',
        (
            'accounts.work.refresh_token: does not belong to grant = "authorization_code"; '
            "take it out or choose another grant"
        ),
    ),
    "redirect of a client without people": (
        LOGIN + 'grant = "client_credentials"\nclient_secret = "s"\nredirect_uri = "http://localhost"\n',
        (
            'accounts.work.redirect_uri: does not belong to grant = "client_credentials"; '
            "take it out or choose another grant"
        ),
    ),
    "plain http endpoint": (
        EXPLICIT.replace("https://login.example.com/authorize", "http://login.example.com/authorize"),
        (
            "accounts.work.authorization_endpoint: is plain http to another machine, "
            "which would show the secret; use https"
        ),
    ),
    "page that a shell would act on": (
        EXPLICIT.replace("/authorize?", "/$(x)?"),
        (
            "accounts.work.authorization_endpoint: has a character that does not belong into an address; "
            "percent-encode it"
        ),
    ),
    "login": (
        LOGIN + 'login = "no"\n',
        "accounts.work.login: is neither true nor false; write one of them, without quotes",
    ),
    "error code": (
        LOGIN + 'ended_errors = ["bad token"]\n',
        'accounts.work.ended_errors[0]: is not an error code; write it like "bad_refresh_token"',
    ),
    "misspelt": (
        LOGIN + 'redirect_url = "http://localhost"\n',
        "accounts.work.redirect_url: unknown setting; did you mean 'redirect_uri'?",
    ),
    "hook that is text": (
        '[hooks]\non_login_needed = "mail me"\n' + LOGIN,
        (
            "hooks.on_login_needed: is not a list; write it as a list; no shell is used: "
            '["program", "argument"]'
        ),
    ),
    "hook outside its table": (
        'on_login_needed = ["mail"]\n' + LOGIN,
        "on_login_needed: unknown setting; it belongs in [hooks]",
    ),
}


@pytest.mark.parametrize(("text", "line"), BAD.values(), ids=BAD)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    assert refuse(tmp_path, text) == line


ELSEWHERE = (
    "leads to another machine; use http and 127.0.0.1, [::1] or localhost, "
    "or set listen.public_url to its origin"
)
REWRITTEN = "has a path that browsers rewrite; use letters, digits, dots, dashes and slashes"


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("https://evil.example.com/", ELSEWHERE),
        ("http://evil.example.com/", ELSEWHERE),
        ("http://localhost.evil.example.com/", ELSEWHERE),
        ("http://127.0.0.2/", ELSEWHERE),
        ("http://0.0.0.0/", ELSEWHERE),
        ("https://proxy.example.com:8443/", ELSEWHERE),
        ("http://proxy.example.com/", ELSEWHERE),
        (
            "https://localhost:8400/",
            "is https, which nothing speaks here; use http, or set listen.public_url to its origin",
        ),
        (
            "http://localhost/?a=b",
            "has a query or a fragment; take it out, for only scheme, host, port and path belong here",
        ),
        (
            "http://localhost/#a",
            "has a query or a fragment; take it out, for only scheme, host, port and path belong here",
        ),
        ("http://a@localhost/", "has a user name in it; take out everything before the @"),
        ("http://localhost/a/../b", REWRITTEN),
        ("http://localhost/./b", REWRITTEN),
        ("http://localhost/%41", REWRITTEN),
        ("http://localhost/$(x)", REWRITTEN),
        ("http://[localhost/", "is not a URL; write it like https://api.example.com"),
        ("app:/callback", "is not an http or https URL; write it like https://api.example.com/v1"),
        (
            "urn:ietf:wg:oauth:2.0:oob",
            "is not an http or https URL; write it like https://api.example.com/v1",
        ),
    ],
)
def test_bad_redirect_uris(tmp_path: Path, uri: str, problem: str) -> None:
    text = f'[listen]\npublic_url = "https://proxy.example.com"\n{LOGIN}redirect_uri = "{uri}"\n'
    assert refuse(tmp_path, text) == f"accounts.work.redirect_uri: {problem}"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (
            "https://proxy.example.com/base",
            "has a path; write scheme, host and port only, like https://bearerd.example.com",
        ),
        (
            "https://proxy.example.com/?",
            "has a query or a fragment; take it out, for only scheme, host, port and path belong here",
        ),
        ("proxy.example.com", "is not an http or https URL; write it like https://api.example.com/v1"),
        ("", "is empty; give it a value or take it out"),
    ],
)
def test_bad_public_urls(tmp_path: Path, url: str, problem: str) -> None:
    assert refuse(tmp_path, f'[listen]\npublic_url = "{url}"\n{LOGIN}') == f"listen.public_url: {problem}"


TABLE = 'is not a table of texts; write it like { access_type = "offline" }'


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ('"prompt=consent"', TABLE),
        ("{ max_age = 0 }", TABLE),
        ("[]", TABLE),
        ('{ "a b" = "x" }', "'a b' is not a parameter's name; use letters, digits, _, . and - only"),
        ('{ prompt = "" }', "prompt is empty or has a control character in it; mend that or take it out"),
        (
            '{ prompt = "a\\nb" }',
            "prompt is empty or has a control character in it; mend that or take it out",
        ),
        ('{ state = "x" }', "state is bearerd's own; take it out"),
        (
            '{ client_secret = "canary" }',
            "client_secret is bearerd's own; take it out: a browser would show it",
        ),
        ('{ scope = "x" }', "scope is bearerd's own; take it out and set scopes of the account"),
    ],
)
def test_bad_parameters(tmp_path: Path, written: str, problem: str) -> None:
    text = f"{LOGIN}authorization_params = {written}\n"
    assert refuse(tmp_path, text) == f"accounts.work.authorization_params: {problem}"


@pytest.mark.parametrize(
    "name",
    [
        *("client_id", "redirect_uri", "response_type", "response_mode", "state", "nonce"),
        *("code_challenge", "code_challenge_method", "request", "request_uri", "scope", "client_secret"),
    ],
)
def test_what_a_login_is_made_of_cannot_be_set(tmp_path: Path, name: str) -> None:
    text = f'{LOGIN}authorization_params.{name} = "x"\n'
    assert f"authorization_params: {name} is bearerd's own" in refuse(tmp_path, text)


@pytest.mark.parametrize("text", ["{", "[]", "prompt=consent", ""])
def test_parameters_in_the_environment_are_json(tmp_path: Path, text: str) -> None:
    environ = {"BEARERD_ACCOUNTS__WORK__AUTHORIZATION_PARAMS": text}
    assert refuse(tmp_path, LOGIN, environ) == (
        f"accounts.work.authorization_params (from BEARERD_ACCOUNTS__WORK__AUTHORIZATION_PARAMS): {TABLE}"
    )


def test_a_misspelt_variable_of_a_hook_is_an_error(tmp_path: Path) -> None:
    assert refuse(tmp_path, LOGIN, {"BEARERD_LOGIN_ACOUNT": "x"}).startswith("BEARERD_LOGIN_ACOUNT: unknown")
