"""The examination of a set-up: each finding a line, with a cure. Nothing is made, mended or set aside by it.

A probe that is written to a folder is removed again at once. Of other machines is asked what shows no secret, unless
more or less is wanted.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from bearerd.assembly import SystemClock, needs_vault
from bearerd.control.client import Daemons
from bearerd.core.accounts import Account, OAuthSource
from bearerd.core.configuration import Configuration, Store
from bearerd.core.redirects import CALLBACK, build_base
from bearerd.core.vault import Identity, build_identity
from bearerd.doctor.destinations import find_places
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
from bearerd.doctor.holders import examine_ports, examine_socket
from bearerd.doctor.pace import LIMIT_S, Check, aside, side_by_side
from bearerd.doctor.reach import try_place
from bearerd.doctor.servers import Network, Questions
from bearerd.doctor.services import examine_service
from bearerd.doctor.sight import Sight, look
from bearerd.doctor.surroundings import examine_runtime, examine_surroundings
from bearerd.doctor.trials import (
    find_held,
    judge_clients,
    judge_making,
    look_at_key_file,
    read_key,
    try_locks,
    try_writing,
)
from bearerd.doctor.verdicts import judge_granted
from bearerd.oauth.exchange import open_session
from bearerd.settings import Loaded

__all__ = ["Finding", "Level", "Network", "examine", "examine_accounts"]

_LASTING: Final = frozenset({"discovery", "client", "redirect", "scopes"})


async def examine(
    loaded: Loaded, environ: Mapping[str, str], network: Network = Network.OPEN, limit_s: float = LIMIT_S
) -> AsyncIterator[Finding]:
    """The findings, as they are made, always in the same order. All is over within twice `limit_s` seconds."""
    configuration = loaded.configuration
    now = time.time()
    async with open_session() as session:
        questions = Questions(session, SystemClock(), network, limit_s, find_redirect_uris(configuration))
        checks = [
            Check("vault", lambda: aside(lambda: list(_examine_at_rest(loaded, now))), 2 * limit_s),
            Check("port", lambda: aside(lambda: list(_examine_daemons(loaded, environ))), 2 * limit_s),
            Check(
                "environment",
                lambda: aside(lambda: list(examine_surroundings(configuration, environ, now))),
                limit_s,
            ),
        ]
        if network is not Network.NONE:
            checks += [
                Check("reach", partial(try_place, place, now, limit_s), 2 * limit_s)
                for place in find_places(configuration)
            ]
            checks += [
                Check("discovery", partial(_ask, questions, account), 2 * limit_s)
                for account in configuration.accounts.values()
            ]
        async for finding in side_by_side(checks):
            yield finding


async def _ask(questions: Questions, account: Account) -> list[Finding]:
    findings = await questions.ask(account)
    return [replace(finding, found=f"{account.name}: {finding.found}") for finding in findings]


async def examine_accounts(loaded: Loaded, limit_s: float = LIMIT_S) -> dict[str, list[Finding]]:
    """What authorization servers say of each account, by its name, and will say again. Clients show their secrets."""
    configuration = loaded.configuration
    async with open_session() as session:
        uris = find_redirect_uris(configuration)
        questions = Questions(session, SystemClock(), Network.FULL, limit_s, uris)
        asked = await asyncio.gather(*(questions.ask(account) for account in configuration.accounts.values()))
    lasting = [[finding for finding in findings if finding.subject in _LASTING] for findings in asked]
    return dict(zip(configuration.accounts, lasting, strict=True))


def find_redirect_uris(configuration: Configuration) -> dict[str, str]:
    """Where the logins of accounts come back to. Those for which the system chooses a port are left out."""
    listen = configuration.listen
    known = listen.public_url or (listen.hosts and listen.port)
    base = build_base(listen.public_url, listen.hosts, listen.port) + CALLBACK if known else None
    uris = {
        name: account.source.redirect_uri or base
        for name, account in configuration.accounts.items()
        if isinstance(account.source, OAuthSource) and account.source.interactive
    }
    return {name: uri for name, uri in uris.items() if uri}


def _examine_at_rest(loaded: Loaded, now: float) -> Iterator[Finding]:
    """What needs no other machine, and no other process of ours."""
    yield from _examine_settings(loaded)
    configuration = loaded.configuration
    if configuration.keys.use != "off":
        yield judge_clients(configuration.keys)
    accounts = [
        account
        for account in configuration.accounts.values()
        if isinstance(account.source, OAuthSource) and needs_vault(account, configuration.store)
    ]
    if accounts:
        yield from _examine_store(configuration.store, accounts, now)
    else:
        yield Finding(Level.OK, "vault", "no account is kept in one")
        yield from judge_clock([], now)


def _examine_daemons(loaded: Loaded, environ: Mapping[str, str]) -> Iterator[Finding]:
    yield examine_runtime(environ)
    file = os.path.realpath(loaded.path) if loaded.path else None
    running = Daemons(environ, tidy=False).fetch_status()
    listen = loaded.configuration.listen
    yield from examine_ports(listen, running, file)
    if listen.socket is not None:
        yield examine_socket(Path(listen.socket), running, file)
    yield from examine_service(environ, file)


def _examine_settings(loaded: Loaded) -> Iterator[Finding]:
    yield Finding(Level.OK, "settings", f"{loaded.path or 'no file'} is good")
    for warning in loaded.warnings:
        yield finding_of(Level.WARN, "settings", warning)


def _examine_store(settings: Store, accounts: Sequence[Account], now: float) -> Iterator[Finding]:
    sight = look(Path(settings.path))
    read = read_key(settings, sight)
    key = read.key
    yield judge_key(read)
    identities = [build_identity(account.name, account.source) for account in accounts]
    for identity in identities:
        yield from judge_account(sight, identity, key, now)
    yield from judge_strays(sight, identities)
    yield from _examine_locks(sight, identities)
    yield from judge_permissions(sight, look_at_key_file(settings), os.geteuid())
    yield _examine_room(sight)
    records = [newest(sight, identity, key) for identity in identities] if key else []
    named = [(identity.account, record) for identity, record in zip(identities, records, strict=False)]
    yield from judge_clock(named, now)
    for account, record in zip(accounts, records, strict=False):
        yield from judge_granted(account, record)


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
