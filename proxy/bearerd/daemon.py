"""The composition root: a configuration becomes managers, a pool, servers; and they end in order."""

import asyncio
import errno
import math
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import structlog

from bearerd.activation import Handed
from bearerd.assembly import (
    SystemClock,
    Vault,
    build_holding,
    first_refresh_token,
    open_pool,
)
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
from bearerd.core.configuration import Configuration, Keys, Listen
from bearerd.core.guard import for_socket
from bearerd.core.lifecycle import State
from bearerd.core.limits import allowed_connections
from bearerd.core.problems import Problem
from bearerd.core.reach import Reach, build_reach
from bearerd.core.redirects import own_address
from bearerd.ending import close_all, save_now
from bearerd.errors import CannotListen, ConfigError, StoreError
from bearerd.forward.pool import UpstreamPool
from bearerd.forward.spool import Disk, SpoolBudget
from bearerd.front import Front
from bearerd.gate import Callers, Door, Gate
from bearerd.hooks import LoginHook
from bearerd.listening import accept_from, open_sockets
from bearerd.local_socket import LocalSocket
from bearerd.logs import lost_lines
from bearerd.meters import Meters
from bearerd.peers import TcpUsers, own_users, unix_user
from bearerd.places import spool_folder
from bearerd.ports import Clock
from bearerd.privacy import frames
from bearerd.probing import ProbeServer
from bearerd.regime import Ground, Regime
from bearerd.stores.client_keys import load_needed
from bearerd.supervisor import Supervisor
from bearerd.telemetry import Telemetry, open_telemetry
from bearerd.tokens.logins import Logins
from bearerd.tracing import Tracer

CUT_OFF_S: Final = 0.1  # for the server to end what the drain has not
_NOT_BY_TCP: Final = Problem(
    403,
    "peer_refused",
    "this connection is of another user than the one that runs bearerd, or it is not known of which; "
    'call as that user, or by a socket that lets yours in (listen.socket_uids), or set listen.peer_uid to "any"',
    "http_request_denied",
    close=True,
)
_NOT_BY_SOCKET: Final = Problem(
    403,
    "peer_refused",
    "this socket is for the user that runs bearerd and for those in listen.socket_uids; add your own there, or call as one of them",
    "http_request_denied",
    close=True,
)


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
    ) -> None:
        """Raises ConfigError where `handed` let in whom the configuration does not."""
        self._handed = handed or Handed()
        self._configuration = configuration = self._handed.settle(configuration)
        self._supervisor = supervisor or Supervisor()
        self._clock = clock or SystemClock()
        self._log = structlog.get_logger("bearerd.daemon")
        self._vault = Vault(configuration.store)
        self._hook = LoginHook(configuration.on_login_needed, self._clock, os.environ)
        self._origin = origin
        self._pool: UpstreamPool
        self._regime: Regime
        self._starting: asyncio.Task[None]
        self._servers: list[asyncio.Server] = []
        self._server: Gate | None = None
        self._users: TcpUsers | None = None
        self._local: LocalSocket | None = None
        self._browsers: BrowserLogins
        self._control: ControlSocket | None = None
        self._telemetry: Telemetry | None = None
        self.logins: Logins
        self.meters = Meters()
        self.health = Health(Store(self._look_at_store, self._clock), self._has_started, self._is_shut)
        self._probes = Probes(self.health, MetricsPage(self.meters, self._read))
        self._prober = ProbeServer(self._probes)
        self._ground: Ground
        self.probes_port = 0
        self.port = configuration.listen.port

    @property
    def _front(self) -> Front:
        """By which calls begin now."""
        return self._regime.front

    @property
    def addresses(self) -> tuple[str, ...]:
        """The base URLs under which clients reach this daemon by TCP."""
        return tuple(
            f"http://{_host(listening)}"
            for server in self._servers
            for listening in server.sockets
            if listening.family in {socket.AF_INET, socket.AF_INET6}
        )

    async def start(self) -> None:
        """Raises ConfigError where an address cannot be listened on or led back to, or nobody could call; nothing runs then."""
        configuration = self._configuration
        check_keys(configuration.keys)
        self._pool = await open_pool(configuration)
        pseudonym = f"bearerd-{secrets.token_hex(8)}"
        with ExitStack() as opened:
            sockets = self._listen(opened)
            reach = self._build_reach(pseudonym, reachable=bool(sockets))
            callers = self._tcp_callers(sockets, opened)
            local = self._listen_locally(opened)
            probes = self._listen_for_probes(opened)
            audit = await self._open_audit()
            self._telemetry = await self._open_telemetry()
            opened.pop_all()
        self._regime = self._build_regime(pseudonym, reach, audit)
        self._server = self._build_gate(self._regime)
        self._servers = await self._open_doors(self._regime, callers, sockets, local)
        self._starting = asyncio.create_task(self._start_accounts(self._regime))
        await self._prober.listen(probes)
        self.meters.reloads.began(self._clock.wall())
        if self._origin is not None:
            self._control = self._build_control(self._origin, self._regime).start(os.environ)
        self._supervisor.describe(summarise(self.status()))
        self._log.info("daemon.listening", addresses=self.addresses, socket=configuration.listen.socket)

    def _build_regime(self, pseudonym: str, reach: Reach, audit: AuditLog | None) -> Regime:
        configuration = self._configuration
        tracer = None if self._telemetry is None else Tracer(self._telemetry, self._clock)
        holdings = {
            name: build_holding(
                account,
                self._clock,
                self._vault,
                configuration.store,
                self._changed,
                tracer,
                self.meters.of_account(name),
            )
            for name, account in configuration.accounts.items()
        }
        parties = {name: holding.party for name, holding in holdings.items() if holding.party is not None}
        self.logins = Logins(parties, self._clock)
        self._browsers = BrowserLogins(self.logins, reach.landings, reach.guard)
        limits = configuration.limits
        self._ground = ground = Ground(
            self._pool,
            self._hook,
            Pages(self.status, self._browsers, self._probes),
            SpoolBudget(limits.replay_total, limits.replay_body),
            Disk(spool_folder(), SpoolBudget(limits.spool_total, limits.spool_body)),
            pseudonym,
            self.meters,
            tracer,
        )
        return Regime(ground, configuration, reach, holdings, audit)

    async def _open_doors(
        self,
        regime: Regime,
        callers: Callers | None,
        sockets: Sequence[socket.socket],
        local: socket.socket | None,
    ) -> list[asyncio.Server]:
        """Other machines' clients are known by their keys: whose they are there is nobody's to tell here."""
        assert self._server is not None  # noqa: S101  # it was built just now
        guard = regime.reach.guard
        judge = regime.build_judge(guard)
        far = [sock for sock in sockets if not _is_near(sock)]
        near = [sock for sock in sockets if _is_near(sock)]
        servers = await accept_from(near, self._server.by(Door(guard, judge, callers)))
        servers += await accept_from(far, self._server.by(Door(guard, judge)))
        if local is not None:
            guard = for_socket(guard)
            door = Door(guard, regime.build_judge(guard), self._socket_callers())
            servers += await accept_from([local], self._server.by(door))
        return servers

    def _listen(self, opened: ExitStack) -> list[socket.socket]:
        sockets = list(self._handed.inet) if self._handed else listen(self._configuration.listen)
        for sock in sockets:
            opened.callback(sock.close)
        if sockets:
            self.port = sockets[0].getsockname()[1]
        return sockets

    def _listen_for_probes(self, opened: ExitStack) -> list[socket.socket]:
        settings = self._configuration.listen.probes
        if settings is None:
            return []
        host, port = settings
        try:
            sockets = open_sockets((host,), port)
        except CannotListen as problem:
            raise ConfigError(f"listen.probes: {problem}; choose another") from None
        if not sockets:
            raise ConfigError(f"listen.probes: this machine has no {host}; use 127.0.0.1")
        opened.callback(sockets[0].close)
        self.probes_port = sockets[0].getsockname()[1]
        return sockets

    def _listen_locally(self, opened: ExitStack) -> socket.socket | None:
        settings = self._configuration.listen
        if settings.socket is None:
            return None
        if self._handed.unix is not None:  # its name is the service manager's to take away
            return opened.enter_context(self._handed.unix)
        self._local = LocalSocket(Path(settings.socket), settings.socket_mode)
        opened.callback(self._local.close)
        try:
            return opened.enter_context(self._local.open())
        except CannotListen as problem:
            raise ConfigError(f"listen.socket: {problem}") from None

    def _build_reach(self, pseudonym: str, *, reachable: bool) -> Reach:
        try:
            reach = build_reach(self._configuration, self.port, pseudonym)
        except ValueError as problem:
            raise ConfigError(str(problem)) from None
        return reach if reachable or self._configuration.listen.public_url else reach.hidden()

    def _tcp_callers(self, sockets: Sequence[socket.socket], opened: ExitStack) -> Callers | None:
        """Those who may connect by TCP; None for all, which is said where it is not what was wanted."""
        if not sockets or self._configuration.listen.peer_uid == "any":
            return None
        if sys.platform != "linux":
            self._log.warning("peer.unknown", because="this system does not tell whose a connection is")
            return None
        self._users = TcpUsers.open(sockets[0])
        if self._users is None:
            raise ConfigError(
                "listen.peer_uid: this system does not tell whose a connection is, by sock_diag or in /proc/net/tcp; "
                'mend that, use listen.socket with listen.hosts = [], or set it to "any"'
            )
        opened.callback(self._users.close)
        return Callers(self._users.of, own_users(), _NOT_BY_TCP)

    def _socket_callers(self) -> Callers:
        return Callers(unix_user, own_users() | self._configuration.listen.socket_uids, _NOT_BY_SOCKET)

    async def _open_telemetry(self) -> Telemetry | None:
        log = self._configuration.log
        return await asyncio.to_thread(open_telemetry, log, os.environ) if log.traces else None

    async def _open_audit(self) -> AuditLog | None:
        log = self._configuration.log
        if not log.audit:
            return None
        file = await asyncio.to_thread(open_file, log.audit)
        return AuditLog(file, self._clock, required=log.audit_required)

    async def started(self) -> None:
        """Until each account has been read from its store. Raises StoreError where the vault's key cannot be had."""
        await asyncio.shield(self._starting)

    async def _start_accounts(self, regime: Regime) -> None:
        holdings = regime.holdings.values()
        steps = [holding.manager.start(first_refresh_token(holding.account)) for holding in holdings]
        if regime.shared:
            steps.append(self._read_key())
        await asyncio.gather(*steps)
        self._log.info("daemon.started", accounts=sorted(regime.holdings))

    async def _read_key(self) -> None:
        began_at = self._clock.steady()
        await self._vault.key()
        self._log.info("vault.key_read", duration_s=round(self._clock.steady() - began_at, 3))

    async def stop(self, drain_s: float | None = None) -> bool:
        """Take no new calls, let those in flight finish within `drain_s` (by default the limit that is set), then save
        what is being refreshed. False where tokens are lost, or may be, for they could not be saved.
        """
        self.health.draining = True
        self._supervisor.stopping()
        self._supervisor.describe(f"ends, with {self._front.calls_in_flight} call(s) under way")
        self._log.info("daemon.stopping", calls=self._front.calls_in_flight)
        if self._local is not None:
            self._local.close()
        for server in self._servers:
            server.close()
        if self._control is not None:
            await self._control.aclose()
        regime = self._regime
        if self._server is not None:
            self._server.pre_shutdown()
            await self._server.drained(self._configuration.limits.drain_s if drain_s is None else drain_s)
            regime.observers.ending = "stop"
            await self._server.shutdown(CUT_OFF_S)
        if self._users is not None:
            self._users.close()
        self._starting.cancel()
        await asyncio.gather(self._starting, return_exceptions=True)
        await self._browsers.aclose()
        await self._hook.aclose()
        kept = await close_all(regime.managers.values(), self._supervisor)
        self._pool.close()
        if regime.audit is not None:
            await regime.audit.aclose()
        if self._telemetry is not None:
            await self._telemetry.aclose()
        await self._prober.aclose()
        await self.health.aclose()
        self._log.info("daemon.stopped")
        return kept

    async def cut_short(self) -> None:
        """In place of the rest of `stop`: nothing is waited for but tokens that have come and are not saved yet."""
        saved = await save_now(self._regime.managers.values())
        self._log.warning("daemon.cut_short", calls=self._front.calls_in_flight, saved=saved)

    def _changed(self, account: str, state: State) -> None:
        self._hook.changed(account, state)
        if not self.health.draining:
            self._supervisor.describe(summarise(self.status()))

    def _has_started(self) -> bool:
        return self._starting.done() and not self._starting.cancelled() and self._starting.exception() is None

    def _is_shut(self) -> bool:
        return self._regime.observers.shut

    async def _look_at_store(self) -> None:
        if self._regime.shared:
            await self._vault.check()

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
        terminals = TerminalLogins(self.logins, regime.reach.landings, regime.reach.login_urls)
        return ControlSocket(
            origin,
            regime.managers,
            self.status,
            self._control_defect,
            shared=regime.shared,
            terminals=terminals,
        )

    def _control_defect(self, exc: Exception) -> None:
        self._log.error("control.defect", trace=frames(exc))

    def _build_gate(self, regime: Regime) -> Gate:
        limits = regime.configuration.limits
        per_call = 3 if any(route.disk_spool for route in regime.configuration.routes) else 2
        most = allowed_connections(limits.connections, descriptor_limit(), per_call)
        if most < limits.connections:
            self._log.warning("connections.fewer", connections=most, because="the limit of open files is low")
        return Gate(self._front, limits, most, self._front.begin, self.meters)


def check_keys(settings: Keys) -> None:
    """Raises ConfigError for keys by which nobody could call."""
    try:
        load_needed(settings)
    except StoreError as problem:
        raise ConfigError(f"keys: {problem}") from None


def listen(settings: Listen) -> list[socket.socket]:
    """Bind every address, all on one port; none where there are no `hosts`. Raises ConfigError."""
    try:
        sockets = open_sockets(settings.hosts, settings.port)
    except CannotListen as problem:
        raise ConfigError(f"listen.port: {problem}{_CURES.get(problem.number, _ANOTHER_PORT)}") from None
    if settings.hosts and not sockets:
        raise ConfigError(
            f"listen.hosts: this machine has none of {', '.join(settings.hosts)}; use 127.0.0.1"
        )
    return sockets


_ANOTHER_PORT: Final = "; choose another with --port or listen.port"
_CURES: Final = {
    errno.EADDRINUSE: "; stop it, or choose another with --port or listen.port",
    errno.EACCES: "; choose a port above 1023 with --port or listen.port",
}


def _is_near(listening: socket.socket) -> bool:
    return ip_address(listening.getsockname()[0]).is_loopback


def _host(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    host = own_address(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def descriptor_limit() -> float:
    """How many files this process may have open."""
    if sys.platform == "win32":
        return math.inf
    import resource  # noqa: PLC0415  # there is none for Windows

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft
