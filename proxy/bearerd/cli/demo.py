"""`bearerd demo`: an authorization server, an API that wants its tokens, and bearerd between it and you."""

import click

from bearerd.cli import port_option
from bearerd.core.reaching import DEFAULT_PORT


@click.command("demo")
@port_option
def command(port: int | None) -> None:
    """Run a demo: an authorization server, an API, and bearerd.

    Loopback only. It prints three commands to try.

    Example: bearerd demo
    """
    serve_demo(port)


def serve_demo(port: int | None) -> None:
    """Run the demo until SIGINT or SIGTERM; its three commands to try go to standard output."""
    from bearerd import logs, loop, serving
    from bearerd.demo.world import Demo

    async def main() -> None:
        async with Demo.start() as demo:
            configuration = demo.configuration(DEFAULT_PORT if port is None else port)
            logs.write_aside()
            logs.configure(configuration.log)
            await serving.serve(configuration, lambda running: click.echo(demo.first_lines(running.port)))

    loop.run(main())
