"""How browsers and programs reach a daemon, and where its logins come back to."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bearerd.core.accounts import OAuthSource
from bearerd.core.configuration import Configuration
from bearerd.core.guard import Guard, build_guard
from bearerd.core.redirects import Landing, build_base, build_login_url, find_landing, own_address
from bearerd.core.targets import Origin


@dataclass(frozen=True, slots=True)
class Reach:
    """`base` is the origin for browsers. `landings` has the accounts that a person may log in to.

    Both are empty where no browser gets to.
    """

    base: str
    guard: Guard
    landings: Mapping[str, Landing]

    @property
    def login_urls(self) -> dict[str, str]:
        return {account: build_login_url(self.base, account) for account in self.landings}

    def mend_url(self, account: str) -> str:
        """Where a person sees what is wrong with `account`, and mends it if that can be done here. May be empty."""
        return self.login_urls.get(account, f"{self.base}/-/" if self.base else "")

    def hidden(self) -> "Reach":
        """The same for a daemon on a Unix socket alone."""
        return replace(self, base="", landings={})


def build_reach(configuration: Configuration, port: int, pseudonym: str) -> Reach:
    """For a daemon that listens on `port`. Raises ValueError where a redirect URI leads nowhere."""
    listen = configuration.listen
    base = build_base(listen.public_url, listen.hosts, port)
    # An address in Host is nobody's name, so nobody can make a name of theirs lead to it.
    literal = {Origin("http", own_address(host), port).authority for host in listen.remote_hosts}
    hosts = listen.allowed_hosts | literal
    guard = build_guard(
        port,
        hosts,
        pseudonym,
        listen.public_url,
        listen.allowed_origins,
        keyed=configuration.keys.use == "required",
    )
    landings = {}
    for name, account in configuration.accounts.items():
        if isinstance(account.source, OAuthSource) and account.source.interactive:
            try:
                landings[name] = find_landing(account.source.redirect_uri, base, guard.origins)
            except ValueError as problem:
                raise ValueError(f"accounts.{name}.redirect_uri: {problem}") from None
    paths = frozenset(landing.path.encode() for landing in landings.values())
    return Reach(base, replace(guard, callbacks=paths), landings)
