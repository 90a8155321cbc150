"""From the table of an account to the account: which keys go together, and secrets from files."""

import errno
import os
from collections.abc import Iterator
from typing import Final

from bearerd.core.accounts import (
    Account,
    ClientAuth,
    CommandSource,
    FileSource,
    Grant,
    OAuthSource,
    Source,
    StaticSource,
)
from bearerd.settings.files import Invalid, PathOf, Problem, cannot_read, load_secret
from bearerd.settings.model import AccountTable, GrantName
from bearerd.settings.sources import reason
from bearerd.settings.values import is_descriptor
from bearerd.settings.ways import build_way

_CLIENT_KEYS: Final = frozenset(
    {
        "issuer",
        "token_endpoint",
        "client_id",
        "client_secret",
        "client_secret_file",
        "client_auth",
        "scopes",
        "audience",
        "resource",
        "proxy",
        "proxy_file",
        "ca_file",
    }
)
_SPENDING_KEYS: Final = _CLIENT_KEYS | {"revocation_endpoint", "ended_errors"}
_LOGIN_KEYS: Final = _SPENDING_KEYS | {
    "authorization_endpoint",
    "device_authorization_endpoint",
    "authorization_params",
    "redirect_uri",
    "login",
}
KEYS: Final = {
    "authorization_code": _LOGIN_KEYS,
    "client_credentials": _CLIENT_KEYS,
    "refresh_token": _SPENDING_KEYS | {"refresh_token", "refresh_token_file"},
    "command": frozenset({"command", "command_timeout"}),
    "file": frozenset({"token_file"}),
    "static": frozenset({"token"}),
}
_NEEDED: Final = {"command": "command", "file": "token_file", "static": "token"}
_TELLING: Final[dict[str, GrantName]] = {
    "command": "command",
    "token_file": "file",
    "token": "static",
    "refresh_token": "refresh_token",
    "refresh_token_file": "refresh_token",
    # What only a login needs comes last: it may stand beside a token that somebody has brought.
    "issuer": "authorization_code",
    "authorization_endpoint": "authorization_code",
    "device_authorization_endpoint": "authorization_code",
    "token_endpoint": "authorization_code",
}
_OAUTH_GRANTS: Final = {"authorization_code", "client_credentials", "refresh_token"}
_EITHER: Final = (
    ("issuer", "token_endpoint"),
    ("client_secret", "client_secret_file"),
    ("refresh_token", "refresh_token_file"),
    ("token", "token_file"),
    ("proxy", "proxy_file"),
)
_MISSING_GRANT: Final = f"is missing; set issuer for a login by browser, or write one of {', '.join(KEYS)}"


def settle(table: AccountTable) -> AccountTable:
    """The table with `grant` and `client_auth` as the other keys decide them, where they are left out."""
    grant = table.grant or next(
        (grant for key, grant in _TELLING.items() if key in table.model_fields_set), None
    )
    auth = table.client_auth
    if auth is None and grant in _OAUTH_GRANTS:
        auth = "client_secret_basic" if _has_secret(table) else "none"
    return table.model_copy(update={"grant": grant, "client_auth": auth})


def check_account(table: AccountTable, settled: AccountTable) -> Iterator[Problem]:
    """What is wrong with how the keys of a table go together."""
    given = table.model_fields_set
    twice = [pair for pair in _EITHER if given.issuperset(pair)]
    yield from ((first, f"is set, and so is {second}; keep one of them") for first, second in twice)
    if settled.grant is None:
        yield "grant", _MISSING_GRANT
    elif not twice:
        yield from _check_keys(given, settled.grant)
        yield from _check_client(table, settled)


def _check_keys(given: set[str], grant: str) -> Iterator[Problem]:
    for key in sorted(given - KEYS[grant] - {"grant"}):
        yield key, f'does not belong to grant = "{grant}"; take it out or choose another grant'
    needed = _NEEDED.get(grant)
    if needed and needed not in given:
        yield needed, f'is missing; set it, for grant = "{grant}" needs it'


def _check_client(table: AccountTable, settled: AccountTable) -> Iterator[Problem]:
    """The rules of the grants that ask a token endpoint."""
    if settled.grant not in _OAUTH_GRANTS:
        return
    yield from _check_login(table) if settled.grant == "authorization_code" else _check_server(table)
    if not table.client_id:
        yield "client_id", "is missing; set it to what the authorization server calls this client"
    if settled.grant == "refresh_token" and not (table.refresh_token or table.refresh_token_file):
        yield "refresh_token", "is missing; set it or refresh_token_file"
    yield from _check_secret(table, settled)


def _check_server(table: AccountTable) -> Iterator[Problem]:
    if not table.issuer and not table.token_endpoint:
        yield "issuer", "is missing; set it, or token_endpoint where the server has no metadata"


def _check_login(table: AccountTable) -> Iterator[Problem]:
    """Who may not log in here needs no place to do so: another bearerd fills the vault."""
    if table.issuer:
        return
    begins = table.authorization_endpoint or table.device_authorization_endpoint
    if not table.token_endpoint and not begins:
        yield "issuer", "is missing; set it, or the endpoints where the server has no metadata"
    elif not table.token_endpoint:
        yield "token_endpoint", "is missing; set it, or issuer in place of the endpoints"
    elif table.login and not begins:
        yield (
            "authorization_endpoint",
            "is missing; set it or device_authorization_endpoint, or choose another grant",
        )


def _check_secret(table: AccountTable, settled: AccountTable) -> Iterator[Problem]:
    """client_credentials is for clients with a secret (RFC 6749 section 4.4): to do without one takes a word."""
    if _has_secret(table):
        if settled.client_auth == "none":
            yield "client_auth", 'is "none", but there is a client secret; take one of them out'
    elif table.client_auth not in {None, "none"}:
        yield "client_auth", "needs a secret; set client_secret or client_secret_file"
    elif table.client_auth is None and settled.grant == "client_credentials":
        yield "client_secret", 'is missing; set it or client_secret_file, or client_auth = "none"'


def _has_secret(table: AccountTable) -> bool:
    return bool(table.client_secret or table.client_secret_file)


def build_account(name: str, table: AccountTable, path_of: PathOf) -> Account:
    """The account of a settled table without problems. Raises Invalid for a file that cannot be used."""
    return Account(name, _build_source(table, path_of))


def _build_source(table: AccountTable, path_of: PathOf) -> Source:
    if table.grant == "command":
        return CommandSource(tuple(table.command), table.command_timeout)
    if table.token_file:
        return _build_file(table.token_file, path_of)
    if table.token:
        return StaticSource(table.token)
    return OAuthSource(
        grant=Grant(str(table.grant)),
        client_id=str(table.client_id),
        client_auth=ClientAuth(str(table.client_auth)),
        client_secret=table.client_secret
        or load_secret("client_secret_file", table.client_secret_file, path_of),
        issuer=table.issuer,
        token_endpoint=table.token_endpoint,
        scopes=tuple(table.scopes),
        audience=table.audience,
        resource=table.resource,
        refresh_token=table.refresh_token
        or load_secret("refresh_token_file", table.refresh_token_file, path_of),
        authorization_endpoint=table.authorization_endpoint,
        device_authorization_endpoint=table.device_authorization_endpoint,
        revocation_endpoint=table.revocation_endpoint,
        redirect_uri=table.redirect_uri,
        login=table.login,
        authorization_params=tuple(table.authorization_params.items()),
        ended_errors=tuple(table.ended_errors),
        way=build_way(table, path_of),
    )


def _build_file(text: str, path_of: PathOf) -> FileSource:
    """The file is not read: it changes, and may be a pipe."""
    if is_descriptor(text):
        return FileSource(text)
    path = path_of("token_file", text)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "")
        path.stat()
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, "")
    except OSError as exc:
        raise Invalid("token_file", cannot_read(path, reason(exc))) from None
    return FileSource(str(path))
