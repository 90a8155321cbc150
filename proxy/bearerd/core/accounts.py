"""What an account is: where its tokens come from."""

from dataclasses import dataclass, field
from enum import StrEnum

from bearerd.core.redaction import Secret
from bearerd.core.targets import DIRECT, Way


class Grant(StrEnum):
    """How an account's first token comes about: by a person (RFC 6749 section 4.1), or by nobody (4.4 and 6)."""

    AUTHORIZATION_CODE = "authorization_code"
    CLIENT_CREDENTIALS = "client_credentials"
    REFRESH_TOKEN = "refresh_token"  # noqa: S105  # the name of a grant


class ClientAuth(StrEnum):
    """How the client authenticates at the token endpoint (RFC 6749 section 2.3.1, RFC 7591 section 2)."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class OAuthSource:
    """Tokens by an OAuth grant. Exactly one of `issuer` and `token_endpoint` is set."""

    grant: Grant
    client_id: str
    client_auth: ClientAuth = ClientAuth.BASIC
    client_secret: Secret | None = None
    issuer: str | None = None
    token_endpoint: str | None = None
    scopes: tuple[str, ...] = ()
    audience: str | None = None
    resource: str | None = None  # RFC 8707
    refresh_token: Secret | None = None  # what to begin with; spent once
    authorization_endpoint: str | None = None
    device_authorization_endpoint: str | None = None  # RFC 8628
    revocation_endpoint: str | None = None  # RFC 7009
    redirect_uri: str | None = None  # as registered, where the default one cannot be
    login: bool = True  # False: nobody may log in here
    authorization_params: tuple[tuple[str, str], ...] = ()  # what a provider wants beside the standard ones
    ended_errors: tuple[str, ...] = ()  # what a provider says in place of invalid_grant
    way: Way = DIRECT  # to all of the server's https endpoints

    @property
    def spends(self) -> bool:
        """Whether its tokens are renewed by refresh tokens."""
        return self.grant is not Grant.CLIENT_CREDENTIALS

    @property
    def interactive(self) -> bool:
        """Whether a person may log in here."""
        return self.grant is Grant.AUTHORIZATION_CODE and self.login


@dataclass(frozen=True, slots=True)
class CommandSource:
    """Tokens printed by a program, started without a shell."""

    argv: tuple[str, ...] = field(repr=False)
    timeout_s: float


@dataclass(frozen=True, slots=True)
class FileSource:
    """A token somebody else keeps fresh in a file; ``fd:N`` names an inherited descriptor."""

    path: str


@dataclass(frozen=True, slots=True)
class StaticSource:
    """One token that never changes."""

    token: Secret


Source = OAuthSource | CommandSource | FileSource | StaticSource


@dataclass(frozen=True, slots=True)
class Account:
    """A name and where its tokens come from."""

    name: str
    source: Source
