"""Where a configuration has bearerd connect to. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from bearerd.core.accounts import OAuthSource
from bearerd.core.configuration import Configuration
from bearerd.core.targets import DIRECT, Origin, Route, Way, parse_origin
from bearerd.settings.problems import setting_name


@dataclass(frozen=True, slots=True)
class Place:
    """Where bearerd connects to. `setting` is where that is written; `route` is None for an authorization server."""

    origin: Origin
    way: Way
    setting: str
    base: bytes = b""
    route: Route | None = field(default=None, repr=False)

    def of_route(self, key: str) -> str:
        """The name of another setting of the same route."""
        return setting_name(("routes", self.route.name, key)) if self.route else key


def find_places(configuration: Configuration) -> list[Place]:
    """Each once, though several routes or accounts lead there."""
    places: dict[tuple[Origin, Way], Place] = {}
    for place in (*_servers(configuration), *_upstreams(configuration)):
        places.setdefault((place.origin, place.way), place)
    return list(places.values())


def _servers(configuration: Configuration) -> Iterator[Place]:
    for account in configuration.accounts.values():
        source = account.source
        if isinstance(source, OAuthSource):
            key = "token_endpoint" if source.token_endpoint else "issuer"
            origin, _ = parse_origin((source.token_endpoint or source.issuer or "").partition("?")[0])
            yield Place(origin, DIRECT, setting_name(("accounts", account.name, key)))


def _upstreams(configuration: Configuration) -> Iterator[Place]:
    for route in reversed(configuration.routes):
        setting = setting_name(("routes", route.name, "upstream"))
        yield Place(route.origin, route.way, setting, route.base, route)
