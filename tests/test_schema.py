"""The schema says of a file what bearerd says of it, but for what spans settings; and what it says is what the document says."""

import copy
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from bearerd.cli import main
from bearerd.errors import ConfigError
from bearerd.settings import load
from bearerd.settings.documentation import load_document, parse_document
from bearerd.settings.model import NAMED, SINGLE, Table
from bearerd.settings.problems import describe
from bearerd.settings.schema import build_schema
from blocks import read_blocks

PROJECT: Final = Path(__file__).parent.parent
SCHEMA: Final = build_schema(parse_document(load_document()))
VALIDATOR: Final = Draft202012Validator(SCHEMA)
Document = dict[str, Any]

GOOD: Final = tomllib.loads("""
[listen]
port = 6750
hosts = ["127.0.0.1", "::1"]
remote = false
allowed_hosts = ["api.test:8080"]
allowed_origins = ["https://app.example.com", "vscode-webview://id"]
public_url = "https://bearerd.example.com"
peer_uid = "own"
socket = "/run/user/1000/bearerd.sock"
socket_mode = "0660"
socket_uids = [1000]
probes = "127.0.0.1:9450"
probes_remote = false
[keys]
use = "optional"
file = "keys.json"
fields = ["X-Api-Key"]
[accounts.me]
grant = "authorization_code"
issuer = "https://login.example.com/a?tenant=1"
client_id = "cli"
client_secret = "s3cret"
client_auth = "client_secret_post"
authorization_endpoint = "http://127.0.0.1:8080/authorize"
device_authorization_endpoint = "https://login.example.com/device"
revocation_endpoint = "https://login.example.com/revoke"
scopes = ["openid"]
audience = "https://api.example.com"
resource = "urn:api"
redirect_uri = "http://localhost:8400/callback"
login = true
authorization_params = { prompt = "consent" }
ended_errors = ["bad_refresh_token"]
[accounts.work]
token_endpoint = "https://login.example.com/token"
client_id = "cli"
refresh_token = "r3fresh"
[accounts.cloud]
command = ["gcloud", "auth"]
command_timeout = "30s"
[accounts.fixed]
token = "t0ken"
[routes."/"]
upstream = "https://api.example.com/v1"
account = "me"
exec_env = ["OPENAI_BASE_URL=/v1"]
credential = "Authorization: Basic {base64:user:{token}}"
inject = "if-absent"
headers = { X-Api-Version = "2" }
drop_headers = ["Origin"]
forwarded = "pass"
cookies = true
query_token = false
upgrades = ["websocket"]
methods = ["GET"]
allow = ["GET HEAD /orgs/*/members", "/x/**"]
deny = ["DELETE /**"]
spool = "disk"
expect_continue = true
retry_statuses = [401]
response_idle = 2.5
browser_app = false
proxy = "http://user:word@proxy.example.com:3128"
server_name = "api.internal"
[limits]
replay_body = "1MiB"
replay_total = 16_000_000
connections = 10
drain = "500ms"
[store]
kind = "vault"
path = "vault"
key_source = "file"
key_file = "vault.key"
[hooks]
on_login_needed = ["notify-send", "login"]
[log]
level = "info"
format = "json"
access = true
audit = "audit.log"
audit_required = false
""")

LEFT_TO_BEARERD: Final = (
    # What spans several settings.
    "does not belong to (grant|kind|key_source)",
    "is missing",
    "no routes:",
    "is not an account;",
    "needs a secret|but there is a client secret",
    "is not a loopback address|lets other machines connect",  # beside remote
    "leads to another machine|is https, which nothing speaks here",  # beside public_url
    "does not go with an http upstream",
    "is more than limits",
    # What a pattern would say badly.
    "has a port that is no number|is not an exact Host value",  # the largest port
    "is not an address to listen on|is no address with a port",  # IPv6, and ports
    "is not a duration up to a day",  # as a text
    "is not a whole number|is not a size|is not the number of a user|is not a status",  # 1.0: whole, to JSON
    "is bearerd's own to make|is a field for credentials|is not for this|cannot carry a token",
    r"has \. or \.\. or nothing between slashes|has %2F in it",  # in a rule
)
"""Problems that the schema need not see, as bearerd words them."""


def write_toml(document: Document) -> str:
    """Every table as an inline one but the first level: texts and lists are TOML as JSON has them."""
    lines = []
    for section, table in document.items():
        if not isinstance(table, dict):
            return f"{json.dumps(section)} = {_inline(table)}\n" + write_toml(
                {other: value for other, value in document.items() if other != section}
            )
        lines.append(f"[{json.dumps(section)}]")
        lines += [f"{json.dumps(key)} = {_inline(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _inline(value: object) -> str:
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{json.dumps(key)} = {_inline(inner)}" for key, inner in value.items()) + " }"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schema") / "bearerd.toml"


def problems_of(file: Path, document: Document) -> list[str]:
    file.write_text(write_toml(document), encoding="utf-8")
    file.chmod(0o600)
    try:
        load(file, {}, {})
    except ConfigError as problem:
        return str(problem).splitlines()
    return []


def places(document: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every table's key and every list's element."""
    inner = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


VALUES: Final[list[Any]] = [
    *("", " ", "x", "none", "off", "auto", "memory", "file", "yes", "0", "65536", "0644", "5m", "0s", "25h", "1MiB"),
    *("1 TB", "a b", 'quo"te', "caf\u00e9", "\u0007", "\u0000", "/", "/-/x", "//", "/a/../b", "/x/**", "/x**", "GET"),
    *("get /x", "GET  /x", "X-Api-Key", "Authorization", "Cookie", "h2c", "websocket", "A=/b", "1A", "BEARERD_X"),
    *("{token}", "X-Key: {token}{token}", "X-Key: {token}", "X Key: {token}", "fd:3", "fd:x", "urn:x", "urn:x#y"),
    *("https://a.example.com", "https://a.example.com/", "https://a.example.com/b?c=d", "http://a.example.com"),
    *("HTTPS://A.example.com:443/b", "https://user@a.example.com", "https://", "https:/a", "ftp://a.example.com"),
    *("https://a.example.com:99999", "https://a b", "http://[::1]:80/x", "https://[::1", "http://127.0.0.1/..", "null"),
    *("https://*.example.com", "file:///x", "127.0.0.1", "127.0.0.1:80", "[::1]:80", "::1:80", "127.0.0.01", "::1", "::ffff:127.0.0.1", "0.0.0.0", "api.test."),
    *(0, 1, -1, 0.0, 1.0, 0.5, 400, 499, 500, 6750, 65535, 65536, 86400, 86401, 1 << 40, True, False),
    *([], [""], ["x"], [1], [[]], ["a", "a"], {}, {"x": "y"}, {"x": 1}, {"": "y"}, {"state": "y"}, {"X Y": "z"}),
]  # fmt: skip
KEYS: Final = [
    "prot",
    "Port",
    "",
    "x",
    "upstream",
    "token",
    "/x/",
    "/-/",
    "a..b",
    "a__b",
    "A",
    "/a/./b",
    "x.y",
]


@st.composite
def mutations(draw: st.DrawFn) -> Document:
    """A good file with one value, or one key, that is another."""
    document = copy.deepcopy(GOOD)
    path = draw(st.sampled_from(sorted(places(GOOD), key=repr)))
    node: Any = document
    for part in path[:-1]:
        node = node[part]
    if draw(st.booleans()) or isinstance(path[-1], int):
        node[path[-1]] = draw(st.sampled_from(VALUES))
    else:
        value = node.pop(path[-1])
        node[draw(st.sampled_from(KEYS))] = value
    return document


def test_the_file_that_is_changed_below_is_good(file: Path) -> None:
    VALIDATOR.validate(GOOD)
    assert problems_of(file, GOOD) == []


@settings(deadline=None)
@given(mutations())
def test_what_the_schema_refuses_bearerd_refuses_and_the_other_way_round(
    file: Path, document: Document
) -> None:
    problems = problems_of(file, document)
    if not VALIDATOR.is_valid(document):
        assert problems, document
    else:
        assert [line for line in problems if not may_differ(line)] == []


@pytest.mark.parametrize("section", [*SINGLE, *NAMED])
def test_they_agree_on_each_value_by_itself(section: str) -> None:
    """All settings, all values, alone and as the only element of a list."""
    table = (SINGLE | NAMED)[section]
    schema = SCHEMA["properties"][section]
    settings = (schema["additionalProperties"] if section in NAMED else schema)["properties"]
    needed = {"upstream": "https://api.example.com"} if section == "routes" else {}
    for key, shape in settings.items():
        validator = Draft202012Validator(shape)
        for value in [*VALUES, *([value] for value in VALUES)]:
            texts = refusals(table, needed | {key: value})
            if not validator.is_valid(value):
                assert texts, (key, value)
            else:
                assert [text for text in texts if not may_differ(text)] == [], (key, value)


def refusals(table: type[Table], content: Document) -> list[str]:
    try:
        table.model_validate(content)
    except ValidationError as exc:
        return [describe(error) for error in exc.errors(include_url=False)]
    return []


def may_differ(problem: str) -> bool:
    return any(re.search(text, problem) for text in LEFT_TO_BEARERD)


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert "$id" not in json.dumps(SCHEMA)


@pytest.mark.parametrize("section", [*SINGLE, *NAMED])
def test_every_setting_is_in_it_as_the_document_has_it(section: str) -> None:
    table = SCHEMA["properties"][section]
    table = table["additionalProperties"] if section in NAMED else table
    document = parse_document(load_document())[section].settings
    assert set(table["properties"]) == set((SINGLE | NAMED)[section].model_fields) == set(document)
    for name, found in table["properties"].items():
        assert found["description"].startswith(document[name].purpose)
        if "default" in found:
            Draft202012Validator(found).validate(found["default"])


def test_a_description_has_no_links_and_does_not_point_to_what_is_below() -> None:
    texts = re.findall(r'"description": "(.*?)"[,\n]', json.dumps(SCHEMA, indent=0))
    assert len(texts) > 80
    assert not [text for text in texts if "](" in text or "below" in text.replace("nothing below", "")]


def blocks() -> list[tuple[str, str]]:
    """Those of the pages, but for files that are another product's."""
    pages = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
    return [
        (f"{page.name}-{block.line}", block.text)
        for page in pages
        for block in read_blocks(page.read_text(encoding="utf-8"))
        if block.language == "toml" and "another product" not in block.reason
    ]


EXAMPLES: Final = [
    *((path.name, path.read_text(encoding="utf-8")) for path in sorted((PROJECT / "config").rglob("*.toml"))),
    *blocks(),
]


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_every_example_is_valid(name: str, text: str) -> None:
    """As it is, and with what it offers taken in."""
    del name
    for example in (text, re.sub(r"(?m)^#(?=\[|\w+ = )", "", text)):
        try:
            document = tomllib.loads(example)
        except tomllib.TOMLDecodeError:
            assert example != text  # what is offered may be an alternative to what is there
            continue
        assert [error.message for error in VALIDATOR.iter_errors(document)] == []


def test_the_command_prints_it() -> None:
    result = CliRunner().invoke(main, ["config", "schema"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == SCHEMA
