"""The forms in which a token is printed for those who run a command to get one."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from bearerd.core.redaction import Secret

FORMAT_VERSION: Final = 1
VARIABLE: Final = "ACCESS_TOKEN"
GIT_USER: Final = "oauth2"
DOCKER_USER: Final = "oauth2accesstoken"

_PLAIN: Final = re.compile(r"[A-Za-z0-9._+/=-][A-Za-z0-9._~+/=-]*")
_LOOPBACK: Final = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")


@dataclass(frozen=True, slots=True)
class HandedToken:
    """An account's access token for another program. `expires_at` is in epoch seconds."""

    account: str
    access_token: Secret
    expires_at: float


def format_raw(token: HandedToken) -> str:
    return token.access_token.reveal()


def format_header(token: HandedToken) -> str:
    return f"Authorization: Bearer {token.access_token.reveal()}"


def format_env(token: HandedToken) -> str:
    """An assignment for a shell or an environment file; quoted for the shell where the token is an odd one."""
    value = token.access_token.reveal()
    if not _PLAIN.fullmatch(value):
        value = "'" + value.replace("'", "'\\''") + "'"
    return f"{VARIABLE}={value}"


def format_json(token: HandedToken) -> str:
    document = {
        "format_version": FORMAT_VERSION,
        "account": token.account,
        "access_token": token.access_token.reveal(),
        "token_type": "Bearer",
        "expires_at": token.expires_at,
        "expires": _instant(token).isoformat(timespec="seconds"),
    }
    return json.dumps(document, indent=2)


def format_k8s_exec(token: HandedToken) -> str:
    """An ExecCredential, for `users[].user.exec` of a kubeconfig with `interactiveMode: Never`."""
    expiry = _instant(token).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = {"token": token.access_token.reveal(), "expirationTimestamp": expiry}
    return json.dumps(
        {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    )


FORMS: Final[Mapping[str, Callable[[HandedToken], str]]] = {
    "raw": format_raw,
    "json": format_json,
    "env": format_env,
    "header": format_header,
    "k8s-exec": format_k8s_exec,
}


def parse_attributes(text: str) -> dict[str, str]:
    """What git tells a credential helper: lines of ``key=value`` up to an empty one."""
    lines = text.split("\n\n", 1)[0].splitlines()
    return {key: value for key, mark, value in (line.partition("=") for line in lines) if mark}


def may_have(attributes: Mapping[str, str]) -> bool:
    """Whether git will send what it gets over https, or to this machine."""
    protocol, host = attributes.get("protocol"), attributes.get("host", "")
    return protocol == "https" or (protocol == "http" and _LOOPBACK.fullmatch(host) is not None)


def format_git(token: HandedToken, attributes: Mapping[str, str]) -> str:
    """The answer to git's `get`. The user is the one git names; most servers do not look at it."""
    answer = {
        "username": attributes.get("username") or GIT_USER,
        "password": token.access_token.reveal(),
        "password_expiry_utc": str(int(token.expires_at)),
    }
    return "\n".join(f"{key}={value}" for key, value in answer.items())


def format_docker(token: HandedToken, server: str) -> str:
    """The answer to docker's `get`."""
    return json.dumps({"ServerURL": server, "Username": DOCKER_USER, "Secret": token.access_token.reveal()})


def _instant(token: HandedToken) -> datetime:
    return datetime.fromtimestamp(token.expires_at, UTC)
