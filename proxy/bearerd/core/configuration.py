"""The effective configuration, as plain values. `bearerd.settings` builds it."""

from dataclasses import dataclass, field
from ipaddress import ip_address

from bearerd.core.accounts import Account
from bearerd.core.reaching import DEFAULT_HOSTS, DEFAULT_PORT
from bearerd.core.redaction import Secret
from bearerd.core.targets import Route


@dataclass(frozen=True, slots=True)
class Listen:
    """Where clients connect. `hosts` are literal addresses; port 0 lets the system choose.

    `public_url` is what a browser reaches this daemon by, where that is another address: a container's published port.
    `socket` is the path of a Unix socket, with its mode and the users that may connect beside ours and root. `peer_uid` is
    own where only those two may connect by TCP, or any. `probes` is an address and a port for probes alone.
    """

    hosts: tuple[str, ...] = DEFAULT_HOSTS
    port: int = DEFAULT_PORT
    allowed_hosts: frozenset[str] = frozenset()  # further `Host` values, exact and lower case
    public_url: str | None = None  # an origin, no path
    allowed_origins: frozenset[str] = frozenset()  # of pages elsewhere that may make calls
    peer_uid: str = "own"
    socket: str | None = None
    socket_mode: int = 0o600
    socket_uids: frozenset[int] = frozenset()
    remote: bool = False  # whether other machines may be able to connect
    probes: tuple[str, int] | None = None

    @property
    def remote_hosts(self) -> tuple[str, ...]:
        """Those of `hosts` by which other machines can connect."""
        return tuple(host for host in self.hosts if not ip_address(host).is_loopback)


@dataclass(frozen=True, slots=True)
class Keys:
    """Whether clients have keys: `use` is off, optional or required. `file` holds what they are held against.

    `fields` are those that a key may come in, beside Authorization.
    """

    use: str = "off"
    file: str = ""
    fields: tuple[str, ...] = ("X-Api-Key",)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much there may be at once, and how long it may take.

    `replay_body` and `replay_total` are bytes of request bodies kept for a replay after a 401: of one call, and of all
    calls together. `spool_body` and `spool_total` are the same for what is kept on disk. `header_read_s` runs from a head's first byte to its last; `body_idle_s` between two pieces of a
    request's body; `keep_alive_s` between two requests; `drain_s` is for calls under way when the daemon is to end.
    An upstream has `upstream_connect_s` to accept a connection, which is kept for `upstream_idle_s` unused.
    """

    replay_body: int = 1 << 20
    replay_total: int = 16 << 20
    connections: int = 1024
    header_read_s: float = 10.0
    body_idle_s: float = 60.0
    keep_alive_s: float = 75.0
    drain_s: float = 8.0  # container runtimes kill at 10 s
    upstream_connect_s: float = 10.0
    upstream_idle_s: float = 15.0
    spool_body: int = 64 << 20
    spool_total: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Store:
    """Where tokens are at rest.

    `kind` is auto (a vault for accounts that spend refresh tokens, memory for all others), vault or memory.
    `key_source` says where the vault's data key is: keychain, file (`key_file`), secret (`key_secret`, the key
    itself in base64), or auto: the keychain, or a refusal that names the other ways.
    """

    kind: str = "auto"
    path: str = ""
    key_source: str = "auto"
    key_file: str = ""
    key_secret: Secret | None = None


@dataclass(frozen=True, slots=True)
class Logging:
    """`level` as in syslog, lower case; `format` is console, json or auto (console on a terminal).

    `audit` is the file that has a line for each call; empty for none. With `audit_required` no call is made while it
    cannot be written. With `traces` calls are recorded for a collector at `traces_endpoint`, a URL; empty for what standard
    variables say.
    """

    level: str = "info"
    format: str = "auto"
    access: bool = True
    audit: str = ""
    audit_required: bool = False
    traces: bool = False
    traces_endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Accounts by name, routes longest prefix first."""

    accounts: dict[str, Account]
    routes: tuple[Route, ...]
    listen: Listen = field(default_factory=Listen)
    keys: Keys = field(default_factory=Keys)
    limits: Limits = field(default_factory=Limits)
    store: Store = field(default_factory=Store)
    log: Logging = field(default_factory=Logging)
    # A program and its arguments, run when a call needs a login.
    on_login_needed: tuple[str, ...] = field(default=(), repr=False)
