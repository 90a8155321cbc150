"""`bearerd demo`: an authorization server, an API that wants its tokens, and bearerd between it and you."""

import os
from pathlib import Path

import click

from bearerd.cli import port_option
from bearerd.core.reaching import DEFAULT_PORT


@click.command("demo")
@port_option
@click.option(
    "--servers",
    type=click.IntRange(1, 65534),
    metavar="PORT",
    help="Run the two servers alone, for a bearerd elsewhere: the authorization server on PORT, the API on the next one.",
)
@click.option(
    "--client-secret-file",
    "secret",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --servers: the secret of the client bearerd-demo; else it is another at each start.",
)
@click.option(
    "--token-lifetime",
    "lifetime_s",
    type=click.IntRange(1, 86400),
    default=60,
    help="How many seconds a token lives.",
)
def command(port: int | None, servers: int | None, secret: Path | None, lifetime_s: int) -> None:
    """Run a demo: an authorization server, an API, and bearerd.

    Loopback only. It prints three commands to try.

    Example: bearerd demo
    """
    if servers is not None:
        serve_servers(servers, secret, lifetime_s)
    elif secret is not None:
        raise click.UsageError("--client-secret-file goes with --servers; write both")
    else:
        serve_demo(port, lifetime_s)


def serve_demo(port: int | None, lifetime_s: int = 60) -> None:
    """Run the demo until SIGINT or SIGTERM; its three commands to try go to standard output."""
    from bearerd import logs, loop, serving
    from bearerd.demo.authorization_server import Lifetimes
    from bearerd.demo.world import Demo

    async def main() -> None:
        async with Demo.start(Lifetimes(access_s=lifetime_s)) as demo:
            configuration = demo.configuration(DEFAULT_PORT if port is None else port)
            logs.write_aside()
            logs.configure(configuration.log)
            await serving.serve(configuration, lambda running: click.echo(demo.first_lines(running.port)))

    loop.run(main())


def serve_servers(port: int, secret: Path | None, lifetime_s: int) -> None:
    """Run the authorization server on `port` and the API on the next one, until SIGINT or SIGTERM. Raises BearerdError."""
    from bearerd import logs, loop, serving
    from bearerd.core.configuration import Logging
    from bearerd.core.redaction import Secret
    from bearerd.demo.authorization_server import Lifetimes
    from bearerd.demo.world import Demo
    from bearerd.errors import BearerdError

    async def main() -> None:
        try:
            async with Demo.start(Lifetimes(access_s=lifetime_s), (port, port + 1), given) as demo:
                click.echo(f"authorization server {demo.issuer}, API {demo.api_url}")
                with serving.Signals() as signals:
                    await signals.first.wait()
        except OSError as exc:
            reason = os.strerror(exc.errno or 0)
            raise BearerdError(
                f"port {port} or {port + 1}: {reason}; choose another with --servers"
            ) from None

    given = None if secret is None else Secret(secret.read_text(encoding="utf-8").strip())
    logs.configure(Logging())
    loop.run(main())
