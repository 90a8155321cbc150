"""From values to what is in effect: the model checks each, then accounts and routes are put together."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError

from bearerd.core.accounts import Account, OAuthSource
from bearerd.core.configuration import Configuration, Keys, Limits, Listen, Logging, Store
from bearerd.core.field_rules import DEFAULT_RULES, FieldRules
from bearerd.core.redaction import MASK, Secret, redact_value
from bearerd.core.rules import build_rules
from bearerd.core.targets import DIRECT, Proxy, Route, Way, parse_origin, parse_route, sort_routes
from bearerd.settings.accounts import KEYS, build_account, check_account, settle
from bearerd.settings.fields import build_fields, check_fields
from bearerd.settings.files import Invalid, PathOf, Problem
from bearerd.settings.keys import build_keys, check_keys, check_remote, settle_keys
from bearerd.settings.listen import build_listen, check_listen
from bearerd.settings.model import (
    NAMED,
    SINGLE,
    AccountTable,
    LimitsTable,
    LogTable,
    RouteTable,
    Settings,
    StoreTable,
)
from bearerd.settings.problems import Problems, describe, setting_name, suggest
from bearerd.settings.sources import PRECEDENCE, SettingPath, Values, build_tree, is_table
from bearerd.settings.store import build_store, check_store, find_unfit, settle_store, used_keys
from bearerd.settings.values import split_variable
from bearerd.settings.ways import build_way, check_way

CREDENTIALS: Final = "$CREDENTIALS_DIRECTORY/"
"""How the path of a file begins that a service manager gives to this service alone (systemd.exec(5))."""
_NO_CREDENTIALS: Final = (
    f"begins with {CREDENTIALS}, which is not there; let systemd start bearerd, with LoadCredential= in its unit, "
    "or name the file"
)
_SECRET_KEYS: Final = frozenset({"client_secret", "key_secret", "refresh_token", "token"})
_Built = TypeVar("_Built")
_ARGV_KEYS: Final = frozenset({"command", "on_login_needed"})
_CALLBACK_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})  # RFC 8252 sections 7.3 and 8.3
_ACCOUNT_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]|_(?!_))*")


@dataclass(frozen=True, slots=True)
class Setting:
    """One value in effect. `value` is fit for JSON, with secrets masked; `source` says where it was written."""

    name: str
    value: object
    source: str


def validate(values: Values, problems: Problems) -> Settings:
    """The values as the model has them. Raises ConfigError with `problems` and what it finds itself."""
    try:
        settings = Settings.model_validate(build_tree(values))
    except ValidationError as exc:
        for error in exc.errors(include_url=False):
            problems.add(_name(error["loc"], values), describe(error))
        settings = Settings()
    problems.check()
    return settings


def _name(location: tuple[str | int, ...], values: Values) -> str:
    """The setting's name, and the flag or variable it is from where that is not the file."""
    name = setting_name(location)
    given = values.get(tuple(str(part) for part in location[: 3 if location[0] in NAMED else 2]))
    return name if given is None or given.origin.kind == "file" else f"{name} (from {given.origin.name})"


def drop_unfit(settings: Settings, values: Values) -> tuple[Values, list[str]]:
    """The values without those of the store that a more specific source rules out, and a warning for each of them."""
    ranks = {
        key: PRECEDENCE.index(values["store", key].origin.kind) for key in settings.store.model_fields_set
    }
    unfit = dict(find_unfit(settings.store, ranks))
    kept = {path: given for path, given in values.items() if path[0] != "store" or path[-1] not in unfit}
    warnings = [
        f"{setting_name(('store', key))} (from {values['store', key].origin.name}): is ignored, for it does not go "
        f"with {setting_name(('store', other))} from {values['store', other].origin.name}; take one of them out"
        for key, other in unfit.items()
    ]
    return kept, warnings


def settle_all(settings: Settings) -> Settings:
    """The settings with what others decide filled in: grants, client authentication, accounts of routes, the store."""
    accounts = {name: settle(table) for name, table in settings.accounts.items()}
    only = next(iter(accounts)) if len(accounts) == 1 else None
    routes = {
        prefix: table.model_copy(update={"account": table.account or only})
        for prefix, table in settings.routes.items()
    }
    store = settle_store(settings.store)
    keys = settle_keys(settings.keys, settings.listen)
    return settings.model_copy(update={"accounts": accounts, "routes": routes, "store": store, "keys": keys})


def build_configuration(
    settings: Settings, settled: Settings, values: Values, problems: Problems
) -> Configuration:
    """Raises ConfigError with every problem that spans several settings or lies in a file they name."""
    accounts: dict[str, Account] = {}
    for name, table in settings.accounts.items():
        accounts |= _build_account(name, table, settled.accounts[name], values, problems)
        text = _check_redirect(table.redirect_uri, settings.listen.public_url)
        if text is not None:
            problems.add(_name(("accounts", name, "redirect_uri"), values), text)
    routes = _build_routes(settled, values, problems)
    limits = _build_limits(settings.limits)
    for key in ("replay", "spool"):
        if getattr(limits, f"{key}_body") > getattr(limits, f"{key}_total"):
            name = _name(("limits", f"{key}_body"), values)
            problems.add(name, f"is more than limits.{key}_total; make it smaller, or that one larger")
    wrong = check_store(settings.store, settled.store)
    store = _build(("store",), wrong, partial(build_store, settled.store), values, problems)
    build = partial(build_listen, settings.listen)
    wrong = chain(check_listen(settings.listen), check_remote(settings.listen))
    listen = _build(("listen",), wrong, build, values, problems)
    wrong = check_keys(settings.keys, settings.listen)
    keys = _build(("keys",), wrong, partial(build_keys, settled.keys), values, problems)
    log = _build(("log",), _check_log(settings.log), partial(_build_log, settings.log), values, problems)
    problems.check()
    return Configuration(
        accounts=accounts,
        routes=sort_routes(routes),
        listen=listen or Listen(),
        keys=keys or Keys(),
        limits=limits,
        store=store or Store(),
        log=log or Logging(),
        on_login_needed=tuple(settings.hooks.on_login_needed),
    )


def _check_log(table: LogTable) -> Iterator[Problem]:
    if table.audit_required and table.audit is None:
        yield "audit_required", "has no file to be required; set audit"


def _build_log(table: LogTable, path_of: PathOf) -> Logging:
    audit = "" if table.audit is None else str(path_of("audit", table.audit).absolute())
    endpoint = table.traces_endpoint or ""
    return Logging(
        table.level, table.format, table.access, audit, table.audit_required, table.traces, endpoint
    )


def _build_limits(table: LimitsTable) -> Limits:
    return Limits(
        replay_body=table.replay_body,
        replay_total=table.replay_total,
        spool_body=table.spool_body,
        spool_total=table.spool_total,
        connections=table.connections,
        header_read_s=table.header_read,
        body_idle_s=table.body_idle,
        keep_alive_s=table.keep_alive,
        drain_s=table.drain,
        upstream_connect_s=table.upstream_connect,
        upstream_idle_s=table.upstream_idle,
    )


def _check_redirect(uri: str | None, public_url: str | None) -> str | None:
    """What is wrong with a redirect URI, or None: a code goes to this machine or to where we say we are."""
    if uri is None:
        return None
    origin, _ = parse_origin(uri)
    if str(origin) == public_url or (origin.scheme == "http" and origin.host in _CALLBACK_HOSTS):
        return None
    if origin.host in _CALLBACK_HOSTS:
        return "is https, which nothing speaks here; use http, or set listen.public_url to its origin"
    return (
        "leads to another machine; use http and 127.0.0.1, [::1] or localhost, "
        "or set listen.public_url to its origin"
    )


def _build_account(
    name: str, table: AccountTable, settled: AccountTable, values: Values, problems: Problems
) -> Mapping[str, Account]:
    if not _ACCOUNT_NAME.fullmatch(name):
        text = "is not an account name; use a-z, 0-9, dot, dash and single underscores"
        problems.add(setting_name(("accounts", name)), text)
    build = partial(build_account, name, settled)
    account = _build(("accounts", name), check_account(table, settled), build, values, problems)
    return {name: account} if account else {}


def _build(
    place: SettingPath,
    wrong: Iterable[Problem],
    build: Callable[[PathOf], _Built],
    values: Values,
    problems: Problems,
) -> _Built | None:
    """What `build` makes of the table at `place`, or None with its problems added."""
    found = list(wrong)
    if not found:
        try:
            return build(partial(_path_of, values, place))
        except Invalid as exc:
            found = [exc.problem]
    for key, text in found:
        problems.add(_name((*place, key), values), text)
    return None


def _path_of(values: Values, place: SettingPath, key: str, text: str) -> Path:
    """Raises Invalid for a credential of a service, where there are none."""
    if text.startswith(CREDENTIALS):
        credentials = os.environ.get(CREDENTIALS.strip("$/"))
        if not credentials:
            raise Invalid(key, _NO_CREDENTIALS)
        return Path(credentials, text.removeprefix(CREDENTIALS))
    given = values.get((*place, key))
    folder = Path(given.origin.name).parent if given and given.origin.kind == "file" else Path()
    return folder / os.path.expanduser(text)  # noqa: PTH111  # pathlib's raises where there is no home


def _build_routes(settled: Settings, values: Values, problems: Problems) -> list[Route]:
    if not settled.routes:
        problems.add("no routes", 'add [routes."/"] with an upstream, or give one with --upstream')
    routes: dict[bytes, Route] = {}
    for prefix, table in settled.routes.items():
        text = _check_account_of(table, list(settled.accounts))
        if text is not None:
            problems.add(_name(("routes", prefix, "account"), values), text)
        try:
            route = replace(
                _build_route(prefix, table),
                way=_build_way(prefix, table, values, problems),
                fields=_build_fields(prefix, table, values, problems),
            )
        except ValueError as exc:
            problems.add(setting_name(("routes", prefix)), str(exc))
            continue
        if route.prefix in routes:
            problems.add(setting_name(("routes", prefix)), "is the same route as one above; keep one of them")
        routes[route.prefix] = route
    return list(routes.values())


def _build_route(prefix: str, table: RouteTable) -> Route:
    """Raises ValueError."""
    route = parse_route(prefix, table.upstream, str(table.account))
    exec_env = tuple(split_variable(variable) for variable in table.exec_env)
    return replace(
        route,
        exec_env=exec_env,
        cookies=table.cookies,
        query_token=table.query_token,
        upgrades=frozenset(protocol.encode() for protocol in table.upgrades),
        response_idle_s=table.response_idle,
        rules=build_rules(
            methods=table.methods, read_only=table.read_only, allow=table.allow, deny=table.deny
        ),
        retry_statuses=frozenset(table.retry_statuses),
        disk_spool=table.spool == "disk",
        expect_continue=table.expect_continue,
        browser_app=table.browser_app,
    )


def _build_way(prefix: str, table: RouteTable, values: Values, problems: Problems) -> Way:
    build = partial(build_way, table)
    wrong = chain(check_way(table), _check_rules(table))
    return _build(("routes", prefix), wrong, build, values, problems) or DIRECT


def _check_rules(table: RouteTable) -> Iterator[Problem]:
    if table.read_only and table.methods:
        yield "read_only", "is set, and so is methods; keep one of them"


def _build_fields(prefix: str, table: RouteTable, values: Values, problems: Problems) -> FieldRules:
    def build(path_of: PathOf) -> FieldRules:
        del path_of  # no file is named
        return build_fields(table)

    return _build(("routes", prefix), check_fields(table), build, values, problems) or DEFAULT_RULES


def _check_account_of(table: RouteTable, names: list[str]) -> str | None:
    """What is wrong with a route's account, or None."""
    if table.account in names:
        return None
    if table.account is not None:
        cure = suggest(table.account, names, f"add [accounts.{table.account}]")
        return f"{table.account!r} is not an account; {cure}"
    if not names:
        return "is missing, and there is no account; add [accounts.NAME]"
    return f"is missing; write one of {', '.join(names)}"


def list_settings(settled: Settings, values: Values) -> Iterator[Setting]:
    """All settings in effect. Keys that an account or the store does not use are left out."""
    for path, value in _single_values(settled):
        yield _setting(path, value, values)
    for name, account in settled.accounts.items():
        for key, value in account:
            if key == "grant" or (key in KEYS[str(account.grant)] and value not in (None, [], {})):
                yield _setting(("accounts", name, key), value, values)
    for prefix, route in settled.routes.items():
        for key, value in route:
            if value is not None:
                yield _setting(("routes", prefix, key), value, values)


def _single_values(settled: Settings) -> Iterator[tuple[SettingPath, object]]:
    unused = StoreTable.model_fields.keys() - used_keys(settled.store)
    for section in SINGLE:
        for key, value in getattr(settled, section):
            if value is not None and not (section == "store" and key in unused):
                yield (section, key), value


def _setting(path: SettingPath, value: object, values: Values) -> Setting:
    given = values.get(path)
    return Setting(setting_name(path), _shown(path, value), str(given.origin) if given else "default")


def _shown(path: SettingPath, value: object) -> object:
    """Secrets masked. So are header fields, and every word of a command but its first: they are there all too often."""
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, Proxy):
        return str(value)
    if path[-1] == "headers" and isinstance(value, dict):
        return dict.fromkeys(value, MASK)
    if path[-1] in _ARGV_KEYS and isinstance(value, list) and value:
        first, *rest = (word for part in value for word in part.split())
        return [first, *(MASK for _ in rest)]
    return value


def list_warnings(configuration: Configuration, values: Values) -> Iterator[str]:
    """What works and is not wise, a line each."""
    for route in configuration.routes:
        if route.origin.scheme == "http" and not route.origin.loopback:
            name = setting_name(("routes", route.name, "upstream"))
            yield f"{name}: is plain http to another machine, which shows the token to the network; use https"
    yield from _list_dangers(configuration.listen)
    if configuration.store.kind == "memory":
        yield from _list_losses(configuration.accounts)
    with_secrets = {
        given.origin.name
        for path, given in values.items()
        if given.origin.kind == "file" and not is_table(path) and _is_secret(path, given.value)
    }
    for path in with_secrets:
        if os.name == "posix" and Path(path).stat().st_mode & 0o044:
            yield f"{path}: holds a secret and other users can read it; chmod 600 it"


def _list_dangers(listen: Listen) -> Iterator[str]:
    """What lets others than this machine's programs in."""
    for text in sorted(listen.allowed_origins):
        if text.startswith("http:") and not parse_origin(text)[0].loopback:
            yield (
                f"listen.allowed_origins: {text} is plain http on another machine: whoever is in between can write its "
                "pages, and make calls by them; use https"
            )
    for host in listen.remote_hosts:
        yield (
            f"listen.hosts: {host} is reached by plain http, which shows client keys and answers to the network; have TLS "
            "in front of it"
        )


def _is_secret(path: SettingPath, value: object) -> bool:
    if path[-1] == "headers" and isinstance(value, dict):
        return any(redact_value(name, text) != text for name, text in value.items())
    return path[-1] in _SECRET_KEYS or (path[-1] == "proxy" and "@" in str(value))


def _list_losses(accounts: Mapping[str, Account]) -> Iterator[str]:
    """The accounts that cannot go on after a restart without a vault."""
    for name, account in accounts.items():
        if isinstance(account.source, OAuthSource) and account.source.spends:
            yield (
                f"{setting_name(('accounts', name))}: loses its login when bearerd ends, for its refresh token is "
                'single-use and store.kind is "memory"; use a vault'
            )
