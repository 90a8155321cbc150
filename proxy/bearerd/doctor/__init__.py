"""The examination of a set-up: each finding a line, with a cure. Nothing is made, mended or set aside by it.

A probe that is written to a folder is removed again at once.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from bearerd.assembly import needs_vault
from bearerd.core.configuration import Store
from bearerd.core.vault import Identity, build_identity
from bearerd.doctor.findings import (
    Finding,
    Level,
    finding_of,
    judge_account,
    judge_clock,
    judge_key,
    judge_lock,
    judge_permissions,
    judge_strays,
    newest,
    sound,
)
from bearerd.doctor.sight import Sight, look
from bearerd.doctor.trials import (
    find_held,
    judge_clients,
    judge_making,
    look_at_key_file,
    read_key,
    try_locks,
    try_writing,
)
from bearerd.settings import Loaded

__all__ = ["Finding", "Level", "examine"]


def examine(loaded: Loaded, now: float) -> Iterator[Finding]:
    """The findings, as they are made. `now` is the wall clock's epoch seconds. Takes seconds where things hang."""
    yield from _examine_settings(loaded)
    configuration = loaded.configuration
    if configuration.keys.use != "off":
        yield judge_clients(configuration.keys)
    identities = [
        build_identity(account.name, account.source)
        for account in configuration.accounts.values()
        if needs_vault(account, configuration.store)
    ]
    if identities:
        yield from _examine_store(configuration.store, identities, now)
    else:
        yield Finding(Level.OK, "vault", "no account is kept in one")
        yield from judge_clock([], now)


def _examine_settings(loaded: Loaded) -> Iterator[Finding]:
    yield Finding(Level.OK, "settings", f"{loaded.path or 'no file'} is good")
    for warning in loaded.warnings:
        yield finding_of(Level.WARN, "settings", warning)


def _examine_store(settings: Store, identities: list[Identity], now: float) -> Iterator[Finding]:
    sight = look(Path(settings.path))
    read = read_key(settings, sight)
    key = read.key
    yield judge_key(read)
    for identity in identities:
        yield from judge_account(sight, identity, key, now)
    yield from judge_strays(sight, identities)
    yield from _examine_locks(sight, identities)
    yield from judge_permissions(sight, look_at_key_file(settings), os.geteuid())
    yield _examine_room(sight)
    records = [(identity.account, newest(sight, identity, key)) for identity in identities if key]
    yield from judge_clock(records, now)


def _examine_locks(sight: Sight, identities: list[Identity]) -> Iterator[Finding]:
    if sight.folder is None:
        yield Finding(Level.OK, "lock", "there is nothing to lock yet")
    elif not sound(sight, os.geteuid()):
        yield Finding(Level.WARN, "lock", f"not tried in {sight.path}", "mend its permissions first")
    else:
        names = [f"{identity.stem}.lock" for identity in identities]
        held = find_held([sight.path / name for name in names if name in sight.files])
        yield from judge_lock(held, try_locks(sight.path))


def _examine_room(sight: Sight) -> Finding:
    if sight.folder is None:
        return judge_making(sight.path)
    if not sound(sight, os.geteuid()):
        return Finding(Level.WARN, "writable", f"not tried in {sight.path}", "mend its permissions first")
    return try_writing(sight.path)
