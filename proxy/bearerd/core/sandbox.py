"""A page that an upstream serves has our origin, which is that of our own pages and of every other route.

So it is shown in a sandbox (https://html.spec.whatwg.org, "sandboxing"): its origin is none, and what it asks of us is refused as
another site's. Nor may it leave a service worker behind, which would stand between browser and daemon for good.
"""

from typing import Final

from bearerd.core.fields import RawFields
from bearerd.core.guard import Head
from bearerd.core.problems import Problem

SANDBOX: Final[RawFields] = ((b"Content-Security-Policy", b"sandbox allow-scripts allow-forms"),)
WORKER_REFUSED: Final = Problem(
    403,
    "worker_refused",
    "a page may not install a service worker here, where it would see the calls of all routes; "
    "set browser_app of the route if you trust its upstream with all of bearerd",
    "http_request_denied",
)
WORKER: Final = b"service-worker"
# Every browser sends some of these. Those without Fetch Metadata are old, or do not trust a name that has no TLS.
MARKS: Final = frozenset(
    {
        b"sec-fetch-site",
        b"sec-fetch-mode",
        b"sec-fetch-dest",
        b"sec-fetch-user",
        b"upgrade-insecure-requests",
        b"accept-language",
    }
)
_CALLS: Final = frozenset({b"cors", b"no-cors", b"same-origin", b"websocket"})
_PAGES: Final = frozenset({b"document", b"iframe", b"frame", b"embed", b"object", b"fencedframe"})


def may_become_page(head: Head) -> bool:
    """Whether a browser may show the answer as a page, be it in a frame.

    Where it does not say, it may, whatever it accepts: a picture of today can be taken from the cache as a page tomorrow.
    """
    if MARKS.isdisjoint(head.names.places):
        return False
    return head.get(b"sec-fetch-mode") not in _CALLS or head.get(b"sec-fetch-dest") in _PAGES


def asks_for_worker(head: Head) -> bool:
    """Whether a browser is about to install the answer (https://w3c.github.io/ServiceWorker, "service-worker script request")."""
    return WORKER in head.names.places
