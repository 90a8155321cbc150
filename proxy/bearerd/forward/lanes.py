"""What is the same for all calls of a route."""

from bearerd.core.fields import Fields
from bearerd.core.guard import Head
from bearerd.core.headers import RequestHeads
from bearerd.core.rewrites import rewrite_field
from bearerd.core.targets import Route, build_target
from bearerd.core.tokens import TokenSet
from bearerd.forward.pool import UpstreamPool
from bearerd.tokens.manager import TokenManager


class Lane:
    """A route, the manager of its account, its idle connections, and what its messages are made from."""

    __slots__ = ("_heads", "_routes", "manager", "route", "shelf")

    def __init__(
        self, route: Route, routes: tuple[Route, ...], manager: TokenManager, pool: UpstreamPool
    ) -> None:
        """`routes` are all there are, in the order of `match_route`."""
        self.route = route
        self.manager = manager
        self.shelf = pool.shelf(route.origin, route.way)
        self._routes = routes
        self._heads = RequestHeads(
            route.origin.authority.encode("ascii"), cookies=route.cookies, rules=route.fields
        )

    def build_head(  # what a head is made of
        self,
        head: Head,
        fields: Fields,
        via: bytes,
        token: TokenSet,
        length: bytes | None,
        *,
        chunked: bool = False,
        upgrade: bytes | None = None,
    ) -> bytes:
        """The head of the upstream's request, with `fields` of the client's."""
        framing = (b"Transfer-Encoding", b"chunked") if chunked else None
        if length is not None:
            framing = (b"Content-Length", length)
        return self._heads.build(
            b"%b %b HTTP/1.1" % (head.method.encode("ascii"), build_target(self.route, head.target)),
            fields,
            via=via,
            framing=framing,
            token=token.access_token.reveal().encode("ascii"),
            upgrade=upgrade,
        )

    def rewrite(self, target: bytes, name: bytes, value: bytes) -> bytes | None:
        """`rewrite_field` for the answer to a client's `target`."""
        return rewrite_field(self._routes, self.route, target, name, value)
