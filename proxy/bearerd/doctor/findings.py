"""What follows from what was seen: a finding for each line, with its cure. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bearerd.core.tokens import TokenSet, Tombstone
from bearerd.core.vault import Identity, Key, OtherKey, VaultError, unseal
from bearerd.doctor.sight import SEALED, Kind, Seen, Sight

AHEAD_S: Final = 60.0  # what hosts that share a vault may differ by
FIRST_AT: Final = 1_735_689_600.0  # 2025-01-01: before this program, so no clock that is right shows less
_OURS: Final = (*SEALED, ".lock", ".failure", ".noting", ".probe")


class Level(StrEnum):
    """How bad it is. What FAILs stops bearerd, or loses or shows a credential."""

    OK = "ok"
    NOTE = "note"  # not known, and nothing speaks against it
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. Subject, what was found, and what mends it."""

    level: Level
    subject: str
    found: str
    cure: str = ""

    def __str__(self) -> str:
        return "; ".join(filter(None, (f"{self.level:4}  {self.subject:11}  {self.found}", self.cure)))


def finding_of(level: Level, subject: str, text: str) -> Finding:
    """Of a text of ours in which problem and cure stand together."""
    found, _, cure = text.partition("; ")
    return Finding(level, subject, found, cure)


@dataclass(frozen=True, slots=True)
class KeyRead:
    """How reading the key went. `problem` is empty where it was read; `absent` where there need not be one yet."""

    place: str
    took_s: float
    key: Key | None
    problem: str = ""
    absent: bool = False


def judge_key(read: KeyRead) -> Finding:
    if read.key is not None:
        return Finding(Level.OK, "key", f"{read.place}, read in {read.took_s:.3f} s")
    return finding_of(Level.OK if read.absent else Level.FAIL, "key", read.problem)


# ---------------------------------------------------------------- vault


@dataclass(frozen=True, slots=True)
class Opened:
    """A sealed file's record, or why there is none; `other_key` tells one reason from the rest."""

    record: TokenSet | Tombstone | None = None
    problem: str = ""
    other_key: bool = False


def open_file(seen: Seen | None, identity: Identity, key: Key) -> Opened:
    if seen is None:
        return Opened()
    if seen.data is None:
        return Opened(problem=f"cannot be read: {seen.problem or f'it is a {seen.kind}'}")
    try:
        return Opened(unseal(seen.data, identity, key))
    except VaultError as problem:
        return Opened(problem=str(problem), other_key=isinstance(problem, OtherKey))


def newest(sight: Sight, identity: Identity, key: Key) -> TokenSet | Tombstone | None:
    """The record that counts for an account, as a load would have it."""
    opened = [open_file(sight.files.get(f"{identity.stem}{end}"), identity, key).record for end in SEALED]
    records = [record for record in opened if record is not None]
    return max(records, key=lambda record: record.generation, default=None)


def judge_account(sight: Sight, identity: Identity, key: Key | None, now: float) -> Iterator[Finding]:
    """What is kept for an account, and the files it is kept in."""
    if not any(f"{identity.stem}{end}" in sight.files for end in SEALED):
        yield Finding(Level.OK, "vault", f"{identity.account}: nothing is kept yet")
    elif key is None:
        text = f"{identity.account}: not looked into, for there is no key"
        yield Finding(Level.WARN, "vault", text, "mend the key first")
    else:
        yield from _judge_files(sight, identity, key)
        record = newest(sight, identity, key)
        if record is not None:
            yield _judge_record(identity.account, record, now)


def _judge_files(sight: Sight, identity: Identity, key: Key) -> Iterator[Finding]:
    vault, waiting = (
        open_file(sight.files.get(f"{identity.stem}{end}"), identity, key) for end in (".vault", ".next")
    )
    if vault.problem:
        yield _judge_vault(f"{identity.stem}.vault", vault, waiting)
    name = f"{identity.stem}.next"
    if waiting.other_key:
        cure = "give that key back, or move the file away: nothing can be saved beside it"
        yield Finding(Level.FAIL, "vault", f"{name} {waiting.problem}", cure)
    elif waiting.problem:
        text = f"{name} is what a save that was interrupted has left"
        yield Finding(Level.WARN, "vault", text, "the next save writes over it")
    elif waiting.record and (vault.record is None or waiting.record.generation > vault.record.generation):
        text = f"{name} is a whole save that was interrupted, of generation {waiting.record.generation}"
        yield Finding(Level.WARN, "vault", text, "nothing is lost: it counts, and the next save completes it")


def _judge_vault(name: str, vault: Opened, waiting: Opened) -> Finding:
    if vault.other_key:
        cure = "give that key back, or move the file away and log in again"
        return Finding(Level.FAIL, "vault", f"{name} {vault.problem}", cure)
    if waiting.record is not None:
        cure = "an interrupted save stands in for it, and the next save sets it aside"
        return Finding(Level.WARN, "vault", f"{name} {vault.problem}", cure)
    cure = "restore it, or log in again, which sets it aside"
    return Finding(Level.FAIL, "vault", f"{name} {vault.problem}", cure)


def _judge_record(account: str, record: TokenSet | Tombstone, now: float) -> Finding:
    text = f"{account}: generation {record.generation}"
    if isinstance(record, Tombstone):
        return Finding(Level.WARN, "vault", f"{text}, logged out", "log in again")
    login = "a login" if record.refresh_token else "no login"
    text = f"{text}, {login}, {_expiry(record, now)}"
    if record.refresh_token is None and now >= record.expires_at:
        return Finding(Level.WARN, "vault", text, "log in again, unless the account needs no login")
    return Finding(Level.OK, "vault", text)


def _expiry(record: TokenSet, now: float) -> str:
    if not record.access_token:
        return "no token yet"
    left_s = record.expires_at - now
    return f"token expires in {left_s:.0f} s" if left_s > 0 else f"token expired {-left_s:.0f} s ago"


def judge_strays(sight: Sight, identities: Iterable[Identity]) -> Iterator[Finding]:
    """Files of nobody's, of other configurations' accounts, and those set aside."""
    stems = {identity.stem for identity in identities}
    for name in sight.files:
        if ".damaged-" in name:
            cure = "remove it once you are sure that you do not need it"
            yield Finding(Level.WARN, "vault", f"{shown(name)} was set aside as damaged", cure)
        elif not name.endswith(_OURS):
            text = f"{shown(name)} is no file of a vault"
            yield Finding(Level.WARN, "vault", text, "move it out of the folder")
        elif name.endswith(".vault") and name.removesuffix(".vault") not in stems:
            text = f"{shown(name)} belongs to no account of this configuration"
            yield Finding(Level.OK, "vault", text)


def shown(name: str) -> str:
    """A name as a line may have it."""
    return name if name.isprintable() else ascii(name)


# ---------------------------------------------------------------- lock, permissions, writable, clock


def judge_lock(held: Iterable[str], exclusion: Finding) -> Iterator[Finding]:
    """`held` are the locks that could not be taken; `exclusion` says whether locks mean anything there."""
    for name in held:
        text = f"{shown(name)} is held by another process, which may be refreshing"
        yield Finding(Level.WARN, "lock", text, "if it stays so, see what that process waits for")
    yield exclusion


def judge_permissions(sight: Sight, key_file: Seen | None, user: int) -> Iterator[Finding]:
    """Loosened modes are warned of, for bearerd mends them; what it refuses FAILs. A key that others read FAILs too."""
    findings = [
        *_judge_way(sight),
        *_judge_folder(sight, user),
        *(found for seen in sight.files.values() if (found := _judge_file(sight, seen, user))),
        *([found] if key_file and (found := _judge_key_file(key_file, user)) else []),
    ]
    good = "there is no folder yet" if sight.folder is None else f"{sight.path} is this user's alone"
    yield from findings or [Finding(Level.OK, "permissions", good)]


def _judge_way(sight: Sight) -> Iterator[Finding]:
    if sight.weakness is not None:
        text = f"{sight.path} could be exchanged for another folder: {sight.weakness.found}"
        yield Finding(Level.FAIL, "permissions", text, f"{sight.weakness.cure}, or name another store.path")


def _judge_folder(sight: Sight, user: int) -> Iterator[Finding]:
    folder = sight.folder
    if folder is None:
        return
    problem = _not_ours(folder, user, Kind.FOLDER)
    if problem:
        cure = "name another folder with store.path"
        yield Finding(Level.FAIL, "permissions", f"{sight.path} {problem}", cure)
    elif folder.mode != 0o700:
        stray = any(not name.endswith(_OURS) and ".damaged-" not in name for name in sight.files)
        text = f"{sight.path} has mode {folder.mode:04o}" + (" and holds other files" if stray else "")
        cure = f"chmod 700 {sight.path}"
        if stray:
            cure = f"name a folder of its own with store.path, or move them and {cure}"
        yield Finding(Level.FAIL if stray else Level.WARN, "permissions", text, cure)


def _judge_file(sight: Sight, seen: Seen, user: int) -> Finding | None:
    path = shown(str(sight.path / seen.name))
    if problem := _not_ours(seen, user, Kind.FILE):
        return Finding(Level.FAIL, "permissions", f"{path} {problem}", "move it out of the folder")
    if seen.mode != 0o600:
        return Finding(Level.WARN, "permissions", f"{path} has mode {seen.mode:04o}", f"chmod 600 {path}")
    return None


def _judge_key_file(seen: Seen, user: int) -> Finding | None:
    if seen.kind is Kind.LINK:
        text = f"the key file {shown(seen.name)} is a link, and {seen.problem}"
        return finding_of(Level.FAIL, "permissions", text) if seen.problem else None
    if problem := _not_ours(seen, user, Kind.FILE):
        cure = "name another store.key_file"
        return Finding(Level.FAIL, "permissions", f"the key file {shown(seen.name)} {problem}", cure)
    if seen.mode & ~0o600:
        text = f"the key file {shown(seen.name)} has mode {seen.mode:04o}"
        cure = "chmod 600 it, and if others may have read it: bearerd store rekey"
        return Finding(Level.FAIL, "permissions", text, cure)
    return None


def _not_ours(seen: Seen, user: int, kind: Kind) -> str:
    if seen.kind is Kind.UNKNOWN:
        return f"cannot be looked at: {seen.problem}"
    if seen.kind is not kind:
        return f"is a {seen.kind}"
    if seen.owner != user:
        return f"belongs to another user (uid {seen.owner})"
    if seen.problem:
        return f"cannot be read: {seen.problem}"
    return "has another name too" if kind is Kind.FILE and seen.links != 1 else ""


def sound(sight: Sight, user: int) -> bool:
    """Whether the folder is as bearerd would leave it, so that a file may be put there to try it."""
    folder = sight.folder
    if folder is None or sight.weakness is not None:
        return False
    return not _not_ours(folder, user, Kind.FOLDER) and folder.mode == 0o700


def judge_clock(records: Iterable[tuple[str, TokenSet | Tombstone | None]], now: float) -> Iterator[Finding]:
    """The wall clock against the instants at which tokens came, by account."""
    if now < FIRST_AT:
        yield Finding(Level.FAIL, "clock", "this machine's clock is before 2025", "set it")
        return
    ahead = [
        (account, record.obtained_at - now)
        for account, record in records
        if isinstance(record, TokenSet) and record.obtained_at - now > AHEAD_S
    ]
    for account, by_s in ahead:
        text = f"the token of {account} is from {by_s:.0f} s in the future"
        cure = "set this machine's clock, or that of the machine that shares the vault"
        yield Finding(Level.WARN, "clock", text, cure)
    if not ahead:
        yield Finding(Level.OK, "clock", "no token is from the future")
