"""The composition root: a configuration becomes managers, a pool, servers; and they end in order."""

import asyncio
import math
import os
import secrets
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from typing import Any, Final

import structlog

from bearerd import logs
from bearerd.activation import Handed
from bearerd.assembly import Holding, Holdings, SystemClock, first_refresh_token, prepare_tls
from bearerd.audit import AuditLog, open_file
from bearerd.control.health import Health, Store
from bearerd.control.login import BrowserLogins
from bearerd.control.metrics import MetricsPage, Readings
from bearerd.control.pages import Pages
from bearerd.control.probes import Probes
from bearerd.control.rendezvous import Origin
from bearerd.control.socket import ControlSocket
from bearerd.control.status import build_status, summarise
from bearerd.control.terminal import TerminalLogins
from bearerd.core.configuration import Configuration, Keys, Logging
from bearerd.core.lifecycle import State
from bearerd.core.limits import allowed_connections
from bearerd.core.reach import Reach, build_reach
from bearerd.core.reloading import Changes, Fate, Name, Report, compare, decide_fate, list_fixed
from bearerd.doors import Doors
from bearerd.ending import close_all, save_now
from bearerd.errors import ConfigError, StoreError
from bearerd.forward.pool import UpstreamPool
from bearerd.forward.spool import Disk, SpoolBudget
from bearerd.front import Front
from bearerd.gate import Gate
from bearerd.hooks import LoginHook
from bearerd.logs import lost_lines
from bearerd.meters import Meters
from bearerd.places import spool_folder
from bearerd.ports import Clock
from bearerd.privacy import frames
from bearerd.probing import ProbeServer
from bearerd.regime import Ground, Regime
from bearerd.reloads import Reloads
from bearerd.settings import Loaded
from bearerd.settings.problems import setting_name
from bearerd.stores.client_keys import load_needed
from bearerd.supervisor import Supervisor
from bearerd.telemetry import Telemetry, open_telemetry
from bearerd.tokens.logins import Logins
from bearerd.tokens.manager import TokenManager
from bearerd.tracing import Tracer
from bearerd.trust import Trust

CUT_OFF_S: Final = 0.1  # for the server to end what the drain has not
END_S: Final = 2.0  # for what earlier configurations had, once their calls have ended


class Daemon:
    """One running bearerd. `start` returns when the port answers; tokens are fetched meanwhile.

    `origin` is where the configuration is from; with none there is no control socket. `handed` are sockets to listen on in
    place of those of the configuration. `supervisor` is told how the accounts do.
    """

    def __init__(
        self,
        configuration: Configuration,
        clock: Clock | None = None,
        origin: Origin | None = None,
        *,
        supervisor: Supervisor | None = None,
        handed: Handed | None = None,
        reread: Callable[[], Loaded] | None = None,
    ) -> None:
        """Raises ConfigError where `handed` let in whom the configuration does not."""
        self._handed = handed or Handed()
        self._configuration = configuration = self._handed.settle(configuration)
        self._supervisor = supervisor or Supervisor()
        self._clock = clock or SystemClock()
        self._log = structlog.get_logger("bearerd.daemon")
        self._hook = LoginHook(configuration.on_login_needed, self._clock, os.environ)
        self.meters = Meters()
        self._holdings = Holdings(configuration.store, self._clock, self._changed, self.meters)
        self._origin = origin
        self._reread = reread
        self._reloads = Reloads(self._reload)
        self._pool: UpstreamPool
        self._regime: Regime
        self._draining: set[Regime] = set()  # whose calls go on
        self._leaving: set[TokenManager] = set()
        self._ends: set[asyncio.Task[None]] = set()
        self._starting: asyncio.Task[None]
        self._beginning: asyncio.Task[None] | None = None  # of accounts that came later
        self._doors = Doors(configuration.listen, self._handed)
        self._server: Gate | None = None
        self._browsers: BrowserLogins
        self._control: ControlSocket | None = None
        self._telemetry: Telemetry | None = None
        self.logins: Logins
        self.health = Health(Store(self._look_at_store, self._clock), self._has_started, self._is_shut)
        self._probes = Probes(self.health, MetricsPage(self.meters, self._read))
        self._prober = ProbeServer(self._probes)
        self._ground: Ground

    @property
    def _front(self) -> Front:
        """By which calls begin now."""
        return self._regime.front

    @property
    def port(self) -> int:
        """For calls."""
        return self._doors.port

    @property
    def probes_port(self) -> int:
        """For probes alone; 0 where they have no address of their own."""
        return self._doors.probes_port

    @property
    def addresses(self) -> tuple[str, ...]:
        """The base URLs under which clients reach this daemon by TCP."""
        return self._doors.addresses

    # ------------------------------------------------------------ start

    async def start(self) -> None:
        """Raises ConfigError where an address cannot be listened on or led back to, or nobody could call; nothing runs then."""
        configuration = self._configuration
        trust = Trust()
        await asyncio.to_thread(_check_files, configuration, trust)
        pseudonym = f"bearerd-{secrets.token_hex(8)}"
        with ExitStack() as opened:
            self._doors.open(opened)
            reach = self._build_reach(configuration, pseudonym)
            audit = await self._open_audit(configuration.log)
            self._telemetry = await self._open_telemetry()
            opened.pop_all()
        if self._telemetry is not None:
            self._holdings.tracer = Tracer(self._telemetry, self._clock)
        regime = self._build_first(trust, pseudonym, reach, audit)
        self._put_in_force(regime)
        assert self._server is not None  # noqa: S101  # it was built just now
        await self._doors.accept(self._server, reach.guard, regime.build_judge)
        self._starting = asyncio.create_task(self._start_all(regime))
        await self._prober.listen(self._doors.probes)
        self.meters.reloads.began(self._clock.wall())
        if self._control is not None:
            self._control.start(os.environ)
        self._tell_supervisor()
        self._log.info("daemon.listening", addresses=self.addresses, socket=configuration.listen.socket)

    def _build_first(self, trust: Trust, pseudonym: str, reach: Reach, audit: AuditLog | None) -> Regime:
        """The regime to begin with, and what it has in common with all that come after it."""
        configuration = self._configuration
        holdings = {name: self._holdings.build(account) for name, account in configuration.accounts.items()}
        self.logins = Logins({}, self._clock)
        self._browsers = BrowserLogins(self.logins, reach.landings, reach.guard)
        self._ground = self._build_ground(trust, pseudonym)
        self._pool = self._ground.pool
        self._regime = regime = Regime(self._ground, configuration, reach, holdings, audit)
        most = self._allow_connections(configuration)
        self._server = Gate(regime.front, configuration.limits, most, regime.front.begin, self.meters)
        if self._origin is not None:
            self._control = self._build_control(self._origin, regime)
        return regime

    def _build_ground(self, trust: Trust, pseudonym: str) -> Ground:
        limits = self._configuration.limits
        return Ground(
            trust,
            UpstreamPool(trust, connect_s=limits.upstream_connect_s, idle_s=limits.upstream_idle_s),
            self._hook,
            Pages(self.status, self._browsers, self._probes),
            SpoolBudget(limits.replay_total, limits.replay_body),
            Disk(spool_folder(), SpoolBudget(limits.spool_total, limits.spool_body)),
            pseudonym,
            self.meters,
            self._holdings.tracer,
        )

    def _build_reach(self, configuration: Configuration, pseudonym: str) -> Reach:
        """Raises ConfigError."""
        try:
            reach = build_reach(configuration, self.port, pseudonym)
        except ValueError as problem:
            raise ConfigError(str(problem)) from None
        return reach if self.addresses or configuration.listen.public_url else reach.hidden()

    async def _open_telemetry(self) -> Telemetry | None:
        log = self._configuration.log
        return await asyncio.to_thread(open_telemetry, log, os.environ) if log.traces else None

    async def _open_audit(self, log: Logging) -> AuditLog | None:
        if not log.audit:
            return None
        file = await asyncio.to_thread(open_file, log.audit)
        return AuditLog(file, self._clock, required=log.audit_required)

    def _allow_connections(self, configuration: Configuration) -> int:
        limits = configuration.limits
        per_call = 3 if any(route.disk_spool for route in configuration.routes) else 2
        most = allowed_connections(limits.connections, descriptor_limit(), per_call)
        if most < limits.connections:
            self._log.warning("connections.fewer", connections=most, because="the limit of open files is low")
        return most

    async def started(self) -> None:
        """Until each account has been read from its store. Raises StoreError where the vault's key cannot be had."""
        await asyncio.shield(self._starting)

    async def _start_all(self, regime: Regime) -> None:
        steps = [self._start_accounts(regime.holdings.values())]
        if regime.shared:
            steps.append(self._read_key())
        await asyncio.gather(*steps)
        self._log.info("daemon.started", accounts=sorted(regime.holdings))

    async def _start_accounts(self, holdings: Iterable[Holding]) -> None:
        steps = (holding.manager.start(first_refresh_token(holding.account)) for holding in holdings)
        await asyncio.gather(*steps)

    async def _read_key(self) -> None:
        began_at = self._clock.steady()
        await self._holdings.vault.key()
        self._log.info("vault.key_read", duration_s=round(self._clock.steady() - began_at, 3))

    # ------------------------------------------------------------ reload

    def reload(self) -> "asyncio.Task[Report]":
        """Read the configuration again, once the reload that is under way is over; calls go on meanwhile.

        Never raises: what stands in the way is in the report, and in the log.
        """
        return self._reloads.ask()

    async def _reload(self) -> Report:
        self._supervisor.reloading()
        report = await self._try_to_reload()
        self.meters.reloads.ended(self._clock.wall(), ok=not report.problems)
        if report.problems:
            self._log.error("config.refused", problems=report.problems)
        else:
            self._log.info(
                "config.reloaded",
                added=report.added,
                changed=report.changed,
                removed=report.removed,
                warnings=report.warnings,
            )
        self._tell_supervisor()
        self._supervisor.ready()
        return report

    async def _try_to_reload(self) -> Report:
        try:
            return await self._read_again()
        except (ConfigError, StoreError) as problem:
            return Report(problems=tuple(str(problem).splitlines()))
        except Exception as exc:  # noqa: BLE001  # whatever it is, the configuration in force goes on
            self._log.error("config.defect", trace=frames(exc))
            return Report(problems=("bearerd met an error of its own; its log says where",))

    async def _read_again(self) -> Report:
        """Raises ConfigError, StoreError; all is as it was then."""
        if self._reread is None:
            return Report(problems=("there is nothing to reload: no configuration was read at the start",))
        await self.started()
        if self._beginning is not None:
            await self._beginning
        loaded = await asyncio.to_thread(self._reread)
        changes = await self._turn_to(self._handed.settle(loaded.configuration))
        return Report(
            added=_name_all(changes.added),
            changed=_name_all(changes.changed),
            removed=_name_all(changes.removed),
            warnings=loaded.warnings,
        )

    async def _turn_to(self, configuration: Configuration) -> Changes:
        """Have `configuration` in force for whatever begins from now on. Raises ConfigError, StoreError."""
        earlier, ground = self._regime, self._ground
        _check_fixed(self._configuration, configuration)
        await asyncio.to_thread(_check_files, configuration, ground.trust)
        reach = self._build_reach(configuration, ground.pseudonym)
        if self._holdings.needs_key(configuration.accounts.values()):
            await self._holdings.vault.ready()
        same_audit = configuration.log.audit == self._configuration.log.audit
        audit = earlier.audit if same_audit else await self._open_audit(configuration.log)
        # From here to the end nothing waits, so no call sees one half of each.
        changes = compare(self._configuration, configuration)
        regime = Regime(ground, configuration, reach, self._take_over(configuration), audit)
        regime.follow(earlier)
        self._put_in_force(regime)
        self._retire(earlier)
        begun = [holding for holding in regime.holdings.values() if not earlier.has(holding.manager)]
        self._beginning = asyncio.create_task(self._start_accounts(begun))
        return changes

    def _take_over(self, configuration: Configuration) -> dict[str, Holding]:
        holdings = {}
        for name, account in configuration.accounts.items():
            held = self._regime.holdings.get(name)
            fate = decide_fate(None if held is None else held.account, account)
            if held is not None and fate is Fate.KEPT:
                holdings[name] = held
            elif held is not None and fate is Fate.RENEWED:
                holdings[name] = self._holdings.renew(held, account)
            else:
                holdings[name] = self._holdings.build(account)
        return holdings

    def _put_in_force(self, regime: Regime) -> None:
        """What begins from now on is the regime's. Whoever is connected already meets it with the next request."""
        assert self._server is not None  # noqa: S101  # it stands as long as there are regimes
        configuration, reach, front = regime.configuration, regime.reach, regime.front
        self._ground.adjust(configuration)
        if _says(configuration.log) != _says(self._configuration.log):
            logs.configure(configuration.log)
        if regime.audit is not None:
            regime.audit.required = configuration.log.audit_required
        self._regime, self._configuration = regime, configuration
        self._doors.turn_to(reach.guard, regime.build_judge)
        self._server.turn_to(front, configuration.limits, self._allow_connections(configuration), front.begin)
        self.logins.turn_to(regime.parties)
        self._browsers.turn_to(reach.landings, reach.guard)
        if self._control is not None:
            self._control.turn_to(regime.managers, regime.shared, self._build_terminals(regime))

    def _retire(self, regime: Regime) -> None:
        """What it had alone rests, and ends when the last of its calls has."""
        self._draining.add(regime)
        for manager in regime.managers.values():
            if not self._regime.has(manager):
                manager.rest()
        living = (self._regime, *self._draining)
        # Not when a regime ends: what the next one needs may just have been made ready.
        self._ground.trust.keep_only({way.tls for each in living for _, way in each.ways})
        end = asyncio.create_task(self._end(regime))
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)

    async def _end(self, regime: Regime) -> None:
        await regime.front.drained()
        self._draining.discard(regime)
        living = (self._regime, *self._draining)
        gone = {
            manager for manager in regime.managers.values() if not any(each.has(manager) for each in living)
        }
        self._leaving |= gone
        self._pool.keep_only({way for each in living for way in each.ways})
        if regime.audit is not None and all(each.audit is not regime.audit for each in living):
            await regime.audit.aclose()
        await asyncio.gather(*(manager.leave() for manager in gone))
        self._leaving -= gone

    # ------------------------------------------------------------ stop

    async def stop(self, drain_s: float | None = None) -> bool:
        """Take no new calls, let those in flight finish within `drain_s` (by default the limit that is set), then save
        what is being refreshed. False where tokens are lost, or may be, for they could not be saved.
        """
        self.health.draining = True
        self._supervisor.stopping()
        calls = self._ground.calls_in_flight
        self._supervisor.describe(f"ends, with {calls} call(s) under way")
        self._log.info("daemon.stopping", calls=calls)
        await self._doors.shut()
        if self._control is not None:
            await self._control.aclose()
        await self._reloads.aclose()
        for manager in self._managers:
            manager.rest()  # a refresh ahead of time would be one more to wait for
        regimes = {self._regime, *self._draining}
        if self._server is not None:
            limit_s = self._configuration.limits.drain_s if drain_s is None else drain_s
            await _drain(self._server, regimes, limit_s)
        self._doors.close()
        await _give_up({self._starting} if self._beginning is None else {self._starting, self._beginning})
        await self._browsers.aclose()
        await self._hook.aclose()
        kept = await close_all(self._managers, self._supervisor)
        await _give_up(self._ends, after_s=END_S)
        self._pool.close()
        if self._regime.audit is not None:
            await self._regime.audit.aclose()
        if self._telemetry is not None:
            await self._telemetry.aclose()
        await self._prober.aclose()
        await self.health.aclose()
        self._log.info("daemon.stopped")
        return kept

    async def cut_short(self) -> None:
        """In place of the rest of `stop`: nothing is waited for but tokens that have come and are not saved yet."""
        saved = await save_now(self._managers)
        self._log.warning("daemon.cut_short", calls=self._ground.calls_in_flight, saved=saved)

    @property
    def _managers(self) -> set[TokenManager]:
        """Of the configuration in force, and of earlier ones."""
        regimes = (self._regime, *self._draining)
        return self._leaving.union(*(regime.managers.values() for regime in regimes))

    # ------------------------------------------------------------ told and asked

    def _tell_supervisor(self) -> None:
        """How the accounts do, if anybody listens."""
        if self._supervisor.listens:
            self._supervisor.describe(summarise(self.status()))

    def _changed(self, account: str, state: State) -> None:
        self._hook.changed(account, state)
        if not self.health.draining:
            self._tell_supervisor()

    def _has_started(self) -> bool:
        return self._starting.done() and not self._starting.cancelled() and self._starting.exception() is None

    def _is_shut(self) -> bool:
        return self._regime.observers.shut

    async def _look_at_store(self) -> None:
        if self._regime.shared:
            await self._holdings.vault.check()

    def _read(self) -> Readings:
        """What metrics are made of beside the meters."""
        assert self._server is not None  # noqa: S101  # it answers
        audit, limits, ground = self._regime.audit, self._configuration.limits, self._ground
        kept = {
            "memory": (limits.replay_total - ground.budget.left, limits.replay_total),
            "disk": (limits.spool_total - ground.disk.budget.left, limits.spool_total),
        }
        return Readings(
            self._regime.states,
            ground.calls_in_flight,
            self._server.served,
            self._server.most,
            lost_lines(),
            kept,
            None if audit is None else audit.lost,
        )

    def status(self) -> dict[str, Any]:
        """The status document."""
        regime = self._regime
        return build_status(
            regime.states,
            regime.configuration.routes,
            self.addresses,
            self._clock.wall(),
            regime.reach.login_urls,
            self._configuration.listen.socket,
        )

    def _build_control(self, origin: Origin, regime: Regime) -> ControlSocket:
        return ControlSocket(
            origin,
            regime.managers,
            self.status,
            self._control_defect,
            shared=regime.shared,
            terminals=self._build_terminals(regime),
            reload=self.reload,
        )

    def _build_terminals(self, regime: Regime) -> TerminalLogins:
        return TerminalLogins(self.logins, regime.reach.landings, regime.reach.login_urls)

    def _control_defect(self, exc: Exception) -> None:
        self._log.error("control.defect", trace=frames(exc))


async def _give_up(tasks: "Collection[asyncio.Task[None]]", after_s: float = 0.0) -> None:
    """Those that have not ended by themselves in so many seconds."""
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=after_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


async def _drain(server: Gate, regimes: Collection[Regime], limit_s: float) -> None:
    """Take no more calls, give those under way so long to end, and end the rest."""
    server.pre_shutdown()
    await server.drained(limit_s)
    for regime in regimes:
        regime.observers.ending = "stop"
    await server.shutdown(CUT_OFF_S)


def _name_all(names: Iterable[Name]) -> tuple[str, ...]:
    """As they are written in the file."""
    return tuple(setting_name(name) for name in names)


def _says(log: Logging) -> tuple[str, str]:
    return log.level, log.format


def _check_fixed(old: Configuration, new: Configuration) -> None:
    """Raises ConfigError for what cannot change."""
    fixed = _name_all(list_fixed(old, new))
    if fixed:
        cure = "cannot change while bearerd runs; restart it, or take the change back"
        raise ConfigError("\n".join(f"{name}: {cure}" for name in fixed))


def _check_files(configuration: Configuration, trust: Trust) -> None:
    """See that keys and TLS can be had, and have the latter made. In a thread. Raises ConfigError."""
    check_keys(configuration.keys)
    prepare_tls(trust, configuration.routes)


def check_keys(settings: Keys) -> None:
    """Raises ConfigError for keys by which nobody could call."""
    try:
        load_needed(settings)
    except StoreError as problem:
        raise ConfigError(f"keys: {problem}") from None


def descriptor_limit() -> float:
    """How many files this process may have open."""
    if sys.platform == "win32":
        return math.inf
    import resource  # noqa: PLC0415  # there is none for Windows

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft
