"""One configuration in force: its accounts, who may call, where calls go; and what all configurations stand on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from weakref import WeakSet

import structlog

from bearerd.assembly import Holding
from bearerd.audit import AuditLog
from bearerd.control.pages import Pages
from bearerd.control.rendezvous import VaultEntry
from bearerd.core.configuration import Configuration
from bearerd.core.field_rules import canonical
from bearerd.core.guard import Guard, Head, refuse
from bearerd.core.keyed_guard import Policy
from bearerd.core.lifecycle import State
from bearerd.core.problems import Problem
from bearerd.core.reach import Reach
from bearerd.core.targets import Origin, Way
from bearerd.doorkeeper import Doorkeeper
from bearerd.forward.access import AccessLog
from bearerd.forward.handler import Forwarder
from bearerd.forward.observed import ObservedForwarder, Observers
from bearerd.forward.pool import UpstreamPool
from bearerd.forward.spool import Disk, SpoolBudget
from bearerd.forward.traced import TracedForwarder
from bearerd.front import Front
from bearerd.hooks import LoginHook
from bearerd.meters import Meters
from bearerd.stores.client_keys import ClientKeyFile, KeyRing
from bearerd.tokens.logins import Party
from bearerd.tokens.manager import TokenManager
from bearerd.tracing import Tracer
from bearerd.trust import Trust

_LOG: Final = structlog.get_logger("bearerd.daemon")


@dataclass(frozen=True, slots=True)
class Ground:
    """What lasts as long as the process. `budget` is for bodies kept in memory, `disk` for those of routes that want it."""

    trust: Trust
    pool: UpstreamPool
    hook: LoginHook
    pages: Pages
    budget: SpoolBudget
    disk: Disk
    pseudonym: str
    meters: Meters
    tracer: Tracer | None = None
    fronts: WeakSet[Front] = field(default_factory=WeakSet)

    @property
    def calls_in_flight(self) -> int:
        """By whatever configuration."""
        return sum(front.calls_in_flight for front in self.fronts)

    def adjust(self, configuration: Configuration) -> None:
        """What of it a configuration says, from now on."""
        limits = configuration.limits
        self.pool.adjust(connect_s=limits.upstream_connect_s, idle_s=limits.upstream_idle_s)
        self.budget.resize(limits.replay_total, limits.replay_body)
        self.disk.budget.resize(limits.spool_total, limits.spool_body)
        self.hook.argv = configuration.on_login_needed


class Regime:
    """What follows from `configuration`. Calls that have begun by its `front` end by it, whatever comes after."""

    def __init__(
        self,
        ground: Ground,
        configuration: Configuration,
        reach: Reach,
        holdings: Mapping[str, Holding],
        audit: AuditLog | None,
    ) -> None:
        self.configuration = configuration
        self.reach = reach
        self.holdings = holdings
        self.audit = audit
        self.observers = self._build_observers(ground.tracer)
        self.managers: dict[str, TokenManager] = {name: holding.manager for name, holding in holdings.items()}
        self._hook = ground.hook
        self._forwarder = self._build_forwarder(ground)
        self.front = Front(self._forwarder, ground.pages)
        ground.fronts.add(self.front)

    @property
    def parties(self) -> dict[str, Party]:
        """The accounts that have logins."""
        return {name: holding.party for name, holding in self.holdings.items() if holding.party is not None}

    @property
    def shared(self) -> dict[VaultEntry, str]:
        """Which account is kept where other processes can find it."""
        return {holding.entry: name for name, holding in self.holdings.items() if holding.entry is not None}

    @property
    def ways(self) -> set[tuple[Origin, Way]]:
        """Where its calls go, and how."""
        return {(route.origin, route.way) for route in self.configuration.routes}

    @property
    def states(self) -> dict[str, State]:
        return {name: manager.state for name, manager in self.managers.items()}

    def build_judge(self, guard: Guard) -> Callable[[Head], Problem | None]:
        """Says why a request is refused, if it is: what lets clients in by their keys, where they have any."""
        keys = self.configuration.keys
        if keys.use == "off":
            return partial(refuse, guard)
        policy = Policy(
            guard,
            self.configuration.routes,
            carriers=frozenset(canonical(name.encode("ascii")) for name in keys.fields),
        )
        return Doorkeeper(policy, KeyRing(ClientKeyFile(Path(keys.file)), _keys_unusable))

    def has(self, manager: TokenManager) -> bool:
        return manager in self.managers.values()

    def follow(self, earlier: "Regime") -> None:
        """Come after `earlier`, and know what it has learnt of its routes."""
        same = {
            route
            for route in self.configuration.routes
            if earlier.managers.get(route.account) is self.managers[route.account]
        }
        self._forwarder.inherit(earlier._forwarder, same)  # noqa: SLF001  # its own class's

    def _build_forwarder(self, ground: Ground) -> Forwarder:
        build: Callable[..., Forwarder] = Forwarder
        if ground.tracer is not None:
            build = partial(TracedForwarder, tracer=ground.tracer, observers=self.observers)
        elif self.observers:
            build = partial(ObservedForwarder, observers=self.observers)
        return build(
            self.configuration.routes,
            self.managers,
            ground.pool,
            ground.budget,
            ground.disk,
            pseudonym=ground.pseudonym,
            meters=ground.meters,
            login_urls=self.reach.login_urls,
            login_needed=self._tell_of_login,
        )

    def _build_observers(self, tracer: Tracer | None) -> Observers:
        log = self.configuration.log
        access = AccessLog() if log.access and log.level in {"debug", "info"} else None
        return Observers(*(observer for observer in (access, self.audit, tracer) if observer is not None))

    def _tell_of_login(self, account: str) -> None:
        self._hook.refused(account, self.managers[account].state, self.reach.mend_url(account))


def _keys_unusable(reason: str) -> None:
    _LOG.error("keys.unusable", reason=reason)
