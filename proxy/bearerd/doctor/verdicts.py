"""What an authorization server's answers say of an account: a finding for each question, with its cure. Pure.

Servers differ in how much they tell. Where an answer does not tell, the finding is a note, never a fault.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

from bearerd.core.accounts import Account, ClientAuth, Grant, OAuthSource
from bearerd.core.authorization import Callback, CallbackRefused, parse_callback
from bearerd.core.id_tokens import SKEW_S
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.metadata import Metadata
from bearerd.core.tokens import Granted, TokenSet, Tombstone
from bearerd.doctor.findings import AHEAD_S, Finding, Level, finding_of

# ---------------------------------------------------------------- discovery


def judge_discovery(source: OAuthSource, found: Metadata | Failure, named: str | None) -> Finding:
    """`named` is the issuer that the document names, where that is not the configured one."""
    if isinstance(found, Failure):
        return _judge_no_metadata(found, named)
    if source.issuer is None:
        return Finding(Level.OK, "discovery", "none is needed, for the configuration names the endpoints")
    problem = _lacking(source, found)
    if problem is not None:
        return problem
    return Finding(Level.OK, "discovery", f"{source.issuer} describes itself, and offers what is used")


def _judge_no_metadata(failure: Failure, named: str | None) -> Finding:
    problem = finding_of(Level.FAIL, "discovery", failure.reason)
    if named is not None:
        return Finding(
            Level.FAIL, "discovery", problem.found, f'set issuer = "{named}" if that is the one you mean'
        )
    return _with_cure(problem, "see what bearerd doctor says of reach, or mend issuer")


def _with_cure(finding: Finding, cure: str) -> Finding:
    return finding if finding.cure else Finding(finding.level, finding.subject, finding.found, cure)


def _lacking(source: OAuthSource, server: Metadata) -> Finding | None:
    """What the account needs and the server says that it has not got."""
    offer = server.offer
    if source.interactive and not (server.authorization_endpoint or server.device_authorization_endpoint):
        cure = "set authorization_endpoint or device_authorization_endpoint, or mend issuer"
        return Finding(Level.FAIL, "discovery", "the metadata names no endpoint to log in at", cure)
    if source.interactive and server.authorization_endpoint and not server.pkce:
        cure = "have it switched on at the server, or log in with: bearerd login --device"
        return Finding(Level.FAIL, "discovery", "the server says that it does not do PKCE with S256", cure)
    if source.interactive and offer.pushed_only:
        text = "the server takes pushed authorization requests alone, which bearerd does not make"
        return Finding(Level.FAIL, "discovery", text, "have it take others for this client")
    if (
        offer.grants is not None
        and source.grant not in offer.grants
        and source.grant is not Grant.REFRESH_TOKEN
    ):
        text = f"{source.grant} is not among the grants that the server lists"
        return Finding(Level.WARN, "discovery", text, "mend grant or issuer, if it is refused")
    if not _lists_auth(source, offer.client_auth):
        text = f"{source.client_auth} is not among the ways to authenticate that the server lists"
        cure = f'set client_auth = "{_other_auth(source)}", if this one is refused'
        return Finding(Level.WARN, "discovery", text, cure)
    return None


def _lists_auth(source: OAuthSource, listed: tuple[str, ...] | None) -> bool:
    """Many servers that take public clients do not list ``none``."""
    return listed is None or source.client_auth is ClientAuth.NONE or source.client_auth in listed


def _other_auth(source: OAuthSource) -> ClientAuth:
    return ClientAuth.POST if source.client_auth is ClientAuth.BASIC else ClientAuth.BASIC


# ---------------------------------------------------------------- clock


def judge_skew(date: str | None, asked_at: float, answered_at: float) -> Finding:
    """Our clock against a `Date` (RFC 9110 section 6.6.1), which is a whole second between the two instants."""
    theirs = _epoch(date)
    if theirs is None:
        return Finding(Level.NOTE, "clock", "the token endpoint does not say what time it is")
    ahead_s = max(asked_at - theirs - 1, 0.0) or min(answered_at - theirs, 0.0)
    if abs(ahead_s) <= AHEAD_S:
        return Finding(Level.OK, "clock", "this machine's clock and the token endpoint's agree")
    level = Level.FAIL if abs(ahead_s) > SKEW_S else Level.WARN
    text = f"this machine's clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the token endpoint's"
    return Finding(level, "clock", text, "set it: timedatectl set-ntp true, or date --set")


def _epoch(date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(date or "").timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


# ---------------------------------------------------------------- client

_NOT_TAKEN: Final = frozenset({"invalid_client", "incorrect_client_credentials"})  # the second is GitHub's
_NO_CODE: Final = frozenset({"invalid_grant", "bad_verification_code", "expired_token"})
_NOT_THE_CLIENT: Final = frozenset({"invalid_scope", "invalid_target"})


def judge_client(source: OAuthSource, status: int, outcome: Granted | Failure, *, by_device: bool) -> Finding:
    """What came of a token request: a real one for client credentials, else one with a grant that nobody ever gave.

    What `status` 401 comes with differs: ``invalid_client`` (RFC 6749 section 5.2), ``unauthorized_client`` (Keycloak),
    ``access_denied`` (Auth0). `by_device` says that there is another way to log in than by a code.
    """
    how = "without a secret" if source.client_auth is ClientAuth.NONE else f"by {source.client_auth}"
    who = f"client {source.client_id!r} {how}"
    if isinstance(outcome, Granted):
        return Finding(Level.OK, "client", f"the token endpoint takes {who}")
    error = outcome.error
    if error in _NOT_TAKEN or (status == 401 and error is not None):
        return Finding(Level.FAIL, "client", f"{who} is not taken: {outcome.reason}", _client_cure(source))
    if outcome.kind is FailureKind.TRANSIENT:
        return Finding(Level.WARN, "client", f"it cannot be told now: {outcome.reason}", "try again later")
    if error in _NO_CODE or error in source.ended_errors or error in _NOT_THE_CLIENT:
        return Finding(Level.OK, "client", f"the token endpoint takes {who}")
    if error in {"unauthorized_client", "unsupported_grant_type"} and source.grant is not Grant.REFRESH_TOKEN:
        text = f"{who} may not use the grant {source.grant}: {outcome.reason}"
        cure = "allow it that grant at the server, or mend client_id and client_secret"
        if by_device:
            return Finding(Level.WARN, "client", text, f"{cure}, or use: bearerd login --device")
        return Finding(Level.FAIL, "client", text, cure)
    if source.grant is Grant.CLIENT_CREDENTIALS:
        return Finding(Level.FAIL, "client", f"no token is given: {outcome.reason}", "mend what it names")
    return Finding(
        Level.NOTE, "client", f"whether {who} is taken cannot be told from outside: {outcome.reason}"
    )


def _client_cure(source: OAuthSource) -> str:
    if source.client_auth is ClientAuth.NONE:
        return "mend client_id; if this client has a secret, set client_secret_file"
    return f'mend client_id and client_secret; if they are right, set client_auth = "{_other_auth(source)}"'


UNTRIED: Final = Finding(
    Level.NOTE, "client", "not tried, for that shows its secret to the server", "bearerd doctor --online does"
)


# ---------------------------------------------------------------- redirect URI


class Clue(Enum):
    """What a page that refuses a request is about, where that can be read from it."""

    REDIRECT = "redirect"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Landed:
    """The server sends browsers back to the redirect URI, with this."""

    callback: Callback | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A page that sends nobody anywhere (RFC 6749 section 4.1.2.1)."""

    status: int
    clue: Clue | None


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A page for the person, or the way to one."""


@dataclass(frozen=True, slots=True)
class Silent:
    """No answer that says anything. Why."""

    problem: str


Answer = Landed | Refused | Elsewhere | Silent

# Names of parameters count, but for those in addresses, as a page repeats them: `redirect_uri=...`.
_NOT_IN_ADDRESS: Final = r"(?!\s*(?:=|%3d|\\u003d|&#(?:61|x3d);))"
_OF_REDIRECT: Final = re.compile(
    rb"(?i)\b(?:redirect[_ ]ur[il]|callback[_ ]url|reply[_ ]url)" + _NOT_IN_ADDRESS.encode()
)
_OF_CLIENT: Final = re.compile(
    rb"(?i)\b(?:(?:invalid|unknown|unauthorized)[_ ]client\b|client (?:is )?(?:not found|invalid|unknown)|client[_ ]id\b)"
    + _NOT_IN_ADDRESS.encode()
)


def read_answer(status: int, location: str | None, body: bytes, redirect_uri: str) -> Answer:
    """What an authorization endpoint's answer to a made request is."""
    if 300 <= status < 400 and location is not None:
        return _read_location(location, redirect_uri)
    if status < 400:
        return Elsewhere()
    if status >= 500 or status == 429:
        return Silent(f"the authorization endpoint answers {status}")
    clue = Clue.REDIRECT if _OF_REDIRECT.search(body) else Clue.CLIENT if _OF_CLIENT.search(body) else None
    return Refused(status, clue)


def _read_location(location: str, redirect_uri: str) -> Answer:
    if location.partition("?")[0].partition("#")[0] != redirect_uri.partition("?")[0]:
        return Elsewhere()
    try:
        return Landed(parse_callback(urlsplit(location).query.encode("ascii")))
    except (CallbackRefused, ValueError):
        return Landed(None)


_TELLS_OF_NOTHING_BUT_US: Final = frozenset(
    {"invalid_scope", "unauthorized_client", "unsupported_response_type"}
)
_WANTS_A_PERSON: Final = frozenset(
    {
        "login_required",
        "interaction_required",
        "consent_required",
        "account_selection_required",
        "access_denied",
    }
)


def is_told(answer: Answer) -> bool:
    """Whether an answer to a request with ``prompt=none`` settles it: not every server knows what that is."""
    if not isinstance(answer, Landed) or answer.callback is None:
        return False
    error = answer.callback.error
    return error is None or error in _WANTS_A_PERSON or error in _TELLS_OF_NOTHING_BUT_US


def judge_redirect(source: OAuthSource, uri: str, answer: Answer, other: Answer | None) -> Finding:
    """`other` is the answer to the same request with a redirect URI that nobody registers, where `answer` tells nothing."""
    match answer:
        case Landed(callback):
            return _judge_landed(uri, callback)
        case Refused(clue=Clue.REDIRECT):
            cure = f"register exactly {uri} for client {source.client_id!r}, or set redirect_uri to what is registered"
            return Finding(Level.FAIL, "redirect", f"{uri} is not registered: the server refuses it", cure)
        case Refused(clue=Clue.CLIENT):
            text = f"the server does not know client {source.client_id!r}, or lets nobody log in with it"
            return Finding(Level.FAIL, "redirect", text, "mend client_id or issuer")
        case Silent(problem):
            return Finding(Level.WARN, "redirect", f"it cannot be told now: {problem}", "try again later")
        case Elsewhere() if isinstance(other, Refused):
            return Finding(Level.OK, "redirect", f"the server takes {uri}, and refuses another")
        case _:
            text = f"whether {uri} is registered cannot be told from outside: a login tells"
            return Finding(Level.NOTE, "redirect", text)


def _judge_landed(uri: str, callback: Callback | None) -> Finding:
    error = callback.error if callback else None
    if error is None or error in _WANTS_A_PERSON or error == "invalid_scope":
        return Finding(Level.OK, "redirect", f"the server takes {uri}")
    said = _said(callback)
    if error in _TELLS_OF_NOTHING_BUT_US:
        return Finding(
            Level.FAIL,
            "redirect",
            f"the server lets nobody log in with this client: {said}",
            "allow it the authorization code grant at the server",
        )
    if error in {"temporarily_unavailable", "server_error"}:
        return Finding(Level.WARN, "redirect", f"it cannot be told now: {said}", "try again later")
    cure = "mend what it names: audience, resource, scopes or authorization_params"
    return Finding(Level.FAIL, "redirect", f"the server takes {uri}, but not the rest: {said}", cure)


def _said(callback: Callback | None) -> str:
    if callback is None:
        return ""
    return "the server says " + ": ".join(
        filter(None, ((callback.error or "")[:64], callback.error_description))
    )


# ---------------------------------------------------------------- scopes


def judge_scopes(
    source: OAuthSource, listed: tuple[str, ...] | None, granted: str | None, refusal: str | None
) -> Finding:
    """`granted` is what a token has been given for them (RFC 6749 section 5.1), `refusal` what the server said against them.

    A server need not list all scopes that it has (RFC 8414 section 2), so one that is not listed is no fault.
    """
    unlisted = [scope for scope in source.scopes if listed is not None and scope not in listed]
    if refusal is not None:
        which = ", ".join(unlisted or source.scopes)
        cure = f"take out of scopes what it does not have, or have it allowed for this client: {which}"
        return Finding(Level.FAIL, "scopes", f"the scopes are refused: {refusal}", cure)
    if not source.scopes:
        return Finding(Level.OK, "scopes", "none are asked for")
    missing = _missing(source.scopes, granted)
    if missing:
        cure = "have them allowed for this client, or take them out of scopes"
        return Finding(Level.WARN, "scopes", f"asked for and not granted: {', '.join(missing)}", cure)
    if granted is not None:
        return Finding(Level.OK, "scopes", "all that are asked for are granted")
    if unlisted:
        return Finding(
            Level.NOTE,
            "scopes",
            f"not among those that the server lists, which need not be all: {', '.join(unlisted)}",
        )
    return Finding(Level.OK, "scopes", "nothing speaks against them")


_NEVER_GRANTED: Final = frozenset({"openid", "profile", "email", "offline_access"})
"""Not all servers name these among those of an access token."""


def _missing(asked: tuple[str, ...], granted: str | None) -> list[str]:
    """Some servers have commas between them; Entra leaves out the API before the last slash, and ``.default`` is no scope."""
    if granted is None:
        return []
    given = frozenset(re.split(r"[\s,]+", granted)) | _NEVER_GRANTED
    return [
        scope
        for scope in asked
        if not given & {scope, scope.rpartition("/")[2]} and not scope.endswith(".default")
    ]


def judge_granted(account: Account, record: TokenSet | Tombstone | None) -> Iterator[Finding]:
    """What the login that is kept was granted, where that is less than what is asked for now."""
    if not isinstance(record, TokenSet) or not isinstance(account.source, OAuthSource):
        return
    missing = _missing(account.source.scopes, record.scope)
    if missing:
        text = f"{account.name}: not granted at the last login: {', '.join(missing)}"
        cure = f"have them allowed for this client, or take them out of scopes; then: bearerd login {account.name}"
        yield Finding(Level.WARN, "scopes", text, cure)


def refusal_of_scopes(answer: Answer | None, outcome: Granted | Failure | None) -> str | None:
    """What an authorization endpoint's answer, or a token endpoint's, says against the scopes."""
    if isinstance(answer, Landed) and answer.callback and answer.callback.error == "invalid_scope":
        return _said(answer.callback)
    if isinstance(outcome, Failure) and outcome.error == "invalid_scope":
        return outcome.reason
    return None
