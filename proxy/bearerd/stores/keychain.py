"""The program that asks the keychain: one request, one answer, in a process of its own.

``python -P -m bearerd.stores.keychain get|set`` reads a JSON line ``{"service", "user", "value"}`` from its input and
writes a JSON line to its output: ``{"value"}``, or ``{"problem", "backend", ...}``. A keychain may ask a person or never
answer at all, so whoever started this ends it when the time is up. It ends by itself when that process is gone.

Only backends that keep secrets with the system are used, whatever a variable, a file or an installed package says:
`keyring` by itself would fall back to a plain file wherever such a backend is installed. Nothing but the standard
library and `keyring` is imported here, and no backend that is not on the list: each costs time at every start.
"""

import configparser
import importlib
import json
import os
import sys
import threading
from typing import Any, Final

ALLOWED: Final = (
    "keyring.backends.SecretService.Keyring",
    "keyring.backends.libsecret.Keyring",
    "keyring.backends.kwallet.DBusKeyring",
    "keyring.backends.macOS.Keyring",
    "keyring.backends.Windows.WinVaultKeyring",
)
_CHAINER: Final = "keyring.backends.chainer.ChainerBackend"
_NAMED: Final = "which PYTHON_KEYRING_BACKEND or keyringrc.cfg names"
_NO_BACKENDS: Final = frozenset(
    {"keyring.backends.chainer", "keyring.backends.fail", "keyring.backends.null"}
)
_INPUT, _OUTPUT, _ERRORS = range(3)


class NoKeychain(Exception):  # noqa: N818  # the state's own name says more than a suffix
    """No backend on the list works here; `found` are the names of those that would have been taken."""

    def __init__(self, found: list[str]) -> None:
        self.found = found


def main() -> None:
    """Raises nothing for what a keychain does; ends without an answer where `keyring` itself is broken."""
    output = os.dup(_OUTPUT)
    os.dup2(_ERRORS, _OUTPUT)  # what a backend prints is no answer
    request = json.loads(_read_line())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.write(output, json.dumps(_answer(sys.argv[1], request)).encode() + b"\n")


def _read_line() -> bytes:
    """Without a buffer: the thread that waits for the end of the input must not share one."""
    line = b""
    while not line.endswith(b"\n") and (data := os.read(_INPUT, 4096)):
        line += data
    return line


def _end_with_parent() -> None:
    """The input ends when the other process does, however it does. A call to a keychain cannot be interrupted."""
    os.read(_INPUT, 1)
    os._exit(1)


def _answer(action: str, request: dict[str, str]) -> dict[str, Any]:
    """Foreign texts stay here: they may hold anything."""
    try:
        name, keyring = select_backend()
    except NoKeychain as exc:
        return {"problem": "none", "found": exc.found}
    from keyring.errors import InitError, KeyringLocked  # noqa: PLC0415  # after whatever is wrong with it is known

    try:
        if action == "set":
            keyring.set_password(request["service"], request["user"], request["value"])
            return {"value": None}
        return {"value": keyring.get_password(request["service"], request["user"])}
    except (KeyringLocked, InitError):
        return {"problem": "locked", "backend": name}
    except Exception as exc:  # noqa: BLE001  # backends raise what they like
        return {"problem": "failed", "backend": name, "error": type(exc).__name__}


def select_backend() -> tuple[str, Any]:
    """The backend that was chosen, if it is on the list, or else the listed one that `keyring` ranks first.

    A chain counts as no choice: it would end with whatever backend is installed. Raises NoKeychain.
    """
    chosen = _chosen()
    if chosen is not None and chosen not in (*ALLOWED, _CHAINER):
        raise NoKeychain([f"{chosen}, {_NAMED}"])
    names = [chosen] if chosen in ALLOWED else ALLOWED
    ranked = [(priority, name) for name in names if (priority := _priority(name)) is not None]
    if not ranked:
        raise NoKeychain([f"{chosen}, {_NAMED}"] if chosen in ALLOWED else _found())
    _, name = max(ranked)
    return name, _load(name)()


def _chosen() -> str | None:
    """The backend named as `keyring` lets one name it. Its own way would import it before it can be refused."""
    if name := os.environ.get("PYTHON_KEYRING_BACKEND"):
        return "".join(name.split())
    from keyring.util.platform_ import config_root  # noqa: PLC0415  # as slow as all of keyring

    config = configparser.RawConfigParser()
    try:
        config.read(os.path.join(config_root(), "keyringrc.cfg"), encoding="utf-8")  # noqa: PTH118  # no pathlib here
        return "".join(config.get("backend", "default-keyring").split()) or None
    except (configparser.Error, UnicodeDecodeError):
        return None


def _priority(name: str) -> float | None:
    """None where the backend cannot work: no daemon, another system, a missing library."""
    try:
        return float(_load(name).priority)
    except Exception:  # noqa: BLE001  # a backend says so by raising what it likes
        return None


def _load(name: str) -> Any:
    module, _, kind = name.rpartition(".")
    return getattr(importlib.import_module(module), kind)


def _found() -> list[str]:
    """What `keyring` would have used instead, to tell the user."""
    from keyring.backend import get_all_keyring  # noqa: PLC0415  # loads every backend there is

    kinds = (type(keyring) for keyring in get_all_keyring())
    return sorted(
        f"{kind.__module__}.{kind.__name__}" for kind in kinds if kind.__module__ not in _NO_BACKENDS
    )


if __name__ == "__main__":
    main()
