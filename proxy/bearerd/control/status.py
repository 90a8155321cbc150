"""What the daemon says of itself: as values, for people's tables and programs' JSON alike."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bearerd import __version__
from bearerd.core.lifecycle import (
    Active,
    Backoff,
    InFlight,
    LoginPending,
    LoginRequired,
    NoToken,
    State,
    phase_of,
    token_of,
)
from bearerd.core.targets import Route

FORMAT_VERSION = 1
ELSEWHERE = "give it a new refresh token, or log in where its vault is filled"
"""What mends an account whose login has ended, and that nobody may log in to here."""


def build_status(
    states: Mapping[str, State],
    routes: tuple[Route, ...],
    addresses: tuple[str, ...],
    now: float,
    login_urls: Mapping[str, str] | None = None,
    socket: str | None = None,
) -> dict[str, Any]:
    """The status document. Times are epoch seconds and RFC 3339; it holds no secret and no fingerprint.

    `login_urls` has those accounts that a person may log in to here; `socket` is the path of a Unix socket.
    """
    urls = login_urls or {}
    return {
        "format_version": FORMAT_VERSION,
        "version": __version__,
        "addresses": list(addresses),
        "socket": socket,
        "accounts": [_account(name, state, now, urls.get(name)) for name, state in sorted(states.items())],
        "routes": [
            {
                "prefix": route.name,
                "upstream": f"{route.origin}{route.base.decode()}",
                "account": route.account,
            }
            for route in routes
        ],
    }


def summarise(document: Mapping[str, Any]) -> str:
    """The status document as one line."""
    accounts = document["accounts"]
    lost = [account for account in accounts if account["state"] == "login_required"]
    line = f"{', '.join(list_places(document))}; {len(accounts)} account{'s'[: len(accounts) != 1]}"
    if not lost:
        return line
    cures = [account["cure"] for account in lost if account["cure"]]
    needs = f"{line}, {len(lost)} need{'s'[: len(lost) == 1]} a login"
    return f"{needs}: {cures[0]}" if cures else needs


def list_places(document: Mapping[str, Any]) -> list[str]:
    """Where the daemon of a status document listens, for people. One of an earlier version says nothing of sockets."""
    socket = document.get("socket")
    return [*document["addresses"], *([f"unix:{socket}"] if socket else [])]


def _account(name: str, state: State, now: float, login_url: str | None) -> dict[str, Any]:
    token = token_of(state)
    usable = token is not None and now < token.expires_at
    return {
        "name": name,
        "state": _name(state, usable=usable),
        "subject": token.subject if token else None,
        "expires": _instant(token.expires_at) if token and token.expires_at else None,
        "seconds_left": max(0, int(token.expires_at - now)) if token and token.expires_at else None,
        "last_refresh": _instant(token.obtained_at) if token and token.obtained_at else None,
        "problem": _problem(state),
        "cure": f"bearerd login {name}" if login_url and isinstance(state, LoginRequired) else None,
        "login_url": login_url,
        "can_log_out": login_url is not None and (token is not None or isinstance(state, LoginPending)),
    }


def _name(state: State, *, usable: bool) -> str:
    match state:
        case Active() if usable:
            return "active"
        case Active() | NoToken():
            return "waiting"
        case LoginPending():
            return "login_pending"
        case LoginRequired():
            return "login_required"


def _problem(state: State) -> str | None:
    match state:
        case LoginRequired(reason=reason) | LoginPending(reason=reason):
            return reason
        case _:
            phase = phase_of(state)
    if isinstance(phase, Backoff):
        return phase.failure.reason
    return phase.last.reason if isinstance(phase, InFlight) and phase.last else None


def _instant(at: float) -> dict[str, Any]:
    return {"epoch": at, "rfc3339": datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")}
