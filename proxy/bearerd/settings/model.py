"""The settings as they are written: the tables of the file, with types and defaults.

Whatever is written in the environment or by a flag is one of these too. Types are strict: a number in
quotes is no number. What spans several keys is not checked here.
"""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf

from bearerd.core.configuration import Keys, Limits, Listen, Logging
from bearerd.core.field_rules import Forwarding, check_field_name
from bearerd.core.proxies import parse_proxy
from bearerd.core.redaction import Secret
from bearerd.core.rules import parse_method
from bearerd.core.targets import Proxy
from bearerd.settings.values import (
    parse_access_token,
    parse_address,
    parse_allow,
    parse_argv,
    parse_authority,
    parse_credential_text,
    parse_deny,
    parse_duration,
    parse_endpoint,
    parse_error_code,
    parse_fields,
    parse_key,
    parse_key_field,
    parse_mode,
    parse_page,
    parse_parameters,
    parse_path,
    parse_probes,
    parse_protocol,
    parse_public_url,
    parse_redirect_uri,
    parse_resource,
    parse_retry_status,
    parse_scope,
    parse_secret,
    parse_server_name,
    parse_size,
    parse_token_path,
    parse_uid,
    parse_upstream,
    parse_variable,
    parse_web_origin,
)

GrantName = Literal["authorization_code", "client_credentials", "refresh_token", "command", "file", "static"]
ClientAuthName = Literal["client_secret_basic", "client_secret_post", "none"]
KeySourceName = Literal["auto", "keychain", "file", "secret"]

Text = Annotated[str, Field(min_length=1)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]
ProxyText = Annotated[InstanceOf[Proxy] | Literal["none"], BeforeValidator(parse_proxy)]
Endpoint = Annotated[Text, AfterValidator(parse_endpoint)]
PathText = Annotated[Text, AfterValidator(parse_path)]
SecretText = Annotated[Secret, BeforeValidator(parse_secret)]

JSON_ONLY: Final = "a list that the environment holds as JSON: commas are common in its elements"

_LISTEN: Final = Listen()
_KEYS: Final = Keys()
_LIMITS: Final = Limits()
_LOG: Final = Logging()


class Table(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True
    )


class ListenTable(Table):
    """``[listen]``"""

    port: int = Field(_LISTEN.port, ge=0, le=65535)
    hosts: list[Annotated[str, AfterValidator(parse_address)]] = list(_LISTEN.hosts)
    remote: bool = False
    allowed_hosts: list[Annotated[str, AfterValidator(parse_authority)]] = []
    allowed_origins: list[Annotated[str, AfterValidator(parse_web_origin)]] = []
    public_url: Annotated[Text, AfterValidator(parse_public_url)] | None = None
    peer_uid: Literal["own", "any"] = "own"
    socket: PathText | None = None
    socket_mode: Annotated[str, AfterValidator(parse_mode)] = "0600"
    socket_uids: list[Annotated[int, BeforeValidator(parse_uid)]] = []
    probes: Annotated[Text, AfterValidator(parse_probes)] | None = None
    probes_remote: bool = False


class KeysTable(Table):
    """``[keys]``"""

    use: Literal["off", "optional", "required"] | None = None
    file: PathText | None = None
    fields: list[Annotated[str, AfterValidator(parse_key_field)]] = list(_KEYS.fields)


class AccountTable(Table):
    """``[accounts.NAME]``. Which keys go together depends on `grant`."""

    grant: GrantName | None = None
    issuer: Endpoint | None = None
    token_endpoint: Endpoint | None = None
    authorization_endpoint: Annotated[Text, AfterValidator(parse_page)] | None = None
    device_authorization_endpoint: Endpoint | None = None
    revocation_endpoint: Endpoint | None = None
    client_id: Text | None = None
    client_secret: SecretText | None = None
    client_secret_file: PathText | None = None
    client_auth: ClientAuthName | None = None
    scopes: list[Annotated[str, AfterValidator(parse_scope)]] = []
    audience: Text | None = None
    resource: Annotated[Text, AfterValidator(parse_resource)] | None = None
    redirect_uri: Annotated[Text, AfterValidator(parse_redirect_uri)] | None = None
    login: bool = True
    authorization_params: Annotated[dict[str, str], BeforeValidator(parse_parameters)] = {}
    ended_errors: list[Annotated[str, AfterValidator(parse_error_code)]] = []
    proxy: ProxyText | None = None
    proxy_file: PathText | None = None
    ca_file: PathText | None = None
    refresh_token: SecretText | None = None
    refresh_token_file: PathText | None = None
    command: Annotated[list[str], BeforeValidator(parse_argv), JSON_ONLY] = []
    command_timeout: Duration = 30.0
    token: Annotated[Secret, BeforeValidator(parse_access_token)] | None = None
    token_file: Annotated[PathText, AfterValidator(parse_token_path)] | None = None


class RouteTable(Table):
    """``[routes."/prefix/"]``"""

    upstream: Annotated[Text, AfterValidator(parse_upstream)]
    account: Text | None = None
    exec_env: list[Annotated[str, AfterValidator(parse_variable)]] = []
    credential: Annotated[Text, AfterValidator(parse_credential_text)] = "Authorization: Bearer {token}"
    inject: Literal["force", "if-absent"] = "force"
    headers: Annotated[dict[str, str], BeforeValidator(parse_fields)] = {}
    drop_headers: list[Annotated[str, AfterValidator(check_field_name)]] = []
    forwarded: Forwarding = "none"
    cookies: bool = True
    query_token: bool = False
    upgrades: list[Annotated[str, AfterValidator(parse_protocol)]] = ["websocket"]
    methods: list[Annotated[str, AfterValidator(parse_method)]] = Field([], min_length=1)
    read_only: bool = False
    allow: list[Annotated[str, AfterValidator(parse_allow)]] = Field([], min_length=1)
    deny: list[Annotated[str, AfterValidator(parse_deny)]] = []
    spool: Literal["memory", "disk"] = "memory"
    expect_continue: bool = True
    retry_statuses: list[Annotated[int, BeforeValidator(parse_retry_status)]] = [401]
    response_idle: Duration | None = None
    browser_app: bool = False
    proxy: ProxyText | None = None
    proxy_file: PathText | None = None
    ca_file: PathText | None = None
    client_cert_file: PathText | None = None
    client_key_file: PathText | None = None
    server_name: Annotated[Text, AfterValidator(parse_server_name)] | None = None


class LimitsTable(Table):
    """``[limits]``"""

    replay_body: Size = _LIMITS.replay_body
    replay_total: Size = _LIMITS.replay_total
    spool_body: Size = _LIMITS.spool_body
    spool_total: Size = _LIMITS.spool_total
    connections: int = Field(_LIMITS.connections, ge=1)
    header_read: Duration = _LIMITS.header_read_s
    body_idle: Duration = _LIMITS.body_idle_s
    keep_alive: Duration = _LIMITS.keep_alive_s
    drain: Duration = _LIMITS.drain_s
    upstream_connect: Duration = _LIMITS.upstream_connect_s
    upstream_idle: Duration = _LIMITS.upstream_idle_s


class StoreTable(Table):
    """``[store]``. Which keys go together depends on `key_source`."""

    kind: Literal["auto", "vault", "memory"] = "auto"
    path: PathText | None = None
    key_source: KeySourceName | None = None
    key_file: PathText | None = None
    key_secret: Annotated[Secret, BeforeValidator(parse_key)] | None = None
    key_secret_file: PathText | None = None


class HooksTable(Table):
    """``[hooks]``"""

    on_login_needed: Annotated[list[str], BeforeValidator(parse_argv), JSON_ONLY] = []


class LogTable(Table):
    """``[log]``"""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
    access: bool = _LOG.access
    audit: PathText | None = None
    audit_required: bool = _LOG.audit_required
    traces: bool = _LOG.traces
    traces_endpoint: Annotated[Text, AfterValidator(parse_upstream)] | None = None


class Settings(Table):
    """The whole file."""

    listen: ListenTable = ListenTable()
    keys: KeysTable = KeysTable()
    accounts: dict[str, AccountTable] = {}
    routes: dict[str, RouteTable] = {}
    limits: LimitsTable = LimitsTable()
    store: StoreTable = StoreTable()
    hooks: HooksTable = HooksTable()
    log: LogTable = LogTable()


# Tables that stand alone, and tables of which there is one per name.
SINGLE: Final[dict[str, type[Table]]] = {
    "listen": ListenTable,
    "keys": KeysTable,
    "limits": LimitsTable,
    "store": StoreTable,
    "hooks": HooksTable,
    "log": LogTable,
}
NAMED: Final[dict[str, type[Table]]] = {"accounts": AccountTable, "routes": RouteTable}
