"""The composition root: a configuration becomes managers, a pool, servers; and they end in order."""

import asyncio
import errno
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

import structlog
from aiohttp import web

from bearerd.assembly import SystemClock, Vault, build_manager, first_refresh_token, needs_vault
from bearerd.control.pages import Pages
from bearerd.control.rendezvous import Origin
from bearerd.control.socket import ControlSocket
from bearerd.control.status import build_status
from bearerd.core.accounts import Account
from bearerd.core.configuration import Configuration, Listen
from bearerd.core.guard import Guard, Head, build_guard, origin_form, refuse
from bearerd.core.lifecycle import token_of
from bearerd.core.problems import Problem
from bearerd.core.targets import in_control, path_of
from bearerd.core.tokens import TokenSet
from bearerd.errors import ConfigError, Interrupted
from bearerd.forward.handler import Forwarder
from bearerd.forward.reply import answer_problem
from bearerd.forward.spool import SpoolBudget
from bearerd.forward.upstream import UpstreamPool
from bearerd.logs import frames
from bearerd.ports import Clock
from bearerd.tokens.manager import TokenManager

T = TypeVar("T")

DRAIN_S: Final = 8.0  # container runtimes kill at 10 s
CUT_OFF_S: Final = 0.1  # for the server to end what the drain has not
KEEPALIVE_S: Final = 75.0
LINE_LIMIT: Final = 16 << 10
FIELD_LIMIT: Final = 32 << 10


_DEFECT: Final = Problem(
    500, "internal_error", "bearerd met an error of its own; its log says where", "proxy_internal_error"
)


class Daemon:
    """One running bearerd. `start` returns when the port answers; tokens are fetched meanwhile.

    `origin` is where the configuration is from; with none there is no control socket.
    """

    def __init__(
        self, configuration: Configuration, clock: Clock | None = None, origin: Origin | None = None
    ) -> None:
        self._configuration = configuration
        self._clock = clock or SystemClock()
        self._log = structlog.get_logger("bearerd.daemon")
        self._managers: dict[str, TokenManager] = {}
        self._vault = Vault(configuration.store)
        self._pool = UpstreamPool()
        self._starting: asyncio.Task[None]
        self._servers: list[asyncio.Server] = []
        self._server: web.Server | None = None
        self._front: Front
        self._control = (
            ControlSocket(origin, self._managers, self.status, self._control_defect) if origin else None
        )
        self.port = configuration.listen.port

    @property
    def addresses(self) -> tuple[str, ...]:
        """The base URLs under which clients reach this daemon."""
        return tuple(f"http://{_host(listening)}" for server in self._servers for listening in server.sockets)

    async def start(self) -> None:
        """Raises ConfigError where an address cannot be listened on; nothing runs then."""
        sockets = listen(self._configuration.listen)
        self.port = sockets[0].getsockname()[1]
        for name, account in self._configuration.accounts.items():
            self._managers[name] = build_manager(account, self._clock, self._vault_of(account))
        self._front = self._build_front()
        self._server = web.Server(
            self._front,
            handler_cancellation=True,
            keepalive_timeout=KEEPALIVE_S,
            access_log=None,
            auto_decompress=False,
            max_line_size=LINE_LIMIT,
            max_field_size=FIELD_LIMIT,
        )
        loop = asyncio.get_running_loop()
        self._servers = [await loop.create_server(self._server, sock=sock) for sock in sockets]
        self._starting = asyncio.create_task(self._start_accounts())
        if self._control is not None:
            self._control.start(os.environ)
        self._log.info("daemon.listening", addresses=self.addresses)

    async def started(self) -> None:
        """Until each account has been read from its store. Raises StoreError where the vault's key cannot be had."""
        await asyncio.shield(self._starting)

    async def _start_accounts(self) -> None:
        accounts = self._configuration.accounts.values()
        steps = [self._managers[account.name].start(first_refresh_token(account)) for account in accounts]
        if any(self._vault_of(account) for account in accounts):
            steps.append(self._read_key())
        await asyncio.gather(*steps)
        self._log.info("daemon.started", accounts=sorted(self._managers))

    async def _read_key(self) -> None:
        began_at = self._clock.steady()
        await self._vault.key()
        self._log.info("vault.key_read", duration_s=round(self._clock.steady() - began_at, 3))

    def _vault_of(self, account: Account) -> Vault | None:
        return self._vault if needs_vault(account, self._configuration.store) else None

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Take no new calls, let those in flight finish within `drain_s`, then save what is being refreshed."""
        for server in self._servers:
            server.close()
        if self._control is not None:
            await self._control.aclose()
        if self._server is not None:
            self._server.pre_shutdown()
            await self._front.drained(drain_s)
            await self._server.shutdown(CUT_OFF_S)
        self._starting.cancel()
        await asyncio.gather(self._starting, return_exceptions=True)
        await asyncio.gather(*(manager.aclose() for manager in self._managers.values()))
        self._pool.close()
        self._log.info("daemon.stopped")

    def status(self) -> dict[str, Any]:
        """The status document."""
        states = {name: manager.state for name, manager in self._managers.items()}
        return build_status(states, self._configuration.routes, self.addresses, self._clock.wall())

    def _control_defect(self, exc: Exception) -> None:
        self._log.error("control.defect", trace=frames(exc))

    def _build_front(self) -> "Front":
        pseudonym = f"bearerd-{secrets.token_hex(8)}"
        limits = self._configuration.limits
        forwarder = Forwarder(
            self._configuration.routes,
            self._managers,
            self._pool,
            SpoolBudget(limits.replay_total, limits.replay_body),
            pseudonym=pseudonym,
            access=self._configuration.log.access,
        )
        listen = self._configuration.listen
        guard = build_guard(self.port, listen.allowed_hosts, pseudonym, listen.public_url)
        return Front(guard, forwarder, Pages(self.status))


class Front:
    """The first to see a request: guard, then a page of our own or a call to forward."""

    def __init__(self, guard: Guard, forwarder: Forwarder, pages: Pages) -> None:
        self._guard = guard
        self._forwarder = forwarder
        self._pages = pages
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._log = structlog.get_logger("bearerd.front")

    async def drained(self, limit_s: float) -> None:
        """Until no call is in flight, at most `limit_s` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._idle.wait()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self._in_flight += 1
        self._idle.clear()
        try:
            return await self._answer(request)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        head = Head(
            request.method,
            origin_form(self._guard, request.raw_path.encode("utf-8", "surrogateescape")),
            (request.version.major, request.version.minor),
            request.raw_headers,
        )
        problem = refuse(self._guard, head)
        if problem is not None:
            return self._refused(head, problem)
        if in_control(head.target):
            page = self._pages.answer(head)
            return answer_problem(page) if isinstance(page, Problem) else page
        try:
            return await self._forwarder.handle(request, head)
        except ConnectionError:
            raise
        except Exception as exc:  # noqa: BLE001  # one call's defect must not show its values, nor end the daemon
            self._log.error("request.defect", trace=frames(exc))
            return answer_problem(_DEFECT)

    def _refused(self, head: Head, problem: Problem) -> web.Response:
        path = path_of(head.target).decode("latin-1")
        self._log.warning("request.refused", problem=problem.code, method=head.method, path=path)
        return answer_problem(problem)


def listen(settings: Listen) -> list[socket.socket]:
    """Bind every address, all on one port. An address family this machine lacks is left out; one in use is fatal.

    Raises ConfigError.
    """
    sockets: list[socket.socket] = []
    port = settings.port
    for host in settings.hosts:
        try:
            sock = _bind(host, port)
        except OSError as exc:
            if exc.errno in _NO_FAMILY:
                continue
            for bound in sockets:
                bound.close()
            raise ConfigError(_cannot_listen(host, port, exc)) from None
        port = sock.getsockname()[1]
        sockets.append(sock)
    if not sockets:
        raise ConfigError(
            f"listen.hosts: this machine has none of {', '.join(settings.hosts)}; use 127.0.0.1"
        )
    return sockets


_NO_FAMILY: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # there it would let another process take the port over
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(1024)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _cannot_listen(host: str, port: int, exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        problem = "is in use by another program; stop it, or choose another with --port or listen.port"
    elif exc.errno == errno.EACCES:
        problem = "needs privileges; choose a port above 1023 with --port or listen.port"
    else:
        problem = "cannot be listened on; choose another with --port or listen.port"
    return f"listen.port: {port} on {host} {problem}"


def _host(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(
    configuration: Configuration, ready: Callable[[Daemon], None], origin: Origin | None = None
) -> None:
    """Run until SIGINT or SIGTERM; a second one ends at once. `ready` is called when the port answers.

    `origin` is where the configuration is from.
    """
    raise_descriptor_limit()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: Ctrl-C arrives as KeyboardInterrupt
            loop.add_signal_handler(number, stopping.set)
    daemon = Daemon(configuration, origin=origin or Origin())
    await daemon.start()
    try:
        await _first_of(daemon.started(), stopping.wait())
        ready(daemon)
        await stopping.wait()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
    finally:
        await daemon.stop()


async def _first_of(*steps: Coroutine[Any, Any, object]) -> None:
    """Until one of them has ended; the others are cancelled. Raises what it raised."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    for task in done:
        task.result()


def raise_descriptor_limit() -> None:
    """Two descriptors go with each call; the soft limit is often 1,024, and the hard one is there to be used."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415  # there is none for Windows

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def fetch_token(
    configuration: Configuration, account: Account, *, min_valid_s: float = 0.0, force: bool = False
) -> TokenSet:
    """One token of `account`, for a process that ends after it. Raises TokenError, StoreError.

    SIGTERM and SIGHUP end it with Interrupted, once what a refresh under way gives has been saved.
    """
    _cancel_at(signal.SIGTERM, signal.SIGHUP)
    vault = Vault(configuration.store) if needs_vault(account, configuration.store) else None
    manager = build_manager(account, SystemClock(), vault, stays=False)
    try:
        if vault is not None:
            await vault.key()
        await manager.start(first_refresh_token(account))
        token = await (manager.refresh() if force else manager.token(min_valid_s))
    except asyncio.CancelledError:
        raise Interrupted("interrupted; what had been sent was waited for") from None
    finally:
        await manager.aclose()
    # A refresh that was due has been waited for just now, and its token lasts longer than the one in force before.
    return token_of(manager.state) or token


def _cancel_at(*numbers: signal.Signals) -> None:
    """The first of these signals cancels this task; the next are ignored."""
    loop = asyncio.get_running_loop()
    waiting = [asyncio.current_task(loop)]

    def cancel() -> None:
        while waiting:
            task = waiting.pop()
            if task is not None:
                task.cancel()

    for number in numbers:
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, cancel)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on the fastest event loop there is."""
    if sys.platform == "win32":
        return asyncio.run(main)
    import uvloop  # noqa: PLC0415  # there is none for Windows

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
