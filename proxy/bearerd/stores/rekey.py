"""Another key for a vault that is in use: every file is sealed anew, or none.

All files are looked at before the first is written, under the lock of the store's key and each account's refresh lock.
Each is replaced at once and whole, so a run that is killed leaves every file sealed by the old key or the new one; the
next run with the same places takes up where that one ended. The old key stays where it is.
"""

import secrets
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from bearerd.core.configuration import Store
from bearerd.core.tokens import TokenSet, Tombstone
from bearerd.core.vault import (
    FORMAT,
    MAGIC,
    NONCE_BYTES,
    Identity,
    Key,
    OtherKey,
    VaultError,
    seal,
    unseal,
)
from bearerd.errors import RefreshLockTimeout, StoreError
from bearerd.stores.keys import KeyPlace, find_place, load_key, make_key
from bearerd.stores.lock import WAIT_S, KernelLock
from bearerd.stores.vault import VaultFolder


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """What was done. `place` names where the key is, to the user; None where there was nothing to seal."""

    place: str | None = None
    sealed: tuple[str, ...] = ()
    already: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with each file, by its name."""

    seal: dict[str, TokenSet | Tombstone] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    already: tuple[str, ...] = ()


class _Act(Enum):
    KEEP = auto()
    REMOVE = auto()


def identity_of(name: str) -> Identity:
    """Whose file it is, as its name has it: an account's name may have hyphens, the digest has none."""
    account, _, digest = name.rpartition(".")[0].rpartition("-")
    return Identity(account, digest)


def plan_files(files: Mapping[str, bytes], old: Key, new: Key | None) -> Plan:
    """`new` is None where that key is yet to be made. Raises StoreError for a file that neither key opens."""
    acts = {name: _decide(name, data, old, new) for name, data in sorted(files.items())}
    return Plan(
        {name: act for name, act in acts.items() if not isinstance(act, _Act)},
        tuple(name for name, act in acts.items() if act is _Act.REMOVE),
        tuple(name for name, act in acts.items() if act is _Act.KEEP),
    )


def _decide(name: str, data: bytes, old: Key, new: Key | None) -> TokenSet | Tombstone | _Act:
    for key in (old,) if new is None else (new, old):
        try:
            record = unseal(data, identity_of(name), key)
        except OtherKey:
            continue
        except VaultError as problem:
            return _leave(name, data, old, problem)
        return _Act.KEEP if key == new else record
    raise StoreError(
        f"{name} was sealed with a third key; give store.key_source the key it was sealed with, "
        "or move it out of the folder; nothing was changed"
    )


def _leave(name: str, data: bytes, old: Key, problem: VaultError) -> _Act:
    """A torn save is nobody's, but the old key's id at its head would stop every save with the new key."""
    if name.endswith(".vault"):
        raise StoreError(f"{name} {problem}; restore it, or move it out of the folder; nothing was changed")
    return _Act.REMOVE if data.startswith(MAGIC + bytes([FORMAT]) + old.id) else _Act.KEEP


async def rekey(folder: VaultFolder, old: Store, new: Store, *, wait_s: float = WAIT_S) -> Rekeyed:
    """Seal what is in `folder` with the key that `new` names, which is made if it is not there yet.

    Raises StoreError: before anything is changed for a file that neither key opens and a lock that is held for longer
    than `wait_s`, and afterwards where a file cannot be written.
    """
    if not _sealed_names(folder):
        return Rekeyed()
    async with AsyncExitStack() as held:
        await _hold_all(folder, held, wait_s)
        old_key = await load_key(old, folder, create=False)
        place, new_key = await _find(new, folder)
        plan = plan_files(_read(folder, _sealed_names(folder)), old_key, new_key)
        if plan.seal or plan.remove:
            folder.probe("rekey.probe")
        if new_key is None:
            new_key = await make_key(place)
        # Not in a thread, which would go on without the locks when this is cancelled.
        _carry_out(folder, plan, new_key)
    return Rekeyed(str(place), tuple(plan.seal), plan.already)


def _sealed_names(folder: VaultFolder) -> list[str]:
    return [name for name in folder.sealed_names() if "-" in name]


async def _hold_all(folder: VaultFolder, held: AsyncExitStack, wait_s: float) -> None:
    """The key's lock and that of every account there, those included that came while others were waited for."""
    try:
        await held.enter_async_context(KernelLock(folder, "key", wait_s=wait_s).hold())
        done: set[str] = set()
        while missing := sorted(_stems(_sealed_names(folder)) - done):
            await held.enter_async_context(KernelLock(folder, missing[0], wait_s=wait_s).hold())
            done.add(missing[0])
    except RefreshLockTimeout as exc:
        raise RefreshLockTimeout(
            f"{exc}; it may be refreshing a token, or hold one it could not save; "
            "stop it and try again; nothing was changed"
        ) from None


def _stems(names: Iterable[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}


class _Configured:
    """The configuration as the place of a key, which is there already."""

    def __init__(self, settings: Store, folder: VaultFolder) -> None:
        self._settings = settings
        self._folder = folder

    def __str__(self) -> str:
        return "the secret file"

    async def read(self) -> Key:
        return await load_key(self._settings, self._folder, create=False)

    async def write(self, key: Key) -> None:
        """Is not asked for: `read` gives a key or raises."""


async def _find(settings: Store, folder: VaultFolder) -> tuple[KeyPlace, Key | None]:
    given = settings.key_source == "secret"
    place: KeyPlace = _Configured(settings, folder) if given else find_place(settings, folder)
    return place, await place.read()


def _read(folder: VaultFolder, names: Iterable[str]) -> dict[str, bytes]:
    found = {name: folder.read(name) for name in names}
    return {name: data for name, data in found.items() if data is not None}


def _carry_out(folder: VaultFolder, plan: Plan, key: Key) -> None:
    """By way of the probe's file: an interrupted save that waits in `.next` may be the only copy of a login.

    What a killed run leaves in the probe's file goes with the next probe.
    """
    for name, record in plan.seal.items():
        identity = identity_of(name)
        data = seal(record, identity, key, secrets.token_bytes(NONCE_BYTES))
        folder.replace(name, data, by_way_of=f"{identity.stem}.probe")
    for name in plan.remove:
        (Path(str(folder)) / name).unlink(missing_ok=True)
