"""Where a configuration has bearerd connect to. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from bearerd.core.accounts import OAuthSource
from bearerd.core.configuration import Configuration
from bearerd.core.targets import Origin, Way, parse_origin, way_to_server
from bearerd.settings.problems import setting_name


@dataclass(frozen=True, slots=True)
class Place:
    """Where bearerd connects to: an upstream, or an authorization server. Settings have it as `name` of `table`."""

    origin: Origin
    way: Way
    table: tuple[str, str]
    name: str
    base: bytes = b""

    @property
    def upstream(self) -> bool:
        return self.table[0] == "routes"

    @property
    def setting(self) -> str:
        return self.beside(self.name)

    def beside(self, name: str) -> str:
        """Another setting of the same table, in full."""
        return setting_name((*self.table, name))


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
            yield Place(origin, way_to_server(origin, source.way), ("accounts", account.name), key)


def _upstreams(configuration: Configuration) -> Iterator[Place]:
    for route in reversed(configuration.routes):
        yield Place(route.origin, route.way, ("routes", route.name), "upstream", route.base)
