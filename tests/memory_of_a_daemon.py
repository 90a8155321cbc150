"""A daemon with an account `me`, as a program. For each line of input, texts written backwards, it prints what has one of them."""

import asyncio
import gc
import json
import sys
from collections.abc import Iterator
from typing import Any

from bearerd import logs
from bearerd.core.accounts import Account, ClientAuth, Grant, OAuthSource
from bearerd.core.configuration import Configuration, Listen, Logging, Store
from bearerd.core.targets import parse_route
from bearerd.daemon import Daemon
from bearerd.loop import new_event_loop


def find(needles: list[str]) -> list[str]:
    """Of all that can be reached, which texts have a needle, each with the types of what leads there."""
    gc.collect()
    raw = [needle.encode() for needle in needles]
    own = {id(thing) for thing in (needles, raw)}
    found = []
    for holder in gc.get_objects():
        if id(holder) in own:
            continue
        for text in texts_of(holder):
            looked_for = needles if isinstance(text, str) else raw
            if any(needle in text for needle in looked_for):  # type: ignore[operator]  # each kind in its own
                found.append(
                    f"{text[:24]!r} in {kind_of(holder)} in {list(map(kind_of, gc.get_referrers(holder)))}"
                )
    return found


def texts_of(holder: Any) -> Iterator[str | bytes | bytearray]:
    """Its own, and those of what is in it and not known to the collector: tuples and mappings of plain values."""
    for inner in gc.get_referents(holder):
        if isinstance(inner, str | bytes | bytearray):
            yield inner
        elif not gc.is_tracked(inner):
            yield from texts_of(inner)


def kind_of(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def tell(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def main(issuer: str, upstream: str) -> None:
    source = OAuthSource(
        Grant.AUTHORIZATION_CODE, "bearerd", ClientAuth.NONE, issuer=issuer, scopes=("openid",)
    )
    daemon = Daemon(
        Configuration(
            accounts={"me": Account("me", source)},
            routes=(parse_route("/me/", upstream, "me"),),
            listen=Listen(port=0),
            store=Store(kind="memory"),
            log=Logging(access=False),
        )
    )
    logs.configure(Logging(level="critical"))
    await daemon.start()
    await daemon.started()
    tell(daemon.port)
    while line := await asyncio.to_thread(sys.stdin.readline):
        needles = [word[::-1] for word in json.loads(line)]
        del line
        tell(find(needles))
    await daemon.stop(0.5)


if __name__ == "__main__":
    factory = new_event_loop if sys.argv[3] == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(*sys.argv[1:3]))
