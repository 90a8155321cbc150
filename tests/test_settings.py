"""Settings: what each source means, which wins, and the line for everything that can be wrong."""

import base64
import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from platformdirs import user_config_dir, user_data_dir

from bearerd.core.accounts import (
    Account,
    ClientAuth,
    CommandSource,
    FileSource,
    Grant,
    OAuthSource,
    StaticSource,
)
from bearerd.core.configuration import Configuration, Keys, Limits, Listen, Logging, Store
from bearerd.core.field_rules import DEFAULT_RULES, Credential, FieldRules, build_field_rules
from bearerd.core.redaction import MASK, Secret
from bearerd.core.rules import build_rules
from bearerd.core.targets import DIRECT, Origin, Proxy, Tls, Way, parse_route
from bearerd.errors import ConfigError, NotConfigured
from bearerd.places import default_path
from bearerd.settings import Loaded, load
from bearerd.settings.model import NAMED, SINGLE
from bearerd.settings.sources import variable_name
from certificates import Authority, write_key
from users import bound_by_permissions

STATIC = '[accounts.work]\ntoken = "t0ken"\n'
ROOT = '[routes."/"]\nupstream = "https://api.example.com/v1"\n'
STORE = STATIC + ROOT + "[store]\n"
CLIENT = """\
[accounts.work]
grant = "client_credentials"
issuer = "https://login.example.com"
client_id = "cli"
"""
SECRET = 'client_secret = "s3cret"\n'
KEY = bytes(range(248, 256)) * 4  # its base64 has both characters in which the alphabets differ
KEY_TEXT = base64.b64encode(KEY).decode()
REFRESH = """\
[accounts.work]
issuer = "https://login.example.com"
client_id = "cli"
refresh_token = "r3fresh"
"""
DEFAULT_KEYS = Keys(file=str(Path(user_data_dir("bearerd", appauthor=False), "client-keys.json")))
VAULT = str(Path(user_data_dir("bearerd", appauthor=False), "vault"))
NOTHING: Mapping[str, str] = {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files that settings name."""
    (tmp_path / "secret").write_text("from-file\n")
    (tmp_path / "key").write_text(KEY_TEXT + "\n")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "two-lines").write_text("one\ntwo\n")
    (tmp_path / "latin-1").write_bytes(b"caf\xe9")
    (tmp_path / "large").write_bytes(b"a" * 65537)
    (tmp_path / "folder").mkdir()
    return tmp_path


def read(folder: Path, text: str, environ: Mapping[str, str] = NOTHING, **flags: object) -> Loaded:
    path = folder / "bearerd.toml"
    path.write_text(text)
    path.chmod(0o600)
    return load(path, flags, environ)


def configure(
    folder: Path, text: str, environ: Mapping[str, str] = NOTHING, **flags: object
) -> Configuration:
    return read(folder, text, environ, **flags).configuration


def refuse(folder: Path, text: str, environ: Mapping[str, str] = NOTHING, **flags: object) -> str:
    """The text of the error, with the folder's path taken out."""
    with pytest.raises(ConfigError) as caught:
        read(folder, text, environ, **flags)
    return str(caught.value).replace(f"{folder}{os.sep}", "")


def test_the_least_configuration(folder: Path) -> None:
    assert configure(folder, STATIC + ROOT) == Configuration(
        accounts={"work": Account("work", StaticSource(Secret("t0ken")))},
        routes=(parse_route("/", "https://api.example.com/v1", "work"),),
        listen=Listen(),
        limits=Limits(),
        store=Store(path=VAULT),
        log=Logging(),
        keys=DEFAULT_KEYS,
    )


def source_of(folder: Path, text: str, environ: Mapping[str, str] = NOTHING) -> object:
    return configure(folder, text + ROOT, environ).accounts["work"].source


def test_every_setting_is_taken_over(folder: Path) -> None:
    text = """
        [listen]
        port = 0
        hosts = ["127.0.0.2", "0:0:0:0:0:0:0:1"]
        allowed_hosts = ["API.test", "api.test:8080", "[fd00::1]:80"]
        [limits]
        replay_body = "64KiB"
        replay_total = 10_000_000
        connections = 7
        header_read = "500ms"
        body_idle = 2
        keep_alive = "3s"
        drain = "4s"
        [log]
        level = "debug"
        format = "json"
        access = false
        audit = "logs/audit.log"
        audit_required = true
    """
    found = configure(folder, text + STATIC + ROOT)
    assert found.listen == Listen(
        ("127.0.0.2", "::1"), 0, frozenset({"api.test", "api.test:8080", "[fd00::1]:80"})
    )
    assert found.limits == Limits(65_536, 10_000_000, 7, 0.5, 2.0, 3.0, 4.0)
    audit = str(folder / "logs" / "audit.log")  # beside the file that names it
    assert found.log == Logging("debug", "json", access=False, audit=audit, audit_required=True)


def test_a_client_with_a_secret(folder: Path) -> None:
    text = (
        CLIENT + SECRET + 'scopes = ["a", "b:c"]\naudience = "aud"\nresource = "https://api.example.com/"\n'
    )
    assert source_of(folder, text) == OAuthSource(
        grant=Grant.CLIENT_CREDENTIALS,
        client_id="cli",
        client_auth=ClientAuth.BASIC,
        client_secret=Secret("s3cret"),
        issuer="https://login.example.com",
        scopes=("a", "b:c"),
        audience="aud",
        resource="https://api.example.com/",
    )


def test_a_public_client_with_a_refresh_token(folder: Path) -> None:
    text = """
        [accounts.work]
        token_endpoint = "http://127.0.0.1:8080/token"
        client_id = "cli"
        refresh_token = "r3fresh"
    """
    assert source_of(folder, text) == OAuthSource(
        grant=Grant.REFRESH_TOKEN,
        client_id="cli",
        client_auth=ClientAuth.NONE,
        token_endpoint="http://127.0.0.1:8080/token",
        refresh_token=Secret("r3fresh"),
    )


def test_secrets_from_files_beside_the_configuration(folder: Path) -> None:
    text = CLIENT.replace("client_credentials", "refresh_token")
    source = source_of(folder, text + 'client_secret_file = "secret"\nrefresh_token_file = "secret"\n')
    assert isinstance(source, OAuthSource)
    assert source.client_secret == source.refresh_token == Secret("from-file")


def test_a_secret_file_named_by_a_variable_starts_at_the_working_folder(folder: Path) -> None:
    place = os.path.relpath(folder / "secret")
    source = source_of(folder, CLIENT, {"BEARERD_ACCOUNTS__WORK__CLIENT_SECRET_FILE": place})
    assert isinstance(source, OAuthSource)
    assert source.client_secret == Secret("from-file")


def test_a_client_without_a_secret_says_so(folder: Path) -> None:
    source = source_of(folder, CLIENT + 'client_auth = "none"\n')
    assert isinstance(source, OAuthSource)
    assert source.client_auth is ClientAuth.NONE


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30", 30.0), ("1.5", 1.5), ('"500ms"', 0.5), ('"30s"', 30.0), ('"5 m"', 300.0), ('"2h"', 7200.0)],
)
def test_durations(folder: Path, written: str, seconds: float) -> None:
    text = f'[accounts.work]\ncommand = ["tool", "a b"]\ncommand_timeout = {written}\n'
    assert source_of(folder, text) == CommandSource(("tool", "a b"), seconds)


@pytest.mark.parametrize(
    ("written", "size"),
    [("0", 0), ('"512B"', 512), ('"64KiB"', 65_536), ('"1 KB"', 1000), ('"1MB"', 10**6), ('"2MiB"', 2 << 20)],
)
def test_sizes(folder: Path, written: str, size: int) -> None:
    assert (
        configure(folder, STATIC + ROOT + f"[limits]\nreplay_body = {written}\n").limits.replay_body == size
    )


def test_a_token_file_is_named_and_not_read(folder: Path) -> None:
    assert source_of(folder, '[accounts.work]\ntoken_file = "latin-1"\n') == FileSource(
        str(folder / "latin-1")
    )


def test_a_descriptor_needs_no_file(folder: Path) -> None:
    assert source_of(folder, '[accounts.work]\ntoken_file = "fd:3"\n') == FileSource("fd:3")


def test_the_home_folder_in_a_path(folder: Path) -> None:
    assert "~" not in refuse(folder, '[accounts.work]\ntoken_file = "~/no/such/file"\n' + ROOT)


def test_a_mark_of_byte_order_is_no_part_of_the_file(folder: Path) -> None:
    assert configure(folder, "\ufeff" + STATIC + ROOT).accounts


def test_routes_come_longest_first_and_take_the_only_account(folder: Path) -> None:
    text = STATIC + ROOT + '[routes."/svc/"]\nupstream = "https://svc.example.com"\n'
    found = configure(folder, text).routes
    assert [(route.name, route.account) for route in found] == [("/svc", "work"), ("/", "work")]


def test_flag_beats_environment_beats_file_beats_default(folder: Path) -> None:
    text = STATIC + ROOT + '[listen]\nport = 1\n[log]\nlevel = "error"\n'
    environ = {"BEARERD_LISTEN__PORT": "2", "bearerd_log__format": "json"}
    found = configure(folder, text, environ, port=3)
    assert (found.listen.port, found.log.level, found.log.format) == (3, "error", "json")
    assert configure(folder, text, environ).listen.port == 2
    assert configure(folder, text, log_level="debug").log.level == "debug"
    assert configure(folder, text).listen.port == 1


@pytest.mark.parametrize(
    "written", ["127.0.0.1,127.0.0.2", ' ["127.0.0.1", "127.0.0.2"]', "127.0.0.1, 127.0.0.2,"]
)
def test_lists_in_the_environment(folder: Path, written: str) -> None:
    found = configure(folder, STATIC + ROOT, {"BEARERD_LISTEN__HOSTS": written})
    assert found.listen.hosts == ("127.0.0.1", "127.0.0.2")


def test_a_socket_and_who_may_use_it(folder: Path) -> None:
    text = '[listen]\nhosts = []\nsocket = "run/s"\nsocket_mode = "660"\nsocket_uids = [7, 8]\npeer_uid = "any"\n'
    assert configure(folder, text + STATIC + ROOT).listen == Listen(
        hosts=(),
        peer_uid="any",
        socket=str(folder / "run" / "s"),
        socket_mode=0o660,
        socket_uids=frozenset({7, 8}),
    )
    environ = {"BEARERD_LISTEN__SOCKET": "~/s", "BEARERD_LISTEN__SOCKET_MODE": "0666"}
    environ["BEARERD_LISTEN__SOCKET_UIDS"] = "7,1000"
    listen = configure(folder, STATIC + ROOT, environ).listen
    assert listen.socket == os.path.expanduser("~/s")  # noqa: PTH111  # as settings have it
    assert (listen.socket_mode, listen.socket_uids) == (0o666, frozenset({7, 1000}))


@pytest.mark.parametrize(
    "mode", ["", "600 ", "0700", "0400", "0606x", "00600", "0610", "1600", "0o600", "-600", "777"]
)
def test_modes_that_no_socket_has(folder: Path, mode: str) -> None:
    text = STATIC + ROOT + f'[listen]\nsocket = "s"\nsocket_mode = "{mode}"\n'
    assert refuse(folder, text).startswith("listen.socket_mode: is not the mode of a socket; write it like")


@pytest.mark.parametrize("written", ["-1", "4294967295", '"root"', "1.5", "true", '""'])
def test_numbers_that_no_user_has(folder: Path, written: str) -> None:
    text = STATIC + ROOT + f'[listen]\nsocket = "s"\nsocket_mode = "0666"\nsocket_uids = [{written}]\n'
    assert refuse(folder, text).startswith(
        "listen.socket_uids[0]: is not the number of a user; write it like"
    )


def test_a_path_that_is_too_long_for_a_socket(folder: Path) -> None:
    path = f"/run/{'é' * 60}"
    text = STATIC + ROOT + f'[listen]\nsocket = "{path}"\n'
    assert refuse(folder, text) == (
        "listen.socket: has 125 bytes, and a socket's path at most 107; choose a shorter one"
    )


@pytest.mark.parametrize(("written", "access"), [("true", True), ("No", False), ("1", True), ("0", False)])
def test_booleans_in_the_environment(folder: Path, written: str, access: bool) -> None:
    assert configure(folder, STATIC + ROOT, {"BEARERD_LOG__ACCESS": written}).log.access is access


def test_the_environment_alone() -> None:
    environ = {
        "BEARERD_ACCOUNTS__WORK__COMMAND": '["tool", "a,b"]',
        "BEARERD_ACCOUNTS__WORK__COMMAND_TIMEOUT": "5s",
        "BEARERD_ROUTES__/__UPSTREAM": "https://api.example.com",
        "BEARERD_ROUTES__/Svc__v1/__UPSTREAM": "https://svc.example.com",
        "BEARERD_LIMITS__REPLAY_BODY": "4096",
        "BEARERD_LIMITS__CONNECTIONS": "64",
        "BEARERD_LIMITS__DRAIN": "1m",
        "BEARERD_SERVICE_HOST": "10.0.0.1",
        "BEARERD_PORT": "tcp://10.0.0.1:6750",
        "BEARERD_PORT_6750_TCP_ADDR": "10.0.0.1",
        "PATH": "/bin",
    }
    found = load(None, {}, environ | {"BEARERD_CONFIG": os.devnull}).configuration
    assert found.accounts["work"].source == CommandSource(("tool", "a,b"), 5.0)
    assert [route.name for route in found.routes] == ["/Svc__v1", "/"]
    assert (found.limits.replay_body, found.limits.connections, found.limits.drain_s) == (4096, 64, 60.0)


def test_a_variable_means_the_route_of_the_file(folder: Path) -> None:
    text = STATIC + '[routes."/svc/"]\nupstream = "https://one.example.com"\n'
    found = configure(folder, text, {"BEARERD_ROUTES__/svc__UPSTREAM": "https://two.example.com"})
    assert [str(route.origin) for route in found.routes] == ["https://two.example.com"]


@pytest.mark.parametrize("by_flag", [True, False])
def test_upstreams_by_flag_or_variable(folder: Path, by_flag: bool) -> None:
    text = STATIC + '[accounts.other]\ntoken = "other"\n' + ROOT + 'account = "other"\n'
    items = ("https://new.example.com", "/svc=https://svc.example.com/a=b")
    environ = {} if by_flag else {"BEARERD_UPSTREAM": ", ".join(items)}
    text += '[routes."/svc/"]\nupstream = "https://old.example.com"\naccount = "work"\n'
    found = configure(folder, text, environ, **({"upstream": items} if by_flag else {}))
    assert found.routes == (
        parse_route("/svc/", "https://svc.example.com/a=b", "work"),
        parse_route("/", "https://new.example.com", "other"),
    )


def test_a_route_that_lets_tokens_in_queries_pass(folder: Path) -> None:
    assert not configure(folder, STATIC + ROOT).routes[0].query_token
    assert configure(folder, STATIC + ROOT + "query_token = true\n").routes[0].query_token


def test_origins_of_pages_that_may_call(folder: Path) -> None:
    """As browsers write them."""

    def origins(*written: str, environ: dict[str, str] | None = None) -> frozenset[str]:
        text = f"[listen]\nallowed_origins = {list(written)}\n" if written else ""
        return configure(folder, STATIC + ROOT + text, environ or {}).listen.allowed_origins

    assert origins() == frozenset()
    assert origins("https://App.test:443", "http://localhost:3000", "http://[::1]:80") == {
        "https://app.test",
        "http://localhost:3000",
        "http://[::1]",
    }
    applications = (
        "vscode-webview://1A",
        "chrome-extension://abc",
        "tauri://localhost",
        "app://obsidian.md:1",
    )
    assert origins(*applications) == set(applications)
    environ = {"BEARERD_LISTEN__ALLOWED_ORIGINS": "https://a.test,https://b.test"}
    assert origins(environ=environ) == {"https://a.test", "https://b.test"}


NO_ORIGIN = "is not an origin; write it like https://app.example.com or vscode-webview://id"


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("null", "null is the origin of every page that hides its own; take it out"),
        ("*", "has a wildcard in it; write each origin out, like https://app.example.com"),
        ("https://*.test", "has a wildcard in it; write each origin out, like https://app.example.com"),
        ("vscode-webview://*", "has a wildcard in it; write each origin out, like https://app.example.com"),
        ("https://a.test/", "has a path; write scheme, host and port only, like https://app.example.com"),
        ("https://a.test/x", "has a path; write scheme, host and port only, like https://app.example.com"),
        ("https://me@a.test", "has a user name in it; take out everything before the @"),
        ("https://", "names no host; write it like https://api.example.com/v1"),
        ("", NO_ORIGIN),
        ("app.test", NO_ORIGIN),
        ("app.test:3000", NO_ORIGIN),
        ("HTTPS://a.test", NO_ORIGIN),
        ("file://", NO_ORIGIN),
        ("file://host", NO_ORIGIN),
        ("vscode-webview://a/b", NO_ORIGIN),
        ("vscode-webview://", NO_ORIGIN),
        ("app://a\\r\\nX: 1", NO_ORIGIN),
        ("app://a\\n", NO_ORIGIN),
        ("app://a b", NO_ORIGIN),
        ("app://\u00e4", NO_ORIGIN),
    ],
)
def test_origins_that_no_page_has(folder: Path, written: str, problem: str) -> None:
    text = STATIC + ROOT + f'[listen]\nallowed_origins = ["{written}"]\n'
    assert refuse(folder, text) == f"listen.allowed_origins[0]: {problem}"


def test_pages_that_others_can_write(folder: Path) -> None:
    text = (
        '[listen]\nallowed_origins = ["http://a.test", "https://b.test", "http://localhost:3000", "x://y"]\n'
    )
    (warning,) = read(folder, STATIC + ROOT + text).warnings
    assert warning == (
        "listen.allowed_origins: http://a.test is plain http on another machine: whoever is in between can write its "
        "pages, and make calls by them; use https"
    )


@pytest.mark.parametrize("written", ["0", "-1", '"many"', "1.5", "true"])
def test_a_number_of_connections_that_is_none(folder: Path, written: str) -> None:
    refusal = refuse(folder, STATIC + ROOT + f"[limits]\nconnections = {written}\n")
    assert refusal.startswith("limits.connections: ")


@pytest.mark.parametrize("key", ["header_read", "body_idle", "keep_alive", "drain"])
def test_a_limit_that_is_no_time(folder: Path, key: str) -> None:
    for written in ("0", '"never"', "-1"):
        refusal = refuse(folder, STATIC + ROOT + f"[limits]\n{key} = {written}\n")
        assert refusal.startswith(f"limits.{key}: is not a duration")


def test_where_the_token_of_a_route_goes(folder: Path) -> None:
    def credential(more: str, environ: dict[str, str] | None = None) -> Credential | None:
        return configure(folder, STATIC + ROOT + more, environ or {}).routes[0].fields.credential

    basic = "Authorization: Basic {base64:me:{token}}"
    assert credential("") == Credential()
    assert credential('credential = "X-Api-Key: {token}"\n') == Credential(b"X-Api-Key", b"")
    assert credential("", {"BEARERD_ROUTES__/__CREDENTIAL": basic}) == Credential(
        before=b"Basic ", encoded=(b"me:", b"")
    )


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("", "is empty; give it a value or take it out"),
        ("Bearer {token}", 'is not a field; write it like "Authorization: Bearer {token}"'),
        (
            "Host: {token}",
            "Host cannot carry a token; name another field, such as Authorization or X-Api-Key",
        ),
    ],
)
def test_where_the_token_cannot_go(folder: Path, written: str, problem: str) -> None:
    text = STATIC + ROOT + f'credential = "{written}"\n'
    assert refuse(folder, text) == f'routes."/".credential: {problem}'


def test_whether_a_clients_own_credential_passes(folder: Path) -> None:
    assert configure(folder, STATIC + ROOT).routes[0].fields.own is None
    assert configure(folder, STATIC + ROOT + 'inject = "force"\n').routes[0].fields.own is None
    assert configure(folder, STATIC + ROOT + 'inject = "if-absent"\n').routes[0].fields.own is not None
    assert refuse(folder, STATIC + ROOT + 'inject = "if-absnt"\n') == (
        "routes.\"/\".inject: is not one of force, if-absent; did you mean 'if-absent'?"
    )


def test_header_fields_of_a_route(folder: Path) -> None:
    def rules(more: str, environ: dict[str, str] | None = None) -> FieldRules:
        return configure(folder, STATIC + ROOT + more, environ or {}).routes[0].fields

    assert rules("") == DEFAULT_RULES
    text = 'headers = { X-Api-Version = "2", "x.a" = "b, c" }\ndrop_headers = ["Origin", "referer"]\n'
    assert rules(text) == build_field_rules(
        added=[(b"X-Api-Version", b"2"), (b"x.a", b"b, c")], dropped=[b"origin", b"referer"]
    )
    environ = {
        "BEARERD_ROUTES__/__HEADERS": '{"X-A": "1"}',
        "BEARERD_ROUTES__/__DROP_HEADERS": "Origin, Referer",
    }
    assert rules("", environ) == build_field_rules(added=[(b"X-A", b"1")], dropped=[b"origin", b"referer"])


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ('headers = "X"', 'headers: is not a table of texts; write it like { X-Api-Version = "2" }'),
        ("headers = { X = 1 }", 'headers: is not a table of texts; write it like { X-Api-Version = "2" }'),
        (
            'headers = { "X Y" = "1" }',
            'headers: has a name in it that is no field\'s; write it like "X-Api-Version"',
        ),
        ('headers = { Host = "a" }', "headers: Host is bearerd's own to make or to drop; take it out"),
        (
            'headers = { authorization = "canary" }',
            "headers: authorization is a field for credentials; take it out, and see credential of the route",
        ),
        (
            'headers = { Cookie = "a=1" }',
            "headers: Cookie is not for this; take it out, and see cookies of the route",
        ),
        (
            'headers = { X = "canary\\n" }',
            "headers: X is empty or has something other than printable ASCII in it; mend that",
        ),
        (
            'headers = { X = "{token}" }',
            "headers: X has {token} in it, which is for credential alone; write it there",
        ),
        ('headers = { X-A = "1", x_a = "2" }', "headers: x_a is the same field as X-A; keep one of them"),
        (
            'credential = "X-Key: {token}"\nheaders = { x_key = "1" }',
            "headers: x_key carries the token; take it out, or name another field in credential",
        ),
        (
            'credential = "X-Key: {token}"\ndrop_headers = ["X-KEY"]',
            "drop_headers: X-KEY carries the token, and the client's is dropped anyway; take it out",
        ),
        (
            'headers = { X-A = "1" }\ndrop_headers = ["x-a"]',
            "drop_headers: x-a is in headers too, which replaces the client's; keep one of them",
        ),
        ('drop_headers = ["Via"]', "drop_headers[0]: Via is bearerd's own to make or to drop; take it out"),
        ('drop_headers = "Origin"', 'drop_headers: is not a list; write it like ["first", "second"]'),
    ],
)
def test_header_fields_that_no_route_has(folder: Path, written: str, problem: str) -> None:
    assert refuse(folder, STATIC + ROOT + written + "\n") == f'routes."/".{problem}'


def test_header_fields_may_be_secrets(folder: Path) -> None:
    """They are not shown, and a file that others can read is warned of if they look like secrets."""
    path = folder / "bearerd.toml"
    account = '[accounts.work]\ntoken_file = "secret"\n'
    for name, value, secret in (
        ("X-Api-Key", "k3y", True),
        ("X-Note", "Bearer abcdef0123", True),
        ("X-Api-Version", "2", False),
    ):
        path.write_text(account + ROOT + f'headers = {{ {name} = "{value}" }}\n')
        path.chmod(0o644)
        loaded = load(path, {}, {})
        shown = next(setting for setting in loaded.settings if setting.name.endswith(".headers"))
        assert shown.value == {name: MASK}
        assert len(loaded.warnings) == secret


def test_what_a_route_tells_of_clients(folder: Path) -> None:
    written = "pass", "forwarded", "x-forwarded", "none"
    for each in written:
        route = configure(folder, STATIC + ROOT + f'forwarded = "{each}"\n').routes[0]
        assert route.fields.forwarded == each
    assert configure(folder, STATIC + ROOT).routes[0].fields.forwarded == "none"
    assert refuse(folder, STATIC + ROOT + 'forwarded = "x-forwarded-for"\n') == (
        "routes.\"/\".forwarded: is not one of none, pass, forwarded, x-forwarded; did you mean 'x-forwarded'?"
    )


def test_a_route_without_cookies(folder: Path) -> None:
    assert configure(folder, STATIC + ROOT).routes[0].cookies
    assert not configure(folder, STATIC + ROOT + "cookies = false\n").routes[0].cookies
    assert not configure(folder, STATIC + ROOT, {"BEARERD_ROUTES__/__COOKIES": "no"}).routes[0].cookies
    assert refuse(folder, STATIC + ROOT + 'cookies = "no"\n').startswith('routes."/".cookies: ')


def test_what_connections_of_a_route_may_be_switched_to(folder: Path) -> None:
    def upgrades(more: str, environ: dict[str, str] | None = None) -> frozenset[bytes]:
        return configure(folder, STATIC + ROOT + more, environ or {}).routes[0].upgrades

    assert upgrades("") == {b"websocket"}
    assert upgrades("upgrades = []\n") == frozenset()
    assert upgrades('upgrades = ["WebSocket", "irc/6.9"]\n') == {b"websocket", b"irc/6.9"}
    assert upgrades("", {"BEARERD_ROUTES__/__UPGRADES": "mqtt, websocket"}) == {b"mqtt", b"websocket"}


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("", 'is not a protocol; write it like "websocket"'),
        ("web socket", 'is not a protocol; write it like "websocket"'),
        ("websocket,irc", 'is not a protocol; write it like "websocket"'),
        ("irc/", 'is not a protocol; write it like "websocket"'),
        ("\u017f", 'is not a protocol; write it like "websocket"'),
        *((name, "would carry calls past bearerd, without a token; take it out") for name in
          ("h2c", "H2C", "h2", "HTTP/2.0", "http", "TLS/1.0", "tls")),
    ],
)  # fmt: skip
def test_what_connections_are_never_switched_to(folder: Path, written: str, problem: str) -> None:
    text = STATIC + ROOT + f'upgrades = ["{written}"]\n'
    assert refuse(folder, text) == f'routes."/".upgrades[0]: {problem}'


def test_rules_of_a_route(folder: Path) -> None:
    rules = 'methods = ["GET", "DELETE"]\nallow = ["/v1/**"]\ndeny = ["DELETE /v1/**", "/admin/*"]\n'
    route = configure(folder, STATIC + ROOT + rules).routes[0]
    written = {"methods": ["GET", "DELETE"], "allow": ["/v1/**"], "deny": ["DELETE /v1/**", "/admin/*"]}
    assert route.rules == build_rules(**written)  # type: ignore[arg-type]  # lists of texts
    assert configure(folder, STATIC + ROOT).routes[0].rules is None
    assert configure(folder, STATIC + ROOT + "deny = []\n").routes[0].rules is None
    read_only = configure(folder, STATIC + ROOT + "read_only = true\n").routes[0].rules
    assert read_only == build_rules(read_only=True)


def test_rules_of_a_route_in_variables(folder: Path) -> None:
    environ = {
        "BEARERD_ROUTES__/__ALLOW": "PUT POST /v1/**, /v2",
        "BEARERD_ROUTES__/__DENY": '["/a,b"]',
        "BEARERD_ROUTES__/__READ_ONLY": "no",
        "BEARERD_ROUTES__/__METHODS": "PUT,POST",
    }
    rules = configure(folder, STATIC + ROOT, environ).routes[0].rules
    assert rules == build_rules(methods=["PUT", "POST"], allow=["PUT POST /v1/**", "/v2"], deny=["/a,b"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("methods = []", ".methods: is empty; give it an element or take it out"),
        ("allow = []", ".allow: is empty; give it an element or take it out"),
        (
            'methods = ["get"]',
            ".methods[0]: 'get' is not a method; write methods in capitals, with one space between them",
        ),
        ('methods = "GET"', '.methods: is not a list; write it like ["first", "second"]'),
        ('methods = ["GET"]\nread_only = true', ".read_only: is set, and so is methods; keep one of them"),
        (
            'deny = ["/x", "admin"]',
            '.deny[1]: names no path that begins with a slash; write it like "/admin/**" or "DELETE /v1/files/*"',
        ),
        (
            'allow = ["/a/**/b"]',
            '.allow[0]: has ** elsewhere than at the end, after a slash; write it like "/admin/**"',
        ),
    ],
)
def test_bad_rules_are_one_line(folder: Path, text: str, problem: str) -> None:
    assert refuse(folder, STATIC + ROOT + text + "\n") == f'routes."/"{problem}'


def test_statuses_that_mean_that_a_token_is_not_taken(folder: Path) -> None:
    def statuses(more: str, environ: dict[str, str] | None = None) -> frozenset[int]:
        return configure(folder, STATIC + ROOT + more, environ or {}).routes[0].retry_statuses

    assert statuses("") == {401}
    assert statuses("retry_statuses = []\n") == frozenset()
    assert statuses("retry_statuses = [401, 403, 498]\n") == {401, 403, 498}
    assert statuses("", {"BEARERD_ROUTES__/__RETRY_STATUSES": "403, 419"}) == {403, 419}
    assert statuses("", {"BEARERD_ROUTES__/__RETRY_STATUSES": "[403]"}) == {403}


@pytest.mark.parametrize(
    "written", ["399", "500", "200", "-401", '"abc"', '"0401"', "401.0", "true", '"\u0664\u0660\u0661"']
)
def test_statuses_that_never_do(folder: Path, written: str) -> None:
    refusal = refuse(folder, STATIC + ROOT + f"retry_statuses = [401, {written}]\n")
    assert refusal == 'routes."/".retry_statuses[1]: is not a status from 400 to 499; write it like 401'


def test_a_route_that_keeps_bodies_on_disk(folder: Path) -> None:
    assert not configure(folder, STATIC + ROOT).routes[0].disk_spool
    assert not configure(folder, STATIC + ROOT + 'spool = "memory"\n').routes[0].disk_spool
    limits = '[limits]\nspool_body = "1MiB"\nspool_total = "2MiB"\n'
    found = configure(folder, STATIC + ROOT + 'spool = "disk"\n' + limits)
    assert found.routes[0].disk_spool
    assert (found.limits.spool_body, found.limits.spool_total) == (1 << 20, 2 << 20)
    refusal = refuse(folder, STATIC + ROOT + '[limits]\nspool_body = "2GiB"\n')
    assert (
        refusal == "limits.spool_body: is more than limits.spool_total; make it smaller, or that one larger"
    )


def test_a_route_whose_upstream_is_not_asked_first(folder: Path) -> None:
    assert configure(folder, STATIC + ROOT).routes[0].expect_continue
    assert not configure(folder, STATIC + ROOT + "expect_continue = false\n").routes[0].expect_continue


def test_a_route_whose_pages_are_trusted(folder: Path) -> None:
    assert not configure(folder, STATIC + ROOT).routes[0].browser_app
    assert configure(folder, STATIC + ROOT + "browser_app = true\n").routes[0].browser_app


def test_variables_of_a_route(folder: Path) -> None:
    text = STATIC + ROOT + 'exec_env = ["OPENAI_BASE_URL=/v1", "API"]\n'
    (route,) = configure(folder, text).routes
    assert route.exec_env == (("OPENAI_BASE_URL", "/v1"), ("API", ""))
    (route,) = configure(folder, text, {"BEARERD_ROUTES__/__EXEC_ENV": "A_URL,B_URL=/b/"}).routes
    assert route.exec_env == (("A_URL", ""), ("B_URL", "/b/"))


@pytest.mark.parametrize("written", ["", "1A", "A B", "A=v1", "A=", "A=/?x", "A-B", "A=/\\u0000"])
def test_bad_variables_of_a_route(folder: Path, written: str) -> None:
    assert refuse(folder, STATIC + ROOT + f'exec_env = ["{written}"]\n') == (
        'routes."/".exec_env[0]: is not a variable; write it like "API_BASE_URL", or "API_BASE_URL=/v1"'
    )


def test_a_variable_of_a_route_that_is_ours(folder: Path) -> None:
    assert refuse(folder, STATIC + ROOT + 'exec_env = ["bearerd_url"]\n') == (
        'routes."/".exec_env[0]: is a variable of bearerd\'s own; choose another name'
    )


def test_a_flag_beats_the_variable_of_the_same_upstream(folder: Path) -> None:
    environ = {"BEARERD_UPSTREAM": "https://variable.example.com"}
    found = configure(folder, STATIC, environ, upstream=("https://flag.example.com",))
    assert [str(route.origin) for route in found.routes] == ["https://flag.example.com"]


def store_of(folder: Path, text: str, environ: Mapping[str, str] = NOTHING) -> Store:
    return configure(folder, STORE + text, environ).store


def test_a_store_with_every_path(folder: Path) -> None:
    text = 'kind = "vault"\npath = "folder/vault"\nkey_source = "file"\nkey_file = "nowhere/vault.key"\n'
    assert store_of(folder, text) == Store(
        kind="vault",
        path=str(folder / "folder/vault"),
        key_source="file",
        key_file=str(folder / "nowhere/vault.key"),
    )


@pytest.mark.parametrize("source", ["auto", "keychain"])
def test_a_key_from_the_keychain(folder: Path, source: str) -> None:
    assert store_of(folder, f'key_source = "{source}"\n') == Store(path=VAULT, key_source=source)


def test_a_store_in_memory(folder: Path) -> None:
    assert store_of(folder, 'kind = "memory"\n') == Store(kind="memory")


def test_the_default_places_of_the_store(folder: Path, home: Path) -> None:
    found = store_of(folder, 'key_source = "file"\n')
    assert found.path == str(Path(user_data_dir("bearerd", appauthor=False), "vault"))
    assert found.key_file == str(Path(user_config_dir("bearerd", appauthor=False), "vault.key"))
    assert Path(found.path).is_relative_to(home)
    assert Path(found.key_file).is_relative_to(home)


def test_the_home_folder_in_paths_of_the_store(folder: Path, home: Path) -> None:
    found = store_of(folder, 'path = "~/vault"\nkey_file = "~/vault.key"\n')
    assert (found.path, found.key_file) == (str(home / "vault"), str(home / "vault.key"))


def test_paths_of_the_store_in_variables_start_at_the_working_folder(folder: Path) -> None:
    found = store_of(folder, "", {"BEARERD_STORE__PATH": "vault", "BEARERD_STORE__KEY_FILE": "vault.key"})
    assert (found.path, found.key_file) == (str(Path.cwd() / "vault"), str(Path.cwd() / "vault.key"))


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("", "auto"),
        ('key_file = "vault.key"\n', "file"),
        (f'key_secret = "{KEY_TEXT}"\n', "secret"),
        ('key_secret_file = "key"\n', "secret"),
    ],
)
def test_the_source_of_the_key_is_told_by_the_other_keys(folder: Path, text: str, source: str) -> None:
    found = read(folder, STORE + text)
    assert found.configuration.store.key_source == source
    assert {"store.key_source": (source, "default")}.items() <= {
        setting.name: (setting.value, setting.source) for setting in found.settings
    }.items()


@pytest.mark.parametrize("written", [KEY_TEXT.rstrip("="), f" {KEY_TEXT} ", KEY.hex()])
def test_however_a_key_is_written_it_is_the_same(folder: Path, written: str) -> None:
    """All the ways are the core's to know."""
    assert store_of(folder, f'key_secret = "{written}"\n').key_secret == Secret(KEY_TEXT)
    assert store_of(folder, "", {"BEARERD_STORE__KEY_SECRET": written}).key_secret == Secret(KEY_TEXT)
    (folder / "key").write_text(written + "\r\n")
    assert store_of(folder, 'key_secret_file = "key"\n').key_secret == Secret(KEY_TEXT)


@pytest.mark.parametrize("written", ["canary", KEY_TEXT[:-4], bytes(33).hex()])
def test_bad_keys(folder: Path, written: str) -> None:
    problem = "is not a key of 32 bytes in base64; make one with: openssl rand -base64 32"
    assert refuse(folder, STORE + f'key_secret = "{written}"\n') == f"store.key_secret: {problem}"
    assert refuse(folder, STORE, {"BEARERD_STORE__KEY_SECRET": written}) == (
        f"store.key_secret (from BEARERD_STORE__KEY_SECRET): {problem}"
    )
    (folder / "key").write_text(written)
    assert refuse(folder, STORE + 'key_secret_file = "key"\n') == f"store.key_secret_file: key {problem}"


VAULTED = 'path = "vault"\nkey_source = "file"\nkey_file = "vault.key"\n'


@pytest.mark.parametrize(
    ("text", "environ", "expected", "ignored"),
    [
        (VAULTED, {"KIND": "memory"}, {"kind": "memory"}, {"key_file", "key_source", "path"}),
        ('kind = "memory"\n', {"PATH": "/vault"}, {"kind": "auto", "path": "/vault"}, {"kind"}),
        (VAULTED, {"KEY_SECRET": KEY_TEXT}, {"key_source": "secret"}, {"key_file", "key_source"}),
        (VAULTED, {"KEY_SOURCE": "keychain"}, {"key_source": "keychain"}, {"key_file"}),
        (VAULTED, {"KEY_FILE": "/other"}, {"key_source": "file", "key_file": "/other"}, set()),
        ('key_secret_file = "key"\n', {"KEY_FILE": "/other"}, {"key_source": "file"}, {"key_secret_file"}),
        (
            'key_secret_file = "key"\n',
            {"KEY_SECRET": KEY_TEXT},
            {"key_source": "secret"},
            {"key_secret_file"},
        ),
        (
            'kind = "memory"\npath = "vault"\n',
            {"KEY_SOURCE": "file"},
            {"kind": "auto", "key_source": "file"},
            {"kind"},
        ),
    ],
)
def test_what_does_not_go_with_the_environment_is_ignored(
    folder: Path, text: str, environ: Mapping[str, str], expected: Mapping[str, str], ignored: set[str]
) -> None:
    found = read(folder, STORE + text, {f"BEARERD_STORE__{key}": value for key, value in environ.items()})
    store = found.configuration.store
    assert {key: getattr(store, key) for key in expected} == expected
    [variable] = environ
    by = f"for it does not go with store.{variable.lower()} from BEARERD_STORE__{variable}; take one of them out"
    assert set(found.warnings) == {f"store.{key} (from {found.path}): is ignored, {by}" for key in ignored}
    file = {setting.name for setting in found.settings if setting.source.startswith("file ")}
    assert not file & {f"store.{key}" for key in ignored}


def test_what_does_not_go_together_in_one_source_is_an_error_whatever_the_other_says(folder: Path) -> None:
    environ = {"BEARERD_STORE__KIND": "memory", "BEARERD_STORE__PATH": "vault"}
    assert refuse(folder, STORE + VAULTED, environ) == (
        'store.path (from BEARERD_STORE__PATH): does not belong to kind = "memory"; '
        "take it out or choose another kind"
    )
    assert "does not belong to key_source" in refuse(
        folder, STORE + 'key_source = "auto"\nkey_file = "x"\n', {"BEARERD_STORE__KIND": "vault"}
    )


def test_what_is_ignored_has_to_be_good_all_the_same(folder: Path) -> None:
    assert "did you mean" in refuse(folder, STORE + 'key_source = "fil"\n', {"BEARERD_STORE__KIND": "memory"})


def test_a_secret_that_is_ignored_is_still_in_the_file(folder: Path) -> None:
    path = folder / "bearerd.toml"
    path.write_text(
        '[accounts.work]\ntoken_file = "secret"\n' + ROOT + f'[store]\nkey_secret = "{KEY_TEXT}"\n'
    )
    path.chmod(0o644)
    _, warning = load(path, {}, {"BEARERD_STORE__KIND": "memory"}).warnings
    assert "other users can read it" in warning


def shown_of(folder: Path, text: str) -> dict[str, object]:
    """The settings of the store that are shown, without the section's name."""
    settings = read(folder, STORE + text).settings
    return {
        setting.name.removeprefix("store."): setting.value
        for setting in settings
        if setting.name.startswith("store.")
    }


def test_only_settings_that_the_store_uses_are_shown(folder: Path, home: Path) -> None:
    path = str(home / "data" / "bearerd" / "vault")
    vault = {"kind": "auto", "path": path}
    key_file = str(home / "config" / "bearerd" / "vault.key")
    assert shown_of(folder, 'kind = "memory"\n') == {"kind": "memory"}
    assert shown_of(folder, "") == vault | {"key_source": "auto"}
    assert shown_of(folder, 'key_source = "file"\n') == vault | {"key_source": "file", "key_file": key_file}
    assert shown_of(folder, f'key_secret = "{KEY_TEXT}"\n') == vault | {
        "key_source": "secret",
        "key_secret": MASK,
    }
    assert shown_of(folder, 'key_secret_file = "key"\n') == vault | {
        "key_source": "secret",
        "key_secret_file": "key",
    }


BAD: dict[str, tuple[str, str]] = {
    "kind of store": (
        STORE + 'kind = "valt"\n',
        "store.kind: is not one of auto, vault, memory; did you mean 'vault'?",
    ),
    "source of the key": (
        STORE + 'key_source = "env"\n',
        "store.key_source: is not one of auto, keychain, file, secret; choose one of them",
    ),
    "empty path of the store": (
        STORE + 'path = ""\n',
        "store.path: is empty; give it a value or take it out",
    ),
    "NUL in the path of the store": (
        STORE + 'path = "a\\u0000"\n',
        "store.path: has a NUL character in it; take it out",
    ),
    "NUL in the path of a token file": (
        '[accounts.work]\ntoken_file = "a\\u0000"\n' + ROOT,
        "accounts.work.token_file: has a NUL character in it; take it out",
    ),
    "both twins of the key": (
        STORE + f'key_secret = "{KEY_TEXT}"\nkey_secret_file = "key"\n',
        "store.key_secret: is set, and so is key_secret_file; keep one of them",
    ),
    "key from a secret without one": (
        STORE + 'key_source = "secret"\n',
        "store.key_secret: is missing; set it or key_secret_file",
    ),
    "key file beside a secret": (
        STORE + 'key_secret_file = "key"\nkey_file = "vault.key"\n',
        'store.key_file: does not belong to key_source = "secret"; take it out or choose another key_source',
    ),
    "key file beside the keychain": (
        STORE + 'key_source = "keychain"\nkey_file = "vault.key"\n',
        'store.key_file: does not belong to key_source = "keychain"; take it out or choose another key_source',
    ),
    "key file beside auto": (
        STORE + 'key_source = "auto"\nkey_file = "vault.key"\n',
        'store.key_file: does not belong to key_source = "auto"; take it out or choose another key_source',
    ),
    "secret beside a key file": (
        STORE + f'key_source = "file"\nkey_secret = "{KEY_TEXT}"\n',
        'store.key_secret: does not belong to key_source = "file"; take it out or choose another key_source',
    ),
    "path of a store in memory": (
        STORE + 'kind = "memory"\npath = "vault"\n',
        'store.path: does not belong to kind = "memory"; take it out or choose another kind',
    ),
    "missing key secret file": (
        STORE + 'key_secret_file = "nowhere"\n',
        (
            "store.key_secret_file: nowhere cannot be read: no such file or directory; "
            "mend that or name another file"
        ),
    ),
    "empty key secret file": (
        STORE + 'key_secret_file = "empty"\n',
        "store.key_secret_file: empty is empty; give it a value or take it out",
    ),
    "no routes": (STATIC, 'no routes: add [routes."/"] with an upstream, or give one with --upstream'),
    "missing upstream": (
        STATIC + '[routes."/"]\n',
        'routes."/".upstream: is missing; write it like "https://api.example.com/v1"',
    ),
    "no URL": (
        STATIC + '[routes."/"]\nupstream = "api.example.com"\n',
        'routes."/".upstream: is not an http or https URL; write it like https://api.example.com/v1',
    ),
    "bad bracket": (
        STATIC + '[routes."/"]\nupstream = "https://[canary"\n',
        'routes."/".upstream: is not a URL; write it like https://api.example.com',
    ),
    "user name in a URL": (
        STATIC + '[routes."/"]\nupstream = "https://me:canary@api.example.com"\n',
        'routes."/".upstream: has a user name in it; take out everything before the @',
    ),
    "unknown account": (
        STATIC + ROOT + 'account = "wrok"\n',
        "routes.\"/\".account: 'wrok' is not an account; did you mean 'work'?",
    ),
    "unknown account, none like it": (
        STATIC + ROOT + 'account = "zzz"\n',
        "routes.\"/\".account: 'zzz' is not an account; add [accounts.zzz]",
    ),
    "which account": (
        STATIC + '[accounts.other]\ntoken = "x"\n' + ROOT,
        'routes."/".account: is missing; write one of work, other',
    ),
    "no account": (ROOT, 'routes."/".account: is missing, and there is no account; add [accounts.NAME]'),
    "same route twice": (
        STATIC + '[routes."/a/"]\nupstream = "https://x"\n[routes."/a"]\nupstream = "https://y"\n',
        'routes."/a": is the same route as one above; keep one of them',
    ),
    "bad prefix": (
        STATIC + "[routes.svc]\n" + 'upstream = "https://x"\n',
        "routes.svc: does not begin with a slash; write it like /service/",
    ),
    "unknown section": (STATIC + ROOT + "[limit]\n", "limit: unknown setting; did you mean 'limits'?"),
    "unknown key": (
        STATIC + ROOT + "[listen]\nprot = 1\n",
        "listen.prot: unknown setting; did you mean 'port'?",
    ),
    "unknown key of an account": (
        STATIC + 'cleint_id = "x"\n' + ROOT,
        "accounts.work.cleint_id: unknown setting; did you mean 'client_id'?",
    ),
    "unknown key, none like it": (
        STATIC + ROOT + "zzz = 1\n",
        'routes."/".zzz: unknown setting; take it out, or see docs/configuration.md',
    ),
    "key of another section": (
        "port = 1\n" + STATIC + ROOT,
        "port: unknown setting; it belongs in [listen]",
    ),
    "key of a named section": (
        STATIC + ROOT + 'client_id = "x"\n',
        'routes."/".client_id: unknown setting; it belongs in [accounts.NAME]',
    ),
    "control characters in a key": (
        STATIC + ROOT + '"a\\nb\\u001b" = 1\n',
        'routes."/"."a\\nb\\u001b": unknown setting; take it out, or see docs/configuration.md',
    ),
    "section that is no table": (
        "listen = 1\n" + STATIC,
        "listen: is not a table; write [listen] above its keys",
    ),
    "named section that is no table": (
        "accounts = 1\n" + ROOT,
        "accounts: is not a table; write [accounts] above its keys",
    ),
    "account that is no table": (
        "accounts.work = 1\n" + ROOT,
        "accounts.work: is not a table; write [accounts.work] above its keys",
    ),
    "account name": (
        STATIC.replace("work", "Work") + ROOT,
        "accounts.Work: is not an account name; use a-z, 0-9, dot, dash and single underscores",
    ),
    "account name with two underscores": (
        STATIC.replace("work", "a__b") + ROOT,
        "accounts.a__b: is not an account name; use a-z, 0-9, dot, dash and single underscores",
    ),
    "port out of range": (
        STATIC + ROOT + "[listen]\nport = 65536\n",
        "listen.port: is too large; write a number up to 65535",
    ),
    "port below zero": (
        STATIC + ROOT + "[listen]\nport = -1\n",
        "listen.port: is too small; write a number from 0 on",
    ),
    "no connections": (
        STATIC + ROOT + "[limits]\nconnections = 0\n",
        "limits.connections: is too small; write a number from 1 on",
    ),
    "port that is text": (
        STATIC + ROOT + '[listen]\nport = "6750"\n',
        "listen.port: is not a whole number; write it in digits, without quotes",
    ),
    "host that is text": (
        STATIC + ROOT + '[listen]\nhosts = "::1"\n',
        'listen.hosts: is not a list; write it like ["first", "second"]',
    ),
    "no host": (
        STATIC + ROOT + "[listen]\nhosts = []\n",
        "listen.hosts: is empty, and there is no socket; give it an address, or set listen.socket",
    ),
    "mode of no socket": (
        STATIC + ROOT + '[listen]\nsocket_mode = "0660"\n',
        "listen.socket_mode: means nothing without listen.socket; set that, or take this out",
    ),
    "users of no socket": (
        STATIC + ROOT + "[listen]\nsocket_uids = [7]\n",
        "listen.socket_uids: means nothing without listen.socket; set that, or take this out",
    ),
    "users who cannot get there": (
        STATIC + ROOT + '[listen]\nsocket = "s"\nsocket_uids = [7]\n',
        'listen.socket_uids: may not use a socket of mode 0600; set socket_mode to "0666", or "0660" for your group',
    ),
    "mode that is a number": (
        STATIC + ROOT + '[listen]\nsocket = "s"\nsocket_mode = 600\n',
        "listen.socket_mode: is not text; put it in quotes",
    ),
    "peer_uid": (
        STATIC + ROOT + '[listen]\npeer_uid = "ours"\n',
        "listen.peer_uid: is not one of own, any; choose one of them",
    ),
    "host that is a number": (
        STATIC + ROOT + "[listen]\nhosts = [1]\n",
        "listen.hosts[0]: is not text; put it in quotes",
    ),
    "level": (
        STATIC + ROOT + '[log]\nlevel = "wraning"\n',
        "log.level: is not one of debug, info, warning, error; did you mean 'warning'?",
    ),
    "format": (
        STATIC + ROOT + "[log]\nformat = 1\n",
        "log.format: is not one of auto, console, json; choose one of them",
    ),
    "access": (
        STATIC + ROOT + '[log]\naccess = "yes"\n',
        "log.access: is neither true nor false; write one of them, without quotes",
    ),
    "an audit log without a file": (
        STATIC + ROOT + "[log]\naudit_required = true\n",
        "log.audit_required: has no file to be required; set audit",
    ),
    "body larger than total": (
        STATIC + ROOT + '[limits]\nreplay_total = "1KiB"\n',
        "limits.replay_body: is more than limits.replay_total; make it smaller, or that one larger",
    ),
    "no grant": (
        '[accounts.work]\nclient_id = "x"\n' + ROOT,
        (
            "accounts.work.grant: is missing; set issuer for a login by browser, or write one of "
            "authorization_code, client_credentials, refresh_token, command, file, static"
        ),
    ),
    "grant": (
        CLIENT.replace("client_credentials", "client_credential") + SECRET + ROOT,
        (
            "accounts.work.grant: is not one of authorization_code, client_credentials, refresh_token, "
            "command, file, static; did you mean 'client_credentials'?"
        ),
    ),
    "two tokens": (
        STATIC + 'token_file = "fd:3"\n' + ROOT,
        "accounts.work.token: is set, and so is token_file; keep one of them",
    ),
    "both twins": (
        CLIENT + SECRET + 'client_secret_file = "secret"\n' + ROOT,
        "accounts.work.client_secret: is set, and so is client_secret_file; keep one of them",
    ),
    "issuer and endpoint": (
        CLIENT + SECRET + 'token_endpoint = "https://x"\n' + ROOT,
        "accounts.work.issuer: is set, and so is token_endpoint; keep one of them",
    ),
    "key of another grant": (
        STATIC + 'client_id = "x"\n' + ROOT,
        'accounts.work.client_id: does not belong to grant = "static"; take it out or choose another grant',
    ),
    "grant without its key": (
        '[accounts.work]\ngrant = "file"\n' + ROOT,
        'accounts.work.token_file: is missing; set it, for grant = "file" needs it',
    ),
    "no issuer": (
        CLIENT.replace('issuer = "https://login.example.com"\n', "") + SECRET + ROOT,
        "accounts.work.issuer: is missing; set it, or token_endpoint where the server has no metadata",
    ),
    "no client_id": (
        CLIENT.replace('client_id = "cli"\n', "") + SECRET + ROOT,
        "accounts.work.client_id: is missing; set it to what the authorization server calls this client",
    ),
    "no refresh token": (
        CLIENT.replace("client_credentials", "refresh_token") + ROOT,
        "accounts.work.refresh_token: is missing; set it or refresh_token_file",
    ),
    "no secret": (
        CLIENT + ROOT,
        'accounts.work.client_secret: is missing; set it or client_secret_file, or client_auth = "none"',
    ),
    "authentication without a secret": (
        CLIENT + 'client_auth = "client_secret_post"\n' + ROOT,
        "accounts.work.client_auth: needs a secret; set client_secret or client_secret_file",
    ),
    "secret without authentication": (
        CLIENT + SECRET + 'client_auth = "none"\n' + ROOT,
        'accounts.work.client_auth: is "none", but there is a client secret; take one of them out',
    ),
    "plain http issuer": (
        CLIENT.replace("https:", "http:") + SECRET + ROOT,
        "accounts.work.issuer: is plain http to another machine, which would show the secret; use https",
    ),
    "empty client_id": (
        CLIENT.replace('"cli"', '""') + SECRET + ROOT,
        "accounts.work.client_id: is empty; give it a value or take it out",
    ),
    "scope with a space": (
        CLIENT + SECRET + 'scopes = ["a b"]\n' + ROOT,
        (
            "accounts.work.scopes[0]: is not a scope: a space, quote, backslash or non-ASCII character is in it; "
            "write each scope as an element of its own"
        ),
    ),
    "secret that is a number": (
        CLIENT + "client_secret = 1\n" + ROOT,
        "accounts.work.client_secret: is not text; put it in quotes",
    ),
    "empty secret": (
        CLIENT + 'client_secret = ""\n' + ROOT,
        "accounts.work.client_secret: is empty; give it a value or take it out",
    ),
    "token with a space": (
        STATIC.replace("t0ken", "Bearer t0ken") + ROOT,
        "accounts.work.token: cannot stand in a header: it has a space in it or is too long; copy only the token",
    ),
    "descriptor": (
        '[accounts.work]\ntoken_file = "fd:three"\n' + ROOT,
        "accounts.work.token_file: is not a descriptor; write it like fd:3",
    ),
    "missing token file": (
        '[accounts.work]\ntoken_file = "nowhere"\n' + ROOT,
        (
            "accounts.work.token_file: nowhere cannot be read: no such file or directory; "
            "mend that or name another file"
        ),
    ),
    "token file that is a folder": (
        '[accounts.work]\ntoken_file = "folder"\n' + ROOT,
        "accounts.work.token_file: folder cannot be read: is a directory; mend that or name another file",
    ),
    "missing secret file": (
        CLIENT + 'client_secret_file = "nowhere"\n' + ROOT,
        (
            "accounts.work.client_secret_file: nowhere cannot be read: no such file or directory; "
            "mend that or name another file"
        ),
    ),
    "secret file that is a folder": (
        CLIENT + 'client_secret_file = "folder"\n' + ROOT,
        (
            "accounts.work.client_secret_file: folder cannot be read: is a directory; "
            "mend that or name another file"
        ),
    ),
    "large secret file": (
        CLIENT + 'client_secret_file = "large"\n' + ROOT,
        (
            "accounts.work.client_secret_file: large cannot be read: it is larger than 64 KiB; "
            "mend that or name another file"
        ),
    ),
    "secret file that is not UTF-8": (
        CLIENT + 'client_secret_file = "latin-1"\n' + ROOT,
        (
            "accounts.work.client_secret_file: latin-1 cannot be read: it is not UTF-8; "
            "mend that or name another file"
        ),
    ),
    "empty secret file": (
        CLIENT + 'client_secret_file = "empty"\n' + ROOT,
        "accounts.work.client_secret_file: empty is empty; give it a value or take it out",
    ),
    "secret file of two lines": (
        CLIENT + 'client_secret_file = "two-lines"\n' + ROOT,
        (
            "accounts.work.client_secret_file: two-lines has a character other than printable ASCII; "
            "copy it without line ends"
        ),
    ),
    "no TOML": (
        "[listen]\nport = canary\n",
        "bearerd.toml: is not TOML: invalid value (at line 2, column 8); mend that line",
    ),
    "deep TOML": ("x = " + "[" * 9000, "bearerd.toml: is nested too deeply; write plain tables"),
}


@pytest.mark.parametrize(("text", "line"), BAD.values(), ids=BAD)
def test_a_bad_file_is_one_line(folder: Path, text: str, line: str) -> None:
    assert refuse(folder, text) == line


@pytest.mark.threat(14)
@pytest.mark.parametrize(
    "host", ["localhost", "::1%lo", "::ffff:127.0.0.1", "::ffff:7f00:1", "224.0.0.1", "ff02::1", ""]
)
def test_only_plain_addresses_are_listened_on(folder: Path, host: str) -> None:
    for remote in ("", "remote = true\n"):
        assert refuse(folder, STATIC + ROOT + f'[listen]\nhosts = ["{host}"]\n{remote}') == (
            f"listen.hosts[0]: '{host}' is not an address to listen on; use 127.0.0.1 or ::1"
        )


REMOTE = ["0.0.0.0", "10.0.0.1", "::", "fe80::1", "128.0.0.1"]


@pytest.mark.threat(14)
@pytest.mark.parametrize("host", REMOTE)
def test_only_loopback_is_listened_on_by_itself(folder: Path, host: str) -> None:
    line = (
        f"listen.hosts: '{host}' is not a loopback address, so other machines could connect; use 127.0.0.1 or ::1, "
        "or set listen.remote = true and make client keys with: bearerd key create"
    )
    for more in ("", "remote = false\n", '[keys]\nuse = "required"\n'):
        text = STATIC + ROOT + f'[listen]\nhosts = ["127.0.0.1", "{host}"]\n{more}'
        assert refuse(folder, text) == line


@pytest.mark.threat(14)
@pytest.mark.parametrize("host", REMOTE)
@pytest.mark.parametrize("use", ["off", "optional"])
def test_other_machines_need_keys(folder: Path, host: str, use: str) -> None:
    text = STATIC + ROOT + f'[listen]\nhosts = ["{host}"]\nremote = true\n'
    assert refuse(folder, text + f'[keys]\nuse = "{use}"\n') == (
        f'keys.use: is "{use}", and listen.hosts lets other machines connect; make it "required"'
    )
    loaded = read(folder, text)
    assert loaded.configuration.keys.use == "required"
    assert loaded.configuration.listen.remote_hosts == (host,)
    (warning,) = loaded.warnings
    assert warning.startswith(f"listen.hosts: {host} is reached by plain http, which shows client keys")
    assert warning.endswith("; have TLS in front of it")


def test_keys(folder: Path) -> None:
    found = configure(
        folder,
        STATIC + ROOT + '[keys]\nuse = "optional"\nfile = "k.json"\nfields = ["X-Goog-Api-Key", "api-key"]\n',
    )
    assert found.keys == Keys("optional", str(folder / "k.json"), ("X-Goog-Api-Key", "api-key"))
    assert configure(folder, STATIC + ROOT + "[listen]\nremote = true\n").keys == DEFAULT_KEYS


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('use = "on"', "keys.use: is not one of off, optional, required; choose one of them"),
        (
            'fields = ["Authorization"]',
            "keys.fields[0]: Authorization may always have a client key in it; take it out",
        ),
        (
            'fields = ["X-A", "Cookie"]',
            "keys.fields[1]: Cookie is not for this; take it out, and see cookies of the route",
        ),
        ('fields = ["Host"]', "keys.fields[0]: Host is bearerd's own to make or to drop; take it out"),
        ('headers = ["X-A"]', "keys.headers: unknown setting; it belongs in [routes.NAME]"),
    ],
)
def test_bad_client_keys(folder: Path, line: str, problem: str) -> None:
    assert refuse(folder, STATIC + ROOT + f"[keys]\n{line}\n") == problem


@pytest.mark.parametrize(
    "host",
    ["*.test", "http://api.test", "api.test/", "api.test:0", "api.test:99999", "a b", "", "test.", "\u212a"],
)
def test_allowed_hosts_are_exact(folder: Path, host: str) -> None:
    assert refuse(folder, STATIC + ROOT + f'[listen]\nallowed_hosts = ["{host}"]\n') == (
        f"listen.allowed_hosts[0]: '{host}' is not an exact Host value; write it like api.test or api.test:8080, "
        "without scheme, path or wildcard"
    )


@pytest.mark.parametrize("written", ["0", "-1", "nan", "inf", "true", "1" * 400, '"1d"', '"25h"', '""', "[]"])
def test_bad_durations(folder: Path, written: str) -> None:
    text = f'[accounts.work]\ncommand = ["tool"]\ncommand_timeout = {written}\n'
    assert refuse(folder, text + ROOT) == (
        "accounts.work.command_timeout: is not a duration up to a day; "
        'write seconds, or "500ms", "30s", "5m", "2h"'
    )


@pytest.mark.parametrize("written", ["-1", "1.5", "true", '"1 mib"', '"1TB"', '""'])
def test_bad_sizes(folder: Path, written: str) -> None:
    assert refuse(folder, STATIC + ROOT + f"[limits]\nreplay_body = {written}\n") == (
        'limits.replay_body: is not a size; write bytes, or "512B", "64KiB", "10MB", "1MiB"'
    )


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ('"tool --flag"', 'is not a list; write it as a list; no shell is used: ["program", "argument"]'),
        ("[1]", 'is not a list of texts; write it like ["program", "argument"]'),
        ("1", 'is not a list of texts; write it like ["program", "argument"]'),
        ("[]", 'names no program; write it like ["program", "argument"]'),
        ('[" "]', 'names no program; write it like ["program", "argument"]'),
        ('["a", "\\u0000"]', "has a NUL character in it; take it out"),
    ],
)
def test_bad_commands(folder: Path, written: str, problem: str) -> None:
    text = f"[accounts.work]\ncommand = {written}\n"
    assert refuse(folder, text + ROOT) == f"accounts.work.command: {problem}"


def test_a_hook_is_a_command_too(folder: Path) -> None:
    text = CLIENT + SECRET + ROOT + '[hooks]\non_login_needed = ["a", "\\u0000"]\n'
    assert refuse(folder, text) == "hooks.on_login_needed: has a NUL character in it; take it out"


@pytest.mark.parametrize(
    ("resource", "problem"),
    [
        ("/path", "is not an absolute URI without a fragment; write it like https://api.example.com"),
        ("https:", "is not an absolute URI without a fragment; write it like https://api.example.com"),
        ("https://x/#", "is not an absolute URI without a fragment; write it like https://api.example.com"),
        ("https://x/é", "is not an absolute URI without a fragment; write it like https://api.example.com"),
        ("https://me:canary@x/", "has a user name in it; take out everything before the @"),
    ],
)
def test_bad_resources(folder: Path, resource: str, problem: str) -> None:
    text = CLIENT + SECRET + f'resource = "{resource}"\n'
    assert refuse(folder, text + ROOT) == f"accounts.work.resource: {problem}"


BAD_VARIABLES = {
    "BEARERD_LISTEN__PROT": ("1", "unknown variable; did you mean BEARERD_LISTEN__PORT?"),
    "BEARERD_PORT": ("1", "unknown variable; did you mean BEARERD_LISTEN__PORT?"),
    "BEARERD_CONFG": ("x", "unknown variable; did you mean BEARERD_CONFIG?"),
    "BEARERD_ACCOUNTS__WORK__SERVICE_HOST": (
        "x",
        "unknown variable; did you mean BEARERD_ACCOUNTS__WORK__SCOPES?",
    ),
    "BEARERD_LOG_LEVEL": ("debug", "unknown variable; did you mean BEARERD_LOG__LEVEL?"),
    "BEARERD_LOG__LEVEL__X": ("debug", "unknown variable; did you mean BEARERD_LOG__LEVEL?"),
    "BEARERD_ACOUNTS__WORK__TOKEN": ("x", "unknown variable; did you mean BEARERD_ACCOUNTS__WORK__TOKEN?"),
    "BEARERD_ACCOUNTS__NEW__TOKE": ("x", "unknown variable; did you mean BEARERD_ACCOUNTS__NEW__TOKEN?"),
    "BEARERD_ACCOUNTS__TOKEN": ("x", "unknown variable; did you mean BEARERD_ACCOUNTS__WORK__TOKEN?"),
    "BEARERD_ROUTES__/__UPSTRAEM": ("x", "unknown variable; did you mean BEARERD_ROUTES__/__UPSTREAM?"),
    "BEARERD_ZZZZZZZZZZZZZZZZZZ": ("x", "unknown variable; unset it, or see docs/configuration.md"),
}


@pytest.mark.parametrize(
    ("name", "value", "problem"), [(name, *found) for name, found in BAD_VARIABLES.items()], ids=BAD_VARIABLES
)
def test_a_misspelt_variable_is_an_error(folder: Path, name: str, value: str, problem: str) -> None:
    assert refuse(folder, STATIC + ROOT, {name: value}) == f"{name}: {problem}"


@pytest.mark.parametrize(
    ("name", "value", "setting", "problem"),
    [
        ("LISTEN__PORT", "x", "listen.port", "is not a whole number; write it in digits, without quotes"),
        (
            "LISTEN__PORT",
            "9" * 30,
            "listen.port",
            "is not a whole number; write it in digits, without quotes",
        ),
        ("LOG__ACCESS", "x", "log.access", "is neither true nor false; write one of them, without quotes"),
        ("LISTEN__HOSTS", "[", "listen.hosts", 'is not a list; write it like ["first", "second"]'),
        (
            "LISTEN__HOSTS",
            "",
            "listen.hosts",
            "is empty, and there is no socket; give it an address, or set listen.socket",
        ),
        ("ACCOUNTS__WORK__AUDIENCE", "\udcff", "accounts.work.audience", "is not UTF-8; write it in UTF-8"),
        (
            "ACCOUNTS__WORK__COMMAND",
            "tool,canary",
            "accounts.work.command",
            'is not a list; write it as a list; no shell is used: ["program", "argument"]',
        ),
    ],
)
def test_a_bad_variable_is_named(folder: Path, name: str, value: str, setting: str, problem: str) -> None:
    expected = f"{setting} (from BEARERD_{name}): {problem}"
    assert refuse(folder, STATIC + ROOT, {f"BEARERD_{name}": value}) == expected


def test_a_bad_flag_is_named(folder: Path) -> None:
    upstream = ("/svc=https://me:canary@x",)
    assert refuse(folder, STATIC, upstream=upstream) == (
        'routes."/svc".upstream (from --upstream): has a user name in it; take out everything before the @'
    )
    assert refuse(folder, STATIC, log_level="x") == (
        "log.level (from --log-level): is not one of debug, info, warning, error; choose one of them"
    )


def test_a_route_twice_on_the_command_line(folder: Path) -> None:
    upstream = ("/a=https://x", "/a/=https://y")
    assert (
        refuse(folder, STATIC, upstream=upstream) == "--upstream: names the route /a/ twice; keep one of them"
    )


def test_all_problems_come_at_once(folder: Path) -> None:
    text = '[listen]\nport = 70000\nprot = 1\n[accounts.work]\nissuer = "x"\n'
    assert len(refuse(folder, text, {"BEARERD_X": "1"}).splitlines()) == 4
    assert len(refuse(folder, '[accounts.work]\ngrant = "client_credentials"\n').splitlines()) == 4


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere", "no such file or directory"),
        ("folder", "is a directory"),
        ("latin-1", "it is not UTF-8"),
        ("huge", "it is larger than 1024 KiB"),
    ],
)
def test_a_file_that_cannot_be_read(folder: Path, name: str, why: str) -> None:
    (folder / "huge").write_bytes(b"#" * ((1 << 20) + 1))
    path = folder / name
    expected = f"{path}: cannot be read: {why}; mend that or name another file with -c"
    for options in ((path, NOTHING), (None, {"Bearerd_Config": str(path)})):
        with pytest.raises(ConfigError) as caught:
            load(options[0], {}, options[1])
        assert str(caught.value) == expected


@pytest.mark.parametrize("key", ["client_secret_file", "token_file"])
def test_permission_denied(folder: Path, key: str) -> None:
    (folder / "secret").chmod(0)
    variables = {
        f"BEARERD_ACCOUNTS__WORK__{key.upper()}": str(folder / "secret"),
        "BEARERD_UPSTREAM": "http://[::1]/",
    }
    if key == "client_secret_file":
        variables |= {
            "BEARERD_ACCOUNTS__WORK__GRANT": "client_credentials",
            "BEARERD_ACCOUNTS__WORK__CLIENT_ID": "cli",
            "BEARERD_ACCOUNTS__WORK__ISSUER": "https://login.example.com",
        }
    with bound_by_permissions(), pytest.raises(ConfigError) as caught:
        load(None, {}, variables)
    assert str(caught.value) == (
        f"accounts.work.{key} (from BEARERD_ACCOUNTS__WORK__{key.upper()}): {folder}/secret cannot be read: "
        "permission denied; mend that or name another file"
    )


def test_the_file_named_on_the_command_line_beats_the_variable(folder: Path) -> None:
    environ = {"BEARERD_CONFIG": str(folder / "nowhere")}
    assert read(folder, STATIC + ROOT, environ).path == folder / "bearerd.toml"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def test_the_default_file(home: Path) -> None:
    assert default_path().name == "bearerd.toml"
    assert default_path().is_relative_to(home)
    default_path().parent.mkdir(parents=True)
    default_path().write_text(STATIC + ROOT)
    assert load(None, {}, {}).path == default_path()


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("environ", [{}, {"BEARERD_LOG__LEVEL": "debug"}, {"PATH": "/bin"}])
def test_nothing_is_configured(environ: Mapping[str, str]) -> None:
    with pytest.raises(NotConfigured) as caught:
        load(None, {"port": 1, "log_level": "info"}, environ)
    first, _, example = str(caught.value).partition("\n")
    assert first == (
        f"there is no configuration; write one with: bearerd init, or by hand to {default_path()}, "
        "or try: bearerd demo"
    )
    assert '[routes."/"]' in example


@pytest.mark.usefixtures("home")
def test_a_misspelt_variable_alone_is_not_taken_for_no_configuration() -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {}, {"BEARERD_ACOUNTS__WORK__TOKEN": "x"})
    assert not isinstance(caught.value, NotConfigured)


@pytest.mark.usefixtures("home")
def test_flags_and_variables_need_no_file() -> None:
    found = load(None, {"upstream": ("https://x",)}, {"BEARERD_ACCOUNTS__WORK__TOKEN": "t"})
    assert found.path is None
    assert found.configuration.accounts["work"].source == StaticSource(Secret("t"))


def test_what_is_not_wise_is_a_warning(folder: Path) -> None:
    text = STATIC + '[routes."/"]\nupstream = "http://api.example.com"\n'
    assert read(folder, text).warnings == (
        'routes."/".upstream: is plain http to another machine, which shows the token to the network; use https',
    )
    assert read(folder, text.replace("api.example.com", "127.0.0.1:8080")).warnings == ()


def test_a_login_without_a_vault_is_a_warning(folder: Path) -> None:
    text = REFRESH + REFRESH.replace("work", '"a.b"') + '[accounts.fixed]\ntoken = "t0ken"\n'
    text += CLIENT.replace("work", "client") + SECRET + ROOT + 'account = "work"\n[store]\nkind = "memory"\n'
    assert read(folder, text).warnings == tuple(
        f"{name}: loses its login when bearerd ends, for its refresh token is single-use and "
        'store.kind is "memory"; use a vault'
        for name in ("accounts.work", 'accounts."a.b"')
    )
    for kind in ("auto", "vault"):
        assert read(folder, text.replace("memory", kind)).warnings == ()


@pytest.mark.skipif(os.name != "posix", reason="needs permission bits")
def test_a_key_that_others_can_read_is_a_warning(folder: Path) -> None:
    path = folder / "open.toml"
    for setting, warned in ((f'key_secret = "{KEY_TEXT}"\n', True), ('key_secret_file = "key"\n', False)):
        path.write_text('[accounts.work]\ntoken_file = "secret"\n' + ROOT + "[store]\n" + setting)
        path.chmod(0o644)
        expected = f"{path}: holds a secret and other users can read it; chmod 600 it"
        assert load(path, {}, {}).warnings == ((expected,) if warned else ())


@pytest.mark.skipif(os.name != "posix", reason="needs permission bits")
def test_an_account_called_token_is_no_secret(folder: Path) -> None:
    path = folder / "open.toml"
    path.write_text('[accounts.token]\ntoken_file = "secret"\n' + ROOT)
    path.chmod(0o644)
    assert load(path, {}, {}).warnings == ()


@pytest.mark.skipif(os.name != "posix", reason="needs permission bits")
def test_a_secret_others_can_read_is_a_warning(folder: Path) -> None:
    path = folder / "open.toml"
    path.write_text(STATIC + ROOT)
    path.chmod(0o644)
    assert load(path, {}, {}).warnings == (
        f"{path}: holds a secret and other users can read it; chmod 600 it",
    )


def test_every_setting_has_a_variable(folder: Path) -> None:
    """A variable of each name is known: what is wrong with it is its value, if anything."""
    paths: list[tuple[str, ...]] = [
        (section, key) for section, table in SINGLE.items() for key in table.model_fields
    ]
    paths += [(section, "/x", key) for section, table in NAMED.items() for key in table.model_fields]
    for path in paths:
        text = refuse(folder, STATIC, {variable_name(path): "?"})
        assert "unknown" not in text


# ---------------------------------------------------------------- the way to an upstream


SECURE = STATIC + ROOT
PLAIN = STATIC + '[routes."/"]\nupstream = "http://api.example.com"\n'
BAD_PROXY = (
    'is not the URL of an http proxy; write it like http://proxy.example.com:3128, or "none" for no proxy'
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "ca")


@pytest.fixture
def keys(folder: Path, authority: Authority) -> Path:
    """The folder, with files of TLS in it, good ones and others."""
    certificate, key = authority.issue("client")
    _, other_key = authority.issue("other")
    for source, name in (
        (authority.ca_file, "ca.pem"),
        (certificate, "client.pem"),
        (key, "client.key"),
        (other_key, "other.key"),
    ):
        (folder / name).write_bytes(source.read_bytes())
    (folder / "both.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
    (folder / "unlike.pem").write_bytes(other_key.read_bytes() + certificate.read_bytes())
    write_key(folder / "locked.key", ec.generate_private_key(ec.SECP256R1()), "passphrase")
    (folder / "rsa.key").write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    (folder / "weak.pem").write_bytes(
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-keyout", "-", "-subj", "/CN=weak"],
            check=True,
            capture_output=True,
        ).stdout
    )
    (folder / "cut.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (folder / "cut.key").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    return folder


def way_of(folder: Path, text: str, environ: Mapping[str, str] = NOTHING) -> Way:
    return configure(folder, SECURE + text, environ).routes[0].way


def test_a_route_that_says_nothing_goes_the_direct_way(folder: Path) -> None:
    """The pool knows it by identity."""
    assert way_of(folder, "") is DIRECT
    assert way_of(folder, 'proxy = "none"\n') is DIRECT


def test_files_of_tls_beside_the_configuration(keys: Path) -> None:
    text = 'ca_file = "ca.pem"\nclient_cert_file = "client.pem"\nclient_key_file = "client.key"\n'
    whole = way_of(keys, text + 'server_name = "Api.Internal"\n')
    tls = Tls(str(keys / "ca.pem"), str(keys / "client.pem"), str(keys / "client.key"), "api.internal")
    assert whole == Way(replace(tls, seal=whole.tls.seal))
    both = way_of(keys, 'client_cert_file = "both.pem"\n')
    assert both == Way(Tls(None, str(keys / "both.pem"), seal=both.tls.seal))


def test_files_of_tls_with_other_contents_are_another_way(keys: Path) -> None:
    """Their names are the same, as after a rotation."""
    text = 'ca_file = "ca.pem"\nclient_cert_file = "both.pem"\n'
    first = way_of(keys, text)
    assert way_of(keys, text) == first
    for name in ("ca.pem", "both.pem"):
        old = (keys / name).read_text()
        (keys / name).write_text(f"a comment\n{old}")
        assert way_of(keys, text) != first
        (keys / name).write_text(old)
    assert way_of(keys, text) == first


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('ca_file = "nowhere"', "ca_file: nowhere cannot be read: no such file or directory; mend that or name another file"),
        ('ca_file = "folder"', "ca_file: folder cannot be read: is a directory; mend that or name another file"),
        ('ca_file = "secret"', "ca_file: secret has no certificate in PEM; name a file with -----BEGIN CERTIFICATE----- in it"),
        ('ca_file = "cut.pem"', "ca_file: cut.pem has no certificate in PEM; name a file with -----BEGIN CERTIFICATE----- in it"),
        ('ca_file = "client.key"', "ca_file: client.key has no certificate in PEM; name a file with -----BEGIN CERTIFICATE----- in it"),
        ('ca_file = ""', "ca_file: is empty; give it a value or take it out"),
        ('client_cert_file = "nowhere"', "client_cert_file: nowhere cannot be read: no such file or directory; mend that or name another file"),
        ('client_cert_file = "client.pem"', "client_cert_file: client.pem has no private key in PEM; name a file with -----BEGIN PRIVATE KEY----- in it"),
        ('client_cert_file = "unlike.pem"', "client_cert_file: unlike.pem is not the key of client_cert_file; name the key that belongs to it"),
        ('client_cert_file = "cut.pem"\nclient_key_file = "client.key"', "client_cert_file: cut.pem has no certificate in PEM; name a file with -----BEGIN CERTIFICATE----- in it"),
        ('client_cert_file = "client.pem"\nclient_key_file = "nowhere"', "client_key_file: nowhere cannot be read: no such file or directory; mend that or name another file"),
        ('client_cert_file = "client.pem"\nclient_key_file = "ca.pem"', "client_key_file: ca.pem has no private key in PEM; name a file with -----BEGIN PRIVATE KEY----- in it"),
        ('client_cert_file = "client.pem"\nclient_key_file = "cut.key"', "client_key_file: cut.key has no private key in PEM; name a file with -----BEGIN PRIVATE KEY----- in it"),
        ('client_cert_file = "client.pem"\nclient_key_file = "other.key"', "client_key_file: other.key is not the key of client_cert_file; name the key that belongs to it"),
        ('client_cert_file = "client.pem"\nclient_key_file = "rsa.key"', "client_key_file: rsa.key is not the key of client_cert_file; name the key that belongs to it"),
        ('client_cert_file = "client.pem"\nclient_key_file = "locked.key"', "client_key_file: locked.key has a passphrase, which nobody is asked for; take it off with: openssl pkey -in FILE -out NEW-FILE"),
        ('client_cert_file = "weak.pem"', "client_cert_file: weak.pem is too weak for today's TLS; have a new one issued"),
        ('client_key_file = "client.key"', "client_key_file: is set without client_cert_file; set that too, or take it out"),
        ('server_name = "https://api.example.com"', "server_name: is not a host name; write it like api.example.com, without scheme, port or path"),
        ('server_name = "api.example.com:443"', "server_name: is not a host name; write it like api.example.com, without scheme, port or path"),
        ('server_name = "a b"', "server_name: is not a host name; write it like api.example.com, without scheme, port or path"),
        ('proxy = "socks5://me:canary@proxy"', f"proxy: {BAD_PROXY}"),
        ("proxy = 3128", f"proxy: {BAD_PROXY}"),
        ('proxy = "http://proxy"\nproxy_file = "secret"', "proxy: is set, and so is proxy_file; keep one of them"),
        ('proxy_file = "nowhere"', "proxy_file: nowhere cannot be read: no such file or directory; mend that or name another file"),
        ('proxy_file = "two-lines"', f"proxy_file: two-lines {BAD_PROXY}"),
        ("response_idle = 0", 'response_idle: is not a duration up to a day; write seconds, or "500ms", "30s", "5m", "2h"'),
    ],
)  # fmt: skip
def test_bad_ways_are_one_line(keys: Path, text: str, line: str) -> None:
    assert refuse(keys, SECURE + text + "\n") == f'routes."/".{line}'


@pytest.mark.parametrize("key", ["ca_file", "client_cert_file", "server_name"])
def test_tls_settings_of_a_route_without_tls(keys: Path, key: str) -> None:
    assert refuse(keys, PLAIN + f'{key} = "both.pem"\n') == (
        f'routes."/".{key}: does not go with an http upstream; take it out, or make the upstream https'
    )


def test_a_proxy_in_settings(folder: Path) -> None:
    proxy = Proxy(Origin("http", "proxy.test", 3128), Secret("me:canary"))
    url = "http://me:canary@proxy.test:3128"
    assert way_of(folder, f'proxy = "{url}"\n').proxy == proxy
    assert way_of(folder, "", {"BEARERD_ROUTES__/__PROXY": url}).proxy == proxy
    (folder / "secret").write_text(url + "\n")
    assert way_of(folder, 'proxy_file = "secret"\n').proxy == proxy
    shown = read(folder, SECURE + f'proxy = "{url}"\n').settings
    assert f"http://{MASK}@proxy.test:3128" in [setting.value for setting in shown]
    assert "canary" not in str(shown)


def test_a_proxy_with_a_password_in_a_file_that_others_can_read(folder: Path) -> None:
    path = folder / "bearerd.toml"
    for url, count in (("http://me:canary@proxy.test", 1), ("http://proxy.test", 0)):
        path.write_text(f'[accounts.work]\ntoken_file = "secret"\n{ROOT}proxy = "{url}"\n')
        path.chmod(0o644)
        assert len(load(path, {}, {}).warnings) == count


def test_the_proxy_of_the_environment(folder: Path) -> None:
    environ = {"HTTPS_PROXY": "http://one.test:3128", "http_proxy": "two.test", "NO_PROXY": "svc.example.com"}
    text = (
        SECURE
        + '[routes."/plain"]\nupstream = "http://api.example.com"\n'
        + '[routes."/svc"]\nupstream = "https://svc.example.com"\n'
        + '[routes."/here"]\nupstream = "http://127.0.0.1:8080"\n'
        + '[routes."/own"]\nupstream = "https://api.example.com"\nproxy = "three.test"\n'
        + '[routes."/none"]\nupstream = "https://api.example.com"\nproxy = "none"\n'
    )
    loaded = read(folder, text, environ)
    proxies = {route.name: route.way.proxy and str(route.way.proxy) for route in loaded.configuration.routes}
    assert proxies == {
        "/": "http://one.test:3128",
        "/plain": "http://two.test",
        "/svc": None,
        "/here": None,
        "/own": "http://three.test",
        "/none": None,
    }
    sources = {setting.name: setting.source for setting in loaded.settings if setting.name.endswith(".proxy")}
    assert sources['routes."/".proxy'] == "environment HTTPS_PROXY"
    assert sources['routes."/plain".proxy'] == "environment http_proxy"
    assert sources['routes."/own".proxy'].startswith("file ")
    assert 'routes."/svc".proxy' not in sources


def test_the_proxy_of_the_environment_for_an_upstream_by_flag(folder: Path) -> None:
    environ = {"https_proxy": "http://one.test:3128"}
    found = configure(folder, STATIC, environ, upstream=("https://api.example.com",))
    assert str(found.routes[0].way.proxy) == "http://one.test:3128"


def test_a_bad_proxy_of_the_environment_is_not_gone_round(folder: Path) -> None:
    environ = {"HTTPS_PROXY": "socks5h://me:canary@proxy:1080"}
    assert refuse(folder, SECURE, environ) == f'routes."/".proxy (from HTTPS_PROXY): {BAD_PROXY}'
    assert configure(folder, PLAIN, environ).routes[0].way is DIRECT


SERVER = '[accounts.work]\ngrant = "client_credentials"\nclient_id = "c"\nclient_secret = "s"\n'


def server_way(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Way:
    source = configure(folder, SERVER + text + ROOT, environ or {}).accounts["work"].source
    assert isinstance(source, OAuthSource)
    return source.way


def test_the_way_to_an_authorization_server(keys: Path) -> None:
    issuer = 'issuer = "https://login.example.com"\n'
    url = "http://me:canary@proxy.test:3128"
    proxy = Proxy(Origin("http", "proxy.test", 3128), Secret("me:canary"))
    assert server_way(keys, issuer) is DIRECT
    assert server_way(keys, f'{issuer}proxy = "{url}"\n').proxy == proxy
    (keys / "proxy-url").write_text(url + "\n")
    way = server_way(keys, issuer + 'proxy_file = "proxy-url"\nca_file = "ca.pem"\n')
    assert way == Way(Tls(str(keys / "ca.pem"), seal=way.tls.seal), proxy)
    shown = read(keys, f'{SERVER}{issuer}proxy = "{url}"\n{ROOT}').settings
    assert {each.name: each.value for each in shown}[
        "accounts.work.proxy"
    ] == f"http://{MASK}@proxy.test:3128"


@pytest.mark.parametrize(
    ("endpoint", "proxy"),
    [
        ('issuer = "https://login.example.com/tenant"', "http://one.test:3128"),
        ('token_endpoint = "https://login.example.com/token?tenant=1"', "http://one.test:3128"),
        ('issuer = "https://login.svc.example.com"', None),
        ('issuer = "http://127.0.0.1:8080"', None),
        ('issuer = "https://login.example.com"\nproxy = "none"', None),
        ('issuer = "https://login.example.com"\nproxy = "three.test"', "http://three.test"),
    ],
)
def test_the_proxy_of_the_environment_for_an_authorization_server(
    folder: Path, endpoint: str, proxy: str | None
) -> None:
    environ = {"HTTPS_PROXY": "http://one.test:3128", "http_proxy": "two.test", "NO_PROXY": "svc.example.com"}
    way = server_way(folder, endpoint + "\n", environ)
    assert (way.proxy and str(way.proxy)) == proxy


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('proxy = "socks5://me:canary@proxy"', f"proxy: {BAD_PROXY}"),
        ('proxy = "http://proxy"\nproxy_file = "secret"', "proxy: is set, and so is proxy_file; keep one of them"),
        ('proxy_file = "two-lines"', f"proxy_file: two-lines {BAD_PROXY}"),
        ('ca_file = "nowhere"', "ca_file: nowhere cannot be read: no such file or directory; mend that or name another file"),
        ('ca_file = "secret"', "ca_file: secret has no certificate in PEM; name a file with -----BEGIN CERTIFICATE----- in it"),
    ],
)  # fmt: skip
def test_bad_ways_to_authorization_servers_are_one_line(keys: Path, text: str, line: str) -> None:
    issuer = 'issuer = "https://login.example.com"\n'
    assert refuse(keys, f"{SERVER}{issuer}{text}\n{ROOT}") == f"accounts.work.{line}"


def test_a_way_is_for_accounts_that_ask_a_server(folder: Path) -> None:
    assert refuse(folder, STATIC + 'ca_file = "ca.pem"\n' + ROOT) == (
        'accounts.work.ca_file: does not belong to grant = "static"; take it out or choose another grant'
    )


def test_a_proxy_of_the_environment_is_for_accounts_that_ask_a_server(folder: Path) -> None:
    environ = {
        "HTTPS_PROXY": "http://one.test:3128",
        "BEARERD_ACCOUNTS__WORK__ISSUER": "https://login.example.com",
    }
    assert refuse(folder, STATIC + ROOT, environ) == (
        'accounts.work.issuer (from BEARERD_ACCOUNTS__WORK__ISSUER): does not belong to grant = "static"; '
        "take it out or choose another grant"
    )


def test_an_issuer_of_the_environment_and_its_proxy(folder: Path) -> None:
    environ = {
        "HTTPS_PROXY": "http://one.test:3128",
        "BEARERD_ACCOUNTS__WORK__ISSUER": "https://login.example.com",
    }
    assert str(server_way(folder, "", environ).proxy) == "http://one.test:3128"


def test_limits_of_upstreams(folder: Path) -> None:
    found = configure(
        folder, SECURE + 'response_idle = "1m"\n[limits]\nupstream_connect = 3\nupstream_idle = "1s"\n'
    )
    assert (found.limits.upstream_connect_s, found.limits.upstream_idle_s) == (3.0, 1.0)
    assert found.routes[0].response_idle_s == 60.0
    assert configure(folder, SECURE).routes[0].response_idle_s is None
