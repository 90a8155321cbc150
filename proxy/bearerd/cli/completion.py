"""`bearerd completion`: what a shell needs to complete commands, options, accounts and routes."""

from typing import Final

import click

SHELLS: Final = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print a completion script for SHELL.

    By it SHELL completes commands, options, accounts and routes.

    \b
    bash:  bearerd completion bash > ~/.local/share/bash-completion/completions/bearerd
    zsh:   bearerd completion zsh > ~/.zfunc/_bearerd    (with fpath+=~/.zfunc before compinit in ~/.zshrc)
    fish:  bearerd completion fish > ~/.config/fish/completions/bearerd.fish

    It holds from the next shell on.

    Example: eval "$(bearerd completion bash)"
    """  # noqa: D301  # click's mark of lines that stay as they are
    from click.shell_completion import BashComplete, ShellComplete, get_completion_class

    from bearerd.cli import main

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  # each of SHELLS has one
    complete = kind(main, {}, "bearerd", "_BEARERD_COMPLETE")
    # Bash's own would first start bash, to see how old it is.
    source = ShellComplete.source(complete) if isinstance(complete, BashComplete) else complete.source()
    click.echo(source)
