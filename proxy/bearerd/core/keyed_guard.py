"""Who may call where clients have keys: the guard, and what a key opens and closes. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from bearerd.core.client_keys import ClientKey, Presented, find_key, has_key
from bearerd.core.cors import preflight
from bearerd.core.guard import Guard, Head, is_own, refuse
from bearerd.core.problems import Problem
from bearerd.core.rules import overrides_method
from bearerd.core.targets import Route, match_route, path_of

_REFUSED: Final = "http_request_denied"
_OPEN: Final = frozenset({b"/-/livez", b"/-/readyz", b"/-/healthz", b"/-/callback"})
_UNKNOWN: Final = (
    "this client key is not one of this daemon's, or was revoked; list them with: bearerd key list, make one with: "
    "bearerd key create"
)
_SEVERAL: Final = "there are several client keys in this request; send one of them"
_MISSING: Final = (
    "this daemon wants a client key; make one with: bearerd key create, and give it to the client as its API key "
    "(Authorization: Bearer, X-Api-Key or the password of Basic)"
)
_NO_PAGES: Final = Problem(
    403,
    "key_limited",
    "this client key is for calls alone, for it is limited; see these pages with one that has no limits",
    _REFUSED,
)
_IN_TARGET: Final = Problem(
    403,
    "key_in_target",
    "a client key is in the request target, where logs keep it; revoke it with: bearerd key revoke, and send another in a "
    "header field",
    _REFUSED,
)
_OVERRIDDEN: Final = Problem(
    403,
    "method_override",
    "the call asks for another method than its own (X-HTTP-Method-Override or the like, or _method in the query), and this "
    "client key is limited to some methods; send it with the method that is meant",
    _REFUSED,
)


@dataclass(frozen=True, slots=True)
class Policy:
    """`guard` says whether anybody calls without a key. `carriers` are canonical names of fields that may have it, beside
    Authorization.
    """

    guard: Guard
    routes: tuple[Route, ...]
    carriers: frozenset[bytes]


def judge_client(
    policy: Policy, keys: Iterable[ClientKey], shown: list[Presented], head: Head
) -> tuple[ClientKey | None, Problem | None]:
    """The client's key, if it has one, and why its request is refused, if it is. What `refuse` says is said first. `shown` is
    what it has where a key may be.

    A key that the client itself has put there shows that no web page without it has made this request, so Origin and
    Fetch Metadata need not. Basic shows nothing: a browser adds it to whatever a page sends here. A preflight never has
    a key, and is answered here.
    """
    key = _recognise(keys, shown)
    explicit = any(not each.basic for each in shown)
    vouched = explicit or isinstance(key, Problem) or _asks_first(policy, head)
    problem = refuse(policy.guard, head, vouched=vouched) or _judge_key(policy, key, head)
    return None if isinstance(key, Problem) else key, problem


def _recognise(keys: Iterable[ClientKey], shown: list[Presented]) -> ClientKey | Problem | None:
    """One digest for each request, whatever is in it."""
    texts = {each.text for each in shown}
    if not texts:
        return None
    if len(texts) > 1:
        return _unauthorized("key_refused", _SEVERAL)
    return find_key(keys, texts.pop()) or _unauthorized("key_refused", _UNKNOWN)


def _asks_first(policy: Policy, head: Head) -> bool:
    """Whether it is a preflight that is answered here: for any origin where the call that follows needs a key."""
    return not is_own(policy.guard, head.target) and preflight(policy.guard, head) is not None


def _judge_key(policy: Policy, key: ClientKey | Problem | None, head: Head) -> Problem | None:
    if has_key(head.target):
        return _IN_TARGET
    if isinstance(key, Problem):
        return _challenge(policy, key, head)
    if key is not None:
        return _refuse_limited(policy, key, head) if key.limited else None
    if not policy.guard.keyed or is_open(policy.guard, head) or _asks_first(policy, head):
        return None
    return _challenge(policy, _unauthorized("key_missing", _MISSING), head)


def is_open(guard: Guard, head: Head) -> bool:
    """What needs no key: probes, which cannot have one, and where logins come back to, which have a state of their own."""
    path = path_of(head.target)
    return path in _OPEN or path in guard.callbacks


def _refuse_limited(policy: Policy, key: ClientKey, head: Head) -> Problem | None:
    if is_own(policy.guard, head.target):
        return None if is_open(policy.guard, head) else _NO_PAGES
    route = match_route(policy.routes, head.target)
    if route is None:
        return None  # whoever forwards says so
    if key.routes and route.name not in key.routes:
        return _limited("routes", key.routes)
    if key.accounts and route.account not in key.accounts:
        return _limited("accounts", key.accounts)
    if key.methods and head.method not in key.methods:
        return _limited("methods", key.methods)
    return _OVERRIDDEN if key.methods and overrides_method(head.target, head.headers) else None


def _limited(what: str, allowed: Iterable[str]) -> Problem:
    detail = f"this client key is for the {what} {', '.join(sorted(allowed))} alone; use another key"
    return Problem(403, "key_limited", detail, _REFUSED)


def _unauthorized(code: str, detail: str) -> Problem:
    return Problem(401, code, detail, _REFUSED)


def _challenge(policy: Policy, problem: Problem, head: Head) -> Problem:
    """With WWW-Authenticate (RFC 9110 section 11.6.1). A browser asks a person for the password of Basic, so only our own
    pages want that: it is never asked for on the way to an upstream.
    """
    if is_own(policy.guard, head.target):
        challenge = 'Basic realm="bearerd", charset="UTF-8"'
    elif problem.code == "key_refused":
        challenge = 'Bearer realm="bearerd", error="invalid_token"'
    else:
        challenge = 'Bearer realm="bearerd"'
    return replace(problem, headers=(("WWW-Authenticate", challenge),))
