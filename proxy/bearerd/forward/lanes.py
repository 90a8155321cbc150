"""What is the same for all calls of a route."""

from collections.abc import Callable

from bearerd.core.field_rules import FieldRules
from bearerd.core.fields import Fields, RawFields
from bearerd.core.forwarded import forwarded_fields
from bearerd.core.guard import Head
from bearerd.core.headers import RequestHeads
from bearerd.core.own_credentials import brings_own
from bearerd.core.problems import Problem
from bearerd.core.rewrites import rewrite_field
from bearerd.core.sandbox import SANDBOX
from bearerd.core.targets import Route, build_target
from bearerd.core.tokens import TokenSet
from bearerd.forward.pool import UpstreamPool
from bearerd.meters import Meters
from bearerd.tokens.manager import TokenManager


class Lane:
    """A route, the manager of its account, its idle connections, and what its messages are made from.

    `current` has the token for calls that can be sent at once, if there is one; never where more has to be known of a
    call. `tells` says that the upstream is told of clients. `own` is the lane for calls with a credential of the client's
    own, where that may be. `meter` counts them. `grant` are fields of an answer that a browser may show as a page.
    """

    __slots__ = (
        "_heads",
        "_routes",
        "_rules",
        "credential",
        "current",
        "grant",
        "manager",
        "meter",
        "own",
        "route",
        "shelf",
        "tells",
    )

    def __init__(
        self,
        route: Route,
        routes: tuple[Route, ...],
        manager: TokenManager,
        pool: UpstreamPool,
        meters: Meters,
        rules: FieldRules | None = None,
    ) -> None:
        """`routes` are all there are, in the order of `match_route`. `rules` are the route's unless given."""
        rules = rules or route.fields
        self.route = route
        self.manager = manager
        self.credential = rules.credential
        self.meter = meters.of_calls(route.name, route.account if rules.credential else "")
        self.grant: RawFields = () if route.browser_app else SANDBOX
        self.tells = rules.forwarded in {"forwarded", "x-forwarded"}
        waits = rules.credential is None or self.tells
        self.current: Callable[[], TokenSet | None] = _no_token if waits else manager.current
        self.own = None if rules.own is None else Lane(route, routes, manager, pool, meters, rules.own)
        self.shelf = pool.shelf(route.origin, route.way)
        self._routes = routes
        self._rules = rules
        self._heads = RequestHeads(route.origin.authority.encode("ascii"), cookies=route.cookies, rules=rules)

    def choose(self, own: "Lane", head: Head) -> "Lane | Problem":
        """`own` for a call that has a credential of the client's own, else this lane; or why it takes neither."""
        brought = brings_own(self._rules.carrier, head.headers)
        if isinstance(brought, Problem):
            return brought
        return own if brought else self

    def build_head(  # what a head is made of
        self,
        head: Head,
        fields: Fields,
        via: bytes,
        token: TokenSet | None,
        length: bytes | None,
        *,
        chunked: bool = False,
        upgrade: bytes | None = None,
        forwarded: RawFields = (),
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
            token=b"" if token is None else token.access_token.reveal().encode("ascii"),
            upgrade=upgrade,
            forwarded=forwarded,
        )

    def tell(self, head: Head, peer: str | None) -> RawFields:
        """What the upstream is told of a client at the address `peer`."""
        return forwarded_fields(self._rules.forwarded, peer, head.get(b"host") or b"")

    def rewrite(self, target: bytes, name: bytes, value: bytes) -> bytes | None:
        """`rewrite_field` for the answer to a client's `target`."""
        return rewrite_field(self._routes, self.route, target, name, value)


def _no_token() -> None:
    """Nothing is to be sent at once."""
